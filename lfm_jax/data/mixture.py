"""Batches of many categories in equal shares, and how they lie in rows of tokens.

A step has exactly `per_category` shapes of every category, in a fixed order: category
0, 1, ..., c-1, and again. Each category goes through its own frames in a new order
every epoch, and small ones go round more often. Because the order is fixed, so is the
packing of keypoints into rows, computed once. Several views of a frame are as many
shapes, one after the other.

Instead of single frames it may be stretches of so many neighbouring frames, `clip`,
which an epoch cuts at other places than the one before. Each part of a clip in a
stretch has a number of its own in the batch, in `Observation.clip`.

Rows in a batch are padded to the largest number of keypoints of a category.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence

import grain
import jax
import numpy as np

from lfm_jax.data.dataset import TrainingData
from lfm_jax.errors import LfmError
from lfm_jax.types import Labelled, Observation, Packing

EMPTY = 0.05  # of the slots


def pack(counts: Sequence[int], row_length: int) -> Packing:
    """Packs shapes of so many keypoints each into rows, first fit decreasing.

    Each shape lies in one piece in one row. The padded batch is [b n] with b shapes and
    n = max(counts).

    Args:
        counts: keypoints of each shape of the batch.
        row_length: tokens in a row, at least max(counts).
    """
    rows, free = [], []
    for shape in sorted(range(len(counts)), key=lambda i: -counts[i]):
        row = next((r for r, f in enumerate(free) if f >= counts[shape]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(row_length)
        rows[row].append(shape)
        free[row] -= counts[shape]
    n = max(counts)
    token = np.full((len(rows), row_length), len(counts) * n, np.int32)
    segment = np.zeros((len(rows), row_length), np.int32)
    for row, shapes in enumerate(rows):
        slots = slice(0, row_length - free[row])
        token[row, slots] = np.concatenate(
            [shape * n + np.arange(counts[shape]) for shape in shapes]
        )
        segment[row, slots] = np.repeat(
            1 + np.arange(len(shapes)), [counts[shape] for shape in shapes]
        )
    return Packing(token, segment)


def densest(counts: Sequence[int]) -> Packing:
    """The packing with the shortest rows that is dense enough, or else the densest.

    Rows are multiples of 8 from the largest shape to twice that. What attention costs
    grows with their length, so few empty slots (`EMPTY`) are no reason for longer ones.
    """
    shortest = 8 * -(-max(counts) // 8)
    lengths = range(shortest, 2 * shortest + 1, 8)
    packings = [pack(counts, length) for length in lengths]
    dense = [p for p in packings if p.token.size * (1.0 - EMPTY) <= sum(counts)]
    return dense[0] if dense else min(packings, key=lambda p: p.token.size)


def training_batches(
    training: TrainingData,
    *,
    per_category: int,
    seed: int,
    clip: int = 1,
    microbatches: int = 1,
    truth: Sequence[Labelled | Observation] | None = None,
    share: tuple[int, int] = (0, 1),
) -> grain.IterDataset:
    """An endless, checkpointable stream of `(records, Packing)` NumPy batches.

    A batch is a pure function of the seed and the step. Its records are an Observation,
    or a Labelled where the truth of the frames is given.

    Args:
        training: the frames.
        per_category: shapes of every category in a batch.
        seed: of the order of the frames, and of nothing else.
        clip: neighbouring frames that stay together.
        microbatches: equal parts of a batch that are computed one after the other; the
            packing is that of a part.
        truth: the same frames with 3D, for tasks that learn from labels.
        share: (i, k) for rows of part i of a batch cut in k; the packing stays whole.

    Raises:
        LfmError: a category of `truth` has no 3D, or the parts are not equal.
    """
    if per_category % (microbatches * clip):
        raise LfmError(
            f"train.per_category is {per_category}, train.microbatches is "
            f"{microbatches} and train.clip is {clip}; make the first a multiple of "
            "the product of the others."
        )
    counts = [len(skeleton.keypoints) for skeleton in training.skeletons]
    stretches, (index, parts) = per_category * len(counts) // clip, share
    if stretches % parts:
        raise LfmError(
            f"A batch of {stretches} clips of {clip} cannot be shared by {parts} "
            f"processes; make train.per_category a multiple of {parts * clip}."
        )
    together = clip * training.views  # rows of a batch
    cuts = [i * stretches // parts * together for i in (index, index + 1)]
    own = slice(*cuts)
    part = np.repeat(counts, together).tolist()
    packing = densest(part * (per_category // microbatches // clip))
    records = training.observations if truth is None else _labelled(training, truth)
    rows, gather = _sampler(training, per_category, clip, seed), _gatherer(records)
    sequence = np.concatenate(training.sequences)

    def batch(step):
        chosen = rows(step)
        number = _number(chosen, sequence[chosen], clip)
        return _in_clips(gather(chosen[own]), number[own]), packing

    return (
        grain.MapDataset.range(sys.maxsize)
        .map(batch)
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8))
    )


def _number(rows, sequence, clip):
    """The clip that each row of a batch is of; no two stretches share a number."""
    new = (np.diff(sequence, prepend=-1) != 0) | (np.diff(rows, prepend=-1) != 1)
    new[::clip] = True
    return np.cumsum(new, dtype=np.int32) - 1


def _in_clips(records, number):
    seen = dataclasses.replace(records.observation, clip=number)
    if isinstance(records, Labelled):
        return dataclasses.replace(records, observation=seen)
    return seen


def frame_of(
    training: TrainingData, per_category: int, seed: int, clip: int = 1
) -> Callable[[int, int], tuple[int, int]]:
    """A function from a step and a place in its batch to a category and its frame.

    Arguments are those of `training_batches`.
    """
    rows = _sampler(training, per_category, clip, seed)
    frames = [len(observation.category) for observation in training.observations]
    starts = np.cumsum(frames) - frames

    def frame(step: int, example: int) -> tuple[int, int]:
        category = example // (clip * training.views) % len(frames)
        return category, int(rows(step)[example] - starts[category]) // training.views

    return frame


def _labelled(training, truth):
    for skeleton, record in zip(training.skeletons, truth, strict=True):
        if not isinstance(record, Labelled):
            raise LfmError(
                f"{skeleton.name} has no 3D, which objective.supervised learns from; "
                "leave it out with data.only."
            )
    return truth


def _sampler(training, per_category, clip, seed):
    """A function from the step to its rows, counted through all categories.

    Grain's own shuffle costs 30 microseconds an element, a tenth of a small training
    step in all; a permutation an epoch costs next to nothing. An epoch of stretches is
    the frames, as a ring, cut into them from a random frame on.
    """
    views = training.views
    lengths = [len(observation.category) for observation in training.observations]
    starts = np.cumsum(lengths) - lengths
    frames = [length // views for length in lengths]
    stretches = [-(-count // clip) for count in frames]

    @functools.lru_cache(maxsize=2 * len(frames))
    def order(category, epoch):
        random = np.random.default_rng([seed, category, epoch])
        first = clip * random.permutation(stretches[category])
        return first + random.integers(frames[category]) if clip > 1 else first

    def first(category, place):
        epoch, i = divmod(place, stretches[category])
        return order(category, epoch)[i]

    def rows(step):
        count = per_category // clip
        places = range(step * count, (step + 1) * count)
        begin = [[first(c, p) for c in range(len(frames))] for p in places]
        inside = np.array(begin)[..., None] + np.arange(clip)
        chosen = starts[:, None] + inside % np.array(frames)[:, None] * views
        return np.add.outer(chosen, np.arange(views)).ravel()

    return rows


def _gatherer(records):
    """A function from rows, counted through all categories, to padded records.

    Keypoints of all frames lie end to end, unpadded, so that a batch is one gather.
    """
    category = np.concatenate([record.observation.category for record in records])
    counts = np.array([record.observation.observed.shape[1] for record in records])
    count = counts[category]
    start = np.cumsum(count) - count
    keypoint = np.arange(max(counts))
    by_frame = jax.tree.map(lambda leaf: leaf.ndim == 1, records[0])

    def join(whole, *leaves):
        ends = [x if whole else np.asarray(x).reshape(-1, *x.shape[2:]) for x in leaves]
        return np.concatenate(ends)

    values = jax.tree.map(join, by_frame, *records)

    def gather(rows):
        real = keypoint < count[rows, None]
        token = np.where(real, start[rows, None] + keypoint, 0)

        def take(whole, array):
            if whole:
                return array[rows]
            there = real.reshape(real.shape + (1,) * (array.ndim - 1))
            return np.where(there, array[token], array.dtype.type(0))

        return jax.tree.map(take, by_frame, values)

    return gather
