"""What eval.json says of each category, and the means over them.

A frame with fewer than `metrics.MIN_POINTS` points of known 3D is not scored, and
counted as `unscored_frames`.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from lfm_jax import metrics
from lfm_jax.data.dataset import TrainingData
from lfm_jax.train import sequences
from lfm_jax.types import Labelled

LIBRARY = 1000  # frames, evenly spaced, that stand for all of a category's shapes
NEAREST = 200  # test frames, evenly spaced, whose nearest training shape is sought
SMALL = 30  # fewer test frames than this get a bootstrap interval


def entries(
    training: TrainingData,
    frames: Labelled,
    scores: dict[str, np.ndarray],
    canonical: Float[np.ndarray, "f n 3"],
    library: Sequence[tuple[np.ndarray, np.ndarray]],
) -> dict[str, dict]:
    """What eval.json says of each category.

    Args:
        training: names, keypoint and frame counts are read from it.
        frames: all that are scored, of all categories end to end.
        scores: errors of each frame.
        canonical: the network's shapes.
        library: per category, training shapes and which of their points are known.
    """
    found = {}
    for index, skeleton in enumerate(training.skeletons):
        rows = frames.observation.category == index
        test = frames.points3d[rows], frames.evaluated[rows]
        entry = {
            "keypoints": len(skeleton.keypoints),
            "train_frames": len(training.observations[index].points2d),
            "test_frames": int(np.sum(rows)),
            "units": skeleton.units,
        }
        mine = {name: values[rows] for name, values in scores.items()}
        entry |= _errors(mine, metrics.scorable(test[1]))
        if "ne_lifted" in entry:
            entry |= _shape_statistics(canonical[rows], *test, *library[index])
        found[skeleton.name] = entry
    return found


def _errors(scores: dict[str, np.ndarray], scored: np.ndarray) -> dict:
    """A category's mean errors; reprojection alone where nothing has 3D truth."""
    if not scored.any():
        reprojection = scores["reprojection"]
        mean = {"reprojection": _short(reprojection.mean())} if len(scored) else {}
        return {"depth_sign": "undetermined"} | mean
    entry = {name: _short(values[scored].mean()) for name, values in scores.items()}
    if not scored.all():
        entry["unscored_frames"] = int(np.sum(~scored))
    if np.sum(scored) < SMALL:
        entry["ne_lifted_interval"] = _interval(scores["ne_lifted"][scored])
    return entry


def _interval(values: np.ndarray) -> list[float]:
    """95 % bootstrap interval of the mean; the same for the same values."""
    generator = np.random.default_rng(0)
    means = generator.choice(values, (1000, len(values))).mean(axis=1)
    return [_short(bound) for bound in np.percentile(means, [2.5, 97.5])]


_relative_variance = jax.jit(metrics.relative_variance)
_nearest_shape = jax.jit(metrics.nearest_shape)
_ne = jax.jit(metrics.ne)


def _shape_statistics(canonical, true, mask, library, library_mask) -> dict:
    """Does the model deform as much as the truth, and is test far from training?"""
    statistics = {}
    variance = float(_relative_variance(*thin(true, mask, LIBRARY)))
    if variance > 0.0:
        predicted = float(_relative_variance(*thin(canonical, mask, LIBRARY)))
        statistics[VARIANCE] = _short(predicted / variance)
    if library_mask.any():
        true, mask = thin(true, mask, NEAREST)
        nearest = np.asarray(_nearest_shape(true, mask, library, library_mask))
        shared = mask & library_mask[nearest]
        errors = np.asarray(_ne(library[nearest], true, shared))
        kept = metrics.scorable(shared)
        if kept.any():
            statistics["nearest_train"] = _short(errors[kept].mean())
    return statistics


def _short(value) -> float:
    """Five significant digits: more would claim more than the data hold."""
    return float(f"{float(value):.5g}")


VARIANCE = "shape_variance_ratio"
IN_MEAN = (
    *("ne_lifted", "ne_canonical", "ne_flat", "ne_mean_shape", "ne_mean_shape_lifted"),
    *("ne_rigid", "ne_rigid_lifted", "ne_start", "ne_start_lifted"),
    *("ne_best_flip", "ne_best_flip_lifted"),
    *("nearest_train", "reprojection"),
    *sequences.MEANS,
)


def with_means(entries: dict[str, dict]) -> dict:
    """The entries beside their means, as `train.evaluate.evaluate` gives them."""
    scored = [entry for entry in entries.values() if "ne_lifted" in entry]
    scored = scored or list(entries.values())  # no 3D at all: reprojection alone
    large = [entry for entry in scored if "ne_lifted_interval" not in entry]
    return {
        "mean": _mean(scored),
        "mean_categories": len(scored),
        "mean_without_small": _mean(large),
        "categories": entries,
    }


def _mean(entries: list[dict]) -> dict:
    columns = {name: [e[name] for e in entries if name in e] for name in IN_MEAN}
    mean = {name: _short(np.mean(c)) for name, c in columns.items() if c}
    if ratios := [e[VARIANCE] for e in entries if VARIANCE in e]:
        # a category that hardly moves has a ratio of thousands: no mean bears that
        mean[VARIANCE + "_median"] = _short(np.median(ratios))
    return mean


def thin(points, mask, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most that many scorable frames, evenly spaced, padded to exactly that many."""
    rows = np.flatnonzero(metrics.scorable(mask))
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return _pad(points[rows], most), _pad(mask[rows], most)


def _pad(values: np.ndarray, size: int) -> np.ndarray:
    return np.pad(values, [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1))
