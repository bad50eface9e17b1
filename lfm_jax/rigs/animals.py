"""Birds, fish, rodents and reptiles: a rig per body plan, a row of numbers per species.

Keypoints are those of CUB-200 (birds, 15), MAMMAL/DANNCE mouse-22 and Rat7M (20). For
fish and reptiles the field has no common set: the landmarks here are fin tips and
points of the spine, as morphometric studies place them. Swimming and crawling bodies
bend in a wave that travels from head to tail.
"""

from typing import NamedTuple

from lfm_jax.rigs.skeletons import Joint, Rig, build_rig

CUB = """back beak belly breast crown forehead left_eye left_leg=left_foot left_wing
    nape right_eye right_leg=right_foot right_wing tail=tail_tip throat"""
MOUSE22 = """left_ear_tip=left_ear right_ear_tip=right_ear nose=snout neck body_middle
    tail_root tail_middle tail_end=tail_tip left_paw left_paw_end=left_forepaw
    left_elbow left_shoulder right_paw right_paw_end=right_forepaw right_elbow
    right_shoulder left_foot left_knee left_hip right_foot right_knee right_hip"""
RAT7M = """HeadF=snout HeadB=crown HeadL=left_ear SpineF=neck SpineM=body_middle
    SpineL=tail_root Offset1=left_flank Offset2=left_rump HipL=left_hip HipR=right_hip
    ElbowL=left_elbow ArmL=left_paw ShoulderL=left_shoulder ShoulderR=right_shoulder
    ElbowR=right_elbow ArmR=right_paw KneeR=right_knee KneeL=left_knee ShinL=left_foot
    ShinR=right_foot"""
FISH = """snout left_eye right_eye nape throat spine_1 spine_2 spine_3 dorsal_fin
    anal_fin left_pectoral_fin right_pectoral_fin left_pelvic_fin right_pelvic_fin
    tail_fork tail_upper tail_lower"""
LIZARD = """snout left_eye right_eye neck chest loin tail_base tail_1 tail_2 tail_tip
    left_shoulder left_elbow left_forefoot right_shoulder right_elbow right_forefoot
    left_hip left_knee left_hindfoot right_hip right_knee right_hindfoot"""
TURTLE = """snout left_eye right_eye neck shell_top shell_front shell_back left_shell
    right_shell tail_tip left_shoulder left_elbow left_flipper right_shoulder
    right_elbow right_flipper left_hip left_hindfoot right_hip right_hindfoot"""
SNAKE_JOINTS = 14


class Bird(NamedTuple):
    """Lengths over that of the body (mm): neck, head with beak, wing, leg, tail."""

    body: float
    neck: float
    head: float
    wing: float
    leg: float
    tail: float
    rise: float  # of the neck, as a share of its length; the rest goes forward


class Fish(NamedTuple):
    """Length in mm, then depth, width and fins over length; upper lobe of the tail."""

    length: float
    depth: float
    width: float
    fin: float
    lobe: float


class Lizard(NamedTuple):
    """Trunk in mm, then head, tail, leg and width over the trunk."""

    trunk: float
    head: float
    tail: float
    leg: float
    width: float


BIRDS = {
    "sparrow": Bird(90, 0.12, 0.35, 1.1, 0.45, 0.65, 0.7),
    "eagle": Bird(450, 0.20, 0.33, 2.1, 0.40, 0.60, 0.3),
    "ostrich": Bird(1000, 0.95, 0.24, 0.6, 1.25, 0.35, 0.9),
}
FISHES = {
    "trout": Fish(400, 0.22, 0.11, 0.11, 0.11),
    "shark": Fish(2500, 0.17, 0.16, 0.20, 0.24),
    "angelfish": Fish(120, 0.62, 0.13, 0.30, 0.22),
}
LIZARDS = {
    "lizard": Lizard(80, 0.32, 1.7, 0.62, 0.26),
    "crocodile": Lizard(1600, 0.55, 1.15, 0.34, 0.36),
}


