"""Where training begins: shapes factorized from the 2D of the training frames.

Every category gets low-rank models for every number of bases in `model.bases`, from two
random starts, which are chosen by hidden points of training and validation frames, 2D
alone. The models explain the same images with different depths, and the mean of their
depths is better than any one of them. Lengths that stay are measured in that mean.

Factorization takes seconds for a category, so each is kept in the work directory as
soon as it is done; a resumed run reads the very same numbers. What is kept says what it
was made from, and is made again for anything else.
"""

import dataclasses
import logging
import pathlib
import shutil
import time
import zipfile
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lfm_jax.classical.factorization import factorize, factorize_rigid
from lfm_jax.classical.lengths import steady_lengths
from lfm_jax.classical.low_rank import NOISE_FLOOR, prepare
from lfm_jax.config import ModelConfig
from lfm_jax.data.dataset import TrainingData, fingerprint
from lfm_jax.errors import LfmError
from lfm_jax.models.start import Start, consult
from lfm_jax.types import Observation
from lfm_jax.workdir import FACTORIZATION, replacing

FRAMES = 400  # training frames in which lengths are measured
LEAST = 1e-5  # unexplained variance of an image coordinate, beyond the noise floor
DOUBT = 2.0  # standard deviations of that in one of a depth, which has no image
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
        start: the deformable models that the network begins at, or None.
    """

    rigid: Float[np.ndarray, "c n 3"]
    start: Start | None


def factorized(
    training: TrainingData,
    held_out: Sequence[Observation],
    config: ModelConfig,
    seed: int,
    workdir: pathlib.Path,
) -> Factorized:
    """Reads the factorization of a run, or makes and keeps it.

    Args:
        training: the 2D to explain.
        held_out: other 2D of each category, by which starts are chosen.
        config: its numbers of bases (none, no start) and of neighbours.
        seed: of the random starts.
        workdir: where it is kept.

    Raises:
        LfmError: `config.bases` is no list of numbers.
    """
    numbers, neighbours = _numbers(config.bases), config.neighbours
    source = (
        f"{fingerprint(training)}, bases {config.bases or 'none'}, "
        f"neighbours {neighbours}, seed {seed}"
    )
    path, parts = workdir / FACTORIZATION, workdir / "factorization"
    if _kept(path, source) is None:
        parts.mkdir(exist_ok=True)
        arrays = _factorize(
            training, held_out, numbers, neighbours, seed, parts, source
        )
        _write(path, arrays, source)
        shutil.rmtree(parts)
    return read_factorized(path)


def read_factorized(path: pathlib.Path) -> Factorized:
    """Reads what `factorized` wrote.

    Raises:
        LfmError: the file is missing or damaged.
    """
    try:
        arrays = _read(path)
        for note in ("source", "seconds"):  # for who makes it, and who asks how fast
            arrays.pop(note, None)
        rigid = arrays.pop("rigid")
        return Factorized(rigid, Start(**arrays) if arrays else None)
    except (*DAMAGED, TypeError) as error:
        raise LfmError(
            f"{path} does not hold the factorization of a run ({error}); remove it and "
            "run the training command again."
        ) from error


def _numbers(bases: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(text) for text in bases.split(",") if bases)
    except ValueError:
        numbers = (-1,)
    if min(numbers, default=0) < 0:
        raise LfmError(
            f"model.bases is {bases!r}; give numbers of bases such as '2,5,9'."
        )
    return numbers


def _factorize(
    training: TrainingData,
    held_out: Sequence[Observation],
    bases: tuple[int, ...],
    neighbours: int,
    seed: int,
    parts: pathlib.Path,
    source: str,
) -> dict[str, np.ndarray]:
    """All categories that are not done yet; the arrays of the file."""
    rows, count = [], len(training.skeletons)
    width = max(len(skeleton.keypoints) for skeleton in training.skeletons)
    for index, skeleton in enumerate(training.skeletons):
        path = parts / f"{index:03d}.npz"
        row = _kept(path, source)
        if row is None:
            seen = training.observations[index]
            began = time.perf_counter()
            row = _category(seen, held_out[index], bases, neighbours, seed, width)
            row["seconds"] = np.float32(time.perf_counter() - began)
            _write(path, row, source)
        rows.append(row)
        _log.info("factorized %s (%d of %d)", skeleton.name, len(rows), count)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _category(seen, held_out, bases, neighbours, seed, width):
    padded = NARROWEST
    while padded < seen.annotated.shape[1]:
        padded *= 2
    padded = min(padded, width)
    frames = seen.points2d, seen.annotated
    others = np.asarray(held_out.points2d), np.asarray(held_out.observed)
    rigid = factorize_rigid(*frames, width=padded, seed=seed)
    found = {"rigid": _pad(rigid.shapes[0], width)}
    if not bases:
        return found
    models = factorize(*frames, others, bases, width=padded, seed=seed)
    most = max(bases) + 1
    shapes = np.stack([_pad(_pad(m.shapes, padded, axis=1), most) for m in models])
    noise = np.stack([_pad(m.noise, padded, value=1.0) for m in models])
    lengths = _measure(shapes, noise, frames, neighbours)
    # what the models leave unexplained, beyond what keypoints are good to
    excess = np.mean(noise, axis=0) - NOISE_FLOOR
    return found | {
        "shapes": _pad(shapes, width, axis=2),
        "noise": _pad(noise, width, axis=1, value=1.0),
        "doubt": _pad(DOUBT * np.sqrt(np.maximum(excess, LEAST)), width, value=1.0),
        "neighbour": _pad(lengths.neighbour, width),
        "length": _pad(lengths.length, width, value=1.0),
        "spread": _pad(lengths.spread, width, value=np.inf),
    }


def _measure(shapes, noise, frames, neighbours):
    """The lengths that stay in training frames as the models lift them."""
    few, _ = prepare(*frames, FRAMES, noise.shape[1], fewest=FRAMES)
    lifted, scale = map(np.asarray, _lifted(shapes, noise, few.tracks, few.mask))
    # a frame of a wrong scale would outweigh all others in a fourth moment
    usual = np.median(scale[np.any(few.mask, axis=1)])
    sure = np.abs(np.log(scale / usual)) < np.log(2.0)
    return steady_lengths(lifted, np.asarray(few.mask) & sure[:, None], neighbours)


@jax.jit
def _lifted(shapes, noise, points2d, observed):
    """Frames as the models lift them, in the scale of the canonical shapes; and it."""
    groups = [(shapes.shape[1] - 1, range(len(shapes)))]  # whatever they have: one
    category = jnp.zeros(len(points2d), jnp.int32)
    mean, _, pose = consult(
        shapes[None], noise[None], points2d, observed, category, groups
    )
    scale = jnp.maximum(pose.scale, 1e-3)
    lifted = jnp.concatenate([points2d, mean[..., 2:]], axis=-1)
    return lifted / scale[:, None, None], scale


def _pad(values: np.ndarray, size: int, axis: int = 0, value: float = 0.0):
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, size - values.shape[axis])
    padded = np.pad(values, widths, constant_values=value)
    return padded.astype(np.int32 if padded.dtype.kind == "i" else np.float32)


def _kept(path: pathlib.Path, source: str) -> dict[str, np.ndarray] | None:
    """What is kept there, if it is whole and was made from `source`."""
    try:
        arrays = _read(path)
        return arrays if arrays.pop("source", None) == source else None
    except DAMAGED:
        return None


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray], source: str) -> None:
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez(file, source=np.array(source), **arrays)
