"""What goes wrong in training is left out, counted, and said with its name."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import models, tasks
from lfm_jax.config import ModelConfig, ObjectiveConfig, OptimConfig
from lfm_jax.data.dataset import TrainingData
from lfm_jax.data.mixture import frame_of, training_batches
from lfm_jax.errors import LfmError
from lfm_jax.train import watch
from lfm_jax.train.optim import make_optimizer
from lfm_jax.train.step import flaws, init_state, make_train_step
from lfm_jax.types import Labelled, Observation, Skeleton

NAMES = ("left", "right")


def watch_of(losses_of_steps, flaw=(0, 0), norms=None):
    """A watch that saw these per-category losses; two categories, one example each."""
    place = lambda step, example: (NAMES[example], 10 * step)
    found = watch.Watch(NAMES, lambda step: 1e-3, 1.0, place)
    for step, losses in enumerate(losses_of_steps, 1):
        losses = np.asarray(losses)
        scalars = {
            "loss": losses.mean(),
            "finite": np.isfinite(losses).all(),
            "grad_norm": np.float64(norms[step - 1] if norms else 1.0),
            "flaw": np.asarray(flaw),
            "loss_per_category": losses,
        }
        found.add(step, jax.tree.map(jnp.asarray, scalars))
    return found


FINE, BAD = [1.0, 2.0], [1.0, np.nan]


def test_step_and_category_without_a_gradient_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        assert watch_of([FINE, FINE]).check()["loss"] == 1.5
        assert not caplog.records
        watch_of([FINE, BAD, FINE]).check()
    [record] = caplog.records
    assert "step 2" in record.getMessage() and "right" in record.getMessage()
    assert "left" not in record.getMessage().replace("left out", "")


def test_only_a_lost_run_is_given_up():
    watch_of(([BAD] * (watch.LOST - 1) + [FINE]) * 2).check()
    with pytest.raises(LfmError, match=f"step {watch.LOST}.*right"):
        watch_of([BAD] * watch.LOST).check()


def test_samples_left_out_are_counted_and_named_once_a_check(caplog):
    with caplog.at_level(logging.WARNING):
        assert watch_of([FINE] * 3, flaw=(0, 1)).check()["left_out"] == 3.0
    [record] = caplog.records
    assert "3 samples of right" in record.getMessage()
    assert "frames 0, 10, 20)" in record.getMessage()


@pytest.mark.parametrize("what", ["loss", "grad_norm"])
def test_a_jump_is_said_once_and_slow_change_is_not(what, caplog):
    values = [0.98**i for i in range(40)]
    values[30] *= 2.0 * watch.JUMP
    losses = [[0.1 * v, v] if what == "loss" else FINE for v in values]
    norms = values if what == "grad_norm" else None
    with caplog.at_level(logging.WARNING):
        watch_of(losses, norms=norms).check()
    [record] = caplog.records
    said = record.getMessage()
    assert said.startswith(f"step 31: {what}") and "right" in said
    assert ("clipped" in said) == (what == "grad_norm")


# ----------------------------------------------------------------------------
# The step, on batches with something planted.
# ----------------------------------------------------------------------------

B, N = 8, 7
PLANTED = (2, 5)  # examples


def observation(points2d):
    return Observation(
        jnp.asarray(points2d, jnp.float32),
        jnp.ones(points2d.shape[:2], bool),
        jnp.ones(points2d.shape[:2], bool),
        jnp.arange(B) % 2,
    )


@pytest.fixture(scope="module")
def trained():
    """A step of a small network, a first state, good 2D and the step's own result."""
    skeletons = [Skeleton(name, tuple(map(str, range(N)))) for name in NAMES]
    config = ModelConfig(width=8, layers=1, heads=2, bases="")
    model = models.build(config, skeletons)
    tx = make_optimizer(OptimConfig(warmup=0.0), 10)
    step = make_train_step(model, tasks.lfm2d_task(ObjectiveConfig()), tx)
    state = init_state(model, tx, jax.random.key(0), len(NAMES))
    points = np.random.default_rng(0).normal(size=(B, N, 2))
    return jax.jit(step), state, points


