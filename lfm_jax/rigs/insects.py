"""Insects: six legs in a tripod gait on one rig; keypoints of three data sets.

Drosophila has the 38 points of DeepFly3D (per side: three legs of five points, antenna,
three stripes of the abdomen), the locust the 35 of DeepPoseKit; the ant's 33 follow the
same scheme. A leg is a chain coxa, femur, tibia, tarsus; its left side is listed.
"""

from typing import NamedTuple

from lfm_jax.rigs.skeletons import Joint, Rig, Vector, build_rig

LEGS = ("front", "mid", "hind")


class Insect(NamedTuple):
    """Left half of an insect at rest; lengths over `unit` (mm), origin in the thorax.

    Attributes:
        unit: length of head and body, mm.
        legs: of the front, middle and hind leg: where the coxa starts, then the bones
            coxa, femur, tibia and tarsus.
        head, neck, antenna: head and neck on the thorax, antenna on the head.
        abdomen: bones of its two halves.
    """

    unit: float
    legs: tuple[tuple[Vector, ...], ...]
    neck: Vector
    head: Vector
    antenna: Vector
    abdomen: Vector


DROSOPHILA = Insect(
    2.5,
    (
        ((0.14, 0.06, -0.08), (0.05, 0.03, -0.13), (0.10, 0.18, 0.08),
         (0.06, 0.10, -0.18), (0.10, 0.10, -0.12)),
        ((0.02, 0.08, -0.10), (0.0, 0.04, -0.09), (0.02, 0.24, 0.10),
         (-0.01, 0.14, -0.20), (0.0, 0.14, -0.13)),
        ((-0.08, 0.07, -0.10), (-0.03, 0.04, -0.09), (-0.18, 0.19, 0.09),
         (-0.12, 0.08, -0.22), (-0.14, 0.07, -0.12)),
    ),
    (0.18, 0, 0.02), (0.08, 0, 0.02), (0.10, 0.03, 0.02), (-0.22, 0, 0.0),
)  # fmt: skip
LOCUST = Insect(
    50.0,
    (
        ((0.16, 0.05, -0.06), (0.01, 0.02, -0.05), (0.08, 0.09, 0.02),
         (0.06, 0.06, -0.09), (0.05, 0.03, -0.02)),
        ((0.02, 0.06, -0.06), (0.0, 0.02, -0.05), (-0.01, 0.12, 0.03),
         (-0.04, 0.08, -0.11), (-0.05, 0.03, -0.02)),
        ((-0.10, 0.06, -0.05), (-0.02, 0.02, -0.04), (-0.36, 0.08, 0.22),
         (0.20, 0.08, -0.32), (-0.12, 0.05, -0.02)),
    ),
    (0.14, 0, 0.0), (0.10, 0, 0.0), (0.22, 0.09, 0.10), (-0.26, 0, -0.01),
)  # fmt: skip
ANT = Insect(
    9.0,
    (
        ((0.10, 0.04, -0.06), (0.05, 0.04, -0.07), (0.14, 0.18, 0.14),
         (0.10, 0.14, -0.22), (0.08, 0.10, -0.06)),
        ((0.0, 0.05, -0.07), (0.0, 0.05, -0.07), (-0.02, 0.24, 0.16),
         (-0.05, 0.18, -0.25), (-0.05, 0.10, -0.06)),
        ((-0.10, 0.05, -0.07), (-0.04, 0.05, -0.07), (-0.22, 0.20, 0.18),
         (-0.22, 0.16, -0.28), (-0.14, 0.08, -0.06)),
    ),
    (0.16, 0, 0.03), (0.14, 0, 0.0), (0.10, 0.12, 0.10), (-0.20, 0, 0.05),
)  # fmt: skip


def _scaled(unit: float, vector: Vector) -> Vector:
    return tuple(unit * c for c in vector)


def _leg(s: Insect, which: int) -> tuple[Joint, ...]:
    """Coxa to tip; alternate legs of a side step half a cycle apart (tripods)."""
    name = f"left_{LEGS[which]}"
    base, coxa, femur, tibia, tarsus = (_scaled(s.unit, v) for v in s.legs[which])
    phase = 0.5 * (which % 2)
    return (
        Joint(f"{name}_coxa", "thorax", base, 20, 20, 28, phase, "thorax"),
        Joint(f"{name}_femur", f"{name}_coxa", coxa, 10, 28, 15, phase + 0.25),
        Joint(f"{name}_tibia", f"{name}_femur", femur, 15, 38, 10, phase + 0.3),
        Joint(f"{name}_tarsus", f"{name}_tibia", tibia, 8, 28, 8, phase + 0.4),
        Joint(f"{name}_tip", f"{name}_tarsus", tarsus),
    )


