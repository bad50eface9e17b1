"""What could choose among random starts of a factorization, category by category.

    python benchmarks/starts.py DIR nsp__cheetah,sim__panda --iterations=30,120

Random starts are searched as `classical.factorization` does, given nine bases, and
fitted to the training frames by so many iterations. For either kind of noise it prints
the 3D error on training frames (one depth sign per start) of the best start of all, of
the likeliest, and of the one that predicts hidden points best, and the rank correlation
of both criteria with that error. 3D is read to judge the criteria, nothing is fitted to
it.
"""

import argparse
import dataclasses
import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax import metrics, tasks
from lfm_jax.classical import factorization, low_rank
from lfm_jax.config import DataConfig
from lfm_jax.data.dataset import open_dataset
from lfm_jax.geometry.deformable import explain, moments, weights
from lfm_jax.types import Labelled

BASES, STARTS, SCORED = 9, 16, 256


@jax.jit
def surprise(frames: low_rank.Frames, model: low_rank.LowRank):
    """-2 log likelihood per frame, coefficients integrated out, poses at their best."""
    noise = jnp.broadcast_to(model.noise, frames.mask.shape)
    shapes = jnp.broadcast_to(model.shapes, (len(noise), *model.shapes.shape))
    weight = weights(noise, frames.mask)
    moment = moments(shapes, frames.tracks, weight)
    prior = low_rank._prior(frames, model)
    _, pose = low_rank._explain(frames, model)
    rotation = jnp.moveaxis(pose.rotation, 0, -1)
    found = explain(moment, prior, pose.scale, rotation)
    image = jnp.square(frames.tracks - moment.image_mean.T[:, None])
    constant = jnp.sum(weight[..., None] * image)
    freedom = jnp.sum(jnp.linalg.slogdet(jnp.moveaxis(found.covariance, -1, 0))[1])
    spread = 2.0 * jnp.sum(jnp.where(frames.mask, jnp.log(noise), 0.0))
    count = jnp.sum(jnp.any(frames.mask, axis=1), dtype=jnp.float32)
    return (jnp.sum(found.surprise) + constant - freedom + spread) / count


@jax.jit
def error(record: Labelled, model: low_rank.LowRank):
    """Mean ne of the frames lifted by the model alone, in the better depth sign."""
    normal, _, _ = tasks.normalise(record.observation)
    frames = low_rank.Frames(
        normal.points2d, normal.observed, jnp.ones(len(record.points3d))
    )
    free = dataclasses.replace(model, spread=jnp.float32(1e6))
    posed = low_rank.posed_shapes(frames, free)
    lifted = tasks.complete(normal.points2d, posed, normal.observed)
    signs = jnp.stack([lifted, metrics.mirror_depth(lifted)])
    ne = jax.vmap(metrics.ne, in_axes=(0, None, None))(
        signs, record.points3d, record.evaluated
    )
    return jnp.min(jnp.mean(ne, axis=1))


@functools.partial(jax.jit, static_argnames="function")
def of_each(function, first, models):
    return jax.lax.map(functools.partial(function, first), models)


@jax.jit
def fit(frames, models, shared, iterations):
    step = lambda model: low_rank.iterate(frames, model, shared, iterations)
    return jax.lax.map(step, models)


def ranks(values):
    return np.argsort(np.argsort(values))


def study(dataset, index: int, iterations: list[int], seed: int) -> None:
    """Prints two lines, one for each kind of noise, for each number of iterations."""
    seen = dataset.training.observations[index]
    held = dataset.evaluation.validation[index].observation
    points, mask = seen.points2d, seen.annotated
    width = points.shape[1]
    few, unit = low_rank.prepare(points, mask, factorization.SEARCH_FRAMES, width)
    many, _ = low_rank.prepare(points, mask, factorization.FRAMES, width, unit)
    parts = [(points, mask), (np.asarray(held.points2d), np.asarray(held.observed))]
    riddle = factorization.pose_riddle(parts, width, unit)
    record = dataset.evaluation.train[index]
    record = jax.tree.map(lambda leaf: jnp.asarray(_thin(leaf)), record)
    used = min(BASES, width // factorization.POINTS_PER_BASIS)
    keys = jax.random.split(jax.random.key(seed), STARTS)
    fresh = 0.05 * jax.random.normal(jax.random.key(seed), (BASES + 1, width, 3))
    grow = jax.vmap(lambda model: factorization._grown(model, fresh, used))
    for shared in (True, False):
        found = factorization._search(
            keys, few, used, shared, factorization.SEARCH_BASES
        )
        done, models = 0, grow(found)
        for total in iterations:
            models, done = fit(many, models, shared, total - done), total
            likely = np.asarray(of_each(surprise, many, models))
            hidden, _ = factorization.solve_riddle(riddle, models)
            errors = np.asarray(of_each(error, record, models))
            lines = [f"{'one noise' if shared else 'a noise each':14s}{total:5d}"]
            lines.append(f"best {errors.min():5.1f}")
            for name, values in (("likeliest", likely), ("hidden", hidden)):
                ranked = np.corrcoef(ranks(values), ranks(errors))[0, 1]
                lines.append(f"{name} {errors[values.argmin()]:5.1f} ({ranked:5.2f})")
            print("  ", *lines, sep="  ", flush=True)


def _thin(leaf):
    rows = np.linspace(0, len(leaf) - 1, min(len(leaf), SCORED)).astype(int)
    return np.asarray(leaf)[rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", help="folder of keypoint archives")
    parser.add_argument("categories", help="names, separated by commas")
    parser.add_argument("--iterations", default="30,120", help="increasing")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    iterations = [int(text) for text in given.iterations.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        data = DataConfig(dir=given.dir, only=given.categories)
        dataset = open_dataset(data, folder)
        for index, skeleton in enumerate(dataset.training.skeletons):
            print(skeleton.name, flush=True)
            study(dataset, index, iterations, given.seed)


if __name__ == "__main__":
    main()
