"""The optimiser does what its settings say."""

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax.config import OptimConfig
from lfm_jax.train.optim import learning_rate, make_optimizer, matrices

STEPS = 100


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    config = OptimConfig(learning_rate=0.5, warmup=0.1)
    rate = np.array([learning_rate(config, STEPS)(i) for i in range(STEPS + 1)])
    assert rate[0] == 0.0 and rate.argmax() == 10
    np.testing.assert_allclose([rate[5], rate[10], rate[-1]], [0.25, 0.5, 0.0])
    assert (np.diff(rate[:11]) > 0).all() and (np.diff(rate[10:]) < 0).all()


def test_huge_gradients_are_clipped_and_only_matrices_decay():
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    assert matrices(params) == {"dense": {"kernel": True, "bias": False}}
    config = OptimConfig(learning_rate=0.5, warmup=0.0, weight_decay=0.1, clip=1.0)
    optimizer = make_optimizer(config, STEPS)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.05, rtol=1e-5)
    np.testing.assert_array_equal(updates["dense"]["bias"], 0.0)
    # after a gradient of norm 1000 the moments are those of its direction, norm 1
    huge = jax.tree.map(lambda x: 1000.0 * x / jnp.sqrt(6.0), params)
    _, state = optimizer.update(huge, optimizer.init(params), params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2, 2)]
    np.testing.assert_allclose(moments[0], 0.1 / np.sqrt(6.0), rtol=1e-4)
