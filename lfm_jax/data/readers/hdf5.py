"""HDF5 files of 2D keypoints: DeepLabCut's tables (.h5) and NWB (.nwb).

DeepLabCut lets pandas write its tables, in one of two layouts: `fixed` keeps the titles
of the columns in arrays, `table` in pickled attributes. pandas would unpickle those,
and so run whatever an untrusted file asks for. Here the pickle's opcodes are read, of
which a list of tuples of strings has nine, and nothing is run; any other opcode is
refused.

NWB has one group of type PoseEstimation per individual, with one PoseEstimationSeries
per keypoint (the ndx-pose extension); DeepLabCut and SLEAP export it. It is read as
plain HDF5, without the classes that an NWB file may define.
"""

import contextlib
import pathlib
import pickletools
from collections.abc import Iterator

import h5py
import numpy as np
from jaxtyping import Float, Int

from lfm_jax.data.arrays import refuse_unfolding
from lfm_jax.data.readers import sleap
from lfm_jax.data.readers.keypoints import Keypoints2D, keypoints2d, likely
from lfm_jax.data.readers.table import deeplabcut, deeplabcut_columns
from lfm_jax.errors import LfmError


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[h5py.File]:
    """The file; whatever damage does to its reading is one kind of error."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except LfmError:
        raise
    # Damage shows as any of a dozen kinds of exception, depending on where it is.
    except Exception as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise LfmError(
            f"{path} is damaged or not of the expected kind ({reason}): export it "
            "again."
        ) from error


def refuse_traps(path: pathlib.Path) -> None:
    """Raises `LfmError` if a dataset claims to be many times larger than the file."""

    def check(_, item):
        if isinstance(item, h5py.Dataset) and item.shape:
            refuse_unfolding(path, item.size * item.dtype.itemsize)

    with _opened(path) as file:
        file.visititems(check)


def read(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    """The individuals of a DeepLabCut table, or of a SLEAP analysis file."""
    with _opened(path) as file:
        if "tracks" in file:
            return sleap.read_analysis(path, threshold)
        tables = [key for key in file if "pandas_type" in file[key].attrs]
        if len(tables) != 1:
            raise LfmError(
                f"{path} is neither a table of DeepLabCut nor an analysis file of "
                f"SLEAP (it holds {', '.join(file) or 'nothing'}): export it again."
            )
        group = file[tables[0]]
        layout = _read_table if "table" in group else _read_fixed
        titles, values, index = layout(group)
        if len(titles) != values.shape[1]:
            raise ValueError(f"{len(titles)} titles of {values.shape[1]} columns")
        if {len(title) for title in titles} not in ({3}, {4}):
            raise ValueError("titles without scorer, body part and coordinate")
    titles = [(title[1] if len(title) == 4 else "", *title[-2:]) for title in titles]
    if not len(values):
        raise LfmError(f"{path} has no frames: its table is empty.")
    columns = deeplabcut_columns(str(path), titles)
    return deeplabcut(path, columns, values, index, threshold)


_Table = tuple[list[tuple[str, ...]], Float[np.ndarray, "f c"], list[str]]


def _read_table(group: h5py.Group) -> _Table:
    rows = group["table"][:]
    titles, blocks = [], []
    for name in rows.dtype.names:
        if name.startswith("values_block_"):
            kind = np.asarray(group["table"].attrs[f"{name}_kind"])
            titles += _tuples(kind.tobytes())
            blocks.append(rows[name])
    return titles, np.concatenate(blocks, 1).astype(float), _texts(rows["index"])


def _read_fixed(group: h5py.Group) -> _Table:
    titles, blocks = [], []
    for i in range(int(group.attrs["nblocks"])):
        titles += _levels(group, f"block{i}_items")
        blocks.append(group[f"block{i}_values"][:])
    if "axis1" in group:
        index = _texts(group["axis1"][:])
    else:
        index = ["/".join(cells) for cells in _levels(group, "axis1")]
    return titles, np.concatenate(blocks, 1).astype(float), index


def _levels(group: h5py.Group, name: str) -> list[tuple[str, ...]]:
    """The entries of a hierarchical index: for each level its values and places."""
    levels = [
        np.array(_texts(group[f"{name}_level{i}"][:]), object)[
            group[f"{name}_label{i}"][:]
        ]
        for i in range(int(group.attrs[f"{name}_nlevels"]))
    ]
    return list(zip(*levels, strict=True))


def _texts(values: np.ndarray) -> list[str]:
    return [
        value.decode() if isinstance(value, bytes) else str(value)
        for value in values.tolist()
    ]


def _tuples(pickled: bytes) -> list[tuple[str, ...]]:
    """What a pickle of protocol 0 says of a list of tuples of strings.

    Raises:
        ValueError: it says anything else.
    """
    mark = object()
    stack, memo = [], {}
    for opcode, argument, _ in pickletools.genops(pickled):
        match opcode.name:
            case "MARK":
                stack.append(mark)
            case "LIST" | "TUPLE":
                start = len(stack) - 1 - stack[::-1].index(mark)
                made = list if opcode.name == "LIST" else tuple
                stack[start:] = [made(stack[start + 1 :])]
            case "UNICODE" | "STRING":
                stack.append(argument)
            case "PUT":
                memo[argument] = stack[-1]
            case "GET":
                stack.append(memo[argument])
            case "APPEND":
                last = stack.pop()
                stack[-1].append(last)
            case "STOP":
                break
            case other:
                raise ValueError(f"a pickle with {other}, which is never run")
    titles = stack.pop()
    if not all(isinstance(cell, str) for title in titles for cell in title):
        raise ValueError("titles of columns that are no text")
    return titles


# -------------------------------------------------------------------------------- NWB


def read_nwb(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    """The individuals of an NWB file: its groups of type PoseEstimation."""
    with _opened(path) as file:
        poses = []
        file.visititems(lambda _, item: _keep(item, "PoseEstimation", poses))
        if not poses:
            raise LfmError(
                f"{path} has no group of type PoseEstimation: only estimated poses are "
                "read from NWB."
            )
        begin = min(map(_begin, poses))
        several = len(poses) > 1
        return [_read_pose(path, pose, begin, several, threshold) for pose in poses]


def _keep(item: h5py.HLObject, kind: str, found: list[h5py.HLObject]) -> None:
    if item.attrs.get("neurodata_type") == kind:
        found.append(item)


def _series(pose: h5py.Group) -> list[h5py.Group]:
    found = []
    for name in pose:
        _keep(pose[name], "PoseEstimationSeries", found)
    return found


def _begin(pose: h5py.Group) -> float:
    """The first of the times that an individual gives."""
    times = (each["timestamps"][0] for each in _series(pose) if "timestamps" in each)
    return float(next(times, 0.0))


def _read_pose(
    path: pathlib.Path, pose: h5py.Group, begin: float, several: bool, threshold: float
) -> Keypoints2D:
    series = _series(pose)
    name = pose.name.rsplit("/", 1)[-1]
    source = f"{path} ({name})"
    if len({len(each["data"]) for each in series}) != 1:
        raise LfmError(
            f"{source} has keypoints of different lengths, or none: export it again."
        )
    points = np.stack([each["data"][:, :2] for each in series], 1).astype(float)
    scores = np.ones(points.shape[:2])
    for k, each in enumerate(series):
        if "confidence" in each:
            scores[:, k] = each["confidence"][:]
    frames, fps = _times(series[0], begin, len(points))
    return keypoints2d(
        points,
        likely(points, scores, threshold, source),
        [each.name.rsplit("/", 1)[-1] for each in series],
        source=source,
        frames=frames,
        individual=name if several else "",
        fps=fps,
        kind="NWB pose estimation",
    )


def _times(
    series: h5py.Group, begin: float, count: int
) -> tuple[Int[np.ndarray, "f"], float]:
    """Numbers of the frames and their rate, from regular times with gaps in them."""
    frames = np.arange(count)
    if "timestamps" not in series:
        start = series.get("starting_time")
        return frames, float(start.attrs["rate"]) if start is not None else np.nan
    times = series["timestamps"][:].astype(float)
    steps = np.diff(times)
    if count < 2 or not np.all(steps > 0):
        return frames, np.nan
    places = (times - begin) / np.median(steps)
    regular = np.abs(places - np.round(places)).max() < 0.1
    return (np.round(places).astype(int) if regular else frames), 1 / np.median(steps)
