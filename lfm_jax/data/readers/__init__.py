"""Readers of a user's 2D keypoints; docs/files.md says which files.

Files are untrusted: nothing is ever unpickled, and whatever is wrong with one is an
`LfmError`.
"""

import json
import os
import pathlib

from lfm_jax.data.readers import apart, coco, mediapipe, npz, table
from lfm_jax.data.readers.keypoints import (
    THRESHOLD,
    Keypoints2D,
    in_pixels,
    keypoints2d,
)
from lfm_jax.errors import LfmError

__all__ = ["KINDS", "THRESHOLD", "Keypoints2D", "keypoints2d", "read_keypoints"]


def read_keypoints(
    path: str | os.PathLike,
    *,
    threshold: float = THRESHOLD,
    image_size: tuple[int, int] | None = None,
) -> tuple[Keypoints2D, ...]:
    """Read the 2D keypoints of every individual in a file.

    Args:
        path: the file; its suffix is one of `KINDS`.
        threshold: points less likely than this count as missing, where the file gives
            likelihoods.
        image_size: width and height in pixels of the image, where coordinates are
            shares of them, as MediaPipe's are; None where they are in pixels.

    Returns:
        The individuals, in the order of the file; at least one has a visible point.

    Raises:
        LfmError: the file does not exist, is damaged, is of another kind, or holds
            something other than finite 2D keypoints; names the place in the file.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in KINDS:
        known = ", ".join(f"{suffix} ({kind})" for suffix, kind in KINDS.items())
        raise LfmError(f"{path} is of an unknown kind: {known} are read.")
    if not path.is_file():
        raise LfmError(f"{path} does not exist or is not a file: check the path.")
    if not 0 <= threshold <= 1:
        raise LfmError(f"The threshold {threshold:g} must be between 0 and 1.")
    _, read = _READERS[path.suffix.lower()]
    individuals = read(path, threshold)
    if not any(one.visible.any() for one in individuals):
        raise LfmError(
            f"{path} has no visible point: all are missing or less likely than "
            f"{threshold:g}; try a lower --threshold."
        )
    return tuple(in_pixels(one, image_size) for one in individuals)


def _read_json(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise LfmError(
            f"{path} is damaged or no JSON file ({error}): export it again."
        ) from error
    landmarks = mediapipe.frames_of(content)
    if landmarks:
        return mediapipe.read(path, landmarks, threshold)
    return coco.read(path, content, threshold)


# By suffix: what such files are, to be said, and who reads them.
_READERS = {
    ".npz": ("keypoint archive", npz.read),
    ".json": ("COCO keypoints or MediaPipe landmarks", _read_json),
    ".csv": ("table of DeepLabCut, or a plain one", table.read),
    ".h5": ("table of DeepLabCut or analysis of SLEAP", apart.read),
    ".slp": ("SLEAP", apart.read),
    ".nwb": ("NWB pose estimation", apart.read),
}
KINDS = {suffix: kind for suffix, (kind, _) in _READERS.items()}
