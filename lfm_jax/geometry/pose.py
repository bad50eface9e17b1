"""Scaled orthographic pose of a shape from n points: x ~ s P R Y + t.

X [n 2] observed points, Y [n 3] shape, R in SO(3), P the first two rows of the
identity, s > 0, t the image translation. With the translation removed by centring both
over the mask, the squared error depends on the points only through

    G = Y^T Y (3x3),   B = Y^T X (3x2),   c = |X|^2
    E(s, Q) = c - 2 s <Q, B> + s^2 <Q, G Q>,     Q = the first two rows of R, as columns

so that refinement costs nothing in n. Depth along z is what the pose adds to the image:
under orthographic projection the sign of all depths together is not observable.

Where something is known about the scale before the image is seen (an object that keeps
its size), weight * (s - known)^2 is added to E. Nothing depends on the units of either
side.

The pose is a constant for derivatives (envelope theorem, see procrustes.py).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, PyTree

from lfm_jax import numerics
from lfm_jax.geometry import rotations
from lfm_jax.numerics import einsum
from lfm_jax.types import ArrayLike, Pose

RIDGE = 1e-6  # relative; keeps collinear shapes solvable
ROUNDING = 5e-7  # relative; what a moment can be told by in single precision
DAMPING = 1e-3  # of the first step, relative to the Gauss-Newton matrix


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
    # one fused sum: products of so small matrices cost twice as much
    camera = pose.scale[..., None, None] * pose.rotation
    turned = sum(shape[..., j, None] * camera[..., None, :, j] for j in range(3))
    shift = jnp.concatenate(
        [pose.translation, jnp.zeros_like(pose.translation[..., :1])], axis=-1
    )
    return turned + shift[..., None, :]


def unapply_pose(
    pose: Pose, posed: Float[ArrayLike, "*b n 3"]
) -> Float[ArrayLike, "*b n 3"]:
    """The shape of which `apply_pose` gives this one; zero where the scale is."""
    shift = jnp.concatenate(
        [pose.translation, jnp.zeros_like(pose.translation[..., :1])], axis=-1
    )
    turned = einsum("...ji,...nj->...ni", pose.rotation, posed - shift[..., None, :])
    scale = jnp.broadcast_to(pose.scale[..., None, None], turned.shape)
    return numerics.safe_divide(turned, scale)


def fit_pose(
    shape: Float[ArrayLike, "*b n 3"],
    points2d: Float[ArrayLike, "*b n 2"],
    mask: Bool[ArrayLike, "*b n"],
    *,
    refinements: int = 16,
) -> Pose:
    """The pose that best explains 2D points by a shape, over masked points.

    Closed form first, by the shape's main plane, which leaves two poses; both are
    refined by damped Gauss-Newton steps on SO(3), taken only where they lower the
    error, and the better one is kept. A flat shape has an optimum near either. Finite
    at any input: a single point, or all coincident, gives a valid rotation with scale
    zero or what the points support.

    Args:
        shape: canonical points; any units.
        points2d: their images.
        mask: which points count.
        refinements: Gauss-Newton steps.
    """
    shape, points2d = jax.lax.stop_gradient((shape, points2d))
    shape_mean = numerics.masked_mean(shape, mask)
    image_mean = numerics.masked_mean(points2d, mask)
    y = numerics.keep(shape - shape_mean[..., None, :], mask)
    x = numerics.keep(points2d - image_mean[..., None, :], mask)
    gram = einsum("...ni,...nj->...ij", y, y)
    cross = einsum("...ni,...nj->...ij", y, x)

    gram, cross, _, unit = _unitless(gram, cross)

    tilts = planar_poses(gram, cross)
    gram, cross = twice((gram, cross))
    scales, rotations = pose_from_moments(gram, cross, tilts, refinements)
    errors = _error(gram, cross, scales, rotations)
    second = errors[1] < errors[0]
    scale = unit * jnp.where(second, scales[1], scales[0])
    rotation = jnp.where(second[..., None, None], rotations[1], rotations[0])
    moved = einsum("...ij,...j->...i", rotation[..., :2, :], shape_mean)
    return Pose(scale, rotation, image_mean - scale[..., None] * moved)


def twice(tree: PyTree) -> PyTree:
    """For two poses; `jax.vmap` would do, but takes twice as long to trace."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2, *leaf.shape)), tree)


