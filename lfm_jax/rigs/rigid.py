"""The twelve rigid classes of Pascal3D+, with its keypoints: names, counts and order.

An individual is one object of the class and has one frame. Classes vary by size labels
(wheelbase against roof against lights) and by a few angles: wing sweep, the recline of
a back, the rake of a fork, the curve of a train. Left is that of somebody inside,
looking ahead; in Pascal3D+ "upper" on furniture means the rear, as seen from above.
Dimensions are those of common objects, in mm.
"""

from lfm_jax.rigs.skeletons import Joint, Rig, build_rig


def _rigid(name: str, joints, keypoints: str, lines: str, variation: float) -> Rig:
    return build_rig(
        name, joints, keypoints, lines=lines, variation=variation, rigid=True
    )


def _aeroplane() -> Rig:
    joints = (
        Joint("nose", at=(18000, 0, 0), size="fuselage"),
        Joint("tail", at=(-18000, 0, 1500), size="fuselage"),
        Joint("left_wing_root", yaw=(10, 45), roll=(-2, 14)),
        Joint("left_wing", "left_wing_root", (0, 17000, 0)),
        Joint("left_fin_root", "tail", (1500, 0, 0), yaw=(10, 45), roll=(-5, 20)),
        Joint("left_elevator", "left_fin_root", (0, 6500, 0)),
        Joint("rudder_root", "tail", (1500, 0, 300), pitch=(-50, -15)),
        Joint("rudder_lower", "rudder_root", (-1500, 0, 800), size="rudder"),
        Joint("rudder_upper", "rudder_root", (-500, 0, 6500), size="rudder"),
    )
    keypoints = """left_elevator left_wing noselanding=nose right_elevator right_wing
        rudder_lower rudder_upper tail"""
    lines = """left_wing noselanding right_wing tail left_wing;
        noselanding tail rudder_lower rudder_upper; left_elevator tail right_elevator"""
    return _rigid("aeroplane", joints, keypoints, lines, 0.22)


def _bicycle() -> Rig:
    joints = (
        Joint("left_back", at=(-500, 60, 340), size="back"),
        Joint("fork", at=(350, 0, 600), pitch=(-30, -5)),
        Joint("left_front", "fork", (0, 55, -420), size="fork"),
        Joint("head", "fork", (0, 0, 300)),
        Joint("left_handle", "head", (60, 280, 40), size="handle"),
        Joint("left_pedal", at=(-60, 110, 280), size="pedal"),
        Joint("seat", at=(-230, 0, 950), pitch=(-12, 8)),
        Joint("seat_front", "seat", (150, 0, 0)),
        Joint("seat_back", "seat", (-120, 0, 20)),
    )
    keypoints = """head_center=head left_back_wheel=left_back
        left_front_wheel=left_front left_handle left_pedal_center=left_pedal
        right_back_wheel=right_back right_front_wheel=right_front right_handle
        right_pedal_center=right_pedal seat_back seat_front"""
    lines = """left_handle head_center right_handle; left_front_wheel head_center
        right_front_wheel left_front_wheel; left_back_wheel right_back_wheel;
        left_back_wheel left_pedal_center head_center seat_front seat_back
        left_back_wheel; right_back_wheel right_pedal_center head_center;
        seat_back right_back_wheel; left_pedal_center right_pedal_center"""
    return _rigid("bicycle", joints, keypoints, lines, 0.17)


def _boat() -> Rig:
    joints = (
        Joint("bow", at=(3200, 0, 0), pitch=(-25, 15)),
        Joint("head", "bow", (1000, 0, 800)),
        Joint("head_down", "bow", (0, 0, -700)),
        Joint("left_head", at=(1500, 900, 700), size="beam"),
        Joint("left_tail", at=(-3300, 1000, 600), size="stern"),
        Joint("tail", at=(-3500, 0, -500)),
    )
    keypoints = """head head_down head_left=left_head head_right=right_head
        tail_left=left_tail tail_right=right_tail tail"""
    lines = """head head_left tail_left tail_right head_right head head_down tail;
        tail_left tail tail_right; head_left head_down head_right"""
    return _rigid("boat", joints, keypoints, lines, 0.22)


