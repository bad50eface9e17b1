"""Expectation maximisation of a low-rank shape under scaled orthography.

Symbols are those of classical/factorization.py: image points [f n 2], a mean and k
bases as `shapes` [m n 3], m = k + 1, Gaussian coefficients ("codes") [f k].

Torresani, Hertzmann & Bregler 2008, with two things that articulated bodies need: a
noise for every keypoint (hands and feet are explained worse than the torso, and must
not turn it), and a scale that is about the same in all frames, as far as the frames
themselves say so.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax import numerics
from lfm_jax.geometry.deformable import (
    DAMPING,
    Moments,
    deform,
    explain,
    fit_low_rank,
    improve,
    weights,
)
from lfm_jax.geometry.pose import ScalePrior, apply_pose
from lfm_jax.numerics import einsum
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
        codes, covariance = found.coefficients, found.covariance
        scale, rotation = found.scale, found.rotation
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
        model = LowRank(model.shapes, noise, usual, spread)
        return model, last, scale, rotation, damping

    damping = jnp.full_like(pose.scale, DAMPING)
    carry = (model, model.shapes, pose.scale, pose.rotation, damping)
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
    weight, shapes = _weights(frames, model), model.shapes
    total = jnp.maximum(jnp.sum(weight, axis=-1), numerics.TINY)[:, None]
    image_mean = einsum("fn,fna->fa", weight, frames.tracks) / total
    shape_means = einsum("fn,kni->fki", weight, shapes) / total[..., None]
    image = (frames.tracks - image_mean[:, None]) * weight[..., None]
    outer = einsum("kni,lnj->nijkl", shapes, shapes).reshape(len(weight[0]), -1)
    means = einsum("fki,flj->fijkl", shape_means, shape_means)
    second = einsum("fn,no->fo", weight, outer)
    second = second - total * means.reshape(second.shape)
    cross = einsum("kni,fna->fkia", shapes, image)
    return Moments(second.reshape(len(weight), 9, -1), cross, shape_means, image_mean)


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
    image = einsum("fai,fni->fna", camera, deform(_each(frames, model.shapes), codes))
    weight = _weights(frames, model)
    total = jnp.maximum(jnp.sum(weight, axis=1), numerics.TINY)
    residual = frames.tracks - image
    middle = einsum("fn,fna->fa", weight, residual) / total[:, None]
    squares = jnp.sum(jnp.square(residual - middle[:, None]), axis=-1)
    # tr(covariance * images of the bases), as one product of all frames and keypoints
    products = einsum("fai,faj->fij", camera, camera)
    unsure = einsum("fkl,fij->fkilj", covariance, products)
    outer = einsum("kni,lnj->kiljn", model.shapes[1:], model.shapes[1:])
    unsure = unsure.reshape(len(unsure), unsure[0].size)
    outer = outer.reshape(unsure.shape[1], outer.shape[-1])
    squares = squares + einsum("fo,on->fn", unsure, outer)
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


def posed_shapes(frames: Frames, model: LowRank) -> Float[Array, "f n 3"]:
    codes, pose = _explain(frames, model)
    return apply_pose(pose, deform(_each(frames, model.shapes), codes))
