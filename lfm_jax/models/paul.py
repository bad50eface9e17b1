"""PAUL (Wang and Lucey, CVPR 2021): shapes that an autoencoder can write.

    f = h(2D),   S = f_d(f)            the shape, from a code of `model.code` numbers
    S' = f_d(f_e(S~))                  what the autoencoder makes of a shape S~

One decoder f_d serves both, so that shapes lie where it can write them. What the camera
makes of S, and S~ from it, is for the loss (tasks.paul_task).

h, f_e and f_d are residual networks like those of C3DPO, of `model.layers` bottlenecks
each; the published sizes are not known here. Every category reads and writes by weights
of its own (keypoints.py), where the paper has a network for each.
"""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from lfm_jax.config import ModelConfig
from lfm_jax.models.c3dpo import Encoder, bottlenecks
from lfm_jax.models.keypoints import presence, shown, write
from lfm_jax.models.start import Start
from lfm_jax.types import ArrayLike, Observation, Packing, Skeleton


class Decoder(nn.Module):
    """f_d; attributes as those of `PAUL`."""

    width: int
    layers: int
    present: Bool[ArrayLike, "c n"]

    @nn.compact
    def __call__(
        self, code: Float[Array, "b k"], category: Int[ArrayLike, "b"], count: int
    ) -> Float[Array, "b n 3"]:
        hidden = nn.Dense(self.width, name="decode")(code)
        return write(self, bottlenecks(hidden, self.layers), category, count)


class PAUL(nn.Module):
    """The network; see the module's header.

    Attributes:
        width, layers, code: see config.ModelConfig.
        present: which keypoints each category has.
    """

    width: int
    layers: int
    code: int
    present: Bool[ArrayLike, "c n"]

    def setup(self):
        sizes = self.width, self.layers, self.present
        self.lifter, self.encoder = Encoder(*sizes), Encoder(*sizes)
        self.lifter_code, self.encoder_code = nn.Dense(self.code), nn.Dense(self.code)
        self.decoder = Decoder(*sizes)

    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        """S."""
        shape, _ = self.encode(observation)
        if self.is_initializing():
            self.recode(shape, observation.category)
        return shape

    def encode(
        self, observation: Observation
    ) -> tuple[Float[Array, "b n 3"], Float[Array, "b k"]]:
        """S and its code f."""
        category, count = observation.category, observation.points2d.shape[-2]
        code = self.lifter_code(self.lifter(shown(observation), category))
        return self.decoder(code, category, count), code

    def recode(
        self, shape: Float[ArrayLike, "b n 3"], category: Int[ArrayLike, "b"]
    ) -> Float[Array, "b n 3"]:
        """What the autoencoder makes of a shape."""
        code = self.encoder_code(self.encoder(shape, category))
        return self.decoder(code, category, shape.shape[-2])


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> PAUL:
    """PAUL for these categories; it has no start."""
    return PAUL(
        width=config.width,
        layers=config.layers,
        code=config.code,
        present=presence(skeletons),
    )
