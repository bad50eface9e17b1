"""The numbers of eval.json: our predictions and every yardstick on the same frames.

3D truth enters here and goes no further back: the network never sees this room.

Two predictions are scored, each by `metrics.ne` after a similarity alignment in SO(3):
`canonical` (the network's shape) and `lifted` (observed xy kept, depth from the posed
shape, hidden points wholly the posed shape's). Points are compared wherever 3D truth
exists, observed or not. A frame with fewer than `metrics.MIN_POINTS` such points is not
scored, and counted as `unscored_frames`.

The yardsticks, and what they are compared with:

    flat                observed xy with depth 0                          lifted
    mean_shape          Procrustes mean of the training 3D                canonical
    mean_shape_lifted   the same posed to the observed 2D, xy kept        lifted
    rigid               one shape fitted to the training 2D alone         canonical
    rigid_lifted        the same posed to the observed 2D, xy kept        lifted
    start               factorized deformable shape that training begins  canonical
                        with, 2D alone: what the network did not do
    start_lifted        the same, observed xy kept                        lifted

2D cannot tell a shape from its mirror image in depth, so each of them, and ours, gets
one sign per category, the one with the lower validation error of `lifted`. Perspective
images can tell, so there the sign is chosen by the foreshortening in their 2D alone.
Ours in the better sign of every single frame (best_flip, best_flip_lifted) is given
beside: it says how good a shape is whose sign a method does not claim to know.

To compile each function once, and not once per category, the frames of all categories
are laid end to end, padded to the largest keypoint count, and run in equal chunks.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lfm_jax import metrics, numerics
from lfm_jax.data.dataset import EvaluationData, TrainingData
from lfm_jax.geometry import pose
from lfm_jax.train import sequences
from lfm_jax.types import Labelled, Observation, Prediction

CHUNK = 512  # frames in one call
LIBRARY = 1000  # frames, evenly spaced, that stand for all of a category's shapes
NEAREST = 200  # test frames, evenly spaced, whose nearest training shape is sought
SMALL = 30  # fewer test frames than this get a bootstrap interval

Predict = Callable[[Observation], Prediction]
Records = Sequence[Labelled | Observation]


def evaluate(
    predict: Predict,
    training: TrainingData,
    evaluation: EvaluationData,
    rigid_shapes: Sequence[np.ndarray],
    *,
    start: Predict | None = None,
    split: str = "test",
    perspective: bool = False,
    films: bool = False,
) -> dict:
    """Scores a model and its yardsticks.

    Args:
        predict: lifts an unpadded observation of one category, any number of frames,
            with the category's depth sign already applied.
        training: names, keypoint and frame counts are read from it.
        evaluation: a category without 3D truth holds observations;
            it is scored by reprojection alone and its depth sign is undetermined.
        rigid_shapes: per category the shape [n 3] fitted to its training 2D alone.
        start: lifts by what training began with, its own signs applied.
        split: which frames are scored: "test", "validation" or "train".
        perspective: the cameras are; no sign is then chosen by 3D.
        films: the cameras make films of clips, which then have errors of their own
            (sequences.py).

    Returns:
        "categories", an entry for each; "mean", over the "mean_categories" that have
        3D truth; "mean_without_small", over those that also have `SMALL` scored frames.
        Errors named ne, nearest_train and reprojection are percentages; pa_mpjpe,
        n_mpjpe and stress are in the category's units.
    """
    records = getattr(evaluation, split)
    width = _width(evaluation)
    frames = _lay_out(records, width)
    validation = _lay_out(evaluation.validation, width)
    library = [_thin(*_truth(record, width), LIBRARY) for record in evaluation.train]
    rigid = np.stack([_pad(shape, width, axis=0) for shape in rigid_shapes])

    canonical, posed, lifted = _lift_all(predict, records, width)
    scores = _chunked(_score, frames, canonical, posed, lifted)
    lifts = {"lifted": lifted, "flat": _chunked(_flat, frames)}
    yardsticks = {"mean_shape": _mean_shapes(library), "rigid": rigid}
    for name, shapes in yardsticks.items():
        errors, lifts[f"{name}_lifted"] = _score_shapes(
            name, shapes, frames, validation, perspective
        )
        scores |= errors
    if start is not None:
        before = _chunked(_score, frames, *_lift_all(start, records, width))
        scores["ne_start"] = before["ne_canonical"]
        scores["ne_start_lifted"] = before["ne_lifted"]

    entries = _entries(training, frames, scores, canonical, library)
    if films:
        found = sequences.sequence_errors(records, frames, lifts)
        entries = {k: e | s for (k, e), s in zip(entries.items(), found, strict=True)}
    return _with_means(entries)


def choose_depth_sign(
    predict: Predict, evaluation: EvaluationData, *, perspective: bool = False
) -> np.ndarray:
    """Per category the sign of depth, +1 or -1, with the lower validation error.

    Args:
        predict: with the sign +1 for every category.
        evaluation: its validation part is used.
        perspective: choose by foreshortening, from 2D alone.

    Returns:
        float32 [c]; +1 where validation has no 3D truth to choose by.
    """
    width = _width(evaluation)
    frames = _lay_out(evaluation.validation, width)
    _, posed, lifted = _lift_all(predict, evaluation.validation, width)
    mirrored = _mirror_wins(frames, posed, lifted, perspective)
    return np.where(mirrored, -1.0, 1.0).astype(np.float32)


def frame_errors(
    predict: Predict, evaluation: EvaluationData, *, split: str = "test"
) -> tuple[np.ndarray, ...]:
    """The error of each frame, per category [f]: what best, median and worst mean.

    The ne of `lifted`, NaN for a frame that cannot be scored; the reprojection error
    for a category without 3D truth.
    """
    records, width = getattr(evaluation, split), _width(evaluation)
    frames = _lay_out(records, width)
    scores = _chunked(_score, frames, *_lift_all(predict, records, width))
    scored = metrics.scorable(frames.evaluated)
    errors = []
    for index in range(len(records)):
        rows = frames.observation.category == index
        ne = np.where(scored[rows], scores["ne_lifted"][rows], np.nan)
        errors.append(ne if scored[rows].any() else scores["reprojection"][rows])
    return tuple(errors)


def point_errors(
    predict: Predict, evaluation: EvaluationData, *, split: str = "test"
) -> tuple[np.ndarray, ...]:
    """The error of each point of `lifted`, per category [f n], in RMS radii of the
    true shape after the alignment that ne is measured with; NaN where not scored."""
    records, width = getattr(evaluation, split), _width(evaluation)
    frames = _lay_out(records, width)
    lifted = _lift_all(predict, records, width)[2]
    errors = _chunked(_point_errors, frames, lifted)
    scored = metrics.scorable(frames.evaluated)[:, None] & frames.evaluated
    errors = np.where(scored, errors, np.nan)
    counts = [record.observation.points2d.shape[1] for record in records]
    return tuple(
        errors[frames.observation.category == index, :count]
        for index, count in enumerate(counts)
    )


# ------------------------------------------------------------------ laying out frames


def _width(evaluation: EvaluationData) -> int:
    return max(r.observation.points2d.shape[-2] for r in evaluation.validation)


def _truth(record, width: int) -> tuple[np.ndarray, np.ndarray]:
    """3D points [f width 3] and which of them are known; none without 3D."""
    if isinstance(record, Labelled):
        return _pad(record.points3d, width), _pad(record.evaluated, width)
    points2d = record.points2d
    return (
        np.zeros((len(points2d), width, 3), np.float32),
        np.zeros((len(points2d), width), bool),
    )


def _pad(values, width: int, axis: int = 1) -> np.ndarray:
    values = np.asarray(values)
    missing = [(0, 0)] * values.ndim
    missing[axis] = (0, width - values.shape[axis])
    padded = np.pad(values, missing)
    return padded if padded.dtype == bool else padded.astype(np.float32)


def _lay_out(records: Records, width: int) -> Labelled:
    """All frames of all categories end to end; `category` is the record's index."""
    seen = [record.observation for record in records]
    truth = [_truth(record, width) for record in records]
    category = [np.full(len(o.points2d), i, np.int32) for i, o in enumerate(seen)]
    return Labelled(
        observation=Observation(
            points2d=np.concatenate([_pad(o.points2d, width) for o in seen]),
            observed=np.concatenate([_pad(o.observed, width) for o in seen]),
            annotated=np.concatenate([_pad(o.annotated, width) for o in seen]),
            category=np.concatenate(category),
        ),
        points3d=np.concatenate([points for points, _ in truth]),
        evaluated=np.concatenate([known for _, known in truth]),
    )


