"""Pose and deformation of a low-rank shape from n image points.

A category's shape is mean + sum_k z_k V_k with Gaussian coefficients z ~ N(0, I). Each
keypoint has its own image noise, so that hands, which the bases explain badly, do not
turn the torso. At a known pose z has the Gaussian posterior of factor analysis
(Torresani, Hertzmann & Bregler, "Nonrigid structure-from-motion: estimating shape and
motion with hierarchical priors", 2008, with one noise per keypoint), and what the 2D
does not support stays at zero. What is left to find is the pose, by damped Gauss-Newton
steps that know how the deformation will follow: variable projection (Golub & Pereyra,
"The differentiation of pseudo-inverses and nonlinear least squares problems whose
variables separate", 1973). Alternation needs dozens of turns for what three of them
reach.

Mean and bases are stacked as `shapes` [m n 3], m = k + 1, the mean first, with weights
(1, z). The camera is M = s P R with P the first two rows of the identity. Points weigh
w = 1 / noise, and enter only through second moments of points centred with these
weights, so that a step costs nothing in n:

    T [m 3 m 3] = sum_n w_n S_kn S_ln^T,   C [m 3 2] = sum_n w_n S_kn x_n^T

Pose and coefficients are constants for derivatives.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from lfm_jax import numerics
from lfm_jax.geometry import rotations
from lfm_jax.geometry.pose import ScalePrior, planar_poses, pose_from_moments, twice
from lfm_jax.numerics import einsum
from lfm_jax.types import ArrayLike, Pose

RIGID_STEPS = 1  # of the mean shape's pose
STEPS = 3  # of the deforming shape's
DAMPING = 0.03  # of the first step, relative to the Gauss-Newton matrix


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Weighted second moments T and C, and the means they are about.

    `shapes` has T[k, i, l, j] at [3 i + j, m k + l]: what a step asks of it first is
    then one product of a small vector and a flat matrix.
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
    stacked, count = shapes.shape[-3], shapes.shape[-2]
    points2d = numerics.keep(points2d, weight > 0.0)
    total = jnp.maximum(jnp.sum(weight, axis=-1), numerics.TINY)[..., None]
    image_mean = einsum("...n,...na->...a", weight, points2d) / total
    image = jnp.swapaxes(points2d - image_mean[..., None, :], -1, -2)
    # all in one product of flat matrices
    flat = jnp.swapaxes(shapes, -1, -2).reshape(*weight.shape[:-1], -1, count)
    right = jnp.concatenate([flat, image, jnp.ones_like(image[..., :1, :])], axis=-2)
    product = einsum("...pn,...qn->...pq", flat * weight[..., None, :], right)
    means = product[..., -1] / total
    second = product[..., :-3] - product[..., :, None, -1] * means[..., None, :]
    second = second.reshape(*second.shape[:-2], stacked, 3, stacked, 3)
    second = jnp.moveaxis(second, (-3, -1), (-4, -3))
    return Moments(
        second.reshape(*second.shape[:-4], 9, -1),
        product[..., -3:-1].reshape(*second.shape[:-4], stacked, 3, 2),
        means.reshape(*second.shape[:-4], stacked, 3),
        image_mean,
    )


def deform(
    shapes: Float[ArrayLike, "*b m n 3"], coefficients: Float[ArrayLike, "*b k"]
) -> Float[ArrayLike, "*b n 3"]:
    """mean + sum_k z_k V_k."""
    bases = einsum("...k,...kni->...ni", coefficients, shapes[..., 1:, :, :])
    return shapes[..., 0, :, :] + bases


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Explanation:
    """A pose, and the Gaussian posterior of the coefficients there.

    Attributes:
        coefficients, covariance: mean and covariance of the posterior.
        scale, rotation: the pose.
        surprise: -2 log of how probable pose and coefficients are given the 2D, up to
            what all poses share.
    """

    coefficients: Float[ArrayLike, "*b k"]
    covariance: Float[ArrayLike, "*b k k"]
    scale: Float[ArrayLike, "*b"]
    rotation: Float[ArrayLike, "*b 3 3"]
    surprise: Float[ArrayLike, "*b"]


def mean_poses(
    shape: Float[ArrayLike, "*b n 3"],
    noise: Float[ArrayLike, "*b n"],
    points2d: Float[ArrayLike, "*b n 2"],
    mask: Bool[ArrayLike, "*b n"],
    prior: ScalePrior | None = None,
) -> tuple[Float[ArrayLike, "2 *b"], Float[ArrayLike, "2 *b 3 3"]]:
    """Scale and rotation of a mean shape in the two tilts of its main plane.

    Both are refined as if the shape were rigid, and are constant for derivatives.
    Arguments are those of `fit_low_rank`, but for the shape.
    """
    shape, noise, points2d = jax.lax.stop_gradient((shape, noise, points2d))
    moment = moments(shape[..., None, :, :], points2d, weights(noise, mask))
    gram = moment.shapes.reshape(*mask.shape[:-1], 3, 3)
    cross = moment.cross[..., 0, :, :]
    tilts = planar_poses(gram, cross)
    gram, cross, prior = twice((gram, cross, prior))
    return pose_from_moments(gram, cross, tilts, RIGID_STEPS, prior)


def fit_low_rank(
    shapes: Float[ArrayLike, "*b m n 3"],
    noise: Float[ArrayLike, "*b n"],
    points2d: Float[ArrayLike, "*b n 2"],
    mask: Bool[ArrayLike, "*b n"],
    prior: ScalePrior | None = None,
    *,
    begin: tuple[Float[ArrayLike, "2 *b"], Float[ArrayLike, "2 *b 3 3"]] | None = None,
    steps: int = STEPS,
) -> tuple[Float[ArrayLike, "*b k"], Pose]:
    """Most probable coefficients and pose.

    Two poses are refined, and the more probable result is kept.

    Args:
        shapes: mean and bases, one standard deviation each; zero bases are inert.
        noise: variance of an image coordinate of each keypoint, in the units of
            `points2d` squared.
        points2d: observed image points.
        mask: which points are observed.
        prior: what is known of the scale; its weight is one over a variance.
        begin: the two poses; None for those of `mean_poses`.
        steps: refinements of the pose.

    Returns:
        The coefficients and the pose, constant for derivatives.
    """
    shapes, noise, points2d = jax.lax.stop_gradient((shapes, noise, points2d))
    if begin is None:
        begin = mean_poses(shapes[..., 0, :, :], noise, points2d, mask, prior)
    moment = moments(shapes, points2d, weights(noise, mask))
    if prior is None:
        prior = ScalePrior(*jnp.zeros((2, *mask.shape[:-1]), points2d.dtype))
    problem = twice((moment, prior))
    found = explain(*problem, *jax.lax.stop_gradient(begin))
    damping = jnp.full_like(found.scale, DAMPING)
    step = lambda _, carry: improve(*problem, *carry)
    both, _ = jax.lax.fori_loop(0, steps, step, (found, damping))
    second = both.surprise[1] < both.surprise[0]
    best = jax.tree.map(lambda leaf: _where(second, leaf[1], leaf[0]), both)
    middle = moment.shape_means[..., 0, :] + einsum(
        "...k,...ki->...i", best.coefficients, moment.shape_means[..., 1:, :]
    )
    moved = einsum("...ij,...j->...i", best.rotation[..., :2, :], middle)
    shift = moment.image_mean - best.scale[..., None] * moved
    return best.coefficients, Pose(best.scale, best.rotation, shift)


def explain(
    moment: Moments,
    prior: ScalePrior,
    scale: Float[ArrayLike, "*b"],
    rotation: Float[ArrayLike, "*b 3 3"],
) -> Explanation:
    """The posterior of the coefficients at a known pose.

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
    covariance = numerics.inverse_definite(products[..., 1:, 1:] + identity)
    right = image[..., 1:] - products[..., 1:, 0]
    coefficients = einsum("...kl,...l->...k", covariance, right)
    rigid = products[..., 0, 0] - 2.0 * image[..., 0]
    known = prior.weight * jnp.square(scale - prior.scale)
    deformed = jnp.sum(coefficients * right, axis=-1)
    surprise = rigid - deformed + known
    return Explanation(coefficients, covariance, scale, rotation, surprise)


