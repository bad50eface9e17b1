"""The numbers of eval.json on small data whose answers are known."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfm_jax import metrics
from lfm_jax.data.dataset import EvaluationData, TrainingData
from lfm_jax.train import evaluate as evaluation_room
from lfm_jax.train.evaluate import (
    choose_depth_sign,
    evaluate,
    frame_errors,
    point_errors,
)
from lfm_jax.train.table import results_table
from lfm_jax.types import Labelled, Observation, Pose, Prediction, Skeleton

KEYPOINTS = {"bends": 8, "rigid": 6, "unlabelled": 5}
FRAMES = {"train": 60, "validation": 32, "test": 40}
FEW = 12  # test frames of "rigid"
YARDSTICKS = (
    *("ne_flat", "ne_mean_shape", "ne_mean_shape_lifted"),
    *("ne_rigid", "ne_rigid_lifted"),
)


def sample(name: str, split: str) -> Labelled:
    """Frames of one category in the camera frame, some of the points hidden."""
    index = list(KEYPOINTS).index(name)
    n, f = KEYPOINTS[name], FRAMES[split]
    f = FEW if (name, split) == ("rigid", "test") else f
    shape = np.random.default_rng(index).normal(size=(1, n, 3))
    generator = np.random.default_rng(10 * index + len(split))
    bend = 0.4 * generator.normal(size=(f, 1, 1)) * (shape**2 - 1.0)
    shapes = np.tile(shape, (f, 1, 1)) + (bend if name == "bends" else 0.0)
    turn = Rotation.random(f, generator).as_matrix()
    points = np.einsum("fij,fnj->fni", turn, shapes).astype(np.float32)
    observed = np.ones((f, n), bool)
    observed[::4, -1] = False
    seen = Observation(
        points2d=np.where(observed[..., None], points[..., :2], np.float32(0.0)),
        observed=observed,
        annotated=observed,
        category=np.full(f, index, np.int32),
    )
    return Labelled(seen, points, np.ones((f, n), bool))


def records(split: str) -> tuple:
    labelled = [sample(name, split) for name in KEYPOINTS]
    return (*labelled[:2], labelled[2].observation)


EVALUATION = EvaluationData(*(records(split) for split in FRAMES))
TRAINING = TrainingData(
    skeletons=tuple(
        Skeleton(name, tuple(f"k{i}" for i in range(n)), ((0, 1), (1, 2)), units)
        for (name, n), units in zip(
            KEYPOINTS.items(), ("unit", "mm", "unit"), strict=True
        )
    ),
    observations=tuple(sample(name, "train").observation for name in KEYPOINTS),
    sequences=tuple(np.zeros(FRAMES["train"], np.int32) for _ in KEYPOINTS),
)
RIGID_SHAPES = tuple(
    np.random.default_rng(i).normal(size=(1, n, 3))[0] * [1.0, 1.0, -1.0]
    for i, n in enumerate(KEYPOINTS.values())
)


def predictor(change, parts=None):
    """Predicts what `change` makes of the truth of each frame."""
    parts = parts or [sample(name, split) for name in KEYPOINTS for split in FRAMES]
    known = {part.observation.points2d.tobytes(): part.points3d for part in parts}

    def predict(seen: Observation) -> Prediction:
        posed = change(known[seen.points2d.tobytes()])
        xy = np.where(seen.observed[..., None], seen.points2d, posed[..., :2])
        f = len(posed)
        eye = np.tile(np.eye(3, dtype=np.float32), (f, 1, 1))
        pose = Pose(np.ones(f, np.float32), eye, np.zeros((f, 2), np.float32))
        lifted = np.concatenate([xy, posed[..., 2:]], axis=-1)
        return Prediction(posed, pose, posed, lifted)

    return predict


def mirrored(points):
    return points * np.array([1, 1, -1], np.float32)


@pytest.fixture(scope="module")
def perfect():
    return evaluate(predictor(lambda p: p), TRAINING, EVALUATION, RIGID_SHAPES)


def test_a_perfect_prediction_has_no_error(perfect):
    for name in ("bends", "rigid"):
        entry = perfect["categories"][name]
        errors = [entry[k] for k in entry if k.startswith(("ne_lifted", "pa_", "n_"))]
        np.testing.assert_allclose(np.hstack(errors), 0.0, atol=1e-3)
        assert entry["ne_canonical"] < 1e-3 and entry["stress"] < 1e-3
        assert entry["reprojection"] < 1e-3
    ratio = perfect["categories"]["bends"]["shape_variance_ratio"]
    assert ratio == pytest.approx(1.0, rel=1e-3)


def test_the_entries_are_those_of_the_contract(perfect):
    entry = perfect["categories"]["bends"]
    assert set(entry) == {
        *("keypoints", "train_frames", "test_frames", "units"),
        *("ne_lifted", "ne_canonical", *YARDSTICKS),
        *("ne_best_flip", "ne_best_flip_lifted"),
        *("shape_variance_ratio", "nearest_train", "pa_mpjpe_lifted"),
        *("pa_mpjpe_best_flip_lifted", "n_mpjpe_camera", "stress", "reprojection"),
    }
    counts = entry["keypoints"], entry["train_frames"], entry["test_frames"]
    assert counts == (8, 60, 40)
    assert json.loads(json.dumps(perfect, allow_nan=False)) == perfect


def test_yardsticks_do_not_depend_on_the_prediction(perfect):
    other = evaluate(predictor(mirrored), TRAINING, EVALUATION, RIGID_SHAPES)
    for key in YARDSTICKS:
        assert other["mean"][key] == perfect["mean"][key]


def test_yardsticks_find_a_rigid_category_in_either_mirror_image(perfect):
    """The rigid shapes handed in are mirrored: 2D alone cannot tell."""
    entry = perfect["categories"]["rigid"]
    for key in ("ne_rigid", "ne_rigid_lifted", "ne_mean_shape", "nearest_train"):
        assert entry[key] < 0.2
    assert entry["ne_mean_shape_lifted"] < 0.2 < 5.0 < entry["ne_flat"]


def test_yardsticks_do_not_explain_a_bending_category(perfect):
    entry = perfect["categories"]["bends"]
    assert min(entry[key] for key in YARDSTICKS) > 2.0


def test_a_flat_prediction_scores_as_flat():
    """Hidden points apart: they are at the centroid of the seen in `flat`."""
    full = jax.tree.map(np.copy, EVALUATION.test)
    seen = full[0].observation
    seen.observed[:] = True
    seen.points2d[:] = full[0].points3d[..., :2]
    data = dataclasses.replace(EVALUATION, test=full)

    def predict(seen):
        zero = np.zeros_like(seen.points2d[..., :1])
        flat = np.concatenate([seen.points2d, zero], axis=-1)
        return Prediction(flat, None, flat, flat)

    entry = evaluate(predict, TRAINING, data, RIGID_SHAPES)["categories"]["bends"]
    assert entry["ne_lifted"] == pytest.approx(entry["ne_flat"], rel=1e-5)
    assert entry["ne_lifted"] > 10.0


def test_a_constant_shape_has_no_variance():
    shape = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)

    def constant(points):
        few = shape[: points.shape[1]]
        return np.tile(few[None], (len(points), 1, 1))

    result = evaluate(predictor(constant), TRAINING, EVALUATION, RIGID_SHAPES)
    assert result["categories"]["bends"]["shape_variance_ratio"] < 1e-4


def test_the_sign_of_depth_is_chosen_on_validation():
    signs = choose_depth_sign(predictor(mirrored), EVALUATION)
    np.testing.assert_array_equal(signs, np.float32([-1, -1, 1]))
    assert signs.dtype == np.float32
    signs = choose_depth_sign(predictor(lambda p: p), EVALUATION)
    np.testing.assert_array_equal(signs, np.float32([1, 1, 1]))


def test_signs_are_never_chosen_on_the_test_split():
    def split_mirrored(which):
        parts = [
            tuple(
                dataclasses.replace(p, points3d=mirrored(p.points3d))
                if isinstance(p, Labelled) and split == which
                else p
                for p in records(split)
            )
            for split in FRAMES
        ]
        return EvaluationData(*parts)

    true = predictor(lambda p: p)
    for which, sign in (("validation", -1), ("test", 1)):
        signs = choose_depth_sign(true, split_mirrored(which))
        np.testing.assert_array_equal(signs, np.float32([sign, sign, 1]))
    wrong = split_mirrored("test")
    shapes = tuple(
        np.random.default_rng(i).normal(size=(1, n, 3))[0]
        for i, n in enumerate(KEYPOINTS.values())
    )
    numbers = evaluate(true, TRAINING, wrong, shapes)["categories"]["rigid"]
    assert numbers["ne_rigid_lifted"] > 5.0 and numbers["ne_mean_shape_lifted"] > 5.0


def test_the_start_is_scored_in_a_sign_of_its_own():
    """That of validation: neither the network's nor one that test truth prefers."""
    right, wrong = predictor(lambda p: p), predictor(mirrored)

    def predict(seen):
        return dataclasses.replace(right(seen), start=wrong(seen))

    entry = evaluate(predict, TRAINING, EVALUATION, RIGID_SHAPES)["categories"]["bends"]
    for key in ("ne_start", "ne_start_lifted", "ne_lifted"):
        assert entry[key] < 1e-3
    test = tuple(
        dataclasses.replace(p, points3d=mirrored(p.points3d))
        if isinstance(p, Labelled)
        else p
        for p in EVALUATION.test
    )
    data = dataclasses.replace(EVALUATION, test=test)
    entry = evaluate(predict, TRAINING, data, RIGID_SHAPES)["categories"]["bends"]
    assert entry["ne_start_lifted"] > 5.0


