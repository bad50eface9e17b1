"""Where a trained model meets any number of frames: pads, cuts, compiles once.

Host side, NumPy in and out. Evaluation and serving both lift through here.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from lfm_jax import tasks
from lfm_jax.models import Model
from lfm_jax.types import Observation, Prediction, Skeleton

CHUNK = 256  # frames lifted at once; memory does not grow with the number of frames
NARROWEST = 16  # keypoints are padded to this, doubled as often as needed


def make_predict(
    model: Model,
    params: PyTree | None,
    depth_sign: Float[np.ndarray, "c"],
    skeletons: Sequence[Skeleton],
    chunk: int = CHUNK,
) -> Callable[[Observation], Prediction]:
    """Builds `predict(observation) -> Prediction` in NumPy, for one category a call.

    Args:
        model: the network.
        params: its parameters; None lifts by the model's start alone.
        depth_sign: +1 or -1 per category.
        skeletons: the model's categories; frames are padded to a few widths, so that
            a few compilations serve all of them.
        chunk: frames lifted at once.
    """
    widest = max(len(skeleton.keypoints) for skeleton in skeletons)
    signs = jnp.asarray(depth_sign, jnp.float32)
    chunk = max(chunk // model.views, 1) * model.views  # views are not torn apart
    # trained parameters lie on every device of a mesh, and each of them would lift
    # every frame: one is enough
    params = jax.device_put(jax.device_get(params), jax.local_devices()[0])
    lift = functools.partial(_lift, model, params, signs)

    def predict(observation: Observation) -> Prediction:
        frames, count = observation.observed.shape
        width = NARROWEST
        while width < count:
            width *= 2
        width = min(width, widest)
        parts = [
            jax.tree.map(np.asarray, lift(_cut(observation, start, chunk, width)))
            for start in range(0, frames, chunk)
        ]
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:frames], *parts)
        return Prediction(
            canonical=whole.canonical[:, :count],
            pose=whole.pose,
            posed=whole.posed[:, :count],
            lifted=whole.lifted[:, :count],
        )

    return predict


# Outside of make_predict: other weights and signs of a model do not compile it anew.
@functools.partial(jax.jit, static_argnames="model")
def _lift(model, params, signs, observation):
    sign = signs[observation.category]
    if params is None:
        return tasks.lift_start(model.begin, observation, sign)
    return tasks.lift(model.apply, params, observation, sign)


def _cut(observation: Observation, start: int, chunk: int, width: int) -> Observation:
    """Frames [start, start + chunk), padded with unobserved frames and keypoints."""
    frames, count = observation.observed.shape
    stop = min(start + chunk, frames)
    pad = functools.partial(_pad, frames=chunk, width=width)
    category = np.full(chunk, observation.category[0], np.int32)
    return Observation(
        points2d=pad(np.asarray(observation.points2d, np.float32)[start:stop]),
        observed=pad(np.asarray(observation.observed)[start:stop]),
        annotated=pad(np.asarray(observation.annotated)[start:stop]),
        category=category,
    )


def _pad(values: np.ndarray, frames: int, width: int) -> np.ndarray:
    padding = [(0, frames - values.shape[0]), (0, width - values.shape[1])]
    return np.pad(values, padding + [(0, 0)] * (values.ndim - 2))
