"""Lifting by name: order and absence of keypoints are the user's own business."""

import dataclasses
import shutil
import subprocess
import sys

import grain
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from lfm_jax import models
from lfm_jax.checkpoint import Checkpoints
from lfm_jax.config import Config, ModelConfig
from lfm_jax.data.matching import match_keypoints
from lfm_jax.data.readers import keypoints2d
from lfm_jax.errors import LfmError
from lfm_jax.serve import Lifter, bone_lengths, rescaled
from lfm_jax.skeleton_io import read_skeletons, write_skeletons
from lfm_jax.train.confidence import Trust
from lfm_jax.types import Pose, Prediction, Skeleton, TrainState
from lfm_jax.workdir import CONFIDENCE, SKELETONS, write_json

DOG = Skeleton("dog", tuple(f"joint_{i}" for i in range(20)), ((0, 1), (1, 2)), "mm")
HAND = Skeleton("hand", ("Wrist", "thumb", "index", "ring", "little"))
RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(3, 20, 2)).astype(np.float32) * 50 + 200


def predict(observation):
    """A stand-in for the network that reads all it is given, hidden points too.

    Depth is the point's own index times the sum of the observed x; xy of the posed
    shape is the observation, a tenth larger.
    """
    points2d, observed = observation.points2d, observation.observed
    frames, count = observed.shape
    total = np.where(observed, points2d[..., 0], 0).sum(-1, dtype=np.float32)
    depth = total[:, None] * np.arange(count, dtype=np.float32)
    posed = np.concatenate((points2d * np.float32(1.1), depth[..., None]), -1)
    lifted = posed.copy()
    lifted[observed, :2] = points2d[observed]
    eye = np.broadcast_to(np.eye(3, dtype=np.float32), (frames, 3, 3))
    pose = Pose(np.ones(frames, np.float32), eye, np.zeros((frames, 2), np.float32))
    return Prediction(canonical=posed - 5, pose=pose, posed=posed, lifted=lifted)


def trust(skeleton):
    """A seen point is expected to err by its index, a hidden one by ten times that."""
    index = 0.01 * np.arange(len(skeleton.keypoints))
    return Trust(index, 10.0 * index, 1e3)


LIFTER = Lifter((HAND, DOG), (False, True), predict, (trust(HAND), trust(DOG)))


def assert_same(one, other, but=("labels", "unknown")):
    for field in dataclasses.fields(one):
        if field.name not in but:
            pair = getattr(one, field.name), getattr(other, field.name)
            np.testing.assert_array_equal(*pair, err_msg=field.name)


# ------------------------------------------------------------------ confidence


def test_confidence_falls_as_the_expected_error_rises():
    visible = np.ones((3, 20), bool)
    visible[:, 5] = False
    lifted = LIFTER.lift(FRAMES, visible, category="dog")
    assert np.all(np.diff(np.delete(lifted.confidence, 5, axis=1)) < 0.0)
    np.testing.assert_allclose(lifted.confidence[:, 0], 1.0)
    seen = LIFTER.lift(FRAMES, category="dog")
    assert np.all(lifted.confidence[:, 5] < seen.confidence[:, 5])


def test_a_frame_that_is_not_explained_is_trusted_less_in_proportion():
    lifted = LIFTER.lift(FRAMES, category="dog")
    usual = float(np.sort(lifted.reprojection)[1])  # of three frames one is worse
    careful = dataclasses.replace(trust(DOG), usual=usual)
    lifter = dataclasses.replace(LIFTER, trust=(trust(HAND), careful))
    again = lifter.lift(FRAMES, category="dog")
    np.testing.assert_array_equal(again.unusual, lifted.reprojection > usual)
    assert again.unusual.sum() == 1
    ratio = np.maximum(lifted.reprojection / usual, 1.0)[:, None]
    np.testing.assert_allclose(
        again.expected_error, ratio * lifted.expected_error, rtol=1e-6
    )


def test_expected_errors_are_in_the_units_of_the_points():
    one, other = (LIFTER.lift(k * FRAMES, category="dog") for k in (1.0, 8.0))
    np.testing.assert_allclose(
        other.expected_error, 8.0 * one.expected_error, rtol=1e-5
    )
    np.testing.assert_array_equal(other.confidence, one.confidence)
    metric = rescaled(one, ("joint_2", "joint_5"), 120.0, "mm")
    ratio = metric.points3d[0, 1, 0] / one.points3d[0, 1, 0]
    np.testing.assert_allclose(
        metric.expected_error, ratio * one.expected_error, rtol=1e-5
    )


