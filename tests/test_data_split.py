"""The four rules of the split."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm_jax.data.split import split_rows, too_few


def parts(split):
    return split.train, split.validation, split.test


def clips_of(*lengths):
    return np.repeat(np.arange(len(lengths)), lengths)


@st.composite
def categories(draw):
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=40))
    if sum(lengths) < 50:
        lengths.append(50)
    sequence = clips_of(*lengths)
    kind = draw(st.sampled_from(["clips", "frames", "specimens"]))
    if kind == "frames":
        return np.arange(len(sequence)), None
    if kind == "specimens":
        some = draw(st.integers(1, 20))
        return sequence, np.random.default_rng(some).integers(0, some, len(sequence))
    return sequence, None


@settings(max_examples=200, deadline=None)
@given(categories())
def test_parts_are_apart_and_hold_their_shares(category):
    sequence, specimen = category
    split = split_rows("cat", sequence, specimen)
    rows = np.concatenate(parts(split))
    frames = len(sequence)
    assert len(np.unique(rows)) == len(rows) and rows.max() < frames
    assert all(len(part) and (np.diff(part) > 0).all() for part in parts(split))
    assert len(split.test) >= 0.2 * frames
    assert len(split.validation) >= 0.1 * frames
    if split.rule != "time":
        assert len(rows) == frames


@settings(max_examples=200, deadline=None)
@given(categories())
def test_groups_stay_whole(category):
    sequence, specimen = category
    split = split_rows("cat", sequence, specimen)
    ids = {"specimen": specimen, "clip": sequence, "frame": sequence}.get(split.rule)
    if ids is not None:
        held = [set(ids[part].tolist()) for part in parts(split)]
        assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])


def test_clips_are_taken_from_the_end_and_as_few_as_will_do():
    split = split_rows("cat", clips_of(30, 30, 15, 5, 5, 5, 10))
    assert split.rule == "clip"
    # 100 frames: the last 10 + 5 + 5 are 20 %, the 5 and 15 before them pass 10 %
    np.testing.assert_array_equal(split.test, np.arange(80, 100))
    np.testing.assert_array_equal(split.validation, np.arange(60, 80))
    np.testing.assert_array_equal(split.train, np.arange(60))


def hash_order(category, ids):
    return sorted(
        ids, key=lambda i: hashlib.sha256(f"{category}/{i}".encode()).hexdigest()
    )


def test_frames_of_their_own_are_split_in_hash_order():
    sequence = np.arange(100) + 1000
    split = split_rows("skull", sequence)
    assert split.rule == "frame"
    expected = hash_order("skull", sequence.tolist())
    assert set(sequence[split.test]) == set(expected[80:])
    assert set(sequence[split.validation]) == set(expected[70:80])
    other = split_rows("jaw", sequence)
    assert set(other.test) != set(split.test)


def test_the_place_in_the_file_does_not_matter_to_hash_order():
    order = np.random.default_rng(0).permutation(100)
    a, b = split_rows("cat", np.arange(100)), split_rows("cat", order)
    assert set(a.test) == set(order[b.test])


@pytest.mark.parametrize("kind", [str, int])
def test_specimens_come_first_and_in_hash_order(kind):
    specimen = np.repeat(np.arange(20), 5).astype(kind)
    split = split_rows("cat", np.arange(100), specimen)
    assert split.rule == "specimen"
    expected = hash_order("cat", np.unique(specimen).tolist())
    assert set(specimen[split.test].tolist()) == set(expected[16:])
    assert set(specimen[split.validation].tolist()) == set(expected[14:16])


def test_few_clips_are_split_in_time_with_gaps():
    split = split_rows("cat", clips_of(500, 500))
    assert split.rule == "time"
    np.testing.assert_array_equal(split.test, np.arange(800, 1000))
    np.testing.assert_array_equal(split.validation, np.arange(680, 780))
    np.testing.assert_array_equal(split.train, np.arange(660))
    short = split_rows("cat", clips_of(50))
    np.testing.assert_array_equal(short.test, np.arange(40, 50))
    np.testing.assert_array_equal(short.validation, np.arange(30, 35))
    np.testing.assert_array_equal(short.train, np.arange(25))


def test_a_rule_that_would_leave_a_part_empty_does_not_apply():
    assert split_rows("cat", clips_of(100, 1, 1, 1, 1)).rule == "time"
    assert split_rows("cat", clips_of(60), np.zeros(60, int)).rule == "time"
    two = np.repeat([0, 1], 50)
    assert split_rows("cat", np.arange(100), two).rule == "frame"


def test_too_few_frames_have_a_reason():
    assert too_few(10) == "10 frames, 50 needed"
    assert too_few(50) == ""
