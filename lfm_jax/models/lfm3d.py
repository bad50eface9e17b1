"""3D-LFM: a transformer over a graph of keypoint tokens (Dabhi et al., CVPR 2024).

    X0 = TPE(x)                              a learned vector where x is hidden
    U  = [GAT(X, A); MHSA(X)]                L times, half of the features each
    X' = LN(U) + X
    X  = LN(MLP(X')) + X'
    Y  = decoder(X)

Published is X' = LN(U) + U. That keeps of a token only what attention lets through, so
that all tokens begin nearly alike where attention is global or there are no edges.

A token is its 2D point and nothing else: neither keypoint nor category has a name, only
a place in the skeleton A. The network therefore commutes with permutations of the
keypoints, and no weight belongs to a category: built with other skeletons, the same
weights lift what they were never trained on.

What follows from it: a body with a left and a right half looks the same as its mirror
image in depth with the halves exchanged, so of orthographic images this network cannot
know the sign of depth, in any frame.

GAT is the additive attention of Velickovic et al. (ICLR 2018) over a keypoint and its
neighbours, hidden ones too, through which the skeleton reaches those beyond; MHSA looks
at observed tokens alone. Without edges every keypoint is the neighbour of every other.

Input is normalised: centred, RMS radius 1 over observed points.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax.config import ModelConfig
from lfm_jax.errors import LfmError
from lfm_jax.models.attention import (
    attend,
    attention_mask,
    from_rows,
    likeness,
    split_heads,
    to_rows,
)
from lfm_jax.models.encodings import token_encoding
from lfm_jax.models.start import Start
from lfm_jax.numerics import keep, masked_mean
from lfm_jax.types import ArrayLike, Observation, Packing, Skeleton

ENCODINGS = ("rff", "learned")
ATTENTION = ("hybrid", "local", "global")


class LFM3D(nn.Module):
    """The network; see the module's header.

    Attributes:
        width, layers, heads, encoding, sigma, attention: see config.ModelConfig.
        adjacent: A of every category: keypoints that share an edge, and each itself.
    """

    width: int
    layers: int
    heads: int
    encoding: str
    sigma: float
    attention: str
    adjacent: Bool[ArrayLike, "c n n"]

    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        return self.lift(observation, packing)

    @nn.compact
    def lift(
        self,
        observation: Observation,
        packing: Packing | None,
        after: Callable | None = None,
    ) -> Float[Array, "b n 3"]:
        """The shape.

        Args:
            observation, packing: as for all networks.
            after: (layer, tokens) -> tokens, what follows each block besides.
        """
        observed = observation.observed
        points = keep(jnp.asarray(observation.points2d), observed)
        count = points.shape[-2]  # a batch may be narrower than the widest category
        adjacent = jnp.asarray(self.adjacent)[observation.category, :count, :count]
        hidden = self.param("hidden", nn.initializers.normal(0.02), (1, 1, self.width))
        tokens = jnp.where(observed[..., None], self._encode(points), hidden)
        tokens = to_rows(tokens, packing)
        near, seen = graph_mask(adjacent, packing), attention_mask(observed, packing)
        for layer in range(self.layers):
            block = Block(self.heads, self.attention, name=f"block_{layer:02d}")
            tokens = block(tokens, near, seen)
            tokens = after(layer, tokens) if after else tokens
        tokens = nn.gelu(nn.Dense(self.width, name="decoder")(tokens))
        shape = nn.Dense(3, name="head")(tokens)
        shape = from_rows(shape, packing, points.shape[:2])
        present = jnp.diagonal(adjacent, axis1=-2, axis2=-1)
        return keep(shape - masked_mean(shape, present)[..., None, :], present)

    def _encode(self, points):
        """TPE, or the multilayer perceptron that it is compared with."""
        if self.encoding == "rff":
            return token_encoding(points, self.width, self.sigma)
        hidden = nn.gelu(nn.Dense(self.width, name="project_in")(points))
        return nn.Dense(self.width, name="project_out")(hidden)


class Block(nn.Module):
    """One layer of the module's header; `attention` leaves out one half of U."""

    heads: int
    attention: str

    @nn.compact
    def __call__(
        self,
        tokens: Float[ArrayLike, "r l d"],
        near: Bool[ArrayLike, "r 1 l l"],
        seen: Bool[ArrayLike, "r 1 l l"],
    ) -> Float[ArrayLike, "r l d"]:
        shape, width = tokens.shape, tokens.shape[-1]
        share = width // 2 if self.attention == "hybrid" else width
        # products of flat matrices, whose gradients are faster
        tokens = tokens.reshape(-1, width)
        mixed = []
        if self.attention != "global":
            mixed.append(self._graph(tokens, near, share))
        if self.attention != "local":
            mixed.append(self._everywhere(tokens, seen, share))
        mixed = jnp.concatenate(mixed, axis=-1)
        tokens = tokens + nn.LayerNorm(use_bias=False, name="attention_norm")(mixed)
        hidden = nn.gelu(nn.Dense(4 * width, name="mlp_in")(tokens))
        hidden = nn.Dense(width, name="mlp_out")(hidden)
        tokens = tokens + nn.LayerNorm(use_bias=False, name="mlp_norm")(hidden)
        return tokens.reshape(shape)

    def _graph(self, tokens, mask, size):
        """GAT; its logits are sums of a part of either token."""
        rows = mask.shape[0], mask.shape[-1], -1
        values = nn.Dense(size, use_bias=False, name="graph_values")(tokens)
        parts = nn.Dense(2 * self.heads, use_bias=False, name="graph_logits")(tokens)
        parts = jnp.swapaxes(parts.reshape(rows), -1, -2)
        own, other = jnp.split(parts, 2, axis=-2)
        logits = nn.leaky_relu(own[..., :, None] + other[..., None, :], 0.2)
        mixed = attend(logits, split_heads(values.reshape(rows), self.heads), mask)
        return mixed.reshape(values.shape)

    def _everywhere(self, tokens, mask, size):
        rows = mask.shape[0], mask.shape[-1], -1
        parts = nn.Dense(3 * size, use_bias=False, name="qkv")(tokens).reshape(rows)
        query, key, value = (
            split_heads(part, self.heads) for part in jnp.split(parts, 3, axis=-1)
        )
        attended = attend(likeness(query, key), value, mask)
        return nn.Dense(size, name="attention_out")(attended.reshape(-1, size))