def _bird(name: str) -> Rig:
    s = BIRDS[name]
    b, head, wing, leg = s.body, s.head * s.body, s.wing * s.body, s.leg * s.body
    neck = (0.5 * (1 - s.rise) * s.neck * b, 0, 0.5 * s.rise * s.neck * b)
    joints = (
        Joint("body", pitch=10, roll=8, yaw=8),
        Joint("back", "body", (-0.05 * b, 0, 0.22 * b), size="trunk"),
        Joint("belly", "body", (-0.08 * b, 0, -0.22 * b), size="trunk"),
        Joint("breast", "body", (0.35 * b, 0, -0.12 * b), size="trunk"),
        Joint("neck", "body", (0.42 * b, 0, 0.12 * b), (-30, 45), 8, 25),
        Joint("neck_2", "neck", neck, (-25, 40), 8, 25, size="neck"),
        Joint("head", "neck_2", neck, (-35, 30), 15, 35, size="neck"),
        Joint("nape", "head", (-0.15 * head, 0, 0.05 * head), size="head"),
        Joint("throat", "head", (0.2 * head, 0, -0.28 * head), size="head"),
        Joint("crown", "head", (0.15 * head, 0, 0.3 * head), size="head"),
        Joint("forehead", "head", (0.4 * head, 0, 0.22 * head), size="head"),
        Joint("left_eye", "head", (0.28 * head, 0.22 * head, 0.1 * head), size="head"),
        Joint("beak", "head", (1.0 * head, 0, -0.05 * head)),
        Joint("left_wing_root", "body", (0.12 * b, 0.2 * b, 0.12 * b), 15, (-35, 55),
              (-10, 35), 0.0, paired=True),
        Joint("left_wrist", "left_wing_root", (0.05 * wing, 0.45 * wing, 0), 10,
              (-40, 25), (0, 70), 0.8, paired=True),
        Joint("left_wing", "left_wrist", (-0.2 * wing, 0.5 * wing, 0)),
        Joint("tail", "body", (-0.5 * b, 0, 0.02 * b), 25, 10, 15),
        Joint("tail_tip", "tail", (-s.tail * b, 0, 0)),
        Joint("left_leg", "body", (-0.08 * b, 0.13 * b, -0.18 * b), (-45, 35), 8,
              phase=0.0),
        Joint("left_knee", "left_leg", (0.1 * leg, 0, -0.5 * leg), (-70, 0), phase=0.7),
        Joint("left_foot", "left_knee", (-0.05 * leg, 0, -0.5 * leg)),
    )  # fmt: skip
    return build_rig(name, joints, CUB, activity=0.8)


def _fish(name: str) -> Rig:
    s = FISHES[name]
    length, depth, width = s.length, s.depth * s.length, 0.5 * s.width * s.length
    fin, tail = s.fin * length, 0.55 * s.lobe * length
    joints = (
        Joint("spine_1", pitch=3, roll=5, yaw=12, phase=0.0),
        Joint("skull", "spine_1", (0.08 * length, 0, 0), 6, 0, 14, 0.9),
        Joint("snout", "skull", (0.2 * length, 0, -0.05 * depth)),
        Joint("left_eye", "skull", (0.12 * length, 0.7 * width, 0.12 * depth)),
        Joint("nape", "skull", (0.04 * length, 0, 0.38 * depth), size="trunk"),
        Joint("throat", "skull", (0.06 * length, 0, -0.38 * depth), size="trunk"),
        Joint("left_gill", "spine_1", (0.06 * length, width, -0.2 * depth), 25, 30, 30,
              0.3),
        Joint("left_pectoral_fin", "left_gill", (-0.6 * fin, 0.7 * fin, -0.35 * fin)),
        Joint("spine_2", "spine_1", (-0.16 * length, 0, 0), 5, 8, 24, 0.8,
              size="trunk"),
        Joint("left_hip", "spine_2", (0, 0.5 * width, -0.42 * depth), 20, 20, 20, 0.6),
        Joint("left_pelvic_fin", "left_hip", (-0.5 * fin, 0.3 * fin, -0.4 * fin)),
        Joint("dorsal", "spine_2", (-0.02 * length, 0, 0.48 * depth), (-40, 15),
              size="trunk"),
        Joint("dorsal_fin", "dorsal", (-0.5 * fin, 0, 0.7 * fin)),
        Joint("spine_3", "spine_2", (-0.2 * length, 0, 0), 5, 8, 32, 0.6, size="trunk"),
        Joint("anal_fin", "spine_3", (-0.06 * length, 0, -0.3 * depth - 0.5 * fin)),
        Joint("tail_fork", "spine_3", (-0.2 * length, 0, 0), 5, 10, 42, 0.4),
        Joint("tail_upper", "tail_fork", (-tail, 0, s.lobe * length)),
        Joint("tail_lower", "tail_fork", (-0.7 * tail, 0, -0.08 * length - 0.2 * fin)),
    )  # fmt: skip
    return build_rig(name, joints, FISH, activity=1.6)


