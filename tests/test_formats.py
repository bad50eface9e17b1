"""The files of other programs: what they say is read, what is broken is named.

Files are written by the programs' own libraries where these are small enough (pandas
for DeepLabCut, sleap-io for SLEAP), by hand else.
"""

import csv
import dataclasses
import io
import json
import pickle
import sys
import warnings

import h5py
import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from lfm_jax.data.readers import (
    THRESHOLD,
    apart,
    hdf5,
    read_keypoints,
    sleap,
)
from lfm_jax.errors import LfmError

PARTS = ("nose", "neck", "hip", "tail")
ANIMALS = ("ada", "bob")
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(2, 6, 4, 2)) * 100 + 300  # Animals, frames, keypoints.
SCORES = RNG.uniform(0.01, 0.99, size=(2, 6, 4))
HELD = hypothesis.HealthCheck.function_scoped_fixture


def few(count):
    return hypothesis.settings(
        max_examples=count, deadline=None, suppress_health_check=[HELD]
    )


def each(names, cases):
    """Cases that are told apart by their number."""
    return pytest.mark.parametrize(names, cases, ids=map(str, range(len(cases))))


def seen(points, scores, threshold):
    """What must come out of what a file holds."""
    visible = (scores >= threshold) & ~np.isnan(points).any(-1)
    return np.where(visible[..., None], points, 0).astype(np.float32), visible


def assert_read(individuals, points=POINTS, scores=SCORES, threshold=THRESHOLD):
    assert len(individuals) == len(points)
    for one, *truth in zip(individuals, points, scores, strict=True):
        points2d, visible = seen(*truth, threshold)
        np.testing.assert_array_equal(one.visible, visible)
        np.testing.assert_array_equal(one.points2d, points2d)
        assert one.names == PARTS


def table(points=POINTS, scores=SCORES, parts=PARTS, animals=ANIMALS):
    """As DeepLabCut holds it; `animals` is None for a project of one animal."""
    names = [["net"], *([animals] if animals else []), parts, ["x", "y", "likelihood"]]
    titles = ["scorer", *(["individuals"] if animals else []), "bodyparts", "coords"]
    values = np.concatenate((points, scores[..., None]), -1)
    flat = values.transpose(1, 0, 2, 3).reshape(points.shape[1], -1)
    return pd.DataFrame(flat, columns=pd.MultiIndex.from_product(names, names=titles))


def refused(path, *phrases, read=read_keypoints, **options):
    with pytest.raises(LfmError) as caught:
        read(path, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith("."), sentence
    for phrase in (path.name, *phrases):
        assert phrase in sentence, sentence


# ------------------------------------------------------------------ DeepLabCut

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9
)
DLC_WRITERS = {
    "a.csv": lambda frame, path: frame.to_csv(path),
    "fixed.h5": lambda frame, path: frame.to_hdf(path, key="df_with_missing", mode="w"),
    "table.h5": lambda frame, path: frame.to_hdf(
        path, key="df_with_missing", format="table", mode="w"
    ),
}


@pytest.mark.parametrize("name", DLC_WRITERS)
@pytest.mark.parametrize("animals", [ANIMALS, None])
def test_deeplabcut_in_each_of_its_layouts(tmp_path, name, animals):
    several = slice(None) if animals else slice(1)
    frame = table(POINTS[several], SCORES[several], animals=animals)
    frame.index += 30
    DLC_WRITERS[name](frame, tmp_path / name)
    individuals = read_keypoints(tmp_path / name)
    assert_read(individuals, POINTS[several], SCORES[several])
    assert tuple(one.individual for one in individuals) == (animals or ("",))
    assert individuals[0].frames.tolist() == [30, 31, 32, 33, 34, 35]


