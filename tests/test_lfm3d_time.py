"""Laws of 3D-LFM-Time: who is looked at in time, and frames that come one by one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import lifting, models
from lfm_jax.config import ModelConfig
from lfm_jax.data.mixture import pack
from lfm_jax.errors import LfmError
from lfm_jax.types import Observation, Skeleton

COUNT, FRAMES, WINDOW, LAYERS = 6, 9, 2, 2
CONFIG = ModelConfig(
    name="lfm3d_time", width=16, layers=LAYERS, heads=2, bases="", window=WINDOW
)
ORDER = np.random.default_rng(3).permutation(COUNT)


def chain(*order):
    """Keypoints joined in this order."""
    edges = tuple(zip(order[:-1], order[1:], strict=True))
    return Skeleton("chain", tuple(f"k{i}" for i in range(COUNT)), edges)


STRAIGHT = chain(*range(COUNT))


def film(clip=(0,) * FRAMES, seed=0):
    random = np.random.default_rng(seed)
    observed = random.random((len(clip), COUNT)) < 0.8
    observed[:, :4] = True
    return Observation(
        jnp.asarray(random.normal(size=(len(clip), COUNT, 2)), jnp.float32),
        jnp.asarray(observed),
        jnp.asarray(observed),
        jnp.zeros(len(clip), jnp.int32),
        None if clip is None else jnp.asarray(clip, jnp.int32),
    )


@functools.cache
def network(skeleton=STRAIGHT):
    return models.build(CONFIG, (skeleton,))


@functools.cache
def weights():
    """Random ones: what begins at zero does something too."""
    params = network().init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, noise)


_apply = jax.jit(lambda model, *inputs: model.apply(*inputs), static_argnums=0)


def lift(seen, skeleton=STRAIGHT, packing=None):
    return np.asarray(_apply(network(skeleton), weights(), seen, packing))


def moved(seen, frame):
    return dataclasses.replace(seen, points2d=seen.points2d.at[frame, 0].add(1.0))


def changed(one, other):
    """Which frames are not the same."""
    return np.flatnonzero(np.abs(one - other).max(axis=(1, 2)) > 1e-5).tolist()


def part(seen, rows):
    return jax.tree.map(lambda leaf: leaf[rows], seen)


def test_a_frame_reaches_a_window_further_with_every_layer_and_never_back():
    before = lift(film())
    reach = LAYERS * WINDOW
    assert network().context == reach
    for frame in (0, 3, FRAMES - 1):
        after = range(frame, min(frame + reach + 1, FRAMES))
        assert changed(before, lift(moved(film(), frame))) == [*after]


def test_clips_know_nothing_of_one_another():
    seen = film(clip=(0, 0, 0, 0, 1, 1, 1, 0, 0))
    assert changed(lift(seen), lift(moved(seen, 2))) == [2, 3]
    assert changed(lift(seen), lift(moved(seen, 4))) == [4, 5, 6]
    alone = [lift(part(seen, rows)) for rows in np.split(np.arange(FRAMES), [4, 7])]
    np.testing.assert_allclose(lift(seen), np.concatenate(alone), atol=1e-4)


def test_frames_of_no_clip_stand_alone():
    seen = dataclasses.replace(film(), clip=None)
    assert changed(lift(seen), lift(moved(seen, 2))) == [2]
    assert changed(lift(film()), lift(seen)) == [*range(1, FRAMES)]


def test_a_frame_in_which_nothing_is_seen_changes_no_other():
    seen = film()
    blank = dataclasses.replace(seen, observed=seen.observed.at[3].set(False))
    other = moved(blank, 3)
    assert changed(lift(blank), lift(other)) == []
    assert changed(lift(seen), lift(blank)) == [3, 4, 5, 6, 7]


def test_it_commutes_with_permutations_of_points_and_skeleton():
    swap = lambda leaf: leaf[:, ORDER] if leaf.ndim > 1 else leaf
    one = lift(film())
    two = lift(jax.tree.map(swap, film()), chain(*np.argsort(ORDER)))
    np.testing.assert_allclose(one[:, ORDER], two, atol=1e-4)


def test_packed_rows_are_lifted_as_padded_ones():
    packing = pack([COUNT] * FRAMES, 2 * COUNT + 3)
    np.testing.assert_allclose(lift(film()), lift(film(), packing=packing), atol=1e-4)


def test_it_begins_as_3d_lfm():
    frame_wise = models.build(dataclasses.replace(CONFIG, name="lfm3d"), (STRAIGHT,))
    params = network().init(jax.random.key(0))
    begun = _apply(network(), params, film(), None)
    np.testing.assert_array_equal(begun, _apply(frame_wise, params, film(), None))


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_stream_gives_what_the_whole_film_gives(at_once):
    seen, signs = film(), -np.ones(1, np.float32)
    model, params = network(), weights()
    whole = lifting.make_predict(model, params, signs, (STRAIGHT,))(seen)
    past = lifting.init_stream(model, COUNT)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(past))
    for start in range(0, FRAMES, at_once):
        rows = slice(start, start + at_once)
        frames = part(seen, rows)
        sign = jnp.full(len(frames.category), -1.0)
        now, past = lifting.stream(model, params, past, frames, sign)
        for name in ("canonical", "lifted"):
            streamed, at_rest = getattr(now, name), getattr(whole, name)[rows]
            np.testing.assert_allclose(streamed, at_rest, atol=1e-4)
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(past)) == size


def test_lifting_in_chunks_gives_what_one_call_gives():
    seen = film(clip=(0,) * 14 + (1,) * 9)
    predict = functools.partial(
        lifting.make_predict, network(), weights(), np.ones(1, np.float32), (STRAIGHT,)
    )
    one, many = predict(chunk=32)(seen), predict(chunk=8)(seen)
    np.testing.assert_allclose(one.lifted, many.lifted, atol=1e-4)


def test_what_lifts_every_frame_by_itself_has_no_stream():
    frame_wise = models.build(dataclasses.replace(CONFIG, name="lfm3d"), (STRAIGHT,))
    with pytest.raises(LfmError, match="every frame by itself"):
        lifting.init_stream(frame_wise, COUNT)
