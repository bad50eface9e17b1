"""Pose and deformation of a low-rank shape from n image points.

A category's shape is mean + sum_k z_k V_k with Gaussian coefficients z ~ N(0, I). Each
keypoint has its own image noise, so that hands, which the bases explain badly, do not
turn the torso. Given 2D, pose and z are found by alternation: z has the Gaussian
posterior of factor analysis (Torresani, Hertzmann & Bregler, "Nonrigid structure-from-
motion: estimating shape and motion with hierarchical priors", 2008, with one noise per
keypoint), and what the 2D does not support stays at zero.

Mean and bases are stacked as `shapes` [m n 3], m = k + 1, the mean first, with weights
(1, z). Points weigh w = 1 / noise, and enter only through second moments of points
centred with these weights, so that the alternation costs nothing in n:

    T [m 3 m 3] = sum_n w_n S_kn S_ln^T,   C [m 3 2] = sum_n w_n S_kn x_n^T

Pose and coefficients are constants for derivatives.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from lfm_jax import numerics
from lfm_jax.geometry import rotations
from lfm_jax.geometry.pose import ScalePrior, pose_from_moments
from lfm_jax.numerics import einsum
from lfm_jax.types import ArrayLike, Pose


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Weighted second moments T and C, and the means they are about.

    `shapes` has T[k, i, l, j] at [3 i + j, m k + l]: what is asked of it at every turn
    of the alternation is then one product of a small vector and a flat matrix.
    """

    shapes: Float[ArrayLike, "*b 9 q"]
    cross: Float[ArrayLike, "*b m 3 2"]
    shape_means: Float[ArrayLike, "*b m 3"]
    image_mean: Float[ArrayLike, "*b 2"]


def weights(
    noise: Float[ArrayLike, "*b n"], mask: Bool[ArrayLike, "*b n"]
) -> Float[ArrayLike, "*b n"]:
    """1 / noise where a point is seen, else 0."""
    return jnp.where(mask, 1.0 / jnp.where(mask, noise, 1.0), 0.0)


def moments(
    shapes: Float[ArrayLike, "*b m n 3"],
    points2d: Float[ArrayLike, "*b n 2"],
    weight: Float[ArrayLike, "*b n"],
) -> Moments:
    """Moments of stacked shapes and image points; points of weight 0 play no part."""
    points2d = numerics.keep(points2d, weight > 0.0)
    total = jnp.maximum(jnp.sum(weight, axis=-1), numerics.TINY)[..., None]
    image_mean = einsum("...n,...na->...a", weight, points2d) / total
    shape_means = einsum("...n,...kni->...ki", weight, shapes) / total[..., None]
    image = (points2d - image_mean[..., None, :]) * weight[..., None]
    centred = shapes - shape_means[..., None, :]
    weighted = centred * weight[..., None, :, None]
    second = einsum("...kni,...lnj->...ijkl", weighted, centred)
    return Moments(
        second.reshape(*second.shape[:-4], 9, -1),
        einsum("...kni,...na->...kia", centred, image),
        shape_means,
        image_mean,
    )


def deform(
    shapes: Float[ArrayLike, "*b m n 3"], coefficients: Float[ArrayLike, "*b k"]
) -> Float[ArrayLike, "*b n 3"]:
    """mean + sum_k z_k V_k."""
    bases = einsum("...k,...kni->...ni", coefficients, shapes[..., 1:, :, :])
    return shapes[..., 0, :, :] + bases


def fit_low_rank(
    shapes: Float[ArrayLike, "*b m n 3"],
    noise: Float[ArrayLike, "*b n"],
    points2d: Float[ArrayLike, "*b n 2"],
    mask: Bool[ArrayLike, "*b n"],
    prior: ScalePrior | None = None,
    *,
    rounds: int = 6,
) -> tuple[Float[ArrayLike, "*b k"], Pose]:
    """Most probable coefficients and pose, by alternation from the mean shape.

    Two starts are tried, the pose of the mean shape and the one that explains its
    mirror image in depth best; the more probable result is kept.

    Args:
        shapes: mean and bases, one standard deviation each; zero bases are inert.
        noise: variance of an image coordinate of each keypoint, in the units of
            `points2d` squared.
        points2d: observed image points.
        mask: which points are observed.
        prior: what is known of the scale; its weight is one over a variance.
        rounds: alternations.

    Returns:
        The coefficients and the pose, constant for derivatives.
    """
    shapes, noise, points2d = jax.lax.stop_gradient((shapes, noise, points2d))
    moment = moments(shapes, points2d, weights(noise, mask))
    if prior is None:
        prior = ScalePrior(*jnp.zeros((2, *mask.shape[:-1]), points2d.dtype))
    gram = moment.shapes[..., 0].reshape(*mask.shape[:-1], 3, 3)
    cross = moment.cross[..., 0, :, :]
    _, rotation = pose_from_moments(gram, cross, None, 5, prior)
    mirror = jnp.array([1.0, 1.0, -1.0], points2d.dtype)
    mirrored = einsum("i,...ij,...jk->...ik", mirror, rotation, gram)
    mirrored = rotations.nearest_rotation(mirrored)
    run = lambda start: _alternate(moment, prior, start, rounds)
    found, probability = jax.vmap(run)(jnp.stack([rotation, mirrored]))
    second = probability[1] > probability[0]
    coefficients, scale, rotation = jax.tree.map(
        lambda leaf: _where(second, leaf[1], leaf[0]), found
    )
    middle = moment.shape_means[..., 0, :] + einsum(
        "...k,...ki->...i", coefficients, moment.shape_means[..., 1:, :]
    )
    moved = einsum("...ij,...j->...i", rotation[..., :2, :], middle)
    return coefficients, Pose(
        scale, rotation, moment.image_mean - scale[..., None] * moved
    )