@hypothesis.given(
    parts=st.lists(WORDS, min_size=1, max_size=4, unique=True),
    animals=st.none() | st.lists(WORDS, min_size=1, max_size=2, unique=True),
    threshold=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@few(60)
def test_a_csv_of_deeplabcut_comes_back_as_it_was(
    tmp_path, parts, animals, threshold, seed
):
    rng = np.random.default_rng(seed)
    shape = (len(animals or "1"), 3, len(parts))
    points, scores = rng.normal(size=(*shape, 2)) * 1e3, rng.uniform(size=shape)
    points[rng.uniform(size=shape) < 0.2] = np.nan
    points[0, 0, 0], scores[0, 0, 0] = 7, 1
    table(points, scores, parts, animals).to_csv(tmp_path / "a.csv")
    individuals = read_keypoints(tmp_path / "a.csv", threshold=threshold)
    for one, *truth in zip(individuals, points, scores, strict=True):
        points2d, visible = seen(*truth, threshold)
        np.testing.assert_array_equal(one.points2d, points2d)
        np.testing.assert_array_equal(one.visible, visible)
        assert one.names == tuple(parts)


def test_labelled_images_have_paths_and_no_likelihoods(tmp_path):
    frame = table().drop(columns="likelihood", level="coords")
    index = [("labeled-data", "clip", f"img{i:03}.png") for i in range(6)]
    frame.index = pd.MultiIndex.from_tuples(index)
    for name in ("a.csv", "fixed.h5"):
        DLC_WRITERS[name](frame, tmp_path / name)
        individuals = read_keypoints(tmp_path / name)
        assert_read(individuals, scores=np.ones_like(SCORES))
        label = "frame 2 (labeled-data/clip/img002.png)"
        assert individuals[0].labels[2] == label


def test_individuals_need_not_have_the_same_keypoints(tmp_path):
    """DeepLabCut puts what is there once, such as a corner, into one of its own."""
    corner = table(POINTS[:1, :, :1], SCORES[:1, :, :1], ["corner"], ["single"])
    pd.concat((table(), corner), axis=1).to_csv(tmp_path / "a.csv")
    *animals, single = read_keypoints(tmp_path / "a.csv")
    assert_read(animals)
    assert (single.individual, single.names) == ("single", ("corner",))
    np.testing.assert_array_equal(single.points2d, animals[0].points2d[:, :1])


def test_rows_of_the_header_are_known_by_name_not_by_place(tmp_path):
    table().to_csv(tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    (tmp_path / "a.csv").write_text("".join(lines))
    assert_read(read_keypoints(tmp_path / "a.csv"))


def test_a_keypoint_that_is_missing_throughout_is_hidden_throughout(tmp_path):
    points = POINTS.copy()
    points[0, :, 2] = np.nan
    table(points).to_csv(tmp_path / "a.csv")
    one = read_keypoints(tmp_path / "a.csv")[0]
    assert not one.visible[:, 2].any() and one.visible.any()


def edit(change):
    """A DeepLabCut table as text, its rows of cells changed."""
    rows = list(csv.reader(io.StringIO(table().to_csv())))
    rows = change(rows) or rows
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def put(row, column, cell):
    return lambda rows: rows[row].__setitem__(column, cell)


@each(
    ("text", "phrases"),
    [
        ("", ["empty"]),
        ("\n\n\n", ["empty"]),
        ("\ufeff", ["empty"]),
        ("scorer,net", ["bodyparts"]),
        (edit(lambda rows: rows[:4]), ["no frames"]),
        (edit(lambda rows: rows[:3] + rows[4:]), ["'coords'", "header"]),
        (edit(lambda rows: rows[:2] + rows[3:]), ["'bodyparts'", "header"]),
        (edit(lambda rows: rows[4:]), ["nose_x"]),
        (edit(lambda rows: [row[:1] for row in rows]), ["no columns"]),
        (table().to_csv(sep=";", decimal=","), ["';'", "commas"]),
        (table().to_csv(sep="\t"), ["'\\t'", "commas"]),
        (table().to_csv()[:-30], ["line 10", "cells"]),
        (edit(lambda rows: rows[5].append("1")), ["line 6", "26 cells"]),
        (edit(put(6, 2, "12,5")), ["line 7", "'ada nose y'", "'12,5'"]),
        (edit(put(4, 3, "high")), ["line 5", "'ada nose likelihood'", "'high'"]),
        (edit(put(3, 5, "z")), ["'ada neck z'"]),
        (edit(put(3, 2, "x")), ["two columns 'ada nose x'"]),
        (edit(put(2, 2, "snout")), ["'ada nose y'"]),
        (edit(put(1, 13, "ada")), ["two columns 'ada nose x'"]),
        (table(scores=SCORES * 100).to_csv(), ["likelihoods up to", "0 and 1"]),
        (table(scores=SCORES * 0.1).to_csv(), ["no visible point", "--threshold"]),
        (table(POINTS * np.nan).to_csv(), ["no visible point"]),
        (table(POINTS / 1000).to_csv(), ["--image-size"]),
        (edit(put(4, 1, "inf")).replace(",0.", ",1."), ["frame 0", "'nose'", "inf"]),
        ("nose_x,nose_y\n1,2\x00", ["line 2"]),
        (b"nose_x,nose_y\n1,\xff", ["UTF-8", "byte 16"]),
        (table().to_csv().encode("utf-16"), ["UTF-8"]),
    ],
)
def test_broken_tables(tmp_path, text, phrases):
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(path, *phrases)


# ------------------------------------------------------------------ plain tables


def plain(points, scores, titles):
    cells = np.concatenate((points, scores[..., None]), -1).reshape(len(points), -1)
    return pd.DataFrame(cells, columns=titles)


@pytest.mark.parametrize("form", ["{}_{}", "{}.{}", "{} {}"])
@pytest.mark.parametrize("score", ["likelihood", "score", "confidence", "Visibility"])
def test_plain_tables(tmp_path, form, score):
    titles = [form.format(part, c) for part in PARTS for c in ("x", "y", score)]
    frame = plain(POINTS[0], SCORES[0], titles)
    frame.insert(0, "frame", range(7, 13))
    frame["nose_z"] = "ignored"
    frame.to_csv(tmp_path / "a.csv", index=False)
    individuals = read_keypoints(tmp_path / "a.csv")
    assert_read(individuals, POINTS[:1], SCORES[:1])
    assert individuals[0].frames.tolist() == list(range(7, 13))


def test_a_row_without_numbers_is_a_frame_all_the_same(tmp_path):
    (tmp_path / "a.csv").write_text("nose_x,nose_y\n1,2\n,\n\n5,6\n")
    (one,) = read_keypoints(tmp_path / "a.csv")
    assert one.visible[:, 0].tolist() == [True, False, True]


def test_rows_of_several_tracks_become_individuals(tmp_path):
    titles = [f"{part}.{c}" for part in PARTS for c in ("x", "y", "score")]
    frames = []
    for name, *values in zip(ANIMALS, POINTS, SCORES, strict=True):
        frame = plain(*values, titles)
        frame.insert(0, "track", name)
        frame.insert(1, "frame_idx", range(6))
        frame.insert(2, "instance.score", 0.5)  # as SLEAP exports it
        frames.append(frame)
    pd.concat(frames).sort_values("frame_idx").to_csv(tmp_path / "a.csv", index=False)
    individuals = read_keypoints(tmp_path / "a.csv")
    assert_read(individuals)
    assert tuple(one.individual for one in individuals) == ANIMALS


@each(
    ("text", "phrases"),
    [
        ("a,b\n1,2\n", ["nose_x", "'a, b'"]),
        ("nose_x,nose_y\n", ["no frames"]),
        ("nose_x,nose_z\n1,2\n", ["'nose y'"]),
        ("nose_x,nose_y,nose_x\n1,2,3\n", ["two columns 'nose x'"]),
        ("frame,nose_x,nose_y\none,1,2\n", ["line 2", "'frame'", "'one'"]),
        ("frame,nose_x,nose_y\n-1,1,2\n", ["line 2", "'-1'"]),
        ("frame,nose_x,nose_y\n1e99,1,2\n", ["line 2", "'1e99'"]),
        ("nose_x;nose_y\n1;2\n", ["';'"]),
        ("nose_x,nose_y\n1,2\n3\n", ["line 3", "1 cells"]),
        ("nose_x,nose_y\n1,2px\n", ["line 2", "'nose_y'", "'2px'"]),
    ],
)
def test_broken_plain_tables(tmp_path, text, phrases):
    path = tmp_path / "a.csv"
    path.write_text(text)
    refused(path, *phrases)


# ------------------------------------------------------------------ HDF5

# Without a process of its own, to save its start.
HERE = {".h5": hdf5.read, ".nwb": hdf5.read_nwb, ".slp": sleap.read}


def read_here(path):
    return HERE[path.suffix](path, THRESHOLD)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_in_a_table_is_never_run(tmp_path, protocol):
    path = tmp_path / "a.h5"
    DLC_WRITERS["table.h5"](table(), path)
    trap = pickle.dumps([("net", Trap(tmp_path / "sprung"))], protocol)
    with h5py.File(path, "r+") as file:
        attributes = file["df_with_missing/table"].attrs
        attributes["values_block_0_kind"] = np.void(trap)
    refused(path, "never run", read=read_here)
    assert not (tmp_path / "sprung").exists()
    with warnings.catch_warnings(action="ignore"):
        pickle.loads(trap)[0][1].close()
    assert (tmp_path / "sprung").exists()  # It was a trap.


def h5(change):
    def make(path):
        DLC_WRITERS["table.h5"](table(), path)
        with h5py.File(path, "r+") as file:
            change(file)

    return make


def shrink(file):
    file["df_with_missing/table"].resize((0,))


def retitle(value):
    def change(file):
        kind = pickle.dumps(value, 0)
        file["df_with_missing/table"].attrs["values_block_0_kind"] = np.bytes_(kind)

    return change


@each(
    ("make", "phrases"),
    [
        (lambda path: path.write_bytes(b""), ["damaged"]),
        (lambda path: path.write_text("nose_x,nose_y\n1,2\n"), ["damaged"]),
        (h5(lambda file: file.clear()), ["neither", "nothing"]),
        (h5(lambda file: file.move("df_with_missing/table", "t")), ["damaged"]),
        (h5(lambda file: file.copy("df_with_missing", "again")), ["neither", "again"]),
        (h5(shrink), ["no frames"]),
        (h5(retitle([("net", "nose", "x")])), ["1 titles of 24 columns"]),
        (h5(retitle([("net", "nose", 3)] * 24)), ["never run"]),
        (h5(retitle([("net", ["nose"], "x")] * 24)), ["no text"]),
        (h5(retitle([("net", "nose", "z")] * 24)), ["'nose z'"]),
        (h5(retitle([("net", "nose", "x")] * 24)), ["two columns"]),
        (h5(retitle({"net": "nose"})), ["never run"]),
        (h5(retitle([("nose", "x")] * 24)), ["without scorer"]),
        (lambda path: DLC_WRITERS["fixed.h5"](table().astype(str), path), ["damaged"]),
        (
            lambda path: DLC_WRITERS["fixed.h5"](table(scores=SCORES * 100), path),
            ["likelihoods up to"],
        ),
    ],
)
def test_broken_tables_of_hdf5(tmp_path, make, phrases):
    with warnings.catch_warnings(action="ignore"):
        make(tmp_path / "a.h5")
    refused(tmp_path / "a.h5", *phrases, read=read_here)


# ------------------------------------------------------------------ SLEAP


def sleap_labels(tracked=True, frames=(3, 5, 6, 8, 9, 10)):
    import sleap_io as sio

    skeleton = sio.Skeleton(list(PARTS), edges=[("nose", "neck")])
    video = sio.Video("clip.mp4", open_backend=False)
    tracks = [sio.Track(name) for name in ANIMALS]
    labelled = [
        sio.LabeledFrame(
            video=video,
            frame_idx=number,
            instances=[
                sio.PredictedInstance.from_numpy(
                    POINTS[k, i],
                    skeleton=skeleton,
                    point_scores=SCORES[k, i],
                    score=0.9,
                    track=tracks[k] if tracked else None,
                )
                for k in range(2)
            ],
        )
        for i, number in enumerate(frames)
    ]
    return sio.Labels(
        labelled, videos=[video], skeletons=[skeleton], tracks=tracks * tracked
    )


def save_sleap(path, labels):
    with warnings.catch_warnings(action="ignore"):
        import sleap_io as sio

        save = sio.save_slp if path.suffix == ".slp" else sio.save_analysis_h5
        save(labels, str(path))
    return path


@pytest.mark.parametrize("name", ["a.slp", "a.h5"])
def test_tracks_of_sleap(tmp_path, name):
    individuals = read_keypoints(save_sleap(tmp_path / name, sleap_labels()))
    assert_read(individuals)
    assert tuple(one.individual for one in individuals) == ANIMALS
    assert individuals[1].frames.tolist() == [3, 5, 6, 8, 9, 10]


def test_without_tracks_individuals_are_places_in_their_frame(tmp_path):
    path = save_sleap(tmp_path / "a.slp", sleap_labels(tracked=False))
    individuals = read_keypoints(path)
    assert_read(individuals)
    assert [one.individual for one in individuals] == ["0", "1"]


def test_what_a_person_labelled_replaces_what_was_predicted(tmp_path):
    import sleap_io as sio

    labels = sleap_labels()
    mended = RNG.normal(size=(4, 2)) * 100
    labels.labeled_frames[2].instances.append(
        sio.Instance.from_numpy(
            mended, skeleton=labels.skeletons[0], track=labels.tracks[1]
        )
    )
    individuals = read_keypoints(save_sleap(tmp_path / "a.slp", labels))
    points, scores = POINTS.copy(), SCORES.copy()
    points[1, 2], scores[1, 2] = mended, 1
    assert_read(individuals, points, scores)


@pytest.mark.parametrize("part", ["frames", "instances", "pred_points", "metadata"])
@pytest.mark.parametrize("gone", [True, False])
def test_broken_projects_of_sleap(tmp_path, part, gone):
    path = save_sleap(tmp_path / "a.slp", sleap_labels())
    with h5py.File(path, "r+") as file:
        del file[part]
        if not gone:
            file[part] = [1.0, 2.0]
    refused(path, "damaged or no file of SLEAP", read=read_here)


def test_projects_of_sleap_with_nothing_to_lift(tmp_path):
    path = save_sleap(tmp_path / "a.slp", sleap_labels(frames=()))
    refused(path, "no frames", read=read_here)
    labels = sleap_labels()
    labels.skeletons.append(sleap_labels().skeletons[0])
    path = save_sleap(tmp_path / "b.slp", labels)
    refused(path, "2 skeletons", read=read_here)


def test_without_sleap_io_the_mend_is_said(tmp_path, monkeypatch):
    path = save_sleap(tmp_path / "a.slp", sleap_labels())
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    refused(path, "lfm_jax[sleap]", read=read_here)


# ------------------------------------------------------------------ NWB


def save_nwb(path, times=None, change=lambda pose: None):
    """What the ndx-pose extension of NWB lays down."""
    with h5py.File(path, "w") as file:
        for name, *values in zip(ANIMALS, POINTS, SCORES, strict=True):
            pose = file.create_group(f"processing/behavior/{name}")
            pose.attrs["neurodata_type"] = "PoseEstimation"
            columns = np.moveaxis(values[0], 1, 0), values[1].T
            for part, points, scores in zip(PARTS, *columns, strict=True):
                series = pose.create_group(part)
                series.attrs["neurodata_type"] = "PoseEstimationSeries"
                series["data"], series["confidence"] = points, scores
                if times is not None:
                    series["timestamps"] = times
                else:
                    series["starting_time"] = 0.0
                    series["starting_time"].attrs["rate"] = 50.0
        change(file["processing/behavior/ada"])
    return path


def by_name(individuals):
    """NWB keeps its groups in the order of the alphabet."""
    order = [individuals[0].names.index(part) for part in PARTS]
    return [
        dataclasses.replace(
            one,
            points2d=one.points2d[:, order],
            visible=one.visible[:, order],
            names=PARTS,
        )
        for one in individuals
    ]


def test_poses_of_nwb(tmp_path):
    individuals = read_keypoints(save_nwb(tmp_path / "a.nwb"))
    assert_read(by_name(individuals))
    assert tuple(one.individual for one in individuals) == ANIMALS
    assert individuals[0].fps == 50


def test_times_of_nwb_number_the_frames(tmp_path):
    times = 3.5 + np.array([0, 1, 2, 5, 6, 7]) / 25
    one, _ = read_keypoints(save_nwb(tmp_path / "a.nwb", times))
    assert one.frames.tolist() == [0, 1, 2, 5, 6, 7]
    np.testing.assert_allclose(one.fps, 25)


def replace(data):
    def change(pose):
        del pose["nose/data"]
        pose["nose/data"] = data

    return change


@each(
    ("change", "phrase"),
    [
        (lambda pose: pose["nose"].pop("data"), "damaged or not"),
        (lambda pose: pose.clear(), "or none"),
        (lambda pose: pose.parent.clear(), "PoseEstimation"),
        (replace(np.ones((2, 2))), "different lengths"),
        (replace(np.ones(6)), "damaged"),
    ],
)
def test_broken_nwb(tmp_path, change, phrase):
    path = save_nwb(tmp_path / "a.nwb", change=change)
    refused(path, phrase, read=read_here)


# ------------------------------------------------------------------ MediaPipe


def landmarks(points, scores=None):
    scores = [None] * len(points) if scores is None else scores
    rows = zip(points.tolist(), scores, strict=True)
    return [{"x": x, "y": y, "z": 0.1, "visibility": v} for (x, y), v in rows]


SHARES, SURE = RNG.uniform(-0.2, 1.1, size=(3, 33, 2)), RNG.uniform(size=(3, 33))


@each(
    "wrap",
    [
        lambda frames: frames,
        lambda frames: {"frames": frames},
        lambda frames: [{"landmark": frame} for frame in frames],
        lambda frames: [{"pose_landmarks": [frame]} for frame in frames],
        lambda frames: [{"poseLandmarks": {"landmark": frame}} for frame in frames],
    ],
)
def test_landmarks_in_shares_become_pixels(tmp_path, wrap):
    frames = [landmarks(*pair) for pair in zip(SHARES, SURE.tolist(), strict=True)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(wrap(frames)))
    (one,) = read_keypoints(path, image_size=(1920, 1080))
    pixels = SHARES * (1920, 1080)
    points2d, visible = seen(pixels, SURE, THRESHOLD)
    np.testing.assert_array_equal(one.visible, visible)
    np.testing.assert_allclose(one.points2d, points2d, rtol=1e-5)
    assert one.names[11:13] == ("left_shoulder", "right_shoulder")
    assert (one.names[-1], len(set(one.names))) == ("right_foot_index", 33)


def test_hands_come_and_go_and_have_no_visibility(tmp_path):
    hands = [landmarks(SHARES[i, :21]) for i in range(3)]
    frames = [None, {"hand_landmarks": []}, {"hand_landmarks": hands[:2]}, hands[2]]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(frames))
    one, other = read_keypoints(path, image_size=(100, 100))
    assert one.visible.all(-1).tolist() == [False, False, True, True]
    assert other.visible.all(-1).tolist() == [False, False, True, False]
    assert one.names[:2] == ("wrist", "thumb_cmc") and one.names[-1] == "pinky_tip"


@each(
    ("frames", "options", "phrases"),
    [
        ([landmarks(SHARES[0])], {}, ["--image-size"]),
        (
            [landmarks(SHARES[0] * 500)],
            {"image_size": (9, 9)},
            ["leave --image-size out"],
        ),
        ([landmarks(SHARES[0]), landmarks(SHARES[0, :21])], {}, ["frame 1", "21"]),
        ([[{"x": 1, "y": "2"}]], {}, ["frame 0, landmark 0"]),
        ([[{"x": 1, "y": None}]], {}, ["frame 0, landmark 0"]),
        ([[{"x": 1, "y": 10**400}]], {}, ["frame 0", "inf"]),
        ([[{"x": 1}]], {}, ["COCO"]),
        ([None, None], {}, ["COCO"]),
    ],
)
def test_broken_landmarks(tmp_path, frames, options, phrases):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(frames))
    refused(path, *phrases, **options)


