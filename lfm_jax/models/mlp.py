"""A multilayer perceptron per category around a shared trunk: the plainest lifter.

    h0 = read(x)                        (x, y, 1) of observed points
    h  = h + W2 gelu(W1 LN(h))          layers // 2 times, before the code and after
    z  = W h                            the code, `model.code` numbers
    Y  = write(h)

Every category reads and writes its keypoints by matrices of its own (`keypoints`), what
lies between is shared. So parts have identity here without any encoding of it. The
networks of 2017 to 2019 came to depth from L_2d alone with such a code; what width it
has matters little (docs/results.md).

Input is normalised: centred, RMS radius 1 over observed points.
"""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from lfm_jax.config import ModelConfig
from lfm_jax.models.keypoints import presence, read, shown, write
from lfm_jax.models.start import Start
from lfm_jax.types import ArrayLike, Observation, Packing, Skeleton


class MLP(nn.Module):
    """The network; see the module's header.

    Attributes:
        width, layers, code: see config.ModelConfig.
        present: which keypoints each category has.
    """

    width: int
    layers: int
    code: int
    present: Bool[ArrayLike, "c n"]

    @nn.compact
    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        category, count = observation.category, observation.points2d.shape[-2]
        hidden = self._trunk(read(self, shown(observation), category), "in")
        code = nn.Dense(self.code, name="code")(hidden)
        hidden = self._trunk(nn.Dense(self.width, name="decode")(code), "out")
        return write(self, hidden, category, count)

    def _trunk(self, hidden, name):
        for layer in range(self.layers // 2):
            inner = nn.LayerNorm(name=f"{name}_{layer}_norm")(hidden)
            inner = nn.gelu(nn.Dense(4 * self.width, name=f"{name}_{layer}_a")(inner))
            hidden = hidden + nn.Dense(self.width, name=f"{name}_{layer}_b")(inner)
        return hidden


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> MLP:
    """The perceptron for these categories; it has no start."""
    return MLP(
        width=config.width,
        layers=config.layers,
        code=config.code,
        present=presence(skeletons),
    )