def improve(
    moment: Moments,
    prior: ScalePrior,
    now: Explanation,
    damping: Float[ArrayLike, "*b"],
) -> tuple[Explanation, Float[ArrayLike, "*b"]]:
    """One step of the pose, taken where it makes the 2D more probable.

    Args:
        moment, prior: the problem.
        now: where it stands.
        damping: of each pose, relative to the matrix's diagonal; falls with a step that
            is taken and rises with one that is not.

    Returns:
        The explanation and the damping of the next step.
    """
    gradient, alone, followed = _normal_equations(moment, prior, now)
    own = numerics.scaled_identity(damping, 4) * alone
    floor = 1e-6 * jnp.trace(alone, axis1=-2, axis2=-1) + numerics.TINY
    matrix = alone - followed + own + numerics.scaled_identity(floor, 4)
    step = -einsum("...pq,...q->...p", numerics.inverse_definite(matrix), gradient)
    turn = rotations.from_rotation_vector(step[..., :3])
    rotation = einsum("...ij,...jk->...ik", now.rotation, turn)
    scale = now.scale * jnp.exp(step[..., 3])
    then = explain(moment, prior, scale, rotation)
    better = then.surprise <= now.surprise
    found = jax.tree.map(lambda new, old: _where(better, new, old), then, now)
    return found, damping * jnp.where(better, 0.2, 8.0)


