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

    T [3 3 m m] = sum_n w_n S_kni S_lnj,   C [m 3 2] = sum_n w_n S_kn x_n^T

Thousands of problems of so few numbers are solved at once, so from the moments on the
batch comes last: every operation then runs along it, and not along three or ten.

Pose and coefficients are constants for derivatives.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from lfm_jax import numerics
from lfm_jax.geometry import rotations
from lfm_jax.geometry.pose import ScalePrior, planar_poses, pose_from_moments, twice
from lfm_jax.numerics import einsum, identity_last, product_last, sweep_last
from lfm_jax.types import ArrayLike, Pose

RIGID_STEPS = 1  # of the mean shape's pose
STEPS = 3  # of the deforming shape's
DAMPING = 0.03  # of the first step, relative to the Gauss-Newton matrix


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Weighted second moments T and C, and the means they are about.

    `shapes` has T[i, j, k, l] at [3 i + j, k, l].
    """

    shapes: Float[ArrayLike, "9 m m *b"]
    cross: Float[ArrayLike, "m 3 2 *b"]
    shape_means: Float[ArrayLike, "m 3 *b"]
    image_mean: Float[ArrayLike, "2 *b"]


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
    # two products of flat matrices; for a single one they would have to be copied
    flat = jnp.swapaxes(shapes, -1, -2).reshape(*weight.shape[:-1], -1, count)
    weighted = flat * weight[..., None, :]
    right = jnp.concatenate([image, jnp.ones_like(image[..., :1, :])], axis=-2)
    last = lambda product: jnp.moveaxis(product, (-2, -1), (0, 1))
    second = last(einsum("...pn,...qn->...pq", weighted, flat))
    first = last(einsum("...pn,...qn->...pq", weighted, right))
    means = first[:, 2] / total[None, ..., 0]
    second = second - first[:, None, 2] * means[None]
    batch = weight.shape[:-1]
    second = second.reshape(stacked, 3, stacked, 3, *batch)
    second = jnp.moveaxis(second, (1, 3), (0, 1))
    return Moments(
        second.reshape(9, stacked, stacked, *batch),
        first[:, :2].reshape(stacked, 3, 2, *batch),
        means.reshape(stacked, 3, *batch),
        jnp.moveaxis(image_mean, -1, 0),
    )


def deform(
    shapes: Float[ArrayLike, "*b m n 3"], coefficients: Float[ArrayLike, "*b k"]
) -> Float[ArrayLike, "*b n 3"]:
    """mean + sum_k z_k V_k."""
    weight = jnp.moveaxis(_stacked(jnp.moveaxis(coefficients, -1, 0)), 0, -1)
    return einsum("...m,...mni->...ni", weight, shapes)


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

    coefficients: Float[ArrayLike, "k *b"]
    covariance: Float[ArrayLike, "k k *b"]
    scale: Float[ArrayLike, "*b"]
    rotation: Float[ArrayLike, "3 3 *b"]
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
    gram = jnp.moveaxis(moment.shapes, 0, -1).reshape(*mask.shape[:-1], 3, 3)
    cross = jnp.moveaxis(moment.cross[0], (0, 1), (-2, -1))
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
    batch = mask.shape[:-1]
    flat = lambda leaf: leaf.reshape(-1, *leaf.shape[len(batch) :])
    moment = moments(flat(shapes), flat(points2d), flat(weights(noise, mask)))
    if prior is None:
        prior = ScalePrior(*jnp.zeros((2, *batch), points2d.dtype))
    # two poses of each
    problem = jax.tree.map(
        lambda leaf: leaf[..., None, :], (moment, jax.tree.map(flat, prior))
    )
    scale, rotation = jax.lax.stop_gradient(begin)
    rotation = jnp.moveaxis(rotation.reshape(2, -1, 3, 3), (-2, -1), (0, 1))
    found = explain(*problem, scale.reshape(2, -1), rotation)
    damping = jnp.full_like(found.scale, DAMPING)
    step = lambda _, carry: improve(*problem, *carry)
    both, _ = jax.lax.fori_loop(0, steps, step, (found, damping))
    second = both.surprise[1] < both.surprise[0]
    best = jax.tree.map(
        lambda leaf: _where(second, leaf[..., 1, :], leaf[..., 0, :]),
        (both.coefficients, both.scale, both.rotation),
    )
    coefficients, scale, rotation = best
    weight = _stacked(coefficients)
    middle = jnp.sum(weight[:, None] * moment.shape_means, axis=0)
    moved = jnp.sum(rotation[:2] * middle[None], axis=1)
    shift = moment.image_mean - scale[None] * moved
    last = lambda leaf: jnp.moveaxis(leaf, -1, 0).reshape(*batch, *leaf.shape[:-1])
    return last(coefficients), Pose(last(scale), last(rotation), last(shift))


def explain(
    moment: Moments,
    prior: ScalePrior,
    scale: Float[ArrayLike, "*b"],
    rotation: Float[ArrayLike, "3 3 *b"],
) -> Explanation:
    """The posterior of the coefficients at a known pose.

    With A the images of the bases and W the weights, the covariance is
    (A^T W A + I)^-1 and the mean is that times A^T W (x - s P R mean).
    """
    batch, stacked = scale.shape, moment.cross.shape[0]
    camera = scale[None, None] * rotation[:2]
    seen = product_last(jnp.swapaxes(camera, 0, 1), camera).reshape(1, 9, *batch)
    shapes = moment.shapes.reshape(9, -1, *moment.shapes.shape[3:])
    products = product_last(seen, shapes).reshape(stacked, stacked, *batch)
    cross = moment.cross.reshape(stacked, 6, *moment.cross.shape[3:])
    along = jnp.swapaxes(camera, 0, 1).reshape(6, 1, *batch)
    image = product_last(cross, along)[:, 0]
    right = image[1:, None] - products[1:, :1]
    rigid = products[0, 0] - 2.0 * image[0]
    inner = products[1:, 1:] + identity_last(jnp.ones_like(scale), stacked - 1)
    top = jnp.concatenate([inner, right], axis=1)
    bottom = jnp.concatenate([jnp.swapaxes(right, 0, 1), rigid[None, None]], axis=1)
    swept = sweep_last(jnp.concatenate([top, bottom]), stacked - 1)
    covariance, coefficients = swept[1:, 1:], swept[1:, 0]
    known = prior.weight * jnp.square(scale - prior.scale)
    surprise = swept[0, 0] + known
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
    own = identity_last(damping, 4) * alone
    floor = 1e-6 * jnp.trace(alone) + numerics.TINY
    matrix = alone - followed + own + identity_last(floor, 4)
    inverse = sweep_last(matrix, 4)
    step = -product_last(inverse, gradient[:, None])[:, 0]
    turn = rotations.from_rotation_vector(jnp.moveaxis(step[:3], 0, -1))
    turn = jnp.moveaxis(turn, (-2, -1), (0, 1))
    rotation = product_last(now.rotation, turn)
    scale = now.scale * jnp.exp(step[3])
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
    batch, stacked = now.scale.shape, moment.cross.shape[0]
    camera = now.scale[None, None] * now.rotation[:2]
    # derivatives of the camera, [4 2 3]: a row r of R exp(w) is r + r x w
    zero = jnp.zeros_like(now.scale)
    turns = [
        [zero, row[2], -row[1], -row[2], zero, row[0], row[1], -row[0], zero]
        for row in camera
    ]
    turns = jnp.stack([jnp.stack(row).reshape(3, 3, *batch) for row in turns], axis=1)
    turns = jnp.concatenate([turns, camera[None]])

    weight = _stacked(now.coefficients)
    # [3 i + j, l] is sum_k w_k T[i, j, k, l]
    # in a loop, which makes it once: two products read it
    add = lambda k, total: total + weight[None, None, k] * moment.shapes[:, k]
    by_shape = jnp.zeros((9, stacked, *batch), weight.dtype)
    by_shape = jax.lax.fori_loop(0, stacked, add, by_shape)
    gram = product_last(by_shape, weight[:, None]).reshape(3, 3, *batch)
    cross = sum(weight[None, None, k] * moment.cross[k] for k in range(stacked))

    flat = turns.reshape(8, 3, *batch)
    residual = product_last(camera, gram) - jnp.swapaxes(cross, 0, 1)
    turned = product_last(flat, gram).reshape(4, 6, *batch)
    flat = turns.reshape(4, 6, *batch)
    gradient = product_last(flat, residual.reshape(6, 1, *batch))[:, 0]
    pull = prior.weight * now.scale
    gradient = gradient.at[3].add(pull * (now.scale - prior.scale))
    alone = product_last(turned, jnp.swapaxes(flat, 0, 1))
    alone = alone.at[3, 3].add(pull * now.scale)
    both = [turns[:, a, :, None] * camera[None, a, None] for a in range(2)]
    outer = sum(both).reshape(4, 9, *batch)
    mixed = product_last(outer, by_shape[:, 1:])
    followed = product_last(mixed, now.covariance)
    followed = product_last(followed, jnp.swapaxes(mixed, 0, 1))
    return gradient, alone, followed


def _stacked(coefficients):
    """The weights (1, z) of mean and bases."""
    one = jnp.ones((1, *coefficients.shape[1:]), coefficients.dtype)
    return jnp.concatenate([one, coefficients])


def _where(condition, one, other):
    shape = (1,) * (one.ndim - condition.ndim) + condition.shape
    return jnp.where(condition.reshape(shape), one, other)
