"""What a rig is, and how the short tables of the species become one.

A table lists the left half and the midline of a body as `Joint` rows; every joint
called `left_...` gets its mirror image `right_...`, so that a rest pose is symmetric by
construction. Keypoints are the joints that the field annotates, under the field's names
and in the field's order; all other joints are hidden. Axes, angles and units are those
of kinematics.py, except that tables give angles in degrees.
"""

import dataclasses
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lfm_jax.types import Skeleton

Number = int | float  # tables are written in either
Vector = tuple[Number, Number, Number]
WORLD = "world"
MODES = 4  # posture modes of a rig; the first half moves both sides alike
MIRRORED_ANGLES = np.array([-1.0, 1.0, -1.0])  # of (roll, pitch, yaw), by y -> -y


class Joint(NamedTuple):
    """One row of a table.

    Attributes:
        name: of the joint; `left_...` also makes `right_...`.
        parent: the joint it hangs from.
        at: bone from the parent in the rest pose, mm.
        pitch, roll, yaw: limits (low, high) in degrees, or h for (-h, h).
        phase: place in the gait cycle, in cycles; None where the gait does not reach.
            The right side follows half a cycle later, unless `paired`.
        size: joints with one label vary in size together between individuals; empty
            means that the joint varies on its own (with its mirror image).
        paired: both sides move alike at all times (wings; parts of rigid things).
    """

    name: str
    parent: str = WORLD
    at: Vector = (0, 0, 0)
    pitch: Number | tuple[Number, Number] = 0
    roll: Number | tuple[Number, Number] = 0
    yaw: Number | tuple[Number, Number] = 0
    phase: float | None = None
    size: str = ""
    paired: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Rig:
    """A category's tree of joints, how it moves and varies; joint 0 is the world.

    Attributes:
        skeleton: keypoints and edges as the rest of the project sees them.
        joints: names of all joints.
        shown: the joint of each keypoint.
        parent, offset: the tree, and its bones in the rest pose (mm).
        low, high: limits of (roll, pitch, yaw), radians.
        twin: the joint on the other side; itself on the midline.
        size: joints with equal numbers share their individual scale.
        source: whose drive moves the joint (its left twin where both move alike).
        sign: of the drive, -1 where the mirror image reverses an angle.
        phase, gait: place in the gait cycle (cycles); 1 on the angle that the gait
            drives, the joint's widest.
        posture: weight of each posture mode on each angle, unit sum of squares.
        activity: strength of the drive, about the share of the limits that is used.
        variation: standard deviation of log sizes between individuals.
        rigid: one frame per individual; the angles are variation, not motion.
    """

    skeleton: Skeleton
    joints: tuple[str, ...]
    shown: Int[np.ndarray, "n"]
    parent: Int[np.ndarray, "j"]
    offset: Float[np.ndarray, "j 3"]
    low: Float[np.ndarray, "j 3"]
    high: Float[np.ndarray, "j 3"]
    twin: Int[np.ndarray, "j"]
    size: Int[np.ndarray, "j"]
    source: Int[np.ndarray, "j"]
    sign: Float[np.ndarray, "j 3"]
    phase: Float[np.ndarray, "j"]
    gait: Float[np.ndarray, "j 3"]
    posture: Float[np.ndarray, "j 3 k"]
    activity: float
    variation: float
    rigid: bool

    @property
    def rest(self) -> Float[np.ndarray, "j 3"]:
        """Positions of all joints in the rest pose, mm."""
        position = np.zeros_like(self.offset)
        for j in range(1, len(self.joints)):
            position[j] = position[self.parent[j]] + self.offset[j]
        return position


def other_side(name: str) -> str:
    """Name of the mirror image; a name without a side is its own."""
    if name.startswith("left_"):
        return "right_" + name.removeprefix("left_")
    return "left_" + name.removeprefix("right_") if name.startswith("right_") else name


