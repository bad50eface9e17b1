"""Laws of lengths that stay: found without a skeleton, and of use to depths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax.classical.lengths import relative_change, steady_lengths
from lfm_jax.geometry import lengths
from lfm_jax.geometry.lengths import SCALE, WEIGHT, Lengths, refine_depths
from lfm_jax.geometry.rotations import random_rotation

FRAMES, PARTS = 300, 4
PART = np.repeat(np.arange(PARTS), 3)  # of each keypoint: three on every rigid part


def bodies(seed=0, frames=FRAMES):
    """Rigid parts in a chain of ball joints, seen from everywhere, RMS radius 1."""
    random = np.random.default_rng(7)
    inside = random.normal(size=(PARTS, 3, 3)) + np.array([0.8, 0.0, 0.0])
    turns = random_rotation(jax.random.key(seed), (frames, PARTS))
    turns = np.asarray(turns, np.float64)
    points, joint = [], np.zeros((frames, 3))
    for part in range(PARTS):
        placed = np.einsum("fij,nj->fni", turns[:, part], inside[part])
        points.append(placed + joint[:, None])
        joint = joint + turns[:, part] @ np.array([1.6, 0.0, 0.0])
    points = np.concatenate(points, axis=1)
    points = points - points.mean(1, keepdims=True)
    size = np.sqrt(np.square(points).sum(-1).mean())
    view = np.asarray(random_rotation(jax.random.key(seed + 1), (frames,)))
    return (points / size @ view.swapaxes(1, 2)).astype(np.float32)


def doubted(true, doubt=0.15, seed=3):
    error = np.random.default_rng(seed).normal(size=true.shape[:2]).astype(np.float32)
    return true + np.stack([0 * error, 0 * error, doubt * error], axis=-1)


def refined(points, mask, doubt, scale, lengths):
    depth = refine_depths(points[..., :2], points[..., 2], mask, doubt, scale, lengths)
    return np.concatenate([points[..., :2], depth[..., None]], axis=-1)


def energy(points, begun, lengths, doubt):
    """What the header of geometry.lengths says is lowered, at its best scale [f]."""
    apart = points[:, :, None] - points[:, lengths.neighbour]
    distance = np.linalg.norm(apart, axis=-1)
    moved = np.square((points[..., 2] - begun[..., 2]) / doubt).sum(1)
    totals = []
    for scale in np.linspace(0.8, 1.25, 91):
        off = (distance / scale - lengths.length) / lengths.spread
        pairs = WEIGHT * np.log1p(np.square(off)).sum((1, 2))
        totals.append(moved + pairs + ((1.0 / scale - 1.0) / SCALE) ** 2)
    return np.min(totals, axis=0) / 2.0


ALL = np.ones((FRAMES, len(PART)), bool)
DOUBT = np.full(ALL.shape, 0.15, np.float32)
ONE = np.ones(FRAMES, np.float32)


def shared(lengths, frames=FRAMES):
    return Lengths(
        *(
            jnp.broadcast_to(value, (frames, *value.shape))
            for value in dataclasses.astuple(lengths)
        )
    )


@pytest.fixture(scope="module")
def found():
    return steady_lengths(doubted(bodies()), ALL, 2)


class TestSteadyLengths:
    def test_neighbours_are_those_on_the_same_rigid_part(self, found):
        assert np.mean(PART[found.neighbour] == PART[:, None]) > 0.9
        true = bodies()[0]
        length = np.linalg.norm(true[:, None] - true[found.neighbour], axis=-1)
        right = PART[found.neighbour] == PART[:, None]
        np.testing.assert_allclose(found.length[right], length[right], rtol=0.1)

    def test_what_no_one_sees_together_is_no_neighbour(self):
        mask = ALL.copy()
        mask[:, 0] = False
        mask[:150, 1], mask[150:, 2] = False, False
        few = steady_lengths(np.where(mask[..., None], bodies(), np.nan), mask, 8)
        known = np.isfinite(few.spread)
        assert not known[0].any()
        assert known[1:].any(axis=1).all()
        assert not np.isin(few.neighbour[1:][known[1:]], [0]).any()
        assert not np.isin(few.neighbour[1][known[1]], [2]).any()

    def test_more_neighbours_than_keypoints_are_padded(self):
        few = steady_lengths(bodies()[:, :3], ALL[:, :3], 5)
        assert few.neighbour.shape == (3, 5)
        assert np.isfinite(few.spread).sum() == 6

    @pytest.mark.parametrize("change", [0.0, 0.2, 0.4])
    def test_images_alone_tell_how_much_a_length_changes(self, change):
        random = np.random.default_rng(0)
        ways = random.normal(size=(20000, 5, 3))
        ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
        length = np.sqrt(1.0 + change * random.choice([-1.0, 1.0], size=(20000, 5, 1)))
        square = np.square(length * ways[..., :2]).sum(-1)
        assert relative_change(square) == pytest.approx(change / 2, abs=0.03)


class TestRefineDepths:
    @pytest.mark.parametrize("scale", [0.95, 1.0, 1.05])
    def test_depths_come_nearer_to_the_truth(self, found, scale):
        """Lengths of a part say nothing of the depth of the whole part.

        That keeps a third of the variance of independent errors.
        """
        true = bodies(5)
        before = doubted(true)
        known = dataclasses.replace(
            steady_lengths(true, ALL, 2), spread=np.full_like(found.spread, 0.02)
        )
        error = lambda points: np.square(points[..., 2] - true[..., 2]).mean()
        for those in (found, known):
            after = refined(before, ALL, DOUBT, scale * ONE, shared(those))
            assert error(np.asarray(after)) < 0.7 * error(before)

    def test_nothing_depends_on_the_scale_or_turn_of_the_image_or_the_sign(self, found):
        before, known = doubted(bodies(5)), shared(found)
        after = np.asarray(refined(before, ALL, DOUBT, ONE, known))
        c, s = np.cos(0.7), np.sin(0.7)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, -1]], np.float32)
        moved = 3.0 * before @ turn.T + np.array([1.0, 2.0, 0.0], np.float32)
        again = refined(moved, ALL, 3.0 * DOUBT, 3.0 * ONE, known)
        np.testing.assert_allclose(again[..., 2], -3.0 * after[..., 2], atol=2e-3)

    def test_hidden_points_neither_move_nor_count(self, found):
        before, known = doubted(bodies(5)), shared(found)
        mask = ALL.copy()
        mask[:, [0, 4]] = False
        after = np.asarray(refined(before, mask, DOUBT, ONE, known))
        np.testing.assert_array_equal(after[:, [0, 4]], before[:, [0, 4]])
        other = np.where(mask[..., None], before, np.nan)
        again = np.asarray(refined(other, mask, DOUBT, ONE, known))
        np.testing.assert_array_equal(again[mask], after[mask])

    def test_the_energy_falls(self, found):
        before = doubted(bodies(5))
        after = refined(before, ALL, DOUBT, ONE, shared(found))
        start, end = (energy(x, before, found, DOUBT) for x in (before, after))
        assert np.mean(end <= start + 1e-3) > 0.99
        assert end.mean() < 0.8 * start.mean()

    @pytest.mark.parametrize("excess, spread", [(0.02, 0.02), (0.1, 0.1)])
    def test_it_falls_where_images_are_too_long_at_any_depth(self, excess, spread):
        """Nearly flat: the slope vanishes, and its square is no bound of the bend."""
        frames, ends = 200, 8
        angle = np.linspace(0.0, 2.0 * np.pi, ends, endpoint=False)
        wheel = np.stack([np.cos(angle), np.sin(angle), 0.0 * angle], axis=-1)
        wheel = np.concatenate([np.zeros((1, 3)), 0.3 * wheel])
        error = np.random.default_rng(0).normal(size=(frames, ends + 1))
        before = np.broadcast_to(wheel, (frames, ends + 1, 3)).copy()
        before[..., 2] += 0.01 * error
        before = before.astype(np.float32)
        hub = np.zeros((ends + 1, 1), np.int32)
        hub[0] = 1
        length = np.full(hub.shape, 0.3 - excess, np.float32)
        known = Lengths(hub, length, np.full(hub.shape, spread, np.float32))
        doubt = np.full(before.shape[:2], 0.126, np.float32)
        every, one = np.ones(doubt.shape, bool), np.ones(frames, np.float32)
        after = refined(before, every, doubt, one, shared(known, frames))
        start, end = (energy(x, before, known, doubt) for x in (before, after))
        assert np.mean(end <= start + 1e-3) > 0.99

    @pytest.mark.parametrize("scale", [0.95, 1.05])
    def test_the_scale_is_found_as_well(self, found, scale, monkeypatch):
        """Depths are nearer to the truth than if the wrong scale is believed."""
        true = bodies(5)
        before = doubted(true)
        firm = dataclasses.replace(
            steady_lengths(true, ALL, 2), spread=np.full_like(found.spread, 0.02)
        )
        error = lambda points: np.square(points[..., 2] - true[..., 2]).mean()
        solved = error(refined(before, ALL, DOUBT, scale * ONE, shared(firm)))
        monkeypatch.setattr(lengths, "SCALE", 1e-4)
        believed = error(refined(before, ALL, DOUBT, scale * ONE, shared(firm)))
        right = error(refined(before, ALL, DOUBT, ONE, shared(firm)))
        assert right < solved < believed
        assert solved - right < 0.8 * (believed - right), (right, solved, believed)

    def test_the_result_is_a_constant_for_derivatives(self, found):
        before = doubted(bodies(5))

        def total(depth, mask):
            after = refine_depths(
                before[..., :2], depth, mask, DOUBT, ONE, shared(found)
            )
            return jnp.sum(jnp.square(after))

        for mask in (ALL, ~ALL):
            slope = jax.grad(total)(jnp.asarray(before[..., 2]), mask)
            np.testing.assert_array_equal(slope, 0.0)

    def test_without_lengths_nothing_moves(self, found):
        before = doubted(bodies(5))
        unknown = dataclasses.replace(found, spread=np.full_like(found.spread, np.inf))
        after = refined(before, ALL, DOUBT, ONE, shared(unknown))
        np.testing.assert_array_equal(after, before)

    def test_coincident_points_are_finite(self, found):
        before = np.zeros((FRAMES, len(PART), 3), np.float32)
        after = refined(before, ALL, DOUBT, ONE, shared(found))
        assert np.isfinite(after).all()
