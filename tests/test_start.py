"""Laws of the start: one depth sign, kept once made, honest about a damaged file."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax.config import ModelConfig
from lfm_jax.data.dataset import TrainingData
from lfm_jax.errors import LfmError
from lfm_jax.geometry.deformable import deform, fit_low_rank
from lfm_jax.geometry.pose import apply_pose
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.train import start
from lfm_jax.types import Observation, Skeleton
from lfm_jax.workdir import FACTORIZATION

FRAMES, POINTS = 90, 12
SMALL = ModelConfig(bases="1,2")


def observation(seed):
    """Images of a deforming body, each from a camera of its own."""
    random = np.random.default_rng(0)
    mean = random.normal(size=(POINTS, 3)) * np.array([1.0, 0.6, 0.4])
    modes = 0.25 * random.normal(size=(2, POINTS, 3))
    codes = np.random.default_rng(seed).normal(size=(FRAMES, 2))
    shapes = mean + np.tensordot(codes, modes, 1)
    r = np.asarray(random_rotation(jax.random.key(seed), (FRAMES,)))
    points = (shapes @ r.swapaxes(1, 2))[..., :2].astype(np.float32)
    mask = np.ones((FRAMES, POINTS), bool)
    return Observation(points, mask, mask, np.zeros(FRAMES, np.int32))


SKELETON = Skeleton("body", tuple(f"k{i}" for i in range(POINTS)))
HELD_OUT = (observation(2),)


def training(seed=1):
    return TrainingData(
        (SKELETON,), (observation(seed),), (np.zeros(FRAMES, np.int32),)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def made(folder):
    return start.factorized(training(), HELD_OUT, SMALL, 0, folder)


def test_all_models_of_a_category_have_one_sign_of_depth(made):
    assert made.start.shapes.shape == (1, 4, 3, POINTS, 3)  # two of either size
    seen = training().observations[0]
    size = np.sqrt(np.square(seen.points2d).sum(-1).mean(1))[:, None, None]
    depths = []
    for shapes, noise in zip(made.start.shapes[0], made.start.noise[0], strict=True):
        shapes, noise = (
            jnp.broadcast_to(x, (FRAMES, *x.shape)) for x in (shapes, noise)
        )
        codes, pose = jax.jit(fit_low_rank)(
            shapes, noise, seen.points2d / size, seen.observed
        )
        depth = np.asarray(apply_pose(pose, deform(shapes, codes)))[..., 2]
        depths.append((depth - depth.mean(1, keepdims=True)).ravel())
    assert np.corrcoef(depths)[0].min() > 0.8  # of the other sign it is negative


def test_lengths_are_those_of_the_body_in_its_own_scale(made, folder, tmp_path):
    begun = made.start
    neighbour, length, spread = begun.neighbour[0], begun.length[0], begun.spread[0]
    assert np.isfinite(spread).all() and (spread > 0.0).all()
    assert (begun.doubt > 0.0).all()
    assert (neighbour != np.arange(POINTS)[:, None]).all()
    mean = begun.shapes[0, 0, 0]
    apart = np.linalg.norm(mean[:, None] - mean[neighbour], axis=-1)
    assert np.median(length / apart) == pytest.approx(1.0, abs=0.1)
    # the steadiest four of eleven change less than all do
    shapes = mean + np.tensordot(
        np.random.default_rng(0).normal(size=(200, 2)), begun.shapes[0, 0, 1:], 1
    )
    change = np.linalg.norm(shapes[:, :, None] - shapes[:, None], axis=-1).std(0)
    others = change[~np.eye(POINTS, dtype=bool)]
    assert np.take_along_axis(change, neighbour, 1).mean() < 0.7 * others.mean()


def test_lengths_do_not_depend_on_the_units(made, tmp_path):
    seen = training()
    (frames,) = seen.observations
    large = dataclasses.replace(frames, points2d=1024.0 * frames.points2d)
    (held,) = HELD_OUT
    other = (dataclasses.replace(held, points2d=1024.0 * held.points2d),)
    again = dataclasses.replace(seen, observations=(large,))
    again = start.factorized(again, other, SMALL, 0, tmp_path).start
    np.testing.assert_array_equal(again.neighbour, made.start.neighbour)
    np.testing.assert_allclose(again.length, made.start.length, rtol=1e-2)


def test_without_neighbours_there_are_no_lengths(tmp_path):
    none = dataclasses.replace(SMALL, neighbours=0)
    begun = start.factorized(training(), HELD_OUT, none, 0, tmp_path).start
    assert begun.neighbour.shape == (1, POINTS, 0)


def test_it_is_made_once_and_read_back(made, folder, monkeypatch):
    monkeypatch.setattr(start, "_category", None)  # whoever calls it fails
    again = start.factorized(training(), HELD_OUT, SMALL, 0, folder)
    for field in dataclasses.fields(again.start):
        before, after = (getattr(x.start, field.name) for x in (made, again))
        np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(again.rigid, made.rigid)


@pytest.mark.parametrize(
    "other",
    [
        {"training": training(3)},
        {"config": ModelConfig(bases="1,3")},
        {"config": ModelConfig(bases="1,2", neighbours=2)},
        {"seed": 1},
    ],
)
def test_of_anything_else_it_is_made_again(made, folder, tmp_path, other, monkeypatch):
    """Also what an interrupted run left of the other."""
    kept = (folder / FACTORIZATION).read_bytes()
    (tmp_path / FACTORIZATION).write_bytes(kept)
    (tmp_path / "factorization").mkdir()
    (tmp_path / "factorization" / "000.npz").write_bytes(kept)
    asked = {"training": training(), "config": SMALL, "seed": 0} | other

    class MadeAgain(Exception):
        pass

    def refuse(*_):
        raise MadeAgain

    monkeypatch.setattr(start, "_category", refuse)
    with pytest.raises(MadeAgain):
        start.factorized(held_out=HELD_OUT, workdir=tmp_path, **asked)


def test_what_is_done_survives_an_interruption(tmp_path, monkeypatch):
    twice = TrainingData(*(2 * part for part in vars(training()).values()))
    asked, category = [], start._category

    def stopped_once(*arguments):
        asked.append(arguments)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return category(*arguments)

    monkeypatch.setattr(start, "_category", stopped_once)
    with pytest.raises(KeyboardInterrupt):
        start.factorized(twice, 2 * HELD_OUT, SMALL, 0, tmp_path)
    both = start.factorized(twice, 2 * HELD_OUT, SMALL, 0, tmp_path).start
    assert len(asked) == 3
    np.testing.assert_array_equal(both.shapes[0], both.shapes[1])
    assert [path.name for path in tmp_path.iterdir()] == [FACTORIZATION]


def test_without_bases_there_is_a_yardstick_and_no_start(made, tmp_path):
    bare = start.factorized(training(), HELD_OUT, ModelConfig(bases=""), 0, tmp_path)
    assert bare.start is None
    np.testing.assert_array_equal(bare.rigid, made.rigid)


@pytest.mark.parametrize("bases", ["2,,5", "two", "3,-1"])
def test_bases_that_are_no_numbers_are_an_error(bases, tmp_path):
    with pytest.raises(LfmError, match="model.bases"):
        start.factorized(training(), HELD_OUT, ModelConfig(bases=bases), 0, tmp_path)


def test_a_damaged_file_is_an_error_that_says_what_to_do(made, folder, tmp_path):
    whole = (folder / FACTORIZATION).read_bytes()
    path = tmp_path / FACTORIZATION
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LfmError, match="run the training command again"):
        start.read_factorized(path)