def _lift_all(predict: Predict, records: Records, width: int) -> list[np.ndarray]:
    """The canonical, posed and lifted shapes of all frames, [f width 3] each."""
    seen = [record.observation for record in records]
    predictions = [predict(o) for o in seen if len(o.points2d)]
    return [
        np.concatenate([_pad(getattr(p, name), width) for p in predictions])
        for name in ("canonical", "posed", "lifted")
    ]


def _chunked(function: Callable, *trees) -> PyTree:
    """Maps over frames in chunks of one size; the last repeats its last frame."""
    count = len(jax.tree.leaves(trees)[0])
    chunks = []
    for start in range(0, count, CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), count - 1)
        values = function(*jax.tree.map(lambda leaf, rows=rows: leaf[rows], trees))
        chunks.append(jax.tree.map(np.asarray, values))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *chunks)


def _thin(points, mask, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most that many scorable frames, evenly spaced, padded to exactly that many."""
    rows = np.flatnonzero(metrics.scorable(mask))
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return _pad(points[rows], most, axis=0), _pad(mask[rows], most, axis=0)


# --------------------------------------------------------------------- scoring frames


# several shapes against one truth, [k b n 3]: one alignment to compile, not k
_ne_of_each = jax.vmap(metrics.ne, in_axes=(0, None, None))


@jax.jit
def _score(frames: Labelled, canonical, posed, lifted) -> dict:
    seen, true, mask = frames.observation, frames.points3d, frames.evaluated
    ours = jnp.stack([lifted, canonical])
    flat = _flat(frames)[None]
    shapes = jnp.concatenate([ours, metrics.mirror_depth(ours), flat])
    errors = _ne_of_each(shapes, true, mask)
    best = jnp.minimum(errors[:2], errors[2:4])
    return {
        "ne_lifted": errors[0],
        "ne_canonical": errors[1],
        "ne_best_flip_lifted": best[0],
        "ne_best_flip": best[1],
        "ne_flat": errors[4],
        "pa_mpjpe_lifted": metrics.pa_mpjpe(lifted, true, mask),
        "pa_mpjpe_best_flip_lifted": metrics.pa_mpjpe_best_flip(lifted, true, mask),
        "n_mpjpe_camera": metrics.n_mpjpe_camera(lifted, true, mask),
        "stress": metrics.stress(lifted, true, mask),
        "reprojection": metrics.reprojection(posed, seen.points2d, seen.annotated),
    }


@jax.jit
def _flat(frames: Labelled) -> jax.Array:
    """What was not observed lies, for want of better, at the centroid of what was."""
    seen = frames.observation
    centroid = numerics.masked_mean(seen.points2d, seen.observed)[:, None]
    xy = jnp.where(seen.observed[..., None], seen.points2d, centroid)
    return jnp.concatenate([xy, jnp.zeros_like(xy[..., :1])], axis=-1)


@jax.jit
def _point_errors(frames: Labelled, lifted) -> jax.Array:
    true, mask = frames.points3d, frames.evaluated
    moved = metrics.align(lifted, true, mask)
    distance = numerics.safe_norm(numerics.keep(moved - true, mask))
    radius = numerics.rms_radius(true, mask)[:, None]
    return distance / jnp.where(radius > 0.0, radius, 1.0)


@jax.jit
def _both_signs(frames: Labelled, shape) -> dict:
    shapes = jnp.stack([shape, metrics.mirror_depth(shape)])
    plain, mirrored = _ne_of_each(shapes, frames.points3d, frames.evaluated)
    return {"plain": plain, "mirrored": mirrored}


@jax.jit
def _lift_shape(frames: Labelled, shape) -> tuple[jax.Array, jax.Array]:
    """A given shape posed to the observed 2D, and the same with observed xy kept."""
    seen = frames.observation
    posed = pose.apply_pose(pose.fit_pose(shape, seen.points2d, seen.observed), shape)
    xy = jnp.where(seen.observed[..., None], seen.points2d, posed[..., :2])
    return posed, jnp.concatenate([xy, posed[..., 2:]], axis=-1)


def _score_shapes(
    name: str, shapes, frames: Labelled, validation: Labelled, perspective: bool
) -> tuple[dict, np.ndarray]:
    """Errors of one shape per category, as it is and lifted, in the chosen sign; and
    the lifted shapes."""
    held_out = _chunked(
        _lift_shape, validation, shapes[validation.observation.category]
    )
    mirrored = _mirror_wins(validation, *held_out, perspective)
    mirrored = mirrored[frames.observation.category]
    shape = shapes[frames.observation.category]
    canonical = _chunked(_both_signs, frames, shape)
    lifts = _chunked(_lift_shape, frames, shape)[1]
    lifted = _chunked(_both_signs, frames, lifts)
    lifts[..., 2] *= np.where(mirrored, -1.0, 1.0).astype(lifts.dtype)[:, None]
    return {
        f"ne_{name}": np.where(mirrored, canonical["mirrored"], canonical["plain"]),
        f"ne_{name}_lifted": np.where(mirrored, lifted["mirrored"], lifted["plain"]),
    }, lifts


@jax.jit
def _foreshortening(frames: Labelled, posed) -> jax.Array:
    seen = frames.observation
    return pose.foreshortening(posed, seen.points2d, seen.observed)


def _mirror_wins(frames: Labelled, posed, lifted, perspective: bool) -> np.ndarray:
    """Per category whether the mirror image is better in sum, [c]."""
    if perspective:
        gain = _chunked(_foreshortening, frames, posed)
    else:
        errors = _chunked(_both_signs, frames, lifted)
        scored = metrics.scorable(frames.evaluated)
        gain = np.where(scored, errors["plain"] - errors["mirrored"], 0.0)
    return np.bincount(frames.observation.category, gain) > 0.0


# ------------------------------------------------------------------ scoring categories


def _entries(training: TrainingData, frames: Labelled, scores, canonical, library):
    """What eval.json says of each category."""
    entries = {}
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
        entries[skeleton.name] = entry
    return entries


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


_mean_shape = jax.jit(metrics.mean_shape)
_relative_variance = jax.jit(metrics.relative_variance)
_nearest_shape = jax.jit(metrics.nearest_shape)
_ne = jax.jit(metrics.ne)


def _mean_shapes(library: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.stack([np.asarray(_mean_shape(*shapes)) for shapes in library])


def _shape_statistics(canonical, true, mask, library, library_mask) -> dict:
    """Does the model deform as much as the truth, and is test far from training?"""
    statistics = {}
    variance = float(_relative_variance(*_thin(true, mask, LIBRARY)))
    if variance > 0.0:
        predicted = float(_relative_variance(*_thin(canonical, mask, LIBRARY)))
        statistics[VARIANCE] = _short(predicted / variance)
    if library_mask.any():
        true, mask = _thin(true, mask, NEAREST)
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


def _with_means(entries: dict[str, dict]) -> dict:
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
