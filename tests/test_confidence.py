"""Laws of what the model knows about its own errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax.geometry.pose import apply_pose, fit_pose
from lfm_jax.tasks import complete
from lfm_jax.train.confidence import (
    WITHIN,
    Trust,
    calibration,
    confidence,
    measure_trust,
    misfit,
)
from lfm_jax.types import Observation, Prediction

FRAMES, COUNT = 300, 7


def seen(random, points2d=None, observed=None) -> Observation:
    if points2d is None:
        points2d = random.normal(size=(FRAMES, COUNT, 2))
    mask = np.ones(points2d.shape[:2], bool) if observed is None else observed
    category = np.zeros(len(points2d), np.int32)
    return Observation(points2d.astype(np.float32), mask, mask, category)


def lifter(lift):
    """A model of nothing but its lifted points; hidden ones are in their places too."""

    def predict(observation):
        lifted = np.asarray(lift(observation), np.float32)
        return Prediction(None, None, lifted, lifted)

    return predict


def errors_of(lift, *observations):
    """Expected errors of each keypoint, seen and hidden, per category."""
    trust = measure_trust(lift, observations)
    return [np.stack([one.seen, one.hidden], axis=1) for one in trust]


def flat(observation):
    return np.pad(observation.points2d, ((0, 0), (0, 0), (0, 1)))


def rigid(shape):
    """Lifts by posing one known shape, as 2D-LFM does its own."""

    def lift(observation):
        points, mask = map(jnp.asarray, (observation.points2d, observation.observed))
        whole = jnp.broadcast_to(shape, (*points.shape[:2], 3))
        posed = apply_pose(fit_pose(whole, points, mask), whole)
        return complete(points, posed, mask)

    return lifter(lift)


def test_what_is_lifted_alike_from_everywhere_has_no_error():
    random = np.random.default_rng(0)
    shape = jnp.asarray(random.normal(size=(COUNT, 3)), jnp.float32)
    axes = np.linalg.qr(random.normal(size=(FRAMES, 3, 3)))[0]
    axes *= np.sign(np.linalg.det(axes))[:, None, None]
    frames = seen(random, np.einsum("fij,nj->fni", axes, shape)[..., :2])
    (errors,) = errors_of(rigid(shape), frames)
    np.testing.assert_allclose(errors, 0.0, atol=5e-3)


def test_a_flat_lift_misses_the_depth_of_every_plane_it_turns():
    random = np.random.default_rng(1)
    points = np.broadcast_to(random.normal(size=(COUNT, 2)), (FRAMES, COUNT, 2))
    (errors,) = errors_of(lifter(flat), seen(random, points))
    centred = points[0] - points[0].mean(axis=0)
    radius = np.sqrt(np.mean(np.sum(centred**2, axis=-1)))
    # a direction on the sphere has a third of its square along any axis
    expected = np.linalg.norm(centred, axis=-1) / np.sqrt(3.0) / radius
    np.testing.assert_allclose(errors[:, 0], expected, atol=0.06)


def test_units_do_not_matter():
    random = np.random.default_rng(2)
    frames = seen(random)
    large = dataclasses.replace(frames, points2d=1000.0 * frames.points2d)
    (one,), (other,) = (errors_of(lifter(flat), o) for o in (frames, large))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_only_points_that_the_first_view_had_are_compared():
    random = np.random.default_rng(3)
    observed = np.ones((FRAMES, COUNT), bool)
    observed[:, 0] = False

    def lift(observation):  # the first keypoint is nonsense whenever it is hidden
        shape = flat(observation)
        shape[:, 0, 2] = np.where(observation.observed[:, 0], 0.0, 1e3)
        return shape

    (errors,) = errors_of(lifter(lift), seen(random, observed=observed))
    assert np.all(errors < 2.0)


def test_seen_and_hidden_are_told_apart():
    random = np.random.default_rng(4)
    shape = jnp.asarray(random.normal(size=(COUNT, 3)), jnp.float32)
    (errors,) = errors_of(rigid(shape), seen(random))
    assert np.all(errors[:, 1] > errors[:, 0])


def test_a_frame_on_one_spot_says_nothing():
    random = np.random.default_rng(5)
    frames = seen(random)
    frames.points2d[0] = 3.0
    (errors,) = errors_of(lifter(flat), frames)
    assert np.all(np.isfinite(errors))


@pytest.mark.parametrize("error", [0.02, 0.1, 0.4])
def test_confidence_is_the_share_of_errors_within_reach(error):
    random = np.random.default_rng(6)
    errors = error / np.sqrt(2.0) * random.standard_t(2, size=100_000)
    share = np.mean(np.abs(errors) <= WITHIN)
    assert confidence(np.array([error])) == pytest.approx(share, abs=0.01)


def test_errors_of_the_assumed_kind_are_calibrated():
    """Two categories; a hidden keypoint errs more than its seen self."""
    random = np.random.default_rng(7)
    trust = [
        Trust(np.array([0.02, 0.2]), np.array([0.1, 0.4]), 1.0),
        Trust(np.array([0.05]), np.array([0.3]), 1.0),
    ]
    errors, frames = [], []
    for one in trust:
        observed = random.random((40_000, len(one.seen))) < 0.5
        expected = np.where(observed, one.seen, one.hidden)
        draws = random.standard_t(2, size=observed.shape) / np.sqrt(2.0)
        errors.append(np.abs(expected * draws))
        frames.append(seen(random, np.zeros((*observed.shape, 2)), observed))
    errors[0][::7] = np.nan
    bins = calibration(trust, lifter(flat), frames, errors)
    assert sum(b["points"] for b in bins) == np.isfinite(np.hstack(errors)).sum()
    assert [b["confidence"] for b in bins] == sorted(b["confidence"] for b in bins)
    for b in bins:
        assert b["share"] == pytest.approx(b["confidence"], abs=0.02)


def test_one_of_a_hundred_known_frames_is_unusual():
    random = np.random.default_rng(8)
    frames = seen(random)
    shift = np.sort(random.random(FRAMES))[:, None, None]
    (one,) = measure_trust(
        lifter(lambda o: flat(o) + shift[: len(o.points2d)]), [frames]
    )
    posed = flat(frames) + shift
    miss = misfit(posed, frames)
    assert np.mean(miss > one.usual) == pytest.approx(0.01, abs=0.005)


def test_the_size_of_a_category_compiles_nothing(caplog):
    """Each program takes memory maps, of which a process has only so many."""
    random = np.random.default_rng(10)

    def sizes(*counts):
        return [seen(random, random.normal(size=(n * n, n, 2))) for n in counts]

    measure_trust(lifter(flat), sizes(6, 16))
    caplog.clear()
    with jax.log_compiles():
        measure_trust(lifter(flat), sizes(7, 11, 13))
    compiled = [r for r in caplog.records if "XLA compilation" in r.getMessage()]
    assert not compiled


def test_without_truth_there_is_nothing_to_calibrate_by():
    frames = seen(np.random.default_rng(9))
    unknown = np.full(frames.observed.shape, np.nan)
    assert calibration([Trust.unknown(COUNT)], lifter(flat), [frames], [unknown]) == []
