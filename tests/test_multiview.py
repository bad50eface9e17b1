"""Laws of reconstruction from several views that nobody calibrated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import models, tasks
from lfm_jax.config import DataConfig, ModelConfig, ObjectiveConfig
from lfm_jax.data.archive import Category, write_category
from lfm_jax.data.dataset import open_dataset
from lfm_jax.data.mixture import frame_of, training_batches
from lfm_jax.errors import LfmError
from lfm_jax.geometry.pose import apply_pose, fit_pose
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.lifting import make_predict
from lfm_jax.metrics import mirror_depth, ne
from lfm_jax.multiview import (
    default_config,
    outlier_scores,
    read_out,
    reconstruct,
)
from lfm_jax.types import Observation, Prediction, Skeleton

F, V, N = 60, 3, 8
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
    config = ModelConfig(name="mv_nrsfm", width=16, layers=2, code=4, bases="")
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

    def test_the_loss_of_a_missing_view_is_zero_and_so_is_its_gradient(self):
        tracks = scene()[1][:4].copy()
        mask = np.ones((4, V, N), bool)
        mask[:, 1] = False
        _, params, model = network(V)
        task = tasks.build(ObjectiveConfig(name="mv_nrsfm", hide=0.0), "mv_nrsfm")

        @jax.jit
        def slope(params, seen):
            loss = lambda p: task.loss(model.apply, p, seen, None, jax.random.key(0))
            rows_ = lambda p: loss(p)["loss"]
            return rows_(params), jax.grad(lambda p: jnp.sum(rows_(p)))(params)

        loss, gradient = slope(params, rows(tracks, mask))
        np.testing.assert_array_equal(loss.reshape(4, V)[:, 1], 0.0)
        assert np.all(np.asarray(loss).reshape(4, V)[:, 0] > 0.0)
        tracks[:, 1] = 7.0  # whatever lies there
        _, again = slope(params, rows(tracks, mask))
        for one, other in zip(*map(jax.tree.leaves, (gradient, again)), strict=True):
            np.testing.assert_array_equal(one, other)


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
        pose = fit(
            record.points3d, record.observation.points2d, record.observation.observed
        )
        image = apply_pose(pose, record.points3d)[..., :2]
        np.testing.assert_allclose(image, record.observation.points2d, atol=0.1)
        np.testing.assert_allclose(
            pose.rotation, np.eye(3)[None].repeat(24, 0), atol=0.01
        )

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
    _, params, model = network(V)
    tracks = scene()[1]
    flat = jax.tree.map(np.asarray, rows(tracks))
    signs = np.ones(1, np.float32)
    few = make_predict(model, params, signs, (SKELETON,), chunk=7)(flat)
    many = make_predict(model, params, signs, (SKELETON,))(flat)
    np.testing.assert_allclose(few.canonical, many.canonical, atol=1e-5)


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


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    config = default_config()
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, width=32, code=8),
        optim=dataclasses.replace(config.optim, learning_rate=1e-2),
        train=dataclasses.replace(
            config.train, steps=400, per_category=20, checkpoint_every=400
        ),
    )
    tracks = scene()[1].copy()
    tracks[4, 2], tracks[9, 0, 3] = np.nan, np.nan
    workdir = tmp_path_factory.mktemp("run")
    return reconstruct(tracks, SKELETON, config=config, workdir=workdir)


class TestReconstruct:
    def test_images_without_noise_of_a_low_rank_shape_give_it_back(self, learned):
        shapes = jnp.asarray(scene()[0], jnp.float32)
        found = jnp.asarray(learned.points3d, jnp.float32)
        mask = jnp.ones((F, N), bool)
        signs = (found, mirror_depth(found))
        error = min(float(jnp.mean(ne(points, shapes, mask))) for points in signs)
        assert error < 3.0  # percent of the shape's size

    def test_shapes_with_cameras_are_the_tracks(self, learned):
        tracks = scene()[1]
        image = np.einsum(
            "fvij,fnj->fvni", learned.rotations[:, :, :2], learned.points3d
        )
        image = learned.scales[..., None, None] * image
        away = np.linalg.norm(
            image + learned.translations[:, :, None] - tracks, axis=-1
        )
        assert np.nanmedian(away) < 3.0  # pixels, of some 100
        assert np.isnan(learned.rotations[4, 2]).all()
        assert np.isnan(learned.outlier[9, 0, 3])

    def test_mistakes_are_said(self):
        tracks = scene()[1]
        with pytest.raises(LfmError, match="2 or more views"):
            reconstruct(tracks[:, :1], SKELETON)
        with pytest.raises(LfmError, match="has 8: give a name"):
            reconstruct(tracks[:, :, :5], SKELETON)
