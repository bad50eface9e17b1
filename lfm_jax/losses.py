"""Terms of the objectives: per-example values [b]; weighting is the caller's.

All points are normalised: the observed 2D has RMS radius 1, so a value of 0.01 is a
squared error of (a tenth of the object's size)^2.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from lfm_jax.numerics import centre, keep, safe_divide
from lfm_jax.types import ArrayLike


def mean_squared(
    predicted: Float[ArrayLike, "*b n d"],
    target: Float[ArrayLike, "*b n d"],
    mask: Bool[ArrayLike, "*b n"],
) -> Float[ArrayLike, "*b"]:
    """Mean squared distance over masked points; zero where there are none."""
    squares = jnp.sum(jnp.square(keep(predicted - target, mask)), axis=(-2, -1))
    return safe_divide(squares, jnp.sum(mask, axis=-1, dtype=squares.dtype))


def centred_mean_squared(
    predicted: Float[ArrayLike, "*b n d"],
    target: Float[ArrayLike, "*b n d"],
    mask: Bool[ArrayLike, "*b n"],
) -> Float[ArrayLike, "*b"]:
    """`mean_squared` after both are centred over the mask: translation is free."""
    return mean_squared(centre(predicted, mask), centre(target, mask), mask)


def mean_huber(
    predicted: Float[ArrayLike, "*b n d"],
    target: Float[ArrayLike, "*b n d"],
    mask: Bool[ArrayLike, "*b n"],
    *,
    epsilon: float = 0.01,
) -> Float[ArrayLike, "*b"]:
    """Mean of e (sqrt(1 + r^2 / e^2) - 1) of distances r, after both are centred.

    The pseudo-Huber loss of C3DPO, e published: nearly r itself, and smooth at zero.
    """
    apart = centre(predicted, mask) - centre(target, mask)
    squares = jnp.sum(jnp.square(apart / epsilon), axis=-1)
    values = epsilon * (jnp.sqrt(1.0 + squares) - 1.0)
    return safe_divide(
        jnp.sum(values, axis=-1), jnp.sum(mask, axis=-1, dtype=values.dtype)
    )
