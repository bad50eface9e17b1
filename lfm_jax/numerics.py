"""Numerics below geometry: masked reductions, safe norms, a small eigen solver.

Masked values count as absent: they never reach a result, whatever number they hold
(also NaN), because they are replaced before any arithmetic. Divisions are guarded so
that nothing here returns NaN for finite input, and no derivative is infinite; NaN that
comes in goes out, so that nothing broken is scored as perfect.

Products run at the highest matmul precision: accelerators round to bfloat16 by
default, which geometry does not survive.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PyTree

from lfm_jax.types import ArrayLike

TINY = 1e-12
BLOCK, NARROWEST = 128, 24  # frames and, doubled as often as needed, points

einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
tensordot = functools.partial(jnp.tensordot, precision=jax.lax.Precision.HIGHEST)


def keep(values: Float[ArrayLike, "*b n d"], mask: Bool[ArrayLike, "*b n"]):
    """Zeroes the rows of `values` whose mask is False."""
    return jnp.where(mask[..., None], values, 0.0)


def masked_mean(
    values: Float[ArrayLike, "*b n d"], mask: Bool[ArrayLike, "*b n"]
) -> Float[ArrayLike, "*b d"]:
    """Mean over the points where `mask` holds; zero where it holds nowhere."""
    count = jnp.maximum(jnp.sum(mask, axis=-1, dtype=values.dtype), 1.0)
    return jnp.sum(keep(values, mask), axis=-2) / count[..., None]


def centre(
    values: Float[ArrayLike, "*b n d"], mask: Bool[ArrayLike, "*b n"]
) -> Float[ArrayLike, "*b n d"]:
    """Subtracts the masked mean; points outside the mask become zero."""
    return keep(values - masked_mean(values, mask)[..., None, :], mask)


def rms_radius(
    values: Float[ArrayLike, "*b n d"], mask: Bool[ArrayLike, "*b n"]
) -> Float[ArrayLike, "*b"]:
    """Root mean square distance of the masked points from their centroid."""
    squares = jnp.sum(jnp.square(centre(values, mask)), axis=(-2, -1))
    count = jnp.maximum(jnp.sum(mask, axis=-1, dtype=values.dtype), 1.0)
    return safe_sqrt(squares / count)


def safe_sqrt(x: Float[ArrayLike, "*b"]) -> Float[ArrayLike, "*b"]:
    """Square root whose derivative at zero is zero instead of infinite."""
    vanishes = x <= jnp.finfo(x.dtype).tiny
    return jnp.where(vanishes, 0.0, jnp.sqrt(jnp.where(vanishes, 1.0, x)))


def safe_norm(x: Float[ArrayLike, "*b d"]) -> Float[ArrayLike, "*b"]:
    """Euclidean norm over the last axis, with derivative zero at the origin."""
    return safe_sqrt(jnp.sum(jnp.square(x), axis=-1))


def safe_divide(
    numerator: Float[ArrayLike, "*b"], denominator: Float[ArrayLike, "*b"]
) -> Float[ArrayLike, "*b"]:
    """numerator / denominator, and zero where the denominator vanishes."""
    vanishes = jnp.abs(denominator) <= jnp.finfo(denominator.dtype).tiny
    return jnp.where(vanishes, 0.0, numerator / jnp.where(vanishes, 1.0, denominator))


def solve3(
    matrix: Float[ArrayLike, "*b 3 3"], right: Float[ArrayLike, "*b 3 k"]
) -> Float[ArrayLike, "*b 3 k"]:
    """Solves a well-conditioned 3x3 system by its adjugate, without LAPACK."""
    a, b, c = matrix[..., 0, :], matrix[..., 1, :], matrix[..., 2, :]
    adjugate = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=-1)
    determinant = jnp.sum(a * adjugate[..., 0], axis=-1)
    inverse = safe_divide(
        adjugate, jnp.broadcast_to(determinant[..., None, None], adjugate.shape)
    )
    return einsum("...ij,...jk->...ik", inverse, right)


def scaled_identity(
    weight: Float[ArrayLike, "*b"], size: int
) -> Float[ArrayLike, "*b m m"]:
    """weight * I, for a batch of weights."""
    identity = jnp.eye(size, dtype=weight.dtype)
    return weight[..., None, None] * identity.reshape((1,) * weight.ndim + (size, size))


def largest_eigenvector(
    matrix: Float[ArrayLike, "*b m m"], squarings: int = 20
) -> Float[ArrayLike, "*b m"]:
    """Unit eigenvector of the largest eigenvalue of a small symmetric matrix.

    The matrix is shifted to have no negative eigenvalue and squared again and again,
    which turns it into the projector onto its top eigenspace: 2^20 power iterations.
    Only products, so a batch of thousands costs little; and well defined for repeated
    eigenvalues (some vector of the eigenspace) and for the zero matrix, where LAPACK's
    derivatives are not. Not meant to be differentiated.
    """
    matrix = jnp.moveaxis(matrix, (-2, -1), (0, 1))  # the batch last
    size = jnp.sqrt(jnp.sum(jnp.square(matrix), axis=(0, 1)))
    one = jnp.ones_like(size)
    shifted = matrix / jnp.where(size > 0.0, size, 1.0)[None, None]
    shifted = shifted + identity_last(one, len(matrix))

    def square(_, power):
        power = product_last(power, power)
        return power / jnp.trace(power)[None, None]

    projector = jax.lax.fori_loop(0, squarings, square, shifted)
    best = jnp.argmax(jnp.diagonal(projector), axis=-1)
    column = jnp.take_along_axis(projector, best[None, None], axis=1)[:, 0]
    vector = column / jnp.linalg.norm(column, axis=0)[None]
    return jnp.moveaxis(vector, 0, -1)


def product_last(
    left: Float[ArrayLike, "i j *b"], right: Float[ArrayLike, "j k *c"]
) -> Float[ArrayLike, "i k *d"]:
    """Product of small matrices, the batch last: sums of vectors as long as it is.

    The batches are broadcast.
    """
    batch = jnp.broadcast_shapes(left.shape[2:], right.shape[2:])
    zero = jnp.zeros((left.shape[0], right.shape[1], *batch), left.dtype)
    inner = range(left.shape[1])
    return sum((left[:, q, None] * right[None, q] for q in inner), zero)


def identity_last(
    weight: Float[ArrayLike, "*b"], size: int
) -> Float[ArrayLike, "m m *b"]:
    """weight * I, the batch last."""
    identity = jnp.eye(size, dtype=weight.dtype)
    return identity.reshape(size, size, *(1,) * weight.ndim) * weight[None, None]


def sweep_last(
    matrix: Float[ArrayLike, "m m *b"], count: int
) -> Float[ArrayLike, "m m *b"]:
    """Sweeps small symmetric matrices by their first `count` rows, the batch last.

    Gauss-Jordan without pivots. Of [[A, B], [B^T, C]], A definite and of `count` rows,
    it makes [[C - B^T A^-1 B, -B^T A^-1], [A^-1 B, A^-1]]; swept by all, the inverse
    (Goodnight, "A tutorial on the SWEEP operator", 1979).

    A batch of thousands is a few passes over it, where LAPACK is called once for each
    matrix. Every sweep turns rows and columns on by one, so that all are the same
    program: written out one by one they take many times as long to compile.
    """

    def sweep(_, matrix):
        pivot = 1.0 / matrix[:1, :1]
        row, column = matrix[:1, 1:] * pivot, matrix[1:, :1]
        swept = matrix[1:, 1:] - column * row
        swept = jnp.concatenate([swept, -column * pivot], axis=1)
        last = jnp.concatenate([row, pivot], axis=1)
        return jnp.concatenate([swept, last])

    return jax.lax.fori_loop(0, count, sweep, matrix)


def padded_width(count: int, *, finely: bool = False) -> int:
    """What so many points are padded to: a few widths for all categories.

    Args:
        count: of the points.
        finely: four widths from one number to twice it, for those who have one category
            at a time; among them the 17 points of COCO, of people and of animals.
    """
    steps, power = (4, -8) if finely else (1, 0)  # 24 2^(-2/4) is 16.97
    while (width := math.ceil(NARROWEST * 2 ** (power / steps))) < count:
        power += 1
    return width


def in_blocks(function: Callable, *arrays: ArrayLike) -> PyTree:
    """A function of frames, host side, compiled for a few sizes and not for every one.

    Categories and files have all numbers of frames and points. Each would be programs
    of its own, which take longer to compile than to run, and of which a process can
    hold only so many.

    Args:
        function: compiled; of arrays [f n ...], to arrays [f] or [f n ...], every frame
            by itself. Frames and points that are added hold zeros, and False in masks.
        arrays: [f n ...] each; at least one frame.
    """
    frames, count = np.shape(arrays[0])[:2]
    width = padded_width(count)

    def block(first: int) -> PyTree:
        some = [np.asarray(array)[first : first + BLOCK] for array in arrays]
        missing = (0, BLOCK - len(some[0])), (0, width - count)
        padded = [np.pad(one, (*missing, *[(0, 0)] * (one.ndim - 2))) for one in some]
        return jax.tree.map(np.asarray, function(*padded))

    def join(*parts: np.ndarray) -> np.ndarray:
        whole = np.concatenate(parts)[:frames]
        return whole if whole.ndim == 1 else whole[:, :count]

    return jax.tree.map(join, *map(block, range(0, frames, BLOCK)))
