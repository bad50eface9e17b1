"""Pose and deformation of a low-rank shape from n image points.

A category's shape is mean + sum_k z_k V_k with Gaussian coefficients z ~ N(0, I) and
image noise of variance `noise` per coordinate. Given 2D, the pose is that of
`pose.fit_pose` and z has the Gaussian posterior of probabilistic principal components
(Torresani, Hertzmann & Bregler, "Nonrigid structure-from-motion: estimating shape and
motion with hierarchical priors", 2008): what the 2D does not support stays at zero.

Mean and bases are stacked as `shapes` [m n 3], m = k + 1, the mean first, with weights
w = (1, z). As for a rigid pose, the points enter only through second moments of the
centred points, so that the alternation costs nothing in n:

    T [m 3 m 3] = sum_n S_kn S_ln^T,   C [m 3 2] = sum_n S_kn x_n^T

Pose and coefficients are constants for derivatives.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from lfm_jax import numerics
from lfm_jax.geometry import rotations
from lfm_jax.geometry.pose import pose_from_moments
from lfm_jax.numerics import einsum
from lfm_jax.types import ArrayLike, Pose


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Second moments T and C of centred points; see the module's header."""

    shapes: Float[ArrayLike, "*b m 3 m 3"]
    cross: Float[ArrayLike, "*b m 3 2"]


def moments(
    shapes: Float[ArrayLike, "*b m n 3"],
    points2d: Float[ArrayLike, "*b n 2"],
    mask: Bool[ArrayLike, "*b n"],
) -> Moments:
    """Moments of stacked shapes and image points over the mask, translation free."""
    masks = jnp.broadcast_to(mask[..., None, :], shapes.shape[:-1])
    centred = numerics.centre(shapes, masks)
    image = numerics.centre(points2d, mask)
    return Moments(
        einsum("...kni,...lnj->...kilj", centred, centred),
        einsum("...kni,...na->...kia", centred, image),
    )


def deform(
    shapes: Float[ArrayLike, "*b m n 3"], coefficients: Float[ArrayLike, "*b k"]
) -> Float[ArrayLike, "*b n 3"]:
    """mean + sum_k z_k V_k."""
    bases = einsum("...k,...kni->...ni", coefficients, shapes[..., 1:, :, :])
    return shapes[..., 0, :, :] + bases


def fit_low_rank(
    shapes: Float[ArrayLike, "*b m n 3"],
    noise: Float[ArrayLike, "*b"],
    points2d: Float[ArrayLike, "*b n 2"],
    mask: Bool[ArrayLike, "*b n"],
    *,
    rounds: int = 6,
) -> tuple[Float[ArrayLike, "*b k"], Pose]:
    """Most probable coefficients and pose, by alternation from the mean shape.

    Two starts are tried, the pose of the mean shape and the one that explains its
    mirror image in depth best; the more probable result is kept.

    Args:
        shapes: mean and bases, one standard deviation each; zero bases are inert.
        noise: variance of an image coordinate, in the units of `points2d` squared.
        points2d: observed image points.
        mask: which points are observed.
        rounds: alternations.

    Returns:
        The coefficients and the pose, constant for derivatives.
    """
    shapes, noise, points2d = jax.lax.stop_gradient((shapes, noise, points2d))
    moment = moments(shapes, points2d, mask)
    gram, cross = moment.shapes[..., 0, :, 0, :], moment.cross[..., 0, :, :]
    scale, rotation = pose_from_moments(gram, cross, None, 5)
    none = jnp.zeros((*scale.shape, shapes.shape[-3] - 1), shapes.dtype)
    if none.shape[-1] == 0:
        rounds = 0

    def alternate(_, carry):
        _, scale, rotation = carry
        coefficients, _ = posterior(moment, noise, scale, rotation)
        scale, rotation = refine_pose(moment, coefficients, rotation)
        return coefficients, scale, rotation

    def run(rotation):
        scale, rotation = pose_from_moments(gram, cross, rotation, 2)
        found = jax.lax.fori_loop(0, rounds, alternate, (none, scale, rotation))
        return found, _log_posterior(moment, noise, *found)

    mirror = jnp.array([1.0, 1.0, -1.0], shapes.dtype)
    mirrored = einsum("i,...ij,...jk->...ik", mirror, rotation, gram)
    starts = jnp.stack([rotation, rotations.nearest_rotation(mirrored)])
    found, probability = jax.vmap(run)(starts)
    second = probability[1] > probability[0]
    coefficients, scale, rotation = jax.tree.map(
        lambda leaf: _where(second, leaf[1], leaf[0]), found
    )
    shape_mean = numerics.masked_mean(deform(shapes, coefficients), mask)
    moved = einsum("...ij,...j->...i", rotation[..., :2, :], shape_mean)
    image_mean = numerics.masked_mean(points2d, mask)
    pose = Pose(scale, rotation, image_mean - scale[..., None] * moved)
    return coefficients, pose


