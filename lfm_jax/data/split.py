"""Which frames are for training, validation and test: deterministic, by four rules.

The first rule that applies decides. It applies if its condition holds and it leaves
none of the three parts empty.

1. `specimen`: individuals are known. Whole individuals, in hash order.
2. `frame`: every frame is a clip of its own. Frames, in hash order.
3. `clip`: at least five clips. Whole clips, in the order of the file.
4. `time`: else. Frames in the order of the file, with a gap at each border, because
   neighbouring frames of a clip are nearly the same shape.

In rules 1 to 3 the fewest last groups that hold 20 % of the frames are the test part
and the fewest before them that hold 10 % the validation part. Hash order is the order
of the SHA-256 of "category/id", where id is the specimen or the clip number: it depends
on nothing but those two, so the split is the same everywhere and for ever.
"""

import dataclasses
import hashlib
import math

import numpy as np
from jaxtyping import Int, Shaped

MIN_FRAMES = 50
MIN_CLIPS = 5
TEST_PERCENT = 20
VALIDATION_PERCENT = 10
GAP_FRAMES = 5
GAP_PERCENT = 2


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows of the archive, ascending, and the rule that chose them."""

    rule: str
    train: Int[np.ndarray, "f_train"]
    validation: Int[np.ndarray, "f_validation"]
    test: Int[np.ndarray, "f_test"]


def too_few(frames: int) -> str:
    """Why so many frames are not enough to train on; empty if they are."""
    return "" if frames >= MIN_FRAMES else f"{frames} frames, {MIN_FRAMES} needed"


def all_rows(frames: int) -> Split:
    """Every row in every part: transductive."""
    rows = np.arange(frames)
    return Split("all", rows, rows, rows)


def split_rows(
    category: str,
    sequence: Int[np.ndarray, "f"],
    specimen: Shaped[np.ndarray, "f"] | None = None,
) -> Split:
    """Splits the frames of one category; at least `MIN_FRAMES` of them.

    Args:
        category: its name, which is part of the hash.
        sequence: clip of each frame.
        specimen: individual of each frame, where known.
    """
    clips = _groups(sequence)
    grouped = {}
    if specimen is not None:
        grouped["specimen"] = _in_hash_order(category, specimen)
    if len(clips) == len(sequence):
        grouped["frame"] = _in_hash_order(category, sequence)
    elif len(clips) >= MIN_CLIPS:
        grouped["clip"] = clips
    for rule, groups in grouped.items():
        parts = _last_groups(groups, len(sequence))
        if all(len(rows) for rows in parts):
            return Split(rule, *parts)
    return Split("time", *_last_frames(len(sequence)))


def _groups(ids):
    """Rows of each id, in the order in which ids first appear."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    by_id = np.split(
        np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1]
    )
    return [by_id[i] for i in np.argsort(first)]


def _in_hash_order(category, ids):
    groups = _groups(ids)
    digests = [
        hashlib.sha256(f"{category}/{ids[rows[0]]}".encode()).digest()
        for rows in groups
    ]
    return [groups[i] for i in sorted(range(len(groups)), key=digests.__getitem__)]


def _last_groups(groups, frames):
    """Train, validation and test rows by whole groups, taken from the end."""
    held = np.cumsum([len(rows) for rows in groups][::-1])
    test = 1 + int(np.searchsorted(held, _share(TEST_PERCENT, frames)))
    wanted = held[test - 1] + _share(VALIDATION_PERCENT, frames)
    validation = 1 + int(np.searchsorted(held, wanted))
    first, second = max(len(groups) - validation, 0), len(groups) - test
    parts = groups[:first], groups[first:second], groups[second:]
    return tuple(np.sort(np.concatenate([[], *part])).astype(int) for part in parts)


def _last_frames(frames):
    """Train, validation and test rows in the order of time, gaps between them."""
    gap = max(GAP_FRAMES, _share(GAP_PERCENT, frames))
    test = frames - _share(TEST_PERCENT, frames)
    validation = test - gap - _share(VALIDATION_PERCENT, frames)
    rows = np.arange(frames)
    return rows[: validation - gap], rows[validation : test - gap], rows[test:]


def _share(percent, frames):
    return math.ceil(percent * frames / 100)
