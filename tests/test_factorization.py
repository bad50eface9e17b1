"""Laws of factorization: exact on exact data, better with bases, blind to padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax.classical import factorization, low_rank
from lfm_jax.classical.factorization import (
    factorize,
    factorize_rigid,
    pose_riddle,
    solve_riddle,
)
from lfm_jax.classical.low_rank import LowRank
from lfm_jax.geometry.deformable import deform, fit_low_rank
from lfm_jax.geometry.pose import apply_pose
from lfm_jax.geometry.procrustes import align_similarity, apply_alignment
from lfm_jax.geometry.rotations import random_rotation

FRAMES, POINTS = 150, 15

# Compiled whole: one by one, each of their operations would be a compilation.
align = jax.jit(functools.partial(align_similarity, reflection=True))
fit = jax.jit(fit_low_rank, static_argnames="steps")


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
        for x in (found.shapes, found.noise)
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


def deformable(points, bases, **options):
    """Fitted to all frames, judged by every third of them."""
    mask = np.ones(points.shape[:2], bool)
    return factorize(points, mask, (points[::3], mask[::3]), bases, **options)


def test_rigid_shape_is_recovered_from_exact_2d():
    mean, posed = scene()
    found = factorize_rigid(posed[..., :2], np.ones(posed.shape[:2], bool))
    assert misfit(found.shapes[0], mean) < 0.01
    np.testing.assert_allclose(found.noise, low_rank.NOISE_FLOOR, rtol=1e-3)


def test_missing_points_are_no_obstacle_and_their_values_play_no_part():
    mean, posed = scene()
    mask = np.random.default_rng(0).random(posed.shape[:2]) < 0.7
    points = np.where(mask[..., None], posed[..., :2], np.nan)
    found = factorize_rigid(points, mask, iterations=200)
    assert misfit(found.shapes[0], mean) < 0.02


def test_units_and_place_do_not_matter():
    _, posed = scene(noise=0.02)
    mask = np.ones(posed.shape[:2], bool)
    one = factorize_rigid(posed[..., :2], mask)
    other = factorize_rigid(300.0 * posed[..., :2] + 50.0, mask)
    assert misfit(one.shapes[0], other.shapes[0]) < 1e-2


def test_padding_to_a_common_width_changes_nothing():
    mean, posed = scene()
    mask = np.ones(posed.shape[:2], bool)
    found = factorize_rigid(posed[..., :2], mask, width=POINTS + 6)
    assert found.shapes.shape == (1, POINTS, 3)
    assert misfit(found.shapes[0], mean) < 0.01


def test_no_more_bases_than_the_points_can_tell():
    _, posed = scene(bases=2)
    found, _ = deformable(posed[:, :5, :2], (2,), iterations=30, width=POINTS)
    assert len(found.shapes) - 1 == 5 // 3


def test_one_search_of_several_numbers_of_bases_lifts_what_a_rigid_shape_cannot():
    _, posed = scene(bases=2, noise=0.01)
    mask = np.ones(posed.shape[:2], bool)
    rigid = factorize_rigid(posed[..., :2], mask)
    models = deformable(posed[..., :2], (2, 4))
    assert [len(model.shapes) for model in models] == [3, 5, 3, 5]
    two = models[0]
    assert depth_error(two, posed) < 0.12
    assert depth_error(two, posed) < 0.4 * depth_error(rigid, posed)


def test_a_keypoint_has_the_noise_that_it_has():
    random = np.random.default_rng(0)
    _, posed = scene(bases=2, noise=0.02)
    posed[:, 3, :2] += 0.3 * random.normal(size=(FRAMES, 2))
    found, _ = deformable(posed[..., :2], (2,))
    others = np.delete(found.noise, 3)
    assert found.noise[3] > 5.0 * others.max()
    assert depth_error(found, posed) < 0.15


def test_scale_and_its_spread_are_found():
    random = np.random.default_rng(0)
    mean, posed = scene(bases=2, noise=0.01)
    radius = np.sqrt((mean**2).sum(-1).mean())
    same, _ = deformable(7.0 * posed[..., :2], (2,))
    np.testing.assert_allclose(same.scale, 7.0 * radius, rtol=0.05)
    assert same.spread < 0.06
    scales = np.exp(0.4 * random.normal(size=(FRAMES, 1, 1)))
    varying, _ = deformable(scales * posed[..., :2], (2,))
    np.testing.assert_allclose(varying.spread, 0.4, rtol=0.3)


def test_a_start_provides_models_if_it_predicts_about_as_well_as_the_best():
    def chosen(*errors):
        return [error for (error,) in factorization._chosen([(e,) for e in errors])]

    assert chosen(2.0, 1.04, np.inf, 1.0, 1.01) == [1.0, 1.01]
    assert chosen(1.0, 1.2, np.inf) == [1.0, 1.0]  # alone it is taken twice
    assert chosen(np.inf, np.inf) == [np.inf, np.inf]  # nothing can be predicted


class TestRiddle:
    def test_the_true_model_predicts_best(self):
        _, posed = scene(bases=2, noise=0.01)
        points = posed[..., :2]
        mask = np.ones(points.shape[:2], bool)
        models = [
            factorize_rigid(points[:100], mask[:100]),
            deformable(points[:100], (2,))[0],
        ]
        unused = [(0, 2), (0, 0), (0, 0)]
        models[0] = dataclasses.replace(
            models[0], shapes=np.pad(models[0].shapes, unused)
        )
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *models)
        riddle = pose_riddle([(points[100:], mask[100:])], POINTS, 1.0)
        errors, depths = solve_riddle(riddle, stacked)
        assert errors[1] < 0.5 * errors[0]
        assert depths.shape == (2, factorization.JUDGED, POINTS)
        assert depths[:, :50].any() and not depths[:, 50:].any()  # padding has none

    def test_hidden_points_are_not_shown(self):
        _, posed = scene()
        mask = np.random.default_rng(0).random(posed.shape[:2]) < 0.95
        riddle = pose_riddle([(posed[..., :2], mask)], POINTS, 1.0)
        shown, hidden = np.asarray(riddle.frames.mask), np.asarray(riddle.hidden)
        assert hidden.any() and not (shown & hidden).any()
        assert (np.asarray(riddle.frames.tracks)[hidden] == 0.0).all()
        np.testing.assert_array_equal((shown | hidden)[: len(mask)], mask)

    def test_with_four_points_those_shown_are_asked_and_others_play_no_part(self):
        _, posed = scene()
        mask = np.zeros(posed.shape[:2], bool)
        mask[:, :4] = True
        points = np.where(mask[..., None], posed[..., :2], np.nan)
        good = factorize_rigid(posed[..., :2], np.ones_like(mask))
        bad = dataclasses.replace(good, shapes=good.shapes[:, ::-1])
        lost = dataclasses.replace(good, shapes=good.shapes * np.nan)
        models = jax.tree.map(lambda *leaves: np.stack(leaves), good, bad, lost)
        errors, depths = solve_riddle(
            pose_riddle([(points, mask)], POINTS, 1.0), models
        )
        assert np.isfinite(depths[:2]).all()
        assert errors[0] < 0.2 * errors[1] and np.isinf(errors[2])


def test_mirrored_models_are_mirrored_back():
    random = np.random.default_rng(0)
    depth = random.normal(size=(5, POINTS))
    one = np.asarray(1.0)
    model = LowRank(random.normal(size=(2, POINTS, 3)), np.ones(POINTS), one, one)
    same, back = factorization._same_sign((model, model), (depth, -depth))
    np.testing.assert_array_equal(same.shapes, model.shapes)
    np.testing.assert_array_equal(back.shapes[..., 2], -model.shapes[..., 2])
    np.testing.assert_array_equal(back.shapes[..., :2], model.shapes[..., :2])
