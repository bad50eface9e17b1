"""HDF5 files, read in a process apart.

Damage in a file makes the HDF5 library (2.0 as well) crash or run for ever at times,
which no `except` can hold. So a process of its own reads it, and hands back plain
arrays, or the sentence of an error.
"""

import contextlib
import dataclasses
import io
import math
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from lfm_jax.data.readers.keypoints import Keypoints2D
from lfm_jax.errors import LfmError

_PROGRAM = f"import {__name__} as apart; apart.main()"
_PATIENCE = 60.0  # Seconds, and one more for every megabyte.
_WORK = 10  # Seconds of the processor after the start, and one more likewise.


def read(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    """The individuals of a file of DeepLabCut, SLEAP or NWB.

    Raises:
        LfmError: as its reader says, or that the library cannot bear it.
    """
    # The other process must find what this one found.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    patience = _PATIENCE + path.stat().st_size / 1e6
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(path), str(threshold)],
            check=True,
            capture_output=True,
            timeout=patience,
            env=environment,
        )
    except subprocess.SubprocessError as error:
        raise LfmError(
            f"{path} is damaged so that the HDF5 library fails: export it again."
        ) from error
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        if "error" in arrays:
            raise LfmError(str(arrays["error"]))
        return [_unpack(arrays, i) for i in range(int(arrays["count"]))]


def main() -> None:
    """What the other process does: its arguments in, an npz on its standard output."""
    from lfm_jax.data.readers import hdf5, sleap

    path = pathlib.Path(sys.argv[1])
    readers = {".h5": hdf5.read, ".nwb": hdf5.read_nwb, ".slp": sleap.read}
    try:
        _limit(path)
        with contextlib.redirect_stdout(sys.stderr):
            hdf5.refuse_traps(path)
            individuals = readers[path.suffix.lower()](path, float(sys.argv[2]))
        arrays = _pack(individuals)
    except LfmError as error:
        arrays = {"error": np.array(str(error))}
    file = io.BytesIO()
    np.savez(file, **arrays)
    sys.stdout.buffer.write(file.getvalue())


def _limit(path: pathlib.Path) -> None:
    """The system ends this process when it has worked too long, however slow it is."""
    with contextlib.suppress(ImportError):  # not on every system
        import resource

        used = time.process_time() + _WORK + path.stat().st_size / 1e6
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used), math.ceil(used)))


def _pack(individuals: Sequence[Keypoints2D]) -> dict[str, np.ndarray]:
    arrays = {"count": np.array(len(individuals))}
    for i, one in enumerate(individuals):
        for field in dataclasses.fields(one):
            arrays[f"{i}.{field.name}"] = np.asarray(getattr(one, field.name))
    return arrays


def _unpack(arrays, i: int) -> Keypoints2D:
    values = {f.name: arrays[f"{i}.{f.name}"] for f in dataclasses.fields(Keypoints2D)}
    for name in ("names", "labels"):
        values[name] = tuple(values[name].tolist())
    for name in ("source", "individual", "fps", "kind"):
        values[name] = values[name].item()
    return Keypoints2D(**values)
