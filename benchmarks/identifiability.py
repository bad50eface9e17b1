"""What 2D alone can and cannot tell a network: the numbers of docs/identifiability.md.

    python benchmarks/identifiability.py

One human rig of the zoo, each frame in its one view, an untrained network without a
start (the published form). Deterministic; needs no training.
"""

import dataclasses
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax import models, tasks
from lfm_jax.config import DataConfig, ModelConfig, ObjectiveConfig
from lfm_jax.data.dataset import open_dataset
from lfm_jax.numerics import einsum

CATEGORY, FRAMES = "human_h36m17", 256
STRETCHES = (1.0, 2.0, 4.0, 8.0, 16.0)
ENCODINGS = ("none", "input", "every")


def frames() -> tuple:
    """The skeletons and normalised observations of the rig."""
    with tempfile.TemporaryDirectory() as folder:
        training = open_dataset(DataConfig(only=CATEGORY), folder).training
    rows = np.linspace(0, len(training.observations[0].points2d) - 1, FRAMES)
    seen = jax.tree.map(
        lambda leaf: jnp.asarray(leaf[rows.astype(int)]), training.observations[0]
    )
    return training.skeletons, tasks.normalise(seen)[0]


def shuffled(observation, key):
    """Every frame's keypoints in an order of its own, and those orders."""
    count = observation.points2d.shape[1]
    orders = jax.vmap(lambda k: jax.random.permutation(k, count))(
        jax.random.split(key, len(observation.points2d))
    )
    moved = dataclasses.replace(
        observation,
        points2d=reorder(observation.points2d, orders),
        observed=jnp.take_along_axis(observation.observed, orders, axis=1),
        annotated=jnp.take_along_axis(observation.annotated, orders, axis=1),
    )
    return moved, orders


def reorder(points, orders):
    return jnp.take_along_axis(points, orders[..., None], axis=1)


def identity_table(skeletons, observation) -> None:
    """Equivariance, and loss and gradient on shuffled against ordered keypoints."""
    print("| encoding | f(shuffled x) - shuffled f(x) | L_2d | its gradient |")
    print("|---|---|---|---|")
    other, orders = shuffled(observation, jax.random.key(0))
    for injection in ENCODINGS:
        config = ModelConfig(injection=injection, bases="", gate=False)
        model = models.build(config, skeletons)
        params = model.init(jax.random.key(1))

        @jax.jit
        def look(params, seen, model=model):
            loss = lambda p: jnp.mean(
                tasks.reprojection_loss(model.apply, p, seen, None)
            )
            value, slope = jax.value_and_grad(loss)(params)
            return model.apply(params, seen), value, slope

        shape, loss, gradient = look(params, observation)
        again, loss_again, gradient_again = look(params, other)
        changes = (
            difference(again, reorder(shape, orders)),
            difference(loss_again, loss),
            difference(gradient_again, gradient),
        )
        cells = " | ".join(f"{100.0 * change:.2g} %" for change in changes)
        print(f"| {injection} | {cells} |")


def difference(one, other) -> float:
    """Norm of the difference of two trees, relative to the second."""
    one, other = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (one, other)
    )
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def line_lifter(stretch: float):
    """Depth is the place of the point along the image's longest axis, times stretch."""

    def apply(params, observation, packing=None):
        points = observation.points2d
        moments = einsum("bni,bnj->bij", points, points)
        difference = moments[:, 0, 0] - moments[:, 1, 1]
        angle = 0.5 * jnp.arctan2(2.0 * moments[:, 0, 1], difference)
        axis = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        along = einsum("bni,bi->bn", points, axis)
        return jnp.concatenate([points, stretch * along[..., None]], axis=-1)

    return apply


def stretch_table(observation) -> None:
    """The objective's terms for the flat lift and for lifts that stretch depth."""
    task = tasks.lfm2d_task(ObjectiveConfig(hide=0.0))
    print("| lift | L_2d | L_view |\n|---|---|---|")
    for stretch in (0.0, *STRETCHES):
        apply, key = line_lifter(stretch), jax.random.key(2)
        terms = task.loss(apply, None, observation, None, key)
        name = f"line, stretch {stretch:g}" if stretch else "flat"
        cells = (terms["loss_2d"], terms["loss_view"])
        print(f"| {name} | " + " | ".join(f"{jnp.mean(c):.3g}" for c in cells) + " |")


def main() -> None:
    skeletons, observation = frames()
    identity_table(skeletons, observation)
    print()
    stretch_table(observation)


if __name__ == "__main__":
    main()
