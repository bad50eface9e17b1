"""3D-LFM-Time: 3D-LFM with a look back in time (Fusco et al., arXiv 2412.01166).

    X = space(X)                    a block of 3D-LFM, within each frame
    X = X + W MHSA(LN(X)) over t    of each keypoint, over its own past

    from frame t to frames t - w, ..., t of its clip in which the keypoint was seen,
    with a learned bias for each distance in time

W begins at zero, so training begins at 3D-LFM, whose weights these are, and more.
Published is a window on either side of a frame. Here it lies in the past alone, so that
frames can be lifted as they come: layer by layer, what later frames ask for is the last
w frames' keys and values, and a shape depends on at most (layers x w) frames before it.

Keypoints and categories have no names here either: see lfm3d.py.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lfm_jax import clips
from lfm_jax.config import ModelConfig
from lfm_jax.models.attention import (
    attend,
    from_rows,
    likeness,
    norm,
    split_heads,
    to_rows,
)
from lfm_jax.models.lfm3d import LFM3D, attributes
from lfm_jax.models.start import Start
from lfm_jax.types import ArrayLike, Observation, Packing, Past, Skeleton


class LFM3DTime(LFM3D):
    """The network; see the module's header.

    Attributes:
        window: w.
    """

    window: int

    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        empty = self.past(observation.points2d.shape[1])
        return self.stream(observation, empty, packing)[0]

    def past(self, count: int) -> Past:
        """What there is before the first frame, of so many keypoints."""
        kept = jnp.zeros((self.layers, self.window, count, self.width))
        return Past(
            clip=jnp.full(self.window, -1, jnp.int32),
            seen=jnp.zeros((self.window, count), bool),
            keys=kept,
            values=kept,
        )

    def stream(
        self, observation: Observation, past: Past, packing: Packing | None = None
    ) -> tuple[Float[Array, "b n 3"], Past]:
        """Shapes of the frames that come next, and what is kept for those after them.

        The same, frame by frame or all at once.
        """
        observed = jnp.asarray(observation.observed)
        clip = clips.runs(observation) if observation.clip is None else observation.clip
        clip = jnp.concatenate([past.clip, jnp.asarray(clip)])
        seen = jnp.concatenate([past.seen, observed])
        mask = look_back(clips.number(clip), seen, self.window)
        keys, values = [], []

        def after(layer, tokens):
            time = TimeAttention(self.heads, name=f"time_{layer:02d}")
            before = past.keys[layer], past.values[layer]
            tokens, key, value = time(tokens, before, mask, packing, observed.shape)
            keys.append(key)
            values.append(value)
            return tokens

        shape = self.lift(observation, packing, after)
        last = slice(len(clip) - self.window, None)
        return shape, Past(clip[last], seen[last], jnp.stack(keys), jnp.stack(values))


class TimeAttention(nn.Module):
    """Attention of each keypoint over its own past, before which is `before`."""

    heads: int

    @nn.compact
    def __call__(
        self,
        tokens: Float[ArrayLike, "r l d"],
        before: tuple[Float[ArrayLike, "w n d"], Float[ArrayLike, "w n d"]],
        mask: Bool[ArrayLike, "blocks n size reach"],
        packing: Packing | None,
        shape: tuple[int, int],
    ) -> tuple[Float[Array, "r l d"], Float[Array, "w n d"], Float[Array, "w n d"]]:
        width, window = tokens.shape[-1], len(before[0])
        parts = nn.Dense(3 * width, use_bias=False, name="qkv")(norm("norm", tokens))
        query, *kept = jnp.split(from_rows(parts, packing, shape), 3, axis=-1)
        key, value = (jnp.concatenate(pair) for pair in zip(before, kept, strict=True))
        bias = self.param("bias", nn.initializers.zeros, (self.heads, window + 1))
        blocks, _, size, reach = mask.shape
        query = split_heads(_blocks(query, blocks, size, 0), self.heads)
        asked, given = (
            split_heads(_blocks(x, blocks, size, window), self.heads)
            for x in (key, value)
        )
        apart = jnp.clip(_apart(size, window), 0, window)
        logits = likeness(query, asked) + bias[None, :, apart]
        mixed = attend(logits, given, mask.reshape(-1, 1, size, reach))
        mixed = mixed.reshape(blocks, shape[1], size, width)
        mixed = jnp.swapaxes(mixed, 1, 2).reshape(-1, shape[1], width)[: shape[0]]
        zero = nn.initializers.zeros
        mixed = nn.Dense(width, kernel_init=zero, name="out")(to_rows(mixed, packing))
        return tokens + mixed, key[len(key) - window :], value[len(value) - window :]


def look_back(
    run: Int[Array, "f"], seen: Bool[Array, "f n"], window: int
) -> Bool[Array, "blocks n size reach"]:
    """Which points may be looked at, by each point of a frame.

    Frames ask in blocks of at most w, which reach over the w frames before them and
    their own: many frames then cost what the window costs, not what they would all
    together.

    Args:
        run: of the w frames before and of those that ask.
        seen: which points of these frames are observed.
        window: w.
    """
    frames = len(run) - window
    size = min(frames, window)
    count = math.ceil(frames / size)
    asking = _blocks(run[window:, None, None], count, size, 0)
    asked = _blocks(run[:, None, None], count, size, window)
    same = asking == jnp.swapaxes(asked, 1, 2)
    apart = _apart(size, window)
    near = (apart >= 0) & (apart <= window)
    there = jnp.swapaxes(_blocks(seen[..., None], count, size, window), -1, -2)
    there = there.reshape(count, seen.shape[1], 1, size + window)
    return there & (same & near[None])[:, None]


def _apart(size, window):
    """Frames from each asked to each asking one of a block."""
    return window + jnp.arange(size)[:, None] - jnp.arange(size + window)[None]


def _blocks(values, count, size, overlap):
    """[f n d] in blocks along f that overlap: [count * n, size + overlap, d]."""
    frames, n, d = values.shape
    values = jnp.pad(values, ((0, count * size + overlap - frames), (0, 0), (0, 0)))
    rows = jnp.arange(count)[:, None] * size + jnp.arange(size + overlap)[None]
    return jnp.swapaxes(values[rows], 1, 2).reshape(count * n, size + overlap, d)


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> LFM3DTime:
    """3D-LFM-Time for these categories; it has no start.

    Raises:
        LfmError: an encoding or attention that is none.
    """
    return LFM3DTime(**attributes(config, skeletons), window=config.window)