def _bottle() -> Rig:
    joints = (
        Joint("bottom", size="base"),
        Joint("left_bottom", "bottom", (0, 36, 0), size="base"),
        Joint("body", "bottom", (32, 0, 150)),
        Joint("left_body", "bottom", (0, 38, 150), size="shoulder"),
        Joint("mouth", "bottom", (0, 0, 260)),
    )
    keypoints = """mouth body body_left=left_body body_right=right_body bottom
        bottom_left=left_bottom bottom_right=right_bottom"""
    lines = """bottom_left bottom bottom_right body_right mouth body_left bottom_left;
        body_left body body_right; mouth body bottom"""
    return _rigid("bottle", joints, keypoints, lines, 0.26)


def _bus() -> Rig:
    joints = (
        Joint("left_front", at=(5200, 1200, 400), size="body"),
        Joint("left_front_top", "left_front", (0, 0, 2500), size="front"),
        Joint("left_back", at=(-5200, 1200, 400), size="body"),
        Joint("left_back_top", "left_back", (0, 0, 2500), size="back"),
        Joint("left_front_wheel", at=(3000, 1150, 300), size="front wheel"),
        Joint("left_back_wheel", at=(-2900, 1150, 300), size="back wheel"),
    )
    keypoints = """body_back_left_lower=left_back body_back_left_upper=left_back_top
        body_back_right_lower=right_back body_back_right_upper=right_back_top
        body_front_left_upper=left_front_top body_front_right_upper=right_front_top
        body_front_left_lower=left_front body_front_right_lower=right_front
        left_back_wheel left_front_wheel right_back_wheel right_front_wheel"""
    lines = """body_back_left_lower body_back_left_upper body_front_left_upper
        body_front_left_lower body_front_right_lower body_front_right_upper
        body_back_right_upper body_back_right_lower body_back_left_lower left_back_wheel
        left_front_wheel body_front_left_lower; body_back_left_upper
        body_back_right_upper; body_front_left_upper body_front_right_upper;
        body_back_right_lower right_back_wheel right_front_wheel
        body_front_right_lower"""
    return _rigid("bus", joints, keypoints, lines, 0.2)


def _car() -> Rig:
    joints = (
        Joint("left_front_wheel", at=(1350, 780, 320), size="front wheel"),
        Joint("left_back_wheel", at=(-1300, 780, 320), size="back wheel"),
        Joint("left_windshield", at=(250, 560, 1420), size="roof"),
        Joint("left_rearwindow", "left_windshield", (-1250, 0, -20)),
        Joint("left_light", at=(2100, 650, 660), size="light"),
        Joint("left_trunk", at=(-2000, 640, 950), size="trunk"),
    )
    keypoints = """left_front_wheel left_back_wheel right_front_wheel right_back_wheel
        upper_left_windshield=left_windshield upper_right_windshield=right_windshield
        upper_left_rearwindow=left_rearwindow upper_right_rearwindow=right_rearwindow
        left_front_light=left_light right_front_light=right_light
        left_back_trunk=left_trunk right_back_trunk=right_trunk"""
    lines = """left_front_light left_front_wheel left_back_wheel left_back_trunk
        upper_left_rearwindow upper_left_windshield left_front_light right_front_light
        right_front_wheel right_back_wheel right_back_trunk upper_right_rearwindow
        upper_right_windshield right_front_light; left_back_trunk right_back_trunk;
        upper_left_rearwindow upper_right_rearwindow;
        upper_left_windshield upper_right_windshield"""
    return _rigid("car", joints, keypoints, lines, 0.2)


