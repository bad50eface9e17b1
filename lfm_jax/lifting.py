"""Lifting: from a shape to 3D in the camera, for any number of frames.

`lift` is a pure function. `make_predict` pads, cuts and compiles once, host side, NumPy
in and out; evaluation and serving both lift through it.

A film, as it comes, by a network that looks back in time; of a work directory,
`serve.read_model` gives model, params and signs:

    past = init_stream(model, keypoints)
    for frame in film:  # an Observation of one frame
        prediction, past = stream(model, params, past, frame, sign)
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from lfm_jax import programs, tasks
from lfm_jax.errors import LfmError
from lfm_jax.geometry.pose import apply_pose, fit_pose
from lfm_jax.models import Model
from lfm_jax.numerics import padded_width, scaled_identity
from lfm_jax.types import ArrayLike, Observation, Past, Pose, Prediction, Skeleton

CHUNK = 256  # frames lifted at once; memory does not grow with the number of frames
FEW = 16  # as they come from a camera, not padded to a chunk


def lift(
    apply: Callable,
    params: PyTree,
    observation: Observation,
    depth_sign: Float[ArrayLike, "b"],
) -> Prediction:
    """3D of observations, in their own units and camera frame.

    Args:
        apply: the model.
        params: its parameters.
        observation: padded or not, any units.
        depth_sign: +1, or -1 to mirror all depths; 2D does not tell which.
    """
    normal, size, middle = tasks.normalise(observation)
    canonical = apply(params, normal, None)
    pose = fit_pose(canonical, normal.points2d, normal.observed)
    return _predict(observation, size, middle, canonical, pose, depth_sign)


def lift_start(
    start: Float[ArrayLike, "b n 3"], observation: Observation
) -> Prediction:
    """`lift` by what a model begins at, which knows its own pose: a yardstick.

    Args:
        start: of the normalised observation, in the camera.
        observation: as in `lift`.
    """
    _, size, middle = tasks.normalise(observation)
    one = jnp.ones_like(size)
    pose = Pose(one, scaled_identity(one, 3), jnp.zeros_like(middle))
    return _predict(observation, size, middle, start, pose, one)


def _predict(observation, size, middle, canonical, pose, depth_sign):
    """In the units of the observation, with all depths times the sign."""
    # mirroring depth in the camera and in the canonical frame keeps R a rotation
    sign = jnp.stack([jnp.ones_like(depth_sign)] * 2 + [depth_sign], axis=-1)
    canonical = canonical * sign[:, None]
    rotation = pose.rotation * sign[:, :, None] * sign[:, None, :]
    translation = pose.translation * size[:, None] + middle
    pose = Pose(pose.scale * size, rotation, translation)
    posed = apply_pose(pose, canonical)
    lifted = tasks.complete(observation.points2d, posed, observation.observed)
    return Prediction(canonical, pose, posed, lifted)


def make_predict(
    model: Model,
    params: PyTree,
    depth_sign: Float[np.ndarray, "c"],
    skeletons: Sequence[Skeleton],
    chunk: int = CHUNK,
    few: int = FEW,
    finely: bool = False,
    identity: str = "",
) -> Callable[[Observation], Prediction]:
    """Builds `predict(observation) -> Prediction` in NumPy, for one category a call.

    Args:
        model: the network.
        params: its parameters.
        depth_sign: +1 or -1 per category.
        skeletons: the model's categories; frames are padded to a few widths, so that
            a few compilations serve all of them.
        chunk: frames lifted at once; more where the model looks far back.
        few: so many frames or fewer have a program of their own, which is quick.
        finely: pad to the next of more widths.
        identity: of the model but for its parameters, by which programs are kept from
            one process to the next; see `programs.kept`.
    """
    widest = max(len(skeleton.keypoints) for skeleton in skeletons)
    signs = jnp.asarray(depth_sign, jnp.float32)
    chunk = max(chunk // model.views, 1) * model.views  # views are not torn apart
    # what looks back in time has its past in every call, and half of a call for it
    chunk = max(chunk, 2 * model.context)
    each = chunk - model.context
    few = min(-(-few // model.views) * model.views, chunk)
    # trained parameters lie on every device of a mesh, and each of them would lift
    # every frame: one is enough
    params = jax.device_put(jax.device_get(params), jax.local_devices()[0])
    program = programs.kept(functools.partial(_lift, model), identity)
    lift_part = functools.partial(program, params, signs)

    def predict(observation: Observation) -> Prediction:
        if model.past is None:  # what is not asked for would compile a program anew
            observation = dataclasses.replace(observation, clip=None)
        frames, count = observation.observed.shape
        width = min(padded_width(count, finely=finely), widest)
        size = few if frames <= few else chunk
        parts = []
        for start in range(0, frames, each):
            first = max(start - model.context, 0)
            part = lift_part(_cut(observation, first, size, width))
            own = slice(start - first, start - first + each)
            parts.append(jax.tree.map(lambda x, own=own: np.asarray(x)[own], part))
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:frames], *parts)
        return _narrow(whole, count)

    return predict


# Outside of make_predict: other weights and signs of a model do not compile it anew.
# What it begins at comes with it: alone it would take as long to compile.
@functools.partial(jax.jit, static_argnames="model")
def _lift(model, params, signs, observation):
    sign = signs[observation.category]
    if model.begin is None:
        return lift(model.apply, params, observation, sign)
    began = []

    def apply(params, normal, packing):
        shape, start = model.apply(params, normal, packing, method="with_start")
        began.append(start)
        return shape

    prediction = lift(apply, params, observation, sign)
    return dataclasses.replace(prediction, start=lift_start(began[0], observation))


def _narrow(prediction: Prediction, count: int) -> Prediction:
    """Without the keypoints that padded it."""
    start = prediction.start
    return Prediction(
        canonical=prediction.canonical[:, :count],
        pose=prediction.pose,
        posed=prediction.posed[:, :count],
        lifted=prediction.lifted[:, :count],
        start=start and _narrow(start, count),
    )


def _cut(observation: Observation, start: int, chunk: int, width: int) -> Observation:
    """Frames [start, start + chunk), padded with unobserved frames and keypoints."""
    frames, count = observation.observed.shape
    stop = min(start + chunk, frames)
    pad = functools.partial(_pad, frames=chunk, width=width)
    category = np.full(chunk, observation.category[0], np.int32)
    clip = observation.clip
    if clip is not None:
        clip = np.pad(np.asarray(clip, np.int32)[start:stop], (0, chunk - stop + start))
    return Observation(
        points2d=pad(np.asarray(observation.points2d, np.float32)[start:stop]),
        observed=pad(np.asarray(observation.observed)[start:stop]),
        annotated=pad(np.asarray(observation.annotated)[start:stop]),
        category=category,
        clip=clip,
    )


def _pad(values: np.ndarray, frames: int, width: int) -> np.ndarray:
    padding = [(0, frames - values.shape[0]), (0, width - values.shape[1])]
    return np.pad(values, padding + [(0, 0)] * (values.ndim - 2))


# -------------------------------------------------------------------- frame by frame


def init_stream(model: Model, keypoints: int) -> Past:
    """What a model that looks back in time knows before the first frame of a film.

    Args:
        model: the network.
        keypoints: of the category, or more: frames may be padded.

    Raises:
        LfmError: the model lifts every frame by itself.
    """
    if model.past is None:
        raise LfmError(
            "This network lifts every frame by itself, and has nothing to carry from "
            "frame to frame: lift as usual."
        )
    return model.past(keypoints)


@functools.partial(jax.jit, static_argnames="model")
def stream(
    model: Model,
    params: PyTree,
    past: Past,
    frames: Observation,
    depth_sign: Float[jax.Array, "b"],
) -> tuple[Prediction, Past]:
    """Lifts the next frames of a film, one or more, as they would be in the whole film.

    Memory is that of `past`, which never grows.

    Args:
        model: the network.
        params: its parameters.
        past: what `init_stream`, or the call before, gave.
        frames: in their order, all of one film, whatever their `clip`.
        depth_sign: of each, as in `lift`.

    Returns:
        The shapes of these frames, and what the next call needs.
    """
    film = jnp.zeros_like(jnp.asarray(frames.category))
    kept = []

    def apply(params, normal, packing):
        shape, after = model.apply(params, normal, past, packing, method="stream")
        kept.append(after)
        return shape

    frames = dataclasses.replace(frames, clip=film)
    return lift(apply, params, frames, depth_sign), kept[0]
