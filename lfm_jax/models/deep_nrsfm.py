"""Deep NRSfM (Kong and Lucey, ICCV 2019): hierarchical sparse codes of shape and pose.

A shape is S = D_1 f_1 with f_1 = D_2 f_2, ..., f_(n-1) = D_n f_n and all codes sparse
and not negative. Its image W = S M, with a camera M [3 2] of orthonormal columns, has
the same dictionaries with blocks f M [3 2] for codes. One feed-forward pass solves for
the blocks and, from the last, for code and camera; the same dictionaries lead back:

    P_1[k]   = relu(sum_p m_p D_1[p, :, k]^T W_p + b_1[k])            blocks, [3 2]
    P_i[k]   = relu(sum_j D_i[j, k] P_(i-1)[j] + b_i[k])
    f_n      = C P_n,   M = U V^T of sum_k w_k P_n[k]
    f_(i-1)  = relu(D_i f_i + b'_i),   S = D_1 f_1 + b'_1

Points that are missing (mask m; Deep NRSfM++, Wang et al., 3DV 2020) enter no sum, and
translation is that of the points seen. The ++ centres D_1 over them as well as W; for
W, which is centred here, this changes nothing, and the loss centres S M. The ++'s
perspective cameras are left out: cameras are orthographic here.

D_1, b_1 and b'_1 are a category's own, the rest is shared (keypoints.py); the paper has
a network for each. `model.layers` dictionaries have from `model.width` to `model.code`
atoms, linearly, as published (12, 125 and 10 there).
"""

import itertools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax.config import ModelConfig
from lfm_jax.geometry.rotations import nearest_frame
from lfm_jax.models.keypoints import own, presence
from lfm_jax.models.start import Start
from lfm_jax.numerics import centre, einsum, keep
from lfm_jax.types import ArrayLike, Observation, Packing, Skeleton

ZEROS = nn.initializers.zeros


class DeepNRSfM(nn.Module):
    """The network; see the module's header.

    Attributes:
        atoms: of every dictionary, D_1 first.
        present: which keypoints each category has.
    """

    atoms: tuple[int, ...]
    present: Bool[ArrayLike, "c n"]

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
        block, compose = factor(self, observation)
        weights = self.param("camera", nn.initializers.normal(1.0), self.atoms[-1:])
        camera = nearest_frame(einsum("k,bkax->bax", weights, block))
        flat = block.reshape(len(block), -1)
        code = nn.Dense(self.atoms[-1], use_bias=False, name="code")(flat)

        return compose(code), camera


def factor(
    module: nn.Module, observation: Observation
) -> tuple[Float[Array, "b j 3 2"], Callable]:
    """Inside a module with atoms and present: P_n of an image, and from f_n to S.

    S is centred.
    """
    points = keep(jnp.asarray(observation.points2d), observation.observed)
    category, count = observation.category, points.shape[-2]
    first = nn.initializers.normal(module.atoms[0] ** -0.5)
    dictionary = own(module, "d1", first, category, count, 3, module.atoms[0])
    deeper = Hierarchy(module.atoms, name="deeper")
    threshold = module.param("b1", ZEROS, (len(module.present), module.atoms[0]))
    block = einsum("bpak,bpx->bkax", dictionary, points)
    block = deeper.solve(nn.relu(block + threshold[category][..., None, None]))

    def compose(code: Float[Array, "b j"]) -> Float[Array, "b n 3"]:
        shape = einsum("bpak,bk->bpa", dictionary, deeper.compose(code))
        shape = shape + own(module, "mean", ZEROS, category, count, 3)
        return centre(shape, jnp.asarray(module.present)[category, :count])

    return block, compose


class Hierarchy(nn.Module):
    """D_2 to D_n, the same in both directions."""

    atoms: tuple[int, ...]

    def setup(self):
        pairs = list(enumerate(itertools.pairwise(self.atoms), 2))
        self.dictionaries = [self.param(f"d{i}", _first, pair) for i, pair in pairs]
        self.thresholds = [self.param(f"b{i}", ZEROS, pair[1:]) for i, pair in pairs]
        self.biases = [self.param(f"back{i}", ZEROS, pair[:1]) for i, pair in pairs]

    def solve(self, block: Float[Array, "b k 3 2"]) -> Float[Array, "b j 3 2"]:
        """From P_1 to P_n."""
        for dictionary, threshold in zip(
            self.dictionaries, self.thresholds, strict=True
        ):
            block = einsum("jk,bjax->bkax", dictionary, block)
            block = nn.relu(block + threshold[None, :, None, None])
        return block

    def compose(self, code: Float[Array, "b j"]) -> Float[Array, "b k"]:
        """From f_n to f_1."""
        layers = zip(self.dictionaries, self.biases, strict=True)
        for dictionary, bias in reversed(list(layers)):
            code = nn.relu(einsum("jk,bk->bj", dictionary, code) + bias[None])
        return code


def _first(key, shape):
    """Keeps the size of what passes a dictionary in either direction, through relu."""
    return nn.initializers.normal((4.0 / sum(shape)) ** 0.5)(key, shape)


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> DeepNRSfM:
    """Deep NRSfM for these categories; it has no start."""
    return DeepNRSfM(atoms=sizes(config), present=presence(skeletons))


def sizes(config: ModelConfig) -> tuple[int, ...]:
    """Atoms of every dictionary, D_1 first."""
    atoms = np.linspace(config.width, config.code, config.layers)
    return tuple(int(count) for count in atoms.round())
