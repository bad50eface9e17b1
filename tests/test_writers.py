"""Files of lifted keypoints, read back by other means than wrote them."""

import csv
import dataclasses
import json
import struct
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfm_jax.animation import turns_from_y
from lfm_jax.errors import LfmError
from lfm_jax.serve import Lifted
from lfm_jax.writers import AXES, write_lifted

RNG = np.random.default_rng(0)
NAMES = ("nose", "neck", "left hip")
FRAMES = np.array([4, 5, 8])  # Two were left out.


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32) * 100


VISIBLE = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
LIFTED = Lifted(
    category="dog",
    names=NAMES,
    edges=np.array([[0, 1]], np.int32),
    labels=("frame 4", "frame 5", "frame 8"),
    unknown=(),
    points2d=floats(3, 3, 2) * VISIBLE[..., None],
    visible=VISIBLE,
    points3d=floats(3, 3, 3),
    canonical=floats(3, 3, 3),
    posed=floats(3, 3, 3),
    scale=floats(3),
    rotation=floats(3, 3, 3),
    translation=floats(3, 2),
    reprojection=floats(3),
    unusual=np.zeros(3, bool),
    depth_sign="undetermined",
    expected_error=floats(3, 3),
    confidence=floats(3, 3),
    frames=FRAMES,
    individual="ada",
    fps=25.0,
    units="mm",
    unit_length=0.5,
)


def in_time(up):
    """What a time series must hold."""
    points = np.full((5, 3, 3), np.nan)
    points[FRAMES - 4] = LIFTED.points3d @ AXES[up].T
    return points


def number(cell):
    return float(cell or "nan")


def test_an_npz_is_plain_and_complete(tmp_path):
    write_lifted(tmp_path / "out.npz", LIFTED)
    assert [p.name for p in tmp_path.iterdir()] == ["out.npz"]
    with np.load(tmp_path / "out.npz", allow_pickle=False) as read:
        for field in dataclasses.fields(LIFTED):
            value = np.asarray(getattr(LIFTED, field.name))
            np.testing.assert_array_equal(read[field.name], value)


