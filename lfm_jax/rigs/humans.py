"""People: bodies of several annotation schemes, a hand, a face, and all of it together.

One tree of a standing person, arms hanging, serves H36M-17, COCO-17, Panoptic-19,
MPII-16 and COCO-WholeBody-133 (names and order of each field), and with other
proportions the primates too.
"""

from lfm_jax.rigs.skeletons import Joint, Rig, build_rig

H36M = """root=pelvis right_hip right_knee right_foot=right_ankle left_hip left_knee
    left_foot=left_ankle spine thorax neck_base=neck head left_shoulder left_elbow
    left_wrist right_shoulder right_elbow right_wrist"""
COCO = """nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder
    left_elbow right_elbow left_wrist right_wrist left_hip right_hip left_knee
    right_knee left_ankle right_ankle"""
COCO_LINES = """left_ankle left_knee left_hip left_shoulder left_elbow left_wrist;
    right_ankle right_knee right_hip right_shoulder right_elbow right_wrist;
    left_hip right_hip; left_shoulder right_shoulder;
    left_shoulder left_ear left_eye nose right_eye right_ear right_shoulder;
    left_eye right_eye"""
PANOPTIC = """neck=thorax nose body_center=pelvis left_shoulder left_elbow left_wrist
    left_hip left_knee left_ankle right_shoulder right_elbow right_wrist right_hip
    right_knee right_ankle left_eye left_ear right_eye right_ear"""
MPII = """right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax
    upper_neck=neck head_top right_wrist right_elbow right_shoulder left_shoulder
    left_elbow left_wrist"""
FEET = """left_big_toe left_small_toe left_heel right_big_toe right_small_toe
    right_heel"""
OPEN_APE_POSE = """left_eye right_eye nose head neck left_shoulder left_elbow
    left_wrist right_shoulder right_elbow right_wrist hip=pelvis left_knee left_ankle
    right_knee right_ankle"""
OPEN_MONKEY_STUDIO = """nose head neck right_shoulder right_hand=right_wrist
    left_shoulder left_hand=left_wrist hip=pelvis right_knee right_foot=right_ankle
    left_knee left_foot=left_ankle tail"""

FINGERS = {  # base from the wrist, lengths of the three bones, direction; a left hand
    "thumb": ((25, -10, -20), (45, 35, 28), (0.60, -0.30, -0.74)),
    "forefinger": ((25, 0, -95), (42, 25, 20), (0.10, 0.0, -0.99)),
    "middle_finger": ((4, 0, -97), (46, 29, 21), (0.02, 0.0, -1.0)),
    "ring_finger": ((-15, 0, -90), (43, 27, 21), (-0.06, 0.0, -1.0)),
    "pinky_finger": ((-32, 0, -80), (33, 19, 18), (-0.15, 0.0, -0.99)),
}

