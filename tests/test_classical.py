"""Laws of the factorizations in closed form and of BMM: exact on exact data."""

import numpy as np
import pytest
import scipy.optimize

from lfm_jax.classical import affine, bmm, factorization
from lfm_jax.errors import LfmError

FRAMES, POINTS = 60, 20


def random_cameras(random):
    rotations = np.linalg.qr(random.normal(size=(FRAMES, 3, 3)))[0]
    return rotations * np.linalg.det(rotations)[:, None, None]


def orbit():
    """Five degrees a frame about the vertical, nodding a little."""
    angle = np.radians(5.0) * np.arange(FRAMES)
    tilt = np.radians(15.0) * np.sin(0.7 * angle)
    turn, nod = (np.tile(np.eye(3), (FRAMES, 1, 1)) for _ in range(2))
    for matrix, by, (i, j) in ((turn, angle, (0, 2)), (nod, tilt, (1, 2))):
        matrix[:, i, i] = matrix[:, j, j] = np.cos(by)
        matrix[:, i, j], matrix[:, j, i] = np.sin(by), -np.sin(by)
    return nod @ turn


def shapes_of(codes, random):
    """Centred shapes [f n 3] of random bases, one for each column of the codes."""
    bases = random.normal(size=(codes.shape[1], POINTS, 3))
    return np.tensordot(codes, bases - bases.mean(1, keepdims=True), 1)


def about_a_mean(random, bases=2, deviation=0.4):
    ones = np.ones((FRAMES, 1))
    return np.append(ones, deviation * random.normal(size=(FRAMES, bases - 1)), axis=1)


def seen(shapes, rotations, scales, translations):
    image = (shapes @ rotations.swapaxes(1, 2))[..., :2]
    return scales[:, None, None] * image + translations[:, None]


def reprojected(found):
    return seen(found.points3d, found.rotations, found.scales, found.translations)


def misfit(shapes, true, *, scale=False):
    """Relative error after one rotation or mirror image of all frames together."""
    left, values, right = np.linalg.svd(np.einsum("fni,fnj->ij", true, shapes))
    size = values.sum() / np.sum(shapes**2) if scale else 1.0
    gap = size * shapes @ (left @ right).T - true
    return np.linalg.norm(gap) / np.linalg.norm(true)


def rigid_scene(seed=0):
    """True shapes, image points and scales of a rigid body."""
    random = np.random.default_rng(seed)
    shapes = shapes_of(np.ones((FRAMES, 1)), random)
    scales = np.exp(0.3 * random.normal(size=FRAMES))
    places = random.normal(size=(FRAMES, 2))
    return shapes, seen(shapes, random_cameras(random), scales, places), scales


def deforming_scene(seed=0):
    """True shapes and orthographic image points of two bases."""
    random = np.random.default_rng(seed)
    shapes = shapes_of(about_a_mean(random), random)
    places = random.normal(size=(FRAMES, 2))
    return shapes, seen(shapes, random_cameras(random), np.ones(FRAMES), places)


def assert_rotations(rotations):
    eye = np.broadcast_to(np.eye(3), rotations.shape)
    np.testing.assert_allclose(rotations @ rotations.swapaxes(1, 2), eye, atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)


class TestTomasiKanade:
    def test_a_rigid_body_is_exact(self):
        shapes, points2d, scales = rigid_scene()
        found = factorization.tomasi_kanade(points2d)
        assert misfit(found.points3d, shapes, scale=True) < 1e-9
        np.testing.assert_allclose(found.scales, scales / scales.mean())
        np.testing.assert_allclose(reprojected(found), points2d, atol=1e-9)
        assert_rotations(found.rotations)

    @pytest.mark.parametrize("missing", [0.2, 0.6])
    def test_missing_points_are_found_and_their_values_play_no_part(self, missing):
        shapes, points2d, _ = rigid_scene()
        mask = np.random.default_rng(1).random(points2d.shape[:2]) >= missing
        mask[:, :5] |= mask.sum(1, keepdims=True) < 5
        found = factorization.tomasi_kanade(
            np.where(mask[..., None], points2d, np.nan), mask
        )
        assert misfit(found.points3d, shapes, scale=True) < 1e-6
        np.testing.assert_allclose(reprojected(found), points2d, atol=1e-6)
        assert_rotations(found.rotations)

    def test_of_noisy_points_those_seen_are_fitted_best(self):
        """No rank-three shape near the one found leaves less."""
        random = np.random.default_rng(2)
        _, points2d, _ = rigid_scene()
        points2d = points2d + 0.1 * random.normal(size=points2d.shape)
        mask = random.random(points2d.shape[:2]) < 0.7
        motion, shape, _ = affine._complete(points2d * mask[..., None], mask)
        left = lambda near: np.sum(
            affine._motions(points2d * mask[..., None], mask, near)[1] ** 2
        )
        least = left(shape.T)
        for _ in range(20):
            step = 1e-3 * random.normal(size=shape.T.shape)
            assert left(shape.T + step) > least

    def test_the_upgrade_is_that_of_any_factorization(self):
        """Also of inexact data: the angles between cameras are the same."""
        random = np.random.default_rng(0)
        motion = random_cameras(random)[:, :2] + 0.1 * random.normal(size=(60, 2, 3))
        mixed = motion @ np.array([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [0.5, 0.0, 0.2]])
        (one, cameras, _), (other, turned, upgrade) = map(
            affine.metric_upgrade, (motion, mixed)
        )
        products = lambda rows: rows.reshape(-1, 3) @ rows.reshape(-1, 3).T
        np.testing.assert_allclose(products(cameras), products(turned), atol=1e-9)
        np.testing.assert_allclose(one, other)
        np.testing.assert_allclose(
            affine.nearest_cameras(mixed @ upgrade)[0], turned, atol=1e-9
        )


