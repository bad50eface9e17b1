"""The keypoint archive: a folder of .npz files, one per category.

f frames, n keypoints, e edges, v real cameras. The format is described in docs/data.md.
Files come from strangers: nothing is ever unpickled, and whatever is wrong with one is
said in a sentence with the file, the frame and the keypoint. A point with a NaN
coordinate is missing; an infinite one is an error.
"""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lfm_jax.data.arrays import read_arrays
from lfm_jax.errors import LfmError
from lfm_jax.types import Skeleton
from lfm_jax.workdir import replacing

UNITS = ("mm", "unit")
REQUIRED = ("sequence", "names", "edges", "units")
POINTS = {  # key in the file: its shape; all are floating point
    "points3d": "fn3",
    "points2d": "fn2",
    "points2d_views": "vfn2",
    "projected2d": "fn2",
    "projected2d_views": "vfn2",
}
MASKS = {"visibility": "fn", "visibility_views": "vfn"}


@dataclasses.dataclass(frozen=True)
class Category:
    """One category as it lies in its file; None where the file has no such key.

    Attributes:
        name: the file's name without its ending.
        keypoints: one name per keypoint.
        edges: pairs of keypoint indices; may be empty.
        units: "mm" or "unit", of points3d.
        sequence: the clip of each frame; frames of a clip are consecutive.
        points3d: NaN where missing, in the source's world frame.
        points2d: 2D really observed in images.
        visibility: for the view in points2d or projected2d.
        points2d_views, visibility_views: the same for all real cameras.
        projected2d, projected2d_views: exact projections of points3d by real cameras.
        specimen: the individual of each frame.
        up: the upward direction of the world.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: Int[np.ndarray, "e 2"]
    units: str
    sequence: Int[np.ndarray, "f"]
    points3d: Float[np.ndarray, "f n 3"] | None = None
    points2d: Float[np.ndarray, "f n 2"] | None = None
    visibility: Bool[np.ndarray, "f n"] | None = None
    points2d_views: Float[np.ndarray, "v f n 2"] | None = None
    visibility_views: Bool[np.ndarray, "v f n"] | None = None
    projected2d: Float[np.ndarray, "f n 2"] | None = None
    projected2d_views: Float[np.ndarray, "v f n 2"] | None = None
    specimen: Shaped[np.ndarray, "f"] | None = None
    up: Float[np.ndarray, "3"] | None = None

    @property
    def skeleton(self) -> Skeleton:
        """What the keypoints are, without the frames."""
        edges = tuple((int(a), int(b)) for a, b in self.edges)
        return Skeleton(self.name, self.keypoints, edges, self.units)


def read_folder(folder: str | os.PathLike, only: str = "") -> list[Category]:
    """All categories of a folder in the order of their names.

    Args:
        folder: where the .npz files are.
        only: comma-separated category names to keep; empty for all.

    Raises:
        LfmError: no such folder, no archive in it, an unknown name, a damaged file.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise LfmError(f"{folder} is not a folder: give the folder of the .npz files.")
    # names with a dot in front are companions that some systems leave behind
    paths = {path.stem: path for path in sorted(folder.glob("[!.]*.npz"))}
    if not paths:
        raise LfmError(f"no .npz file in {folder}: give a folder of keypoint archives.")
    return [read_category(paths[name]) for name in select(list(paths), only)]


def select(names: Sequence[str], only: str) -> list[str]:
    """The names that a comma-separated list keeps, in their own order.

    Raises:
        LfmError: a name in the list that is not there, with the nearest that is.
    """
    wanted = {name.strip() for name in only.split(",")} - {""}
    for name in sorted(wanted - set(names)):
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        mend = (
            f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
        )
        raise LfmError(f"unknown category {name!r} in data.only: {mend}")
    return [name for name in names if name in wanted or not wanted]


def read_category(path: str | os.PathLike) -> Category:
    """One archive file, checked.

    Raises:
        LfmError: missing, damaged or pickled file, missing keys, wrong shapes, names
            that do not fit, edges out of range, infinite coordinates.
    """
    path = pathlib.Path(path)
    arrays = _load(path)
    missing = [key for key in REQUIRED if key not in arrays]
    if not any(key in arrays for key in POINTS):
        missing.append("points3d (or points2d)")
    if missing:
        raise LfmError(f"{path} lacks {', '.join(missing)}: see docs/data.md.")
    try:
        fields = dict(
            name=path.stem,
            keypoints=_names(arrays["names"]),
            edges=_cast(arrays, "edges", "iu", np.int32),
            units=str(arrays["units"]),
            sequence=_cast(arrays, "sequence", "iu", np.int32),
            specimen=_specimen(arrays.get("specimen")),
            up=_cast(arrays, "up", "fiu", np.float32),
            **{key: _cast(arrays, key, "fiu", np.float32) for key in POINTS},
            **{key: _cast(arrays, key, "biu", np.bool_) for key in MASKS},
        )
        _check(fields)
    except LfmError as error:
        raise LfmError(f"{path}: {error}") from None
    return Category(**fields)


