"""Laws of the plain perceptron."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import models
from lfm_jax.config import ModelConfig
from lfm_jax.errors import LfmError
from lfm_jax.types import Observation, Skeleton

SMALL = ModelConfig(name="mlp", width=32, layers=2, code=3, bases="")
COUNT = 6
ONE, OTHER = (
    Skeleton(name, tuple(f"k{i}" for i in range(n)), ())
    for name, n in (("one", COUNT), ("other", COUNT - 2))
)


def seen(frames=5, category=0, count=COUNT, seed=0):
    random = np.random.default_rng(seed)
    return Observation(
        jnp.asarray(random.normal(size=(frames, count, 2)), jnp.float32),
        jnp.ones((frames, count), bool),
        jnp.ones((frames, count), bool),
        jnp.full(frames, category, jnp.int32),
    )


def build(**changes):
    model = models.build(dataclasses.replace(SMALL, **changes), (ONE, OTHER))
    return model, model.init(jax.random.key(0))


def test_hidden_points_have_no_influence():
    model, params = build()
    frames = seen()
    hidden = dataclasses.replace(frames, observed=frames.observed.at[:, 2].set(False))
    moved = dataclasses.replace(hidden, points2d=frames.points2d.at[:, 2].set(9e9))
    lifted = model.apply(params, hidden)
    np.testing.assert_array_equal(lifted, model.apply(params, moved))
    assert not np.allclose(lifted, model.apply(params, frames))


def test_padding_changes_nothing_and_stays_empty():
    model, params = build()
    wide = seen(category=1)
    narrow = jax.tree.map(lambda x: x[:, : COUNT - 2] if x.ndim > 1 else x, wide)
    shown = np.asarray(wide.observed) & (np.arange(COUNT) < COUNT - 2)
    wide = dataclasses.replace(wide, observed=jnp.asarray(shown))
    lifted = model.apply(params, wide)
    np.testing.assert_array_equal(lifted[:, COUNT - 2 :], 0.0)
    np.testing.assert_allclose(
        lifted[:, : COUNT - 2], model.apply(params, narrow), atol=1e-6
    )


def test_keypoints_have_names():
    """Unlike a network on sets, it takes keypoints in another order for others."""
    model, params = build()
    frames, order = seen(), jnp.array([1, 0, 2, 3, 4, 5])
    swapped = dataclasses.replace(frames, points2d=frames.points2d[:, order])
    one, other = (model.apply(params, o) for o in (frames, swapped))
    assert np.abs(one[:, order] - other).max() > 0.1


@pytest.mark.parametrize("code", [1, 3])
def test_shapes_have_no_more_freedom_than_the_code(code):
    """How the shape varies with small changes of the input has the code's rank."""
    model, params = build(code=code)
    frame = seen(frames=1)
    lift = lambda x: model.apply(params, dataclasses.replace(frame, points2d=x))
    jacobian = jax.jacobian(lift)(frame.points2d).reshape(3 * COUNT, 2 * COUNT)
    values = np.linalg.svd(jacobian, compute_uv=False)
    assert values[code - 1] > 1e3 * values[code]


def test_every_weight_matters():
    model, params = build()
    whole, part = seen(), seen(category=1, seed=1)
    shown = jnp.asarray(np.tile(np.arange(COUNT) < COUNT - 2, (5, 1)))
    part = dataclasses.replace(part, observed=shown, annotated=shown)
    both = jax.tree.map(lambda *x: jnp.concatenate(x), whole, part)
    aim = jax.random.normal(jax.random.key(1), (10, COUNT, 3))
    slopes = jax.grad(lambda p: jnp.sum(aim * model.apply(p, both)))(params)
    for path, slope in jax.tree.leaves_with_path(slopes):
        assert np.any(slope != 0.0) and np.all(np.isfinite(slope)), path


def test_a_start_is_refused():
    with pytest.raises(LfmError, match="no start"):
        build(bases="2")
