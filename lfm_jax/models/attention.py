"""Transformer blocks over packed rows of keypoint tokens.

A row [l d] holds the tokens of several instances one after another; `segment` says
which instance a token is of (0: empty). Attention is block diagonal in segments and
looks only at observed tokens: a hidden token asks, but is never asked.
"""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Num

from lfm_jax.types import ArrayLike, Packing

INJECTION = re.compile("none|input|first_last|every|every_[1-9][0-9]*")


def injected(injection: str, layer: int, layers: int) -> bool:
    """Whether a block adds the correspondence encoding to its queries and keys."""
    if injection in ("none", "input"):
        return False
    if injection == "first_last":
        return layer in (0, layers - 1)
    return layer % int(injection.removeprefix("every").removeprefix("_") or 1) == 0


def to_rows(
    values: Num[ArrayLike, "b n d"], packing: Packing | None
) -> Num[ArrayLike, "r l d"]:
    """Lays the keypoints of a padded batch out in rows; unpacked, as they are."""
    if packing is None:
        return values
    flat = values.reshape(-1, values.shape[-1])
    return jnp.take(flat, packing.token, axis=0, mode="fill", fill_value=0)


def from_rows(
    rows: Float[ArrayLike, "r l d"], packing: Packing | None, shape: tuple
) -> Float[ArrayLike, "b n d"]:
    """Inverse of `to_rows`; keypoints that lie in no row are zero."""
    if packing is None:
        return rows
    size = rows.shape[-1]
    flat = jnp.zeros((shape[0] * shape[1], size), rows.dtype)
    flat = flat.at[packing.token.reshape(-1)].set(rows.reshape(-1, size), mode="drop")
    return flat.reshape(*shape, size)


def attention_mask(
    observed: Bool[ArrayLike, "b n"], packing: Packing | None
) -> Bool[ArrayLike, "r 1 l l"]:
    """Who may look at whom: same segment, and the key is observed."""
    if packing is None:
        return jnp.broadcast_to(
            observed[:, None, None, :],
            (observed.shape[0], 1, observed.shape[1], observed.shape[1]),
        )
    keys = to_rows(observed[..., None].astype(jnp.float32), packing)[..., 0] > 0.5
    same = packing.segment[:, :, None] == packing.segment[:, None, :]
    return (same & keys[:, None, :])[:, None]


def split_heads(
    features: Float[ArrayLike, "r l d"], heads: int
) -> Float[ArrayLike, "r h l e"]:
    """d = h e features, as e of every head.

    Heads come before tokens: products are then of matrices that lie in one piece, and
    their gradients take half the time on a CPU.
    """
    return jnp.swapaxes(features.reshape(*features.shape[:-1], heads, -1), -2, -3)


def likeness(
    query: Float[ArrayLike, "r h l e"], key: Float[ArrayLike, "r h m e"]
) -> Float[ArrayLike, "r h l m"]:
    """Scaled dot products in float32: the logits of a transformer."""
    query = query * jax.lax.rsqrt(jnp.asarray(query.shape[-1], query.dtype))
    return jnp.einsum("rhld,rhmd->rhlm", query, key, preferred_element_type=jnp.float32)


def attend(
    logits: Float[ArrayLike, "r h l m"],
    values: Float[ArrayLike, "r h m e"],
    mask: Bool[ArrayLike, "r 1 l m"],
) -> Float[ArrayLike, "r l d"]:
    """Softmax attention; a token that may look at nothing receives zero.

    What is written is divided by the weights' sum, not the weights: a pass less over
    the largest array there is, and one less for its gradient.
    """
    logits = jnp.where(mask, logits, -1e9)
    most = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.where(mask, jnp.exp(logits - most), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    # zero times NaN is NaN: what is not finite stays in its own instance
    values = jnp.where(jnp.isfinite(values), values, 0.0)
    attended = jnp.einsum("rhlm,rhmd->rhld", weights.astype(values.dtype), values)
    attended = attended / jnp.where(total > 0.0, total, 1.0).astype(values.dtype)
    attended = jnp.swapaxes(attended, -2, -3)
    return attended.reshape(*attended.shape[:-2], -1)


def norm(name: str, tokens: Float[ArrayLike, "*r d"]) -> Float[ArrayLike, "*r d"]:
    """Inside a module: layer norm of that name, in float32 whatever the tokens are."""
    return nn.LayerNorm(use_bias=False, name=name)(tokens.astype(jnp.float32))


class Block(nn.Module):
    """Pre-norm attention and MLP; Q = z Wq + Phi, K = z Wk + Phi.

    It computes in the dtype of its tokens, but for softmax and norms in float32.

    Attributes:
        heads, inject_values: see config.ModelConfig.
        first: initial weights of what attention writes.
    """

    heads: int
    inject_values: bool
    first: nn.initializers.Initializer

    @nn.compact
    def __call__(
        self,
        tokens: Float[ArrayLike, "r l d"],
        mask: Bool[ArrayLike, "r 1 l l"],
        phi: Float[ArrayLike, "r l d"] | None,
    ) -> Float[ArrayLike, "r l d"]:
        shape, width = tokens.shape, tokens.shape[-1]
        dense = functools.partial(nn.Dense, dtype=tokens.dtype)
        # products of flat matrices, whose gradients take two thirds of the time
        tokens = tokens.reshape(-1, width)
        normed = norm("attention_norm", tokens)
        asked = dense(3 * width, use_bias=False, name="qkv")(normed)
        query, key, value = jnp.split(asked.reshape(*shape[:-1], -1), 3, axis=-1)
        if phi is not None:
            query, key = query + phi, key + phi
            value = value + phi if self.inject_values else value
        query, key, value = (split_heads(x, self.heads) for x in (query, key, value))
        attended = attend(likeness(query, key), value, mask)
        tokens = tokens + dense(width, kernel_init=self.first, name="attention_out")(
            attended.reshape(-1, width)
        )
        normed = norm("mlp_norm", tokens)
        hidden = nn.gelu(dense(4 * width, name="mlp_in")(normed))
        tokens = tokens + dense(width, name="mlp_out")(hidden)
        return tokens.reshape(shape)
