"""2D-LFM: a transformer over keypoint tokens that predicts a canonical shape.

    z0 = W f + TPE(x) + e_c (+ Phi)
    L blocks with Phi in queries and keys
    Y  = Y0 + head(z)

Y0 is the *start* (`models.start`): what several low-rank models, factorized from 2D
alone, make of the observation, turned back by the pose of the first. That pose also
turns the observation into the category's canonical frame. The network reads each point
there (its lifted position, its image residual, how far the models disagree on its
depth, the viewing direction) and adds a deviation; the head begins at zero, so training
begins at the factorization. Reading and writing in the canonical frame makes the
prediction invariant to in-plane rotation of the input.

Without a start (`start=None`) Y0 is zero and the canonical frame is the camera's: the
published network, which must find everything itself. What it then reads of the image,
f and TPE(x), is multiplied by one number that is learned and begins at zero (ReZero,
Bachlechner et al. 2020). So it knows identity before it knows an image, learns a rigid
shape for every category first, and is led away from the flat lift, which is a copy of
the image; without that number (`gate=False`, as published) it goes there at once. Its
attention writes from the first step on: else, behind the gate, all points of a category
would be one.

Input is normalised: centred, RMS radius 1 over observed points.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax.config import ModelConfig
from lfm_jax.errors import LfmError
from lfm_jax.models.attention import (
    INJECTION,
    Block,
    attention_mask,
    from_rows,
    injected,
    norm,
    to_rows,
)
from lfm_jax.models.encodings import correspondence, token_encoding
from lfm_jax.models.start import Start, begin
from lfm_jax.numerics import einsum, keep, masked_mean
from lfm_jax.types import ArrayLike, Observation, Packing, Skeleton

DEVIATIONS = 5.0  # standard deviations of the image noise in a unit output


class LFM2D(nn.Module):
    """The network; see the module's header.

    Attributes:
        width, layers, heads, injection, inject_values: see config.ModelConfig.
        phi: correspondence encoding of every category, or its initial value.
        learned: train phi.
        present: which keypoints each category has.
        start: factorized shapes, or None.
        gate: without a start, let the image in from zero.
        dtype: of tokens; what comes in and goes out is float32.
        remat: compute blocks again for the gradient instead of keeping their inside.
    """

    width: int
    layers: int
    heads: int
    injection: str
    inject_values: bool
    phi: Float[ArrayLike, "c n d"]
    learned: bool
    present: Bool[ArrayLike, "c n"]
    start: Start | None
    gate: bool
    dtype: jnp.dtype
    remat: bool

    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        return self.with_start(observation, packing)[0]

    @nn.compact
    def with_start(
        self, observation: Observation, packing: Packing | None = None
    ) -> tuple[Float[Array, "b n 3"], Float[Array, "b n 3"]]:
        """The shape, and the start it was made from, as `begin`; flat without one."""
        category, observed = observation.category, observation.observed
        points = keep(jnp.asarray(observation.points2d), observed)
        count = points.shape[-2]  # a batch may be narrower than the widest category
        present = jnp.asarray(self.present)[category, :count]
        shape, features, began = self._begin(points, observed, category)
        seen = (observed & present)[..., None].astype(features.dtype)
        features = jnp.concatenate([keep(features, present), seen], axis=-1)
        tokens = nn.Dense(self.width, dtype=self.dtype, name="embed")(
            self._token_features(to_rows(features, packing))
        )
        embed = nn.Embed(
            len(self.present), self.width, dtype=self.dtype, name="category"
        )
        # by slots of the rows: the padded batch is several times as large
        most = self.present.shape[1]
        keypoint = most * category[:, None] + jnp.arange(count)[None]
        keypoint = to_rows(keypoint[..., None], packing)[..., 0]
        tokens = tokens + embed(keypoint // most)
        phi = self._phi().reshape(-1, self.width)[keypoint].astype(self.dtype)
        if self.injection == "input":
            tokens = tokens + phi
        mask = attention_mask(observed, packing)
        first = nn.initializers.zeros if self.start else nn.initializers.lecun_normal()
        make = nn.remat(Block) if self.remat else Block
        for layer in range(self.layers):
            use = injected(self.injection, layer, self.layers)
            name = f"block_{layer:02d}"
            block = make(self.heads, self.inject_values, first, name=name)
            tokens = block(tokens, mask, phi if use else None)
        tokens = norm("norm", tokens)
        deviation = nn.Dense(3, kernel_init=first, name="head")(tokens)
        deviation = from_rows(deviation, packing, points.shape[:2])
        shape = shape + self._reach()[category, :count, None] * deviation
        shape = keep(shape - masked_mean(shape, present)[..., None, :], present)
        return shape, keep(began, present)

    def begin(self, observation: Observation) -> Float[Array, "b n 3"]:
        """The start in the camera frame of the observation, centred like it."""
        points = keep(jnp.asarray(observation.points2d), observation.observed)
        present = jnp.asarray(self.present)[observation.category, : points.shape[-2]]
        shown = points, observation.observed, observation.category
        return keep(begin(self.start, *shown)[0], present)

    def _phi(self):
        if self.learned:
            return self.param("phi", lambda _: jnp.asarray(self.phi))
        return jnp.asarray(self.phi)

    def _reach(self):
        """Size of a unit deviation: as far as the start leaves the 2D unexplained.

        What the start explains to 1 % has no use for a deviation of 10 %, and would
        only be hurt by what the network learns for others.
        """
        if self.start is None:
            return jnp.ones(self.present.shape)
        noise = jnp.asarray(np.mean(self.start.noise, axis=1))
        return DEVIATIONS * jnp.sqrt(noise)

    def _begin(self, points, observed, category):
        """Y0 and what the network reads of each point, in the canonical frame; and Y0
        in the camera."""
        zero = jnp.zeros_like(points[..., :1])
        if self.start is None:
            flat = jnp.concatenate([points, zero], axis=-1)
            return jnp.zeros_like(flat), flat, flat
        mean, unsure, pose = begin(self.start, points, observed, category)
        scale = jnp.maximum(pose.scale, 1e-3)[..., None, None]
        shift = jnp.pad(pose.translation, ((0, 0), (0, 1)))
        back = lambda v: einsum("...ji,...nj->...ni", pose.rotation, v) / scale
        shape = back(mean - shift[:, None])
        residual = keep(points - mean[..., :2], observed)
        residual = back(jnp.concatenate([residual, zero], axis=-1))
        view = jnp.broadcast_to(pose.rotation[..., None, 2, :], shape.shape)
        features = [shape + residual, 10.0 * residual, 10.0 * unsure / scale, view]
        return shape, jnp.concatenate(features, axis=-1), mean

    def _token_features(self, features):
        features, seen = features[..., :-1], features[..., -1:]
        encoded = token_encoding(features[..., :3], self.width // 2)
        read = jnp.concatenate([features, encoded, seen, 1.0 - seen], axis=-1)
        if self.start is None and self.gate:
            read = self.param("gate", nn.initializers.zeros, ()) * read
        return read


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> LFM2D:
    """2D-LFM for these categories.

    Raises:
        LfmError: an injection or an encoding that is none.
    """
    if not INJECTION.fullmatch(config.injection):
        raise LfmError(
            f"model.injection is {config.injection!r}; choose none, input, first_last, "
            "every, or every_2, every_3 and so on."
        )
    counts = np.array([len(s.keypoints) for s in skeletons])
    return LFM2D(
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        injection=config.injection,
        inject_values=config.inject_values,
        phi=correspondence(config.encoding, skeletons, config.width, config.sigma),
        learned=config.encoding == "learned",
        present=np.arange(counts.max()) < counts[:, None],
        start=start,
        gate=config.gate,
        dtype=jnp.dtype(config.dtype),
        remat=config.remat,
    )
