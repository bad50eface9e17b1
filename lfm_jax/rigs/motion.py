"""How the individuals of a rig differ, and how they move: sizes and joint angles.

Sizes: log-normal scales along x, y and z, one for the whole individual and one per
size label (both sides share it). They are drawn once per individual, so its bones keep
their length.

Angles: a smooth drive, squashed into the limits by tanh. The drive of an angle is the
sum of a gait (one cycle for all joints, each at its own phase, sides in antiphase), of
a few slow posture modes shared by the whole body (so that motion is low-dimensional, as
in animals), and of a little slow motion of its own. All of it is a function of time and
of the individual's `traits`, uniform random numbers: row 0 is the gait's (cadence,
start, vigour), then six for every posture mode and for every angle's own motion.

Time is counted in frames, about a tenth of a second each. Letters: s individuals
(specimens), t time, j joints, k posture modes.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lfm_jax.rigs.kinematics import forward_kinematics
from lfm_jax.rigs.skeletons import Rig

POSTURE, OWN = 0.5, 0.3  # standard deviations, next to a gait of amplitude about 1
SLOW = (0.008, 0.05)  # cycles per frame of posture
CADENCE = (0.04, 0.08)  # cycles per frame of the gait
VIGOUR = (0.4, 1.4)  # amplitude of the gait


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RigArrays:
    """The numbers of a `Rig`, padded to a common number of joints."""

    parent: Int[Array, "j"]
    offset: Float[Array, "j 3"]
    low: Float[Array, "j 3"]
    high: Float[Array, "j 3"]
    size: Int[Array, "j"]
    source: Int[Array, "j"]
    sign: Float[Array, "j 3"]
    phase: Float[Array, "j"]
    gait: Float[Array, "j 3"]
    posture: Float[Array, "j 3 k"]
    activity: Float[Array, ""]
    variation: Float[Array, ""]


def pad_rig(rig: Rig, joints: int) -> RigArrays:
    """The rig's arrays with `joints` joints; those added hang still from the world."""

    def pad(name):
        value = np.asarray(getattr(rig, name))
        if value.ndim:
            rows = ((0, joints - len(value)),) + ((0, 0),) * (value.ndim - 1)
            value = np.pad(value, rows)
        return jnp.asarray(value, jnp.int32 if value.dtype.kind == "i" else jnp.float32)

    return RigArrays(**{f.name: pad(f.name) for f in dataclasses.fields(RigArrays)})


def sample_bones(
    key: Key[Array, ""], rig: RigArrays, individuals: int
) -> Float[Array, "s j 3"]:
    """Bone vectors of individuals in the rest pose, mm."""
    joints = rig.offset.shape[0]
    normal = _draw(jax.random.normal, key, (individuals, 1 + joints, 3))
    spread = 0.5 * normal[:, :1] + normal[:, 1:][:, rig.size]
    return rig.offset[None] * jnp.exp(rig.variation * spread)


def sample_traits(
    key: Key[Array, ""], rig: RigArrays, individuals: int
) -> Float[Array, "s w 6"]:
    """What fixes how each individual moves, uniform in [0, 1)."""
    joints, angles, modes = rig.posture.shape
    rows = 1 + modes + angles * joints
    return _draw(jax.random.uniform, key, (individuals, rows, 6))


def joint_angles(
    rig: RigArrays, traits: Float[Array, "w 6"], time: Float[Array, ""]
) -> Float[Array, "j 3"]:
    """Joint angles (roll, pitch, yaw) of one individual at a time, radians."""
    modes = rig.posture.shape[-1]
    gait, posture, own = jnp.split(traits, [1, 1 + modes])
    drive = (
        _gait_cycle(gait[0], rig.phase, time)[:, None] * rig.gait
        + POSTURE * (rig.posture @ _slow(posture, time))
        + OWN * _slow(own, time).reshape(rig.low.shape)
    )
    drive = rig.activity * rig.sign * drive[rig.source]
    middle, half = (rig.high + rig.low) / 2.0, (rig.high - rig.low) / 2.0
    return middle + half * jnp.tanh(drive)


def sample_angles(
    key: Key[Array, ""], rig: RigArrays, individuals: int, frames: int
) -> Float[Array, "s t j 3"]:
    """Joint angles of individuals in consecutive frames, radians."""
    time = jnp.arange(frames, dtype=rig.low.dtype)
    clip = jax.vmap(joint_angles, (None, None, 0))
    traits = sample_traits(key, rig, individuals)
    return jax.vmap(clip, (None, 0, None))(rig, traits, time)


def sample_joints(
    key: Key[Array, ""], rig: RigArrays, individuals: int, frames: int
) -> Float[Array, "s t j 3"]:
    """Positions of all joints of moving individuals, mm."""
    size, move = jax.random.split(key)
    bones = sample_bones(size, rig, individuals)[:, None]
    angles = sample_angles(move, rig, individuals, frames)
    bones = jnp.broadcast_to(bones, angles.shape)
    return forward_kinematics(rig.parent, bones, angles)


def _draw(law, key, shape: tuple[int, ...]):
    """Random numbers drawn flat: XLA compiles that ten times faster on CPU."""
    return law(key, (math.prod(shape),)).reshape(shape)


def _gait_cycle(traits, phase, time) -> Float[Array, "j"]:
    """The gait at every joint: cadence, start and vigour are the individual's own."""
    cadence = CADENCE[0] + (CADENCE[1] - CADENCE[0]) * traits[0]
    vigour = VIGOUR[0] + (VIGOUR[1] - VIGOUR[0]) * traits[2]
    return vigour * jnp.sin(2.0 * jnp.pi * (cadence * time + traits[1] + phase))


def _slow(traits: Float[Array, "w 6"], time) -> Float[Array, "w"]:
    """Smooth signals of unit variance at a time: three slow sines each."""
    frequency = SLOW[0] + (SLOW[1] - SLOW[0]) * traits[:, :3]
    sines = jnp.sin(2.0 * jnp.pi * (frequency * time + traits[:, 3:]))
    return jnp.sqrt(2.0 / 3.0) * sines.sum(-1)
