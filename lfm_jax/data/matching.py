"""A user's keypoints to those of a category: by name, in any order and number.

Points that the input lacks are hidden; names that the category lacks are handed back,
so that they can be said.
"""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_jax.config import suggest
from lfm_jax.data.readers import Keypoints2D
from lfm_jax.data.views import MIN_VISIBLE
from lfm_jax.errors import LfmError
from lfm_jax.types import Skeleton


def match_keypoints(
    names: Sequence[str],
    skeleton: Skeleton,
    renames: Mapping[str, str] | None = None,
    source: str = "input",
) -> Int[np.ndarray, "n"]:
    """Where each named keypoint of the input is in the category; -1 for nowhere.

    Names are compared exactly, then without regard to case where that leaves one.
    `renames` gives the category's name for names of the input.

    Raises:
        LfmError: a rename of or to a name that does not exist, two names for one
            keypoint, or fewer names in common than a frame needs points.
    """
    renames = renames or {}
    _check_renames(names, skeleton, renames, source)
    index = _places([renames.get(name, name) for name in names], skeleton)
    strange = [name for name, i in zip(names, index, strict=True) if i < 0]
    if (known := len(names) - len(strange)) < min(MIN_VISIBLE, len(skeleton.keypoints)):
        raise LfmError(
            f"{source}: {f'only {known}' if known else 'none'} of its keypoint names "
            f"{'are' if known else 'is'} of category '{skeleton.name}' "
            f"({', '.join(skeleton.keypoints)}), and {MIN_VISIBLE} must be; not of it "
            f"are {', '.join(strange) or 'none'}: map them with --map theirs=ours"
            f"{_guess(strange, skeleton)}."
        )
    places, counts = np.unique(index[index >= 0], return_counts=True)
    if (counts > 1).any():
        place = places[counts > 1][0]
        both = "' and '".join(names[i] for i in np.flatnonzero(index == place)[:2])
        raise LfmError(
            f"{source}: '{both}' both mean keypoint '{skeleton.keypoints[place]}' of "
            f"category '{skeleton.name}': keep or map one of them."
        )
    return index


def arrange(
    keypoints: Keypoints2D, skeleton: Skeleton, renames: Mapping[str, str]
) -> tuple[Float[np.ndarray, "f n 2"], Bool[np.ndarray, "f n"], tuple[str, ...]]:
    """Points and visibility in the category's order, and the names it lacks.

    Raises:
        LfmError: as `match_keypoints`; without names, a count that does not fit.
    """
    count = len(skeleton.keypoints)
    names = keypoints.names
    if names is None:
        if renames:
            raise LfmError(f"{keypoints.source} has no keypoint names to map.")
        if keypoints.points2d.shape[1] != count:
            raise LfmError(
                f"{keypoints.source} has {keypoints.points2d.shape[1]} keypoints "
                f"without names, but category '{skeleton.name}' has {count}: give "
                "names to match by."
            )
        return keypoints.points2d, keypoints.visible, ()
    index = match_keypoints(names, skeleton, renames, keypoints.source)
    known = index >= 0
    frames = len(keypoints.points2d)
    points2d = np.zeros((frames, count, 2), np.float32)
    visible = np.zeros((frames, count), bool)
    points2d[:, index[known]] = keypoints.points2d[:, known]
    visible[:, index[known]] = keypoints.visible[:, known]
    unknown = tuple(n for n, k in zip(names, known, strict=True) if not k)
    return points2d, visible, unknown


def nearest(
    names: Sequence[str], skeletons: Sequence[Skeleton]
) -> tuple[list[Skeleton], int]:
    """The categories whose keypoint names are the most alike, and how many they share.

    Shared names are counted as a share of all that either has, or a category with many
    keypoints would win too often. Several where names cannot tell, as of four-legged
    animals with the same keypoints; none where no category shares any name.
    """
    best, most, count = [], 0.0, 0
    for skeleton in skeletons:
        places = _places(names, skeleton)
        shared = len(set(places[places >= 0]))
        share = shared / (len(names) + len(skeleton.keypoints) - shared)
        if share > most:
            best, most, count = [], share, shared
        if shared and share == most:
            best.append(skeleton)
    return best, count


def _places(names: Sequence[str], skeleton: Skeleton) -> Int[np.ndarray, "n"]:
    exact = {name: i for i, name in enumerate(skeleton.keypoints)}
    folded = {}
    for name, i in exact.items():
        folded[name.casefold()] = -1 if name.casefold() in folded else i
    return np.array([exact.get(n, folded.get(n.casefold(), -1)) for n in names], int)


def _check_renames(
    names: Sequence[str], skeleton: Skeleton, renames: Mapping[str, str], source: str
) -> None:
    for theirs, ours in renames.items():
        if theirs not in names:
            raise LfmError(
                f"{source} has no keypoint '{theirs}' to map{suggest(theirs, names)}."
            )
        if ours not in skeleton.keypoints:
            raise LfmError(
                f"The category '{skeleton.name}' has no keypoint '{ours}' to map "
                f"'{theirs}' to{suggest(ours, skeleton.keypoints)}."
            )


def _guess(names: Sequence[str], skeleton: Skeleton) -> str:
    for name in names:
        for close in difflib.get_close_matches(name, skeleton.keypoints, n=1):
            return f", perhaps --map {name}={close}"
    return ""
