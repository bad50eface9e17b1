"""A multilayer perceptron per category around a shared trunk: the plainest lifter.

    h0 = sum_n x~_n R_cn + b_c          x~ = (x, y, 1) of observed points, else zero
    h  = h + W2 gelu(W1 LN(h))          layers // 2 times, before the code and after
    z  = W h                            the code, `model.code` numbers
    Y_n = C_cn + h^T T_cn

Every category reads and writes its keypoints by matrices of its own, as C3DPO does for
all keypoints of all categories laid end to end; what lies between is shared. So parts
have identity here without any encoding of it. With a small code the network cannot copy
its input, which is how the networks of 2017 to 2019 came to depth from L_2d alone.

C begins at zero and T small. Input is normalised: centred, RMS radius 1 over observed
points.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax.config import ModelConfig
from lfm_jax.errors import LfmError
from lfm_jax.models.start import Start
from lfm_jax.numerics import einsum, keep, masked_mean
from lfm_jax.types import Observation, Packing, Skeleton


class MLP(nn.Module):
    """The network; see the module's header.

    Attributes:
        width, layers, code: see config.ModelConfig.
        present: which keypoints each category has.
    """

    width: int
    layers: int
    code: int
    present: Bool[np.ndarray, "c n"]

    @nn.compact
    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        category, observed = observation.category, observation.observed
        points = keep(jnp.asarray(observation.points2d), observed)
        count = points.shape[-2]  # a batch may be narrower than the widest category
        present = jnp.asarray(self.present)[category, :count]
        own = lambda name, first, *shape: self.param(
            name, first, (*self.present.shape, *shape)
        )[category, :count]
        fan_in = 3 * self.present.sum(axis=1).mean()
        read = nn.initializers.normal(fan_in**-0.5)
        write = nn.initializers.normal(self.width**-0.5)
        shown = observed.astype(points.dtype)
        seen = jnp.concatenate([points, shown[..., None]], axis=-1)
        hidden = einsum("bni,bnid->bd", seen, own("read", read, 3, self.width))
        hidden = hidden + nn.Embed(len(self.present), self.width, name="bias")(category)
        hidden = self._trunk(hidden, "in")
        code = nn.Dense(self.code, name="code")(hidden)
        hidden = self._trunk(nn.Dense(self.width, name="decode")(code), "out")
        shape = einsum("bd,bndi->bni", hidden, own("write", write, self.width, 3))
        shape = shape + own("mean", nn.initializers.zeros, 3)
        return keep(shape - masked_mean(shape, present)[..., None, :], present)

    def _trunk(self, hidden, name):
        for layer in range(self.layers // 2):
            inner = nn.LayerNorm(name=f"{name}_{layer}_norm")(hidden)
            inner = nn.gelu(nn.Dense(4 * self.width, name=f"{name}_{layer}_a")(inner))
            hidden = hidden + nn.Dense(self.width, name=f"{name}_{layer}_b")(inner)
        return hidden


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> MLP:
    """The perceptron for these categories.

    Raises:
        LfmError: there is a start.
    """
    if config.bases or start:
        raise LfmError(
            f"model.bases is {config.bases!r}, and mlp has no start; leave it empty."
        )
    counts = np.array([len(s.keypoints) for s in skeletons])
    return MLP(
        width=config.width,
        layers=config.layers,
        code=config.code,
        present=np.arange(counts.max()) < counts[:, None],
    )
