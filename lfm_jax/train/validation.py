"""The loss that tells how well a network does on what it has not seen, from 2D."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from lfm_jax import models, sharding, tasks
from lfm_jax.data.dataset import Dataset
from lfm_jax.data.mixture import training_batches
from lfm_jax.types import Observation, Packing

FRAMES = 8  # of every category, or one clip


def validation_loss(
    dataset: Dataset, model: models.Model, mesh: Mesh, clip: int
) -> Callable[[PyTree], jax.Array]:
    """params -> L_2d of a fixed batch of validation frames, equal for all categories.

    It reads 2D alone: what watches training must not know 3D.

    Args:
        dataset: with validation frames.
        model: the network.
        mesh: the devices.
        clip: so many frames at a time are consecutive.
    """
    seen = tuple(part.observation for part in dataset.evaluation.validation)
    sequences = tuple(np.asarray(one.clip) for one in seen)
    held_out = dataclasses.replace(
        dataset.training, observations=seen, sequences=sequences
    )
    frames = clip * -(-FRAMES // clip)
    batches = training_batches(held_out, per_category=frames, seed=0, clip=clip)
    observation, packing = sharding.put(next(iter(batches)), mesh)

    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def loss(params: PyTree, observation: Observation, packing: Packing) -> jax.Array:
        observation, packing = sharding.spread((observation, packing), mesh)
        return jnp.mean(
            tasks.reprojection_loss(model.apply, params, observation, packing)
        )

    # arguments, not constants: the compiler would compute with those, slowly
    return lambda params: loss(params, observation, packing)
