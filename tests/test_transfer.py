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
from lfm_jax.types import Observation, Skeleton
from lfm_jax.workdir import SKELETONS


def skeletons(*names):
    return tuple(Skeleton(name, ("a", "b", "c", "d"), ()) for name in names)


def network(known, width=16, name="lfm2d"):
    config = ModelConfig(name=name, width=width, layers=1, heads=2, bases="")
    return models.build(config, known)


def fresh(known, seed, **settings):
    model = network(known, **settings)
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


def test_a_network_of_films_begins_at_one_of_frames_and_lifts_as_it_does(tmp_path):
    """And not the other way round: what it knows of time would be lost."""
    known = skeletons("dog", "cat")
    folders = {name: tmp_path / name for name in ("lfm3d", "lfm3d_time")}
    for name, folder in folders.items():
        params = fresh(known, 1, name=name).params
        signs = np.ones(2, np.float32)
        write_weights(folder / "checkpoints", Weights(7, params, signs))
        write_skeletons(folder / SKELETONS, known, (False, False))
    begin = begin_at(str(folders["lfm3d"]), known)
    begun = begin(lambda: fresh(known, 2, name="lfm3d_time"))()
    points = jax.random.normal(jax.random.key(0), (6, 4, 2))
    seen = jnp.ones((6, 4), bool)
    film = Observation(points, seen, seen, jnp.zeros(6, int), jnp.zeros(6, int))
    weights = {"lfm3d": fresh(known, 1, name="lfm3d").params}
    weights["lfm3d_time"] = begun.params
    shapes = [network(known, name=n).apply(p, film, None) for n, p in weights.items()]
    np.testing.assert_allclose(*shapes, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, begun.params, begun.averaged)
    begin = begin_at(str(folders["lfm3d_time"]), known)
    with pytest.raises(LfmError, match="another network"):
        begin(lambda: fresh(known, 2, name="lfm3d"))()


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