def _normal_equations(moment, prior, now):
    """Gradient [4] and Gauss-Newton matrix [4 4] in two parts.

    The unknowns are a rotation vector w, R <- R exp(w), and log s. With J_p and J_z
    the derivatives of the weighted image by the pose and by the coefficients, the
    matrix of what is left when the coefficients follow is the first part, J_p^T J_p,
    less the second, J_p^T J_z covariance J_z^T J_p.
    """
    batch, stacked = now.scale.shape, moment.cross.shape[-3]
    camera = now.scale[..., None, None] * now.rotation[..., :2, :]
    # derivatives of the camera, [4 2 3]: a row r of R exp(w) is r + r x w
    turns = jnp.moveaxis(rotations.cross_matrix(camera), -1, -3)
    turns = jnp.concatenate([turns, camera[..., None, :, :]], axis=-3)

    one = jnp.ones((*batch, 1), now.coefficients.dtype)
    weight = jnp.concatenate([one, now.coefficients], axis=-1)
    # [3 i + j, l] is sum_k w_k T[k, i, l, j]
    by_shape = moment.shapes.reshape(*batch, 9, stacked, stacked)
    by_shape = _product(weight[..., None, None, :], by_shape)[..., 0, :]
    gram = einsum("...pk,...k->...p", by_shape, weight).reshape(*batch, 3, 3)
    cross = einsum("...k,...kia->...ai", weight, moment.cross)

    residual = einsum("...ai,...ij->...aj", camera, gram) - cross
    gradient = einsum("...paj,...aj->...p", turns, residual)
    pull = prior.weight * now.scale
    gradient = gradient.at[..., 3].add(pull * (now.scale - prior.scale))
    turned = einsum("...pai,...ij->...paj", turns, gram)
    pairs = turned[..., :, None, :, :] * turns[..., None, :, :, :]
    alone = jnp.sum(pairs, axis=(-2, -1))
    alone = alone.at[..., 3, 3].add(pull * now.scale)
    outer = einsum("...aj,...pai->...pij", camera, turns).reshape(*batch, 4, 9)
    mixed = _product(outer, by_shape[..., 1:])
    followed = _product(mixed, now.covariance)
    followed = _product(followed, jnp.swapaxes(mixed, -1, -2))
    return gradient, alone, followed


def _product(left, right):
    """Of matrices so small that a fused sum is faster than a batched product."""
    batch = jnp.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    zero = jnp.zeros((*batch, left.shape[-2], right.shape[-1]), left.dtype)
    columns = range(left.shape[-1])
    return sum((left[..., q, None] * right[..., None, q, :] for q in columns), zero)


def _where(condition, one, other):
    shape = condition.shape + (1,) * (one.ndim - condition.ndim)
    return jnp.where(condition.reshape(shape), one, other)
