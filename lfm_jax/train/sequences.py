"""Errors of films: positions and motion after one alignment for many frames.

Clips are cut into *sequences* of at most `clips.LONGEST` frames, as equal as they can
be. A lifted sequence is brought onto the truth, which is in the camera frame, by one
similarity: a rotation in SO(3), a scale and a translation for all of its frames (SA,
sequence-aligned). Then, of each frame,

    SA-MPJPE   mean distance between corresponding points
    SA-MPVE    mean length of the difference of their velocities, a velocity being the
               way from the frame before; the first frame of a sequence has none
    FA-MPJPE   mean distance after a similarity for that frame alone (frame-aligned):
               what `metrics.pa_mpjpe` is

after Fusco et al., "Object Agnostic 3D Lifting in Space and Time" (2024), who have
sequences of 48 frames; which group they align by is not published.

Mirror images are not aligned: all have one depth sign per category, as everywhere.
`best_flip` has the sign, of one for the whole sequence, in which SA-MPJPE is lower.

`ne_sequence` and `ne_velocity` are SA-MPJPE and SA-MPVE in percent of the RMS radius of
the frame's true points, as `ne` is FA-MPJPE. A category whose clips have one frame only
has none of them.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from lfm_jax import clips, metrics, numerics
from lfm_jax.types import Labelled, Observation

JUDGED = ("lifted", "best_flip_lifted", "flat", "mean_shape_lifted", "rigid_lifted")
MEANS = tuple(f"ne_{kind}_{x}" for kind in ("sequence", "velocity") for x in JUDGED)


def sequence_errors(
    records: Sequence[Labelled | Observation],
    frames: Labelled,
    lifted: Mapping[str, Float[np.ndarray, "f n 3"]],
) -> list[dict[str, float]]:
    """Per category, errors that eval.json has of films.

    Args:
        records: per category, what is known of its frames.
        frames: all of them end to end.
        lifted: per name, the shapes that are judged; "lifted" are those of the model.
    """
    category = np.asarray(frames.observation.category)
    clip = np.concatenate([np.asarray(record.observation.clip) for record in records])
    run = sequences(category, clip)
    errors = {}
    for name, shapes in lifted.items():
        position, velocity, *best = map(np.asarray, _errors(frames, shapes, run))
        errors |= {f"ne_sequence_{name}": position, f"ne_velocity_{name}": velocity}
        if name == "lifted":
            errors["ne_sequence_best_flip_lifted"] = best[0]
            errors["ne_velocity_best_flip_lifted"] = best[1]
    moving = np.asarray(_moving(frames, run))
    film = (np.bincount(run, moving) > 0)[run] & metrics.scorable(frames.evaluated)
    entries = []
    for index in range(len(records)):
        rows = {"sequence": film & (category == index)}
        rows["velocity"] = moving & (category == index)
        entries.append(
            {
                key: float(f"{values[rows[key.split('_')[1]]].mean():.5g}")
                for key, values in errors.items()
                if rows["velocity"].any()
            }
        )
    return entries


def sequences(
    category: Int[np.ndarray, "f"], clip: Int[np.ndarray, "f"]
) -> Int[np.ndarray, "f"]:
    """The sequence that each frame is of, numbered from 0."""
    new = np.diff(category, prepend=-1).astype(bool) | (np.diff(clip, prepend=-1) != 0)
    starts = np.flatnonzero(new)
    length = np.diff(starts, append=len(new))
    inside = np.arange(len(new)) - np.repeat(starts, length)
    length = np.repeat(length, length)
    piece = inside * -(-length // clips.LONGEST) // length
    new |= np.diff(piece, prepend=0) != 0
    return (np.cumsum(new) - 1).astype(np.int32)


@jax.jit
def _errors(frames: Labelled, shapes, run) -> tuple[jax.Array, ...]:
    """Of each frame in percent: position and velocity, and both in the better sign."""
    true, mask = frames.points3d, _scored(frames)
    plain = jnp.stack(metrics.sequence(shapes, true, mask, run))
    mirrored = metrics.sequence(metrics.mirror_depth(shapes), true, mask, run)
    better = clips.total(plain[0] - mirrored[0], run) > 0.0
    both = jnp.concatenate([plain, jnp.where(better, jnp.stack(mirrored), plain)])
    radius = numerics.rms_radius(true, mask)
    return tuple(100.0 * numerics.safe_divide(error, radius) for error in both)


@jax.jit
def _moving(frames: Labelled, run) -> jax.Array:
    """Which frames have a velocity."""
    return clips.velocity(frames.points3d, _scored(frames), run)[1].any(axis=-1)


def _scored(frames):
    return frames.evaluated & metrics.scorable(frames.evaluated)[:, None]
