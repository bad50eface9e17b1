"""Networks as records of two pure functions; the only room that imports flax."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax.config import ModelConfig
from lfm_jax.errors import LfmError
from lfm_jax.models.attention import INJECTION
from lfm_jax.models.encodings import correspondence
from lfm_jax.models.lfm2d import LFM2D
from lfm_jax.models.start import Start
from lfm_jax.types import Observation, Skeleton

__all__ = ["Model", "Start", "build"]

DTYPES = ("float32", "bfloat16")


class Model(NamedTuple):
    """A network without state.

    Attributes:
        init: key -> params.
        apply: (params, normalised observation, packing or None) -> canonical [b n 3].
        begin: normalised observation -> the start in the camera [b n 3], which is what
            the network adds to; None where there is no start.
    """

    init: Callable
    apply: Callable
    begin: Callable | None = None


def build(
    config: ModelConfig, skeletons: Sequence[Skeleton], start: Start | None = None
) -> Model:
    """The network of a config for these categories.

    Args:
        config: what to build.
        skeletons: the categories, in the order of their index.
        start: factorized shapes to begin from; None for the bare network.

    Raises:
        LfmError: a setting that names nothing.
    """
    if not INJECTION.fullmatch(config.injection):
        raise LfmError(
            f"model.injection is {config.injection!r}; choose none, input, first_last, "
            "every, or every_2, every_3 and so on."
        )
    if config.width % (2 * config.heads):
        raise LfmError(
            f"model.width is {config.width}; make it a multiple of twice model.heads "
            f"({2 * config.heads})."
        )
    if config.dtype not in DTYPES:
        raise LfmError(
            f"model.dtype is {config.dtype!r}; choose {' or '.join(DTYPES)}."
        )
    counts = np.array([len(s.keypoints) for s in skeletons])
    network = LFM2D(
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        injection=config.injection,
        inject_values=config.inject_values,
        phi=correspondence(config.encoding, skeletons, config.width, config.sigma),
        learned=config.encoding == "learned",
        present=np.arange(counts.max()) < counts[:, None],
        start=start,
        dtype=jnp.dtype(config.dtype),
        remat=config.remat,
    )
    example = Observation(
        points2d=jnp.zeros((1, counts.max(), 2)),
        observed=jnp.ones((1, counts.max()), bool),
        annotated=jnp.ones((1, counts.max()), bool),
        category=jnp.zeros(1, jnp.int32),
    )
    return Model(
        init=jax.jit(lambda key: network.init(key, example)["params"]),
        apply=lambda params, observation, packing=None: network.apply(
            {"params": params}, observation, packing
        ),
        begin=functools.partial(network.apply, {}, method=LFM2D.begin)
        if start
        else None,
    )
