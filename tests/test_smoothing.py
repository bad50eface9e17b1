"""Smoothing over time: what it takes out, what it leaves, and where it ends."""

import dataclasses

import numpy as np
import pytest
from test_writers import LIFTED

from lfm_jax.errors import LfmError
from lfm_jax.smoothing import smoothed

FPS, CUTOFF = 100.0, 6.0
TIME = np.arange(600) / FPS
INSIDE = slice(100, -100)  # away from both ends


def moving(signal, frames=None):
    """A film in which all coordinates of all points follow the signal."""
    count = len(signal)
    each = {
        field.name: np.repeat(value[:1], count, axis=0)
        for field in dataclasses.fields(LIFTED)
        if isinstance(value := getattr(LIFTED, field.name), np.ndarray)
        and field.name != "edges"
    }
    each["points3d"] = np.broadcast_to(signal[:, None, None], (count, 3, 3))
    each["points3d"] = each["points3d"].astype(np.float32)
    each["frames"] = np.arange(count) if frames is None else frames
    return dataclasses.replace(LIFTED, fps=FPS, labels=("",) * count, **each)


def left(signal, frames=None):
    return smoothed(moving(signal, frames), CUTOFF).points3d[:, 0, 0]


def test_half_of_the_power_is_left_at_the_cutoff_and_nothing_comes_late():
    wave = np.sin(2 * np.pi * CUTOFF * TIME)
    np.testing.assert_allclose(left(wave)[INSIDE], wave[INSIDE] / np.sqrt(2), atol=1e-4)


@pytest.mark.parametrize("hertz, least, most", [(1.0, 0.99, 1.0), (24.0, 0.0, 0.02)])
def test_slow_motion_stays_and_tremor_goes(hertz, least, most):
    wave = np.sin(2 * np.pi * hertz * TIME)
    kept = np.std(left(wave)[INSIDE]) / np.std(wave[INSIDE])
    assert least <= kept <= most


def test_nothing_is_carried_over_frames_that_were_left_out():
    step = np.where(TIME < 3.0, 0.0, 1.0)
    frames = np.arange(600) + 50 * (TIME >= 3.0)
    np.testing.assert_allclose(left(step, frames), step, atol=1e-6)
    assert np.abs(left(step) - step).max() > 0.3  # without the gap it is one stretch


def test_short_stretches_stay_as_they_are():
    tremor = np.random.default_rng(0).normal(size=27)
    frames = np.arange(27) // 9 * 20 + np.arange(27) % 9
    np.testing.assert_array_equal(left(tremor, frames), tremor.astype(np.float32))
    frames = np.arange(27) // 10 * 20 + np.arange(27) % 10
    changed = left(tremor, frames) != tremor.astype(np.float32)
    np.testing.assert_array_equal(changed, np.arange(27) < 20)


def test_it_is_named_and_touches_nothing_else():
    before = moving(np.sin(TIME))
    after = smoothed(before, CUTOFF)
    assert before.smoothing == "" and "6 Hz" in after.smoothing
    for field in dataclasses.fields(before):
        if field.name not in ("points3d", "smoothing"):
            one, other = getattr(before, field.name), getattr(after, field.name)
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, 50.0, np.inf, np.nan])
def test_a_cutoff_that_makes_no_sense_is_refused(cutoff):
    with pytest.raises(LfmError, match="below 50 Hz"):
        smoothed(moving(np.sin(TIME)), cutoff)


def test_without_a_frame_rate_there_is_no_hertz():
    still = dataclasses.replace(moving(np.sin(TIME)), fps=float("nan"))
    with pytest.raises(LfmError, match="--fps"):
        smoothed(still, CUTOFF)