def _chair() -> Rig:
    joints = (
        Joint("left_rear", at=(-210, 210, 450), size="seat", pitch=(-4, 16)),
        Joint("left_rear_leg", "left_rear", (0, 0, -450), size="legs"),
        Joint("left_fore", at=(210, 225, 450), size="seat", pitch=(-14, 4)),
        Joint("left_fore_leg", "left_fore", (0, 0, -450), size="legs"),
        Joint("recline", at=(-210, 0, 450), size="seat", pitch=(-35, 0)),
        Joint("left_back", "recline", (0, 200, 460), size="back"),
    )
    keypoints = """back_upper_left=left_back back_upper_right=right_back
        seat_upper_left=left_rear seat_upper_right=right_rear seat_lower_left=left_fore
        seat_lower_right=right_fore leg_upper_left=left_rear_leg
        leg_upper_right=right_rear_leg leg_lower_left=left_fore_leg
        leg_lower_right=right_fore_leg"""
    lines = """seat_upper_left back_upper_left back_upper_right seat_upper_right
        seat_lower_right seat_lower_left seat_upper_left seat_upper_right;
        seat_upper_left leg_upper_left; seat_upper_right leg_upper_right;
        seat_lower_left leg_lower_left; seat_lower_right leg_lower_right"""
    return _rigid("chair", joints, keypoints, lines, 0.2)


def _diningtable() -> Rig:
    joints = (
        Joint("left_rear", at=(-450, 800, 740), size="top"),
        Joint("left_fore", at=(450, 800, 740), size="top"),
        Joint("left_side", at=(0, 820, 740), size="top", roll=(-30, 5)),
        Joint("rear", at=(-460, 0, 740), size="top", pitch=(-5, 5)),
        Joint("fore", at=(460, 0, 740), size="top", pitch=(-5, 5)),
        Joint("left_rear_inset", "left_rear", (60, -80, 0), roll=(-25, 10)),
        Joint("left_rear_leg", "left_rear_inset", (0, 0, -740), size="legs"),
        Joint("left_fore_inset", "left_fore", (-60, -80, 0), roll=(-25, 10)),
        Joint("left_fore_leg", "left_fore_inset", (0, 0, -740), size="legs"),
    )
    keypoints = """leg_upper_left=left_rear_leg leg_upper_right=right_rear_leg
        leg_lower_left=left_fore_leg leg_lower_right=right_fore_leg
        top_upper_left=left_rear top_upper_right=right_rear top_lower_left=left_fore
        top_lower_right=right_fore top_up=rear top_down=fore top_left=left_side
        top_right=right_side"""
    lines = """top_upper_left top_up top_upper_right top_right top_lower_right top_down
        top_lower_left top_left top_upper_left leg_upper_left; top_upper_right
        leg_upper_right; top_lower_left leg_lower_left; top_lower_right
        leg_lower_right"""
    return _rigid("diningtable", joints, keypoints, lines, 0.24)


def _motorbike() -> Rig:
    joints = (
        Joint("back_seat", at=(-480, 0, 860), size="seat"),
        Joint("front_seat", at=(-50, 0, 820), size="seat"),
        Joint("fork", at=(450, 0, 720), pitch=(-45, -15)),
        Joint("head", "fork", (0, 0, 250)),
        Joint("headlight", "head", (150, 0, -60)),
        Joint("left_handle", "head", (-80, 360, 60)),
        Joint("left_front", "fork", (0, 75, -480)),
        Joint("left_back", at=(-700, 85, 310)),
    )
    keypoints = """back_seat front_seat head_center=head headlight_center=headlight
        left_back_wheel=left_back left_front_wheel=left_front
        left_handle_center=left_handle right_back_wheel=right_back
        right_front_wheel=right_front right_handle_center=right_handle"""
    lines = """left_handle_center head_center right_handle_center; head_center
        headlight_center; head_center front_seat back_seat; left_back_wheel
        back_seat right_back_wheel left_back_wheel; left_front_wheel head_center
        right_front_wheel left_front_wheel"""
    return _rigid("motorbike", joints, keypoints, lines, 0.18)


