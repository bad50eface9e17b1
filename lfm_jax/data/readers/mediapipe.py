"""Landmarks of MediaPipe, written as JSON (.json).

MediaPipe itself writes no files. What is read is what its results become when dumped
frame by frame: a list (or an object with a list `frames`) in which every frame is the
list of landmarks, or has it under a name such as `landmark` or `pose_landmarks`; a
landmark is an object with x, y and, for poses, `visibility`. Coordinates are shares of
the image's width and height. A frame in which nobody was found is empty or null.
"""

import pathlib

import numpy as np
from jaxtyping import Float

from lfm_jax.data.readers.keypoints import Keypoints2D, keypoints2d, likely
from lfm_jax.errors import LfmError

_HOLDERS = (
    *("landmark", "landmarks", "pose_landmarks", "poseLandmarks"),
    *("hand_landmarks", "handLandmarks", "multi_hand_landmarks", "multiHandLandmarks"),
)
_FACE = (
    *("nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner"),
    *("right_eye", "right_eye_outer", "left_ear", "right_ear"),
    *("mouth_left", "mouth_right"),
)
_BODY = (
    *("shoulder", "elbow", "wrist", "pinky", "index", "thumb"),
    *("hip", "knee", "ankle", "heel", "foot_index"),
)
_FINGERS = ("index_finger", "middle_finger", "ring_finger", "pinky")
_POSE = (*_FACE, *(f"{side}_{part}" for part in _BODY for side in ("left", "right")))
_HAND = (
    *("wrist", "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
    *(f"{name}_{joint}" for name in _FINGERS for joint in ("mcp", "pip", "dip", "tip")),
)
_PLACES = 10_000  # individuals times frames
_NAMES = {len(names): names for names in (_POSE, _HAND)}


def frames_of(content: object) -> list[list[list[dict]]]:
    """Landmarks of every individual in every frame; empty where these are none."""
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list):
        return []
    people = [_people(frame) for frame in frames]
    return people if any(people) else []


def _people(value: object, depth: int = 4) -> list[list[dict]]:
    """The lists of landmarks somewhere within a frame."""
    if isinstance(value, dict):
        value = next((value[key] for key in _HOLDERS if key in value), None)
        return _people(value, depth - 1) if depth else []
    if not isinstance(value, list) or not value or not depth:
        return []
    if all(isinstance(item, dict) and {"x", "y"} <= item.keys() for item in value):
        return [value]
    return [found for item in value for found in _people(item, depth - 1)]


def read(
    path: pathlib.Path, frames: list[list[list[dict]]], threshold: float
) -> list[Keypoints2D]:
    """One individual for each place in a frame; MediaPipe does not track them."""
    count = len(next(people[0] for people in frames if people))
    individuals = max(map(len, frames))
    _refuse_empty(path, individuals * len(frames), sum(map(len, frames)))
    table = np.full((individuals, len(frames), count, 3), np.nan)
    for number, people in enumerate(frames):
        for place, landmarks in enumerate(people):
            if len(landmarks) != count:
                raise LfmError(
                    f"{path}, frame {number}: {len(landmarks)} landmarks where an "
                    f"earlier frame has {count}: put poses and hands into different "
                    "files."
                )
            table[place, number] = [
                _numbers(path, number, i, mark) for i, mark in enumerate(landmarks)
            ]
    if not np.nan_to_num(table[..., 2]).any():  # Hands have no visibility.
        table[..., 2] = 1
    return [
        keypoints2d(
            rows[..., :2],
            likely(rows[..., :2], rows[..., 2], threshold, str(path)),
            _NAMES.get(count),
            source=str(path),
            individual=f"{i}" if individuals > 1 else "",
            kind="MediaPipe landmarks",
        )
        for i, rows in enumerate(table)
    ]


def _refuse_empty(path: pathlib.Path, places: int, filled: int) -> None:
    """A frame of thousands would make as many individuals, in all other frames too."""
    if places > max(_PLACES, 100 * filled):
        raise LfmError(
            f"{path} has {filled} bodies or hands in {places} places: give fewer "
            "individuals in a file."
        )


def _numbers(
    path: pathlib.Path, frame: int, place: int, landmark: dict
) -> Float[np.ndarray, "3"]:
    values = [landmark["x"], landmark["y"], landmark.get("visibility") or 0]
    if not all(isinstance(value, int | float) for value in values):
        raise LfmError(
            f"{path}, frame {frame}, landmark {place}: x, y and visibility must be "
            "numbers."
        )
    try:
        return np.array(values, float)
    except OverflowError:
        return np.array((np.inf, np.inf, 1))  # Refused as infinite.
