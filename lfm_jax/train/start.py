"""Where training begins: shapes factorized from the 2D of the training frames.

Factorization takes seconds to minutes, so it is done once and kept in the work
directory; a resumed run reads the very same numbers.
"""

import dataclasses
import functools
import logging
import os
import pathlib
import zipfile
import zlib

import numpy as np
from jaxtyping import Float

from lfm_jax.classical.factorization import factorize
from lfm_jax.data.dataset import TrainingData
from lfm_jax.errors import LfmError
from lfm_jax.models import Start

FILENAME = "factorization.npz"
NARROWEST = 32  # keypoints are padded to this, doubled as needed: few compilations

# What NumPy raises on a file that is missing or not what it was.
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Factorized:
    """What factorization makes of every category, padded to the longest.

    Attributes:
        rigid: one shape per category, RMS radius 1: the yardstick.
        start: the deformable shapes that the network begins at.
    """

    rigid: Float[np.ndarray, "c n 3"]
    start: Start


def factorized(
    training: TrainingData, bases: int, seed: int, workdir: pathlib.Path
) -> Factorized:
    """Reads the factorization of a run, or makes and keeps it."""
    path = workdir / FILENAME
    if not path.exists():
        _write(path, _factorize(training, bases, seed))
    return read_factorized(path)


def read_factorized(path: pathlib.Path) -> Factorized:
    """Reads what `factorized` wrote.

    Raises:
        LfmError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            start = Start(arrays["shapes"], arrays["noise"])
            return Factorized(arrays["rigid"], start)
    except DAMAGED as error:
        raise LfmError(
            f"{path} does not hold the factorization of a run ({error}); remove it and "
            "run the training command again."
        ) from error


def _factorize(training: TrainingData, bases: int, seed: int) -> dict[str, np.ndarray]:
    """All categories; the arrays of the file."""
    width = max(len(skeleton.keypoints) for skeleton in training.skeletons)
    total, rows = len(training.skeletons), []
    for skeleton, seen in zip(training.skeletons, training.observations, strict=True):
        rows.append(_category(seen, bases, seed, width))
        _log.info("factorized %s (%d of %d)", skeleton.name, len(rows), total)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _category(seen, bases, seed, width):
    padded = NARROWEST
    while padded < seen.annotated.shape[1]:
        padded *= 2
    fit = functools.partial(
        factorize,
        seen.points2d,
        seen.annotated,
        width=min(padded, width),
        seed=seed,
    )
    rigid = fit(0)
    deformable = fit(bases) if bases else rigid

    def pad(shapes, size):
        missing = size - shapes.shape[0], width - shapes.shape[1]
        widths = [(0, missing[0]), (0, missing[1]), (0, 0)]
        return np.pad(shapes, widths).astype(np.float32)

    return {
        "rigid": pad(rigid.shapes, 1)[0],
        "shapes": pad(deformable.shapes, bases + 1),
        "noise": np.float32(deformable.noise),
    }


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        np.savez(beside, **arrays)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
