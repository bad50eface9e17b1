"""Training that begins at the weights of another run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import models
from lfm_jax.checkpoint import Weights, write_weights
from lfm_jax.config import ModelConfig, OptimConfig
from lfm_jax.errors import LfmError
from lfm_jax.skeleton_io import write_skeletons
from lfm_jax.train.optim import make_optimizer
from lfm_jax.train.step import init_state
from lfm_jax.train.transfer import begin_at
from lfm_jax.types import Skeleton
from lfm_jax.workdir import SKELETONS


def skeletons(*names):
    return tuple(Skeleton(name, ("a", "b", "c", "d"), ()) for name in names)


def fresh(known, seed, width=16):
    config = ModelConfig(width=width, layers=1, heads=2, bases="")
    model = models.build(config, known)
    optimizer = make_optimizer(OptimConfig(), 10)
    return init_state(model, optimizer, jax.random.key(seed), len(known))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run that has ended, of a dog and a cat; and its weights."""
    folder = tmp_path_factory.mktemp("other")
    known = skeletons("dog", "cat")
    params = fresh(known, 1).params
    write_weights(folder / "checkpoints", Weights(7, params, np.ones(2, np.float32)))
    write_skeletons(folder / SKELETONS, known, (False, False))
    return folder, params


def test_weights_are_theirs_and_categories_go_by_name(other):
    folder, theirs = other
    known = skeletons("cat", "mouse", "dog")
    begun = begin_at(str(folder), known)(lambda: fresh(known, 2))()
    rows = theirs["category"]["embedding"]
    wanted = jnp.stack([rows[1], jnp.mean(rows, axis=0), rows[0]])
    np.testing.assert_allclose(begun.params["category"]["embedding"], wanted, rtol=1e-6)
    for name in set(theirs) - {"category"}:
        jax.tree.map(np.testing.assert_array_equal, begun.params[name], theirs[name])
    jax.tree.map(np.testing.assert_array_equal, begun.params, begun.averaged)
    # and nothing else
    new = fresh(known, 2)
    jax.tree.map(np.testing.assert_array_equal, begun.opt_state, new.opt_state)
    assert int(begun.step) == 0 and (np.asarray(begun.depth_sign) == 0.0).all()


def test_a_step_may_take_the_memory_of_the_weights(other):
    folder, _ = other
    known = skeletons("dog")
    begin = begin_at(str(folder), known)(lambda: fresh(known, 2))
    for state in (begin(), begin()):
        jax.tree.map(lambda leaf: leaf.delete(), state.params)
        assert np.isfinite(np.asarray(jax.tree.leaves(state.averaged)[0])).all()


def test_without_a_name_it_begins_as_ever():
    init = lambda: fresh(skeletons("dog"), 2)
    assert begin_at("", skeletons("dog"))(init) is init


def test_weights_of_another_size_are_refused(other):
    folder, _ = other
    known = skeletons("dog")
    begin = begin_at(str(folder), known)(lambda: fresh(known, 2, width=32))
    with pytest.raises(LfmError, match="another network"):
        begin()


def test_weights_that_are_not_there_are_missed_at_once():
    with pytest.raises(LfmError, match="did you mean 'lfm2d-small'"):
        begin_at("lfm2d-smal", ())
