"""Files of lifted keypoints; the suffix says which kind.

    .npz   all of `serve.Lifted`, plain arrays; can be read again
    .csv   the wide table of Anipose
    .trc   OpenSim's markers
    .c3d   biomechanics; needs ezc3d
    .glb   a moving skeleton; needs pygltflib

The three before the last hold a time series of points3d: frames that were left out are
there and empty. Their frame is the camera's (x right, y down, z into the scene, as long
as y runs down in the image), or that turned about x so that the given axis points to
the top of the image. It is the true vertical where the camera stood level. glTF always
has y up, and frames that were left out are passed over (animation.py).
"""

import csv
import dataclasses
import importlib.util
import io
import os
import pathlib
import tempfile

import numpy as np
from jaxtyping import Float, Int, Shaped, jaxtyped

from lfm_jax import workdir
from lfm_jax.animation import write_glb
from lfm_jax.data.arrays import read_arrays
from lfm_jax.errors import LfmError
from lfm_jax.serve import Lifted

# Rotations of the camera's frame, by the axis that shall point up.
AXES = {
    "": np.eye(3),
    "y": np.diag((1.0, -1.0, -1.0)),
    "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}
METRES = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}
# What a kind is written by, and the extra that brings it.
_LIBRARIES = {".c3d": ("ezc3d", "c3d"), ".glb": ("pygltflib", "gltf")}
_LONGEST = 1_000_000  # Frames of a time series; a damaged number may be any.


def write_lifted(path: str | os.PathLike, lifted: Lifted, *, up: str = "") -> None:
    """Write one individual atomically, in the kind of file that the suffix says.

    Args:
        path: ends in .npz, .csv, .trc, .c3d or .glb.
        lifted: what to write.
        up: "y" or "z", the axis of a time series that points up; "" means that its
            frame is the camera's.

    Raises:
        LfmError: the file cannot be written there, or is of a kind that cannot hold
            this.
    """
    path = pathlib.Path(path)
    check_kind(path, up, lifted.fps)
    if path.suffix.lower() == ".npz":
        content = _npz(lifted)
    else:
        content = _SERIES[path.suffix.lower()](path, lifted, AXES[up])
    with workdir.saving(path) as beside:
        beside.write_bytes(content)


def read_lifted(path: str | os.PathLike) -> Lifted:
    """Reads what `write_lifted` wrote as .npz; strangers may have written it too.

    Raises:
        LfmError: there is no such file, it is damaged, or something else is in it.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != ".npz":
        raise LfmError(
            f"{path} does not end in .npz, so it is not what is looked at: make that "
            "with lfm lift --out=FILE.npz."
        )
    fields = {field.name: field.type for field in dataclasses.fields(Lifted)}
    arrays, _ = read_arrays(path, fields)
    # files of before lifted keypoints could be smoothed say nothing of it
    arrays.setdefault("smoothing", np.array(""))
    lacking = [name for name in ("points3d", *fields) if name not in arrays]
    if lacking:
        raise LfmError(
            f"{path} has no {lacking[0]}, so it is not what lfm lift writes: make it "
            "with lfm lift --out=FILE.npz."
        )
    return Lifted(**_checked(path, arrays, fields))


def _checked(path: pathlib.Path, arrays: dict, fields: dict) -> dict:
    """Values of the types that `Lifted` states, of sizes that agree."""
    wrong, values = None, {}
    with jaxtyped("context"):
        for name, kind in fields.items():
            array = arrays[name]
            if kind in (str, float):
                right = array.ndim == 0 and array.dtype.kind == ("f", "U")[kind is str]
                values[name] = kind(array) if right else array
            elif kind == tuple[str, ...]:
                letter = {"names": "n", "labels": "f"}.get(name, "_")
                right = array.dtype.kind == "U" or not array.size
                right = right and isinstance(array, Shaped[np.ndarray, letter])
                values[name] = tuple(array.astype(str).ravel().tolist())
            else:
                right = isinstance(array, kind)
                values[name] = array
            wrong = wrong or (None if right else name)
    wrong = wrong or _unsound(values)
    if wrong:
        raise LfmError(
            f"{path}: {wrong} is not as lfm lift writes it (docs/files.md): make the "
            "file again."
        )
    return values


def _unsound(values: dict) -> str | None:
    """The first array with numbers that nobody could draw."""
    edges, points3d = values["edges"], values["points3d"]
    if not points3d.size or not np.isfinite(points3d).all():
        return "points3d"
    if not np.isfinite(values["points2d"][values["visible"]]).all():
        return "points2d"
    inside = (edges >= 0) & (edges < len(values["names"]))
    return None if inside.all() else "edges"


def check_kind(path: pathlib.Path, up: str, fps: float) -> None:
    """Finds out, before anything is lifted, whether such a file can be written.

    Raises:
        LfmError: it cannot.
    """
    kinds = (".npz", *_SERIES)
    if path.suffix.lower() not in kinds:
        raise LfmError(f"{path} does not end in one of {', '.join(kinds)}: name it so.")
    if not path.parent.is_dir():
        raise LfmError(
            f"{path} cannot be written (there is no folder {path.parent}): make it, or "
            "choose another place."
        )
    library, extra = _LIBRARIES.get(path.suffix.lower(), ("", ""))
    if library and importlib.util.find_spec(library) is None:
        raise LfmError(
            f"{path} needs {library} to be written: pip install 'lfm_jax[{extra}]'."
        )
    if up and path.suffix.lower() == ".npz":
        raise LfmError(
            f"{path} keeps the camera's frame, with its pose: --up is for .csv, .trc "
            "and .c3d."
        )
    if up == "z" and path.suffix.lower() == ".glb":
        raise LfmError(f"{path} has y up, as all glTF: leave out --up.")
    if path.suffix.lower() in (".trc", ".c3d", ".glb") and not fps > 0:
        raise LfmError(
            f"{path} needs the frames per second, which the input does not give: add "
            "--fps."
        )


def _npz(lifted: Lifted) -> bytes:
    arrays = {}
    for field in dataclasses.fields(lifted):
        value = getattr(lifted, field.name)
        kind = None if isinstance(value, np.ndarray | float) else str
        arrays[field.name] = np.asarray(value, kind)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _series(
    lifted: Lifted, axes: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "t n 3"]:
    """Points of every frame from the first to the last, NaN where there are none."""
    frames = _in_order(lifted)
    points = np.full((frames[-1] - frames[0] + 1, *lifted.points3d.shape[1:]), np.nan)
    points[frames - frames[0]] = lifted.points3d @ axes.T
    return points


def _in_order(lifted: Lifted) -> Int[np.ndarray, "f"]:
    frames = lifted.frames
    if (np.diff(frames) <= 0).any() or frames[-1] - frames[0] >= _LONGEST:
        raise LfmError(
            f"'{lifted.labels[0]}' to '{lifted.labels[-1]}' are no time series, which "
            "the file would hold: put the frames in order, or write .npz."
        )
    return frames


def _csv(path: pathlib.Path, lifted: Lifted, axes: Float[np.ndarray, "3 3"]) -> bytes:
    """Anipose's 3D table, of one camera: error is in the units of the lengths."""
    series, given = _series(lifted, axes), lifted.visible
    image = lifted.points2d * lifted.unit_length
    miss = np.linalg.norm(lifted.posed[..., :2] - image, axis=-1)
    cells = np.full((*series.shape[:2], 6), np.nan)
    cells[..., :3] = series
    rows = lifted.frames - lifted.frames[0]
    cells[rows, :, 3] = np.where(given, miss, np.nan)
    cells[rows, :, 4] = cells[rows, :, 5] = given
    parts = ("x", "y", "z", "error", "ncams", "score")
    header = [f"{name}_{part}" for name in lifted.names for part in parts]
    header += [f"M_{i}{j}" for i in range(3) for j in range(3)]
    header += [*(f"center_{i}" for i in range(3)), "fnum"]
    rest = [*axes.astype(int).flat, 0, 0, 0]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(header)
    for number, row in enumerate(cells.reshape(len(cells), -1), lifted.frames[0]):
        writer.writerow([*(_cell(value, ".9g") for value in row), *rest, number])
    return file.getvalue().encode()