# ------------------------------------------------------------------ damage


def read_or_refused(path, **options):
    try:
        individuals = read_keypoints(path, **options)
    except LfmError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        return
    for one in individuals:
        assert np.isfinite(one.points2d).all()
        assert one.points2d.shape[:2] == one.visible.shape


def damage(content, seed, letters=bytes(range(256))):
    """Some bytes replaced, and, for every other seed, its end cut off."""
    rng = np.random.default_rng(seed)
    damaged = np.frombuffer(content, np.uint8).copy()
    damaged[rng.integers(len(damaged), size=3)] = rng.choice(list(letters), size=3)
    return damaged[: rng.integers(len(damaged)) if seed % 2 else None].tobytes()


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
@hypothesis.given(seed=st.integers(0, 2**32))
@few(100)
def test_damaged_text_is_read_or_refused(tmp_path, name, seed):
    frames = [landmarks(*pair) for pair in zip(SHARES, SURE.tolist(), strict=True)]
    text = {"a.csv": table().to_csv(), "a.json": json.dumps(frames)}[name]
    letters = b'0123456789.-e,:;x\n"[{\x00\xff'
    (tmp_path / name).write_bytes(damage(text.encode(), seed, letters))
    read_or_refused(tmp_path / name, image_size=(9, 9) if name == "a.json" else None)