# Joint, the joint it hangs from, place in mm with the origin between the ears, and the
# number of the landmark on the left and on the right (of the person) among the 68.
FACE_PIVOTS = (
    ("jaw", "skull", (15, 0, -15), {"pitch": (0, 24), "phase": 0.0}),
    ("upper_lip", "skull", (20, 0, -30), {"pitch": (-8, 6)}),
    ("left_brow_in", "skull", (-10, 12, 30), {"pitch": (-9, 8)}),
    ("left_brow_out", "skull", (-10, 30, 30), {"pitch": (-9, 7), "phase": 0.25}),
    ("left_lid", "skull", (62, 31, 22), {"pitch": (-15, 40), "paired": True}),
    ("left_corner", "skull", (20, 8, -46), {"pitch": (-14, 20), "yaw": (-12, 18)}),
)
FACE = (
    ("left_contour_0", "skull", (-5, 72, 15), 16, 0),
    ("left_contour_1", "skull", (-3, 71, -8), 15, 1),
    ("left_contour_2", "skull", (2, 68, -30), 14, 2),
    ("left_contour_3", "skull", (10, 62, -50), 13, 3),
    ("left_contour_4", "jaw", (24, 53, -68), 12, 4),
    ("left_contour_5", "jaw", (42, 41, -80), 11, 5),
    ("left_contour_6", "jaw", (60, 28, -88), 10, 6),
    ("left_contour_7", "jaw", (75, 14, -93), 9, 7),
    ("contour_8", "jaw", (82, 0, -95), 8, 8),
    ("left_brow_0", "left_brow_in", (88, 10, 40), 22, 21),
    ("left_brow_1", "left_brow_in", (88, 21, 45), 23, 20),
    ("left_brow_2", "left_brow_out", (84, 33, 47), 24, 19),
    ("left_brow_3", "left_brow_out", (77, 45, 44), 25, 18),
    ("left_brow_4", "left_brow_out", (66, 55, 36), 26, 17),
    ("nose_0", "skull", (86, 0, 25), 27, 27),
    ("nose_1", "skull", (93, 0, 14), 28, 28),
    ("nose_2", "skull", (100, 0, 3), 29, 29),
    ("nose_3", "skull", (107, 0, -8), 30, 30),
    ("nose_4", "skull", (94, 0, -20), 33, 33),
    ("left_nose_5", "skull", (92, 7, -19), 34, 32),
    ("left_nose_6", "skull", (86, 14, -17), 35, 31),
    ("left_lids_0", "skull", (74, 17, 22), 42, 39),
    ("left_lids_1", "left_lid", (79, 26, 28), 43, 38),
    ("left_lids_2", "left_lid", (78, 37, 28), 44, 37),
    ("left_lids_3", "skull", (68, 46, 23), 45, 36),
    ("left_lids_4", "skull", (75, 37, 18), 46, 41),
    ("left_lids_5", "skull", (77, 26, 18), 47, 40),
    ("left_lips_0", "left_corner", (72, 25, -46), 54, 48),
    ("left_lips_1", "upper_lip", (82, 14, -39), 53, 49),
    ("left_lips_2", "upper_lip", (88, 5, -36), 52, 50),
    ("lips_3", "upper_lip", (89, 0, -38), 51, 51),
    ("left_lips_4", "jaw", (79, 17, -54), 55, 59),
    ("left_lips_5", "jaw", (86, 8, -58), 56, 58),
    ("lips_6", "jaw", (86, 0, -60), 57, 57),
    ("left_lips_7", "left_corner", (74, 21, -46), 64, 60),
    ("left_lips_8", "upper_lip", (84, 7, -43), 63, 61),
    ("lips_9", "upper_lip", (86, 0, -43), 62, 62),
    ("left_lips_10", "jaw", (84, 7, -49), 65, 67),
    ("lips_11", "jaw", (85, 0, -49), 66, 66),
)
FEET_LINES = """left_heel left_ankle left_big_toe left_small_toe left_ankle;
    right_heel right_ankle right_big_toe right_small_toe right_ankle; nose face-30"""
FACE_LINES = ";".join(
    " ".join(f"face-{i}" for i in line)
    for line in (
        range(0, 17),
        range(17, 22),
        range(22, 27),
        [*range(27, 31), 33],
        range(31, 36),
        [*range(36, 42), 36],
        [*range(42, 48), 42],
        [*range(48, 60), 48],
        [*range(60, 68), 60],
        (0, 17),
        (16, 26),
        (21, 27, 22),
        (27, 39),
        (27, 42),
        (33, 51),
        (48, 60),
        (57, 8),
    )
)


def person(
    *, size=1.0, arm=1.0, leg=1.0, trunk=1.0, head=1.0, width=1.0, crouch=0.0, tail=0.0
) -> tuple[Joint, ...]:
    """A body; factors against a man of 1.75 m, `crouch` in degrees, `tail` in mm."""

    def at(factor, x, y, z):
        return (factor * size * x, width * size * y, factor * size * z)

    hip, knee = (-75 - crouch, 25 - crouch), (5 + crouch, 95 + crouch / 2)
    return (
        Joint("pelvis", pitch=10, roll=5, yaw=15),
        Joint("tail", "pelvis", (-tail, 0, tail / 4)),
        Joint("spine", "pelvis", at(trunk, -10, 0, 230), (-10, 35), 12, 15),
        Joint("thorax", "spine", at(trunk, 0, 0, 250), (-5, 15), 5, 10),
        Joint("neck", "thorax", at(trunk, 20, 0, 90), (-25, 30), 15, 45),
        Joint("head", "neck", at(head, 20, 0, 170), size="head"),
        Joint("head_top", "head", at(head, 0, 0, 45), size="head"),
        Joint("nose", "neck", at(head, 110, 0, 70), size="face"),
        Joint("left_eye", "neck", at(head, 90, 32, 105), size="face"),
        Joint("left_ear", "neck", at(head, 15, 75, 90), size="face"),
        Joint("left_shoulder", "thorax", at(trunk, 0, 180, -20), (-105, 35),
              (2, 70), 25, phase=0.5),
        Joint("left_elbow", "left_shoulder", at(arm, 0, 20, -290), (-120, -5),
              phase=0.6),
        Joint("left_wrist", "left_elbow", at(arm, 0, 0, -250), 20, 15, 20),
        Joint("left_hip", "pelvis", at(trunk, 0, 95, -40), hip, (-5, 30), 15, 0.0),
        Joint("left_knee", "left_hip", at(leg, 0, 5, -430), knee, phase=0.2),
        Joint("left_ankle", "left_knee", at(leg, 0, 0, -420), 20, 0, 10, 0.3),
        Joint("left_heel", "left_ankle", at(leg, -45, 0, -70), size="foot"),
        Joint("left_big_toe", "left_ankle", at(leg, 170, -15, -75), size="foot"),
        Joint("left_small_toe", "left_ankle", at(leg, 140, 55, -75), size="foot"),
    )  # fmt: skip