# ------------------------------------------------------------------ by name


@hypothesis.given(st.permutations(range(20)), st.integers(4, 20))
@hypothesis.settings(max_examples=25, deadline=None)
def test_a_subset_in_any_order_is_the_whole_with_the_rest_hidden(order, count):
    order = order[:count]
    names = [DOG.keypoints[i].upper() for i in order]
    some = LIFTER.lift(FRAMES[:, order], category="dog", names=names)
    hidden = np.ones((3, 20), bool)
    hidden[:, order] = False
    garbage = np.where(hidden[..., None], np.nan, FRAMES)
    whole = LIFTER.lift(garbage, ~hidden, category="dog")
    assert_same(some, whole)
    assert some.visible.sum() == 3 * count


def test_given_xy_stay_and_reprojection_is_that_of_the_posed_shape():
    lifted = LIFTER.lift(FRAMES, category="dog")
    np.testing.assert_array_equal(lifted.points3d[..., :2], FRAMES)
    miss = np.linalg.norm(lifted.posed[..., :2] - FRAMES, axis=-1).mean(-1)
    centred = FRAMES - FRAMES.mean(1, keepdims=True)
    size = np.sqrt(np.square(centred).sum(-1).mean(-1))
    np.testing.assert_allclose(lifted.reprojection, 100 * miss / size, rtol=1e-4)


def test_renamed_and_unknown_keypoints():
    names = ["nose", *DOG.keypoints[1:19], "collar"]
    renamed = LIFTER.lift(
        FRAMES, category="dog", names=names, renames={"nose": "joint_0"}
    )
    hidden = np.zeros((3, 20), bool)
    hidden[:, 19] = True
    assert renamed.unknown == ("collar",)
    assert_same(renamed, LIFTER.lift(FRAMES, ~hidden, category="dog"))


def test_two_names_can_be_swapped():
    swap = {"joint_0": "joint_1", "joint_1": "joint_0"}
    index = match_keypoints(DOG.keypoints, DOG, swap)
    assert index[:3].tolist() == [1, 0, 2]


def test_exact_names_win_over_case_and_case_never_guesses():
    twins = Skeleton("twins", ("Aa", "aa", "b"))
    index = match_keypoints(("aa", "Aa", "AA", "B", "c"), twins)
    assert index.tolist() == [1, 0, -1, 2, -1]


def test_depth_sign_is_said():
    assert LIFTER.lift(FRAMES, category="dog").depth_sign == "chosen on validation"
    hand = LIFTER.lift(FRAMES[:, :5], category="hand")
    assert hand.depth_sign == "undetermined"


# ------------------------------------------------------------------ what is refused


def refused(*phrases, points2d=FRAMES, visible=None, **options):
    with pytest.raises(LfmError) as caught:
        LIFTER.lift(points2d, visible, **{"category": "dog", **options})
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    for phrase in phrases:
        assert phrase in sentence, sentence


def test_unknown_category():
    refused("'dogs'", "'dog'", category="dogs")
    refused("hand", "dog", category="xyz")
    with pytest.raises(LfmError, match="dgo"):
        LIFTER.skeleton("dgo")


def test_names_that_match_nothing():
    names = [f"jont_{i}" for i in range(20)]
    refused("jont_0", "'dog'", "joint_19", "--map jont_0=joint_0", names=names)
    refused("a, b", "joint_0", points2d=FRAMES[:, :2], names=["a", "b"])


def test_a_keypoint_mapped_twice():
    refused("joint_3", "joint_4", names=DOG.keypoints, renames={"joint_3": "joint_4"})
    refused("joint_0", points2d=FRAMES[:, :2], names=["joint_0", "Joint_0"])


def test_renames_of_what_does_not_exist():
    refused("nse", "'nose'", names=["nose", *DOG.keypoints[1:]], renames={"nse": "x"})
    refused("jont_1", "'joint_1'", names=DOG.keypoints, renames={"joint_0": "jont_1"})
    refused("no keypoint names", renames={"nose": "joint_0"})