def planar_poses(
    gram: Float[ArrayLike, "*b 3 3"], cross: Float[ArrayLike, "*b 3 2"]
) -> Float[ArrayLike, "2 *b 3 3"]:
    """The two poses in which a shape's main plane has the image that it has.

    The camera s P R is known on the plane of the two main axes by linear least squares.
    Its rows m1, m2 lack their components c1, c2 along the normal, by which they become
    orthogonal and of one length: (c1 + i c2)^2 = |m2|^2 - |m1|^2 - 2 i m1.m2, which has
    two roots, the two tilts that an orthographic image of a plane cannot tell apart.
    """
    gram, cross, _, _ = _unitless(gram, cross)
    trace = jnp.trace(gram, axis1=-2, axis2=-1)  # 1, or 0
    identity = numerics.scaled_identity(trace, 3)
    normal = numerics.largest_eigenvector(identity - gram)
    # the normal is made a main axis too: a plane's moments are singular without it
    along = normal[..., :, None] * normal[..., None, :]
    filled = gram + trace[..., None, None] * along
    ridge = numerics.scaled_identity(RIDGE * trace + numerics.TINY, 3)
    camera = jnp.swapaxes(numerics.solve3(filled + ridge, cross), -1, -2)
    camera = camera - einsum("...ai,...ij->...aj", camera, along)
    m1, m2 = camera[..., 0, :], camera[..., 1, :]
    real = jnp.sum(m2 * m2 - m1 * m1, axis=-1)
    root = _complex_sqrt(real, -2.0 * jnp.sum(m1 * m2, axis=-1))
    tilt = jnp.stack(root, axis=-1)[..., None] * normal[..., None, :]
    return jnp.stack([_orthonormal(camera + tilt), _orthonormal(camera - tilt)])


def _complex_sqrt(real, imaginary):
    """Either root of a complex number; XLA's own takes ten times as long to compile."""
    size = jnp.sqrt(jnp.square(real) + jnp.square(imaginary))
    larger = jnp.sqrt(0.5 * (size + jnp.abs(real)))
    smaller = numerics.safe_divide(0.5 * imaginary, larger)
    positive = real >= 0.0
    return jnp.where(positive, larger, smaller), jnp.where(positive, smaller, larger)


def _orthonormal(camera):
    """The rotation whose first rows are those of the camera, but for its scale."""
    first, second = camera[..., 0, :], camera[..., 1, :]
    first = first / jnp.linalg.norm(first, axis=-1, keepdims=True)
    second = second - jnp.sum(first * second, axis=-1, keepdims=True) * first
    second = second / jnp.linalg.norm(second, axis=-1, keepdims=True)
    rotation = jnp.stack([first, second, jnp.cross(first, second)], axis=-2)
    valid = jnp.all(jnp.isfinite(rotation), axis=(-2, -1), keepdims=True)
    identity = numerics.scaled_identity(jnp.ones(camera.shape[:-2], camera.dtype), 3)
    return jnp.where(valid, rotation, identity)


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
    rotation: Float[ArrayLike, "*b 3 3"],
    refinements: int,
    prior: ScalePrior | None = None,
) -> tuple[Float[ArrayLike, "*b"], Float[ArrayLike, "*b 3 3"]]:
    """Scale and rotation from G = Y^T Y and B = Y^T X, refined from a rotation."""
    if prior is None:
        prior = ScalePrior(*(jnp.zeros(gram.shape[:-2], gram.dtype) for _ in range(2)))
    gram, cross, size, unit = _unitless(gram, cross)
    prior = ScalePrior(prior.scale / unit, prior.weight / size)
    damping = jnp.full(gram.shape[:-2], DAMPING, gram.dtype)
    step = lambda _, carry: _refine(*carry, gram, cross, prior)
    rotation, _ = jax.lax.fori_loop(0, refinements, step, (rotation, damping))
    return unit * _best_scale(rotation, gram, cross, prior), rotation


