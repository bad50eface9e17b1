"""The numbers of eval.json: our predictions and every yardstick on the same frames.

3D truth enters here and goes no further back: the network never sees this room.

Two predictions are scored, each by `metrics.ne` after a similarity alignment in SO(3):
`canonical` (the network's shape) and `lifted` (observed xy kept, depth from the posed
shape, hidden points wholly the posed shape's). Points are compared wherever 3D truth
exists, observed or not.

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
from lfm_jax.train.entries import LIBRARY, entries, thin, with_means
from lfm_jax.types import Labelled, Observation, Prediction

CHUNK = 512  # frames in one call

Predict = Callable[[Observation], Prediction]
Records = Sequence[Labelled | Observation]


def evaluate(
    predict: Predict,
    training: TrainingData,
    evaluation: EvaluationData,
    rigid_shapes: Sequence[np.ndarray],
    *,
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
    library = [thin(*_truth(record, width), LIBRARY) for record in evaluation.train]
    rigid = np.stack([_pad(shape, width, axis=0) for shape in rigid_shapes])

    canonical, posed, lifted, start = _lift_all(predict, records, width)
    scores = _chunked(_score, frames, canonical, posed, lifted)
    lifts = {"lifted": lifted, "flat": _chunked(_flat, frames)}
    yardsticks = {"mean_shape": _mean_shapes(library), "rigid": rigid}
    for name, shapes in yardsticks.items():
        errors, lifts[f"{name}_lifted"] = _score_shapes(
            name, shapes, frames, validation, perspective
        )
        scores |= errors
    if start:
        begin = lambda seen: predict(seen).start
        sign = choose_depth_sign(begin, evaluation, perspective=perspective)
        for shape in start:
            shape[..., 2] *= sign[frames.observation.category, None]
        before = _chunked(_score, frames, *start)
        scores["ne_start"] = before["ne_canonical"]
        scores["ne_start_lifted"] = before["ne_lifted"]

    found = entries(training, frames, scores, canonical, library)
    if films:
        more = sequences.sequence_errors(records, frames, lifts)
        found = {k: e | s for (k, e), s in zip(found.items(), more, strict=True)}
    return with_means(found)


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
    _, posed, lifted, _ = _lift_all(predict, evaluation.validation, width)
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
    scores = _chunked(_score, frames, *_lift_all(predict, records, width)[:3])
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


def _lift_all(predict: Predict, records: Records, width: int) -> tuple:
    """The canonical, posed and lifted shapes of all frames, [f width 3] each; and the
    same of the start, or None."""
    seen = [record.observation for record in records]
    found = [predict(o) for o in seen if len(o.points2d)]

    def shapes(predictions) -> list[np.ndarray]:
        return [
            np.concatenate([_pad(getattr(p, name), width) for p in predictions])
            for name in ("canonical", "posed", "lifted")
        ]

    begun = [p.start for p in found if p.start is not None]
    return *shapes(found), shapes(begun) if begun else None


def _chunked(function: Callable, *trees) -> PyTree:
    """Maps over frames in chunks of one size; the last repeats its last frame."""
    count = len(jax.tree.leaves(trees)[0])
    chunks = []
    for start in range(0, count, CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), count - 1)
        values = function(*jax.tree.map(lambda leaf, rows=rows: leaf[rows], trees))
        chunks.append(jax.tree.map(np.asarray, values))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *chunks)


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


_mean_shape = jax.jit(metrics.mean_shape)


def _mean_shapes(library: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.stack([np.asarray(_mean_shape(*shapes)) for shapes in library])
