"""Laws of depth back-projection: what a map says is where points are put."""

import jax
import numpy as np
import pytest

from lfm_jax import metrics
from lfm_jax.classical.backprojection import View, back_project
from lfm_jax.errors import LfmError
from lfm_jax.rigs import zoo
from lfm_jax.rigs.surface import render_depth

PIXELS, FAR = 96, 10.0


def camera(pinhole):
    return View(40.0, (20.0, 30.0), pinhole)


@pytest.mark.parametrize("pinhole", [False, True])
def test_points_of_a_surface_come_back(pinhole):
    """A tilted plane z = 3 + x / 4, seen by a camera of its own equations."""
    random = np.random.default_rng(0)
    u = np.arange(60.0)
    x = (u - 20.0) / 40.0
    z = 3.0 / (1.0 - x / 4.0) if pinhole else 3.0 + x / 4.0
    depth = np.tile(z, (50, 1))
    pixels = np.stack([random.integers(0, 60, 9), random.integers(0, 50, 9)], axis=1)
    there = z[pixels[:, 0]]
    reach = there[:, None] if pinhole else 1.0
    expected = (pixels - np.array([20.0, 30.0])) / 40.0 * reach
    points, found = back_project(depth, pixels * 1.0, np.ones(9, bool), camera(pinhole))
    assert found.all()
    np.testing.assert_allclose(points, np.column_stack([expected, there]), atol=1e-9)
    np.testing.assert_allclose(points[:, 2], 3.0 + points[:, 0] / 4.0, atol=1e-9)


def test_holes_take_the_nearest_depth_and_what_cannot_be_read_the_mean():
    depth = np.full((20, 30), 7.0)
    depth[8:13, 8:13] = [np.nan, 0.0, -1.0, np.inf, np.nan]
    depth[10, 13], depth[15:, :] = 5.0, np.nan
    points = [(10.0, 10.0), (12.4, 10.0), (2.0, 2.0), (3.0, 19.0), (40.0, 3.0), (0, 0)]
    visible = np.array([True] * 5 + [False])
    found = back_project(depth, np.array(points), visible, View(1.0, (0.0, 0.0)))
    # the five nearest of the first are three pixels away, and the first of them counts
    np.testing.assert_array_equal(found[1], [True, True, True, False, False, False])
    assert found[0][0, 2] in (5.0, 7.0) and found[0][1, 2] == 5.0
    np.testing.assert_allclose(found[0][3:, 2], found[0][:3, 2].mean())
    np.testing.assert_array_equal(found[0][:, :2], points)


def test_without_any_depth_it_says_so():
    with pytest.raises(LfmError, match="same image"):
        back_project(np.zeros((4, 4)), np.ones((2, 2)), np.ones(2, bool), camera(False))


@jax.jit
def render(points, edges, radius):
    line = np.linspace(-2.0, 2.0, PIXELS, dtype=np.float32)
    return render_depth(points, edges, radius, line, line)


def body(category="dog"):
    points = np.asarray(zoo.sample_sequences(jax.random.key(0), category, 1, 1))[0, 0]
    points = points[:, [0, 2, 1]] - points[:, [0, 2, 1]].mean(0)
    points = points / np.sqrt(np.mean(np.sum(points**2, axis=1)))
    return (points + [0.0, 0.0, FAR]).astype(np.float32), zoo.skeleton(category).edges


def test_a_capsule_has_the_depth_of_its_equation():
    """On its axis a radius in front of it, nothing beyond a radius, the nearer wins."""
    points = np.array([[-1, 0, 5], [1, 0, 5], [0, -1, 4], [0, 1, 4]], np.float32)
    depth = np.asarray(render(points, np.array([(0, 1), (2, 3)]), np.float32(0.3)))
    line = np.linspace(-2.0, 2.0, PIXELS)
    at = lambda x, y: depth[np.abs(line - y).argmin(), np.abs(line - x).argmin()]
    for x, y, z in ((-1.0, 0.0, 4.7), (0.0, 0.0, 3.7), (0.0, 0.8, 3.7)):
        assert abs(at(x, y) - z) < 0.03
    assert np.isnan(at(-1.0, 0.5)) and np.isnan(at(1.8, 1.8))
    assert 4.7 < at(-0.8, 0.2) < 5.0


def test_a_body_of_the_zoo_comes_back_but_for_what_is_in_front():
    """Thin bones: nearly the truth. Where it is not, something nearer was seen."""
    points, edges = body()
    size = (PIXELS - 1) / 4.0
    view = View(size, (2.0 * size, 2.0 * size))
    pixels = points[:, :2].astype(np.float64) * size + 2.0 * size
    errors = []
    for radius in (0.05, 0.2):
        depth = np.asarray(render(points, np.array(edges), np.float32(radius)))
        found, seen = back_project(depth, pixels, np.ones(len(points), bool), view)
        assert seen.all()
        np.testing.assert_allclose(found[:, :2], points[:, :2], atol=1e-5)
        ahead = points[:, 2] - found[:, 2]  # of the keypoint
        assert (ahead > 0.0).all() and (ahead < radius + 0.02).mean() > 0.5
        mask = np.ones(len(points), bool)
        shapes = found.astype(np.float32), points, mask
        errors.append(float(metrics.ne(*map(jax.numpy.asarray, shapes))))
    flat = points * np.array([1, 1, 0], np.float32)
    shapes = map(jax.numpy.asarray, (flat, points, np.ones(len(points), bool)))
    assert errors[0] < errors[1] < float(metrics.ne(*shapes))