def test_a_count_that_does_not_fit_matters_only_without_names():
    refused("12", "20", "names", points2d=FRAMES[:, :12])
    LIFTER.lift(FRAMES[:, :12], category="dog", names=DOG.keypoints[:12])


def test_nan_in_a_visible_point():
    points = FRAMES.copy()
    points[1, 4] = np.nan
    visible = np.ones((3, 20), bool)
    refused("frame 1", "keypoint 4", points2d=points, visible=visible)
    visible[1, 4] = False
    given = LIFTER.lift(points, visible, category="dog")
    assert_same(given, LIFTER.lift(points, category="dog"))


def test_fewer_than_four_visible_points():
    visible = np.ones((3, 20), bool)
    visible[1:, 3:] = False
    refused("frame 1", "3 visible points", "2 of 3 frames", visible=visible)
    visible[1:, 3] = True
    LIFTER.lift(FRAMES, visible, category="dog")


def test_points_unknown_to_the_category_do_not_count_as_visible():
    names, visible = [*DOG.keypoints[:4], *"abcdef"], np.ones((len(FRAMES), 10), bool)
    visible[:, 0] = False
    shown = {"points2d": FRAMES[:, :10], "visible": visible, "names": names}
    refused("frame 0", "3 visible points", **shown)
    refused(
        "only 3 of its keypoint names", **shown | {"names": [*names[:3], *"dcbagef"]}
    )


def test_all_visible_points_on_one_spot():
    points = FRAMES.copy()
    points[2] = 123.4
    refused("frame 2", "one spot", points2d=points)


def test_no_frames_and_wrong_shapes():
    refused("no frames", points2d=FRAMES[:0])
    refused("[frames, keypoints, 2]", points2d=FRAMES[0])
    refused("visibility", visible=np.ones(20, bool))


def test_a_prediction_that_is_not_finite():
    def broken(observation):
        prediction = predict(observation)
        prediction.lifted[2, 7] = np.nan
        return prediction

    with pytest.raises(LfmError, match="frame 2"):
        dataclasses.replace(LIFTER, predict=broken).lift(FRAMES, category="dog")


# ------------------------------------------------------------------ units


def test_a_bone_gives_all_lengths_in_3d_their_units():
    lifted = LIFTER.lift(FRAMES, category="dog")
    bone = ("joint_2", "joint_5")
    metric = rescaled(lifted, bone, 120.0, "mm")
    np.testing.assert_allclose(np.median(bone_lengths(metric, bone)), 120, rtol=1e-5)
    xy = metric.points2d * metric.unit_length
    np.testing.assert_allclose(metric.points3d[..., :2], xy, rtol=1e-5)
    assert metric.units == "mm" and lifted.units == "input"


def test_a_bone_is_measured_only_where_both_ends_were_given():
    visible = np.ones((3, 20), bool)
    visible[0, 2] = visible[1, 5] = False
    lifted = LIFTER.lift(FRAMES, visible, category="dog")
    assert len(bone_lengths(lifted, ("joint_2", "joint_5"))) == 1
    assert len(bone_lengths(lifted, ("joint_0", "joint_1"))) == 3


def test_a_bone_that_gives_no_scale():
    visible = np.ones((3, 20), bool)
    visible[:, 2] = False
    lifted = LIFTER.lift(FRAMES, visible, category="dog")
    with pytest.raises(LfmError, match="never both visible"):
        rescaled(lifted, ("joint_2", "joint_5"), 1.0, "m")
    with pytest.raises(LfmError, match="did you mean 'joint_2'"):
        rescaled(lifted, ("jint_2", "joint_5"), 1.0, "m")


# ------------------------------------------------------------------ frames


def test_frames_that_can_be_lifted_are_those_that_lifting_does_not_refuse():
    visible = np.ones((5, 20), bool)
    visible[1, 3:] = False
    points = np.concatenate((FRAMES, FRAMES[:2]))
    points[2] = 123.4
    keypoints = keypoints2d(points, visible)
    kept = LIFTER.liftable(keypoints, category="dog")
    assert kept.labels == ("frame 0", "frame 3", "frame 4")
    whole = LIFTER.lift_keypoints(kept, category="dog")
    assert whole.frames.tolist() == [0, 3, 4]
    with pytest.raises(LfmError, match="frame 1"):
        LIFTER.lift_keypoints(keypoints, category="dog")
    with pytest.raises(LfmError, match="no frame has 4 visible points"):
        LIFTER.liftable(keypoints2d(points[1:3], visible[1:3]), category="dog")


