"""What 2D-LFM begins at: shapes factorized from 2D, posed and deformed to explain it.

Every category has several low-rank models (`classical.factorization`). Given an
observation, each has a most probable pose and deformation in closed form
(`geometry.deformable`). Their depths differ, and the mean of them is better than any.
Lengths that stay (`classical.lengths`) then correct the depths of observed points.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_jax.geometry.deformable import deform, fit_low_rank, mean_poses
from lfm_jax.geometry.lengths import Lengths, refine_depths
from lfm_jax.geometry.pose import apply_pose
from lfm_jax.types import ArrayLike, Pose


@dataclasses.dataclass(frozen=True)
class Start:
    """Factorized models of every category, keypoints padded to the longest.

    Attributes:
        shapes: mean and bases of j models per category, all in the same of the two
            depth signs; zero where a model has fewer bases.
        noise: variance of an image coordinate, for 2D of RMS radius 1.
        doubt: standard deviation of a depth of the models' mean, likewise.
        neighbour, length, spread: lengths that stay, see geometry.lengths.Lengths.
    """

    shapes: Float[np.ndarray, "c j m n 3"]
    noise: Float[np.ndarray, "c j n"]
    doubt: Float[np.ndarray, "c n"]
    neighbour: Int[np.ndarray, "c n k"]
    length: Float[np.ndarray, "c n k"]
    spread: Float[np.ndarray, "c n k"]


def consult(
    shapes: Float[ArrayLike, "c j m p 3"],
    noise: Float[ArrayLike, "c j p"],
    points2d: Float[ArrayLike, "b n 2"],
    observed: Bool[ArrayLike, "b n"],
    category: Int[ArrayLike, "b"],
    groups: Sequence[tuple[int, Sequence[int]]],
) -> tuple[Float[ArrayLike, "b n 3"], Float[ArrayLike, "b n 1"], Pose]:
    """What the models make of normalised observations.

    Args:
        shapes, noise: see `Start`.
        points2d, observed, category: the observations.
        groups: numbers of bases, and the models that have no more: a fit costs the
            square of it.

    Returns:
        Their mean in the camera, their disagreement on each depth (a standard
        deviation), and the pose of the first; constant for derivatives.
    """
    count, models = points2d.shape[-2], shapes.shape[1]
    own = lambda table: jnp.asarray(table)[category, ..., :count]
    each = lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], models, *x.shape[1:]))
    images, seen, noises = each(points2d), each(observed), own(noise)
    # what the number of bases does not matter to, for all models in one program
    means = jnp.asarray(shapes[:, :, 0])[category, :, :count]
    tilts = mean_poses(means, noises, images, seen)
    order, posed, poses = [], [], []
    for used, members in groups:
        members = list(members)
        some = jnp.asarray(shapes[:, members, : used + 1])[category, ..., :count, :]
        codes, pose = fit_low_rank(
            some,
            *(values[:, members] for values in (noises, images, seen)),
            begin=jax.tree.map(lambda leaf, some=members: leaf[:, :, some], tilts),
        )
        posed.append(apply_pose(pose, deform(some, codes)))
        order, poses = [*order, *members], [*poses, pose]
    posed = jnp.concatenate(posed, axis=1)
    mean, unsure = jnp.mean(posed, axis=1), jnp.std(posed[..., 2:], axis=1)
    poses = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *poses)
    first = jax.tree.map(lambda leaf: leaf[:, order.index(0)], poses)
    return jax.lax.stop_gradient((mean, unsure, first))


def begin(
    start: Start,
    points2d: Float[ArrayLike, "b n 2"],
    observed: Bool[ArrayLike, "b n"],
    category: Int[ArrayLike, "b"],
) -> tuple[Float[ArrayLike, "b n 3"], Float[ArrayLike, "b n 1"], Pose]:
    """`consult`, with depths of observed points that agree better with the lengths."""
    mean, unsure, pose = consult(
        start.shapes,
        start.noise,
        points2d,
        observed,
        category,
        _by_bases(start.shapes),
    )
    count = points2d.shape[-2]
    own = lambda values: jnp.asarray(values)[category, :count]
    lengths = Lengths(own(start.neighbour), own(start.length), own(start.spread))
    scale = jnp.maximum(pose.scale, 1e-3)
    depth = refine_depths(
        points2d, mean[..., 2], observed, own(start.doubt), scale, lengths
    )
    mean = jnp.concatenate([mean[..., :2], depth[..., None]], axis=-1)
    return mean, unsure, pose


def _by_bases(
    shapes: Float[np.ndarray, "c j m n 3"],
) -> list[tuple[int, list[int]]]:
    """The groups of `consult`."""
    used = np.any(shapes[:, :, 1:], axis=(0, 3, 4)) * np.arange(1, shapes.shape[2])
    used = used.max(axis=1, initial=0)
    return [(int(k), np.flatnonzero(used == k).tolist()) for k in np.unique(used)]
