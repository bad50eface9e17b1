"""Laws of factorization: exact on exact data, better with bases, blind to padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax.classical import factorization
from lfm_jax.classical.factorization import factorize
from lfm_jax.geometry.deformable import fit_low_rank
from lfm_jax.geometry.pose import apply_pose
from lfm_jax.geometry.procrustes import align_similarity, apply_alignment
from lfm_jax.geometry.rotations import random_rotation

FRAMES, POINTS = 150, 15

# Compiled whole: one by one, each of their operations would be a compilation.
align = jax.jit(functools.partial(align_similarity, reflection=True))
fit = jax.jit(fit_low_rank, static_argnames="rounds")


def scene(bases=0, seed=0, noise=0.0):
    """Points in the camera frame [f n 3] of a rigid or deforming body."""
    random = np.random.default_rng(seed)
    mean = random.normal(size=(POINTS, 3)) * np.array([1.0, 0.6, 0.4])
    modes = 0.25 * random.normal(size=(bases, POINTS, 3))
    codes = random.normal(size=(FRAMES, bases))
    shapes = mean + np.tensordot(codes, modes, 1)
    shapes = shapes - shapes.mean(1, keepdims=True)
    r = np.asarray(random_rotation(jax.random.key(seed), (FRAMES,)), np.float64)
    posed = shapes @ r.swapaxes(1, 2)
    posed[..., :2] += noise * random.normal(size=(FRAMES, POINTS, 2))
    return mean - mean.mean(0), posed


def misfit(shape, truth):
    """RMS distance after similarity or mirror alignment, relative to the truth's."""
    one, other = (jnp.asarray(x, jnp.float32)[None] for x in (shape, truth))
    mask = jnp.ones(one.shape[:2], bool)
    found = align(one, other, mask)
    gap = np.asarray(apply_alignment(found, one) - other)
    return np.sqrt((gap**2).sum() / (np.asarray(truth) ** 2).sum())


def depth_error(found, posed):
    """Median over frames of relative depth error, the mirror chosen once."""
    count = len(posed)
    points = jnp.asarray(posed[..., :2], jnp.float32)
    size = jnp.sqrt(jnp.mean(jnp.sum(points**2, -1), 1))[:, None, None]
    mask = jnp.ones(points.shape[:2], bool)
    shapes = jnp.broadcast_to(
        jnp.asarray(found.shapes, jnp.float32), (count, *found.shapes.shape)
    )
    noise = jnp.full(count, found.noise, jnp.float32)
    codes, pose = fit(shapes, noise, points / size, mask)
    body = shapes[:, 0] + jnp.einsum("fk,fkni->fni", codes, shapes[:, 1:])
    depth = np.asarray(apply_pose(pose, body)[..., 2] * size[..., 0])
    true = posed[..., 2] - posed[..., 2].mean(1, keepdims=True)
    depth = depth - depth.mean(1, keepdims=True)
    errors = [
        np.linalg.norm(sign * depth - true, axis=1) / np.linalg.norm(true, axis=1)
        for sign in (1, -1)
    ]
    return min(np.median(e) for e in errors)


def test_rigid_shape_is_recovered_from_exact_2d():
    mean, posed = scene()
    found = factorize(posed[..., :2], np.ones(posed.shape[:2], bool))
    assert misfit(found.shapes[0], mean) < 0.01
    np.testing.assert_allclose(found.noise, factorization.NOISE_FLOOR, rtol=1e-3)


def test_missing_points_are_no_obstacle_and_their_values_play_no_part():
    mean, posed = scene()
    mask = np.random.default_rng(0).random(posed.shape[:2]) < 0.7
    points = np.where(mask[..., None], posed[..., :2], np.nan)
    found = factorize(points, mask, iterations=200)
    assert misfit(found.shapes[0], mean) < 0.02


def test_units_and_place_do_not_matter():
    _, posed = scene(noise=0.02)
    mask = np.ones(posed.shape[:2], bool)
    one = factorize(posed[..., :2], mask)
    other = factorize(300.0 * posed[..., :2] + 50.0, mask)
    assert misfit(one.shapes[0], other.shapes[0]) < 1e-2


def test_bases_lift_what_a_rigid_shape_cannot():
    _, posed = scene(bases=2, noise=0.01)
    mask = np.ones(posed.shape[:2], bool)
    rigid = factorize(posed[..., :2], mask)
    deformable = factorize(posed[..., :2], mask, 2)
    assert depth_error(deformable, posed) < 0.12
    assert depth_error(deformable, posed) < 0.4 * depth_error(rigid, posed)
    assert deformable.score > rigid.score + 1.0


def test_padding_to_a_common_width_changes_nothing():
    mean, posed = scene()
    mask = np.ones(posed.shape[:2], bool)
    found = factorize(posed[..., :2], mask, width=POINTS + 6)
    assert found.shapes.shape == (1, POINTS, 3)
    assert misfit(found.shapes[0], mean) < 0.01


def test_no_more_bases_than_the_points_can_tell():
    _, posed = scene(bases=2)
    mask = np.ones(posed.shape[:2], bool)
    found = factorize(posed[..., :2], mask, 8, iterations=2)
    assert len(found.shapes) - 1 == POINTS // 3


def test_likelihood_is_that_of_the_dense_gaussian():
    """Against the covariance A A^T + noise I written out, at the same cameras."""
    random = np.random.default_rng(0)
    _, posed = scene(bases=2)
    tracks = posed[:4, :, :2] - posed[:4, :, :2].mean(1, keepdims=True)
    tracks = jnp.asarray(tracks / np.sqrt((tracks**2).sum(-1).mean(1))[:, None, None])
    tracks = tracks.astype(jnp.float32)
    mask = jnp.ones(tracks.shape[:2], bool)
    shapes = jnp.asarray(random.normal(size=(3, POINTS, 3)), jnp.float32)
    noise = jnp.float32(0.1)
    ours = jax.jit(factorization.log_likelihood)(tracks, mask, shapes, noise)
    stacked = jnp.broadcast_to(shapes, (4, *shapes.shape))
    _, pose = fit(stacked, jnp.full(4, noise), tracks, mask, rounds=8)
    each = []
    for f in range(4):
        camera = np.asarray(pose.scale[f] * pose.rotation[f, :2], np.float64)
        images = np.asarray(shapes, np.float64) @ camera.T
        images = (images - images.mean(1, keepdims=True)).reshape(3, -1)
        residual = np.asarray(tracks[f], np.float64).ravel() - images[0]
        covariance = images[1:].T @ images[1:] + 0.1 * np.eye(2 * POINTS)
        value = residual @ np.linalg.solve(covariance, residual)
        value += np.linalg.slogdet(covariance)[1]
        each.append(-0.5 * value / (2 * POINTS))
    np.testing.assert_allclose(ours, np.mean(each), rtol=2e-3)
