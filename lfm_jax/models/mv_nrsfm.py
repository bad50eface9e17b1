"""MV-NRSfM (Dabhi et al., 3DV 2021): one shape from several uncalibrated views.

Every view passes the encoder of Deep NRSfM (deep_nrsfm.py; same weights for all), which
gives it a code c_v. A shape has one code, so those of its views are averaged, and one
shape is decoded:

    c = sum_v w_v c_v / sum_v w_v,   w_v = 1 where view v sees anything, else 0
    f_(i-1) = relu(D_i f_i + b'_i) from f_n = c,   S = D_1 f_1 + b'_1

Published, a view in which anything is missing counts with a code of zero; here it does
not count, and points that are missing enter no sum, as in Deep NRSfM++. The cameras are
not the network's: each is the pose that fits best (OnP), with a scale.

Views are `views` rows side by side in the batch, [b v] rows of [n 2], and each row gets
the shape of its frame. With one view this is Deep NRSfM without a camera of its own.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfm_jax.config import ModelConfig
from lfm_jax.models.deep_nrsfm import factor, sizes
from lfm_jax.models.keypoints import presence
from lfm_jax.models.start import Start
from lfm_jax.numerics import masked_mean
from lfm_jax.types import Observation, Packing, Skeleton


class MVNRSfM(nn.Module):
    """The network; see the module's header.

    Attributes:
        atoms: of every dictionary, D_1 first.
        present: which keypoints each category has.
        views: rows that are views of one shape.
    """

    atoms: tuple[int, ...]
    present: Bool[np.ndarray, "c n"]
    views: int = 1

    @nn.compact
    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        """S, centred; the same for all views of a frame."""
        block, compose = factor(self, observation)
        flat = block.reshape(len(block), -1)
        codes = nn.Dense(self.atoms[-1], use_bias=False, name="code")(flat)

        codes = codes.reshape(-1, self.views, self.atoms[-1])
        sees = jnp.any(observation.observed, axis=-1).reshape(-1, self.views)
        code = jnp.repeat(masked_mean(codes, sees), self.views, axis=0)
        return compose(code)


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> MVNRSfM:
    """MV-NRSfM for these categories; it has no start."""
    return MVNRSfM(atoms=sizes(config), present=presence(skeletons))
