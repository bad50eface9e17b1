"""The categories of a trained model, kept beside its checkpoints.

`skeletons.json` holds one object per category, in the order of the category ids: what
`types.Skeleton` says, and `has_truth`, whether the category came with 3D that could
tell a shape from its mirror image in depth.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from lfm_jax import workdir
from lfm_jax.errors import LfmError
from lfm_jax.types import Skeleton


def write_skeletons(
    path: pathlib.Path, skeletons: Sequence[Skeleton], has_truth: Sequence[bool]
) -> None:
    """Write the categories atomically; `has_truth` says which came with 3D.

    Raises:
        LfmError: the file is there and holds others: no model is given new names.
    """
    rows = [
        {**dataclasses.asdict(skeleton), "has_truth": bool(known)}
        for skeleton, known in zip(skeletons, has_truth, strict=True)
    ]
    if not path.exists():
        workdir.write_json(path, rows)
    elif workdir.read_json(path) != json.loads(json.dumps(rows)):
        raise LfmError(
            f"{path.parent} belongs to another run: the categories or keypoints in its "
            f"{path.name} are not those of the data; choose another --workdir."
        )


def read_skeletons(
    path: pathlib.Path,
) -> tuple[tuple[Skeleton, ...], tuple[bool, ...]]:
    """The categories and which of them came with 3D.

    Raises:
        LfmError: the file is missing or damaged.
    """
    rows = workdir.read_json(path)
    try:
        skeletons = tuple(_skeleton(row) for row in rows)
        return skeletons, tuple(bool(row["has_truth"]) for row in rows)
    except (ValueError, TypeError, KeyError) as error:
        raise LfmError(
            f"{path} does not describe the categories of a model; run the training "
            "command with this work directory again."
        ) from error


def _skeleton(row: dict) -> Skeleton:
    return Skeleton(
        name=row["name"],
        keypoints=tuple(row["keypoints"]),
        edges=tuple((int(i), int(j)) for i, j in row["edges"]),
        units=row["units"],
    )