def _rodent(name: str, keypoints: str, b: float, ear: float, tail: float) -> Rig:
    """A rodent with trunk length `b` (mm); ear and tail over it."""
    joints = (
        Joint("body_middle", pitch=8, roll=4, yaw=10),
        Joint("chest", "body_middle", (0.12 * b, 0, 0), (-10, 20), 6, 20),
        Joint("neck", "chest", (0.38 * b, 0, -0.02 * b), (-30, 30), 12, 35),
        Joint("crown", "neck", (0.12 * b, 0, 0.08 * b), size="head"),
        Joint("snout", "neck", (0.42 * b, 0, -0.08 * b), size="head"),
        Joint("left_ear", "neck", (0.1 * b, 0.14 * b, (0.05 + ear) * b), size="head"),
        Joint("left_flank", "chest", (0.15 * b, 0.1 * b, 0.02 * b), size="trunk"),
        Joint("left_shoulder", "chest", (0.3 * b, 0.14 * b, -0.15 * b), 35, 12, 10,
              0.5, size="trunk"),
        Joint("left_elbow", "left_shoulder", (-0.08 * b, 0.03 * b, -0.14 * b), (-70, 5),
              phase=0.65),
        Joint("left_paw", "left_elbow", (0.1 * b, 0, -0.13 * b), 30, phase=0.7),
        Joint("left_forepaw", "left_paw", (0.07 * b, 0, -0.03 * b)),
        Joint("loin", "body_middle", (-0.15 * b, 0, 0), (-25, 15), 6, 20),
        Joint("tail_root", "loin", (-0.4 * b, 0, -0.08 * b), (-25, 15), 0, 25, 0.2),
        Joint("tail_middle", "tail_root", (-0.5 * tail * b, 0, 0), (-20, 20), 0, 35,
              0.05, "tail"),
        Joint("tail_tip", "tail_middle", (-0.5 * tail * b, 0, 0), size="tail"),
        Joint("left_rump", "loin", (-0.15 * b, 0.12 * b, 0.05 * b), size="trunk"),
        Joint("left_hip", "loin", (-0.28 * b, 0.15 * b, -0.12 * b), (-40, 25), 10, 10,
              0.0, size="trunk"),
        Joint("left_knee", "left_hip", (0.16 * b, 0.06 * b, -0.12 * b), (-15, 50),
              phase=0.2),
        Joint("left_foot", "left_knee", (-0.16 * b, 0, -0.12 * b)),
    )  # fmt: skip
    return build_rig(name, joints, keypoints, activity=1.2)


