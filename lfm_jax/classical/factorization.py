"""Structure from motion by factorization: shapes from 2D alone, without weights.

Symbols. Image points x [f n 2] of f frames, normalised: every frame is centred over its
seen points and has RMS radius 1; `size` [f] is what it was divided by. Scaled
orthographic cameras x = s P R X + t with P the first two rows of the identity and R in
SO(3). A rigid shape is one X [n 3] for all frames; a low-rank shape is a mean and k
deformation bases with Gaussian coefficients, stacked as `shapes` [m n 3], m = k + 1
(geometry/deformable.py).

The result is defined up to one global rotation, the scale of the shape, and one global
mirror image in depth, which 2D cannot tell. The order of the frames plays no part.

The low-rank model is fitted by expectation maximisation (classical/low_rank.py). Its
likelihood has many optima: the rigid shape with the least 2D error often explains
part of the frames by the mirror image of their pose (a walking body and its mirror look
alike to a rigid model). Hence many random starts, each deformed a little before they
are compared, and compared by what they say about points they were not shown.

The methods in closed form, `tomasi_kanade` and `bregler`, are in classical/affine.py.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from lfm_jax.classical.affine import bregler as bregler
from lfm_jax.classical.affine import tomasi_kanade as tomasi_kanade
from lfm_jax.classical.low_rank import (
    Frames,
    LowRank,
    iterate,
    posed_shapes,
    prepare,
    random_model,
)

SEARCH_FRAMES, FRAMES = 256, 1024  # frames used to choose a start, and to fit it
# A frame of n points has 2 n image coordinates, 4 of which go to the pose: more bases
# than a third of the points explain any 2D, also by a wrong pose.
POINTS_PER_BASIS = 3
STARTS, RIGID_STARTS, SEARCH_BASES = 32, 32, 4
FINALISTS = 3  # starts of either kind that are finished
NEAR = 1.05  # whose error is below this times the best start's is as good
CHOSEN = 2  # starts that provide models
ITERATIONS = 30
# Rounds are slow where coefficients are uncertain. Those of the finish begin ahead by
# this share of the last change: thirty do what a hundred would. In the search it made
# the zoo's stiff categories worse (docs/history.md).
MOMENTUM = 0.8
# share of points hidden to judge a model by, and frames, of each part at most
HIDDEN, JUDGED = 0.25, 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Riddle:
    """Frames of which some points are hidden, and where those are.

    Attributes:
        frames: without the hidden points.
        tracks: all points, normalised as the frames are.
        hidden: which of them are asked for.
    """

    frames: Frames
    tracks: Float[Array, "f n 2"]
    hidden: Bool[Array, "f n"]


def factorize_rigid(
    points2d: Float[np.ndarray, "f n 2"],
    mask: Bool[np.ndarray, "f n"],
    *,
    width: int | None = None,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> LowRank:
    """The one shape that explains the 2D of one category best: no bases, one noise.

    Args:
        points2d: image points in units that all frames share; values outside the mask
            are ignored.
        mask: which points are seen.
        width: pad keypoints to this many, so that categories of different size share
            one compilation.
        iterations: rounds of alternation after the search.
        seed: of the random starts.

    Returns:
        The model in NumPy, keypoints not padded.
    """
    count = points2d.shape[1]
    few, unit = prepare(points2d, mask, SEARCH_FRAMES, width or count)
    many, _ = prepare(points2d, mask, FRAMES, width or count, unit)
    keys = jax.random.split(jax.random.key(seed), RIGID_STARTS)
    models, errors = _search_rigid(keys, few)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(errors)], models)
    return _finished(_fit(many, best, True, iterations), 0, count, unit)


def factorize(
    points2d: Float[np.ndarray, "f n 2"],
    mask: Bool[np.ndarray, "f n"],
    held_out: tuple[Float[np.ndarray, "g n 2"], Bool[np.ndarray, "g n"]],
    bases: Sequence[int],
    *,
    width: int | None = None,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> tuple[LowRank, ...]:
    """Fits deforming shapes to the 2D of one category, of so many and so many bases.

    The random starts are searched from twice, with a noise for each keypoint and with
    one for all (with a noise for each, a wrong shape can excuse itself by noisy limbs).
    Those of either kind that best predict hidden points, of frames given and of frames
    held out, are finished with every number of bases, and compared by the sum over
    their models. Where a second predicts about as well as the best, hidden points
    cannot tell which is right, and both are taken.

    Args:
        points2d: as in `factorize_rigid`.
        mask: which points are seen.
        held_out: points and mask of other frames, in the same units.
        bases: numbers of deformation bases; at most a third of the keypoints is used.
        width: as in `factorize_rigid`.
        iterations: rounds of expectation maximisation after the search.
        seed: of the random starts.

    Returns:
        `CHOSEN` models for every number of bases, those of one start together, in
        NumPy, keypoints not padded. All have the same sign of depth, by the sign of
        their correlation with the first. Where one start alone is good, it is repeated.
    """
    count = points2d.shape[1]
    width = width or count
    few, unit = prepare(points2d, mask, SEARCH_FRAMES, width)
    many, _ = prepare(points2d, mask, FRAMES, width, unit)
    riddle = pose_riddle([(points2d, mask), held_out], width, unit)
    most = max(bases)
    allowed = [min(wanted, count // POINTS_PER_BASIS) for wanted in bases]
    keys = jax.random.split(jax.random.key(seed), STARTS)
    fresh = 0.05 * jax.random.normal(jax.random.key(seed), (most + 1, width, 3))
    rivals = []
    for shared in (True, False):
        models = _search(keys, few, max(allowed), shared, min(most, SEARCH_BASES))
        errors, _ = solve_riddle(riddle, models)
        for best in np.argsort(errors, stable=True)[:FINALISTS]:
            start = jax.tree.map(lambda leaf, best=best: leaf[best], models)
            grown = [_grown(start, fresh, used) for used in allowed]
            fitted = [_fit(many, model, shared, iterations) for model in grown]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *fitted)
            errors, depths = solve_riddle(riddle, stacked)
            depths = depths[..., :count] - depths[..., :count].mean(-1, keepdims=True)
            rivals.append((float(errors.sum()), fitted, depths))
    finished, depths = [], []
    for _, fitted, seen in _chosen(rivals):
        for model, used in zip(fitted, allowed, strict=True):
            finished.append(_finished(model, used, count, unit))
        depths.extend(seen)
    return tuple(_same_sign(finished, depths))


def _chosen(rivals):
    """Of (error, ...), the best that are about as good as the best of all."""
    rivals = sorted(rivals, key=lambda rival: rival[0])
    near = [rival for rival in rivals if rival[0] <= NEAR * rivals[0][0]]
    return [near[turn % len(near)] for turn in range(CHOSEN)]


def _grown(model: LowRank, fresh, used: int) -> LowRank:
    """With fresh bases; unused ones stay zero: one compilation for any number."""
    shapes = fresh.at[: len(model.shapes)].set(model.shapes)
    kept = jnp.arange(len(shapes)) <= used
    return dataclasses.replace(
        model, shapes=jnp.where(kept[:, None, None], shapes, 0.0)
    )


def _finished(model: LowRank, used: int, count: int, unit: float) -> LowRank:
    shapes = np.asarray(model.shapes)[: used + 1, :count]
    return LowRank(
        shapes - shapes.mean(1, keepdims=True),
        np.asarray(model.noise)[:count],
        np.asarray(model.scale * unit),
        np.asarray(model.spread),
    )


def _same_sign(models: Sequence[LowRank], depths) -> list[LowRank]:
    """The models, mirrored where their depths are those of the first mirrored."""
    mirror = np.array([1.0, 1.0, -1.0], np.float32)
    return [
        dataclasses.replace(model, shapes=model.shapes * mirror)
        if np.sum(depth * depths[0]) < 0.0
        else model
        for model, depth in zip(models, depths, strict=True)
    ]


@jax.jit
def _search_rigid(keys, frames: Frames):
    """Random starts; models and the 2D errors they leave."""

    def one(key: Key[Array, ""]):
        model = iterate(frames, random_model(key, frames), True, 10)
        posed = posed_shapes(frames, model)[..., :2]
        squares = jnp.sum(jnp.square(posed - frames.tracks), axis=-1)
        error = jnp.sum(jnp.where(frames.mask, squares, 0.0))
        return model, jnp.where(jnp.isfinite(error), error, jnp.inf)

    return jax.lax.map(one, keys)


@functools.partial(jax.jit, static_argnames="bases")
def _search(keys, frames: Frames, active, shared, bases) -> LowRank:
    """Random starts, rigid for a while and then with a few bases."""

    def one(key: Key[Array, ""]):
        shape_key, basis_key = jax.random.split(key)
        # a rigid start that has converged forgets what it started from
        model = iterate(frames, random_model(shape_key, frames), True, 3)
        fresh = 0.1 * jax.random.normal(basis_key, (bases, *model.shapes.shape[1:]))
        used = jnp.arange(bases) < active
        fresh = jnp.where(used[:, None, None], fresh, 0.0)
        shapes = jnp.concatenate([model.shapes, fresh])
        return iterate(frames, dataclasses.replace(model, shapes=shapes), shared, 20)

    return jax.lax.map(one, keys)


@jax.jit
def _fit(frames, model, shared, iterations) -> LowRank:
    return iterate(frames, model, shared, iterations, MOMENTUM)


def pose_riddle(
    parts: Sequence[tuple[Float[np.ndarray, "_ n 2"], Bool[np.ndarray, "_ n"]]],
    width: int,
    unit: float,
) -> Riddle:
    """Hides some points of at most `JUDGED` frames of each part, evenly spread.

    Args:
        parts: image points and which of them are seen.
        width: keypoints are padded to this many.
        unit: of the models' scales, as `prepare` returns it.
    """
    thinned = [_hide(points, mask) for points, mask in parts]
    points, mask, shown = (
        np.concatenate(arrays) for arrays in zip(*thinned, strict=True)
    )
    most = JUDGED * len(parts)
    frames, _ = prepare(points, shown, most, width, unit, fewest=most)
    count = np.maximum(shown.sum(1)[:, None, None], 1)
    middle = np.where(shown[..., None], points, 0.0).sum(1, keepdims=True) / count
    tracks = np.where(mask[..., None], points - middle, 0.0)
    size = np.asarray(frames.size)[: len(points), None, None] * unit
    missing = [(0, most - len(points)), (0, width - mask.shape[1])]
    return Riddle(
        frames,
        jnp.asarray(np.pad(tracks / size, [*missing, (0, 0)]).astype(np.float32)),
        jnp.asarray(np.pad(mask & ~shown, missing)),
    )


def _hide(points, mask):
    """Some frames' points, which are seen, and which of those are shown."""
    shown = mask & (np.random.default_rng(0).random(mask.shape) >= HIDDEN)
    if not np.any(shown.sum(1) >= 4):
        shown = mask  # none can be spared
    rows = np.flatnonzero(shown.sum(1) >= 4)
    if len(rows) > JUDGED:
        rows = rows[np.linspace(0, len(rows) - 1, JUDGED).astype(int)]
    return points[rows], mask[rows], shown[rows]


