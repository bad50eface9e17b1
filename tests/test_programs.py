"""A process may compile without end, as long as it forgets."""

import jax
import jax.numpy as jnp
import pytest

from lfm_jax import programs


@pytest.mark.skipif(not programs._HELD.exists(), reason="Linux only")
def test_many_programs_are_forgotten_and_few_are_kept():
    traced = []

    @jax.jit
    def twice(x):
        traced.append(x)
        return 2 * x

    for most, times in ((10**9, 1), (0, 2)):
        twice(jnp.ones(3))
        programs.forget_some(most)
        twice(jnp.ones(3))
        assert len(traced) == times