class TestBregler:
    def test_one_basis_is_exact(self):
        shapes, points2d, scales = rigid_scene()
        found = factorization.bregler(points2d, 1)
        assert misfit(found.points3d, shapes, scale=True) < 1e-9
        np.testing.assert_allclose(found.scales, scales / scales.mean())
        assert_rotations(found.rotations)

    def test_more_explain_the_images_but_not_the_depths(self):
        shapes, points2d = deforming_scene()
        found = factorization.bregler(points2d, 2)
        np.testing.assert_allclose(reprojected(found), points2d, atol=1e-9)
        assert_rotations(found.rotations)
        wrong = misfit(found.points3d, shapes, scale=True)
        assert wrong > 0.1 > misfit(bmm.bmm(points2d, 2).points3d, shapes, scale=True)

    def test_noise_beyond_the_rank_is_not_explained(self):
        random = np.random.default_rng(3)
        _, points2d = deforming_scene()
        noisy = points2d + 0.1 * random.normal(size=points2d.shape)
        found = reprojected(factorization.bregler(noisy, 2))
        assert np.std(found - points2d) < 0.8 * np.std(noisy - points2d)


class TestBMM:
    @pytest.mark.parametrize("seed", range(3))
    def test_two_bases_are_exact_in_the_scale_of_the_image(self, seed):
        shapes, points2d = deforming_scene(seed)
        found = bmm.bmm(points2d, 2)
        assert misfit(found.points3d, shapes) < 1e-3
        np.testing.assert_allclose(reprojected(found), points2d, atol=1e-3)
        assert_rotations(found.rotations)
        assert (found.scales == 1.0).all()

    def test_a_video_needs_no_mean_shape(self):
        random = np.random.default_rng(0)
        shapes = shapes_of(random.normal(size=(FRAMES, 2)), random)
        points2d = seen(shapes, orbit(), np.ones(FRAMES), np.zeros((FRAMES, 2)))
        assert misfit(bmm.bmm(points2d, 2).points3d, shapes) < 1e-3

    @pytest.mark.parametrize("deviation", [None, 0.7])
    def test_without_order_the_signs_make_the_mean_large(self, deviation):
        """Of sums of two shapes, and of a mean that deforms by most of its size."""
        for seed in range(6):
            random = np.random.default_rng(seed)
            codes = random.uniform(size=(FRAMES, 2))
            if deviation:
                codes = about_a_mean(random, deviation=deviation)
            shapes = shapes_of(codes, random)
            points2d = (shapes @ random_cameras(random).swapaxes(1, 2))[..., :2]
            assert misfit(bmm.bmm(points2d, 2).points3d, shapes) < 1e-3

    def test_a_frame_that_is_larger_has_a_larger_shape(self):
        random = np.random.default_rng(0)
        shapes = shapes_of(about_a_mean(random), random)
        shapes = shapes * np.exp(0.1 * random.normal(size=(FRAMES, 1, 1)))
        points2d = (shapes @ random_cameras(random).swapaxes(1, 2))[..., :2]
        assert misfit(bmm.bmm(points2d, 2).points3d, shapes) < 1e-3

    def test_a_frame_whose_points_coincide_does_no_harm(self):
        shapes, points2d = deforming_scene()
        shapes[3], points2d[3] = 0.0, 1.0
        assert misfit(bmm.bmm(points2d, 2).points3d, shapes) < 1e-3

    def test_units_and_place_do_not_matter(self):
        _, points2d = deforming_scene()
        one, other = bmm.bmm(points2d, 2), bmm.bmm(1e-4 * points2d + 5.0, 2)
        assert misfit(1e-4 * one.points3d, other.points3d) < 1e-4

    def test_the_convex_program_finds_the_camera_of_the_mean(self):
        """Nearly of rank three, in noise, and asked for more bases than there are."""
        random = np.random.default_rng(0)
        shapes = shapes_of(about_a_mean(random, bases=3), random)
        rotations = random_cameras(random)
        points2d = (shapes @ rotations.swapaxes(1, 2))[..., :2]
        points2d = points2d + 0.02 * random.normal(size=points2d.shape)
        motion, _ = affine.truncate(affine.centred_tracks(points2d, 5)[0], 15)
        motion = motion * np.sqrt(FRAMES) / np.linalg.norm(motion[..., 0])
        squares, axes = np.linalg.eigh(bmm._least_trace(motion))
        assert squares[0] > -1e-9 and squares[-4] < 0.02 * squares[-3]
        found, scales = affine.nearest_cameras(
            motion @ axes[:, -3:] * np.sqrt(squares[-3:])
        )
        np.testing.assert_allclose(scales, 1.0, atol=0.05)
        products = lambda rows: rows.reshape(-1, 3) @ rows.reshape(-1, 3).T
        apart = products(found) - products(rotations[:, :2])
        assert np.sqrt(np.mean(apart**2)) < 0.1

    def test_what_is_refined_has_its_derivative(self):
        random = np.random.default_rng(0)
        motion = random.normal(size=(10, 2, 6))
        gap = scipy.optimize.check_grad(
            lambda x: bmm._skew(x, motion)[0],
            lambda x: bmm._skew(x, motion)[1],
            random.normal(size=18),
        )
        assert gap < 1e-5

    def test_given_cameras_shapes_have_the_rank_asked_for(self):
        random = np.random.default_rng(0)
        shapes = shapes_of(about_a_mean(random, bases=3), random)
        rotations = random_cameras(random)
        points2d = (shapes @ rotations.swapaxes(1, 2))[..., :2]
        exact = bmm.recover_shapes(points2d, rotations, 3)
        np.testing.assert_allclose(exact, shapes, atol=1e-3)
        fewer = bmm.recover_shapes(points2d, rotations, 2)
        assert np.linalg.matrix_rank(fewer.reshape(FRAMES, -1), tol=1e-6) == 2


