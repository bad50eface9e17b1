"""Rotations: matrices R in SO(3) that act on column vectors, x' = R x.

Points are rows, so a cloud [n 3] turns as `points @ R.T`. Quaternions are (w, x, y, z).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lfm_jax import numerics
from lfm_jax.types import ArrayLike


def from_quaternion(quaternion: Float[ArrayLike, "*b 4"]) -> Float[ArrayLike, "*b 3 3"]:
    """Rotation matrix of a unit quaternion."""
    w, x, y, z = (quaternion[..., i] for i in range(4))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def random_rotation(
    key: Key[Array, ""], shape: tuple[int, ...] = ()
) -> Float[ArrayLike, "*shape 3 3"]:
    """Uniform on SO(3): a direction of four Gaussians is a uniform unit quaternion."""
    quaternion = jax.random.normal(key, (*shape, 4))
    return from_quaternion(
        quaternion / jnp.linalg.norm(quaternion, axis=-1, keepdims=True)
    )


def from_rotation_vector(
    vector: Float[ArrayLike, "*b 3"],
) -> Float[ArrayLike, "*b 3 3"]:
    """Rotation by |vector| radians about its direction (Rodrigues)."""
    angle = numerics.safe_norm(vector)
    half = 0.5 * angle
    # sin(|v|/2)/|v| has the limit 1/2 at the origin
    ratio = jnp.where(angle > 1e-6, numerics.safe_divide(jnp.sin(half), angle), 0.5)
    return from_quaternion(
        jnp.concatenate([jnp.cos(half)[..., None], ratio[..., None] * vector], axis=-1)
    )


def nearest_rotation(matrix: Float[ArrayLike, "*b 3 3"]) -> Float[ArrayLike, "*b 3 3"]:
    """The rotation R in SO(3) that maximises trace(R^T M), without an SVD.

    Davenport's q-method: the best quaternion is the top eigenvector of a symmetric
    4x4 matrix linear in M (Horn, "Closed-form solution of absolute orientation using
    unit quaternions", 1987). Always a proper rotation, also for rank-deficient M,
    where some optimal one is returned. Not meant to be differentiated: callers treat
    it as a constant (envelope theorem).
    """
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    twist = jnp.stack(
        [
            m[..., 2, 1] - m[..., 1, 2],
            m[..., 0, 2] - m[..., 2, 0],
            m[..., 1, 0] - m[..., 0, 1],
        ],
        axis=-1,
    )
    symmetric = m + jnp.swapaxes(m, -1, -2)
    symmetric = symmetric - numerics.scaled_identity(trace, 3)
    top = jnp.concatenate([trace[..., None], twist], axis=-1)[..., None, :]
    bottom = jnp.concatenate([twist[..., :, None], symmetric], axis=-1)
    davenport = jnp.concatenate([top, bottom], axis=-2)
    return from_quaternion(numerics.largest_eigenvector(davenport))


def nearest_frame(matrix: Float[ArrayLike, "*b 3 2"]) -> Float[ArrayLike, "*b 3 2"]:
    """The 3 x 2 matrix with orthonormal columns that is nearest to M, without an SVD.

    U V^T of the decomposition M = U S V^T, which is M A^(-1/2) with A = M^T M; the root
    of a 2 x 2 matrix is (A + d I) / sqrt(tr A + 2 d), and d = sqrt(det A) is the length
    of the columns' cross product. Meant to be differentiated, unlike
    `nearest_rotation`: for columns along one line, where there is no nearest frame, the
    result is none but finite, with its derivative. The zero matrix stays zero.
    """
    size = numerics.safe_sqrt(jnp.sum(jnp.square(matrix), axis=(-2, -1)))
    size = jnp.broadcast_to(size[..., None, None], matrix.shape)
    matrix = numerics.safe_divide(matrix, size)
    gram = numerics.einsum("...ia,...ib->...ab", matrix, matrix)
    trace = gram[..., 0, 0] + gram[..., 1, 1]
    normal = jnp.cross(matrix[..., 0], matrix[..., 1])
    root = jnp.sqrt(jnp.sum(jnp.square(normal), axis=-1) + 1e-10)
    adjugate = numerics.scaled_identity(trace + root, 2) - gram
    inverse = adjugate / (root * jnp.sqrt(trace + 2.0 * root))[..., None, None]
    return numerics.einsum("...ia,...ab->...ib", matrix, inverse)


def cross_matrix(vector: Float[ArrayLike, "*b 3"]) -> Float[ArrayLike, "*b 3 3"]:
    """[v]x, so that [v]x w = v x w."""
    x, y, z = (vector[..., i] for i in range(3))
    zero = jnp.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