def test_in_perspective_the_sign_is_chosen_by_2d_alone():
    def seen_from(distance, labelled):
        depth = labelled.points3d[..., 2:]
        image = labelled.points3d[..., :2] / (1.0 + depth / distance)
        seen = dataclasses.replace(labelled.observation, points2d=image)
        return dataclasses.replace(labelled, observation=seen)

    parts = tuple(seen_from(10.0, part) for part in EVALUATION.validation[:2])
    wrong = tuple(
        dataclasses.replace(part, points3d=mirrored(part.points3d)) for part in parts
    )
    true = predictor(lambda p: p, parts)
    for known in (parts, wrong):
        evaluation = EvaluationData(known, known, known)
        signs = choose_depth_sign(true, evaluation, perspective=True)
        np.testing.assert_array_equal(signs, np.float32([1, 1]))
    signs = choose_depth_sign(true, EvaluationData(wrong, wrong, wrong))
    np.testing.assert_array_equal(signs, np.float32([-1, -1]))


def test_a_mirrored_prediction_is_wrong_but_for_the_best_flip():
    result = evaluate(predictor(mirrored), TRAINING, EVALUATION, RIGID_SHAPES)
    entry = result["categories"]["bends"]
    assert entry["ne_lifted"] > 5.0
    assert entry["pa_mpjpe_best_flip_lifted"] < 0.01
    assert max(entry["ne_best_flip"], entry["ne_best_flip_lifted"]) < 0.01


