"""Laws of films: batches of clips, one alignment for each, errors of motion."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfm_jax import clips, metrics, tasks
from lfm_jax.clips import LONGEST
from lfm_jax.config import ObjectiveConfig
from lfm_jax.data import views
from lfm_jax.data.archive import Category
from lfm_jax.data.dataset import TrainingData
from lfm_jax.data.mixture import frame_of, training_batches
from lfm_jax.errors import LfmError
from lfm_jax.train.sequences import _errors, sequence_errors, sequences
from lfm_jax.train.step import hide
from lfm_jax.types import Labelled, Observation, Skeleton

N = 7
RUN = np.repeat([0, 1, 2], [5, 1, 4])  # a clip of one frame is between two
F = len(RUN)


def walk(seed=0):
    """A body that moves, with a point that is not known in some frames."""
    random = np.random.default_rng(seed)
    still = random.normal(size=(1, N, 3))
    points = still + 0.2 * np.cumsum(random.normal(size=(F, N, 3)), axis=0)
    mask = np.ones((F, N), bool)
    mask[2:4, -1] = False
    return points.astype(np.float32), mask


def moved(points, seed, by=RUN):
    """A similarity for every number in `by`, none of them a mirror image."""
    random = np.random.default_rng(seed)
    count = by.max() + 1
    turn = Rotation.random(count, random).as_matrix()[by]
    scale = random.uniform(0.5, 2.0, (count, 1, 1))[by]
    shift = random.normal(size=(count, 1, 3))[by]
    turned = scale * np.einsum("fij,fnj->fni", turn, points) + shift
    return turned.astype(np.float32)


@jax.jit
def scores(predicted, true, mask, run):
    """Frame-aligned positions, sequence-aligned positions, velocities."""
    fa = metrics.pa_mpjpe(predicted, true, mask)
    return jnp.stack([fa, *metrics.sequence(predicted, true, mask, run)])


def score(predicted):
    points, mask = walk()
    return np.asarray(scores(predicted, points, mask, jnp.asarray(RUN)))


def umeyama(x, y, known):
    """x moved onto y by one similarity for all, by an SVD."""
    a, b = x[known], y[known]
    u, d, v = np.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
    sign = np.array([1, 1, np.linalg.det(u @ v)])
    scale = (d * sign).sum() / np.square(a - a.mean(0)).sum()
    return scale * (x - a.mean(0)) @ (u * sign @ v).T + b.mean(0)


def noisy():
    points, _ = walk()
    noise = np.random.default_rng(1).normal(size=points.shape)
    return points + 0.1 * noise.astype(np.float32)


class TestMetrics:
    def test_one_similarity_for_each_clip_changes_nothing(self):
        np.testing.assert_allclose(score(walk()[0]), 0.0, atol=1e-5)
        errors = score(noisy())
        assert (errors[:2] > 0.01).all()
        np.testing.assert_allclose(score(moved(noisy(), 5)), errors, atol=1e-4)

    def test_one_for_each_frame_is_an_error_but_of_single_frames(self):
        frame_aligned, position, velocity = score(moved(noisy(), 5, np.arange(F)))
        np.testing.assert_allclose(frame_aligned, score(noisy())[0], atol=1e-4)
        film = np.bincount(RUN)[RUN] > 1
        assert (position[film] > 3 * frame_aligned[film]).all()
        np.testing.assert_allclose(position[~film], frame_aligned[~film], atol=1e-4)
        assert velocity[film].mean() > 3 * score(noisy())[2][film].mean()

    def test_velocity_is_the_difference_to_the_frame_before_of_known_points(self):
        points, mask = walk()
        first, rows = np.diff(RUN, prepend=-1) != 0, np.flatnonzero(RUN == 0)
        error = score(noisy())[2]
        assert (error[first] == 0.0).all()
        x, y, known = noisy()[rows], points[rows], mask[rows]
        apart = umeyama(x, y, known) - y
        for i in rows[1:]:
            both = known[i] & known[i - 1]
            by_hand = np.linalg.norm((apart[i] - apart[i - 1])[both], axis=-1).mean()
            assert error[i] == pytest.approx(by_hand, rel=1e-3)

    def test_a_mirror_image_is_not_aligned(self):
        assert (score(walk()[0] * np.float32([1, 1, -1]))[1] > 0.05).all()

    def test_what_is_not_known_changes_nothing(self):
        points, mask = walk()
        wild = np.where(mask[..., None], noisy(), np.float32(1e3))
        np.testing.assert_allclose(score(wild), score(noisy()), atol=1e-5)


class TestEntries:
    def records(self):
        """A film in two clips, single frames, and 2D without 3D."""
        parts = []
        for clip in (RUN, np.arange(F), RUN):
            points, mask = walk(len(parts))
            category = np.full(F, len(parts), np.int32)
            seen = Observation(points[..., :2], mask, mask, category, clip)
            parts.append(Labelled(seen, points, mask))
        return (*parts[:2], parts[2].observation)

    def frames(self):
        known = [
            *self.records()[:2],
            Labelled(
                self.records()[2],
                np.zeros((F, N, 3), np.float32),
                np.zeros((F, N), bool),
            ),
        ]
        return jax.tree.map(lambda *x: np.concatenate(x), *known)

    def entries(self, change):
        frames = self.frames()
        flat = frames.points3d * np.float32([1, 1, 0])
        lifts = {"lifted": change(frames.points3d), "flat": flat}
        return sequence_errors(self.records(), frames, lifts)

    def test_only_films_with_3d_have_them(self):
        film, single, unknown = self.entries(lambda points: points)
        assert single == unknown == {}
        assert film["ne_sequence_lifted"] < 1e-3 and film["ne_velocity_lifted"] < 1e-3
        assert film["ne_sequence_flat"] > 1.0 and film["ne_velocity_flat"] > 1.0

    def test_the_best_flip_is_one_for_the_whole_sequence(self):
        every = np.where(np.tile(RUN, 3) == 0, 1, -1)
        some = np.where(np.arange(3 * F) % 2, 1, -1)
        sided = lambda sign: np.stack([np.abs(sign)] * 2 + [sign], axis=-1)[:, None]
        by = lambda sign: lambda p: (p * sided(sign)).astype(np.float32)
        by_clip, by_frame = self.entries(by(every))[0], self.entries(by(some))[0]
        for kind in ("sequence", "velocity"):
            best = f"ne_{kind}_best_flip_lifted"
            assert by_clip[best] < 1e-3 < 1.0 < by_clip[f"ne_{kind}_lifted"]
            assert by_frame[best] > 1.0
        frames, shapes = self.frames(), by(some)(self.frames().points3d)
        run = sequences(frames.observation.category, np.tile(RUN, 3))
        plain, _, best, _ = map(np.asarray, _errors(frames, shapes, run))
        other = np.asarray(_errors(frames, shapes * np.float32([1, 1, -1]), run)[0])
        for number in range(run.max() + 1):
            rows = run == number
            one = plain if plain[rows].sum() <= other[rows].sum() else other
            np.testing.assert_allclose(best[rows], one[rows], rtol=1e-3, atol=1e-3)

    def test_sequences_are_of_one_clip_and_not_too_long(self):
        clip = np.repeat([0, 1, 2, 0], [LONGEST, 2 * LONGEST + 1, 1, 3])
        category = np.repeat([0, 1], [len(clip) - 3, 3])
        found = sequences(category, clip)
        lengths = np.bincount(found)
        assert lengths.max() <= LONGEST and lengths.tolist() == [48, 33, 32, 32, 1, 3]
        for number in range(len(lengths)):
            rows = np.flatnonzero(found == number)
            assert (np.diff(rows) == 1).all() and len({*clip[rows]}) == 1
            assert len({*category[rows]}) == 1


CLIP = 4
FRAMES = (5, 40, 13)
SEQUENCES = (np.zeros(5, int), np.repeat([3, 4], 20), np.arange(13))


def training():
    """Frames whose coordinates say which they are."""
    seen, skeletons = [], []
    for c, f in enumerate(FRAMES):
        points = np.tile(np.arange(f, dtype=np.float32)[:, None, None], (1, N, 2))
        mask = np.ones((f, N), bool)
        seen.append(Observation(points, mask, mask, np.full(f, c, np.int32)))
        skeletons.append(Skeleton(f"c{c}", tuple(f"k{i}" for i in range(N))))
    return TrainingData(tuple(skeletons), tuple(seen), SEQUENCES)


def take(steps, **options):
    given = {"per_category": 2 * CLIP, "seed": 0, "clip": CLIP} | options
    stream = iter(training_batches(training(), **given))
    return [next(stream)[0] for _ in range(steps)]


class TestBatches:
    def test_neighbours_of_one_clip_are_consecutive_frames_of_one(self):
        for batch in take(30):
            frame, clip = batch.points2d[:, 0, 0].astype(int), batch.clip
            np.testing.assert_array_equal(
                batch.category, np.tile(np.repeat(np.arange(3), CLIP), 2)
            )
            for i in range(1, len(clip)):
                c = batch.category[i]
                follows = i % CLIP > 0 and frame[i] == frame[i - 1] + 1
                one = follows and SEQUENCES[c][frame[i]] == SEQUENCES[c][frame[i - 1]]
                assert (clip[i] == clip[i - 1]) == one
            assert (np.diff(clip) >= 0).all()  # no number comes back

    def test_an_epoch_shows_every_frame(self):
        for c, count in enumerate(FRAMES):
            stretches = -(-count // CLIP)
            batches = take(stretches)[: stretches // 2]
            shown = [b.points2d[b.category == c, 0, 0] for b in batches]
            odd = take(stretches)[stretches // 2]
            if stretches % 2:
                shown.append(odd.points2d[odd.category == c, 0, 0][:CLIP])
            assert {*np.concatenate(shown).astype(int)} == {*range(count)}

    def test_a_place_in_a_batch_names_its_frame(self):
        place = frame_of(training(), 2 * CLIP, 0, CLIP)
        batch = take(3)[2]
        for i, c in enumerate(batch.category):
            assert place(2, i) == (c, batch.points2d[i, 0, 0])

    def test_parts_of_a_step_hold_whole_clips(self):
        with pytest.raises(LfmError, match="train.clip is 4"):
            take(1, microbatches=4)
        with pytest.raises(LfmError, match="static or orbit"):
            views.check_clip("orthographic", CLIP)


def labelled():
    points, mask = walk()
    seen = Observation(
        jnp.asarray(points[..., :2]),
        jnp.asarray(mask),
        jnp.asarray(mask),
        jnp.zeros(F, jnp.int32),
        jnp.asarray(RUN),
    )
    return Labelled(seen, jnp.asarray(points), jnp.asarray(mask))


def loss(change, alignment="clip", weight=1.0):
    """Of a network that knows the truth but for what `change` makes of it."""
    config = ObjectiveConfig(
        supervised=True, alignment=alignment, hide=0.0, velocity_weight=weight
    )
    known = labelled()
    centred = views._centred(np.asarray(known.points3d), np.asarray(known.evaluated))
    size = tasks.normalise(known.observation)[1]
    shape = jnp.asarray(change(centred).astype(np.float32)) / size[:, None, None]
    return {
        name: np.asarray(value) for name, value in terms(config, shape, known).items()
    }


@functools.partial(jax.jit, static_argnums=0)
def terms(config, shape, known):
    """The loss of a network that predicts `shape`, whatever it sees."""
    network = lambda params, seen, packing: params
    task = tasks.build(config, "lfm3d_time")
    return task.loss(network, shape, known, None, jax.random.key(0))


class TestLoss:
    def test_it_is_zero_for_a_pose_of_each_frame_and_a_mirror_image_of_each_clip(
        self,
    ):
        flip = np.where(RUN == 2, -1, 1)[:, None, None]
        for term in loss(lambda p: moved(p, 4, np.arange(F)) * flip).values():
            np.testing.assert_allclose(term, 0.0, atol=1e-4)

    def test_it_is_not_for_a_mirror_image_of_some_frames_which_3d_lfm_allows(self):
        flip = np.where(np.arange(F) % 2, -1, 1)[:, None, None]
        np.testing.assert_allclose(
            loss(lambda p: flip * p, "procrustes")["loss"], 0.0, atol=1e-4
        )
        film = np.bincount(RUN)[RUN] > 1
        found = loss(lambda p: flip * p)
        assert (found["loss_geometry"][film] > 0.02).all()
        assert (found["loss_velocity"][np.diff(RUN, prepend=-1) == 0] > 0.05).all()
        np.testing.assert_allclose(found["loss_shape"], 0.0, atol=1e-4)
        assert (found["loss"][~film] < 1e-4).all()

    def test_velocity_has_its_weight(self):
        noise = lambda p: p + 0.1 * np.random.default_rng(0).normal(size=p.shape)
        one, two = loss(noise), loss(noise, weight=3.0)
        extra = two["loss"] - one["loss"]
        np.testing.assert_allclose(
            extra, 2 * one["loss_velocity"], rtol=1e-3, atol=1e-6
        )

    def test_the_size_of_a_prediction_costs_nothing_and_has_no_gradient(self):
        """The alignment is a constant: velocities would shrink shapes for ever."""
        config = ObjectiveConfig(supervised=True, alignment="clip", hide=0.0)
        known, shape = labelled(), jnp.asarray(noisy())
        cost = lambda size: jnp.sum(terms(config, size * shape, known)["loss"])
        one, slope = jax.value_and_grad(cost)(1.0)
        assert float(cost(5.0)) == pytest.approx(float(one), rel=1e-4)
        assert abs(float(slope)) < 1e-4 * float(one)

    def test_a_frame_that_is_left_out_changes_no_other(self):
        known, kept = labelled(), np.arange(F) != F - 1
        config = ObjectiveConfig(supervised=True, alignment="clip", hide=0.0)
        shape = jnp.asarray(noisy())
        whole = terms(config, shape, hide(known, jnp.asarray(kept)))
        short = jax.tree.map(lambda leaf: leaf[:-1], known)
        alone = terms(config, shape[:-1], short)
        for name, values in alone.items():
            np.testing.assert_allclose(whole[name][:-1], values, rtol=1e-3, atol=1e-6)
            assert whole[name][-1] == 0.0

    def test_frames_of_no_clip_are_aligned_one_by_one(self):
        known = dataclasses.replace(labelled().observation, clip=None)
        np.testing.assert_array_equal(clips.runs(known), np.arange(F))


def test_occluded_points_have_truth_and_no_2d_for_stretches_of_a_clip():
    random = np.random.default_rng(0)
    count = 400
    category = Category(
        name="toy",
        keypoints=tuple(f"k{i}" for i in range(N)),
        edges=np.zeros((0, 2), np.int32),
        units="mm",
        sequence=np.repeat(np.arange(8, dtype=np.int32), count // 8),
        points3d=random.normal(size=(count, N, 3)).astype(np.float32),
    )
    clear = views.one_view(category, 0, "static", 0)
    seen = views.one_view(category, 0, "static", 0, 0.3)
    hidden = ~seen.observation.observed
    assert 0.2 < hidden.mean() < 0.4 and seen.evaluated.all()
    np.testing.assert_array_equal(seen.observation.annotated, ~hidden)
    assert (seen.observation.points2d[hidden] == 0.0).all()
    shown = seen.observation.points2d[~hidden]
    np.testing.assert_array_equal(shown, clear.observation.points2d[~hidden])
    stretches = hidden.reshape(-1, views.STRETCH, N)
    assert (stretches == stretches[:, :1]).all()
    more = ~views.one_view(category, 0, "orbit", 0, 0.5).observation.observed
    assert (more >= hidden).all()
