"""Laws of 3D-LFM: no keypoint and no category has a name, only a place in a graph."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import models
from lfm_jax.config import ModelConfig
from lfm_jax.data.mixture import pack
from lfm_jax.errors import LfmError
from lfm_jax.models.lfm3d import ATTENTION, ENCODINGS
from lfm_jax.types import Observation, Skeleton

COUNT = 8
ORDER = np.random.default_rng(3).permutation(COUNT)
SMALL = ModelConfig(name="lfm3d", width=16, layers=2, heads=2, bases="")


def chain(*order, name="chain"):
    """Keypoints joined in this order."""
    return Skeleton(
        name,
        tuple(f"k{i}" for i in range(COUNT)),
        tuple(zip(order[:-1], order[1:], strict=True)),
    )


STRAIGHT, BARE = chain(*range(COUNT)), chain(name="bare")


def observation(seed=0, hidden=()):
    random = np.random.default_rng(seed)
    observed = ~np.isin(np.arange(COUNT), hidden)
    return Observation(
        jnp.asarray(random.normal(size=(2, COUNT, 2)), jnp.float32),
        jnp.broadcast_to(observed, (2, COUNT)),
        jnp.ones((2, COUNT), bool),
        jnp.zeros(2, jnp.int32),
    )


@functools.cache
def weights(config):
    """Random, for any skeleton."""
    params = models.build(config, (STRAIGHT,)).init(jax.random.key(0))
    # what hidden points start from is otherwise next to nothing
    hidden = jax.random.normal(jax.random.key(1), params["hidden"].shape)
    return params | {"hidden": hidden}


def lift(seen, *skeletons, packing=None, **changes):
    config = dataclasses.replace(SMALL, **changes)
    model = models.build(config, skeletons or (STRAIGHT,))
    return np.asarray(model.apply(weights(config), seen, packing))


def permuted(seen):
    swap = lambda x: x[:, ORDER] if x.ndim > 1 else x
    return jax.tree.map(swap, seen)


def moved(seen, keypoint):
    points = seen.points2d.at[:, keypoint].add(1.0)
    return dataclasses.replace(seen, points2d=points)


def changed(one, other):
    """Which keypoints moved, but for the shift that centring makes of all."""
    shift = (one - other)[:, -1:]  # the last is far from all that is moved here
    return (np.abs(one - other - shift).max(axis=(0, 2)) > 1e-4).nonzero()[0].tolist()


@pytest.mark.parametrize(
    ("attention", "encoding"),
    [*((kind, "rff") for kind in ATTENTION), ("hybrid", "learned")],
)
def test_it_commutes_with_permutations_of_points_and_skeleton(attention, encoding):
    seen = observation(hidden=(2,))
    place = np.argsort(ORDER)
    for skeleton, other in ((STRAIGHT, chain(*place)), (BARE, BARE)):
        one = lift(seen, skeleton, attention=attention, encoding=encoding)
        two = lift(permuted(seen), other, attention=attention, encoding=encoding)
        np.testing.assert_allclose(one[:, ORDER], two, atol=1e-5)
        assert np.abs(one - two).max() > 1e-2


@pytest.mark.parametrize("attention", ATTENTION)
def test_the_skeleton_matters_but_to_global_attention(attention):
    one, other = (
        lift(observation(), skeleton, attention=attention)
        for skeleton in (STRAIGHT, chain(*ORDER))
    )
    assert (np.abs(one - other).max() < 1e-6) == (attention == "global")


@pytest.mark.parametrize("rows", ["as they are", "packed"])
def test_local_attention_reaches_one_neighbour_further_with_every_layer(rows):
    packing = pack([COUNT, COUNT], 2 * COUNT) if rows == "packed" else None
    seen = observation(hidden=(1,))  # the skeleton also leads through hidden points
    for layers, reached in ((1, [0, 1]), (2, [0, 1, 2])):
        near = {"attention": "local", "layers": layers, "packing": packing}
        assert changed(lift(seen, **near), lift(moved(seen, 0), **near)) == reached


def test_without_edges_all_are_neighbours():
    pairs = tuple(itertools.combinations(range(COUNT), 2))
    full = dataclasses.replace(BARE, edges=pairs)
    one, other = lift(observation(), BARE), lift(observation(), full)
    np.testing.assert_array_equal(one, other)


def test_the_value_of_a_hidden_point_changes_nothing():
    seen = observation(hidden=(2, 5))
    for keypoint, same in ((2, True), (3, False)):
        other = lift(moved(seen, keypoint))
        assert np.array_equal(lift(seen), other) == same


def test_weights_belong_to_no_category():
    """A category is lifted alike, whichever others the network is built for."""
    seen = observation()
    alone = lift(seen)
    among = dataclasses.replace(seen, category=seen.category + 1)
    np.testing.assert_array_equal(alone, lift(among, BARE, STRAIGHT))


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        ({"name": "lfm3"}, "did you mean 'lfm3d'"),
        ({"encoding": "laplacian"}, " or ".join(ENCODINGS)),
        ({"attention": "nope"}, ", ".join(ATTENTION)),
        ({"bases": "2,5"}, "bases"),
    ],
)
def test_a_setting_that_it_does_not_have_is_an_error(mistake, hint):
    with pytest.raises(LfmError, match=hint):
        models.build(dataclasses.replace(SMALL, **mistake), (STRAIGHT,))
