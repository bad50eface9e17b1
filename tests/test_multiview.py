"""Laws of reconstruction from several views that nobody calibrated."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import models, tasks
from lfm_jax.config import DataConfig, ModelConfig, ObjectiveConfig, OptimConfig
from lfm_jax.data.archive import Category, write_category
from lfm_jax.data.dataset import open_dataset
from lfm_jax.data.mixture import frame_of, training_batches
from lfm_jax.errors import LfmError
from lfm_jax.geometry.pose import apply_pose, fit_pose
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.lifting import make_predict
from lfm_jax.multiview import (
    outlier_scores,
    read_out,
    reconstruct,
)
from lfm_jax.train import loop
from lfm_jax.train.optim import make_optimizer
from lfm_jax.train.step import init_state, make_train_step
from lfm_jax.types import Observation, Prediction, Skeleton

F, V, N, STEPS = 50, 3, 8, 800
fit = jax.jit(fit_pose)
SKELETON = Skeleton("toy", tuple(f"k{i}" for i in range(N)))


@functools.cache
def scene(frames=F, views=V):
    """A shape that deforms in two ways, [f n 3], and its images [f v n 2]."""
    random = np.random.default_rng(0)
    bases = random.normal(size=(3, N, 3)) * np.array([1.0, 0.4, 0.3])[:, None, None]
    codes = np.append(np.ones((frames, 1)), random.normal(size=(frames, 2)), axis=1)
    shapes = np.einsum("fk,kni->fni", codes, bases)
    shapes = shapes - shapes.mean(1, keepdims=True)
    turn = np.asarray(random_rotation(jax.random.key(0), (frames, views)))
    scale = random.uniform(50.0, 90.0, (frames, views, 1, 1))
    images = scale * np.einsum("fvij,fnj->fvni", turn, shapes)[..., :2]
    return shapes, images + random.uniform(0.0, 900.0, (frames, views, 1, 2))


def rows(tracks, mask=None):
    """All views as rows, normalised; those of a frame side by side."""
    mask = np.ones(tracks.shape[:3], bool) if mask is None else mask
    flat = lambda x: jnp.asarray(x.reshape(-1, *x.shape[2:]))
    points = flat(np.where(mask[..., None], tracks, 0.0).astype(np.float32))
    category = jnp.zeros(len(points), jnp.int32)
    seen = Observation(points, flat(mask), flat(mask), category)
    return tasks.normalise(seen)[0]


@functools.cache
def network(views):
    config = ModelConfig(name="mv_nrsfm", width=32, layers=2, code=8, bases="")
    model = models.build(config, (SKELETON,), views=views)
    params = model.init(jax.random.key(0))
    noise = lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape)
    return jax.jit(model.apply), jax.tree.map(noise, params), model


class TestFusion:
    def test_all_views_of_a_frame_have_its_one_shape(self):
        apply, params, _ = network(V)
        shape = apply(params, rows(scene()[1])).reshape(F, V, N, 3)
        np.testing.assert_array_equal(shape, jnp.repeat(shape[:, :1], V, axis=1))
        assert np.abs(shape[0] - shape[1]).max() > 1e-2

    def test_the_order_of_views_changes_nothing(self):
        apply, params, _ = network(V)
        tracks = scene()[1]
        shape = apply(params, rows(tracks))
        other = apply(params, rows(tracks[:, [2, 0, 1]]))
        np.testing.assert_allclose(shape, other, atol=1e-5)

    def test_a_missing_view_leaves_the_mean_of_the_others(self):
        """Exactly what a network with fewer views makes of those."""
        tracks = scene()[1]
        mask = np.ones((F, V, N), bool)
        mask[:, 1] = False
        apply, params, _ = network(V)
        shape = apply(params, rows(tracks, mask)).reshape(F, V, N, 3)[:, 0]
        fewer, _, _ = network(V - 1)
        alone = fewer(params, rows(tracks[:, [0, 2]])).reshape(F, V - 1, N, 3)[:, 0]
        np.testing.assert_allclose(shape, alone, atol=1e-5)
        whole = apply(params, rows(tracks)).reshape(F, V, N, 3)[:, 0]
        assert np.abs(shape - whole).max() > 1e-2


@functools.cache
def trainer():
    """The first state and the one step, compiled for all frames at once."""
    _, _, model = network(V)
    task = tasks.build(ObjectiveConfig(name="mv_nrsfm", hide=0.0), "mv_nrsfm")
    tx = make_optimizer(OptimConfig(learning_rate=2e-2), STEPS)
    step = jax.jit(make_train_step(model, task, tx, average=0.9))
    return init_state(model, tx, jax.random.key(0), 1), step


class TestLearning:
    def test_what_lies_in_a_missing_view_teaches_nothing(self):
        state, step = trainer()
        mask = np.ones((F, V, N), bool)
        mask[:, 1] = False
        seen = rows(scene()[1], mask)
        wild = jnp.where(seen.observed[..., None], seen.points2d, 7.0)
        one, scalars = step(state, (seen, None))
        other, _ = step(state, (dataclasses.replace(seen, points2d=wild), None))
        for x, y in zip(*map(jax.tree.leaves, (one.params, other.params)), strict=True):
            np.testing.assert_array_equal(x, y)
        assert not scalars["flaw"].any() and scalars["loss"] > 0.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Views of which one lacks a camera's points in some frames."""
    folder = tmp_path_factory.mktemp("archive")
    shapes, tracks = scene()
    points = np.swapaxes(tracks, 0, 1).astype(np.float32).copy()
    points[1, 5, 2:] = np.nan  # two points are too few to be a view
    category = Category(
        "toy",
        SKELETON.keypoints,
        np.zeros((0, 2), np.int32),
        "mm",
        np.arange(F, dtype=np.int32),
        points3d=shapes.astype(np.float32),
        points2d_views=points,
    )
    write_category(folder / "toy.npz", category)
    return folder, points


