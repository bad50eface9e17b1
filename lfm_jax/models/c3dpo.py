"""C3DPO (Novotny et al., ICCV 2019): pose and a linear code of shape, one canonical.

    a, r    = heads of Phi(2D)             the factorization network
    R       = exp([r]x),  X = B a + b      rotation, and shape in the span of a basis
    X'      = B a' + b,   a' = Psi(X)      the canonicalization network, same basis

Psi has to undo any rotation of a shape (tasks.c3dpo_task), so that of all rotated
copies of a shape only one is ever predicted by Phi.

As published for Pascal, the keypoints of all categories are laid end to end: basis and
first layers are those of keypoints (keypoints.py), everything else is shared, the code
too. Both networks are a linear layer, norm and relu, and residual bottlenecks (a
quarter of `model.width` inside, `model.layers` of them, six as published). Weights
begin at N(0, 0.01^2) and biases at zero, so that training begins with one rigid shape
and what deforms it grows from nothing. Deviations: layer norm in place of batch norm,
which has a state; AdamW in place of SGD.
"""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from lfm_jax.config import ModelConfig
from lfm_jax.geometry.rotations import from_rotation_vector
from lfm_jax.models.keypoints import presence, read, shown, write
from lfm_jax.models.start import Start
from lfm_jax.types import ArrayLike, Observation, Packing, Skeleton

SMALL = nn.initializers.normal(0.01)


class Encoder(nn.Module):
    """Values at keypoints to features; also of PAUL.

    Attributes:
        width, layers: see config.ModelConfig.
        present: which keypoints each category has.
        first: initial weights; None for those that keep the size of what comes in.
    """

    width: int
    layers: int
    present: Bool[ArrayLike, "c n"]
    first: nn.initializers.Initializer | None = None

    @nn.compact
    def __call__(
        self, values: Float[ArrayLike, "b n f"], category: Int[ArrayLike, "b"]
    ) -> Float[Array, "b d"]:
        hidden = read(self, values, category, self.first)
        return bottlenecks(hidden, self.layers, self.first)


def bottlenecks(
    hidden: Float[Array, "b d"],
    layers: int,
    first: nn.initializers.Initializer | None = None,
) -> Float[Array, "b d"]:
    """Norm and relu; then residual blocks by way of d/4 features, a relu after each.

    Inside a block every linear map is normalised, the last one before it is added.
    """
    width, first = hidden.shape[-1], first or nn.initializers.lecun_normal()
    hidden = nn.relu(nn.LayerNorm(name="norm")(hidden))
    for layer in range(layers):
        inner = hidden
        for part, size in enumerate((width // 4, width // 4, width)):
            inner = nn.relu(inner)
            inner = nn.Dense(size, kernel_init=first, name=f"dense_{layer}_{part}")(
                inner
            )
            inner = nn.LayerNorm(name=f"norm_{layer}_{part}")(inner)
        hidden = nn.relu(hidden + inner)
    return hidden


class Basis(nn.Module):
    """X = B a + b at the keypoints of a category, centred."""

    present: Bool[ArrayLike, "c n"]

    @nn.compact
    def __call__(
        self, code: Float[Array, "b k"], category: Int[ArrayLike, "b"], count: int
    ) -> Float[Array, "b n 3"]:
        return write(self, code, category, count, SMALL)


class C3DPO(nn.Module):
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
        self.phi = Encoder(self.width, self.layers, self.present, SMALL)
        self.psi = Encoder(self.width, self.layers, self.present, SMALL)
        self.phi_code = nn.Dense(self.code, kernel_init=SMALL)
        self.psi_code = nn.Dense(self.code, kernel_init=SMALL)
        self.turn = nn.Dense(3, kernel_init=SMALL)
        self.basis = Basis(self.present)

    def __call__(
        self, observation: Observation, packing: Packing | None = None
    ) -> Float[Array, "b n 3"]:
        """The canonical shape X."""
        shape, _ = self.factorize(observation)
        if self.is_initializing():
            self.canonicalize(shape, observation.category)
        return shape

    def factorize(
        self, observation: Observation
    ) -> tuple[Float[Array, "b n 3"], Float[Array, "b 3 3"]]:
        """X and R: the image is that of R X, up to a translation."""
        category, count = observation.category, observation.points2d.shape[-2]
        hidden = self.phi(shown(observation), category)
        shape = self.basis(self.phi_code(hidden), category, count)
        return shape, from_rotation_vector(self.turn(hidden))

    def canonicalize(
        self, shape: Float[ArrayLike, "b n 3"], category: Int[ArrayLike, "b"]
    ) -> Float[Array, "b n 3"]:
        """X' of a shape, turned in any way."""
        code = self.psi_code(self.psi(shape, category))
        return self.basis(code, category, shape.shape[-2])


def network(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None
) -> C3DPO:
    """C3DPO for these categories; it has no start."""
    return C3DPO(
        width=config.width,
        layers=config.layers,
        code=config.code,
        present=presence(skeletons),
    )