def build_rig(
    name: str,
    joints: tuple[Joint, ...],
    keypoints: str,
    *,
    lines: str = "",
    activity: float = 1.0,
    variation: float = 0.08,
    rigid: bool = False,
) -> Rig:
    """The rig of one category.

    Args:
        name: of the category.
        joints: the table, parents before children, left half and midline.
        keypoints: names in the field's order, `theirs` or `theirs=joint`.
        lines: polylines of keypoints separated by `;` that become the edges; empty
            takes the tree itself, hidden joints contracted.
        activity, variation, rigid: see `Rig`.
    """
    rows = [Joint(WORLD, WORLD)] + [side for row in joints for side in _sides(row)]
    index = {row.name: j for j, row in enumerate(rows)}
    parent = np.array([index[row.parent] for row in rows])
    offset = np.array([row.at for row in rows], float)
    pairs = [word.partition("=") for word in keypoints.split()]
    shown = np.array([index[joint or theirs] for theirs, _, joint in pairs])
    names = tuple(theirs for theirs, _, _ in pairs)
    edges = _edges(lines, names) if lines else _contract(parent, offset, shown)
    low, high = np.radians([_limits(row) for row in rows]).transpose(2, 0, 1)
    twin = np.array([index[other_side(row.name)] for row in rows])
    left = np.minimum(twin, np.arange(len(rows)))
    paired = np.array([rigid or row.paired for row in rows])
    labels = [row.size or rows[j].name for j, row in zip(left, rows, strict=True)]
    right = np.arange(len(rows)) > twin
    return Rig(
        skeleton=Skeleton(name, names, edges, "mm"),
        joints=tuple(index),
        shown=shown,
        parent=parent,
        offset=offset,
        low=low,
        high=high,
        twin=twin,
        size=np.unique(labels, return_inverse=True)[1],
        source=np.where(paired, left, np.arange(len(rows))),
        sign=np.where(right[:, None], MIRRORED_ANGLES, 1.0),
        phase=np.array([row.phase or 0.0 for row in rows]),
        gait=_gait(rows, high - low),
        posture=_posture(name, left),
        activity=activity,
        variation=variation,
        rigid=rigid,
    )


def _sides(row: Joint) -> list[Joint]:
    """The row, and its mirror image where it has a side."""
    if not row.name.startswith("left_"):
        return [row]
    x, y, z = row.at
    roll, _, yaw = _limits(row).tolist()
    mirror = row._replace(
        name=other_side(row.name),
        parent=other_side(row.parent),
        at=(x, -y, z),
        roll=(-roll[1], -roll[0]),
        yaw=(-yaw[1], -yaw[0]),
        phase=None if row.phase is None else row.phase + 0.5,
    )
    return [row, mirror]


def _limits(row: Joint) -> Float[np.ndarray, "3 2"]:
    """Limits (low, high) of roll, pitch and yaw in degrees."""
    angles = (row.roll, row.pitch, row.yaw)
    pairs = [a if isinstance(a, tuple) else (-a, a) for a in angles]
    return np.array(pairs, float)


def _gait(rows: list[Joint], width: Float[np.ndarray, "j 3"]):
    driven = np.array([row.phase is not None for row in rows])
    widest = np.arange(3) == width.argmax(1)[:, None]
    return (driven[:, None] & widest).astype(float)


def _posture(name: str, left: Int[np.ndarray, "j"]) -> Float[np.ndarray, "j 3 k"]:
    """Fixed random modes of the category: half of them equal on both sides."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    modes = rng.normal(size=(len(left), 3, MODES))
    modes[..., : MODES // 2] = modes[left][..., : MODES // 2]
    return modes / np.linalg.norm(modes, axis=-1, keepdims=True)


def _edges(lines: str, names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Consecutive keypoints of every polyline, each pair once."""
    polylines = [[names.index(w) for w in line.split()] for line in lines.split(";")]
    pairs = (p for line in polylines for p in zip(line, line[1:], strict=False))
    return tuple(sorted({(min(p), max(p)) for p in pairs}))


def _contract(parent, offset, shown) -> tuple[tuple[int, int], ...]:
    """Edges of the tree after every joint is merged into its nearest keypoint."""
    n_joints = len(parent)
    length = np.linalg.norm(offset, axis=-1) + 1e-6
    distance = np.full((n_joints, len(shown)), np.inf)
    distance[shown, np.arange(len(shown))] = 0.0
    for _ in range(2):  # leaves to root, then root to leaves: exact on a tree
        for j in reversed(range(1, n_joints)):
            p = parent[j]
            distance[p] = np.minimum(distance[p], distance[j] + length[j])
        for j in range(1, n_joints):
            p = parent[j]
            distance[j] = np.minimum(distance[j], distance[p] + length[j])
    nearest = distance.argmin(1)
    pairs = {(nearest[j], nearest[parent[j]]) for j in range(1, n_joints)}
    return tuple(sorted({(int(min(p)), int(max(p))) for p in pairs if p[0] != p[1]}))
