"""Keypoint archives (.npz) with 2D: docs/data.md, and `scores` and `fps`."""

import pathlib

import numpy as np

from lfm_jax.data.arrays import read_arrays
from lfm_jax.data.readers.keypoints import Keypoints2D, keypoints2d, likely
from lfm_jax.errors import LfmError

_KEYS = ("points2d", "projected2d", "visibility", "scores", "names", "fps")


def read(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    """The one individual of an archive."""
    arrays, others = read_arrays(path, _KEYS)
    points = arrays.get("points2d", arrays.get("projected2d"))
    if points is None:
        held = ", ".join(others) or "nothing"
        raise LfmError(
            f"{path} has no 2D keypoints (it holds {held}): lifting needs `points2d` "
            "of shape [frames, keypoints, 2]."
        )
    names = arrays.get("names")
    if names is not None and (names.dtype.kind != "U" or names.ndim != 1):
        raise LfmError(f"{path}: `names` must be one string per keypoint.")
    names = None if names is None else names.tolist()
    visible = arrays.get("visibility")
    if "scores" in arrays:
        visible = _confident(path, points, arrays["scores"], threshold)
    fps = arrays.get("fps", np.array(np.nan))
    if fps.dtype.kind not in "fiu" or fps.size != 1:
        raise LfmError(f"{path}: `fps` must be one number, the frames per second.")
    return [
        keypoints2d(
            points,
            visible,
            names,
            source=str(path),
            fps=float(fps.item()),
            kind="keypoint archive",
        )
    ]


def _confident(
    path: pathlib.Path, points: np.ndarray, scores: np.ndarray, threshold: float
) -> np.ndarray:
    if scores.dtype.kind != "f" or scores.shape != points.shape[:-1]:
        raise LfmError(
            f"{path}: `scores` is {scores.dtype} of shape {list(scores.shape)}, but "
            f"must be numbers of shape {list(points.shape[:-1])}."
        )
    return likely(points, scores, threshold, str(path))