def _sofa() -> Rig:
    joints = (
        Joint("left_front", at=(420, 950, 0), size="body"),
        Joint("left_seat_front", "left_front", (0, -170, 420), size="seat"),
        Joint("left_seat_back", "left_seat_front", (-600, 0, -30), size="depth"),
        Joint("left_rear", at=(-420, 950, 0), size="body"),
        Joint("recline", at=(-420, 0, 300), size="body", pitch=(-30, 5)),
        Joint("left_top", "recline", (0, 930, 550), size="back"),
    )
    keypoints = """front_bottom_left=left_front front_bottom_right=right_front
        seat_bottom_left=left_seat_front seat_bottom_right=right_seat_front
        left_bottom_back=left_rear right_bottom_back=right_rear
        top_left_corner=left_top top_right_corner=right_top
        seat_top_left=left_seat_back seat_top_right=right_seat_back"""
    lines = """front_bottom_left front_bottom_right seat_bottom_right seat_bottom_left
        front_bottom_left left_bottom_back top_left_corner top_right_corner
        right_bottom_back front_bottom_right; left_bottom_back right_bottom_back;
        seat_bottom_left seat_top_left seat_top_right seat_bottom_right;
        seat_top_left top_left_corner; seat_top_right top_right_corner"""
    return _rigid("sofa", joints, keypoints, lines, 0.22)


def _train() -> Rig:
    joints = (
        Joint("mid1", at=(4000, 0, 0), yaw=40, size="car"),
        Joint("head", "mid1", (8000, 0, 0), size="car"),
        Joint("mid2", "mid1", (-8000, 0, 0), yaw=40, size="car"),
        Joint("tail", "mid2", (-8000, 0, 0), size="car"),
        Joint("head_top", "head", (-1000, 0, 4200), size="profile"),
    ) + tuple(
        Joint(f"left_{part}_{level}", part, (0, 1450, height), size="profile")
        for part in ("head", "mid1", "mid2", "tail")
        for level, height in (("bottom", 600), ("top", 3900))
    )
    sided = [
        f"{part}_{side}_{level}={side}_{part}_{level}"
        for part in ("head", "mid1", "mid2", "tail")
        for side in ("left", "right")
        for level in ("bottom", "top")
    ]
    keypoints = " ".join([*sided[:4], "head_top", *sided[4:]])
    rails = ("left_bottom", "left_top", "right_top", "right_bottom")
    lines = ";".join(
        [" ".join(f"{p}_{r}" for p in ("head", "mid1", "mid2", "tail")) for r in rails]
        + [
            " ".join(f"{p}_{r}" for r in (*rails, rails[0]))
            for p in ("head", "mid1", "mid2", "tail")
        ]
        + ["head_left_top head_top head_right_top"]
    )
    return _rigid("train", joints, keypoints, lines, 0.22)


def _tvmonitor() -> Rig:
    joints = (
        Joint("left_front_bottom", at=(0, 300, 0), size="screen"),
        Joint("left_front_top", at=(0, 300, 400), size="screen"),
        Joint("back", at=(-150, 0, 200), size="depth", pitch=(-15, 15)),
        Joint("left_back_bottom", "back", (0, 240, -150), size="shell"),
        Joint("left_back_top", "back", (0, 240, 150), size="shell"),
    )
    words = [(f, v, s) for f in ("front", "back") for v in ("bottom", "top")
             for s in ("left", "right")]  # fmt: skip
    keypoints = " ".join(f"{f}_{v}_{s}={s}_{f}_{v}" for f, v, s in words)
    ring = "{0}_bottom_left {0}_bottom_right {0}_top_right {0}_top_left {0}_bottom_left"
    bars = [f"front_{v}_{s} back_{v}_{s}" for f, v, s in words if f == "front"]
    lines = ";".join([ring.format("front"), ring.format("back"), *bars])
    return _rigid("tvmonitor", joints, keypoints, lines, 0.25)


RIGS = {
    "aeroplane": _aeroplane,
    "bicycle": _bicycle,
    "boat": _boat,
    "bottle": _bottle,
    "bus": _bus,
    "car": _car,
    "chair": _chair,
    "diningtable": _diningtable,
    "motorbike": _motorbike,
    "sofa": _sofa,
    "train": _train,
    "tvmonitor": _tvmonitor,
}
