"""Every metric against a slow NumPy and SciPy reference; its invariances as laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfm_jax import metrics

SHAPES = (6, 9)


@pytest.fixture(scope="module")
def pair():
    """Predicted and true shapes [6 9 3] and a mask with at least five points each."""
    generator = np.random.default_rng(0)
    true = generator.normal(size=(*SHAPES, 3)) * 40.0 + 7.0
    predicted = 0.02 * true + 0.3 * generator.normal(size=true.shape)
    mask = generator.random(SHAPES) < 0.7
    mask[:, :5] = True
    return predicted.astype(np.float32), true.astype(np.float32), mask


def slow_similarity(x, y, mask):
    """The masked points of x moved onto y by SciPy's rotation and the best scale."""
    x, y = x[mask].astype(np.float64), y[mask].astype(np.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    turned = Rotation.align_vectors(y, x)[0].apply(x)
    return (turned * y).sum() / (x * x).sum() * turned, y


def slow_pa_mpjpe(x, y, mask):
    moved, y = slow_similarity(x, y, mask)
    return np.linalg.norm(moved - y, axis=-1).mean()


def slow_ne(x, y, mask):
    moved, y = slow_similarity(x, y, mask)
    error = np.linalg.norm(moved - y, axis=-1).mean()
    return 100.0 * error / np.sqrt((y**2).sum(-1).mean())


def slow_mpjpe(x, y, mask):
    return np.linalg.norm((x - y)[mask], axis=-1).mean()


def slow_best_flip(x, y, mask):
    flipped = x * np.array([1.0, 1.0, -1.0])
    return min(slow_pa_mpjpe(x, y, mask), slow_pa_mpjpe(flipped, y, mask))


def slow_n_mpjpe_camera(x, y, mask):
    x, y = x[mask] - x[mask].mean(0), y[mask] - y[mask].mean(0)
    scale = max(np.linalg.lstsq(x.reshape(-1, 1), y.ravel())[0][0], 0.0)
    return np.linalg.norm(scale * x - y, axis=-1).mean()


def slow_stress(x, y, mask):
    points = np.flatnonzero(mask)
    pairs = [(i, j) for i in points for j in points if i < j]
    dx = np.array([np.linalg.norm(x[i] - x[j]) for i, j in pairs])
    dy = np.array([np.linalg.norm(y[i] - y[j]) for i, j in pairs])
    return np.abs(dx * (dx @ dy) / (dx @ dx) - dy).mean()


REFERENCES = {
    metrics.mpjpe: slow_mpjpe,
    metrics.pa_mpjpe: slow_pa_mpjpe,
    metrics.pa_mpjpe_best_flip: slow_best_flip,
    metrics.ne: slow_ne,
    metrics.n_mpjpe_camera: slow_n_mpjpe_camera,
    metrics.stress: slow_stress,
}
by_name = pytest.mark.parametrize("metric", REFERENCES, ids=lambda m: m.__name__)


@by_name
def test_agrees_with_the_slow_reference(metric, pair):
    expected = [REFERENCES[metric](*example) for example in zip(*pair, strict=True)]
    np.testing.assert_allclose(jax.jit(metric)(*pair), expected, rtol=2e-4)


@by_name
def test_points_outside_the_mask_do_not_count(metric, pair):
    predicted, true, mask = pair
    junk = np.where(mask[..., None], predicted, np.nan)
    other = np.where(mask[..., None], true, 1e6).astype(np.float32)
    np.testing.assert_array_equal(
        jax.jit(metric)(junk, other, mask), jax.jit(metric)(*pair)
    )


@by_name
def test_any_leading_axes(metric, pair):
    """[*b n 3]: two leading axes give the numbers of one."""
    deep = [jnp.asarray(part).reshape(2, 3, *part.shape[1:]) for part in pair]
    np.testing.assert_allclose(
        jax.jit(metric)(*deep).reshape(-1), jax.jit(metric)(*pair), rtol=1e-5
    )


@by_name
def test_finite_where_nothing_can_be_compared(metric):
    nothing = jnp.zeros((2, 5, 3)), jnp.zeros((2, 5, 3))
    for mask in (jnp.zeros((2, 5), bool), jnp.ones((2, 5), bool)):
        assert np.isfinite(jax.jit(metric)(*nothing, mask)).all()


def moved(points, seed=1):
    generator = np.random.default_rng(seed)
    turn = Rotation.random(len(points), generator).as_matrix()
    turned = np.einsum("bij,bnj->bni", turn, points)
    return (3.0 * turned + generator.normal(size=(len(points), 1, 3))).astype("f4")


@pytest.mark.parametrize(
    "metric", [metrics.pa_mpjpe, metrics.ne, metrics.stress], ids=lambda m: m.__name__
)
def test_pose_and_scale_of_the_prediction_do_not_count(metric, pair):
    predicted, true, mask = pair
    metric = jax.jit(metric)
    np.testing.assert_allclose(
        metric(moved(predicted), true, mask), metric(predicted, true, mask), rtol=2e-4
    )


def test_ne_has_no_units(pair):
    predicted, true, mask = pair
    np.testing.assert_allclose(
        jax.jit(metrics.ne)(predicted, 1000.0 * moved(true), mask),
        jax.jit(metrics.ne)(predicted, true, mask),
        rtol=2e-4,
    )


def test_a_mirror_image_is_an_error_unless_the_flip_is_allowed(pair):
    _, true, mask = pair
    mirrored = metrics.mirror_depth(jnp.asarray(true))
    assert (jax.jit(metrics.ne)(mirrored, true, mask) > 10.0).all()
    flipped = jax.jit(metrics.pa_mpjpe_best_flip)(mirrored, true, mask)
    np.testing.assert_allclose(flipped, 0.0, atol=1e-3)
    stress = jax.jit(metrics.stress)(mirrored, true, mask)
    np.testing.assert_allclose(stress, 0.0, atol=1e-3)


def test_the_camera_metric_sees_a_wrong_rotation(pair):
    _, true, mask = pair
    exact = jax.jit(metrics.n_mpjpe_camera)(0.1 * true + 5.0, true, mask)
    np.testing.assert_allclose(exact, 0.0, atol=1e-3)
    assert (jax.jit(metrics.n_mpjpe_camera)(moved(true), true, mask) > 1.0).all()


def test_reprojection_is_a_percentage_of_the_image_radius(pair):
    _, true, mask = pair
    points2d = true[..., :2]
    off = true + np.array([3.0, 4.0, 99.0], np.float32)
    radius = [
        np.sqrt(((p[m] - p[m].mean(0)) ** 2).sum(-1).mean())
        for p, m in zip(points2d, mask, strict=True)
    ]
    np.testing.assert_allclose(
        jax.jit(metrics.reprojection)(off, points2d, mask),
        500.0 / np.array(radius),
        rtol=1e-4,
    )


def posed_copies(shape, count, seed=2):
    return moved(np.tile(shape, (count, 1, 1)), seed)


def test_mean_of_posed_copies_is_the_shape_despite_missing_points(pair):
    shape = pair[1][0]
    mask = np.random.default_rng(3).random((30, 9)) < 0.7
    mask[:, :4] = True
    copies = np.where(mask[..., None], posed_copies(shape, 30), np.nan)
    mean = jax.jit(metrics.mean_shape)(copies, mask)
    assert slow_ne(np.asarray(mean), shape, np.ones(9, bool)) < 0.1
    np.testing.assert_allclose(jnp.mean(mean, axis=0), 0.0, atol=1e-5)
    assert jax.jit(metrics.relative_variance)(copies, mask) < 1e-6


def test_mean_shape_is_a_mean_shape(pair):
    """No shape of the set, and no small change, is nearer to all of them."""
    shape = pair[1][0] / 40.0
    generator = np.random.default_rng(4)
    shapes = shape + 0.2 * generator.normal(size=(40, 9, 3))
    shapes, mask = moved(shapes.astype("f4")), np.ones((40, 9), bool)

    def spread(centre):
        return np.mean([slow_pa_mpjpe(s, centre, mask[0]) for s in shapes])

    mean = np.asarray(jax.jit(metrics.mean_shape)(shapes, mask))
    scaled = [s / np.sqrt(((s - s.mean(0)) ** 2).sum(-1).mean()) for s in shapes]
    assert all(spread(mean) < spread(s) for s in scaled[:10])


def test_relative_variance_grows_with_the_square_of_the_deviations(pair):
    shape = pair[1][0] / 40.0
    deviation = np.random.default_rng(5).normal(size=(200, 9, 3))
    mask = np.ones((200, 9), bool)
    small, large = (
        float(
            jax.jit(metrics.relative_variance)(
                moved((shape + size * deviation).astype("f4")), mask
            )
        )
        for size in (0.02, 0.04)
    )
    assert large / small == pytest.approx(4.0, rel=0.05)


def test_nearest_shape_agrees_with_trying_all(pair):
    generator = np.random.default_rng(6)
    shapes = generator.normal(size=(20, 9, 3)).astype("f4")
    library = generator.normal(size=(50, 9, 3)).astype("f4")
    mask, library_mask = np.ones((20, 9), bool), np.ones((50, 9), bool)
    mask[::2, :3], library_mask[::3, -2:] = False, False
    nearest = jax.jit(metrics.nearest_shape)(shapes, mask, library, library_mask)
    for shape, seen, found in zip(shapes, mask, nearest, strict=True):
        explained = []
        for candidate, known in zip(library, library_mask, strict=True):
            aligned, y = slow_similarity(candidate, shape, seen & known)
            explained.append((y**2).sum() - ((aligned - y) ** 2).sum())
        assert explained[int(found)] == pytest.approx(max(explained), rel=1e-3)


def test_nearest_shape_finds_a_posed_copy(pair):
    generator = np.random.default_rng(7)
    library = generator.normal(size=(40, 9, 3)).astype("f4")
    mask = np.ones((40, 9), bool)
    nearest = jax.jit(metrics.nearest_shape)(moved(library), mask, library, mask)
    np.testing.assert_array_equal(nearest, np.arange(40))


def test_too_few_points_are_not_scorable():
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], bool)
    np.testing.assert_array_equal(metrics.scorable(mask), [False, True])
