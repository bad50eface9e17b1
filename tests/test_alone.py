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
NETWORKS = ("lfm2d", "mlp", "deep_nrsfm", "c3dpo", "paul")
KEY = jax.random.key(3)
CONFIG = ModelConfig(width=16, layers=2, heads=2, code=3, bases="")


def build(name, *, alone):
    """The model of both categories, or that of the other by itself; and its task."""
    layers = 2 if name in ("mlp", "deep_nrsfm") else 1  # the fewest there are
    config = dataclasses.replace(CONFIG, name=name, layers=layers, alone=alone)
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


def row(stacked, like):
    """The other's weights, but for those of points it lacks."""
    cut = lambda x, own: x[OTHER][tuple(slice(n) for n in own.shape)]
    return jax.tree.map(cut, stacked, like)


def same(stacked, single):
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4)
    jax.tree.map(close, row(stacked, single), single)


def test_each_network_lifts_as_that_of_a_run_of_its_own():
    (both, _), (single, _) = (build("lfm2d", alone=alone) for alone in (True, False))
    params, seen = both.init(KEY), frames()
    own = row(params, jax.eval_shape(single.init, KEY))
    lifted = jax.jit(both.apply)(params, seen)
    expected = jax.jit(single.apply)(own, of_other(seen))
    mine = lifted[OTHER::2]
    np.testing.assert_allclose(mine[:, : COUNTS[OTHER]], expected, atol=2e-3)
    assert not np.any(mine[:, COUNTS[OTHER] :])


def test_trained_side_by_side_each_is_a_run_of_its_own():
    """Clipping, moments and averages are its own; a step it has to skip too."""
    # so small a norm that it matters whose gradients are clipped together
    tx = make_optimizer(OptimConfig(clip=1e-3, warmup=0.0, learning_rate=1e-2), 100)
    begun, states, found = [], [], []
    for alone in (True, False):
        model, task = build("deep_nrsfm", alone=alone)
        state = jax.jit(lambda m=model, c=1 + alone: init_state(m, tx, KEY, c))()
        begun.append(state.params)
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
    same(*begun)
    same(states[0].averaged, states[1].averaged)
    for both, one in zip(found[:3], found[3:], strict=True):
        mine = both["loss_per_category"][OTHER]
        np.testing.assert_allclose(mine, one["loss"], rtol=1e-4)
        np.testing.assert_array_equal(both["flaw"][OTHER::2], one["flaw"])
    assert [bool(x["finite"]) for x in found] == [True, False, True, True, True, True]


@pytest.mark.parametrize("name", NETWORKS)
def test_it_has_the_parameters_of_all_runs_together(name):
    """Not those of keypoints that a category lacks, which pad its tables."""

    def size(skeletons, alone):
        config = dataclasses.replace(CONFIG, name=name, alone=alone)
        params = jax.eval_shape(models.build(config, skeletons).init, KEY)
        return models.size(params, skeletons, alone=alone)

    own = [size((skeleton,), False) for skeleton in SKELETONS]
    assert size(SKELETONS, True) == sum(own)
    assert max(own) < size(SKELETONS, False) < sum(own)
    assert (own[0] > own[OTHER]) == (name != "lfm2d")  # it has none of keypoints


def test_a_start_is_refused():
    with pytest.raises(LfmError, match="without a start"):
        models.build(ModelConfig(alone=True), SKELETONS)
