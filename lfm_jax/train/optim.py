"""AdamW, linear warm-up, cosine decay, clipping by the global norm.

The moving average of the weights is part of the step (train/step.py), not of the
optimiser: it is what is evaluated, and belongs to the state by name.
"""

import jax
import optax
from jaxtyping import PyTree

from lfm_jax.config import OptimConfig


def learning_rate(config: OptimConfig, steps: int) -> optax.Schedule:
    """From 0 up to the peak over `warmup * steps`, then down a cosine to 0."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=round(config.warmup * steps),
        decay_steps=steps,
    )


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The optimiser of a run of `steps` updates."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, steps),
            weight_decay=config.weight_decay,
            mask=matrices,
        ),
    )

    def update(gradients: PyTree, state: PyTree, params: PyTree | None = None):
        # Optax raises float decay rates to integer counts, which strict promotion
        # (on in the tests) refuses.
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(gradients, state, params)

    return optax.GradientTransformation(optimizer.init, update)


def matrices(params: PyTree) -> PyTree:
    """True at the weights of linear maps: what decay is meant for.

    Biases, norms, and everything that stands for itself (the shapes and bases of the
    categories, learned tokens) would be pulled towards zero without reason.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )
