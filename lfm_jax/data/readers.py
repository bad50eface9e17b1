"""Readers of a user's 2D keypoints: keypoint archives (.npz) and COCO keypoint JSON.

One rule for missing points, whatever the file: a point is *visible* where the file
says so, or, where it says nothing, where both coordinates are numbers. A visible point
has two finite coordinates or the file is refused; a hidden point is zero and carries
no meaning. Files are untrusted: nothing is ever unpickled.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from lfm_jax.errors import LfmError

COCO_TRIPLET = "x, y, v for every keypoint"


@dataclasses.dataclass(frozen=True)
class Keypoints2D:
    """2D keypoints of one kind of object, as a user handed them in.

    Attributes:
        points2d: image coordinates, x right, y as in the source; zero where hidden.
        visible: which points are given.
        names: one name per keypoint, or None where the source gives none.
        labels: what to call each frame in a message.
        source: what to call the whole in a message, usually the path of the file.
    """

    points2d: Float[np.ndarray, "f n 2"]
    visible: Bool[np.ndarray, "f n"]
    names: tuple[str, ...] | None
    labels: tuple[str, ...]
    source: str


def read_keypoints(path: str | os.PathLike) -> Keypoints2D:
    """Read 2D keypoints from a keypoint archive or a COCO keypoint file.

    Raises:
        LfmError: the file does not exist, is damaged, is of another kind, or holds
            something other than finite 2D keypoints; names frame and keypoint.
    """
    path = pathlib.Path(path)
    reader = {".npz": _read_archive, ".json": _read_coco}.get(path.suffix.lower())
    if reader is None:
        raise LfmError(
            f"{path} is of an unknown kind: .npz (keypoint archive) and .json (COCO "
            "keypoints) are read."
        )
    if not path.is_file():
        raise LfmError(f"{path} does not exist or is not a file: check the path.")
    return reader(path)


def keypoints2d(
    points2d: ArrayLike,
    visible: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    source: str = "points2d",
) -> Keypoints2D:
    """Check arrays and make them Keypoints2D.

    Args:
        points2d: [f n 2] image coordinates.
        visible: [f n] which points are given; None means all that are not NaN.
        names: [n] keypoint names, or None.
        labels: [f] what to call each frame in a message; None means by number.
        source: what to call the whole in a message.

    Raises:
        LfmError: wrong shapes, no frames, or a visible point that is not finite.
    """
    points = _points(points2d, source)
    frames, count = points.shape[:2]
    labels = tuple(labels or (f"frame {i}" for i in range(frames)))
    names = None if names is None else tuple(names)
    if names is not None and len(names) != count:
        raise LfmError(
            f"{source} has {count} keypoints but {len(names)} names: give one name "
            "per keypoint."
        )
    shown = _visible(visible, points, source)
    broken = np.argwhere(shown & ~np.isfinite(points).all(-1))
    if len(broken):
        frame, keypoint = broken[0]
        called = f"'{names[keypoint]}'" if names else f"{keypoint}"
        raise LfmError(
            f"{source}, {labels[frame]}: keypoint {called} is visible but its "
            f"coordinates are {_coordinates(points[frame, keypoint])}: mark it hidden."
        )
    points = np.where(shown[..., None], points, np.float32(0))
    return Keypoints2D(points, shown, names, labels, source)


def _points(points2d: ArrayLike, source: str) -> Float[np.ndarray, "f n 2"]:
    points = _array(points2d)
    if points.dtype.kind not in "fiu" or points.ndim != 3 or points.shape[-1] != 2:
        raise LfmError(
            f"{source} holds {points.dtype} of shape {list(points.shape)}: 2D "
            "keypoints are numbers of shape [frames, keypoints, 2]."
        )
    if 0 in points.shape:
        missing = "frames" if points.shape[0] == 0 else "keypoints"
        raise LfmError(f"{source} has no {missing}: give at least one.")
    with np.errstate(over="ignore"):  # What overflows is refused as infinite.
        return points.astype(np.float32)


def _visible(
    visible: ArrayLike | None, points: Float[np.ndarray, "f n 2"], source: str
) -> Bool[np.ndarray, "f n"]:
    if visible is None:
        return ~np.isnan(points).any(-1)
    visible = _array(visible)
    if visible.dtype.kind not in "biu" or visible.shape != points.shape[:-1]:
        raise LfmError(
            f"{source}: visibility is {visible.dtype} of shape {list(visible.shape)}, "
            f"but must be true or false of shape {list(points.shape[:-1])}."
        )
    return visible > 0


def _array(value: object) -> np.ndarray:
    """As an array; ragged nested lists come out empty, which fits no shape."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.empty(0)