def test_without_3d_there_is_reprojection_alone(perfect):
    entry = perfect["categories"]["unlabelled"]
    assert set(entry) == {
        *("keypoints", "train_frames", "test_frames", "units"),
        *("depth_sign", "reprojection"),
    }
    assert entry["depth_sign"] == "undetermined"


def test_small_categories_have_an_interval_and_a_mean_without_them():
    def noisy(points):
        noise = np.random.default_rng(1).normal(size=points.shape)
        return points + 0.1 * noise.astype(np.float32)

    result = evaluate(predictor(noisy), TRAINING, EVALUATION, RIGID_SHAPES)
    bends, small = result["categories"]["bends"], result["categories"]["rigid"]
    low, high = small["ne_lifted_interval"]
    assert low < small["ne_lifted"] < high
    assert "ne_lifted_interval" not in bends
    both = (bends["ne_lifted"] + small["ne_lifted"]) / 2.0
    assert result["mean"]["ne_lifted"] == pytest.approx(both, rel=1e-4)
    assert result["mean_without_small"]["ne_lifted"] == bends["ne_lifted"]


def without_most_points(record: Labelled, frames: slice) -> Labelled:
    evaluated = record.evaluated.copy()
    evaluated[frames, 3:] = False
    points = np.where(evaluated[..., None], record.points3d, np.float32(0.0))
    return dataclasses.replace(record, evaluated=evaluated, points3d=points)


