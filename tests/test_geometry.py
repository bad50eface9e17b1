"""Laws of the pure geometry: rotations, Procrustes, pose, deformable pose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.spatial.transform import Rotation

from lfm_jax import numerics
from lfm_jax.geometry import deformable, pose, procrustes, rotations

FRAMES, POINTS = 40, 12

# Compiled whole: one by one, each of their operations would be a compilation.
from_rotation_vector = jax.jit(rotations.from_rotation_vector)
nearest_rotation = jax.jit(rotations.nearest_rotation)
random_rotation = jax.jit(rotations.random_rotation, static_argnames="shape")
align_similarity = jax.jit(
    procrustes.align_similarity, static_argnames=("scale", "reflection")
)
apply_alignment = jax.jit(procrustes.apply_alignment)
apply_pose = jax.jit(pose.apply_pose)
fit_pose = jax.jit(pose.fit_pose, static_argnames="refinements")
explain = jax.jit(deformable.explain)
improve = jax.jit(deformable.improve)
fit_low_rank = jax.jit(deformable.fit_low_rank, static_argnames="steps")


def cloud(seed=0, frames=FRAMES, points=POINTS):
    stretch = np.array([1.0, 0.6, 0.3], np.float32)
    random = np.random.default_rng(seed)
    return random.normal(size=(frames, points, 3)).astype(np.float32) * stretch


def random_mask(seed=0, frames=FRAMES, points=POINTS):
    mask = np.random.default_rng(seed).random((frames, points)) < 0.7
    mask[:, :5] = True
    return mask


def turn(rotation, points):
    return np.einsum("...ij,...nj->...ni", rotation, points)


def random_rotations(seed=0, shape=(FRAMES,)):
    return np.asarray(random_rotation(jax.random.key(seed), shape))


class TestRotations:
    def test_random_rotations_are_rotations_and_uniform(self):
        r = random_rotations(shape=(4000,))
        gram = r @ r.swapaxes(-1, -2)
        np.testing.assert_allclose(
            gram, np.broadcast_to(np.eye(3), gram.shape), atol=1e-5
        )
        np.testing.assert_allclose(np.linalg.det(r), 1.0, atol=1e-5)
        # uniform on SO(3): entries have mean 0 and variance 1/3; angles follow
        # (1 - cos a) / pi, of mean pi/2 + 2/pi
        np.testing.assert_allclose(r.mean(0), np.zeros((3, 3)), atol=0.05)
        np.testing.assert_allclose((r**2).mean(0), np.full((3, 3), 1 / 3), atol=0.03)
        angles = np.arccos(np.clip((np.trace(r, axis1=1, axis2=2) - 1) / 2, -1, 1))
        np.testing.assert_allclose(angles.mean(), np.pi / 2 + 2 / np.pi, atol=0.05)

    def test_matches_scipy(self):
        vector = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
        ours = from_rotation_vector(jnp.asarray(vector))
        np.testing.assert_allclose(
            ours, Rotation.from_rotvec(vector).as_matrix(), atol=1e-5
        )

    def test_rotation_vector_is_finite_and_has_a_gradient_at_zero(self):
        def corner(v):
            return from_rotation_vector(v)[1, 0]

        zero = jnp.zeros(3)
        np.testing.assert_allclose(from_rotation_vector(zero), np.eye(3))
        np.testing.assert_allclose(
            jax.jit(jax.grad(corner))(zero), [0.0, 0.0, 1.0], atol=1e-6
        )

    def test_nearest_rotation_is_the_svd_answer(self):
        m = np.random.default_rng(1).normal(size=(200, 3, 3)).astype(np.float32)
        u, _, vt = np.linalg.svd(m)
        u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
        np.testing.assert_allclose(nearest_rotation(jnp.asarray(m)), u @ vt, atol=2e-3)

    @pytest.mark.parametrize("rank", [0, 1, 2])
    def test_nearest_rotation_is_proper_and_best_at_any_rank(self, rank):
        basis = np.random.default_rng(2).normal(size=(rank, 2, 3))
        m = sum((np.outer(a, b) for a, b in basis), np.zeros((3, 3))).astype(np.float32)
        r = np.asarray(nearest_rotation(jnp.asarray(m)))
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(r) > 0.99
        others = random_rotations(3, (500,))
        assert np.sum(r * m) >= (others * m).sum((1, 2)).max() - 1e-4


class TestProcrustes:
    @pytest.mark.parametrize("scale", [True, False])
    def test_recovers_a_similarity_from_masked_points(self, scale):
        x, mask, r = cloud(), random_mask(), random_rotations()
        factor = 2.5 if scale else 1.0
        y = factor * turn(r, x) + np.array([3.0, -1.0, 0.5], np.float32)
        y = np.where(mask[..., None], y, 1e3)  # must be ignored
        found = align_similarity(x, y, mask, scale=scale)
        np.testing.assert_allclose(found.rotation, r, atol=1e-4)
        np.testing.assert_allclose(found.scale, np.full(FRAMES, factor), rtol=1e-4)
        moved = apply_alignment(found, x)
        np.testing.assert_allclose(np.asarray(moved)[mask], y[mask], atol=1e-3)

    def test_weights_are_those_of_a_weighted_least_squares_fit(self):
        x, y = cloud(1), cloud(2)
        weight = np.random.default_rng(0).uniform(0.1, 3.0, (FRAMES, POINTS))
        weight = np.where(random_mask(1), weight, 0.0).astype(np.float32)
        found = align_similarity(x, np.where(weight[..., None] > 0, y, np.nan), weight)
        for f in range(FRAMES):
            a, b = (v[f] - np.average(v[f], axis=0, weights=weight[f]) for v in (x, y))
            r, _ = Rotation.align_vectors(b, a, weights=weight[f])
            np.testing.assert_allclose(found.rotation[f], r.as_matrix(), atol=5e-3)
            w = weight[f][:, None]
            scale = (w * b * r.apply(a)).sum() / (w * a**2).sum()
            np.testing.assert_allclose(found.scale[f], scale, rtol=1e-3)

    def test_agrees_with_scipy_on_noisy_points(self):
        x, y, mask = cloud(1), cloud(2), random_mask(1)
        found = align_similarity(x, y, mask)
        for f in range(FRAMES):
            a = x[f][mask[f]] - x[f][mask[f]].mean(0)
            b = y[f][mask[f]] - y[f][mask[f]].mean(0)
            r, _ = Rotation.align_vectors(b, a)
            np.testing.assert_allclose(found.rotation[f], r.as_matrix(), atol=5e-3)
            scale = (b * r.apply(a)).sum() / (a**2).sum()
            np.testing.assert_allclose(found.scale[f], scale, rtol=1e-3)

    def test_mirror_only_with_reflection(self):
        x = cloud()
        y = x * np.array([1.0, 1.0, -1.0], np.float32)
        mask = np.ones(x.shape[:2], bool)

        def error(reflection):
            found = align_similarity(x, y, mask, reflection=reflection)
            return np.abs(np.asarray(apply_alignment(found, x)) - y).max()

        assert error(True) < 1e-4
        assert error(False) > 0.1
        found = align_similarity(x, y, mask)
        np.testing.assert_allclose(np.linalg.det(found.rotation), 1.0, atol=1e-5)

    def test_gradient_of_the_aligned_error_is_the_true_gradient(self):
        """Envelope theorem: alignment constant, gradient exact."""
        x, y = jnp.asarray(cloud(1)[:1]), jnp.asarray(cloud(2)[:1])
        mask = jnp.ones(x.shape[:2], bool)

        @jax.jit
        def error(source):
            found = align_similarity(source, y, mask)
            return jnp.sum(jnp.square(apply_alignment(found, source) - y))

        direction = jnp.asarray(cloud(3)[:1])
        slope = jnp.sum(jax.jit(jax.grad(error))(x) * direction)
        h = 1e-2
        numeric = (error(x + h * direction) - error(x - h * direction)) / (2 * h)
        np.testing.assert_allclose(slope, numeric, rtol=1e-2)


DEGENERATE = {
    "coincident": np.zeros((POINTS, 3)),
    "collinear": np.linspace(-1, 1, POINTS)[:, None] * np.array([1.0, 2.0, 0.5]),
    "planar": cloud(5)[0] * np.array([1.0, 1.0, 0.0]),
    "generic": cloud(5)[0],
}


@jax.jit
def _image_error(found, shape, image, mask):
    posed = pose.apply_pose(found, shape)[..., :2]
    return jnp.sum(jnp.square(numerics.keep(posed - image, mask)), axis=(-2, -1))


def image_error(found, shape, image, mask):
    return np.asarray(_image_error(found, shape, image, mask))


def project(r, shape, scale=1.7):
    return scale * turn(r, shape)[..., :2] + np.array([0.5, -2.0], np.float32)


class TestPose:
    def test_recovers_the_camera_from_masked_points(self):
        shape, mask, r = cloud(), random_mask(), random_rotations()
        image = np.where(mask[..., None], project(r, shape), 99.0).astype(np.float32)
        found = fit_pose(shape, image, mask, refinements=10)
        np.testing.assert_allclose(found.rotation, r, atol=1e-2)
        np.testing.assert_allclose(found.scale, np.full(FRAMES, 1.7), rtol=1e-2)
        posed = np.asarray(apply_pose(found, shape))
        np.testing.assert_allclose(posed[mask][:, :2], image[mask], atol=1e-2)

    def test_refinement_never_raises_the_error(self):
        shape, mask = cloud(), random_mask()
        noise = 0.3 * np.random.default_rng(0).normal(size=(FRAMES, POINTS, 2))
        image = (project(random_rotations(), shape) + noise).astype(np.float32)
        errors = [
            image_error(fit_pose(shape, image, mask, refinements=k), shape, image, mask)
            for k in range(6)
        ]
        for before, after in zip(errors, errors[1:], strict=False):
            assert (after <= before * (1 + 1e-5) + 1e-6).all()
        assert errors[-1].mean() < 0.98 * errors[0].mean()

    @pytest.mark.parametrize("thickness", [1.0, 0.05])
    def test_finds_the_optimum_that_slow_search_finds(self, thickness):
        shape, mask = cloud(frames=8), random_mask(frames=8)
        shape = shape * np.array([1.0, 1.0, thickness], np.float32)
        shape = turn(random_rotations(2, (8,)), shape)  # its axes are not the frame's
        noise = 0.2 * np.random.default_rng(1).normal(size=(8, POINTS, 2))
        image = (project(random_rotations(1, (8,)), shape) + noise).astype(np.float32)
        found = image_error(fit_pose(shape, image, mask), shape, image, mask)
        for f in range(8):
            y, x = shape[f][mask[f]], image[f][mask[f]]
            y, x = y - y.mean(0), x - x.mean(0)

            def residual(p, y=y, x=x):
                turned = Rotation.from_rotvec(p[:3]).apply(y)[:, :2]
                return (p[3] * turned - x).ravel()

            starts = Rotation.random(12, rng=f).as_rotvec()
            best = min(
                2 * scipy.optimize.least_squares(residual, [*s, 1.0]).cost
                for s in starts
            )
            assert found[f] <= best * 1.01 + 1e-5

    def test_a_plane_needs_no_refinement_however_it_lies(self):
        flat = cloud() * np.array([1.0, 0.2, 0.0], np.float32)
        shape = turn(random_rotations(3), flat)
        image = project(random_rotations(4), shape).astype(np.float32)
        found = fit_pose(shape, image, EVERY, refinements=0)
        assert (image_error(found, shape, image, EVERY) < 1e-6).all()

    def test_units_play_no_part(self):
        shape, mask = cloud(), random_mask()
        image = project(random_rotations(), shape).astype(np.float32)
        found = fit_pose(shape, image, mask)
        small, large = np.float32(2.0**-20), np.float32(2.0**20)  # round nothing
        for unit, image_unit in ((small, 1), (large, 1), (1, small), (large, small)):
            other = fit_pose(unit * shape, image_unit * image, mask)
            np.testing.assert_allclose(other.rotation, found.rotation, atol=1e-6)
            scale = found.scale * image_unit / unit
            np.testing.assert_allclose(other.scale, scale, rtol=1e-6)

    def test_the_scale_is_never_negative(self):
        shape, mask = cloud(), random_mask()
        image = np.random.default_rng(0).normal(size=(FRAMES, POINTS, 2))
        found = fit_pose(shape, image.astype(np.float32), mask, refinements=0)
        assert (np.asarray(found.scale) >= 0.0).all()

    @pytest.mark.parametrize("kind", DEGENERATE)
    @pytest.mark.parametrize("seen", [0, 1, 2, 3, POINTS])
    def test_finite_and_proper_at_degenerate_input(self, kind, seen):
        shape = jnp.asarray(DEGENERATE[kind], jnp.float32)[None]
        mask = jnp.arange(POINTS)[None] < seen
        for image in (shape[..., :2], jnp.zeros((1, POINTS, 2))):
            found = fit_pose(shape, image, mask)
            for leaf in jax.tree.leaves(found):
                assert np.isfinite(leaf).all()
            r = np.asarray(found.rotation[0])
            np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-5)
            assert np.linalg.det(r) > 0.99

    def test_values_outside_the_mask_play_no_part(self):
        shape, mask = cloud(), random_mask()
        image = project(random_rotations(), shape).astype(np.float32)
        clean = fit_pose(shape, image, mask)
        other = np.where(mask[..., None], image, np.nan)
        dirty = fit_pose(np.where(mask[..., None], shape, np.nan), other, mask)
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
            np.testing.assert_array_equal(a, b)


def low_rank(bases=2, seed=0):
    """A deforming shape, once for every frame."""
    random = np.random.default_rng(seed)
    shapes = random.normal(size=(bases + 1, POINTS, 3)) * 0.25
    shapes[0] = cloud(seed, 1)[0]
    shapes = (shapes - shapes.mean(1, keepdims=True)).astype(np.float32)
    return jnp.broadcast_to(shapes, (FRAMES, *shapes.shape))


def images(shapes, scale=1.0):
    """Its images in random deformation and pose, and the coefficients."""
    codes = np.random.default_rng(1).normal(size=(FRAMES, 2)).astype(np.float32)
    shape = np.asarray(deformable.deform(shapes, jnp.asarray(codes)))
    return project(random_rotations(2), shape, scale).astype(np.float32), codes


EVERY = np.ones((FRAMES, POINTS), bool)


def problem():
    """Noisy images of a shape that deforms: moments, scale prior, and the images."""
    shapes = low_rank()
    image, _ = images(shapes)
    image += 0.05 * np.random.default_rng(3).normal(size=image.shape)
    image, noise = jnp.asarray(image, jnp.float32), jnp.full(EVERY.shape, 0.05**2)
    moment = deformable.moments(shapes, image, deformable.weights(noise, EVERY))
    prior = pose.ScalePrior(jnp.full(FRAMES, 0.9), jnp.full(FRAMES, 1e4))
    return moment, prior, (shapes, noise, image)


def last(rotations):
    """The batch last, as moments have it."""
    return jnp.moveaxis(jnp.asarray(rotations), 0, -1)


def settled(moment, prior, rotation):
    """Where steps from a rotation end."""
    now, damping = explain(moment, prior, jnp.ones(FRAMES), rotation), jnp.ones(FRAMES)
    for _ in range(30):
        now, damping = improve(moment, prior, now, damping)
    return now


class TestSweep:
    @pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (9, 9), (7, 4)])
    def test_agrees_with_numpy_on_definite_matrices(self, size, count):
        factor = np.random.default_rng(size).normal(size=(50, size, size + 2))
        matrix = 3.0 * factor @ factor.swapaxes(1, 2) + np.eye(size)
        one, two = matrix[:, :count, :count], matrix[:, :count, count:]
        inverse = np.linalg.inv(one)
        along = inverse @ two
        left = matrix[:, count:, count:] - two.swapaxes(1, 2) @ along
        expected = np.block([[left, -along.swapaxes(1, 2)], [along, inverse]])
        found = numerics.sweep_last(last(matrix.astype(np.float32)), count)
        np.testing.assert_allclose(
            np.moveaxis(found, -1, 0), expected, rtol=1e-4, atol=2e-5
        )


class TestDeformable:
    def test_recovers_deformation_at_little_noise(self):
        shapes = low_rank()
        image, codes = images(shapes)
        noise = jnp.full(EVERY.shape, 1e-5)
        found, camera = fit_low_rank(shapes, noise, image, EVERY, steps=40)
        error = image_error(camera, deformable.deform(shapes, found), image, EVERY)
        # alternation from the mean finds nearly all; a few end in another optimum
        assert np.median(error) < 1e-2
        assert np.median(np.abs(np.asarray(found) - codes)) < 0.05

    def test_posterior_is_that_of_the_dense_gaussian(self):
        """Against the textbook formula with all points written out."""
        shapes, r = low_rank()[:1], random_rotations(4, (1,))
        noise = np.random.default_rng(0).uniform(0.02, 0.5, (1, POINTS))
        noise, mask = noise.astype(np.float32), random_mask(frames=1)
        image = cloud(7, 1)[..., :2]
        scale = np.array([1.3], np.float32)
        weight = deformable.weights(noise, mask)
        moment = jax.jit(deformable.moments)(shapes, image, weight)
        prior = pose.ScalePrior(*jnp.zeros((2, 1)))
        found = explain(moment, prior, scale, last(r))
        seen, camera = mask[0], scale[0] * r[0][:2]
        w = 1.0 / noise[0, seen]

        def centred(points):
            return (points - np.average(points, axis=0, weights=w)).ravel()

        bodies = np.asarray(shapes[0])[:, seen]
        columns = np.stack([centred(b @ camera.T) for b in bodies[1:]], axis=1)
        target = centred(image[0][seen]) - centred(bodies[0] @ camera.T)
        weighted = columns * np.repeat(w, 2)[:, None]
        expected = np.linalg.inv(columns.T @ weighted + np.eye(2))
        mean = expected @ weighted.T @ target
        np.testing.assert_allclose(
            found.covariance[..., 0], expected, rtol=1e-3, atol=1e-5
        )
        np.testing.assert_allclose(
            found.coefficients[..., 0], mean, rtol=1e-3, atol=1e-4
        )
        # -2 log p of image and coefficients, but for what has nothing to do with them
        left = np.sum(np.repeat(w, 2) * (target - columns @ mean) ** 2)
        nothing = np.sum(np.repeat(w, 2) * centred(image[0][seen]) ** 2)
        surprise = left + mean @ mean - nothing
        np.testing.assert_allclose(found.surprise[0], surprise, rtol=1e-3)

    def test_no_pose_near_by_is_more_probable(self):
        """From either side of the optimum, in rotation and in scale."""
        moment, prior, _ = problem()
        found = settled(moment, prior, last(random_rotations(6)))
        for seed in range(20):
            vector = 0.05 * np.random.default_rng(seed).normal(size=(FRAMES, 3))
            turn = from_rotation_vector(vector.astype(np.float32))
            turned = last(np.moveaxis(found.rotation, -1, 0) @ turn)
            scale = found.scale * (1.0 + 0.05 * np.sin(seed))
            other = explain(moment, prior, scale, turned)
            assert np.all(other.surprise > found.surprise - 0.02)

    def test_a_step_never_makes_the_2d_less_probable(self):
        moment, prior, _ = problem()
        now = explain(moment, prior, jnp.ones(FRAMES), last(random_rotations(6)))
        damping = jnp.zeros(FRAMES)
        refused = 0
        for _ in range(10):
            then, damping = improve(moment, prior, now, damping)
            assert np.all(then.surprise <= now.surprise)
            refused += np.sum(np.asarray(then.surprise == now.surprise))
            now = then
        assert refused > 0  # or nothing was tested

    def test_three_steps_are_as_good_as_thirty(self):
        moment, _, (shapes, noise, image) = problem()
        free, surprises = pose.ScalePrior(*jnp.zeros((2, FRAMES))), []
        for steps in (deformable.STEPS, 10 * deformable.STEPS):
            _, camera = fit_low_rank(shapes, noise, image, EVERY, steps=steps)
            found = explain(moment, free, camera.scale, last(camera.rotation))
            surprises.append(np.asarray(found.surprise))
        # in units of a squared standard deviation
        assert np.mean(surprises[0] < surprises[1] + 0.1) >= 0.9  # two steps: 0.7

    @pytest.mark.parametrize("kind", sorted(DEGENERATE))
    @pytest.mark.parametrize("seen", [0, 1, 2, POINTS])
    def test_finite_and_proper_at_degenerate_input(self, kind, seen):
        mean = jnp.asarray(DEGENERATE[kind], jnp.float32)
        shapes = jnp.stack([mean, 0.1 * low_rank()[0, 1]])[None]
        mask = jnp.arange(POINTS)[None] < seen
        image = jnp.asarray(DEGENERATE[kind], jnp.float32)[None, :, :2]
        codes, camera = fit_low_rank(shapes, jnp.full((1, POINTS), 1e-2), image, mask)
        assert all(np.isfinite(v).all() for v in jax.tree.leaves((codes, camera)))
        r = np.asarray(camera.rotation[0])
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(r) > 0.99 and camera.scale[0] >= 0.0

    def test_what_the_2d_does_not_support_stays_at_zero(self):
        codes, camera = fit_low_rank(
            low_rank(), jnp.ones(EVERY.shape), jnp.ones((*EVERY.shape, 2)), ~EVERY
        )
        np.testing.assert_array_equal(codes, np.zeros((FRAMES, 2)))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(camera))

    def test_a_keypoint_of_endless_noise_counts_as_hidden(self):
        shapes = low_rank()
        image, _ = images(shapes)
        image[:, 0] += 3.0
        noise = np.full(EVERY.shape, 1e-3, np.float32)
        noise[:, 0] = 1e9
        hidden = EVERY & (np.arange(POINTS) > 0)
        one = fit_low_rank(shapes, noise, image, EVERY)
        other = fit_low_rank(shapes, noise, image, hidden)
        # a few frames have two nearly equal optima
        gap = np.abs(np.asarray(one[1].rotation - other[1].rotation)).max((1, 2))
        assert np.median(gap) < 1e-3

    def test_a_known_scale_holds_as_firmly_as_its_weight(self):
        """Images are 1.2 times as large as known: believed, or put down to noise."""
        shapes = low_rank()
        image, _ = images(shapes, 1.2)
        noise = jnp.full(EVERY.shape, 0.01)

        def scales(weight):
            prior = pose.ScalePrior(jnp.ones(FRAMES), jnp.full(FRAMES, weight))
            return np.asarray(fit_low_rank(shapes, noise, image, EVERY, prior)[1].scale)

        np.testing.assert_allclose(scales(1e6), 1.0, atol=1e-2)
        np.testing.assert_allclose(np.median(scales(0.0)), 1.2, atol=0.03)
        assert np.median(scales(1e6)) < np.median(scales(3e2)) < np.median(scales(0.0))

    def test_without_bases_it_is_the_rigid_pose(self):
        shape, mask = cloud(), random_mask()
        image = project(random_rotations(), shape).astype(np.float32)
        _, found = fit_low_rank(
            jnp.asarray(shape)[:, None], jnp.ones(EVERY.shape), image, mask
        )
        rigid = fit_pose(shape, image, mask)
        # the optimum is flat: rotations agree to the root of the float precision
        np.testing.assert_allclose(found.rotation, rigid.rotation, atol=2e-3)