@pytest.mark.parametrize("up", AXES)
def test_a_table_of_anipose(tmp_path, up):
    write_lifted(tmp_path / "out.csv", LIFTED, up=up)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = [{k: number(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert [row["fnum"] for row in rows] == [4, 5, 6, 7, 8]
    points = [[[r[f"{n}_{c}"] for c in "xyz"] for n in NAMES] for r in rows]
    np.testing.assert_allclose(points, in_time(up), rtol=1e-7)
    # M and center lead back to the camera, in which the error can be found again.
    turn = np.array([[rows[0][f"M_{i}{j}"] for j in range(3)] for i in range(3)])
    np.testing.assert_allclose((points @ turn)[FRAMES - 4], LIFTED.points3d, rtol=1e-6)
    miss = np.linalg.norm(LIFTED.posed[..., :2] - LIFTED.points2d / 2, axis=-1)
    for k, name in enumerate(NAMES):
        given = VISIBLE[:, k]
        errors = np.array([rows[i][f"{name}_error"] for i in FRAMES - 4])
        np.testing.assert_allclose(errors[given], miss[given, k], rtol=1e-6)
        assert np.isnan(errors[~given]).all()
        assert [rows[i][f"{name}_ncams"] for i in FRAMES - 4] == given.tolist()


@pytest.mark.parametrize("up", AXES)
def test_a_trc(tmp_path, up):
    write_lifted(tmp_path / "out.trc", LIFTED, up=up)
    lines = (tmp_path / "out.trc").read_text().split("\n")
    cells = [line.split("\t") for line in lines]
    assert cells[0] == ["PathFileType", "4", "(X/Y/Z)", "out.trc"]
    said = dict(zip(cells[1], cells[2], strict=True))
    assert (said["DataRate"], said["Units"]) == ("25", "mm")
    assert (said["NumFrames"], said["NumMarkers"]) == ("5", "3")
    assert cells[3][:5] == ["Frame#", "Time", "nose", "", ""]
    assert cells[4][2:8] == ["X1", "Y1", "Z1", "X2", "Y2", "Z2"]
    assert lines[5] == "" and lines[-1] == ""
    table = np.array([[number(cell) for cell in row] for row in cells[6:-1]])
    np.testing.assert_allclose(table[:, 0], [5, 6, 7, 8, 9])
    np.testing.assert_allclose(table[:, 1], np.arange(4, 9) / 25)
    np.testing.assert_allclose(table[:, 2:].reshape(5, 3, 3), in_time(up), atol=1e-6)


@pytest.mark.parametrize("up", AXES)
def test_a_c3d(tmp_path, up):
    import ezc3d

    write_lifted(tmp_path / "out.c3d", LIFTED, up=up)
    read = ezc3d.c3d(str(tmp_path / "out.c3d"))
    point = read["parameters"]["POINT"]
    assert point["LABELS"]["value"] == list(NAMES)
    assert (point["UNITS"]["value"], point["RATE"]["value"]) == (["mm"], [25])
    points = read["data"]["points"][:3].transpose(2, 1, 0)
    np.testing.assert_allclose(points, in_time(up), rtol=1e-6)


@pytest.mark.parametrize("up", ["y", "z"])
def test_up_is_the_top_of_the_image_and_nothing_is_mirrored(up):
    turn = AXES[up]
    np.testing.assert_array_equal(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == 1
    top = turn @ (0, -1, 0)  # y runs down in an image.
    assert top["xyz".index(up)] == 1
    assert (turn @ (1, 0, 0)).tolist() == [1, 0, 0]


def read_glb(path):
    """The JSON of a binary glTF file, and its accessors as arrays; by the standard."""
    data = path.read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sII I4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    scene = json.loads(data[20 : 20 + size])
    blob = data[28 + size :]
    arrays = []
    for accessor in scene["accessors"]:
        view = scene["bufferViews"][accessor["bufferView"]]
        kind = {5123: "<u2", 5126: "<f4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        count = accessor["count"] * width
        assert view["byteOffset"] % 4 == 0
        assert view["byteLength"] == count * np.dtype(kind).itemsize
        flat = np.frombuffer(blob, kind, count, view["byteOffset"])
        arrays.append(flat.reshape(-1, width))
    return scene, arrays


def seen_in_glb(path):
    """For every node, its mesh and matrices [f 3 4] from the mesh to the world."""
    scene, arrays = read_glb(path)
    (animation,) = scene["animations"]
    moves = {}
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        target = channel["target"]
        moves[target["node"], target["path"]] = arrays[sampler["output"]]
        seconds = arrays[sampler["input"]][:, 0]
    found = {}
    for index, node in enumerate(scene["nodes"][1:], 1):
        moved = lambda path, index=index: moves.get((index, path))
        shift = moved("translation")
        scale = moved("scale")
        scale = np.tile(node["scale"], (len(shift), 1)) if scale is None else scale
        turn = moved("rotation")
        turn = np.tile((0, 0, 0, 1), (len(shift), 1)) if turn is None else turn
        turn = Rotation.from_quat(turn).as_matrix() * scale[:, None, :]
        found[node["name"]] = np.concatenate([turn, shift[..., None]], axis=-1)
    return seconds, found


DOWN = np.array([[0, 0, 0], [0, -5, 0], [0, 5, 0]], np.float32)  # a bone straight down


@pytest.mark.parametrize("points3d", [LIFTED.points3d, np.tile(DOWN, (3, 1, 1))])
def test_a_moving_skeleton_as_gltf(tmp_path, points3d):
    lifted = dataclasses.replace(LIFTED, points3d=points3d)
    write_lifted(tmp_path / "out.glb", lifted)
    seconds, nodes = seen_in_glb(tmp_path / "out.glb")
    np.testing.assert_allclose(seconds, np.array([0, 1, 4]) / 25.0, rtol=1e-6)
    true = points3d @ np.diag((1.0, -1.0, -1.0))  # y up, z towards the viewer
    true = 1e-3 * (true - true.mean((0, 1)))  # it was in mm
    assert set(nodes) == {*NAMES, "nose to neck"}
    size = np.abs(true).max()
    for index, name in enumerate(NAMES):
        np.testing.assert_allclose(
            nodes[name][..., 3], true[:, index], atol=1e-6 * size
        )
        ball = nodes[name][..., :3]
        np.testing.assert_allclose(ball, np.eye(3) * ball[:, :1, :1], atol=0)
    # the poles of a bone are its joints
    bone, pole = nodes["nose to neck"], np.array([0.0, 1.0, 0.0])
    for sign, joint in ((-1, 0), (1, 1)):
        tip = sign * bone[..., :3] @ pole + bone[..., 3]
        np.testing.assert_allclose(tip, true[:, joint], atol=1e-6 * size)


def test_lengths_that_are_not_known_are_made_to_fit_a_view(tmp_path):
    write_lifted(tmp_path / "out.glb", dataclasses.replace(LIFTED, units="input"))
    _, nodes = seen_in_glb(tmp_path / "out.glb")
    points = np.stack([nodes[name][..., 3] for name in NAMES], axis=1)
    np.testing.assert_allclose(np.ptp(points, axis=1).max(), 1.0, rtol=1e-6)


def test_bones_turn_by_no_more_than_they_move():
    """Through the poles too; of the two quaternions of a turn, the nearer one."""
    angle = np.linspace(0, 4 * np.pi, 60)
    ring = np.stack([np.sin(angle), np.cos(angle), 0.1 * np.ones(60)], axis=-1)
    flips = np.where(np.arange(60)[:, None] % 2, DOWN[1], DOWN[2])
    along = np.stack([ring, ring[:, [2, 1, 0]], flips, 0 * ring], axis=1)
    turns = turns_from_y(along)
    way = Rotation.from_quat(turns.reshape(-1, 4)).apply((0.0, 1.0, 0.0))
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    expected = np.where(length > 0, along, (0, 1, 0)) / np.where(length > 0, length, 1)
    np.testing.assert_allclose(way, expected.reshape(-1, 3), atol=1e-12)
    moved = np.arccos(np.sum(expected[1:, :2] * expected[:-1, :2], axis=-1))
    turned = 2 * np.arccos(np.sum(turns[1:, :2] * turns[:-1, :2], axis=-1))
    np.testing.assert_allclose(turned, moved, atol=1e-6)


def refused(path, *phrases, lifted=LIFTED, **options):
    with pytest.raises(LfmError) as caught:
        write_lifted(path, lifted, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith("."), sentence
    for phrase in phrases:
        assert phrase in sentence, sentence


def test_what_cannot_be_written(tmp_path, monkeypatch):
    unknown = dataclasses.replace(LIFTED, fps=np.nan)
    for suffix in ("c3d", "trc", "glb"):
        refused(tmp_path / f"out.{suffix}", "--fps", lifted=unknown)
    write_lifted(tmp_path / "out.csv", unknown)
    refused(tmp_path / "out.mat", ".npz, .csv, .trc, .c3d, .glb")
    refused(tmp_path / ".npz", ".npz, .csv, .trc, .c3d, .glb")
    refused(tmp_path / "out.npz", "--up", up="y")
    refused(tmp_path / "out.glb", "--up", up="z")
    monkeypatch.setitem(sys.modules, "ezc3d", None)
    refused(tmp_path / "out.c3d", "lfm_jax[c3d]")
    monkeypatch.setitem(sys.modules, "pygltflib", None)
    refused(tmp_path / "out.glb", "lfm_jax[gltf]")


@pytest.mark.parametrize("frames", [[4, 4, 5], [5, 4, 6], [0, 1, 2**40]])
def test_frames_that_are_no_time_series(tmp_path, frames):
    mixed = dataclasses.replace(LIFTED, frames=np.array(frames))
    refused(tmp_path / "out.csv", "time series", lifted=mixed)
    write_lifted(tmp_path / "out.npz", mixed)


@pytest.mark.parametrize(
    "name", ["out.npz", "out.csv", "out.trc", "out.c3d", "out.glb"]
)
def test_a_place_that_cannot_be_written(tmp_path, name):
    refused(tmp_path / "none" / name, "cannot be written")
    (tmp_path / name).mkdir()
    refused(tmp_path / name, "cannot be written")
    assert [p.name for p in tmp_path.iterdir()] == [name]
