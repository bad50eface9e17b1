"""From archives to training and evaluation: one view per frame, and no 3D in training.

Tiny archives, written here: a moving shape in `cat`, single frames in `skull`.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from lfm_jax.config import DataConfig
from lfm_jax.data import dataset, views
from lfm_jax.data.archive import Category, write_category
from lfm_jax.errors import LfmError
from lfm_jax.types import Labelled, Observation

MADE = ("orthographic", "static", "orbit", "upright", "perspective")


def category(name="cat", frames=60, keypoints=6, clips=6, **fields):
    rng = np.random.default_rng(len(name))
    points3d = 100 * rng.normal(size=(frames, keypoints, 3)) + 5000
    base = dict(
        name=name,
        keypoints=tuple(f"k{i}" for i in range(keypoints)),
        edges=np.zeros((0, 2), np.int32),
        units="mm",
        sequence=np.repeat(np.arange(clips), frames // clips).astype(np.int32),
        points3d=points3d.astype(np.float32),
        up=np.array([0, 0, 1], np.float32),
    )
    return Category(**base | fields)


def save(folder, *categories):
    folder.mkdir(exist_ok=True)
    for one in categories:
        write_category(folder / f"{one.name}.npz", one)
    return str(folder)


def usual(folder):
    skull = category("skull", clips=60, keypoints=9)
    skull.points3d[::3, 2] = np.nan
    return save(folder, category(), skull)


def open_usual(tmp_path, **options):
    config = DataConfig(dir=usual(tmp_path / "archive"), **options)
    return dataset.open_dataset(config, str(tmp_path / "run"))


def everything(opened):
    evaluation = opened.evaluation
    return (*evaluation.train, *evaluation.validation, *evaluation.test)


def unfilmed(labelled):
    """The observation, without its clips."""
    return dataclasses.replace(labelled.observation, clip=None)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("camera", MADE)
def test_2d_is_the_image_of_the_3d_in_the_camera_frame(tmp_path, camera):
    for labelled in everything(open_usual(tmp_path, camera=camera)):
        points2d, points3d = labelled.observation.points2d, labelled.points3d
        expected = points3d[..., :2]
        if camera == "perspective":
            assert points3d[..., 2][labelled.evaluated].min() > 0
            depth = np.where(labelled.evaluated, points3d[..., 2], 1)[..., None]
            # the focal length is the distance of the centre
            distance = np.nanmean(
                np.where(labelled.evaluated, points3d[..., 2], np.nan), axis=1
            )
            expected = distance[:, None, None] * expected / depth
        np.testing.assert_allclose(points2d, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("camera", MADE)
def test_the_camera_frame_holds_the_same_shape_unmirrored_in_the_same_units(camera):
    source = category()
    view = views.one_view(source, 0, camera, 0)

    def edges(points):
        centred = points.astype(np.float64) - points.mean(axis=1, keepdims=True)
        return centred

    before, after = edges(source.points3d), edges(view.points3d)
    gram = np.einsum("fik,fjk->fij", before, before)
    np.testing.assert_allclose(
        gram, np.einsum("fik,fjk->fij", after, after), rtol=1e-3, atol=5
    )
    volume = np.linalg.det(before[:, :3])
    np.testing.assert_allclose(volume, np.linalg.det(after[:, :3]), rtol=1e-2, atol=500)


def test_missing_points_are_not_observed_annotated_or_evaluated(tmp_path):
    seen = 0
    for labelled in everything(open_usual(tmp_path)):
        observation, mask = labelled.observation, labelled.evaluated
        np.testing.assert_array_equal(observation.observed, mask)
        np.testing.assert_array_equal(observation.annotated, mask)
        assert not observation.points2d[~mask].any()
        assert not labelled.points3d[~mask].any()
        seen += (~mask).sum()
    assert seen == 20


def test_training_has_the_2d_of_evaluation_and_nothing_else(tmp_path):
    opened = open_usual(tmp_path)
    for trained, labelled in zip(
        opened.training.observations, opened.evaluation.train, strict=True
    ):
        assert type(trained) is Observation and type(labelled) is Labelled
        assert_same(trained, unfilmed(labelled))
    names = [skeleton.name for skeleton in opened.training.skeletons]
    assert names == ["cat", "skull"]
    assert [set(o.category) for o in opened.training.observations] == [{0}, {1}]
    record = opened.split["categories"]
    np.testing.assert_array_equal(
        opened.training.sequences[1], record["skull"]["train"]
    )


def test_what_is_evaluated_knows_its_clips(tmp_path):
    opened = open_usual(tmp_path)
    for part in ("train", "validation", "test"):
        for clips, (name, record), labelled in zip(
            (6, 60),
            opened.split["categories"].items(),
            getattr(opened.evaluation, part),
            strict=True,
        ):
            sequence = category(name, clips=clips).sequence[record[part]]
            clip = labelled.observation.clip
            assert clip[0] == 0 and clip.dtype == np.int32
            np.testing.assert_array_equal(np.diff(clip), np.diff(sequence) != 0)


def test_what_is_prepared_has_no_place_for_3d(tmp_path):
    open_usual(tmp_path)
    features = next((tmp_path / "run").glob("tfds/**/features.json")).read_text()
    held = json.loads(features)["featuresDict"]["features"]
    assert set(held) == {"category", "sequence", "points2d", "observed", "annotated"}
    assert '"3"' not in features
    assert list((tmp_path / "run").glob("tfds/**/*array_record*"))


def prepared(tmp_path):
    files = (tmp_path / "run").glob("tfds/**/*array_record*")
    return {file: file.stat().st_mtime_ns for file in files}


def test_prepared_data_is_reused_and_a_changed_archive_prepared_anew(tmp_path):
    first = open_usual(tmp_path)
    before = prepared(tmp_path)
    assert_same(open_usual(tmp_path).training.observations, first.training.observations)
    assert prepared(tmp_path) == before
    changed = category()
    changed.points3d[0, 0, 0] += 1
    save(tmp_path / "archive", changed)
    config = DataConfig(dir=str(tmp_path / "archive"))
    second = dataset.open_dataset(config, str(tmp_path / "run"))
    assert len(prepared(tmp_path)) == len(before) + 1
    assert_same(second.training.observations[0], unfilmed(second.evaluation.train[0]))
    apart = (
        second.training.observations[0].points2d
        - first.training.observations[0].points2d
    )
    assert np.abs(apart[0]).max() > 0.01 and np.abs(apart[1:]).max() == 0


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_prepared_data_is_noticed(tmp_path, damage):
    open_usual(tmp_path)
    (file,) = prepared(tmp_path)
    held = file.read_bytes()
    half = len(held) // 2
    if damage == "cut":
        file.write_bytes(held[:half])
    else:
        file.write_bytes(bytes(half) + held[half:])
    with pytest.raises(LfmError, match="delete that folder"):
        open_usual(tmp_path)


CHILD = """
import sys, numpy as np
from lfm_jax.config import DataConfig
from lfm_jax.data import dataset, mixture
opened = dataset.open_dataset(DataConfig(dir=sys.argv[1]), sys.argv[2])
stream = iter(mixture.training_batches(opened.training, per_category=2, seed=5))
for _ in range(3):
    next(stream)