# ------------------------------------------------------------------ files


def test_skeletons_round_trip(tmp_path):
    write_skeletons(tmp_path / SKELETONS, (DOG, HAND), (True, False))
    assert read_skeletons(tmp_path / SKELETONS) == ((DOG, HAND), (True, False))


@pytest.mark.parametrize("content", ["", "[", "{}x", "[1]", '[{"name": "dog"}]', "3"])
def test_damaged_skeletons(tmp_path, content):
    (tmp_path / SKELETONS).write_text(content)
    with pytest.raises(LfmError, match=SKELETONS):
        read_skeletons(tmp_path / SKELETONS)


def test_a_folder_that_is_no_work_directory(tmp_path):
    with pytest.raises(LfmError, match="config.json"):
        Lifter.from_workdir(tmp_path)
    with pytest.raises(LfmError, match="config.json"):
        Lifter.from_workdir(tmp_path / "none")


@pytest.mark.parametrize("content", ["[]", "3", '{"model": 3}', '{"bogus": 1}', "{"])
def test_a_config_that_is_none(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(LfmError, match="config"):
        Lifter.from_workdir(tmp_path)


def test_importing_serve_brings_in_nothing_that_training_needs():
    heavy = ("orbax", "grain", "tensorflow_datasets", "tensorflow", "flax", "optax")
    code = (
        "import sys, lfm_jax.serve;"
        f"found = [name for name in {heavy} if name in sys.modules];"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------ a real network


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A work directory as training leaves it, with a tiny random network.

    And the same of a run that was stopped before it came to its end.
    """
    folder = tmp_path_factory.mktemp("run")
    config = Config(model=ModelConfig(width=16, layers=1, heads=2))
    skeletons = (HAND, DOG)
    shapes = RNG.normal(size=(2, 1, 2, 20, 3)).astype(np.float32)
    shapes[:, :, 1] *= 0.1
    shapes[0, ..., 5:, :] = 0
    noise = np.full((2, 1, 20), 0.01, np.float32)
    known = np.ones((2, 20, 1), np.float32)
    neighbour = np.roll(np.arange(20, dtype=np.int32), 1)[None, :, None]
    lengths = {"neighbour": np.tile(neighbour, (2, 1, 1)), "length": known}
    lengths["spread"] = 0.3 * known
    doubt = np.ones((2, 20), np.float32)
    start = models.Start(shapes, noise, doubt, **lengths)
    model = models.build(config.model, skeletons, start)
    params = jax.jit(model.init)(jax.random.key(0))
    # The head begins at zero.
    params["head"] = jax.tree.map(lambda x: x + 0.1, params["head"])
    state = TrainState(
        step=jnp.asarray(3),
        params=params,
        averaged=params,
        opt_state=(),
        key=jax.random.key(0),
        depth_sign=jnp.asarray([1.0, -1.0]),
    )
    write_json(folder / "config.json", dataclasses.asdict(config))
    write_skeletons(folder / SKELETONS, skeletons, (False, True))
    np.savez(
        folder / "factorization.npz", **dataclasses.asdict(start), rigid=shapes[:, 0, 0]
    )
    batches = iter(grain.MapDataset.range(4).to_iter_dataset())
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(3, state, batches)
    stopped = shutil.copytree(folder, tmp_path_factory.mktemp("stopped") / "run")
    shutil.rmtree(stopped / "checkpoints")
    with Checkpoints(stopped / "checkpoints") as checkpoints:
        undecided = dataclasses.replace(state, depth_sign=jnp.zeros(2))
        checkpoints.save(2, undecided, batches)
    return folder, stopped


@pytest.fixture(scope="module")
def folder(folders):
    return folders[0]


@pytest.fixture(scope="module")
def trained(folder):
    return Lifter.from_workdir(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"hand": 1, "dog": 2}',
        '{"hand": {"seen": [1], "hidden": [1], "usual": 1}, "dog": {}}',
    ],
)
def test_what_says_nothing_of_these_categories_is_refused(folder, tmp_path, text):
    copy = shutil.copytree(folder, tmp_path / "run")
    (copy / CONFIDENCE).write_text(text)
    with pytest.raises(LfmError, match="how far to trust these categories"):
        Lifter.from_workdir(copy)


def test_a_run_that_did_not_end_knows_no_confidence(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    unknown = Lifter.from_workdir(copy).lift(FRAMES, category="dog")
    assert np.isnan(unknown.confidence).all() and not unknown.unusual.any()
    tables = {one.name: trust(one).to_json() for one in (HAND, DOG)}
    write_json(copy / CONFIDENCE, tables)
    lifted = Lifter.from_workdir(copy).lift(FRAMES, category="dog")
    np.testing.assert_array_equal(
        lifted.confidence, LIFTER.lift(FRAMES, category="dog").confidence
    )


def test_a_run_that_was_stopped_lifts_and_claims_no_sign(trained, folders):
    whole = trained.lift(FRAMES, category="dog")
    assert whole.depth_sign == "chosen on validation"
    stopped = Lifter.from_workdir(folders[1]).lift(FRAMES, category="dog")
    assert stopped.depth_sign == "undetermined"
    mirrored = whole.points3d * np.array([1, 1, -1], np.float32)
    np.testing.assert_allclose(stopped.points3d, mirrored, rtol=1e-4, atol=1e-3)


def test_a_trained_model_lifts_by_name(trained):
    order = RNG.permutation(20)[:12]
    names = [DOG.keypoints[i] for i in order]
    hidden = np.ones((3, 20), bool)
    hidden[:, order] = False
    garbage = np.where(hidden[..., None], np.float32(1e6), FRAMES)
    some = trained.lift(FRAMES[:, order], category="dog", names=names)
    assert_same(some, trained.lift(garbage, ~hidden, category="dog"))
    np.testing.assert_allclose(some.points3d[:, order, :2], FRAMES[:, order], rtol=1e-5)
    assert np.isfinite(some.points3d).all() and some.points3d[..., 2].std() > 1


@pytest.mark.parametrize("times", [6, 100])  # more than are few, and than a chunk
def test_few_frames_are_lifted_as_among_many(trained, times):
    many = trained.lift(np.tile(FRAMES, (times, 1, 1)), category="dog")
    few = trained.lift(FRAMES, category="dog")
    for name in ("points3d", "canonical", "posed", "expected_error"):
        one, all_of_them = getattr(few, name), getattr(many, name)
        size = np.abs(one).max()
        np.testing.assert_allclose(
            all_of_them, np.tile(one, (times, *(1,) * (one.ndim - 1))), atol=1e-4 * size
        )


def test_posed_is_the_canonical_shape_in_the_pose_that_is_given(trained):
    lifted = trained.lift(FRAMES, category="dog")
    for one in (lifted, rescaled(lifted, ("joint_2", "joint_5"), 120.0, "mm")):
        turned = np.einsum("fij,fnj->fni", one.rotation, one.canonical)
        posed = one.scale[:, None, None] * turned
        posed[..., :2] += one.translation[:, None]
        np.testing.assert_allclose(one.posed, posed, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(np.linalg.det(lifted.rotation), 1, rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_units_of_the_input_are_those_of_the_output(trained, factor):
    one = trained.lift(FRAMES, category="dog")
    other = trained.lift(FRAMES * np.float32(factor), category="dog")
    size = np.abs(one.points3d).max()
    assert np.abs(other.points3d / factor - one.points3d).max() < 1e-3 * size
    np.testing.assert_allclose(other.reprojection, one.reprojection, rtol=1e-3)


@pytest.mark.parametrize("factor", [1e-12, 1e12, 1e25])
def test_extreme_units_are_lifted_or_refused(trained, factor):
    try:
        lifted = trained.lift(FRAMES * np.float32(factor), category="dog")
    except LfmError:
        return
    one = trained.lift(FRAMES, category="dog")
    np.testing.assert_allclose(lifted.reprojection, one.reprojection, rtol=1e-2)


def test_missing_parts_of_a_work_directory(folder, tmp_path):
    for copied, missing in (
        ("config.json", SKELETONS),
        (SKELETONS, "factorization"),
        ("factorization.npz", "checkpoint"),
    ):
        shutil.copy(folder / copied, tmp_path)
        with pytest.raises(LfmError, match=missing):
            Lifter.from_workdir(tmp_path)