@pytest.mark.parametrize("name", ["table.h5", "a.nwb", "a.slp"])
@pytest.mark.parametrize("seed", range(3))
def test_damaged_hdf5_is_read_or_refused(tmp_path, name, seed):
    path = tmp_path / name
    if name == "table.h5":
        DLC_WRITERS[name](table(), path)
    else:
        save_nwb(path) if name == "a.nwb" else save_sleap(path, sleap_labels())
    path.write_bytes(damage(path.read_bytes(), seed))
    read_or_refused(path)


@pytest.mark.parametrize("program", ["import os; os.abort()", "while True: pass"])
def test_a_library_that_crashes_or_hangs_is_an_error_like_others(
    tmp_path, monkeypatch, program
):
    monkeypatch.setattr(apart, "_PROGRAM", program)
    monkeypatch.setattr(apart, "_PATIENCE", 0.3)
    refused(save_nwb(tmp_path / "a.nwb"), "HDF5 library fails")


def test_an_error_of_the_other_process_is_the_one_that_it_had(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"")
    with pytest.raises(LfmError) as here:
        read_here(path)
    refused(path, str(here.value))


@pytest.mark.parametrize("threshold", [-0.1, 1.5, np.nan])
def test_a_threshold_that_is_no_probability(tmp_path, threshold):
    table().to_csv(tmp_path / "a.csv")
    with pytest.raises(LfmError, match="threshold"):
        read_keypoints(tmp_path / "a.csv", threshold=threshold)
