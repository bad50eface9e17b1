"""Expectation maximisation of a low-rank shape under scaled orthography.

Symbols are those of classical/factorization.py: image points [f n 2], a mean and k
bases as `shapes` [m n 3], m = k + 1, Gaussian coefficients ("codes") [f k].

Torresani, Hertzmann & Bregler 2008, with two things that articulated bodies need: a
noise for every keypoint (hands and feet are explained worse than the torso, and must
not turn it), and a scale that is about the same in all frames, as far as the frames
themselves say so.

Frames come last, as in geometry/deformable.py, and products contract so that they stay
last: the compiler would turn all else to another order, many times as slow.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax import numerics
from lfm_jax.geometry.deformable import (
    DAMPING,
    Explanation,
    Moments,
    deform,
    explain,
    fit_low_rank,
    improve,
    weights,
)
from lfm_jax.geometry.pose import ScalePrior, apply_pose
from lfm_jax.numerics import einsum, product_last, tensordot
from lfm_jax.types import ArrayLike

NOISE_FLOOR = 1e-3  # variance; keypoints are good to 3 % of the object, not better
SPREAD_FLOOR = 0.03  # nor does any object keep its size better than this
# A keypoint's noise is that of all keypoints until it was seen about this often.
SHARED_SIGHTINGS = 10.0
FEWEST = 256  # frames are padded to this, doubled as needed: few compilations


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


def prepare(
    points2d, mask, frames, width, unit=None, *, fewest=FEWEST
) -> tuple[Frames, float]:
    """At most `frames` frames, evenly spread, normalised and padded; and their unit.

    Padded to `frames` halved as often as they still fit: few sizes to compile, little
    computed on padding. Sizes are in the unit, by default the median size.
    """
    usable = np.flatnonzero(mask.sum(1) >= 4)
    if len(usable) > frames:
        usable = usable[np.linspace(0, len(usable) - 1, frames).astype(int)]
    while frames > fewest and len(usable) <= frames // 2:
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


def random_model(key, frames: Frames) -> LowRank:
    """A rigid shape that nothing is known of."""
    width = frames.mask.shape[1]
    shapes = jax.random.normal(key, (1, width, 3))
    return LowRank(shapes, jnp.ones(width), jnp.float32(1.0), jnp.float32(1.0))


def iterate(
    frames: Frames, model: LowRank, shared, iterations, momentum=0.0
) -> LowRank:
    """Expectation maximisation; without bases, alternation of pose and shape.

    Each round begins ahead by `momentum` times the last change of the shapes.
    """
    shared = jnp.asarray(shared) | (len(model.shapes) == 1)
    _, pose = _explain(frames, model)

    def step(_, carry):
        model, last, scale, rotation, damping = carry
        ahead = model.shapes + momentum * (model.shapes - last)
        last, model = model.shapes, dataclasses.replace(model, shapes=ahead)
        moment, prior = _moments(frames, model), _prior(frames, model)
        found = explain(moment, prior, scale, rotation)
        found, damping = improve(moment, prior, found, damping)
        shapes = _maximise(frames, moment, found)
        # the mean keeps RMS radius 1, so that scales mean something
        radius = numerics.rms_radius(shapes[0], jnp.any(frames.mask, axis=0))
        radius = jnp.maximum(radius, numerics.TINY)
        model = dataclasses.replace(model, shapes=shapes / radius)
        found = dataclasses.replace(found, scale=found.scale * radius)
        noise = _noise(frames, model, found, shared)
        usual, spread = _scales(frames, found.scale)
        model = LowRank(model.shapes, noise, usual, spread)
        return model, last, found.scale, found.rotation, damping

    damping = jnp.full_like(pose.scale, DAMPING)
    rotation = jnp.moveaxis(pose.rotation, 0, -1)
    carry = (model, model.shapes, pose.scale, rotation, damping)
    return jax.lax.fori_loop(0, iterations, step, carry)[0]


def _prior(frames: Frames, model: LowRank) -> ScalePrior:
    """What the model knows of scales; a rigid one explains too little to know."""
    usual = model.scale / frames.size
    known = float(len(model.shapes) > 1)
    return ScalePrior(usual, known / jnp.square(model.spread * usual))


def _each(frames: Frames, leaf: Array) -> Array:
    """The same for every frame."""
    return jnp.broadcast_to(leaf, (len(frames.size), *leaf.shape))


def _explain(frames, model):
    """Coefficients and pose of every frame, afresh."""
    return fit_low_rank(
        _each(frames, model.shapes),
        _each(frames, model.noise),
        frames.tracks,
        frames.mask,
        _prior(frames, model),
    )


def _weights(frames, model):
    return weights(_each(frames, model.noise), frames.mask)


def _moments(frames, model) -> Moments:
    """As `geometry.deformable.moments`, of one shape that all frames share."""
    weight, shapes = _weights(frames, model).T, model.shapes
    total = jnp.maximum(jnp.sum(weight, axis=0), numerics.TINY)
    tracks = frames.tracks.T  # [2 n f]
    image_mean = jnp.sum(weight[None] * tracks, axis=1) / total[None]
    shape_means = tensordot(jnp.swapaxes(shapes, 1, 2), weight, 1) / total[None, None]
    image = (tracks - image_mean[:, None]) * weight[None]
    outer = einsum("kni,lnj->ijkln", shapes, shapes)
    second = tensordot(outer, weight, 1)
    means = jnp.swapaxes(shape_means, 0, 1)
    heavy = total[None, None] * means
    means = means[:, None, :, None] * heavy[None, :, None, :]
    second = (second - means).reshape(9, *second.shape[2:])
    cross = einsum("kni,anf->kiaf", shapes, image)
    return Moments(second, cross, shape_means, image_mean)


def _maximise(frames, moment: Moments, found: Explanation):
    """Mean and bases by least squares under the posterior of the coefficients.

    Every keypoint on its own, the translations being those of the present shapes.
    """
    stacked = len(moment.cross)
    size = 3 * stacked
    code, second = _posterior(found)
    camera = found.scale[None, None] * found.rotation[:2]
    middle = jnp.sum(code[:, None] * moment.shape_means, axis=0)
    shift = product_last(camera, middle[:, None])[:, 0] - moment.image_mean
    seen = frames.mask.astype(shift.dtype)
    tracks = frames.tracks.transpose(2, 0, 1) + shift[..., None]
    tracks = tracks * seen[None]
    products = product_last(jnp.swapaxes(camera, 0, 1), camera)
    outer = second[:, None, :, None] * products[None, :, None, :]
    normal = tensordot(outer, seen, 1).reshape(size, size, -1)
    back = sum(camera[a, :, :, None] * tracks[a, None] for a in range(2))
    right = einsum("kf,ifn->nki", code, back).reshape(-1, size)
    normal = jnp.moveaxis(normal, -1, 0)
    ridge = 1e-4 * jnp.mean(jnp.trace(normal, axis1=1, axis2=2)) / size + 1e-9
    normal = normal + numerics.scaled_identity(ridge[None], size)
    factor = jax.scipy.linalg.cho_factor(normal)
    solved = jax.scipy.linalg.cho_solve(factor, right[..., None])[..., 0]
    shapes = solved.reshape(-1, stacked, 3).swapaxes(0, 1)
    ever = jnp.any(frames.mask, axis=0)[None]
    return numerics.centre(shapes, jnp.broadcast_to(ever, shapes.shape[:2]))


def _posterior(found: Explanation):
    """Mean [m f] and second moment [m m f] of the weights (1, z)."""
    code = jnp.concatenate([jnp.ones_like(found.scale)[None], found.coefficients])
    second = code[:, None] * code[None]
    return code, second.at[1:, 1:].add(found.covariance)


def _noise(frames, model, found: Explanation, shared):
    """Variance of an image coordinate of each keypoint, expected over the posterior."""
    camera = found.scale[None, None] * found.rotation[:2]
    code, _ = _posterior(found)
    shapes = jnp.moveaxis(model.shapes, 1, 0)
    along = [code[:, None] * row[None] for row in camera]
    image = jnp.stack([tensordot(shapes, weights, 2) for weights in along])
    weight = _weights(frames, model).T
    total = jnp.maximum(jnp.sum(weight, axis=0), numerics.TINY)
    residual = frames.tracks.T - image
    middle = jnp.sum(weight[None] * residual, axis=1) / total[None]
    across, down = jnp.square(residual - middle[:, None])
    squares = across + down
    # tr(covariance * images of the bases), as one product of all frames and keypoints
    products = product_last(jnp.swapaxes(camera, 0, 1), camera)
    unsure = found.covariance[:, None, :, None] * products[None, :, None, :]
    bases = shapes[:, 1:]
    outer = bases[:, :, :, None, None] * bases[:, None, None]
    squares = squares + tensordot(outer, unsure, 4)
    squares = jnp.sum(jnp.where(frames.mask.T, squares, 0.0), axis=1)
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


def posed_shapes(frames: Frames, model: LowRank) -> Float[Array, "f n 3"]:
    codes, pose = _explain(frames, model)
    return apply_pose(pose, deform(_each(frames, model.shapes), codes))