def opened(folder, workdir, **changes):
    config = DataConfig(dir=str(folder), camera="real", views=2, **changes)
    return open_dataset(config, str(workdir))


class TestData:
    def test_views_of_a_frame_are_side_by_side(self, archive, tmp_path):
        folder, points = archive
        dataset = opened(folder, tmp_path)
        parts = dataset.split["categories"]["toy"]
        for name in ("train", "validation", "test"):
            record = getattr(dataset.evaluation, name)[0]
            seen = record.observation
            assert len(seen.points2d) == 2 * len(parts[name])
            for place, row in enumerate(parts[name]):
                for view in range(2):
                    expected = np.nan_to_num(points[view, row])
                    if (view, row) == (1, 5):
                        expected = np.zeros_like(expected)
                    at = 2 * place + view
                    np.testing.assert_array_equal(seen.points2d[at], expected)

    def test_truth_is_turned_into_each_view(self, archive, tmp_path):
        record = opened(archive[0], tmp_path).evaluation.test[0]
        seen = record.observation.observed.all(axis=1)
        image, flat = record.observation.points2d[seen], record.points3d[seen, :, :2]
        image = image - image.mean(axis=1, keepdims=True)
        scale = np.sum(image * flat, axis=(1, 2)) / np.sum(flat**2, axis=(1, 2))
        np.testing.assert_allclose(scale[:, None, None] * flat, image, atol=0.1)

    def test_batches_hold_whole_frames(self, archive, tmp_path):
        dataset = opened(archive[0], tmp_path)
        training, rows_ = dataset.training, dataset.split["categories"]["toy"]["train"]
        batches = iter(training_batches(training, per_category=5, seed=3))
        place = frame_of(training, 5, 3)
        used = []
        for step in range(3):
            seen, _ = next(batches)
            for example in range(10):
                category, frame = place(step, example)
                assert category == 0
                expected = np.nan_to_num(archive[1][example % 2, rows_[frame]])
                if not (example % 2 == 1 and rows_[frame] == 5):
                    np.testing.assert_array_equal(seen.points2d[example], expected)
                used.append(frame)
        assert len(set(used)) == 15

    def test_transductive_is_all_frames(self, archive, tmp_path):
        dataset = opened(archive[0], tmp_path, transductive=True)
        parts = dataset.split["categories"]["toy"]
        assert parts["train"] == parts["validation"] == parts["test"] == list(range(F))

    def test_too_few_cameras_are_said(self, archive, tmp_path):
        config = DataConfig(dir=str(archive[0]), camera="real", views=4)
        with pytest.raises(LfmError, match="3 real cameras, 4 wanted"):
            open_dataset(config, str(tmp_path))
        config = dataclasses.replace(config, camera="static")
        with pytest.raises(LfmError, match="only real cameras"):
            open_dataset(config, str(tmp_path))


def test_lifting_in_chunks_tears_no_views_apart():
    apply, params, model = network(V)
    tracks = scene()[1]
    flat = jax.tree.map(np.asarray, rows(tracks))
    signs = np.ones(1, np.float32)
    found = make_predict(model, params, signs, (SKELETON,), chunk=7)(flat)
    expected = apply(params, flat)
    np.testing.assert_allclose(found.canonical, expected, atol=1e-5)