def solve_riddle(
    riddle: Riddle, models: LowRank
) -> tuple[Float[np.ndarray, "j"], Float[np.ndarray, "j f n"]]:
    """Asks models where the hidden points are.

    Unlike the likelihood, which more bases always raise, this has something to say on
    which of several models is right, and it needs 2D alone.

    Args:
        riddle: padded as the models are.
        models: stacked.

    Returns:
        The mean image distance of hidden points, relative to the frame's RMS radius
        (of the points shown, where four are all there is; infinite where a model has
        no finite answer), and the depths of all points, zero in frames not asked.
    """
    errors, depths = _solve(riddle, models)
    return np.asarray(errors), np.asarray(depths)


@jax.jit
def _solve(riddle: Riddle, models: LowRank):
    shown = riddle.frames.mask
    asked = jnp.where(jnp.any(riddle.hidden), riddle.hidden, shown)
    count = jnp.maximum(jnp.sum(asked, dtype=jnp.float32), 1.0)

    def one(model: LowRank):
        posed = posed_shapes(riddle.frames, model)
        squares = jnp.sum(jnp.square(posed[..., :2] - riddle.tracks), axis=-1)
        error = jnp.sum(jnp.where(asked, jnp.sqrt(squares), 0.0)) / count
        # padding would vote too, with the depth of an unturned mean shape
        depth = jnp.where(jnp.any(shown, axis=1, keepdims=True), posed[..., 2], 0.0)
        return jnp.where(jnp.isfinite(error), error, jnp.inf), depth

    return jax.lax.map(one, models)