def _coordinates(point: Float[np.ndarray, "2"]) -> str:
    return f"({point[0]:g}, {point[1]:g})"


# ------------------------------------------------------------------ keypoint archive


def _read_archive(path: pathlib.Path) -> Keypoints2D:
    keys = ("points2d", "projected2d", "visibility", "names")
    arrays, others = _load_arrays(path, keys)
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
    return keypoints2d(points, arrays.get("visibility"), names, source=str(path))


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


# ------------------------------------------------------------- COCO keypoint JSON


def _read_coco(path: pathlib.Path) -> Keypoints2D:
    """Annotations of a COCO keypoint file, or a plain list of COCO results.

    A row of a results list has a score in the place of v; both mean hidden at zero.
    """
    annotations, categories = _load_coco(path)
    names = _coco_names(path, annotations, categories)
    labels = [_label(i, annotation) for i, annotation in enumerate(annotations)]
    rows = [_triplets(path, *pair) for pair in zip(labels, annotations, strict=True)]
    for label, row in zip(labels, rows, strict=True):
        if len(row) != len(rows[0]):
            raise LfmError(
                f"{path}, {label}: {len(row)} keypoints where {labels[0]} has "
                f"{len(rows[0])}: put different kinds of objects into different files."
            )
    table = np.stack(rows)
    return keypoints2d(
        table[..., :2], table[..., 2] > 0, names, labels=labels, source=str(path)
    )


def _load_coco(path: pathlib.Path) -> tuple[list[dict], list[dict]]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise LfmError(
            f"{path} is damaged or no JSON file ({error}): export it again."
        ) from error
    if isinstance(content, list):
        content = {"annotations": content}
    annotations, categories = (
        content.get(key, []) if isinstance(content, dict) else None
        for key in ("annotations", "categories")
    )
    if not _is_records(annotations) or not _is_records(categories):
        raise LfmError(
            f"{path} is no COCO keypoint file: it needs a list `annotations` of "
            "objects with `keypoints`, or to be such a list."
        )
    if not annotations:
        raise LfmError(f"{path} has no frames: `annotations` is missing or empty.")
    return annotations, categories


def _is_records(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _coco_names(
    path: pathlib.Path, annotations: list[dict], categories: list[dict]
) -> tuple[str, ...] | None:
    """The keypoint names of the categories in use; None where there are none."""
    named = {}
    for category in categories:
        names = category.get("keypoints", [])
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise LfmError(
                f"{path}: `keypoints` of a category must be a list of names."
            )
        if names:
            named[_identifier(category.get("id"))] = tuple(names)
    ids = (_identifier(annotation.get("category_id")) for annotation in annotations)
    used = {named[i] for i in ids if i in named}
    if len(used) > 1:
        raise LfmError(
            f"{path} holds {len(used)} kinds of objects with different keypoints: put "
            "each into a file of its own."
        )
    return used.pop() if used else None


def _label(position: int, annotation: dict) -> str:
    ids = (
        f"{word} {identifier}"
        for word, key in (("image", "image_id"), ("annotation", "id"))
        if (identifier := _identifier(annotation.get(key)))
    )
    given = ", ".join(ids)
    return f"frame {position} ({given})" if given else f"frame {position}"


def _identifier(value: object) -> str:
    return str(value) if isinstance(value, int | str) else ""


def _triplets(
    path: pathlib.Path, label: str, annotation: dict
) -> Float[np.ndarray, "n 3"]:
    """One annotation's keypoints, [x y v]; a v that is no number is refused here."""
    flat = _array(annotation.get("keypoints"))
    if flat.dtype.kind not in "fiu" or flat.ndim != 1 or not flat.size or flat.size % 3:
        raise LfmError(f"{path}, {label}: `keypoints` must be {COCO_TRIPLET}.")
    triplets = flat.reshape(-1, 3).astype(np.float64)
    unknown = np.flatnonzero(np.isnan(triplets[:, 2]))
    if len(unknown):
        raise LfmError(
            f"{path}, {label}: the visibility of keypoint {unknown[0]} is not a "
            "number: write 0 where it is hidden."
        )
    return triplets
