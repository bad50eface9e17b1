"""Where training begins: shapes factorized from the 2D of the training frames.

For every number of bases in `model.bases`, several factorizations from different random
starts are made, and the one that best predicts hidden points of validation frames, 2D
alone, is kept. So are as many in which all keypoints share one noise (with a noise for
each, a wrong shape can excuse itself by noisy limbs), and the kind that predicts better
in all is taken. The models explain the same images with different depths, and the mean
of their depths is better than any one of them. All are brought to the same depth sign,
by the sign of their correlation with the first.

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
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lfm_jax.classical.factorization import LowRank, factorize, predict_hidden
from lfm_jax.data.dataset import Dataset
from lfm_jax.errors import LfmError
from lfm_jax.models import Start

FILENAME = "factorization.npz"
NARROWEST = 32  # keypoints are padded to this, doubled as needed: few compilations
RESTARTS = 2  # factorizations to choose from, each from many starts

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
        start: the deformable models that the network begins at.
    """

    rigid: Float[np.ndarray, "c n 3"]
    start: Start


def factorized(
    dataset: Dataset, bases: str, seed: int, workdir: pathlib.Path
) -> Factorized:
    """Reads the factorization of a run, or makes and keeps it.

    Args:
        dataset: only its 2D is read.
        bases: comma-separated numbers of bases, one for each model of a category.
        seed: of the random starts.
        workdir: where it is kept.

    Raises:
        LfmError: `bases` is no list of numbers, or the kept file is damaged.
    """
    path = workdir / FILENAME
    if not path.exists():
        _write(path, _factorize(dataset, _numbers(bases), seed))
    return read_factorized(path)


def read_factorized(path: pathlib.Path) -> Factorized:
    """Reads what `factorized` wrote.

    Raises:
        LfmError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            start = Start(arrays["shapes"], arrays["noise"])
            return Factorized(arrays["rigid"], start)
    except DAMAGED as error:
        raise LfmError(
            f"{path} does not hold the factorization of a run ({error}); remove it and "
            "run the training command again."
        ) from error


def _numbers(bases: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(text) for text in bases.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise LfmError(
            f"model.bases is {bases!r}; give numbers of bases such as '2,5,9'."
        )
    return numbers


def _factorize(
    dataset: Dataset, bases: tuple[int, ...], seed: int
) -> dict[str, np.ndarray]:
    """All categories; the arrays of the file."""
    training, rows = dataset.training, []
    width = max(len(skeleton.keypoints) for skeleton in training.skeletons)
    for index, skeleton in enumerate(training.skeletons):
        held_out = dataset.evaluation.validation[index].observation
        seen = training.observations[index]
        rows.append(_category(seen, held_out, bases, seed, width))
        _log.info(
            "factorized %s (%d of %d)",
            skeleton.name,
            len(rows),
            len(training.skeletons),
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _category(seen, held_out, bases, seed, width):
    padded = NARROWEST
    while padded < seen.annotated.shape[1]:
        padded *= 2
    padded = min(padded, width)
    fit = functools.partial(factorize, seen.points2d, seen.annotated, width=padded)
    (rigid,) = fit(seed=seed)
    chosen = _better(
        *(
            _choose(fit, bases, shared, seed, held_out, padded)
            for shared in (True, False)
        )
    )
    models = _same_sign(*zip(*chosen, strict=True))
    return {
        "rigid": _pad(rigid.model.shapes, width, axis=1)[0],
        "shapes": np.stack(
            [
                _pad(_pad(model.shapes, width, axis=1), max(bases) + 1)
                for model in models
            ]
        ),
        "noise": np.stack([_pad(model.noise, width, value=1.0) for model in models]),
    }


def _choose(fit, bases, shared, seed, held_out, width):
    """Per number of bases the best of several restarts: error, model, its depths."""
    points, mask = np.asarray(held_out.points2d), np.asarray(held_out.observed)
    restarts = [
        fit(bases, shared_noise=shared, seed=RESTARTS * seed + i)
        for i in range(RESTARTS)
    ]
    chosen = []
    for rivals in zip(*restarts, strict=True):
        models = [rival.model for rival in rivals]
        errors, posed = predict_hidden(models, points, mask, width=width)
        best = int(np.argmin(errors))
        chosen.append((errors[best], models[best], posed[best, ..., 2]))
    return chosen


def _better(one, other):
    """Of two lists of choices the models and depths that predict better in all."""
    total = lambda chosen: sum(error for error, *_ in chosen)
    better = one if total(one) <= total(other) else other
    return [(model, depth) for _, model, depth in better]


def _same_sign(models: Sequence[LowRank], depths) -> list[LowRank]:
    """The models, mirrored where their depths are those of the first mirrored."""
    mirror = np.array([1.0, 1.0, -1.0])
    centred = [depth - depth.mean(axis=1, keepdims=True) for depth in depths]
    return [
        dataclasses.replace(model, shapes=model.shapes * mirror)
        if np.sum(depth * centred[0]) < 0.0
        else model
        for model, depth in zip(models, centred, strict=True)
    ]


def _pad(values: np.ndarray, size: int, axis: int = 0, value: float = 0.0):
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, size - values.shape[axis])
    return np.pad(values, widths, constant_values=value).astype(np.float32)


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        np.savez(beside, **arrays)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
