"""The one training step: pure, compiled by the loop, the same for every task."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from lfm_jax.models import Model
from lfm_jax.tasks import Task
from lfm_jax.types import Labelled, Observation, Packing, TrainState

Batch = tuple[Observation | Labelled, Packing | None]


def init_state(
    model: Model, tx: optax.GradientTransformation, key: Key[Array, ""], categories: int
) -> TrainState:
    """The state before the first step.

    The averaged weights are a copy: a donated state must not hold a buffer twice.
    """
    params = model.init(jax.random.fold_in(key, 0))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        averaged=jax.tree.map(jnp.copy, params),
        opt_state=tx.init(params),
        key=key,
        depth_sign=jnp.zeros(categories),
    )


def make_train_step(
    model: Model,
    task: Task,
    tx: optax.GradientTransformation,
    *,
    average: float = 0.998,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Builds `step(state, batch) -> (state, scalars)`.

    An update whose loss or gradient is not finite is skipped: the step still counts
    (so that the data stream and the random streams stay where they are), the weights
    stay what they were, and `scalars["finite"]` is False.

    Args:
        model: the network.
        task: the objective.
        tx: the optimiser.
        average: decay of the moving average of the weights; it starts low, so that the
            first weights are soon forgotten.
    """

    def step(state: TrainState, batch: Batch):
        records, packing = batch
        key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)

        def objective(params):
            terms = task.loss(model.apply, params, records, packing, key)
            return jnp.mean(terms["loss"]), terms

        (loss, terms), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(average, (1.0 + count) / (10.0 + count))
        averaged = jax.tree.map(
            lambda old, new: decay * old + (1.0 - decay) * new, state.averaged, params
        )
        choose = lambda new, old: jnp.where(finite, new, old)
        new = dataclasses.replace(
            state,
            step=state.step + 1,
            params=jax.tree.map(choose, params, state.params),
            averaged=jax.tree.map(choose, averaged, state.averaged),
            opt_state=jax.tree.map(choose, opt_state, state.opt_state),
        )
        scalars = {name: jnp.mean(values) for name, values in terms.items()}
        category, categories = records.observation.category, len(state.depth_sign)
        counts = jnp.bincount(category, length=categories)
        sums = jax.ops.segment_sum(terms["loss"], category, categories)
        return new, scalars | {
            "grad_norm": norm,
            "finite": finite,
            "loss_per_category": sums / jnp.maximum(counts.astype(sums.dtype), 1.0),
        }

    return step
