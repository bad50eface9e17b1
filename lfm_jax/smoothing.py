"""Lifted keypoints without the tremor of single frames, where a user asks for it.

Every frame is lifted by itself, so errors of neighbouring frames differ, and velocities
suffer most. The remedy of biomechanics is a Butterworth low-pass that is run forwards
and backwards, which shifts nothing in time (Winter, Biomechanics and Motor Control of
Human Movement, section 2.2.4).
"""

import dataclasses

import numpy as np
from scipy import signal

from lfm_jax.errors import LfmError
from lfm_jax.serve import Lifted

ORDER = 2  # of each of the two passes
# Two passes would halve the power twice at their cut-off; Winter's factor makes up for
# the second, so that it is halved once at the frequency that was asked for.
TWICE = (np.sqrt(2.0) - 1.0) ** (1.0 / (2 * ORDER))
SHORTEST = 3 * (ORDER + 1) + 1  # frames that the filter can begin and end in


def check_cutoff(cutoff: float, fps: float) -> None:
    """Finds out, before anything is lifted, whether such a cut-off makes sense.

    Raises:
        LfmError: it does not, or the frame rate is not known.
    """
    if not fps > 0:
        raise LfmError(
            "--smooth needs the frames per second, which the input does not give: add "
            "--fps."
        )
    if not 0 < cutoff < 0.5 * fps:
        raise LfmError(
            f"--smooth {cutoff:g} is no cut-off for {fps:g} frames per second: give "
            f"one above 0 and below {0.5 * fps:g} Hz."
        )


def smoothed(lifted: Lifted, cutoff: float) -> Lifted:
    """`points3d` without what changes faster than `cutoff`; `smoothing` says so.

    Nothing is made up for frames that were left out: what lies between two gaps is
    smoothed by itself, and left as it is where it is shorter than `SHORTEST` frames.
    Pose, canonical shape and reprojection stay those of the single frames.

    Args:
        lifted: one individual.
        cutoff: in Hz; half the power is left there, an eighth of the amplitude an
            octave above.

    Raises:
        LfmError: as `check_cutoff`.
    """
    check_cutoff(cutoff, lifted.fps)
    warped = np.tan(np.pi * cutoff / lifted.fps) / TWICE
    once = np.arctan(warped) * lifted.fps / np.pi  # the cut-off of one pass
    numerator, denominator = signal.butter(ORDER, once, fs=lifted.fps)
    points = lifted.points3d.astype(np.float64)
    breaks = np.flatnonzero(np.diff(lifted.frames) != 1) + 1
    for rows in np.split(np.arange(len(points)), breaks):
        if len(rows) >= SHORTEST:
            points[rows] = signal.filtfilt(numerator, denominator, points[rows], axis=0)
    return dataclasses.replace(
        lifted,
        points3d=points.astype(lifted.points3d.dtype),
        smoothing=f"Butterworth, {cutoff:g} Hz, order {2 * ORDER}, no delay",
    )
