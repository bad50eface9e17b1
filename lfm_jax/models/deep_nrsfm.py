"""Deep NRSfM (Kong and Lucey, ICCV 2019): hierarchical sparse codes of shape and camera.

A shape is S = D_1 f_1 with f_1 = D_2 f_2, ..., f_(n-1) = D_n f_n and all codes sparse
and not negative. Its image W = S M, with a camera M [3 2] of orthonormal columns, has
the same dictionaries with every code a block f M [3 2]. One feed-forward pass solves for
the blocks and, from the last, for code and camera; the same dictionaries lead back:

    P_1[k]   = relu(sum_p m_p D_1[p, :, k]^T W_p + b_1[k])            blocks, [3 2]
    P_i[k]   = relu(sum_j D_i[j, k] P_(i-1)[j] + b_i[k])
    f_n      = C P_n,   M = U V^T of sum_k w_k P_n[k]
    f_(i-1)  = relu(D_i f_i + b'_i),   S = D_1 f_1 + b'_1

Points that are missing (mask m; Deep NRSfM++, Wang et al., 3DV 2020) enter no sum, and
translation is that of the points seen. The ++ centres the columns of D_1 over these too;
here W is centred over them, so in the sum over D_1 that changes nothing, and the loss
centres S M. Its perspective cameras are not here, where all cameras are orthographic.

D_1, b_1 and b'_1 are a category's own, the rest is shared (keypoints.py); the paper has
a network for each. `model.layers` dictionaries have from `model.width` to `model.code`
atoms, linearly, as published (12, 125 and 10 there).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax.config import ModelConfig
from lfm_jax.geometry.rotations import nearest_frame
from lfm_jax.models.keypoints import own, presence
from lfm_jax.models.start import Start
from lfm_jax.numerics import einsum, keep, masked_mean
from lfm_jax.types import Observation, Packing, Skeleton


class DeepNRSfM(nn.Module):
    """The network; see the module's header.

    Attributes:
        atoms: of every dictionary, D_1 first.
        present: which keypoints each category has.
    """

    atoms: tuple[int, ...]
    present: Bool[np.ndarray, "c n"]

    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        """S, centred."""
        return self.explain(observation)[0]

    @nn.compact
    def explain(
        self, observation: Observation
    ) -> tuple[Float[Array, "b n 3"], Float[Array, "b 3 2"]]:
        """S, centred, and the camera M."""
        points = keep(jnp.asarray(observation.points2d), observation.observed)
        category, count = observation.category, points.shape[-2]
        first, zeros = (
            nn.initializers.normal(self.atoms[0] ** -0.5),
            nn.initializers.zeros,
        )
        keypoints = own(self, "d1", first, category, count, 3, self.atoms[0])
        dictionaries = [
            self.param(f"d{i}", _first, pair)
            for i, pair in enumerate(zip(self.atoms, self.atoms[1:]), 2)
        ]
        block = einsum("bpak,bpx->bkax", keypoints, points)
        threshold = nn.Embed(
            len(self.present), self.atoms[0], embedding_init=zeros, name="b1"
        )
        block = nn.relu(block + threshold(category)[..., None, None])
        for i, dictionary in enumerate(dictionaries, 2):
            threshold = self.param(f"b{i}", zeros, dictionary.shape[1:])
            block = einsum("jk,bjax->bkax", dictionary, block)
            block = nn.relu(block + threshold[:, None, None])
        flat = block.reshape(len(block), -1)
        code = nn.Dense(self.atoms[-1], use_bias=False, name="code")(flat)
        weights = self.param("camera", nn.initializers.normal(1.0), self.atoms[-1:])
        camera = nearest_frame(einsum("k,bkax->bax", weights, block))
        for i, dictionary in reversed(list(enumerate(dictionaries, 2))):
            bias = self.param(f"back{i}", zeros, dictionary.shape[:1])
            code = nn.relu(einsum("jk,bk->bj", dictionary, code) + bias)
        shape = einsum("bpak,bk->bpa", keypoints, code)
        shape = shape + own(self, "mean", zeros, category, count, 3)
        present = jnp.asarray(self.present)[category, :count]
        return keep(shape - masked_mean(shape, present)[..., None, :], present), camera


def _first(key, shape):
    """Keeps the size of what passes a dictionary in either direction, through relu."""
    return nn.initializers.normal((4.0 / sum(shape)) ** 0.5)(key, shape)


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> DeepNRSfM:
    """Deep NRSfM for these categories; it has no start."""
    atoms = np.linspace(config.width, config.code, config.layers)
    return DeepNRSfM(
        atoms=tuple(int(count) for count in atoms.round()),
        present=presence(skeletons),
    )
