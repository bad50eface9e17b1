"""Scaled orthographic pose of a shape from n points: x ~ s P R Y + t.

X [n 2] observed points, Y [n 3] shape, R in SO(3), P the first two rows of the
identity, s > 0, t the image translation. With the translation removed by centring both
over the mask, the squared error depends on the points only through

    G = Y^T Y (3x3),   B = Y^T X (3x2),   c = |X|^2
    E(s, Q) = c - 2 s <Q, B> + s^2 <Q, G Q>,     Q = the first two rows of R, as columns

so that refinement costs nothing in n. Depth along z is what the pose adds to the image:
under orthographic projection the sign of all depths together is not observable.

Where something is known about the scale before the image is seen (an object that keeps
its size), weight * (s - known)^2 is added to E.

The pose is a constant for derivatives (envelope theorem, see procrustes.py).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from lfm_jax import numerics
from lfm_jax.geometry import rotations
from lfm_jax.numerics import einsum
from lfm_jax.types import ArrayLike, Pose

RIDGE = 1e-4  # relative; keeps planar and collinear shapes solvable


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScalePrior:
    """weight * (s - scale)^2, added to the squared error; weight 0 says nothing."""

    scale: Float[ArrayLike, "*b"]
    weight: Float[ArrayLike, "*b"]


def apply_pose(
    pose: Pose, shape: Float[ArrayLike, "*b n 3"]
) -> Float[ArrayLike, "*b n 3"]:
    """Puts a canonical shape into the camera frame: image xy and depth."""
    turned = einsum("...ij,...nj->...ni", pose.rotation, shape)
    shift = jnp.concatenate(
        [pose.translation, jnp.zeros_like(pose.translation[..., :1])], axis=-1
    )
    return pose.scale[..., None, None] * turned + shift[..., None, :]


def fit_pose(
    shape: Float[ArrayLike, "*b n 3"],
    points2d: Float[ArrayLike, "*b n 2"],
    mask: Bool[ArrayLike, "*b n"],
    *,
    start: Float[ArrayLike, "*b 3 3"] | None = None,
    refinements: int = 5,
) -> Pose:
    """The pose that best explains 2D points by a shape, over masked points.

    Closed form first: least squares for the unconstrained 2x3 camera, then the nearest
    pair of orthonormal rows (the algebraic relaxation of orthographic n-point pose).
    It is refined by damped Gauss-Newton steps on SO(3); a step is taken only where it
    lowers the error. Finite at any input: a single point, or all coincident, gives a
    valid rotation with scale zero or what the points support.

    Args:
        shape: canonical points; any units.
        points2d: their images.
        mask: which points count.
        start: rotation to refine from instead of the closed form.
        refinements: Gauss-Newton steps.
    """
    shape, points2d = jax.lax.stop_gradient((shape, points2d))
    shape_mean = numerics.masked_mean(shape, mask)
    image_mean = numerics.masked_mean(points2d, mask)
    y = numerics.keep(shape - shape_mean[..., None, :], mask)
    x = numerics.keep(points2d - image_mean[..., None, :], mask)
    gram = einsum("...ni,...nj->...ij", y, y)
    cross = einsum("...ni,...nj->...ij", y, x)
    scale, rotation = pose_from_moments(gram, cross, start, refinements)
    moved = einsum("...ij,...j->...i", rotation[..., :2, :], shape_mean)
    return Pose(scale, rotation, image_mean - scale[..., None] * moved)


def foreshortening(
    posed: Float[ArrayLike, "*b n 3"],
    points2d: Float[ArrayLike, "*b n 2"],
    mask: Bool[ArrayLike, "*b n"],
) -> Float[ArrayLike, "*b"]:
    """How much farther parts look larger, which in perspective they do not.

    A perspective camera shows a point of depth z (from the centre, growing away from
    the camera) at about (1 - z / distance) times where a scaled orthographic one
    would. So the residuals point outwards where the shape is near; if they do where it
    is far, the shape is mirrored in depth, and this is positive. Unitless; zero in
    expectation for orthographic images.
    """
    shape, image = numerics.centre(posed, mask), numerics.centre(points2d, mask)
    outwards = jnp.sum((image - shape[..., :2]) * shape[..., :2], axis=-1)
    moment = numerics.masked_mean((outwards * shape[..., 2])[..., None], mask)[..., 0]
    return numerics.safe_divide(moment, numerics.rms_radius(points2d, mask) ** 3)


def pose_from_moments(
    gram: Float[ArrayLike, "*b 3 3"],
    cross: Float[ArrayLike, "*b 3 2"],
    start: Float[ArrayLike, "*b 3 3"] | None,
    refinements: int,
    prior: ScalePrior | None = None,
) -> tuple[Float[ArrayLike, "*b"], Float[ArrayLike, "*b 3 3"]]:
    """Scale and rotation from G = Y^T Y and B = Y^T X of centred points."""
    if prior is None:
        prior = ScalePrior(*(jnp.zeros(gram.shape[:-2], gram.dtype) for _ in range(2)))
    rotation = _closed_form(gram, cross) if start is None else start
    rotation = jax.lax.fori_loop(
        0, refinements, lambda _, r: _refine(r, gram, cross, prior), rotation
    )
    fit, power = _fit_and_power(rotation, gram, cross, prior)
    return numerics.safe_divide(fit, power), rotation


def _closed_form(gram, cross):
    trace = jnp.trace(gram, axis1=-2, axis2=-1)
    ridge = numerics.scaled_identity(jnp.maximum(RIDGE * trace, numerics.TINY), 3)
    camera = numerics.solve3(gram + ridge, cross)
    padded = jnp.concatenate([camera, jnp.zeros_like(camera[..., :1])], axis=-1)
    return rotations.nearest_rotation(jnp.swapaxes(padded, -1, -2))


def _fit_and_power(rotation, gram, cross, prior):
    """E = const - 2 s fit + s^2 power; the best scale is fit / power."""
    q = jnp.swapaxes(rotation[..., :2, :], -1, -2)
    power = jnp.sum(q * einsum("...ij,...jk->...ik", gram, q), axis=(-2, -1))
    fit = jnp.sum(q * cross, axis=(-2, -1))
    return fit + prior.weight * prior.scale, power + prior.weight


def _explained(rotation, gram, cross, prior):
    """const - E at the best non-negative scale: what the pose explains."""
    fit, power = _fit_and_power(rotation, gram, cross, prior)
    return numerics.safe_divide(jnp.square(jnp.maximum(fit, 0.0)), power)


def _refine(rotation, gram, cross, prior):
    """One damped Gauss-Newton step R <- R exp(w), kept where it does no harm."""
    fit, power = _fit_and_power(rotation, gram, cross, prior)
    scale = numerics.safe_divide(jnp.maximum(fit, 0.0), power)[..., None, None]
    q = jnp.swapaxes(rotation[..., :2, :], -1, -2)
    residual = scale * einsum("...ij,...jk->...ik", gram, q) - cross
    hessian, gradient = 0.0, 0.0
    for i in range(2):
        # rows of R exp(w): r_i + r_i x w to first order, a linear map of w
        turn = rotations.cross_matrix(q[..., i])
        gradient = gradient + einsum("...ji,...j->...i", turn, residual[..., i])
        middle = einsum("...ij,...jk->...ik", gram, turn)
        hessian = hessian + einsum("...ji,...jk->...ik", turn, middle)
    damping = 1e-3 * jnp.trace(hessian, axis1=-2, axis2=-1) + numerics.TINY
    hessian = hessian + numerics.scaled_identity(damping, 3)
    # E's gradient is 2 s * gradient and its Gauss-Newton matrix 2 s^2 * hessian
    newton = -numerics.solve3(hessian, gradient[..., None])[..., 0]
    step = newton * numerics.safe_divide(jnp.ones_like(scale), scale)[..., 0]
    candidate = einsum(
        "...ij,...jk->...ik", rotation, rotations.from_rotation_vector(step)
    )
    before = _explained(rotation, gram, cross, prior)
    better = _explained(candidate, gram, cross, prior) >= before
    return jnp.where(better[..., None, None], candidate, rotation)
