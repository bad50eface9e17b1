"""Laws of the rigs and of the zoo: kinematics, limits, symmetry, variety, motion."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfm_jax import metrics
from lfm_jax.data.split import split_rows
from lfm_jax.errors import LfmError
from lfm_jax.geometry.pose import apply_pose, fit_pose
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.numerics import centre, rms_radius
from lfm_jax.rigs import motion, zoo
from lfm_jax.rigs.kinematics import euler_to_matrix, forward_kinematics

COUNTS = {
    "aeroplane": 8, "bicycle": 11, "boat": 7, "bottle": 7, "bus": 12, "car": 12,
    "chair": 10, "diningtable": 12, "motorbike": 10, "sofa": 10, "train": 17,
    "tvmonitor": 8, "human_h36m17": 17, "human_coco17": 17, "human_panoptic19": 19,
    "human_mpii16": 16, "human_wholebody133": 133, "hand21": 21, "face68": 68,
    "dog": 20, "macaque": 13, "chimpanzee": 16, "sparrow": 15, "mouse": 22, "rat": 20,
    "drosophila": 38, "locust": 35,
}  # fmt: skip
FRAMES = 16
MOVING = [c for c in zoo.CATEGORIES if not zoo.build(c).rigid]


def padded(points, frames):
    """So many frames, the last one repeated, of 133 keypoints; and their mask."""
    rows = np.minimum(np.arange(frames), len(points) - 1)
    mask = np.broadcast_to(np.arange(133) < points.shape[1], (frames, 133))
    return np.pad(points[rows], [(0, 0), (0, 133 - points.shape[1]), (0, 0)]), mask


@jax.jit
def nearest(library, known, true, mask):
    """The most alike of a library, and the errors it would leave."""
    found = metrics.nearest_shape(true, mask, library, known)
    return found, metrics.ne(library[found], true, mask)


@jax.jit
def lifted_by_mean_shape(key, library, known, true, mask):
    mean = metrics.mean_shape(library, known)
    camera = random_rotation(key, true.shape[:1])
    true = jnp.einsum("fij,fnj->fni", camera, centre(true, mask))
    true = true / rms_radius(true, mask)[:, None, None]
    shape = jnp.broadcast_to(mean, true.shape)
    lift = lambda shape: jnp.concatenate(
        [
            true[..., :2],
            apply_pose(fit_pose(shape, true[..., :2], mask), shape)[..., 2:],
        ],
        axis=-1,
    )
    both = [
        metrics.ne(lift(s), true, mask) for s in (shape, metrics.mirror_depth(shape))
    ]
    return jnp.minimum(*both)


@pytest.fixture(scope="module")
def samples():
    return {c: zoo.sample_category(c) for c in zoo.CATEGORIES}


@pytest.fixture(scope="module")
def clips():
    """Angles [s t j 3] and positions [s t j 3] of all joints, category by category."""
    return {c: _clip(c) for c in zoo.CATEGORIES}


@jax.jit
def _sample(key, rig):
    angles = motion.sample_angles(jax.random.split(key)[1], rig, 30, FRAMES)
    return angles, motion.sample_joints(key, rig, 30, FRAMES)


def _clip(category):
    return jax.device_get(_sample(jax.random.key(3), zoo.rig_arrays(category)))


def _unit(shape):
    shape = shape - shape.mean(0)
    return shape / np.linalg.norm(shape)


def _procrustes_error(a, b):
    """100 * PA-MPJPE / RMS radius of unit shapes a and b, no reflection."""
    rotation, _ = Rotation.align_vectors(b, a)
    turned = rotation.apply(a)
    turned = turned * (turned * b).sum()
    return 100 * np.linalg.norm(turned - b, axis=-1).mean() * math.sqrt(len(a))


def test_forward_kinematics_is_the_recursive_one():
    rng = np.random.default_rng(0)
    parent = np.array([0, *(rng.integers(0, j) for j in range(1, 40))])
    parent[20:30] = np.arange(19, 29)  # and one deep chain
    offset = rng.normal(size=(40, 3)).astype(np.float32)
    angles = rng.uniform(-3, 3, size=(5, 40, 3)).astype(np.float32)
    offset[0], angles[:, 0] = 0, 0

    def slow(j, pose):  # position and rotation of joint j
        if j == 0:
            return np.zeros(3), Rotation.identity()
        position, turn = slow(parent[j], pose)
        return position + turn.apply(offset[j]), turn * Rotation.from_euler(
            "xyz", pose[j]
        )

    expected = np.array([[slow(j, pose)[0] for j in range(40)] for pose in angles])
    bones = np.broadcast_to(offset, angles.shape)
    found = forward_kinematics(*map(jnp.asarray, (parent, bones, angles)))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_euler_angles_are_those_of_scipy():
    angles = np.random.default_rng(1).uniform(-3, 3, (50, 3)).astype(np.float32)
    expected = Rotation.from_euler("xyz", angles).as_matrix()
    np.testing.assert_allclose(
        euler_to_matrix(jnp.asarray(angles)), expected, atol=1e-6
    )


def test_categories_and_counts_of_the_field():
    assert len(zoo.CATEGORIES) >= 48
    for category, count in COUNTS.items():
        assert len(zoo.skeleton(category).keypoints) == count, category
    names = [zoo.skeleton(c).keypoints for c in zoo.CATEGORIES]
    assert names.count(zoo.skeleton("dog").keypoints) >= 12
    whole = zoo.skeleton("human_wholebody133").keypoints
    assert whole[:17] == zoo.skeleton("human_coco17").keypoints
    assert whole[23:91] == zoo.skeleton("face68").keypoints
    assert (whole[91], whole[112]) == ("left_hand_root", "right_hand_root")


@pytest.mark.parametrize("category", zoo.CATEGORIES)
def test_skeleton_is_well_formed(category):
    skeleton = zoo.skeleton(category)
    n = len(skeleton.keypoints)
    assert len(set(skeleton.keypoints)) == n
    assert all(0 <= i < j < n for i, j in skeleton.edges)
    reached, size = {0}, 0
    while len(reached) > size:
        size = len(reached)
        reached |= {k for e in skeleton.edges if reached & set(e) for k in e}
    assert len(reached) == n  # connected
    assert skeleton.name == category and skeleton.units == "mm"


@pytest.mark.parametrize("category", zoo.CATEGORIES)
def test_rest_pose_is_symmetric(category):
    rig = zoo.build(category)
    if category == "hand21":
        pytest.skip("one hand has no other side")
    mirrored = rig.rest[rig.twin] * [1, -1, 1]
    np.testing.assert_allclose(mirrored, rig.rest, atol=1e-9)
    side = {j: rig.rest[j, 1] for j in rig.shown if rig.twin[j] != j}
    assert side, "no sides at all"
    for name, joint in zip(rig.skeleton.keypoints, rig.shown, strict=True):
        if name.startswith("left_"):  # what the field calls left is on the left
            assert side[joint] > 0, name


def test_bones_keep_their_length_within_an_individual(clips):
    for category, (_, joints) in clips.items():
        parent = np.asarray(zoo.rig_arrays(category).parent)
        length = np.linalg.norm(joints - joints[:, :, parent], axis=-1)
        size = length.max()
        spread = length.max(1) - length.min(1)
        assert spread.max() < 1e-5 * size, category
        moved = length[:, 0].std(0) > 1e-3 * size  # and individuals differ
        assert moved.any(), category


def test_joint_limits_are_kept_and_used(clips):
    for category, (angles, _) in clips.items():
        rig = zoo.rig_arrays(category)
        low, high = np.asarray(rig.low), np.asarray(rig.high)
        slack = 1e-6
        assert (angles >= low - slack).all() and (angles <= high + slack).all()
        free = high - low > slack
        if not free.any():  # a rigid class that varies in sizes alone
            continue
        share = np.ptp(angles, axis=(0, 1))[free] / (high - low)[free]
        assert np.median(share) > 0.2, category


@pytest.mark.parametrize("category", MOVING)
def test_left_and_right_differ_in_pose(category, clips):
    if category in ("hand21", "snake"):
        pytest.skip("no limbs on either side")
    rig, (angles, _) = zoo.build(category), clips[category]
    other = angles[:, :, rig.twin] * np.array([-1.0, 1.0, -1.0], np.float32)
    sides = rig.twin != np.arange(len(rig.twin))  # the trunk is its own twin
    difference = np.abs(other - angles[:, :, : len(rig.twin)])[:, :, sides]
    assert difference.max() > 0.1


@pytest.mark.parametrize("category", ["human_h36m17", "dog", "gorilla", "lizard"])
def test_gait_drives_the_sides_in_antiphase(category, clips):
    rig, (angles, _) = zoo.build(category), clips[category]
    names = rig.joints
    axis = int(np.argmax(rig.gait[names.index("left_hip")]))
    left = angles[:, :, names.index("left_hip"), axis]
    right = angles[:, :, names.index("right_hip"), axis]
    sign = 1.0 if axis == 1 else -1.0  # roll and yaw turn the other way on the right
    assert np.corrcoef(left.ravel(), sign * right.ravel())[0, 1] < -0.2


@pytest.mark.parametrize("category", ["car", "sofa", "aeroplane", "chair"])
def test_rigid_individuals_stay_symmetric(category, samples):
    rig = zoo.build(category)
    slot = {joint: k for k, joint in enumerate(rig.shown)}
    other = [slot[rig.twin[joint]] for joint in rig.shown]
    points = samples[category].points3d
    mirrored = points[:, other] * np.array([1, -1, 1], np.float32)
    np.testing.assert_allclose(mirrored, points, rtol=1e-4, atol=1e-4 * points.max())


def test_deterministic_in_the_key_and_different_between_keys():
    def sample(seed):
        return zoo.sample_sequences(jax.random.key(seed), "fox")

    np.testing.assert_array_equal(sample(0), sample(0))
    assert np.abs(sample(0) - sample(1)).max() > 10.0
    first, second = np.asarray(sample(0))[:2]
    assert np.abs(first - second).max() > 10.0  # individuals differ too


def test_sampling_can_be_traced():
    def sample(key):
        return zoo.sample_sequences(key, "fox", 6, FRAMES)

    assert jax.eval_shape(sample, jax.random.key(0)).shape == (6, FRAMES, 20, 3)


def test_no_two_categories_have_the_same_shape():
    rigs = {c: zoo.build(c) for c in zoo.CATEGORIES}
    shapes = {c: _unit(rig.rest[rig.shown]) for c, rig in rigs.items()}
    for a, b in itertools.combinations(shapes, 2):
        if len(shapes[a]) == len(shapes[b]):
            assert _procrustes_error(shapes[a], shapes[b]) > 4.0, (a, b)


@pytest.mark.parametrize("category", zoo.CATEGORIES)
def test_samples_are_finite_and_neither_still_nor_jumping(category, samples):
    sample = samples[category]
    individuals, frames = zoo.sample_size(category)
    points = sample.points3d.reshape(individuals, frames, -1, 3)
    assert np.isfinite(points).all() and points.dtype == np.float32
    radius = np.sqrt(points.var(axis=2).sum(-1).mean())
    if frames == 1:
        return
    step = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    bend = np.linalg.norm(np.diff(points, n=2, axis=1), axis=-1)
    assert 0.005 * radius < step.mean() < 0.15 * radius
    assert step.max() < 1.2 * radius
    assert bend.mean() < 0.7 * step.mean()  # velocity lasts: frames follow each other


def test_specimens_are_individuals_and_drosophila_trains_on_80_frames(samples):
    for category, sample in samples.items():
        individuals, frames = zoo.sample_size(category)
        specimens, count = np.unique(sample.specimen, return_counts=True)
        assert len(specimens) == individuals and (count == frames).all()
        np.testing.assert_array_equal(sample.sequence, sample.specimen)
    fly = samples["drosophila"]
    assert len(split_rows("drosophila", fly.sequence, fly.specimen).train) == 80


def test_test_frames_are_other_individuals_in_other_poses(samples):
    """Not one test frame of what moves has its like among the training frames."""
    for category in MOVING:
        sample = samples[category]
        rows = split_rows(category, sample.sequence, sample.specimen)
        assert not set(sample.specimen[rows.train]) & set(sample.specimen[rows.test])
        train, test = (sample.points3d[r] for r in (rows.train, rows.test))
        _, errors = nearest(*padded(train, 600), *padded(test[:30], 30))
        assert errors[: len(test)].min() > 0.5, category


def test_individuals_of_a_rigid_class_differ_in_shape(samples):
    for category in set(zoo.CATEGORIES) - set(MOVING):
        shapes = [_unit(points) for points in samples[category].points3d[:8]]
        errors = [_procrustes_error(a, b) for a, b in itertools.combinations(shapes, 2)]
        assert min(errors) > 0.5 and np.mean(errors) > 2.0, category


def test_the_mean_shape_is_neither_a_perfect_answer_nor_a_useless_one(samples):
    """The zoo's difficulty: what one rigid shape per category, with 3D, comes to."""
    errors = []
    for category, sample in samples.items():
        rows = split_rows(category, sample.sequence, sample.specimen)
        train, test = (sample.points3d[r] for r in (rows.train, rows.test))
        truth, mask = padded(test[:60], 60)
        found = lifted_by_mean_shape(
            jax.random.key(0), *padded(train, 600), truth, mask
        )
        errors.append(np.asarray(found)[: len(test)].mean())
    assert 8.0 < np.mean(errors) < 20.0


def test_unknown_category_is_said_in_one_sentence():
    with pytest.raises(LfmError, match="no category 'unicorn'"):
        zoo.skeleton("unicorn")
