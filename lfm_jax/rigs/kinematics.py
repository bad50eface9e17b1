"""Forward kinematics of a tree of joints: bone vectors and joint angles to positions.

Conventions, the same in every file of this room: x forward, y left, z up,
millimetres. In the rest pose the frame of every joint is the frame of the world. A
joint's rotation turns whatever hangs from it, not the joint itself:

    turn[j]     = turn[parent] @ euler(angles[j])
    position[j] = position[parent] + turn[parent] @ offset[j]

Joint 0 is the world: the origin, its own parent, never turned. Angles are (roll,
pitch, yaw) in radians about x, y and z, applied in this order: R = Rz Ry Rx. Positive
pitch turns the nose down and a hanging leg backwards; positive yaw turns left;
positive roll lifts a left limb sideways.

Letters besides those of types.py: j joints of a rig (some are hidden, not keypoints),
s individuals (specimens).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def euler_to_matrix(angles: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Rotation Rz(yaw) Ry(pitch) Rx(roll) of angles (roll, pitch, yaw) in radians."""
    (sx, sy, sz) = jnp.moveaxis(jnp.sin(angles), -1, 0)
    (cx, cy, cz) = jnp.moveaxis(jnp.cos(angles), -1, 0)
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def forward_kinematics(
    parent: Int[Array, "j"],
    offset: Float[Array, "*b j 3"],
    angles: Float[Array, "*b j 3"],
) -> Float[Array, "*b j 3"]:
    """Positions of all joints in the world frame, in the units of `offset`.

    Every joint is a rigid transform into its parent's frame. Composing each with its
    ancestor's and then doubling the distance to the ancestor reaches the world in
    log2(j) rounds, whatever the tree, so one compiled graph serves every rig.

    Args:
        parent: index of each joint's parent; joint 0 is the world and its own parent.
        offset: bone from the parent to the joint, in the parent's frame.
        angles: (roll, pitch, yaw) of each joint, radians; joint 0 must have zeros.
    """

    def compose(_, state):
        turn, position, ancestor = state
        above = jnp.take(turn, ancestor, axis=-3)
        position = jnp.take(position, ancestor, axis=-2) + _turned(above, position)
        turn = jnp.stack([_turned(above, turn[..., k]) for k in range(3)], -1)
        return turn, position, ancestor[ancestor]

    rounds = (parent.shape[0] - 1).bit_length()
    state = (euler_to_matrix(angles), offset, parent)
    return jax.lax.fori_loop(0, rounds, compose, state)[1]


def _turned(turn, vector):
    """Matrix times vector, written out: fused, where tiny batched products are slow."""
    return sum(turn[..., k] * vector[..., k, None] for k in range(3))
