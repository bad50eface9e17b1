"""Packing, and the stream of batches."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm_jax.data.dataset import TrainingData
from lfm_jax.data.mixture import EMPTY, densest, pack, training_batches
from lfm_jax.errors import LfmError
from lfm_jax.types import Labelled, Observation, Skeleton

COUNTS, FRAMES = (4, 9, 6), (5, 40, 13)


def training():
    """Frames whose coordinates say which category, frame and keypoint they are."""
    skeletons, observations, sequences = [], [], []
    for c, (n, f) in enumerate(zip(COUNTS, FRAMES, strict=True)):
        names = tuple(f"k{i}" for i in range(n))
        frame, keypoint = np.meshgrid(np.arange(f), np.arange(n), indexing="ij")
        points2d = np.stack([1 + frame, 1 + keypoint], axis=-1).astype(np.float32)
        observed = (frame + keypoint) % 5 < 4
        category = np.full(f, c, np.int32)
        observations.append(Observation(points2d, observed, frame % 2 == 0, category))
        skeletons.append(Skeleton(f"c{c}", names))
        sequences.append(np.zeros(f, np.int32))
    return TrainingData(tuple(skeletons), tuple(observations), tuple(sequences))


def take(steps, **options):
    stream = iter(
        training_batches(training(), **{"per_category": 2, "seed": 0} | options)
    )
    return [next(stream) for _ in range(steps)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(40, 90))
def test_every_keypoint_has_one_slot_and_shapes_stay_whole(counts, row_length):
    packing = pack(counts, row_length)
    n, empty = max(counts), len(counts) * max(counts)
    filled = packing.segment > 0
    assert packing.token.shape[1] == row_length
    np.testing.assert_array_equal(packing.token == empty, ~filled)
    wanted = [i * n + j for i, count in enumerate(counts) for j in range(count)]
    assert sorted(packing.token[filled].tolist()) == wanted
    for token, segment in zip(packing.token, packing.segment, strict=True):
        shape = token[segment > 0] // n
        # one segment is one shape, and one shape one segment, in one piece
        pairs = set(zip(shape.tolist(), segment[segment > 0].tolist(), strict=True))
        assert len(pairs) == len(set(shape.tolist())) == segment.max()
        assert (np.diff(segment[segment > 0]) >= 0).all()
        assert (segment[: np.sum(segment > 0)] > 0).all()  # empty slots last
    whole = [
        len(set(np.nonzero(packing.token // n == i)[0])) for i in range(len(counts))
    ]
    assert max(whole) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_the_densest_packing_is_never_worse_than_a_row_per_shape(counts):
    packing = densest(counts)
    assert packing.token.shape[1] >= max(counts)
    assert packing.token.size <= len(counts) * 8 * -(-max(counts) // 8)


def test_many_shapes_are_packed_densely():
    counts = np.random.default_rng(0).integers(4, 92, 34).tolist() * 3
    assert (densest(counts).segment > 0).mean() > 0.92


def test_rows_are_as_short_as_is_dense_enough():
    """Attention costs the square of their length."""
    counts = np.random.default_rng(0).integers(4, 92, 34).tolist() * 3
    length = densest(counts).token.shape[1]
    for shorter in range(8 * -(-max(counts) // 8), length, 8):
        assert (pack(counts, shorter).segment > 0).mean() < 1.0 - EMPTY
    # two of three to a row of 16: shorter rows would be a third empty
    assert densest([8, 8, 8, 8]).token.shape == (4, 8)
    assert densest([9, 7, 9, 7]).token.shape == (2, 16)


def test_batches_are_padded_frames_of_their_category():
    data = training()
    for batch, _ in take(20):
        assert batch.points2d.shape == (6, 9, 2) and batch.points2d.dtype == np.float32
        for i, c in enumerate(batch.category):
            frame, n = int(batch.points2d[i, 0, 0]) - 1, COUNTS[c]
            source = data.observations[c]
            for field in ("points2d", "observed", "annotated"):
                padded = getattr(batch, field)[i]
                np.testing.assert_array_equal(padded[:n], getattr(source, field)[frame])
                assert not padded[n:].any()


def test_every_step_has_every_category_equally_often_in_one_order():
    for batch, _ in take(20, per_category=3):
        np.testing.assert_array_equal(batch.category, np.tile(np.arange(3), 3))


def test_packing_is_constant_and_fits_the_batch():
    batches = take(5)
    for batch, packing in batches:
        np.testing.assert_array_equal(packing.token, batches[0][1].token)
        counts = np.array(COUNTS)[batch.category]
        assert (packing.segment > 0).sum() == counts.sum()
        shape, keypoint = np.divmod(packing.token[packing.segment > 0], 9)
        assert (keypoint < counts[shape]).all()


def test_an_epoch_shows_each_frame_once_in_a_new_order():
    seen = {c: [] for c in range(3)}
    for batch, _ in take(60):
        for c, frame in zip(batch.category, batch.points2d[:, 0, 0], strict=True):
            seen[int(c)].append(int(frame))
    for c, frames in enumerate(FRAMES):
        epochs = [seen[c][i : i + frames] for i in range(0, 120 - frames + 1, frames)]
        assert all(sorted(e) == list(range(1, frames + 1)) for e in epochs)
        assert epochs[0] != epochs[1]


def test_more_shapes_in_a_step_than_frames():
    (batch, _), *_ = take(1, per_category=20)
    small = batch.points2d[batch.category == 0, 0, 0]
    np.testing.assert_array_equal(np.bincount(small.astype(int))[1:], 4)


def same(a, b):
    return all(
        np.array_equal(getattr(a, field), getattr(b, field))
        for field in ("points2d", "observed", "annotated", "category")
    )


def test_the_seed_decides_the_order_and_nothing_else():
    a, b, other = take(5), take(5), take(5, seed=1)
    assert all(same(x[0], y[0]) for x, y in zip(a, b, strict=True))
    assert not all(same(x[0], y[0]) for x, y in zip(a, other, strict=True))


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_restored_stream_goes_on_where_it_was(steps):
    whole = take(steps + 3)
    stream = iter(training_batches(training(), per_category=2, seed=0))
    for _ in range(steps):
        next(stream)
    state = stream.get_state()
    next(stream)
    resumed = iter(training_batches(training(), per_category=2, seed=0))
    resumed.set_state(state)
    for batch, _ in whole[steps:]:
        assert same(next(resumed)[0], batch)


def test_labels_are_those_of_the_frames():
    """In camera coordinates the xy of the truth is the observation's."""
    data = training()
    truth = [
        Labelled(
            seen,
            np.concatenate([seen.points2d, seen.points2d[..., :1]], axis=-1),
            seen.observed,
        )
        for seen in data.observations
    ]
    batch, _ = next(iter(training_batches(data, per_category=2, seed=3, truth=truth)))
    plain, _ = next(iter(training_batches(data, per_category=2, seed=3)))
    np.testing.assert_array_equal(batch.points3d[..., :2], plain.points2d)
    np.testing.assert_array_equal(batch.evaluated, plain.observed)
    for one, other in zip(
        jax.tree.leaves(batch.observation), jax.tree.leaves(plain), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_learning_from_labels_needs_them_everywhere():
    data = training()
    with pytest.raises(LfmError, match="has no 3D"):
        training_batches(data, per_category=1, seed=0, truth=data.observations)