def graph_mask(
    adjacent: Bool[ArrayLike, "b n n"], packing: Packing | None
) -> Bool[ArrayLike, "r 1 l l"]:
    """Who is whose neighbour, in the rows of tokens."""
    if packing is None:
        return adjacent[:, None]
    rows = to_rows(adjacent.astype(jnp.float32), packing)
    keypoint = (packing.token % adjacent.shape[-1])[:, None, :]
    near = jnp.take_along_axis(rows, keypoint, axis=-1) > 0.5
    same = packing.segment[:, :, None] == packing.segment[:, None, :]
    return (same & near)[:, None]


def adjacency(skeletons: Sequence[Skeleton]) -> Bool[np.ndarray, "c n n"]:
    """A of every category, complete where there are no edges, padded with False."""
    count = max(len(skeleton.keypoints) for skeleton in skeletons)
    table = np.zeros((len(skeletons), count, count), bool)
    for near, skeleton in zip(table, skeletons, strict=True):
        n = len(skeleton.keypoints)
        near[:n, :n] = np.eye(n, dtype=bool) if skeleton.edges else True
        for i, j in skeleton.edges:
            near[i, j] = near[j, i] = True
    return table


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> LFM3D:
    """3D-LFM for these categories; it has no start.

    Raises:
        LfmError: an encoding or attention that is none.
    """
    return LFM3D(**attributes(config, skeletons))


def attributes(config: ModelConfig, skeletons: Sequence[Skeleton]) -> dict[str, Any]:
    """Those of `LFM3D`, as a config has them.

    Raises:
        LfmError: an encoding or attention that is none.
    """
    if config.encoding not in ENCODINGS:
        raise LfmError(
            f"model.encoding is {config.encoding!r}; of {config.name} choose "
            f"{' or '.join(ENCODINGS)}."
        )
    if config.attention not in ATTENTION:
        raise LfmError(
            f"model.attention is {config.attention!r}; choose {', '.join(ATTENTION)}."
        )
    names = ("width", "layers", "heads", "encoding", "sigma", "attention")
    own = {name: getattr(config, name) for name in names}
    return own | {"adjacent": adjacency(skeletons)}