def _insect(s: Insect) -> tuple[Joint, ...]:
    u = s.unit
    x, _, z = s.abdomen
    stripes = tuple(
        Joint(f"left_stripe_{k}", "abdomen_1", _scaled(u, (x * share, wide, z + 0.06)),
              size="abdomen")
        for k, share, wide in ((1, 0.4, 0.12), (2, 0.9, 0.13), (3, 1.4, 0.09))
    )  # fmt: skip
    return (
        Joint("thorax", pitch=4, roll=4, yaw=4),
        Joint("neck", "thorax", _scaled(u, s.neck), 15, 10, 15),
        Joint("head", "neck", _scaled(u, s.head), 12, 10, 12),
        Joint("left_eye", "head", _scaled(u, (0.02, 0.05, 0.03)), size="head"),
        Joint("left_antenna", "head", _scaled(u, (0.05, 0.03, 0.03)), 25, 20, 30, 0.2),
        Joint("left_antenna_tip", "left_antenna", _scaled(u, s.antenna)),
        Joint("left_mandible", "head", _scaled(u, (0.1, 0.03, -0.03)), size="head"),
        Joint("abdomen", "thorax", _scaled(u, (-0.16, 0, 0.02)), (-20, 15), 5, 15),
        Joint("abdomen_1", "abdomen", _scaled(u, s.abdomen), (-20, 15), 4, 12),
        Joint("abdomen_2", "abdomen_1", _scaled(u, s.abdomen), size="abdomen"),
        *stripes,
        *(joint for which in range(3) for joint in _leg(s, which)),
    )


def _drosophila() -> Rig:
    chain = ("BODY_COXA=coxa", "COXA_FEMUR=femur", "FEMUR_TIBIA=tibia",
             "TIBIA_TARSUS=tarsus", "TARSUS_TIP=tip")  # fmt: skip
    names = []
    for side, letter in (("left", "L"), ("right", "R")):
        for leg in LEGS:
            for theirs, _, ours in (part.partition("=") for part in chain):
                names.append(f"{letter}{leg[0].upper()}_{theirs}={side}_{leg}_{ours}")
        names.append(f"{letter}_ANTENNA={side}_antenna")
        names += [f"{letter}_STRIPE_{k}={side}_stripe_{k}" for k in (1, 2, 3)]
    return build_rig("drosophila", _insect(DROSOPHILA), " ".join(names), activity=0.7)


def _legs(side: str, letter: str, first: int) -> list[str]:
    """Names of the joints of three legs, from the given link of the chain on."""
    chain = ("coxa", "femur", "tibia", "tarsus", "tip")[first:]
    return [
        f"{leg}leg{letter}{k}={side}_{inner}_{link}"
        for leg, inner in (("fore", "front"), ("mid", "mid"), ("hind", "hind"))
        for k, link in enumerate(chain, 1)
    ]


def _locust() -> Rig:
    names = ["head neck thorax abdomen1=abdomen_1 abdomen2=abdomen_2"]
    for side, letter in (("left", "L"), ("right", "R")):
        head = ("anttip", "antenna_tip"), ("antbase", "antenna"), ("eye", "eye")
        names += [f"{theirs}{letter}={side}_{ours}" for theirs, ours in head]
        names += _legs(side, letter, first=1)
    return build_rig("locust", _insect(LOCUST), " ".join(names), activity=0.7)


def _ant() -> Rig:
    names = ["head neck thorax petiole=abdomen abdomen=abdomen_2"]
    for side, letter in (("left", "L"), ("right", "R")):
        head = ("anttip", "antenna_tip"), ("antbase", "antenna")
        names += [f"{theirs}{letter}={side}_{ours}" for theirs, ours in head]
        names += _legs(side, letter, first=1)
    return build_rig("ant", _insect(ANT), " ".join(names), activity=0.7)


RIGS = {"drosophila": _drosophila, "locust": _locust, "ant": _ant}
