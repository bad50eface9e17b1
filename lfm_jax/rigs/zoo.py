"""The embedded default data: some fifty categories of moving 3D keypoints.

`sample_sequences(key, category)` is pure JAX and deterministic in its key. Axes: x
forward, y left, z up (`UP`); millimetres; the root only sways, so cameras must bring
their own rotations. Conventions of the rigs are in kinematics.py.

Sizes: 30 individuals of 20 frames for what moves, 600 individuals of one frame for
rigid classes. Drosophila stands for the animal that hardly has data: 15 individuals of
8 frames, of which a split by whole specimens (20 % test, 10 % validation, both rounded
up) leaves 10 individuals, 80 frames, to train on.
"""

import functools
import zlib
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lfm_jax.errors import LfmError
from lfm_jax.rigs import animals, humans, insects, motion, quadrupeds, rigid
from lfm_jax.rigs.skeletons import Rig
from lfm_jax.types import Skeleton

RIGS = rigid.RIGS | humans.RIGS | quadrupeds.RIGS | animals.RIGS | insects.RIGS
CATEGORIES: tuple[str, ...] = tuple(RIGS)
UP = (0.0, 0.0, 1.0)
JOINTS = (64, 160)  # sizes to pad rigs to, so that a few compiled graphs serve all
SIZES = {"drosophila": (15, 8)}
MOVING, RIGID = (30, 20), (600, 1)


class ZooSample(NamedTuple):
    """All frames of one category, ready to be split.

    Attributes:
        points3d: keypoints in mm, z up.
        sequence: which clip each frame belongs to; one clip per individual.
        specimen: which individual.
    """

    points3d: Float[np.ndarray, "f n 3"]
    sequence: Int[np.ndarray, "f"]
    specimen: Int[np.ndarray, "f"]


@functools.cache
def build(category: str) -> Rig:
    """The rig of a category; LfmError where there is none of that name."""
    if category not in RIGS:
        raise LfmError(
            f"the zoo has no category {category!r}; choose from {', '.join(CATEGORIES)}"
        )
    return RIGS[category]()


def skeleton(category: str) -> Skeleton:
    """Keypoint names, edges and units of a category."""
    return build(category).skeleton


def sample_size(category: str) -> tuple[int, int]:
    """How many individuals the zoo has of a category, and frames of each."""
    return SIZES.get(category, RIGID if build(category).rigid else MOVING)


def sample_sequences(
    key: Key[Array, ""],
    category: str,
    individuals: int | None = None,
    frames: int | None = None,
) -> Float[Array, "s t n 3"]:
    """Keypoints of new individuals in motion, mm, z up; one clip each.

    Categories draw from streams of their own. Sizes default to those of the zoo.
    """
    joints = _sample(key, category, individuals, frames)
    return joints[:, :, build(category).shown]


def sample_category(category: str, seed: int = 0) -> ZooSample:
    """The zoo's data of one category, frames of all individuals in a row."""
    joints = np.asarray(_sample(jax.random.key(seed), category))
    points = joints[:, :, build(category).shown]
    individuals, frames, n, _ = points.shape
    specimen = np.repeat(np.arange(individuals, dtype=np.int32), frames)
    return ZooSample(points.reshape(-1, n, 3), specimen, specimen.copy())


@functools.cache
def rig_arrays(category: str) -> motion.RigArrays:
    """The numbers of a category's rig, padded so that rigs share compiled graphs."""
    rig = build(category)
    joints = min(size for size in JOINTS if size >= len(rig.joints))
    with jax.ensure_compile_time_eval():
        return motion.pad_rig(rig, joints)


def _sample(key, category, individuals=None, frames=None) -> Float[Array, "s t j 3"]:
    size = sample_size(category)
    stream = jax.random.fold_in(key, zlib.crc32(category.encode()))
    size = individuals or size[0], frames or size[1]
    return _sample_joints(stream, rig_arrays(category), *size)


_sample_joints = jax.jit(motion.sample_joints, static_argnums=(2, 3))