def _unitless(gram, cross):
    """The moments in units in which shape and scale are about 1, and those units."""
    size = _or_one(jnp.trace(gram, axis1=-2, axis2=-1))
    gram, cross = gram / size[..., None, None], cross / size[..., None, None]
    unit = _or_one(jnp.max(jnp.abs(cross), axis=(-2, -1)))
    return gram, cross / unit[..., None, None], size, unit


def _or_one(size):
    return jnp.where(size > 0.0, size, 1.0)


def _error(gram, cross, scale, rotation):
    """The squared image error, up to what all poses share."""
    camera = jnp.swapaxes(scale[..., None, None] * rotation[..., :2, :], -1, -2)
    image = einsum("...ij,...ja->...ia", gram, camera)
    return jnp.sum(camera * (image - 2.0 * cross), axis=(-2, -1))


def _fit_and_power(rotation, gram, cross, prior):
    """E = const - 2 s fit + s^2 power."""
    q = jnp.swapaxes(rotation[..., :2, :], -1, -2)
    power = jnp.sum(q * einsum("...ij,...jk->...ik", gram, q), axis=(-2, -1))
    fit = jnp.sum(q * cross, axis=(-2, -1))
    return fit + prior.weight * prior.scale, power + prior.weight


def _best_scale(rotation, gram, cross, prior):
    fit, power = _fit_and_power(rotation, gram, cross, prior)
    return numerics.safe_divide(jnp.maximum(fit, 0.0), power)


def _explained(rotation, gram, cross, prior):
    """const - E at the best non-negative scale: what the pose explains."""
    fit, power = _fit_and_power(rotation, gram, cross, prior)
    return numerics.safe_divide(jnp.square(jnp.maximum(fit, 0.0)), power)


def _refine(rotation, damping, gram, cross, prior):
    """One damped Gauss-Newton step R <- R exp(w), kept where it does no harm."""
    fit, power = _fit_and_power(rotation, gram, cross, prior)
    scale = numerics.safe_divide(jnp.maximum(fit, 0.0), power)
    q = jnp.swapaxes(rotation[..., :2, :], -1, -2)
    image = einsum("...ij,...jk->...ik", gram, q)
    residual = scale[..., None, None] * image - cross
    hessian, gradient, growth = 0.0, 0.0, 0.0
    for i in range(2):
        # rows of R exp(w): r_i + r_i x w to first order, a linear map of w
        turn = rotations.cross_matrix(q[..., i])
        gradient = gradient + einsum("...ji,...j->...i", turn, residual[..., i])
        growth = growth + einsum("...ji,...j->...i", turn, image[..., i])
        middle = einsum("...ij,...jk->...ik", gram, turn)
        hessian = hessian + einsum("...ji,...jk->...ik", turn, middle)
    # what is left of it when the scale follows
    follows = numerics.safe_divide(
        growth, jnp.broadcast_to(power[..., None], growth.shape)
    )
    hessian = hessian - growth[..., :, None] * follows[..., None, :]
    trace = jnp.trace(hessian, axis1=-2, axis2=-1)
    hessian = hessian + numerics.scaled_identity(damping * trace + numerics.TINY, 3)
    # E's gradient is 2 s * gradient and its Gauss-Newton matrix 2 s^2 * hessian
    newton = -numerics.solve3(hessian, gradient[..., None])[..., 0]
    step = newton * numerics.safe_divide(jnp.ones_like(scale), scale)[..., None]
    candidate = einsum(
        "...ij,...jk->...ik", rotation, rotations.from_rotation_vector(step)
    )
    before = _explained(rotation, gram, cross, prior)
    better = _explained(candidate, gram, cross, prior) >= (1.0 - ROUNDING) * before
    rotation = jnp.where(better[..., None, None], candidate, rotation)
    return rotation, damping * jnp.where(better, 0.2, 8.0)
