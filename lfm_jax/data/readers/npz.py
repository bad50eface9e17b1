"""Keypoint archives (.npz) with 2D: docs/data.md, and `scores` and `fps`."""

import pathlib
from collections.abc import Sequence

import numpy as np

from lfm_jax.data.readers.keypoints import Keypoints2D, keypoints2d, likely
from lfm_jax.errors import LfmError

_KEYS = ("points2d", "projected2d", "visibility", "scores", "names", "fps")


def read(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    """The one individual of an archive."""
    arrays, others = _load_arrays(path, _KEYS)
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


def _load_arrays(
    path: pathlib.Path, keys: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays under `keys` that the file has, and the names of its other arrays."""
    try:
        # Opened here: np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in keys if key in archive.files}
            return arrays, [key for key in archive.files if key not in keys]
    # Damaged bytes reach zipfile, zlib, struct and the header's parser, and each has
    # exceptions of its own.
    except Exception as error:
        pickled = "pickle" in str(error)
        reason = "holds pickled objects" if pickled else "is damaged or no npz file"
        raise LfmError(
            f"{path} {reason}: write it again with numpy.savez and plain arrays."
        ) from error
