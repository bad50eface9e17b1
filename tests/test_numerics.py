"""Numerics below geometry: a function in blocks is the function, at a few widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax.numerics import BLOCK, centre, in_blocks, padded_width, rms_radius


@jax.jit
def both(values, mask):
    return centre(values, mask), {"radius": rms_radius(values, mask)}


@pytest.mark.parametrize("frames", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize("count", [3, 16, 17])
def test_a_function_of_frames_in_blocks_is_that_of_all_of_them(frames, count):
    random = np.random.default_rng(frames + count)
    values = random.normal(size=(frames, count, 3)).astype(np.float32)
    mask = random.random((frames, count)) < 0.7
    found = in_blocks(both, values, mask)
    whole = both(jnp.asarray(values), jnp.asarray(mask))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
        found,
        jax.tree.map(np.asarray, whole),
    )


def test_widths_are_few_and_near():
    counts = range(6, 134)  # of keypoints: of the zoo, up to whole bodies
    widths = [padded_width(count, finely=True) for count in counts]
    assert all(c <= w <= 1.21 * c for c, w in zip(counts, widths, strict=True))
    assert len(set(widths)) < 20 and 17 in widths
    assert len({padded_width(count) for count in counts}) == 4
