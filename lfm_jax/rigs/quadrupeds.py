"""Four-footed mammals: fourteen species on one rig, keypoints of Animal Pose (20).

A species is a row of proportions of a standing animal. The gait is a trot: diagonal
legs together, left and right in antiphase; neck and back move slowly.
"""

import math
from typing import NamedTuple

from lfm_jax.rigs.skeletons import Joint, Number, Rig, Vector, build_rig

ANIMAL_POSE = """L_Eye=left_eye R_Eye=right_eye L_EarBase=left_ear R_EarBase=right_ear
    Nose=nose Throat=throat TailBase=tail Withers=withers L_F_Elbow=left_elbow
    R_F_Elbow=right_elbow L_B_Elbow=left_stifle R_B_Elbow=right_stifle
    L_F_Knee=left_carpus R_F_Knee=right_carpus L_B_Knee=left_hock R_B_Knee=right_hock
    L_F_Paw=left_forepaw R_F_Paw=right_forepaw L_B_Paw=left_hindpaw
    R_B_Paw=right_hindpaw"""
LINES = """R_EarBase R_Eye Nose L_Eye L_EarBase; L_Eye R_Eye; Nose Throat Withers;
    Withers TailBase; Throat L_F_Elbow L_F_Knee L_F_Paw;
    Throat R_F_Elbow R_F_Knee R_F_Paw; TailBase L_B_Elbow L_B_Knee L_B_Paw;
    TailBase R_B_Elbow R_B_Knee R_B_Paw"""


class Species(NamedTuple):
    """Proportions of a standing animal.

    Attributes:
        height: ground to withers, mm.
        trunk, width, neck, head: length from shoulder to hip, width between the legs,
            length of neck and head; over height.
        rise: elevation of the neck, degrees.
        drop: nose below the level of the head, degrees.
        leg: ground to elbow, over height.
        croup: height of the hips over that of the shoulders.
        broad: width of the head over its length.
    """

    height: float
    trunk: float
    width: float
    neck: float
    head: float
    rise: float
    drop: float
    leg: float
    croup: float = 1.0
    broad: float = 0.4


SPECIES = {
    #                  height trunk width neck head rise drop leg  croup broad
    "dog": Species(600, 0.85, 0.27, 0.38, 0.40, 45, 20, 0.52, 1.00, 0.45),
    "cat": Species(250, 1.10, 0.26, 0.28, 0.40, 45, 25, 0.44, 1.08, 0.70),
    "horse": Species(1600, 0.75, 0.25, 0.55, 0.38, 50, 50, 0.60, 0.98, 0.32),
    "cow": Species(1400, 0.95, 0.36, 0.35, 0.36, 8, 40, 0.48, 1.00, 0.45),
    "sheep": Species(700, 0.90, 0.35, 0.40, 0.33, 45, 45, 0.46, 1.02, 0.42),
    "elephant": Species(3000, 0.60, 0.35, 0.18, 0.32, 15, 75, 0.50, 0.92, 0.70),
    "giraffe": Species(3000, 0.42, 0.20, 0.72, 0.24, 65, 25, 0.64, 0.82, 0.35),
    "lion": Species(1100, 0.95, 0.30, 0.34, 0.42, 10, 25, 0.50, 0.93, 0.58),
    "cheetah": Species(800, 1.10, 0.24, 0.36, 0.27, 30, 20, 0.57, 0.98, 0.55),
    "bear": Species(1000, 0.95, 0.45, 0.30, 0.42, 5, 15, 0.40, 0.96, 0.55),
    "deer": Species(1000, 0.72, 0.22, 0.52, 0.30, 62, 35, 0.62, 1.04, 0.38),
    "pig": Species(700, 1.25, 0.42, 0.20, 0.48, -5, 35, 0.36, 1.00, 0.42),
    "fox": Species(380, 0.98, 0.24, 0.30, 0.50, 35, 5, 0.56, 1.02, 0.42),
    "camel": Species(1850, 0.68, 0.24, 0.62, 0.28, 28, 15, 0.64, 0.94, 0.36),
}


def _polar(length: Number, degrees: Number) -> Vector:
    """A bone of the midline, that many degrees above the horizon."""
    angle = math.radians(degrees)
    return (length * math.cos(angle), 0.0, length * math.sin(angle))


def _head(s: Species) -> tuple[Joint, ...]:
    h, half = s.head * s.height, 0.5 * s.head * s.broad * s.height
    nose = _polar(h, -s.drop)
    brow = tuple(0.45 * c for c in nose)
    neck = _polar(s.neck * s.height, s.rise)
    throat = (0.75 * neck[0] + 0.1 * h, 0.0, 0.75 * neck[2] - 0.3 * h)
    return (
        Joint("neck", "chest", (0.36 * s.trunk * s.height, 0, 0.0), (-15, 40), 8, 30),
        Joint("head", "neck", neck, (-25, 25), 15, 25),
        Joint("throat", "neck", throat, size="neck"),
        Joint("nose", "head", nose),
        Joint("left_eye", "head", (brow[0], half, brow[2] + 0.12 * h), size="face"),
        Joint("left_ear", "head", (-0.05 * h, 0.9 * half, 0.2 * h), size="face"),
    )


def _quadruped(s: Species) -> tuple[Joint, ...]:
    h, trunk, side = s.height, s.trunk * s.height, 0.5 * s.width * s.height
    back, leg = 0.85 * h, s.leg * h  # heights over ground of back and elbow
    hip, stifle, hock = 0.8 * s.croup * h, (s.leg + 0.06) * s.croup * h, 0.5 * leg
    return (
        Joint("trunk", pitch=4, roll=3, yaw=8),
        Joint("loin", "trunk", (-0.1 * trunk, 0, 0), (-12, 14), 4, 12, 0.1),
        Joint("chest", "trunk", (0.14 * trunk, 0, 0), (-6, 8), 4, 10),
        Joint("tail", "loin", (-0.47 * trunk, 0, s.croup * 0.93 * h - back)),
        Joint("withers", "chest", (0.28 * trunk, 0, h - back)),
        *_head(s),
        Joint("left_shoulder", "chest", (0.36 * trunk, side, leg + 0.2 * h - back),
              (-32, 28), 6, 0.0, 0.5),
        Joint("left_elbow", "left_shoulder", (-0.06 * h, 0, -0.2 * h), (-55, 5),
              phase=0.7),
        Joint("left_carpus", "left_elbow", (0.02 * h, 0, -0.52 * leg), (-5, 65),
              phase=0.75),
        Joint("left_forepaw", "left_carpus", (0.02 * h, 0, -0.48 * leg)),
        Joint("left_hip", "loin", (-0.38 * trunk, side, hip - back), (-35, 28),
              (-4, 8), 0.0, 0.0),
        Joint("left_stifle", "left_hip", (0.1 * h, 0, stifle - hip), (-10, 45),
              phase=0.2),
        Joint("left_hock", "left_stifle", (-0.14 * h, 0, hock - stifle), (-45, 10),
              phase=0.25),
        Joint("left_hindpaw", "left_hock", (0.03 * h, 0, -hock)),
    )  # fmt: skip


def _rig(name: str) -> Rig:
    return build_rig(name, _quadruped(SPECIES[name]), ANIMAL_POSE, lines=LINES)


RIGS = {name: lambda name=name: _rig(name) for name in SPECIES}