def _lizard(name: str) -> Rig:
    s = LIZARDS[name]
    b, head, tail, leg, side = (
        s.trunk * f for f in (1, s.head, s.tail / 3, s.leg / 2, s.width / 2)
    )
    joints = (
        Joint("trunk", pitch=3, roll=3, yaw=8),
        Joint("chest", "trunk", (0.2 * b, 0, 0), 5, 5, 18, 0.0, "trunk"),
        Joint("neck", "chest", (0.32 * b, 0, 0), (-25, 15), 8, 22, 0.1),
        Joint("snout", "neck", (head, 0, -0.1 * head), size="head"),
        Joint("left_eye", "neck", (0.45 * head, 0.3 * head, 0.15 * head), size="head"),
        Joint("left_shoulder", "chest", (0.25 * b, side, -0.08 * b), 15, (-10, 25), 35,
              0.5),
        Joint("left_elbow", "left_shoulder", (0, leg, 0.02 * b), (-5, 10), 25,
              (-60, 20), 0.7),
        Joint("left_forefoot", "left_elbow", (0.5 * leg, 0.4 * leg, -0.8 * leg)),
        Joint("loin", "trunk", (-0.15 * b, 0, 0), 5, 5, 18, 0.75, "trunk"),
        Joint("tail_base", "loin", (-0.35 * b, 0, 0), 8, 0, 28, 0.55),
        Joint("left_hip", "loin", (-0.3 * b, 0.9 * side, -0.08 * b), 15, (-10, 25), 35,
              0.0),
        Joint("left_knee", "left_hip", (0.1 * leg, 1.1 * leg, 0.03 * b), (-5, 10), 25,
              (-20, 60), 0.2),
        Joint("left_hindfoot", "left_knee", (-0.5 * leg, 0.5 * leg, -0.9 * leg)),
        Joint("tail_1", "tail_base", (-tail, 0, 0), 8, 0, 25, 0.4, "tail"),
        Joint("tail_2", "tail_1", (-tail, 0, 0), 8, 0, 30, 0.2, "tail"),
        Joint("tail_tip", "tail_2", (-tail, 0, 0), size="tail"),
    )  # fmt: skip
    return build_rig(name, joints, LIZARD, activity=1.2)


def _snake() -> Rig:
    """A snake with its head raised and the rest of it on the ground."""
    bones = [(-25, 0, -55)] * 4 + [(-60, 0, 0)] * (SNAKE_JOINTS - 4)
    wave = [
        Joint(f"spine_{k}", f"spine_{k - 1}" if k > 1 else "neck", bone, 6, 0, 20,
              -0.09 * k, "raised" if bone[2] else "spine")
        for k, bone in enumerate(bones[:-1], 1)
    ]  # fmt: skip
    joints = (
        Joint("neck", pitch=5, yaw=20, phase=0.0),
        Joint("skull", "neck", pitch=(-30, 10), yaw=30, phase=0.3),
        Joint("snout", "skull", (55, 0, -4), size="head"),
        Joint("left_eye", "skull", (36, 10, 6), size="head"),
        *wave,
        Joint("tail_tip", f"spine_{SNAKE_JOINTS - 1}", bones[-1], size="spine"),
    )
    spine = " ".join(f"spine_{k}" for k in range(1, SNAKE_JOINTS))
    return build_rig("snake", joints, f"snout left_eye right_eye neck {spine} tail_tip")


def _turtle() -> Rig:
    joints = (
        Joint("shell", pitch=5, roll=8, yaw=5),
        Joint("shell_top", "shell", (0, 0, 110), size="shell"),
        Joint("shell_front", "shell", (210, 0, 20), size="shell"),
        Joint("shell_back", "shell", (-260, 0, 5), size="shell"),
        Joint("left_shell", "shell", (10, 210, 0), size="shell"),
        Joint("neck", "shell", (190, 0, -15), (-30, 25), 5, 40),
        Joint("head", "neck", (90, 0, 15), (-25, 30), 10, 35),
        Joint("snout", "head", (85, 0, -10), size="head"),
        Joint("left_eye", "head", (45, 28, 20), size="head"),
        Joint("tail_tip", "shell", (-330, 0, -20)),
        Joint("left_shoulder", "shell", (150, 120, -35), 20, 40, 30, 0.0, "shell"),
        Joint("left_elbow", "left_shoulder", (60, 130, -10), 20, 40, (-20, 50), 0.85),
        Joint("left_flipper", "left_elbow", (-80, 210, -15)),
        Joint("left_hip", "shell", (-180, 110, -35), 15, 20, 35, 0.5, "shell"),
        Joint("left_hindfoot", "left_hip", (-130, 90, -25)),
    )
    return build_rig("turtle", joints, TURTLE, activity=1.2)


RIGS = (
    {name: lambda name=name: _bird(name) for name in BIRDS}
    | {name: lambda name=name: _fish(name) for name in FISHES}
    | {
        "mouse": lambda: _rodent("mouse", MOUSE22, 60.0, 0.12, 1.3),
        "rat": lambda: _rodent("rat", RAT7M, 150.0, 0.06, 1.0),
    }
    | {name: lambda name=name: _lizard(name) for name in LIZARDS}
    | {"snake": _snake, "turtle": _turtle}
)