def write_category(path: str | os.PathLike, category: Category) -> None:
    """Writes one archive file, whole or not at all.

    Raises:
        LfmError: an invalid category, or a place that cannot be written.
    """
    _check(vars(category))
    arrays = {
        key: getattr(category, key) for key in (*POINTS, *MASKS, "specimen", "up")
    }
    arrays = {key: array for key, array in arrays.items() if array is not None}
    arrays |= {"sequence": category.sequence, "edges": category.edges}
    arrays |= {"names": np.array(category.keypoints), "units": np.array(category.units)}
    path = pathlib.Path(path)
    try:
        with replacing(path) as beside, open(beside, "wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise LfmError(
            f"cannot write {path} ({error.strerror}): check space and rights there."
        ) from error


# --------------------------------------------------------------------------- details


def _load(path):
    if not path.is_file():
        raise LfmError(f"{path} does not exist: check the path.")
    return read_arrays(path, {*REQUIRED, *POINTS, *MASKS, "specimen", "up"})[0]


def _names(names):
    if names.ndim != 1 or names.dtype.kind != "U":
        raise LfmError("names is not a list of strings: give one name per keypoint.")
    return tuple(names.tolist())


def _specimen(specimen):
    if specimen is not None and specimen.dtype.kind not in "iuU":
        raise LfmError("specimen is neither numbers nor strings: name each individual.")
    return specimen


def _cast(arrays, key, kinds, dtype):
    if key not in arrays:
        return None
    if arrays[key].dtype.kind not in kinds:
        raise LfmError(
            f"{key} is of type {arrays[key].dtype}: save it as {dtype.__name__}."
        )
    cast = arrays[key].astype(dtype, copy=False)
    if kinds == "iu" and not np.array_equal(cast, arrays[key]):
        raise LfmError(f"{key} has numbers that do not fit {dtype.__name__}.")
    return cast


def _check(fields):
    """Raises the sentence of the first thing that is wrong with a category's fields."""
    keypoints, sequence, up = fields["keypoints"], fields["sequence"], fields["up"]
    if sequence.ndim != 1:
        raise LfmError("sequence is not a list: give one clip number per frame.")
    sizes = {"f": len(sequence), "n": len(keypoints)}
    if not sizes["f"] or not sizes["n"]:
        raise LfmError("no frames or no keypoints: leave the file out.")
    if fields["units"] not in UNITS:
        raise LfmError(f"units are {fields['units']!r}: write 'mm' or 'unit'.")
    for key, axes in (POINTS | MASKS | {"specimen": "f", "up": "3"}).items():
        if fields[key] is not None:
            _check_shape(key, fields[key].shape, axes, sizes)
    for key in POINTS:
        if fields[key] is not None:
            _check_finite(key, fields[key], keypoints)
    if up is not None and not 0 < np.linalg.norm(up) < np.inf:
        raise LfmError("up has no direction: give a finite vector, or leave it out.")
    _check_names(keypoints)
    _check_edges(fields["edges"], sizes["n"])
    _check_clips(sequence)


def _check_shape(key, shape, axes, sizes):
    """Axes are sizes that are known, or are learned here: v is, from the first."""
    expected = tuple(int(a) if a.isdigit() else sizes.get(a, a) for a in axes)
    fits = len(shape) == len(expected) and all(
        isinstance(want, str) or have == want
        for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in expected)
        raise LfmError(
            f"{key} has shape {list(shape)} where [{wanted}] is needed ({sizes['f']} "
            f"frames in sequence, {sizes['n']} names): mend that array."
        )
    sizes |= dict(zip(axes, shape, strict=True))


def _check_finite(key, points, keypoints):
    infinite = np.isinf(points).any(axis=-1)
    if infinite.any():
        *_, frame, keypoint = np.argwhere(infinite)[0]
        raise LfmError(
            f"{key} is infinite at frame {frame}, keypoint "
            f"{keypoints[keypoint]!r}: write NaN where a point is missing."
        )


def _check_names(keypoints):
    repeated = next((name for name in keypoints if keypoints.count(name) > 1), None)
    if repeated is not None:
        raise LfmError(f"two keypoints are called {repeated!r}: names tell them apart.")


def _check_edges(edges, keypoints):
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise LfmError(f"edges has shape {list(edges.shape)} where [e, 2] is needed.")
    wrong = edges[((edges < 0) | (edges >= keypoints)).any(axis=1)]
    if len(wrong):
        raise LfmError(
            f"edge {wrong[0].tolist()} is out of range: keypoints are numbered 0 to "
            f"{keypoints - 1}."
        )


def _check_clips(sequence):
    starts = np.flatnonzero(np.diff(sequence, prepend=sequence[0] - 1))
    _, first = np.unique(sequence[starts], return_index=True)
    if len(first) != len(starts):
        again = starts[np.setdiff1d(np.arange(len(starts)), first)[0]]
        raise LfmError(
            f"clip {sequence[again]} goes on at frame {again} after another clip: sort "
            "the frames so that those of one clip are consecutive."
        )