assert "tensorflow" not in sys.modules, "tensorflow was imported"
np.savez(sys.argv[3], *[o.points2d for o in opened.training.observations])
"""


def test_another_process_sees_the_same_2d_and_no_tensorflow(tmp_path):
    here = open_usual(tmp_path)
    command = [sys.executable, "-c", CHILD]
    paths = [tmp_path / "archive", tmp_path / "elsewhere", tmp_path / "out.npz"]
    root = pathlib.Path(dataset.__file__).parents[2]
    done = subprocess.run(
        [*command, *map(str, paths)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(paths[2]) as there:
        for i, observation in enumerate(here.training.observations):
            np.testing.assert_array_equal(there[f"arr_{i}"], observation.points2d)


def test_a_view_is_fixed_by_frame_and_view_seed_alone(tmp_path):
    # neither the other categories, nor the id, nor later frames matter
    whole = category("cat")
    half = category("cat", points3d=whole.points3d[:30], sequence=whole.sequence[:30])
    full = views.one_view(whole, 0, "orthographic", 0).observation.points2d
    part = views.one_view(half, 3, "orthographic", 0).observation.points2d
    np.testing.assert_array_equal(full[:30], part)
    other = views.one_view(whole, 0, "orthographic", 1).observation.points2d
    assert np.abs(full - other).max(axis=(1, 2)).min() > 1


def test_static_and_orbit_follow_the_clip():
    # the same shape in every frame shows the camera: still within a clip, or turning
    shape = 100 * np.random.default_rng(0).normal(size=(1, 6, 3))
    still = category(points3d=np.repeat(shape, 60, axis=0).astype(np.float32))
    static = views.one_view(still, 0, "static", 0).points3d.reshape(6, 10, 6, 3)
    np.testing.assert_array_equal(static, np.repeat(static[:, :1], 10, axis=1))
    assert np.abs(static[0] - static[1]).max() > 10
    orbit = views.one_view(still, 0, "orbit", 0).points3d.reshape(6, 10, 6, 3)
    moved = np.linalg.norm(np.diff(orbit, axis=1), axis=-1).max(axis=(1, 2))
    reach = np.linalg.norm(orbit, axis=-1).max()
    assert (moved > 0).all() and (moved < np.radians(3) * reach * 1.01).all()
    assert np.abs(orbit[0, 0] - orbit[1, 0]).max() > 10


def seen_by_real_cameras(**fields):
    """Three cameras of which each misses some points and some frames."""
    source = category(frames=200, clips=200)
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3, 3)))[0]
    rotation *= np.linalg.det(rotation)[:, None, None]
    points2d = 0.3 * np.einsum("vij,fnj->vfni", rotation[:, :2], source.points3d) + 400
    visible = rng.random((3, 200, 6)) > 0.05
    visible[rng.random((3, 200)) < 0.4] = False
    points2d[~visible] = np.nan
    return category(
        frames=200,
        clips=200,
        projected2d_views=points2d.astype(np.float32),
        visibility_views=visible,
        **fields,
    )


def test_real_cameras_show_one_view_of_each_frame_that_sees_enough():
    source = seen_by_real_cameras()
    view = views.one_view(source, 0, "real", 0)
    observation = view.observation
    known = np.nan_to_num(source.projected2d_views)
    match = (known == observation.points2d).all(axis=(2, 3))
    match &= (source.visibility_views == observation.observed).all(axis=2)
    assert match.any(axis=0).all()
    enough = source.visibility_views.sum(axis=2) >= views.MIN_VISIBLE
    used = observation.observed.sum(axis=1) >= views.MIN_VISIBLE
    np.testing.assert_array_equal(used, enough.any(axis=0))
    assert all(((match == 1) & enough)[v].sum() > 20 for v in range(3))
    assert view.evaluated.all() and not observation.observed.all()


def test_real_cameras_turn_the_truth_into_their_own_frame():
    view = views.one_view(seen_by_real_cameras(), 0, "real", 0)
    observed = view.observation.observed
    for frame in np.flatnonzero(observed.sum(axis=1) >= views.MIN_VISIBLE):
        seen = observed[frame]
        image = view.observation.points2d[frame, seen]
        truth = 0.3 * view.points3d[frame, seen, :2]
        shift = (image - truth).mean(axis=0)
        np.testing.assert_allclose(image, truth + shift, atol=0.1)


def test_an_archive_without_3d_trains_and_is_observed_only(tmp_path):
    points2d = np.random.default_rng(0).normal(size=(60, 6, 2)).astype(np.float32)
    visibility = np.ones((60, 6), bool)
    visibility[:, 4] = False
    flat = category("flat", points3d=None, points2d=points2d, visibility=visibility)
    folder = save(tmp_path / "archive", flat, category())
    opened = dataset.open_dataset(DataConfig(dir=folder), str(tmp_path / "run"))
    assert [type(one) for one in opened.evaluation.test] == [Labelled, Observation]
    kept = opened.split["categories"]["flat"]["train"]
    trained = opened.training.observations[1]
    np.testing.assert_array_equal(trained.observed, visibility[kept])
    shown = np.where(visibility[..., None], points2d, 0)[kept]
    np.testing.assert_array_equal(trained.points2d, shown)


def test_frames_with_too_few_points_are_dropped_and_counted(tmp_path):
    poor = category("poor", frames=100, clips=10)
    poor.points3d[10:20, :3] = np.nan
    poor.points3d[20:30, :2] = np.nan  # four left: enough
    poorer = category("poorer", frames=60)
    poorer.points3d[:11, :3] = np.nan
    folder = save(tmp_path / "archive", poor, poorer, category("small", frames=30))
    opened = dataset.open_dataset(DataConfig(dir=folder), str(tmp_path / "run"))
    assert set(opened.split["categories"]) == {"poor"}
    record = opened.split["categories"]["poor"]
    assert record["dropped"] == 10
    used = record["train"] + record["validation"] + record["test"]
    assert sorted(used) == [*range(10), *range(20, 100)]
    assert opened.skipped["small"] == "30 frames, 50 needed"
    assert opened.skipped["poorer"].startswith("49 frames, 50 needed; 11 with")
    assert opened.split["skipped"] == opened.skipped
    json.dumps(opened.split)


def test_a_share_of_the_training_frames_is_evenly_spaced_and_leaves_the_rest(tmp_path):
    whole, few = (
        open_usual(tmp_path, share=share).split["categories"] for share in (1.0, 0.25)
    )
    for name, record in whole.items():
        places = [record["train"].index(row) for row in few[name]["train"]]
        assert len(places) == -(-len(record["train"]) // 4)
        assert places[0] == 0 and set(np.diff(places)) <= {3, 4}
        for part in ("validation", "test"):
            assert few[name][part] == record[part]


@pytest.mark.parametrize("fewer", ({}, {"share": 0.6}, {"held_out": 100}))
def test_films_that_are_thinned_out_keep_their_pace(tmp_path, fewer):
    """Neighbours in a clip are neighbours in the archive, or else it is two clips."""
    folder = save(tmp_path / "archive", category(frames=900))
    config = DataConfig(dir=folder, camera="orbit", **fewer)
    opened = dataset.open_dataset(config, str(tmp_path / "run"))
    record, parts = opened.split["categories"]["cat"], opened.evaluation
    clips = [opened.training.sequences[0]]
    clips += [part[0].observation.clip for part in (parts.validation, parts.test)]
    whole = {"train": 450, "validation": 150, "test": 300}
    for (part, frames), clip in zip(whole.items(), clips, strict=True):
        most = config.share * frames if part == "train" else config.held_out or frames
        rows = np.array(record[part])
        same = np.diff(clip) == 0
        assert len(rows) == len(clip) == most and np.mean(same) > 0.95
        np.testing.assert_array_equal(np.diff(rows)[same], 1)
        assert (np.diff(rows) >= 1).all() and np.ptp(rows) > 0.7 * frames


def test_a_tiny_share_leaves_a_frame_of_each_category(tmp_path):
    training = open_usual(tmp_path, share=1e-6).training
    assert [len(seen.category) for seen in training.observations] == [1, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"camera": "ortographic"}, "did you mean 'orthographic'"),
        ({"only": "cats"}, "did you mean 'cat'"),
        ({"camera": "real"}, "cat: no 2D of a real camera; skull"),
    ],
)
def test_what_cannot_be_opened_is_said(tmp_path, options, said):
    with pytest.raises(LfmError, match=said):
        open_usual(tmp_path, **options)


def test_upright_needs_to_know_what_is_up(tmp_path):
    folder = save(tmp_path / "archive", category(), category("lost", up=None))
    config = DataConfig(dir=folder, camera="upright")
    opened = dataset.open_dataset(config, str(tmp_path / "run"))
    assert opened.skipped == {"lost": "no up direction"}


def test_a_work_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(LfmError, match="cannot prepare the training set"):
        open_usual(tmp_path)


def test_without_a_folder_the_data_are_the_zoo(tmp_path):
    config = DataConfig(only="drosophila", camera="upright")
    opened = dataset.open_dataset(config, str(tmp_path))
    (skeleton,) = opened.training.skeletons
    assert skeleton.name == "drosophila" and skeleton.units == "mm"
    assert opened.split["categories"]["drosophila"]["rule"] == "specimen"
    assert all(isinstance(one, Labelled) for one in everything(opened))
