"""2D-LFM: a transformer over keypoint tokens that predicts a canonical shape.

    z0 = W f + TPE(x) + e_c (+ Phi)
    L blocks with Phi in queries and keys
    Y  = Y0 + head(z)

Y0 is the *start*: every category has several low-rank models, factorized from 2D alone
(`classical.factorization`). Given an observation, each of them has a most probable pose
and deformation in closed form (`geometry.deformable`); Y0 is their mean in the
camera, turned back by the pose of the first. That pose also turns the observation into
the category's canonical frame. The network reads each point there (its lifted position,
its image residual, how far the models disagree on its depth, the viewing direction) and
adds a deviation; the head begins at zero, so training begins at the factorization.
Reading and writing in the canonical frame makes the prediction invariant to in-plane
rotation of the input.

Without a start (`start=None`) Y0 is zero and the canonical frame is the camera's: the
published network, which must find everything itself.

Input is normalised: centred, RMS radius 1 over observed points.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax.geometry.deformable import deform, fit_low_rank
from lfm_jax.geometry.pose import apply_pose
from lfm_jax.models.attention import (
    Block,
    attention_mask,
    from_rows,
    injected,
    to_rows,
)
from lfm_jax.models.encodings import token_encoding
from lfm_jax.numerics import einsum, keep, masked_mean
from lfm_jax.types import Observation, Packing

DEVIATIONS = 5.0  # standard deviations of the image noise in a unit output


@dataclasses.dataclass(frozen=True)
class Start:
    """Factorized models of every category, keypoints padded to the longest.

    Attributes:
        shapes: mean and bases of j models per category, all in the same of the two
            depth signs; zero where a model has fewer bases.
        noise: variance of an image coordinate, for 2D of RMS radius 1.
    """

    shapes: Float[np.ndarray, "c j m n 3"]
    noise: Float[np.ndarray, "c j n"]


def _by_bases(
    shapes: Float[np.ndarray, "c j m n 3"],
) -> list[tuple[int, list[int]]]:
    """Numbers of bases, and the models that have so many: a fit costs their square."""
    used = np.any(shapes[:, :, 1:], axis=(0, 3, 4)) * np.arange(1, shapes.shape[2])
    used = used.max(axis=1, initial=0)
    return [(int(k), np.flatnonzero(used == k).tolist()) for k in np.unique(used)]


class LFM2D(nn.Module):
    """The network; see the module's header.

    Attributes:
        width, layers, heads, injection, inject_values: see config.ModelConfig.
        phi: correspondence encoding of every category, or its initial value.
        learned: train phi.
        present: which keypoints each category has.
        start: factorized shapes, or None.
    """

    width: int
    layers: int
    heads: int
    injection: str
    inject_values: bool
    phi: Float[np.ndarray, "c n d"]
    learned: bool
    present: Bool[np.ndarray, "c n"]
    start: Start | None

    @nn.compact
    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        category, observed = observation.category, observation.observed
        points = keep(jnp.asarray(observation.points2d), observed)
        count = points.shape[-2]  # a batch may be narrower than the widest category
        present = jnp.asarray(self.present)[category, :count]
        shape, features = self._begin(points, observed, category)
        features = keep(features, present)
        tokens = nn.Dense(self.width, name="embed")(
            to_rows(self._token_features(features, observed, present), packing)
        )
        code = nn.Embed(len(self.present), self.width, name="category")(category)
        code = jnp.broadcast_to(code[:, None], (*points.shape[:2], self.width))
        tokens = tokens + to_rows(code, packing)
        phi = to_rows(self._phi()[category, :count], packing)
        if self.injection == "input":
            tokens = tokens + phi
        mask = attention_mask(observed, packing)
        for layer in range(self.layers):
            use = injected(self.injection, layer, self.layers)
            block = Block(self.heads, self.inject_values, name=f"block_{layer:02d}")
            tokens = block(tokens, mask, phi if use else None)
        tokens = nn.LayerNorm(use_bias=False, name="norm")(tokens)
        first = nn.initializers.zeros if self.start else nn.initializers.lecun_normal()
        deviation = nn.Dense(3, kernel_init=first, name="head")(tokens)
        deviation = from_rows(deviation, packing, points.shape[:2])
        shape = shape + self._reach()[category, :count, None] * deviation
        return keep(shape - masked_mean(shape, present)[..., None, :], present)

    def begin(self, observation: Observation) -> Float[Array, "b n 3"]:
        """The start in the camera frame of the observation, centred like it."""
        points = keep(jnp.asarray(observation.points2d), observation.observed)
        present = jnp.asarray(self.present)[observation.category, : points.shape[-2]]
        posed = self._consult(points, observation.observed, observation.category)[0]
        return keep(posed, present)

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
        """Y0 and what the network reads of each point, in the canonical frame."""
        zero = jnp.zeros_like(points[..., :1])
        if self.start is None:
            flat = jnp.concatenate([points, zero], axis=-1)
            return jnp.zeros_like(flat), flat
        mean, unsure, pose = self._consult(points, observed, category)
        scale = jnp.maximum(pose.scale, 1e-3)[..., None, None]
        shift = jnp.pad(pose.translation, ((0, 0), (0, 1)))
        back = lambda v: einsum("...ji,...nj->...ni", pose.rotation, v) / scale
        shape = back(mean - shift[:, None])
        residual = keep(points - mean[..., :2], observed)
        residual = back(jnp.concatenate([residual, zero], axis=-1))
        view = jnp.broadcast_to(pose.rotation[..., None, 2, :], shape.shape)
        features = [shape + residual, 10.0 * residual, 10.0 * unsure / scale, view]
        return shape, jnp.concatenate(features, axis=-1)

    def _consult(self, points, observed, category):
        """The models' mean in the camera, their disagreement, the pose of the first."""
        count = points.shape[-2]
        order, posed, poses = [], [], []
        for used, members in _by_bases(self.start.shapes):
            shapes = jnp.asarray(self.start.shapes[:, members, : used + 1])
            shapes = shapes[category, ..., :count, :]
            noise = jnp.asarray(self.start.noise[:, members])[category, :, :count]
            each = lambda x, noise=noise: jnp.broadcast_to(
                x[:, None], (*noise.shape[:2], *x.shape[1:])
            )
            codes, pose = fit_low_rank(shapes, noise, each(points), each(observed))
            posed.append(apply_pose(pose, deform(shapes, codes)))
            order, poses = [*order, *members], [*poses, pose]
        posed = jnp.concatenate(posed, axis=1)
        mean, unsure = jnp.mean(posed, axis=1), jnp.std(posed[..., 2:], axis=1)
        poses = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *poses)
        first = jax.tree.map(lambda leaf: leaf[:, order.index(0)], poses)
        return jax.lax.stop_gradient((mean, unsure, first))

    def _token_features(self, features, observed, present):
        seen = (observed & present)[..., None].astype(features.dtype)
        encoded = token_encoding(features[..., :3], self.width // 2)
        return jnp.concatenate([features, encoded, seen, 1.0 - seen], axis=-1)
