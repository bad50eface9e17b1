"""Laws of projections and of the families of cameras."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax.geometry import cameras, rotations

ROWS = np.arange(4000, dtype=np.int32)
CLIPS, FRAMES = np.repeat(np.arange(40), 100), np.tile(np.arange(100), 40)
UP = np.array([1.0, -2.0, 0.5], np.float32)
KEY = cameras.category_key(0, "cat")


def sample(family, key=KEY, rows=ROWS):
    clips, frames = CLIPS[rows], FRAMES[rows]
    return np.asarray(
        {
            "orthographic": lambda: cameras.orthographic(key, rows),
            "static": lambda: cameras.static(key, clips),
            "orbit": lambda: cameras.orbit(key, clips, frames),
            "upright": lambda: cameras.upright(key, rows, UP),
            "perspective": lambda: cameras.perspective(key, rows)[0],
        }[family]()
    )


FAMILIES = ("orthographic", "static", "orbit", "upright", "perspective")


@pytest.mark.parametrize("family", FAMILIES)
def test_cameras_are_rotations_and_never_mirror(family):
    rotation = sample(family)
    gram = np.einsum("fij,fkj->fik", rotation, rotation)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), gram.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_camera_depends_on_its_own_frame_alone(family):
    some = np.random.default_rng(0).permutation(ROWS)[:50]
    alone = sample(family, rows=some)
    np.testing.assert_allclose(sample(family)[some], alone, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_camera_depends_on_view_seed_and_category(family):
    here = sample(family)
    for key in (cameras.category_key(1, "cat"), cameras.category_key(0, "dog")):
        apart = np.abs(here - sample(family, key)).max(axis=(1, 2))
        assert np.median(apart) > 0.1


@pytest.mark.parametrize("family", ("orthographic", "perspective"))
def test_uniform_on_so3(family):
    # Under the uniform law E R = 0, E R_ij^2 = 1/3, and the angle has density
    # (1 - cos a) / pi, so that E tr R = 0 and E (tr R)^2 = 1.
    rotation = sample(family)
    trace = np.trace(rotation, axis1=1, axis2=2)
    np.testing.assert_allclose(rotation.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose((rotation**2).mean(axis=0), 1 / 3, atol=0.03)
    np.testing.assert_allclose((trace**2).mean(), 1, atol=0.1)
    assert not np.array_equal(rotation[0], rotation[1])


def test_static_is_one_camera_per_clip():
    rotation = sample("static").reshape(40, 100, 3, 3)
    assert (rotation == rotation[:, :1]).all()
    assert len(np.unique(rotation[:, 0].round(4), axis=0)) == 40


def test_orbit_turns_steadily_round_one_axis_of_the_world():
    rotation = sample("orbit").reshape(40, 100, 3, 3)
    step = np.einsum("cfji,cfjk->cfik", rotation[:, :-1], rotation[:, 1:])
    angle = np.arccos(np.clip((np.trace(step, axis1=2, axis2=3) - 1) / 2, -1, 1))
    assert np.degrees(angle).min() > cameras.ORBIT_SPEED[0] - 0.05
    assert np.degrees(angle).max() < cameras.ORBIT_SPEED[1] + 0.05
    np.testing.assert_allclose(
        step, np.broadcast_to(step[:, :1], step.shape), atol=1e-4
    )


def test_upright_cameras_stand_upright():
    up = sample("upright") @ (UP / np.linalg.norm(UP))
    np.testing.assert_allclose(up[:, 0], 0, atol=1e-5)  # no roll
    assert (up[:, 1] < 0).all()  # up in the image, whose y points down
    elevation = np.degrees(np.arcsin(-up[:, 2]))  # from above, what is up is nearer
    assert abs(elevation.mean() - 15) < 1
    assert abs(elevation.std() - 10) < 1


def test_upright_azimuth_is_uniform():
    forward = sample("upright")[:, 2]
    level = forward - (forward @ UP)[:, None] * UP / (UP @ UP)
    level /= np.linalg.norm(level, axis=1, keepdims=True)
    np.testing.assert_allclose(level.mean(axis=0), 0, atol=0.05)


def test_perspective_distance_is_log_uniform():
    _, distance = cameras.perspective(KEY, ROWS)
    low, high = cameras.DISTANCE
    share = np.log(np.asarray(distance) / low) / np.log(high / low)
    assert share.min() >= -1e-6 and share.max() <= 1 + 1e-6
    np.testing.assert_allclose(
        np.quantile(share, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.04
    )


def test_real_views_are_all_used():
    chosen = np.asarray(cameras.real(KEY, ROWS, 4)).argmax(axis=1)
    np.testing.assert_allclose(np.bincount(chosen) / len(ROWS), 0.25, atol=0.03)


def points(key=0, shape=(5, 7)):
    return jax.random.normal(jax.random.key(key), (*shape, 3))


def test_weak_perspective_commutes_with_similarities_of_the_image():
    x, scale, shift = points(), jnp.arange(1.0, 6.0), points(1, (5,))[..., :2]
    image = cameras.project_weak_perspective(x, scale, shift)
    turn = rotations.from_rotation_vector(jnp.full((5, 3), 0.3).at[:, :2].set(0.0))
    turned = cameras.project_weak_perspective(
        jnp.einsum("bij,bnj->bni", turn, x),
        scale,
        jnp.einsum("bij,bj->bi", turn[:, :2, :2], shift),
    )
    expected = jnp.einsum("bij,bnj->bni", turn[:, :2, :2], image)
    np.testing.assert_allclose(turned, expected, atol=1e-5)
    one = cameras.project_weak_perspective(x, jnp.ones(5), jnp.zeros((5, 2)))
    np.testing.assert_array_equal(one, cameras.project_orthographic(x))


def test_points_on_one_ray_have_one_image():
    x = points() + jnp.array([0.0, 0.0, 6.0]).reshape(1, 1, 3)
    focal = jnp.arange(1.0, 6.0)
    further = x * jnp.linspace(1, 3, 7)[None, :, None]
    np.testing.assert_allclose(
        cameras.project_perspective(x, focal),
        cameras.project_perspective(further, focal),
        rtol=1e-5,
        atol=1e-6,
    )


def test_perspective_from_afar_is_orthographic():
    x = points()
    focal = jnp.full((5,), 1e5)
    far = x + jnp.array([0.0, 0.0, 1e5]).reshape(1, 1, 3)
    np.testing.assert_allclose(
        cameras.project_perspective(far, focal),
        cameras.project_orthographic(x),
        atol=1e-3,
    )
