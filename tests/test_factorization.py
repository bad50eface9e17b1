"""Laws of factorization: exact on exact data, better with bases, blind to padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax.classical import factorization
from lfm_jax.classical.factorization import LowRank, factorize, predict_hidden
from lfm_jax.geometry.deformable import deform, fit_low_rank
from lfm_jax.geometry.pose import ScalePrior, apply_pose
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
    points = jnp.asarray(posed[..., :2], jnp.float32)
    size = jnp.sqrt(jnp.mean(jnp.sum(points**2, -1), 1))
    mask = jnp.ones(points.shape[:2], bool)
    shapes, noise = (
        jnp.broadcast_to(jnp.float32(x), (len(points), *x.shape))
        for x in (found.model.shapes, found.model.noise)
    )
    by = size[:, None, None]
    codes, pose = fit(shapes, noise, points / by, mask)
    depth = np.asarray(apply_pose(pose, deform(shapes, codes)) * by)[..., 2]
    true = posed[..., 2] - posed[..., 2].mean(1, keepdims=True)
    depth = depth - depth.mean(1, keepdims=True)
    errors = [
        np.linalg.norm(sign * depth - true, axis=1) / np.linalg.norm(true, axis=1)
        for sign in (1, -1)
    ]
    return min(np.median(e) for e in errors)


def test_rigid_shape_is_recovered_from_exact_2d():
    mean, posed = scene()
    (found,) = factorize(posed[..., :2], np.ones(posed.shape[:2], bool))
    assert misfit(found.model.shapes[0], mean) < 0.01
    np.testing.assert_allclose(found.model.noise, factorization.NOISE_FLOOR, rtol=1e-3)


def test_missing_points_are_no_obstacle_and_their_values_play_no_part():
    mean, posed = scene()
    mask = np.random.default_rng(0).random(posed.shape[:2]) < 0.7
    points = np.where(mask[..., None], posed[..., :2], np.nan)
    (found,) = factorize(points, mask, iterations=200)
    assert misfit(found.model.shapes[0], mean) < 0.02


def test_units_and_place_do_not_matter():
    _, posed = scene(noise=0.02)
    mask = np.ones(posed.shape[:2], bool)
    (one,) = factorize(posed[..., :2], mask)
    (other,) = factorize(300.0 * posed[..., :2] + 50.0, mask)
    assert misfit(one.model.shapes[0], other.model.shapes[0]) < 1e-2


def test_bases_lift_what_a_rigid_shape_cannot():
    _, posed = scene(bases=2, noise=0.01)
    mask = np.ones(posed.shape[:2], bool)
    (rigid,) = factorize(posed[..., :2], mask)
    (deformable,) = factorize(posed[..., :2], mask, (2,))
    assert depth_error(deformable, posed) < 0.12
    assert depth_error(deformable, posed) < 0.4 * depth_error(rigid, posed)
    assert deformable.score > rigid.score + 1.0


def test_padding_to_a_common_width_changes_nothing():
    mean, posed = scene()
    mask = np.ones(posed.shape[:2], bool)
    (found,) = factorize(posed[..., :2], mask, width=POINTS + 6)
    assert found.model.shapes.shape == (1, POINTS, 3)
    assert misfit(found.model.shapes[0], mean) < 0.01


def test_no_more_bases_than_the_points_can_tell():
    _, posed = scene(bases=2)
    mask = np.ones(posed.shape[:2], bool)
    (found,) = factorize(posed[..., :2], mask, (8,), iterations=2)
    assert len(found.model.shapes) - 1 == POINTS // 3


def test_one_search_serves_several_numbers_of_bases():
    """Each is what it is alone, but for the starts that the larger one searches."""
    _, posed = scene(bases=2, noise=0.01)
    mask = np.ones(posed.shape[:2], bool)
    two, four = factorize(posed[..., :2], mask, (2, 4))
    assert [len(f.model.shapes) for f in (two, four)] == [3, 5]
    assert depth_error(two, posed) < 0.12


def test_a_keypoint_has_the_noise_that_it_has():
    random = np.random.default_rng(0)
    _, posed = scene(bases=2, noise=0.02)
    posed[:, 3, :2] += 0.3 * random.normal(size=(FRAMES, 2))
    mask = np.ones(posed.shape[:2], bool)
    (found,) = factorize(posed[..., :2], mask, (2,))
    others = np.delete(found.model.noise, 3)
    assert found.model.noise[3] > 5.0 * others.max()
    assert depth_error(found, posed) < 0.15


def test_scale_and_its_spread_are_found():
    random = np.random.default_rng(0)
    mean, posed = scene(bases=2, noise=0.01)
    mask = np.ones(posed.shape[:2], bool)
    radius = np.sqrt((mean**2).sum(-1).mean())
    (same,) = factorize(7.0 * posed[..., :2], mask, (2,))
    np.testing.assert_allclose(same.model.scale, 7.0 * radius, rtol=0.05)
    assert same.model.spread < 0.06
    scales = np.exp(0.4 * random.normal(size=(FRAMES, 1, 1)))
    (varying,) = factorize(scales * posed[..., :2], mask, (2,))
    np.testing.assert_allclose(varying.model.spread, 0.4, rtol=0.3)


class TestPredictHidden:
    def test_the_true_model_predicts_best(self):
        _, posed = scene(bases=2, noise=0.01)
        mask = np.ones(posed.shape[:2], bool)
        points = posed[..., :2]
        rigid, right = (factorize(points[:100], mask[:100], (k,))[0] for k in (0, 2))
        models = [rigid.model, right.model]
        errors, shapes = predict_hidden(models, points[100:], mask[100:])
        assert errors[1] < 0.5 * errors[0]
        assert shapes.shape == (2, 50, POINTS, 3)

    def test_unseen_values_play_no_part_and_nothing_hidden_is_no_evidence(self):
        _, posed = scene()
        mask = np.zeros(posed.shape[:2], bool)
        mask[:, :4] = True
        points = np.where(mask[..., None], posed[..., :2], np.nan)
        model = factorize(posed[..., :2], np.ones_like(mask), iterations=2)[0].model
        errors, shapes = predict_hidden([model], points, mask)
        assert np.isfinite(shapes).all()
        full = predict_hidden([model], posed[..., :2], mask)
        np.testing.assert_array_equal(errors, full[0])


def test_likelihood_is_that_of_the_dense_gaussian():
    """Against the covariance A A^T + diag(noise) written out, at the same cameras."""
    random = np.random.default_rng(0)
    _, posed = scene(bases=2)
    mask = np.ones((4, POINTS), bool)
    frames, _ = factorization.prepare(posed[:4, :, :2], mask, 4, POINTS)
    shapes = jnp.asarray(random.normal(size=(3, POINTS, 3)), jnp.float32)
    noise = jnp.asarray(random.uniform(0.05, 0.3, POINTS), jnp.float32)
    model = LowRank(shapes, noise, jnp.float32(0.7), jnp.float32(0.2))
    ours = jax.jit(factorization.log_likelihood)(frames, model)
    usual = 0.7 / frames.size
    prior = ScalePrior(usual, 1.0 / jnp.square(0.2 * usual))
    each = (jnp.broadcast_to(x, (4, *x.shape)) for x in (shapes, noise))
    _, pose = fit(*each, frames.tracks, frames.mask, prior, rounds=8)
    values = []
    for f in range(4):
        camera = np.asarray(pose.scale[f] * pose.rotation[f, :2], np.float64)
        w = 1.0 / np.asarray(noise, np.float64)
        centred = lambda x, w=w: (x - np.average(x, axis=0, weights=w)).ravel()
        images = [centred(np.asarray(shape, np.float64) @ camera.T) for shape in shapes]
        residual = centred(np.asarray(frames.tracks[f], np.float64)) - images[0]
        bases = np.stack(images[1:])
        covariance = bases.T @ bases + np.diag(np.repeat(1.0 / w, 2))
        value = residual @ np.linalg.solve(covariance, residual)
        value += np.linalg.slogdet(covariance)[1]
        value += float(prior.weight[f] * (pose.scale[f] - usual[f]) ** 2)
        values.append(-0.5 * value / (2 * POINTS))
    np.testing.assert_allclose(ours, np.mean(values), rtol=2e-3)
