"""A category of one's own: what was tracked in several files, as a keypoint archive.

Every individual of every file becomes a clip of its own. All have the keypoints of the
first, in any order; what one lacks is hidden in its frames.
"""

import re
from collections.abc import Sequence

import numpy as np

from lfm_jax.config import suggest
from lfm_jax.data.archive import Category
from lfm_jax.data.matching import arrange
from lfm_jax.data.readers import Keypoints2D
from lfm_jax.errors import LfmError
from lfm_jax.types import Skeleton


def collect(
    individuals: Sequence[Keypoints2D], name: str, edges: Sequence[tuple[str, str]] = ()
) -> Category:
    """One category from the 2D of these individuals, in the order given.

    Args:
        individuals: what `data.readers.read_keypoints` gave, of one file or several.
        name: of the category; letters, digits, "_" and "-".
        edges: pairs of keypoints that are joined, to be drawn.

    Raises:
        LfmError: a name that cannot be one of a file, an unknown keypoint in an edge,
            or keypoints that are not those of the first.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise LfmError(
            f"'{name}' cannot be the name of a category: use letters, digits, _ and -."
        )
    first = individuals[0]
    count = first.points2d.shape[1]
    names = first.names or tuple(f"keypoint_{i}" for i in range(count))
    skeleton = Skeleton(name, tuple(names))
    clips = []
    for one in individuals:
        for other in one.names or ():
            if other.casefold() not in {name.casefold() for name in names}:
                raise LfmError(
                    f"{one.source}: keypoint '{other}' is none of {first.source}"
                    f"{suggest(other, names)}: all files must have the same."
                )
        points2d, visible, _ = arrange(one, skeleton, {})
        clips.append((points2d, visible))
    lengths = [len(points2d) for points2d, _ in clips]
    return Category(
        name=name,
        keypoints=skeleton.keypoints,
        edges=_indices(edges, skeleton),
        units="unit",
        sequence=np.repeat(np.arange(len(clips), dtype=np.int32), lengths),
        points2d=np.concatenate([p for p, _ in clips]).astype(np.float32),
        visibility=np.concatenate([v for _, v in clips]),
    )


def _indices(edges: Sequence[tuple[str, str]], skeleton: Skeleton) -> np.ndarray:
    for end in (end for edge in edges for end in edge):
        if end not in skeleton.keypoints:
            raise LfmError(
                f"--edge names '{end}', which is no keypoint"
                f"{suggest(end, skeleton.keypoints)}."
            )
    places = [[skeleton.keypoints.index(end) for end in edge] for edge in edges]
    return np.array(places, np.int32).reshape(-1, 2)
