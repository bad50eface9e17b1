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
    params, random = network().init(jax.random.key(0)), np.random.default_rng(1)
    noise = lambda leaf: 0.3 * random.normal(size=leaf.shape).astype(np.float32)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + noise(leaf), params)


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


def test_frames_of_no_clip_stand_alone():
    seen = dataclasses.replace(film(), clip=None)
    assert changed(lift(seen), lift(moved(seen, 2))) == [2]
    assert changed(lift(film()), lift(seen)) == [*range(1, FRAMES)]


def test_frames_in_which_nothing_is_seen_change_no_other():
    """A film that begins with them is one that begins after them."""
    seen, later = film(), film(clip=(0,) * 4 + (1,) * 5)
    blank = dataclasses.replace(seen, observed=seen.observed.at[:4].set(False))
    np.testing.assert_allclose(lift(blank)[4:], lift(later)[4:], atol=1e-4)
    assert changed(lift(seen), lift(later)) == [4, 5, 6, 7]


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
    # operation by operation: compiled as wholes the two may be rounded differently
    begun, alone = network().apply(params, film()), frame_wise.apply(params, film())
    np.testing.assert_array_equal(begun, alone)


_stream = jax.jit(
    lambda model, *inputs: model.apply(*inputs, method="stream"), static_argnums=0
)


def test_any_number_of_frames_may_come_at_once():
    seen, past, shapes = film(), network().past(COUNT), []
    for start in range(0, FRAMES, 3):
        frames = part(seen, slice(start, start + 3))
        shape, past = _stream(network(), weights(), frames, past)
        shapes.append(shape)
    np.testing.assert_allclose(np.concatenate(shapes), lift(seen), atol=1e-4)


def predict(seen, chunk=32):
    signs = -np.ones(1, np.float32)
    made = lifting.make_predict(network(), weights(), signs, (STRAIGHT,), chunk)
    return made(seen)


def test_a_film_that_comes_frame_by_frame_is_lifted_as_the_whole():
    seen = film()
    whole, past = predict(seen), lifting.init_stream(network(), COUNT)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(past))
    for i in range(FRAMES):
        frame, sign = part(seen, slice(i, i + 1)), -jnp.ones(1)
        now, past = lifting.stream(network(), weights(), past, frame, sign)
        for name in ("canonical", "lifted"):
            np.testing.assert_allclose(
                getattr(now, name)[0], getattr(whole, name)[i], atol=1e-4
            )
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(past)) == size


def test_lifting_in_chunks_gives_what_one_call_gives():
    seen = film(clip=(0,) * 14 + (1,) * 9)
    one, many = predict(seen), predict(seen, chunk=8)
    np.testing.assert_allclose(one.lifted, many.lifted, atol=1e-4)


def test_what_lifts_every_frame_by_itself_has_no_stream():
    frame_wise = models.build(dataclasses.replace(CONFIG, name="lfm3d"), (STRAIGHT,))
    with pytest.raises(LfmError, match="every frame by itself"):
        lifting.init_stream(frame_wise, COUNT)