def hand(root: str, prefix: str = "") -> tuple[Joint, ...]:
    """Four joints for each finger of a left hand that hangs from the joint `root`."""
    joints = []
    for f, (finger, (base, lengths, direction)) in enumerate(FINGERS.items()):
        spread, phase = (15.0, 0.04 * f)
        name = f"{prefix}{finger}"
        curl = (-45, 15) if finger == "thumb" else (-85, 8)
        joints.append(
            Joint(f"{name}1", root, base, spread, curl, phase=phase, size=f"palm {f}")
        )
        for k, length in enumerate(lengths):
            at = tuple(length * d for d in direction)
            bend = (-80, 0) if k < 2 else 0.0
            previous, size = f"{name}{k + 1}", f"{finger} {k}"
            joints.append(
                Joint(f"{name}{k + 2}", previous, at, 0.0, bend, 0.0, phase, size)
            )
    return tuple(joints)


def face(root: str, at=(0.0, 0.0, 0.0)) -> tuple[Joint, ...]:
    """The 68 landmarks and the pivots of jaw, brows, lids and lips, on a skull."""
    place = {name: where for name, _, where, _ in FACE_PIVOTS} | {"skull": (0, 0, 0)}

    def bone(where, parent):
        return tuple(a - b for a, b in zip(where, place[parent], strict=True))

    pivots = [
        Joint(name, parent, bone(where, parent), **motion)
        for name, parent, where, motion in FACE_PIVOTS
    ]
    marks = [
        Joint(name, parent, bone(where, parent), size=name.split("_")[-2])
        for name, parent, where, _, _ in FACE
    ]
    return (Joint("skull", root, at), *pivots, *marks)


def face_keypoints() -> str:
    """The 68 landmarks in the order of their numbers."""
    mark = {left: name for name, _, _, left, _ in FACE}
    mark |= {
        right: name.replace("left_", "right_")
        for name, _, _, left, right in FACE
        if right != left
    }
    return " ".join(f"face-{i}={mark[i]}" for i in range(68))


def _hand21() -> Rig:
    names = " ".join(f"{finger}{k}" for finger in FINGERS for k in (1, 2, 3, 4))
    wrist = Joint("wrist", pitch=5)
    return build_rig("hand21", (wrist, *hand("wrist")), "wrist " + names, activity=0.6)


def _face68() -> Rig:
    return build_rig(
        "face68",
        face("world"),
        face_keypoints(),
        lines=FACE_LINES,
        activity=1.2,
        variation=0.1,
    )


def _wholebody() -> Rig:
    root = Joint("left_hand_root", "left_wrist", (0, 0, -12))
    body = (*person(), *face("neck", (22, 0, 85)), root)
    fingers = hand("left_hand_root", "left_")
    names, lines = [COCO, FEET, face_keypoints()], [COCO_LINES, FEET_LINES, FACE_LINES]
    for side in ("left", "right"):
        names.append(f"{side}_hand_root")
        lines.append(f"{side}_wrist {side}_hand_root")
        for finger in FINGERS:
            chain = " ".join(f"{side}_{finger}{k}" for k in (1, 2, 3, 4))
            names.append(chain)
            lines.append(f"{side}_hand_root {chain}")
    return build_rig(
        "human_wholebody133",
        (*body, *fingers),
        " ".join(names),
        lines=";".join(lines),
        activity=0.4,
    )


def _person(name: str, keypoints: str, lines: str = "", **proportions):
    joints = person(**proportions)
    return lambda: build_rig(name, joints, keypoints, lines=lines, activity=0.7)


RIGS = {
    "human_h36m17": _person("human_h36m17", H36M),
    "human_coco17": _person("human_coco17", COCO, COCO_LINES),
    "human_panoptic19": _person("human_panoptic19", PANOPTIC),
    "human_mpii16": _person("human_mpii16", MPII),
    "human_wholebody133": _wholebody,
    "hand21": _hand21,
    "face68": _face68,
    "macaque": _person(
        "macaque", OPEN_MONKEY_STUDIO, size=0.33, arm=1.1, leg=0.8, trunk=1.2,
        head=1.1, width=0.7, crouch=45, tail=250.0,
    ),
    "chimpanzee": _person(
        "chimpanzee", OPEN_APE_POSE, size=0.8, arm=1.25, leg=0.68, trunk=1.05,
        head=1.0, crouch=40,
    ),
    "gorilla": _person(
        "gorilla", OPEN_APE_POSE, size=1.0, arm=1.2, leg=0.65, trunk=1.1, head=1.2,
        width=1.6, crouch=25,
    ),
}  # fmt: skip
