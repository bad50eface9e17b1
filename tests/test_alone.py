"""Every category by a network of its own is as many runs of one category each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import models, tasks
from lfm_jax.config import ModelConfig, ObjectiveConfig, OptimConfig
from lfm_jax.errors import LfmError
from lfm_jax.train.optim import make_optimizer
from lfm_jax.train.step import init_state, make_train_step
from lfm_jax.types import Observation, Skeleton

COUNTS, OTHER = (7, 5), 1  # the second category is held against a run of its own
SKELETONS = tuple(
    Skeleton(f"toy_{n}", tuple(f"k{i}" for i in range(n)), ((0, 1),)) for n in COUNTS
)
NETWORKS = ("lfm2d", "lfm3d", "mlp", "deep_nrsfm", "c3dpo", "paul")
KEY = jax.random.key(3)


def build(name, *, alone):
    """The model of both categories, or that of the other by itself; and its task."""
    config = ModelConfig(name, width=16, layers=2, heads=2, code=3, bases="")
    config = dataclasses.replace(config, alone=alone)
    objective = name if name in tasks.FROM_2D else "lfm2d"
    # hidden points are drawn in the shape of the batch, which is wider of both
    task = tasks.build(ObjectiveConfig(name=objective, hide=0.0), name)
    return models.build(config, SKELETONS if alone else SKELETONS[OTHER:]), task


def frames(seed=0):
    """Three of either category in turns, with one point hidden."""
    random = np.random.default_rng(seed)
    category = np.tile(np.arange(2, dtype=np.int32), 3)
    present = np.arange(max(COUNTS)) < np.array(COUNTS)[category, None]
    points = random.normal(size=(*present.shape, 2)).astype(np.float32)
    observed = present.copy()
    observed[OTHER, 2] = False
    points = np.where(present[..., None], points, np.float32(0.0))
    return jax.tree.map(jnp.asarray, Observation(points, observed, present, category))


def of_other(seen):
    """Its frames, as it has them in a run of its own."""
    arrays = seen.points2d, seen.observed, seen.annotated
    mine = (x[OTHER::2, : COUNTS[OTHER]] for x in arrays)
    return Observation(*mine, jnp.zeros(3, jnp.int32))


def same(stacked, single):
    """Whether the other's weights are these, but for those of points it lacks."""
    for mine, theirs in zip(
        jax.tree.leaves(stacked), jax.tree.leaves(single), strict=True
    ):
        cut = mine[OTHER][tuple(slice(n) for n in theirs.shape)]
        np.testing.assert_allclose(cut, theirs, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_is_that_of_a_run_of_its_own(name):
    """The weights that it begins with, what it lifts, and what it loses."""

    with_loss = name in ("deep_nrsfm", "c3dpo", "paul")  # by methods of their own
    (both, task), (single, _) = (build(name, alone=alone) for alone in (True, False))

    def losses(model, params, seen):
        return task.loss(model.apply, params, seen, None, KEY) if with_loss else {}

    @jax.jit
    def together(seen):
        params = both.init(KEY)
        apart = jax.tree.map(lambda x: jnp.stack([x[::2], x[1::2]]), seen)
        apart = dataclasses.replace(apart, category=jnp.zeros((2, 3), jnp.int32))
        found = both.each(losses, (0, 0))(params, apart)
        return params, both.apply(params, seen), found

    @jax.jit
    def by_itself(seen):
        params = single.init(KEY)
        return params, single.apply(params, seen), losses(single, params, seen)

    params, lifted, found = together(frames())
    own, expected, own_found = by_itself(of_other(frames()))
    same(params, own)
    mine = lifted[OTHER::2]
    np.testing.assert_allclose(mine[:, : COUNTS[OTHER]], expected, atol=2e-3)
    assert not np.any(mine[:, COUNTS[OTHER] :])
    for term, loss in found.items():
        np.testing.assert_allclose(loss[OTHER], own_found[term], rtol=2e-3)


def test_trained_side_by_side_each_is_a_run_of_its_own():
    """Clipping, moments and averages are its own; a step it has to skip too."""
    # so small a norm that it matters whose gradients are clipped together
    tx = make_optimizer(OptimConfig(clip=1e-3, warmup=0.0, learning_rate=1e-2), 100)
    states, found = [], []
    for alone in (True, False):
        model, task = build("deep_nrsfm", alone=alone)
        state = jax.jit(lambda m=model, c=1 + alone: init_state(m, tx, KEY, c))()
        step = jax.jit(make_train_step(model, task, tx))
        for seed in range(3):
            seen = frames(seed)
            if seed == 1:  # nothing of the first category can be learned from
                blind = seen.observed.at[::2].set(False)
                seen = dataclasses.replace(seen, observed=blind)
            seen = seen if alone else of_other(seen)
            state, scalars = step(state, (seen, None))
            found.append(scalars)
        states.append(state)
    same(states[0].averaged, states[1].averaged)
    for both, one in zip(found[:3], found[3:], strict=True):
        mine = both["loss_per_category"][OTHER]
        np.testing.assert_allclose(mine, one["loss"], rtol=1e-4)
        np.testing.assert_array_equal(both["flaw"][OTHER::2], one["flaw"])
    assert [bool(x["finite"]) for x in found] == [True, False, True, True, True, True]


def test_a_start_is_refused():
    with pytest.raises(LfmError, match="without a start"):
        models.build(ModelConfig(alone=True), SKELETONS)
