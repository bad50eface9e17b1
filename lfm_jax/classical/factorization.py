"""Structure from motion by factorization: shapes from 2D alone, without weights.

Symbols. Image points x [f n 2] of f frames, normalised: every frame is centred over its
seen points and has RMS radius 1; `size` [f] is what it was divided by. Scaled
orthographic cameras x = s P R X + t with P the first two rows of the identity and R in
SO(3). A rigid shape is one X [n 3] for all frames; a low-rank shape is a mean and k
deformation bases with Gaussian coefficients, stacked as `shapes` [m n 3], m = k + 1
(geometry/deformable.py).

The result is defined up to one global rotation, the scale of the shape, and one global
mirror image in depth, which 2D cannot tell. The order of the frames plays no part.

The low-rank model is fitted by expectation maximisation (Torresani, Hertzmann &
Bregler 2008), with two things that articulated bodies need: a noise for every keypoint
(hands and feet are explained worse than the torso, and must not turn it), and a scale
that is about the same in all frames, as far as the frames themselves say so.

Its likelihood has many optima: the rigid shape with the least 2D error often explains
part of the frames by the mirror image of their pose (a walking body and its mirror look
alike to a rigid model). Hence many random starts, each deformed a little before they
are compared: with deformation, the likelihood of the 2D tells the right one.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from lfm_jax import numerics
from lfm_jax.geometry.deformable import (
    Moments,
    deform,
    fit_low_rank,
    moments,
    posterior,
    refine_pose,
    weights,
)
from lfm_jax.geometry.pose import ScalePrior, apply_pose
from lfm_jax.numerics import einsum
from lfm_jax.types import ArrayLike

NOISE_FLOOR = 1e-3  # variance; keypoints are good to 3 % of the object, not better
SPREAD_FLOOR = 0.03  # nor does any object keep its size better than this
SEARCH_FRAMES, FRAMES = 256, 1024  # frames used to choose a start, and to fit it
# A frame of n points has 2 n image coordinates, 4 of which go to the pose: more bases
# than a third of the points explain any 2D, also by a wrong pose.
POINTS_PER_BASIS = 3
STARTS, SEARCH_BASES = 16, 4
# share of points hidden, and frames, to judge a model by
HIDDEN, JUDGED = 0.25, SEARCH_FRAMES
# A keypoint's noise is that of all keypoints until it was seen about this often.
SHARED_SIGHTINGS = 10.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frames:
    """What is factorized, normalised and padded with unseen frames and keypoints."""

    tracks: Float[Array, "f n 2"]
    mask: Bool[Array, "f n"]
    size: Float[Array, "f"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
    """A deforming shape and how its images vary.

    Attributes:
        shapes: mean and bases, one standard deviation each, centred; the mean has RMS
            radius 1.
        noise: variance of an image coordinate of each keypoint, for 2D whose frame has
            RMS radius 1.
        scale: usual scale of the image, in the units that frames share.
        spread: standard deviation of a frame's scale relative to `scale`.
    """

    shapes: Float[ArrayLike, "*s m n 3"]
    noise: Float[ArrayLike, "*s n"]
    scale: Float[ArrayLike, "*s"]
    spread: Float[ArrayLike, "*s"]


@dataclasses.dataclass(frozen=True)
class Factorization:
    """Rigid or deformable shape that explains the 2D of one category.

    Attributes:
        model: in NumPy.
        score: mean log-likelihood of an image coordinate.
    """

    model: LowRank
    score: float


def factorize(
    points2d: Float[np.ndarray, "f n 2"],
    mask: Bool[np.ndarray, "f n"],
    bases: Sequence[int] = (0,),
    *,
    shared_noise: bool = False,
    width: int | None = None,
    iterations: int = 30,
    seed: int = 0,
) -> tuple[Factorization, ...]:
    """Fits the shape of one category to its 2D, with so many bases and with so many.

    Args:
        points2d: image points in units that all frames share; values outside the mask
            are ignored.
        mask: which points are seen.
        bases: numbers of deformation bases, which share the search for a start; at most
            a third of the keypoints is used. (0,) is rigid, with one noise for all
            keypoints and nothing known of scales.
        shared_noise: one noise for all keypoints, instead of one for each.
        width: pad keypoints to this many, so that categories of different size share
            one compilation.
        iterations: rounds of alternation after the search.
        seed: of the random starts.

    Returns:
        A factorization for every number of bases, keypoints not padded.
    """
    count = points2d.shape[1]
    width = width or count
    few, unit = prepare(points2d, mask, SEARCH_FRAMES, width)
    many, _ = prepare(points2d, mask, FRAMES, width, unit)
    keys = jax.random.split(jax.random.key(seed), STARTS)
    most = max(bases)
    active = min(most, count // POINTS_PER_BASIS)
    models, scores = _search(keys, few, active, shared_noise, min(most, SEARCH_BASES))
    start = jax.tree.map(lambda leaf: leaf[jnp.argmax(scores)], models)
    fresh = jax.random.normal(jax.random.key(seed), (most + 1, width, 3))
    found = []
    for wanted in bases:
        # unused bases stay zero: one compilation for any number of them
        used = np.arange(most + 1) <= min(wanted, count // POINTS_PER_BASIS)
        shapes = 0.05 * fresh
        shapes = shapes.at[: len(start.shapes)].set(start.shapes)
        shapes = jnp.where(used[:, None, None], shapes, 0.0)
        model = dataclasses.replace(start, shapes=shapes)
        model, score = _fit(many, model, shared_noise, iterations)
        shapes = np.asarray(model.shapes)[used, :count]
        model = LowRank(
            shapes - shapes.mean(1, keepdims=True),
            np.asarray(model.noise)[:count],
            np.asarray(model.scale * unit),
            np.asarray(model.spread),
        )
        found.append(Factorization(model, float(score)))
    return tuple(found)


def prepare(points2d, mask, frames, width, unit=None) -> tuple[Frames, float]:
    """At most `frames` frames, evenly spread, normalised and padded; and their unit.

    Padded to `frames` halved as often as they still fit: few sizes to compile, little
    computed on padding. Sizes are in the unit, by default the median size.
    """
    usable = np.flatnonzero(mask.sum(1) >= 4)
    if len(usable) > frames:
        usable = usable[np.linspace(0, len(usable) - 1, frames).astype(int)]
    while frames > SEARCH_FRAMES and len(usable) <= frames // 2:
        frames //= 2
    seen = mask[usable][..., None]
    count = np.maximum(seen.sum(1, keepdims=True), 1)
    points = np.where(seen, points2d[usable], 0.0)
    points = np.where(seen, points - points.sum(1, keepdims=True) / count, 0.0)
    size = np.sqrt((points**2).sum((1, 2), keepdims=True) / count)
    size = np.where(size > 0, size, 1.0)
    unit = unit or float(np.median(size))
    rows, columns = (0, frames - len(usable)), (0, width - mask.shape[1])
    padded = np.pad(points / size, [rows, columns, (0, 0)]).astype(np.float32)
    sizes = np.pad(size[:, 0, 0] / unit, rows, constant_values=1.0)
    return Frames(
        jnp.asarray(padded),
        jnp.asarray(np.pad(seen[..., 0], [rows, columns])),
        jnp.asarray(sizes.astype(np.float32)),
    ), unit


@functools.partial(jax.jit, static_argnames="bases")
def _search(keys, frames: Frames, active, shared, bases):
    """Random starts, rigid and then with a few bases; models and their scores."""
    width = frames.mask.shape[1]

    def one(key: Key[Array, ""]):
        shape_key, basis_key = jax.random.split(key)
        shapes = jax.random.normal(shape_key, (1, width, 3))
        model = LowRank(shapes, jnp.ones(width), jnp.float32(1.0), jnp.float32(1.0))
        # a rigid start that has converged forgets what it started from
        model = _iterate(frames, model, True, 3 if bases else 10)
        if bases:
            fresh = jax.random.normal(basis_key, (bases, width, 3))
            used = jnp.arange(bases) < active
            fresh = jnp.where(used[:, None, None], 0.1 * fresh, 0.0)
            shapes = jnp.concatenate([model.shapes, fresh])
            model = dataclasses.replace(model, shapes=shapes)
            model = _iterate(frames, model, shared, 20)
        return model, log_likelihood(frames, model)

    return jax.lax.map(one, keys)


@jax.jit
def _fit(frames, model, shared, iterations):
    model = _iterate(frames, model, shared, iterations)
    return model, log_likelihood(frames, model)


def _iterate(frames: Frames, model: LowRank, shared, iterations) -> LowRank:
    """Expectation maximisation; without bases, alternation of pose and shape."""
    shared = jnp.asarray(shared) | (len(model.shapes) == 1)
    _, pose = _explain(frames, model)

    def step(_, carry):
        model, scale, rotation = carry
        moment = _moments(frames, model)
        prior = _prior(frames, model)
        codes, _ = posterior(moment, scale, rotation)
        scale, rotation = refine_pose(moment, codes, rotation, prior)
        codes, covariance = posterior(moment, scale, rotation)
        shapes = _maximise(frames, model, codes, covariance, scale, rotation)
        # the mean keeps RMS radius 1, so that scales mean something
        radius = numerics.rms_radius(shapes[0], jnp.any(frames.mask, axis=0))
        radius = jnp.maximum(radius, numerics.TINY)
        model, scale = (
            dataclasses.replace(model, shapes=shapes / radius),
            scale * radius,
        )
        noise = _noise(frames, model, codes, covariance, scale, rotation, shared)
        usual, spread = _scales(frames, scale)
        return LowRank(model.shapes, noise, usual, spread), scale, rotation

    carry = (model, pose.scale, pose.rotation)
    return jax.lax.fori_loop(0, iterations, step, carry)[0]


def _prior(frames: Frames, model: LowRank) -> ScalePrior:
    """What the model knows of scales; a rigid one explains too little to know."""
    usual = model.scale / frames.size
    known = float(len(model.shapes) > 1)
    return ScalePrior(usual, known / jnp.square(model.spread * usual))


def _each(frames: Frames, leaf: Array) -> Array:
    """The same for every frame."""
    return jnp.broadcast_to(leaf, (len(frames.size), *leaf.shape))


def _explain(frames, model, rounds: int = 8):
    """Coefficients and pose of every frame, afresh."""
    return fit_low_rank(
        _each(frames, model.shapes),
        _each(frames, model.noise),
        frames.tracks,
        frames.mask,
        _prior(frames, model),
        rounds=rounds,
    )


def _weights(frames, model):
    return weights(_each(frames, model.noise), frames.mask)


def _moments(frames, model) -> Moments:
    shapes = _each(frames, model.shapes)
    return moments(shapes, frames.tracks, _weights(frames, model))


def _maximise(frames, model, codes, covariance, scale, rotation):
    """Mean and bases by least squares under the posterior of the coefficients.

    Every keypoint on its own, the translations being those of the present shapes.
    """
    count, size = len(codes), 3 * (codes.shape[1] + 1)
    stacked = jnp.concatenate([jnp.ones((count, 1)), codes], axis=1)
    second = stacked[:, :, None] * stacked[:, None, :]
    second = second.at[:, 1:, 1:].add(covariance)
    camera = scale[:, None, None] * rotation[:, :2]
    moment = _moments(frames, model)
    middle = einsum("fk,fki->fi", stacked, moment.shape_means)
    shift = einsum("fai,fi->fa", camera, middle) - moment.image_mean
    tracks = numerics.keep(frames.tracks + shift[:, None], frames.mask)
    products = einsum("fai,faj->fij", camera, camera)
    outer = einsum("fkl,fij->fkilj", second, products).reshape(count, -1)
    seen = frames.mask.astype(tracks.dtype)
    normal = einsum("fn,fo->no", seen, outer).reshape(-1, size, size)
    back = einsum("fai,fna->fni", camera, tracks)
    right = einsum("fk,fni->nki", stacked, back).reshape(-1, size)
    ridge = 1e-4 * jnp.mean(jnp.trace(normal, axis1=1, axis2=2)) / size + 1e-9
    normal = normal + numerics.scaled_identity(ridge[None], size)
    solved = jnp.linalg.solve(normal, right[..., None])[..., 0]
    shapes = solved.reshape(-1, codes.shape[1] + 1, 3).swapaxes(0, 1)
    ever = jnp.any(frames.mask, axis=0)[None]
    return numerics.centre(shapes, jnp.broadcast_to(ever, shapes.shape[:2]))


def _noise(frames, model, codes, covariance, scale, rotation, shared):
    """Variance of an image coordinate of each keypoint, expected over the posterior."""
    camera = scale[:, None, None] * rotation[:, :2]
    images = einsum("fai,kni->fkna", camera, model.shapes)
    bases = images[:, 1:]
    image = images[:, 0] + einsum("fk,fkna->fna", codes, bases)
    weight = _weights(frames, model)
    total = jnp.maximum(jnp.sum(weight, axis=1), numerics.TINY)
    residual = frames.tracks - image
    middle = einsum("fn,fna->fa", weight, residual) / total[:, None]
    squares = jnp.sum(jnp.square(residual - middle[:, None]), axis=-1)
    squares = squares + einsum("fkl,fkna,flna->fn", covariance, bases, bases)
    squares = jnp.sum(jnp.where(frames.mask, squares, 0.0), axis=0)
    count = 2.0 * jnp.sum(frames.mask, axis=0, dtype=squares.dtype)
    usual = jnp.sum(squares) / jnp.sum(count)
    few = 2.0 * SHARED_SIGHTINGS
    own = (squares + few * usual) / (count + few)
    return jnp.maximum(jnp.where(shared, usual, own), NOISE_FLOOR)


def _scales(frames, scale):
    """Median over frames of the scale in common units, and its relative spread."""
    logs = jnp.log(jnp.maximum(scale * frames.size, numerics.TINY))
    logs = jnp.where(jnp.any(frames.mask, axis=1), logs, jnp.nan)
    middle = jnp.nanmedian(logs)
    deviation = 1.4826 * jnp.nanmedian(jnp.abs(logs - middle))
    return jnp.exp(middle), jnp.clip(deviation, SPREAD_FLOOR, 1.0)


def log_likelihood(frames: Frames, model: LowRank) -> Float[Array, ""]:
    """Mean log-likelihood of an image coordinate, up to a constant.

    The coefficients are integrated out, the cameras are at their most probable: the
    Gaussian N(s P R mean + t, A A^T + diag(noise)) of each frame, by the matrix
    inversion lemma, and the deviation of its scale.
    """
    codes, pose = _explain(frames, model)
    moment = _moments(frames, model)
    codes, covariance = posterior(moment, pose.scale, pose.rotation)
    camera = pose.scale[:, None, None] * pose.rotation[:, :2]
    weight = _weights(frames, model)
    body = deform(_each(frames, model.shapes), codes)
    residual = frames.tracks - einsum("fai,fni->fna", camera, body)
    total = jnp.maximum(jnp.sum(weight, axis=1), numerics.TINY)
    middle = einsum("fn,fna->fa", weight, residual) / total[:, None]
    squares = jnp.sum(jnp.square(residual - middle[:, None]), axis=-1)
    misfit = jnp.sum(weight * squares, axis=1) + jnp.sum(jnp.square(codes), axis=1)
    prior = _prior(frames, model)
    misfit = misfit + prior.weight * jnp.square(pose.scale - prior.scale)
    noise = jnp.where(frames.mask, jnp.log(model.noise), 0.0)
    logdet = 2.0 * jnp.sum(noise, axis=1) - jnp.linalg.slogdet(covariance)[1]
    seen = jnp.maximum(2.0 * jnp.sum(frames.mask, axis=1, dtype=misfit.dtype), 1.0)
    used = jnp.any(frames.mask, axis=1)
    each = jnp.where(used, -0.5 * (misfit + logdet) / seen, 0.0)
    return jnp.sum(each) / jnp.sum(used, dtype=each.dtype)


def predict_hidden(
    models: Sequence[LowRank],
    points2d: Float[np.ndarray, "f n 2"],
    mask: Bool[np.ndarray, "f n"],
    *,
    width: int | None = None,
) -> tuple[Float[np.ndarray, "j"], Float[np.ndarray, "j used n 3"]]:
    """Hides some points and asks models where they are.

    Unlike the likelihood, which more bases always raise, this has something to say on
    which of several models is right, and it needs 2D alone.

    Args:
        models: unbatched, keypoints as in the points.
        points2d: frames that the models were not fitted to, in their units; at most
            `JUDGED`, evenly spread, are used.
        mask: which points are seen.
        width: as in `factorize`.

    Returns:
        The mean image distance of hidden points, relative to the frame's RMS radius
        (infinite where nothing could be hidden), and the posed shapes, normalised.
    """
    shown = mask & (np.random.default_rng(0).random(mask.shape) >= HIDDEN)
    rows = np.flatnonzero(shown.sum(1) >= 4)
    if len(rows) > JUDGED:
        rows = rows[np.linspace(0, len(rows) - 1, JUDGED).astype(int)]
    points, mask, shown = points2d[rows], mask[rows], shown[rows]
    count, width = mask.shape[1], width or mask.shape[1]
    frames, unit = prepare(points, shown, JUDGED, width)
    most = max(len(model.shapes) for model in models)
    posed = np.stack(
        [_pose_all(frames, _padded(model, most, width, unit)) for model in models]
    )[:, : len(rows), :count]
    middle = np.mean(points, axis=1, where=shown[..., None], keepdims=True)
    size = np.asarray(frames.size)[: len(rows), None, None] * unit
    distance = np.linalg.norm(posed[..., :2] - (points - middle) / size, axis=-1)
    hidden = mask & ~shown
    if not hidden.any():
        return np.full(len(models), np.inf), posed
    return distance[:, hidden].mean(axis=1), posed


@jax.jit
def _pose_all(frames: Frames, model: LowRank) -> Float[Array, "f n 3"]:
    codes, pose = _explain(frames, model)
    return apply_pose(pose, deform(_each(frames, model.shapes), codes))


def _padded(model: LowRank, most: int, width: int, unit: float) -> LowRank:
    """More bases and keypoints, inert and never seen; the scale in a unit."""
    missing = most - len(model.shapes), width - model.shapes.shape[1]
    return LowRank(
        jnp.asarray(np.pad(model.shapes, [(0, missing[0]), (0, missing[1]), (0, 0)])),
        jnp.asarray(np.pad(model.noise, (0, missing[1]), constant_values=1.0)),
        jnp.float32(model.scale / unit),
        jnp.float32(model.spread),
    )