LINE = np.linspace(-1.0, 1.0, N)[:, None] * np.array([3.0, 4.0]) + 50.0
PLANTS = {
    "NaN": (np.nan, 1),
    "infinite": (np.inf, 1),
    "1e30": (-1e30, 1),
    "coincident": (np.full((N, 2), 700.0), 2),
    "collinear": (LINE, 2),
}


def same(one, other):
    """All that an update changes but the step."""
    kept = [(x.params, x.averaged, x.opt_state) for x in (one, other)]
    for a, b in zip(*map(jax.tree.leaves, kept), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", PLANTS)
def test_a_flawed_sample_is_left_out_alone(trained, name):
    """The others are learned from, just as if the flawed had been blank."""
    step, state, points = trained
    value, flaw = PLANTS[name]
    planted = points.copy()
    if flaw == 1:
        planted[PLANTED, 3, 1] = value
    else:
        planted[PLANTED, :] = value
    after, scalars = step(state, (observation(planted), None))
    expected = np.where(np.isin(np.arange(B), PLANTED), flaw, 0)
    np.testing.assert_array_equal(scalars["flaw"], expected)
    assert scalars["finite"] and np.isfinite(scalars["grad_norm"])
    blank = points.copy()
    blank[PLANTED, :] = 0.0
    other, blank_scalars = step(state, (observation(blank), None))
    same(after, other)
    assert scalars["loss"] == blank_scalars["loss"]
    moved = jax.tree.map(lambda a, b: jnp.any(a != b), after.params, state.params)
    assert any(jax.tree.leaves(moved))


def test_a_batch_of_flaws_changes_nothing_but_the_step(trained):
    step, state, points = trained
    after, scalars = step(state, (observation(np.full_like(points, np.nan)), None))
    assert not scalars["finite"] and int(after.step) == 1
    same(after, state)


def test_what_is_flawed_is_told_by_what_is_known_alone():
    """Units, place, hidden points and thin shapes make no flaw; bad 3D does."""
    points = np.random.default_rng(1).normal(size=(B, N, 2))
    for scale in (1e-12, 1.0, 1e12):
        assert not flaws(observation(scale * (points + 30.0))).any()
    points[..., 1] *= 0.01
    seen = observation(points)
    assert not flaws(seen).any()
    broken = seen.points2d.at[0, 0].set(jnp.nan)
    mask = seen.observed.at[0, 0].set(False)
    hidden = dataclasses.replace(seen, points2d=broken, observed=mask, annotated=mask)
    assert not flaws(hidden).any()
    unseen = dataclasses.replace(seen, observed=jnp.zeros((B, N), bool))
    assert flaws(unseen).all() and not flaws(unseen, fused=True).any()
    labelled = Labelled(
        seen, jnp.full((B, N, 3), 1e30), jnp.arange(B * N).reshape(B, N) < 1
    )
    np.testing.assert_array_equal(flaws(labelled), [1] + [0] * (B - 1))


def test_a_place_in_a_batch_is_traced_to_its_frame():
    sizes = (5, 3)
    seen = tuple(
        Observation(
            np.zeros((size, N, 2), np.float32) + np.arange(size)[:, None, None],
            *(np.ones((size, N), bool) for _ in range(2)),
            np.full(size, index, np.int32),
        )
        for index, size in enumerate(sizes)
    )
    skeletons = tuple(Skeleton(name, tuple(map(str, range(N)))) for name in NAMES)
    sequences = tuple(np.zeros(size, np.int32) for size in sizes)
    training = TrainingData(skeletons, seen, sequences)
    place = frame_of(training, 2, seed=4)
    batches = iter(training_batches(training, per_category=2, seed=4))
    for step in range(4):
        records, _ = next(batches)
        for example in range(4):
            category, frame = place(step, example)
            assert category == records.category[example]
            assert frame == records.points2d[example, 0, 0]
