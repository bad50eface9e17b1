"""What a training step does to its records at random, before a network sees them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lfm_jax import clips
from lfm_jax.geometry.rotations import from_rotation_vector
from lfm_jax.numerics import einsum
from lfm_jax.types import Labelled, Observation


def turn(key: Key[Array, ""], labelled: Labelled) -> Labelled:
    """Turns each run about the viewing axis at random, image and truth alike."""
    rotation = roll(key, len(labelled.points3d))[clips.runs(labelled.observation)]
    return dataclasses.replace(
        labelled,
        observation=turn_image(rotation, labelled.observation),
        points3d=einsum("bij,bnj->bni", rotation, labelled.points3d),
    )


def roll(key: Key[Array, ""], count: int) -> Float[Array, "b 3 3"]:
    """Rotations about the viewing axis, by any angle."""
    angle = jax.random.uniform(key, (count, 1), maxval=2.0 * jnp.pi)
    return from_rotation_vector(angle * jnp.array([[0.0, 0.0, 1.0]]))


def turn_image(rotation: Float[Array, "b 3 3"], seen: Observation) -> Observation:
    """Turns images by rotations about the viewing axis."""
    image = einsum("bij,bnj->bni", rotation[:, :2, :2], seen.points2d)
    return dataclasses.replace(seen, points2d=image)


def hide(key: Key[Array, ""], observation: Observation, share: float) -> Observation:
    """Hides each observed point with a probability drawn per example in [0, share].

    An example that would keep fewer than four points is left as it is.
    """
    first, second = jax.random.split(key)
    observed = observation.observed
    rate = jax.random.uniform(first, observed.shape[:-1]) * share
    kept = observed & (jax.random.uniform(second, observed.shape) >= rate[..., None])
    enough = jnp.sum(kept, axis=-1, keepdims=True) >= 4
    return dataclasses.replace(observation, observed=jnp.where(enough, kept, observed))