class TestOutliers:
    def test_scores_are_free_of_units_and_of_one_wild_point(self):
        random = np.random.default_rng(0)
        distances = np.abs(random.normal(size=(40, V, N)))
        distances[3, 1, 2], distances[7, 0] = 50.0, np.nan
        scores = outlier_scores(distances)
        np.testing.assert_allclose(outlier_scores(9.0 * distances), scores, rtol=1e-6)
        assert np.nanargmax(scores) == np.ravel_multi_index((3, 1, 2), scores.shape)
        np.testing.assert_array_equal(np.isnan(scores), np.isnan(distances))
        wilder = distances.copy()
        wilder[3, 1, 2] = 1e6
        others = np.arange(scores.size) != np.nanargmax(scores)
        moved = (outlier_scores(wilder) - scores).ravel()[others]
        assert np.nanmax(np.abs(moved)) == 0.0

    def test_a_keypoint_always_hit_is_not_divided_by_nothing(self):
        distances = np.zeros((10, V, N))
        distances[4, 0, 1] = 1.0
        scores = outlier_scores(distances)
        assert np.isfinite(scores).all() and scores[4, 0, 1] > 100.0

    def test_planted_points_score_highest(self):
        """With the true shapes for a network: what is left is the scoring."""
        shapes, tracks = scene()
        planted = np.zeros((F, V, N), bool)
        random = np.random.default_rng(1)
        for frame in range(0, F, 4):
            planted[frame, random.integers(V), random.integers(N)] = True
        noisy = tracks + random.normal(size=tracks.shape)
        wrong = noisy + np.where(planted[..., None], 70.0, 0.0)
        wrong[1], wrong[2, 0] = np.nan, np.nan
        found = read_out(known(shapes), wrong)
        scores = np.nan_to_num(found.outlier, nan=-np.inf)
        assert scores[planted].min() > scores[~planted].max()
        assert np.isnan(found.points3d[1]).all() and np.isnan(found.scales[2, 0])
        image = found.scales[..., None, None] * np.einsum(
            "fvij,fnj->fvni", found.rotations[:, :, :2], found.points3d
        )
        image += found.translations[:, :, None]
        there = np.isfinite(wrong) & ~planted[..., None]
        assert np.abs(image - noisy)[there].max() < 8.0


def known(shapes):
    """A `predict` that knows the shapes and fits cameras."""

    def predict(seen):
        shape = np.repeat(shapes, V, axis=0).astype(np.float32)
        pose = fit(shape, seen.points2d, seen.observed)
        posed = apply_pose(pose, shape)
        return jax.tree.map(np.asarray, Prediction(shape, pose, posed, posed))

    return predict


class TestReconstruct:
    def test_tracks_go_in_and_come_out_in_their_places(self, monkeypatch, tmp_path):
        """With the true shapes for what a run learns."""
        shapes, tracks = scene()
        tracks = tracks.copy()
        tracks[4, 2], tracks[9, 0, 3] = np.nan, np.nan
        asked = []

        def run(config, workdir):
            dataset = open_dataset(config.data, workdir)
            asked.append((config, dataset.evaluation.test[0].observation))
            return types.SimpleNamespace(predict=known(shapes))

        monkeypatch.setattr(loop, "train_and_evaluate", run)
        found = reconstruct(tracks, SKELETON, workdir=tmp_path)
        (config, seen), expected = asked[0], np.nan_to_num(tracks.reshape(-1, N, 2))
        np.testing.assert_allclose(seen.points2d, expected, rtol=1e-5)
        assert config.data.views == V and config.model.name == "mv_nrsfm"
        image = np.einsum("fvij,fnj->fvni", found.rotations[:, :, :2], found.points3d)
        image = found.scales[..., None, None] * image
        away = image + found.translations[:, :, None] - tracks
        assert np.nanmax(np.abs(away)) < 0.1
        assert np.isnan(found.rotations[4, 2]).all()
        np.testing.assert_array_equal(np.isnan(found.outlier), np.isnan(away[..., 0]))

    def test_mistakes_are_said(self):
        tracks = scene()[1]
        with pytest.raises(LfmError, match="2 or more views"):
            reconstruct(tracks[:, :1], SKELETON)
        with pytest.raises(LfmError, match="has 8: give a name"):
            reconstruct(tracks[:, :, :5], SKELETON)