def _trc(path: pathlib.Path, lifted: Lifted, axes: Float[np.ndarray, "3 3"]) -> bytes:
    series, first, rate = _series(lifted, axes), lifted.frames[0], f"{lifted.fps:g}"
    count, markers = series.shape[:2]
    fields = {
        "DataRate": rate,
        "CameraRate": rate,
        "NumFrames": count,
        "NumMarkers": markers,
        "Units": lifted.units,
        "OrigDataRate": rate,
        "OrigDataStartFrame": first + 1,
        "OrigNumFrames": count,
    }
    lines = [
        ["PathFileType", "4", "(X/Y/Z)", path.name],
        list(fields),
        list(fields.values()),
        ["Frame#", "Time", *(cell for name in lifted.names for cell in (name, "", ""))],
        ["", "", *(f"{axis}{i + 1}" for i in range(markers) for axis in "XYZ")],
        [],
    ]
    for number, row in enumerate(series.reshape(count, -1), first):
        cells = (_cell(value, ".6f") for value in row)
        lines.append([number + 1, f"{number / lifted.fps:.6f}", *cells])
    return "".join("\t".join(map(str, line)) + "\n" for line in lines).encode()


def _cell(value: float, form: str) -> str:
    return "" if np.isnan(value) else format(value, form)


def _c3d(path: pathlib.Path, lifted: Lifted, axes: Float[np.ndarray, "3 3"]) -> bytes:
    import ezc3d

    series = _series(lifted, axes)
    file = ezc3d.c3d()
    point = file["parameters"]["POINT"]
    point["RATE"]["value"] = [lifted.fps]
    point["UNITS"]["value"] = [lifted.units]
    point["LABELS"]["value"] = list(lifted.names)
    homogeneous = np.concatenate((series, np.ones((*series.shape[:2], 1))), -1)
    file["data"]["points"] = homogeneous.transpose(2, 1, 0)
    with tempfile.TemporaryDirectory() as folder:
        beside = pathlib.Path(folder, "out.c3d")
        file.write(str(beside))
        return beside.read_bytes()


def _glb(path: pathlib.Path, lifted: Lifted, axes: Float[np.ndarray, "3 3"]) -> bytes:
    """Centred; in metres, or where units are not known with the largest extent at 1."""
    frames = _in_order(lifted)
    points = (lifted.points3d @ AXES["y"].T).astype(np.float64)
    points -= points.mean((0, 1))
    extent = float(np.ptp(points, axis=1).max()) or 1.0
    points *= METRES.get(lifted.units, 1.0 / extent)
    seconds = (frames - frames[0]) / lifted.fps
    title = lifted.individual or lifted.category
    return write_glb(points, seconds, lifted.names, lifted.edges, title)


_SERIES = {".csv": _csv, ".trc": _trc, ".c3d": _c3d, ".glb": _glb}