class TestErrors:
    def test_bad_tracks_are_named(self):
        _, points2d, _ = rigid_scene()
        mask = np.ones(points2d.shape[:2], bool)
        with pytest.raises(LfmError, match="2 frames do not give a shape"):
            factorization.tomasi_kanade(points2d[:2])
        few = mask.copy()
        few[7, 3:] = False
        with pytest.raises(LfmError, match="Frame 7 shows 3 keypoints"):
            factorization.tomasi_kanade(points2d, few)
        rare = mask.copy()
        rare[1:, 5] = False
        with pytest.raises(LfmError, match="Keypoint 5 is seen in 1 frames"):
            factorization.tomasi_kanade(points2d, rare)
        points2d[4, 6, 0] = np.nan
        for method in (factorization.bregler, bmm.bmm):
            with pytest.raises(LfmError, match="Keypoint 6 of frame 4 is not finite"):
                method(points2d, 1)

    @pytest.mark.parametrize("method", [factorization.bregler, bmm.bmm])
    @pytest.mark.parametrize("bases", [0, 7])
    def test_bases_that_cannot_be_told(self, method, bases):
        with pytest.raises(LfmError, match="ask for 1 to 6"):
            method(rigid_scene()[1], bases)

    def test_a_camera_that_does_not_turn(self):
        shapes, _, _ = rigid_scene()
        with pytest.raises(LfmError, match="A plane explains the 2D"):
            factorization.tomasi_kanade(shapes[..., :2])

    def test_a_frame_that_shows_a_plane(self):
        _, points2d, _ = rigid_scene()
        points2d[:, 3] = points2d[:, :3].mean(1)
        mask = np.ones(points2d.shape[:2], bool)
        mask[9, 4:] = False
        with pytest.raises(LfmError, match="Frame 9 shows only keypoints that lie in"):
            factorization.tomasi_kanade(points2d, mask)
