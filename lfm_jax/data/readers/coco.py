"""COCO keypoint files (.json): annotations with categories, or a list of results.

Every annotation is a frame: COCO does not say which of them are the same individual.
"""

import pathlib

import numpy as np
from jaxtyping import Float

from lfm_jax.data.readers.keypoints import Keypoints2D, as_array, keypoints2d
from lfm_jax.errors import LfmError

_TRIPLET = "x, y, v for every keypoint"


def read(path: pathlib.Path, content: object, threshold: float) -> list[Keypoints2D]:
    """Annotations of a COCO keypoint file, or a plain list of COCO results.

    A row of a results list has a score in the place of v; 1 and 2 are over any
    threshold.
    """
    annotations, categories = _parts(path, content)
    names = _names(path, annotations, categories)
    labels = [_label(i, annotation) for i, annotation in enumerate(annotations)]
    rows = [_triplets(path, *pair) for pair in zip(labels, annotations, strict=True)]
    for label, row in zip(labels, rows, strict=True):
        if len(row) != len(rows[0]):
            raise LfmError(
                f"{path}, {label}: {len(row)} keypoints where {labels[0]} has "
                f"{len(rows[0])}: put different kinds of objects into different files."
            )
    table = np.stack(rows)
    # A negative or zero v is hidden even if the threshold is 0.
    visible = (table[..., 2] >= threshold) & (table[..., 2] > 0)
    points = table[..., :2]
    return [
        keypoints2d(
            points,
            visible,
            names,
            labels=labels,
            source=str(path),
            kind="COCO keypoints",
        )
    ]


def _parts(path: pathlib.Path, content: object) -> tuple[list[dict], list[dict]]:
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


def _names(
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
    flat = as_array(annotation.get("keypoints"))
    if flat.dtype.kind not in "fiu" or flat.ndim != 1 or not flat.size or flat.size % 3:
        raise LfmError(f"{path}, {label}: `keypoints` must be {_TRIPLET}.")
    triplets = flat.reshape(-1, 3).astype(np.float64)
    unknown = np.flatnonzero(np.isnan(triplets[:, 2]))
    if len(unknown):
        raise LfmError(
            f"{path}, {label}: the visibility of keypoint {unknown[0]} is not a "
            "number: write 0 where it is hidden."
        )
    return triplets