def _where(condition, one, other):
    shape = condition.shape + (1,) * (one.ndim - condition.ndim)
    return jnp.where(condition.reshape(shape), one, other)


def _log_posterior(moment, noise, coefficients, scale, rotation):
    """Log-probability of coefficients and pose given the 2D, up to what all share."""
    gram, cross = _weighted(moment, coefficients)
    camera = scale[..., None, None] * rotation[..., :2, :]
    image = einsum("...ai,...ij,...aj->...", camera, gram, camera)
    fit = einsum("...ai,...ia->...", camera, cross)
    prior = jnp.sum(jnp.square(coefficients), axis=-1)
    return -0.5 * ((image - 2.0 * fit) / noise + prior)


def _weighted(moment, coefficients):
    """Gram and cross moments of the shape that the coefficients make."""
    one = jnp.ones((*coefficients.shape[:-1], 1), coefficients.dtype)
    weights = jnp.concatenate([one, coefficients], axis=-1)
    half = einsum("...k,...kilj->...ilj", weights, moment.shapes)
    gram = einsum("...l,...ilj->...ij", weights, half)
    return gram, einsum("...k,...kia->...ia", weights, moment.cross)


def refine_pose(
    moment: Moments,
    coefficients: Float[ArrayLike, "*b k"],
    rotation: Float[ArrayLike, "*b 3 3"],
    refinements: int = 2,
) -> tuple[Float[ArrayLike, "*b"], Float[ArrayLike, "*b 3 3"]]:
    """Scale and rotation for known coefficients, from a rotation near by."""
    gram, cross = _weighted(moment, coefficients)
    return pose_from_moments(gram, cross, rotation, refinements)


def posterior(
    moment: Moments,
    noise: Float[ArrayLike, "*b"],
    scale: Float[ArrayLike, "*b"],
    rotation: Float[ArrayLike, "*b 3 3"],
) -> tuple[Float[ArrayLike, "*b k"], Float[ArrayLike, "*b k k"]]:
    """Gaussian posterior of the coefficients at a known pose.

    With A the images of the bases, the mean is
    (A^T A + noise I)^-1 A^T (x - s P R mean), and the covariance
    noise (A^T A + noise I)^-1.
    """
    camera = scale[..., None, None] * rotation[..., :2, :]
    half = einsum("...ai,...kilj->...aklj", camera, moment.shapes)
    products = einsum("...aklj,...aj->...kl", half, camera)
    image = einsum("...kia,...ai->...k", moment.cross, camera)
    size = products.shape[-1] - 1
    precision = products[..., 1:, 1:] + numerics.scaled_identity(noise, size)
    inverse = jnp.linalg.inv(precision)
    right = image[..., 1:] - products[..., 1:, 0]
    coefficients = einsum("...kl,...l->...k", inverse, right)
    return coefficients, noise[..., None, None] * inverse
