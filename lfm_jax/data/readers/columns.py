"""Columns of numbers, one for each coordinate of a keypoint, to keypoints.

DeepLabCut's tables and plain ones differ in how they name their columns; once named,
they are the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lfm_jax.data.readers.keypoints import Keypoints2D, keypoints2d, likely
from lfm_jax.errors import LfmError

SCORES = ("likelihood", "score", "confidence", "visibility")
COORDINATES = ("x", "y", *SCORES)


class Column(NamedTuple):
    """What a column holds; `coordinate` is one of COORDINATES."""

    individual: str
    keypoint: str
    coordinate: str

    def __str__(self) -> str:
        return " ".join(filter(None, self))


def from_columns(
    columns: Sequence[Column],
    values: Float[np.ndarray, "f c"],
    *,
    threshold: float,
    source: str,
    labels: Sequence[str] | None,
    frames: Int[np.ndarray, "f"],
    kind: str,
) -> list[Keypoints2D]:
    """The individuals of a table, in its order; frames without numbers are hidden.

    Raises:
        LfmError: a column is there twice or its partner is missing, or as
            `keypoints2d`.
    """
    places, of = {}, {}
    for place, column in enumerate(columns):
        if column in places:
            raise LfmError(f"{source} has two columns '{column}': keep one.")
        places[column] = place
        of.setdefault(column.individual, []).append(column)
    found = []
    for individual, own in of.items():
        names = tuple(dict.fromkeys(column.keypoint for column in own))
        points, scores = _gather(individual, names, places, values, source)
        found.append(
            keypoints2d(
                points,
                likely(points, scores, threshold, source),
                names,
                labels=labels,
                source=f"{source} ({individual})" if individual else source,
                frames=frames,
                individual=individual,
                kind=kind,
            )
        )
    return found


def _gather(
    individual: str,
    names: Sequence[str],
    places: dict[Column, int],
    values: Float[np.ndarray, "f c"],
    source: str,
) -> tuple[Float[np.ndarray, "f n 2"], Float[np.ndarray, "f n"]]:
    """Coordinates and likelihoods; a keypoint without likelihoods is certain."""
    points = np.empty((len(values), len(names), 2))
    scores = np.ones((len(values), len(names)))
    for k, name in enumerate(names):
        for axis, coordinate in enumerate("xy"):
            column = Column(individual, name, coordinate)
            if column not in places:
                raise LfmError(
                    f"{source} has no column '{column}', though it has others of "
                    f"'{name}': add it."
                )
            points[:, k, axis] = values[:, places[column]]
        for coordinate in SCORES:
            place = places.get(Column(individual, name, coordinate))
            if place is not None:
                scores[:, k] = values[:, place]
    return points, scores