def test_frames_with_too_few_points_are_counted_not_scored(perfect):
    record = without_most_points(EVALUATION.test[0], slice(0, 5))
    data = dataclasses.replace(EVALUATION, test=(record, *EVALUATION.test[1:]))
    result = evaluate(predictor(mirrored), TRAINING, data, RIGID_SHAPES)
    assert result["categories"]["bends"]["unscored_frames"] == 5
    errors = frame_errors(predictor(mirrored), data)
    assert np.isnan(errors[0][:5]).all() and np.isfinite(errors[0][5:]).all()
    mean = result["categories"]["bends"]["ne_lifted"]
    assert mean == pytest.approx(np.nanmean(errors[0]), rel=1e-4)


def test_frame_errors_are_reprojection_without_3d():
    errors = frame_errors(predictor(lambda p: 2.0 * p), EVALUATION)
    assert [len(e) for e in errors] == [40, FEW, 40]
    seen = EVALUATION.test[2]
    posed = predictor(lambda p: 2.0 * p)(seen).posed
    expected = jax.jit(metrics.reprojection)(posed, seen.points2d, seen.annotated)
    np.testing.assert_allclose(errors[2], expected, rtol=1e-4)


def test_errors_of_points_average_to_that_of_their_frame():
    record = without_most_points(EVALUATION.test[0], slice(0, 5))
    data = dataclasses.replace(EVALUATION, test=(record, *EVALUATION.test[1:]))
    stretched = predictor(lambda p: p * np.array([1.0, 1.0, 1.5], np.float32))
    frames, points = frame_errors(stretched, data), point_errors(stretched, data)
    assert [p.shape for p in points] == [(40, 8), (FEW, 6), (40, 5)]
    assert np.isnan(points[0][:5]).all() and np.isnan(points[2]).all()
    for of_frame, of_points in zip(frames[:2], points[:2], strict=True):
        rows = np.isfinite(of_frame)
        mean = 100.0 * np.nanmean(of_points[rows], axis=1)
        np.testing.assert_allclose(mean, of_frame[rows], rtol=1e-4)


def test_flat_agrees_with_a_slow_unpadded_reference(perfect):
    for record, name in zip(EVALUATION.test[:2], KEYPOINTS, strict=False):
        seen, errors = record.observation, []
        for xy, observed, true in zip(
            seen.points2d, seen.observed, record.points3d, strict=True
        ):
            flat = np.where(observed[:, None], xy, xy[observed].mean(0))
            flat = np.pad(flat, ((0, 0), (0, 1)))
            x, y = flat - flat.mean(0), true - true.mean(0)
            turned = Rotation.align_vectors(y, x)[0].apply(x)
            aligned = (turned * y).sum() / (x * x).sum() * turned
            radius = np.sqrt((y**2).sum(-1).mean())
            errors.append(100 * np.linalg.norm(aligned - y, axis=-1).mean() / radius)
        entry = perfect["categories"][name]
        assert entry["ne_flat"] == pytest.approx(np.mean(errors), rel=1e-3)


def test_each_function_is_compiled_once_for_all_categories(perfect):
    before = evaluation_room._score._cache_size()
    choose_depth_sign(predictor(lambda p: p), EVALUATION)
    frame_errors(predictor(lambda p: p), EVALUATION)
    assert evaluation_room._score._cache_size() == before


def table_lines(result, skipped):
    return results_table(result | {"skipped": skipped, "supervised": False}).split("\n")


def test_the_table_names_everything_and_fits_a_terminal(perfect):
    lines = table_lines(perfect, {"paper": "10 frames, 50 needed"})
    assert max(map(len, lines)) <= 120
    row = {line.split()[0]: line.split() for line in lines if line}
    assert row["bends"][3] == f"{perfect['categories']['bends']['ne_flat']:.1f}"
    assert row["bends"][-1] == "-"  # no millimetres where units are not
    assert row["rigid"][-1] == "0.0"
    assert row["unlabelled"][3] == "-"
    assert row["mean"][3] == f"{perfect['mean']['ne_flat']:.1f}"
    text = "\n".join(lines)
    assert "skipped paper: 10 frames, 50 needed" in text
    assert "unlabelled: no 3D truth" in text
    assert "without 1 of < 30 test frames" in text