def _alternate(moment, prior, rotation, rounds):
    """Coefficients, scale and rotation from a start, and how probable they are."""
    bases = moment.cross.shape[-3] - 1
    none = jnp.zeros((*rotation.shape[:-2], bases), rotation.dtype)
    scale, rotation = refine_pose(moment, none, rotation, prior)

    def step(_, carry):
        _, scale, rotation = carry
        coefficients, _ = posterior(moment, scale, rotation)
        scale, rotation = refine_pose(moment, coefficients, rotation, prior)
        return coefficients, scale, rotation

    found = none, scale, rotation
    if bases:
        found = jax.lax.fori_loop(0, rounds, step, found)
    return found, _log_posterior(moment, prior, *found)


def _where(condition, one, other):
    shape = condition.shape + (1,) * (one.ndim - condition.ndim)
    return jnp.where(condition.reshape(shape), one, other)


def _log_posterior(moment, prior, coefficients, scale, rotation):
    """Log-probability of coefficients and pose given the 2D, up to what all share."""
    gram, cross = _weighted(moment, coefficients)
    camera = scale[..., None, None] * rotation[..., :2, :]
    image = einsum("...ai,...ij,...aj->...", camera, gram, camera)
    fit = einsum("...ai,...ia->...", camera, cross)
    known = prior.weight * jnp.square(scale - prior.scale)
    codes = jnp.sum(jnp.square(coefficients), axis=-1)
    return -0.5 * (image - 2.0 * fit + known + codes)


def _weighted(moment, coefficients):
    """Gram and cross moments of the shape that the coefficients make."""
    one = jnp.ones((*coefficients.shape[:-1], 1), coefficients.dtype)
    stacked = jnp.concatenate([one, coefficients], axis=-1)
    pairs = stacked[..., :, None] * stacked[..., None, :]
    pairs = pairs.reshape(*stacked.shape[:-1], -1)
    gram = einsum("...pq,...q->...p", moment.shapes, pairs)
    gram = gram.reshape(*gram.shape[:-1], 3, 3)
    return gram, einsum("...k,...kia->...ia", stacked, moment.cross)


def refine_pose(
    moment: Moments,
    coefficients: Float[ArrayLike, "*b k"],
    rotation: Float[ArrayLike, "*b 3 3"],
    prior: ScalePrior,
    refinements: int = 2,
) -> tuple[Float[ArrayLike, "*b"], Float[ArrayLike, "*b 3 3"]]:
    """Scale and rotation for known coefficients, from a rotation near by."""
    gram, cross = _weighted(moment, coefficients)
    return pose_from_moments(gram, cross, rotation, refinements, prior)


def posterior(
    moment: Moments,
    scale: Float[ArrayLike, "*b"],
    rotation: Float[ArrayLike, "*b 3 3"],
) -> tuple[Float[ArrayLike, "*b k"], Float[ArrayLike, "*b k k"]]:
    """Gaussian posterior of the coefficients at a known pose.

    With A the images of the bases and W the weights, the covariance is
    (A^T W A + I)^-1 and the mean is that times A^T W (x - s P R mean).
    """
    camera = scale[..., None, None] * rotation[..., :2, :]
    stacked = moment.cross.shape[-3]
    seen = einsum("...ai,...aj->...ij", camera, camera)
    seen = seen.reshape(*scale.shape, 9)
    products = einsum("...p,...pq->...q", seen, moment.shapes)
    products = products.reshape(*scale.shape, stacked, stacked)
    image = einsum("...kia,...ai->...k", moment.cross, camera)
    one = jnp.ones(scale.shape, products.dtype)
    identity = numerics.scaled_identity(one, products.shape[-1] - 1)
    inverse = numerics.inverse_definite(products[..., 1:, 1:] + identity)
    right = image[..., 1:] - products[..., 1:, 0]
    return einsum("...kl,...l->...k", inverse, right), inverse
