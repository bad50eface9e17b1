"""Cameras: what a point looks like, and which camera sees which frame.

Camera frame: x right, y down (as rows of an image count), z into the scene. The camera
looks along +z, so z is depth and grows away from the camera; the frame is right-handed,
and every camera here is a rotation in SO(3), never a mirror image. A rotation takes the
world to the camera, x_camera = R x_world.

Projections take points that are in the camera frame already. They are plain arithmetic
and accept NumPy arrays as well.

Camera families are pure functions of a key and of integers that say which frame it is:
`row` (its place in the archive), `clip` (its sequence) and `frame` (its place in the
clip), each [f]. A camera therefore depends on nothing else: not on the training seed,
not on the epoch, not on the other frames. `category_key` makes the key.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lfm_jax.geometry import rotations
from lfm_jax.types import ArrayLike

ELEVATION = (15.0, 10.0)  # degrees: mean and standard deviation, `upright`
ORBIT_SPEED = (0.5, 3.0)  # degrees per frame
DISTANCE = (1.5, 10.0)  # times the largest distance between two points, `perspective`


# ----------------------------------------------------------------------- projections


def project_orthographic(
    points3d: Float[ArrayLike, "*b n 3"],
) -> Float[ArrayLike, "*b n 2"]:
    """Drops depth: the image has the units of the points."""
    return points3d[..., :2]


def project_weak_perspective(
    points3d: Float[ArrayLike, "*b n 3"],
    scale: Float[ArrayLike, "*b"],
    translation: Float[ArrayLike, "*b 2"],
) -> Float[ArrayLike, "*b n 2"]:
    """Scaled orthographic projection: scale * xy + translation, in image units."""
    return scale[..., None, None] * points3d[..., :2] + translation[..., None, :]


def project_perspective(
    points3d: Float[ArrayLike, "*b n 3"], focal: Float[ArrayLike, "*b"]
) -> Float[ArrayLike, "*b n 2"]:
    """Pinhole projection focal * xy / z about the principal point.

    Args:
        points3d: points with the pinhole at the origin; every depth z positive.
        focal: focal length in image units. The distance of the object gives an image
            in about the units of the points.
    """
    return focal[..., None, None] * points3d[..., :2] / points3d[..., 2:]


# -------------------------------------------------------------------- camera families


def category_key(view_seed: int, category: str) -> Key[Array, ""]:
    """The root of all cameras of one category, the same in every process."""
    name = np.uint32(zlib.crc32(category.encode()))
    return jax.random.fold_in(jax.random.key(view_seed), name)


@jax.jit
def orthographic(
    key: Key[Array, ""], row: Int[ArrayLike, "f"]
) -> Float[Array, "f 3 3"]:
    """A new camera every frame, uniform on SO(3)."""
    return jax.vmap(rotations.random_rotation)(_keys(key, row))


@jax.jit
def static(key: Key[Array, ""], clip: Int[ArrayLike, "f"]) -> Float[Array, "f 3 3"]:
    """One camera per clip, uniform on SO(3)."""
    return jax.vmap(rotations.random_rotation)(_keys(key, clip))


@jax.jit
def orbit(
    key: Key[Array, ""], clip: Int[ArrayLike, "f"], frame: Int[ArrayLike, "f"]
) -> Float[Array, "f 3 3"]:
    """One smooth path per clip: from a uniform start round a fixed axis of the world.

    The axis is uniform on the sphere and the speed constant, `ORBIT_SPEED` degrees per
    frame.
    """

    def camera(key, frame):
        start_key, axis_key, speed_key = jax.random.split(key, 3)
        start = rotations.random_rotation(start_key)
        axis = jax.random.normal(axis_key, (3,))
        speed = jax.random.uniform(
            speed_key, minval=ORBIT_SPEED[0], maxval=ORBIT_SPEED[1]
        )
        angle = jnp.radians(speed) * frame.astype(speed.dtype)
        turn = rotations.from_rotation_vector(angle * axis / jnp.linalg.norm(axis))
        return jnp.matmul(start, turn, precision="highest")

    return jax.vmap(camera)(_keys(key, clip), jnp.asarray(frame))


@jax.jit
def upright(
    key: Key[Array, ""], row: Int[ArrayLike, "f"], up: Float[ArrayLike, "3"]
) -> Float[Array, "f 3 3"]:
    """A person with a camera: azimuth uniform, elevation N(15, 10) degrees, no roll.

    The camera looks at the origin; a positive elevation is above the horizon.

    Args:
        up: the upward direction of the world, any length but zero.
    """

    def camera(key):
        azimuth_key, elevation_key = jax.random.split(key)
        a = jax.random.uniform(azimuth_key, maxval=2 * jnp.pi)
        mean, deviation = ELEVATION
        e = jnp.radians(mean + deviation * jax.random.normal(elevation_key))
        right = jnp.stack([-jnp.sin(a), jnp.cos(a), jnp.zeros_like(a)])
        forward = -jnp.stack(
            [jnp.cos(e) * jnp.cos(a), jnp.cos(e) * jnp.sin(a), jnp.sin(e)]
        )
        return jnp.stack([right, jnp.cross(forward, right), forward])

    cameras = jax.vmap(camera)(_keys(key, row))
    return jnp.matmul(cameras, _z_up(jnp.asarray(up)), precision="highest")


@jax.jit
def perspective(
    key: Key[Array, ""], row: Int[ArrayLike, "f"]
) -> tuple[Float[Array, "f 3 3"], Float[Array, "f"]]:
    """Rotations uniform on SO(3), and distances log-uniform in `DISTANCE`.

    Returns:
        The rotations, and the distance of the camera from the centre of the points in
        units of the largest distance between two of them. No point is further from the
        centre than that, so every depth is positive.
    """

    def camera(key):
        rotation_key, distance_key = jax.random.split(key)
        low, high = (float(np.log(d)) for d in DISTANCE)
        distance = jnp.exp(jax.random.uniform(distance_key, minval=low, maxval=high))
        return rotations.random_rotation(rotation_key), distance

    return jax.vmap(camera)(_keys(key, row))


def real(
    key: Key[Array, ""], row: Int[ArrayLike, "f"], views: int
) -> Float[Array, "f v"]:
    """A random preference over the real cameras for each frame: largest wins."""
    return jax.vmap(lambda key: jax.random.uniform(key, (views,)))(_keys(key, row))


def _keys(key, index):
    """One key per frame: the category's with the frame's integer folded in."""
    index = jnp.asarray(index).astype(jnp.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def _z_up(up):
    """A rotation that takes the direction `up` to +z."""
    up = up / jnp.linalg.norm(up)
    least = jax.nn.one_hot(jnp.argmin(jnp.abs(up)), 3, dtype=up.dtype)
    side = jnp.cross(least, up)
    side = side / jnp.linalg.norm(side)
    return jnp.stack([side, jnp.cross(up, side), up])
