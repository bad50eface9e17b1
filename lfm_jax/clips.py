"""Frames that follow one another, in a batch whose rows are frames.

A *run* is a longest stretch of neighbouring rows of one clip. Runs are numbered from 0
in the order of the rows, so that what is summed over a run has at most b places.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lfm_jax.numerics import keep
from lfm_jax.types import ArrayLike, Observation

LONGEST = 48  # frames of a sequence: a part of a clip that is judged as one


def runs(observation: Observation) -> Int[Array, "b"]:
    """The run of each frame; frames of no clip are runs of their own."""
    if observation.clip is None:
        return jnp.arange(len(observation.category))
    return number(jnp.asarray(observation.clip))


def number(clip: Int[Array, "b"]) -> Int[Array, "b"]:
    """The run of each frame, by the clips of all."""
    new = jnp.diff(clip, prepend=clip[:1]) != 0
    return jnp.cumsum(new, dtype=clip.dtype)


def total(values: Float[Array, "b *d"], run: Int[Array, "b"]) -> Float[Array, "b *d"]:
    """For each frame the sum over all frames of its run."""
    return jax.ops.segment_sum(values, run, len(run))[run]


def mean(
    values: Float[Array, "b"], kept: Bool[ArrayLike, "b"], run: Int[Array, "b"]
) -> Float[Array, "b"]:
    """For each frame the mean over the frames of its run that are kept; 1 of none."""
    count = total(kept.astype(values.dtype), run)
    sums = total(jnp.where(kept, values, 0.0), run)
    return jnp.where(count > 0.0, sums / jnp.maximum(count, 1.0), 1.0)


def velocity(
    points: Float[ArrayLike, "b n 3"],
    mask: Bool[ArrayLike, "b n"],
    run: Int[ArrayLike, "b"],
) -> tuple[Float[Array, "b n 3"], Bool[Array, "b n"]]:
    """How far each point moved since the frame before, and where that is known.

    Known of points under the mask in both frames, so never in the first of a run.
    """
    both = mask & jnp.roll(mask, 1, axis=0) & (run == jnp.roll(run, 1))[:, None]
    both = both.at[0].set(False)
    return keep(points - jnp.roll(points, 1, axis=0), both), both
