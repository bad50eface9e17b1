"""The nouns: every structure that passes from one room to another.

Dimension letters, the same in the whole project:

    b batch   t time   v views   n keypoints   d features   c categories   k basis
    r packed rows   l tokens in a packed row   w frames looked back on

Frames and units. `points2d` are image-plane coordinates (x right, y as in the
source) in the units of the source. A *canonical* shape has no pose: it is centred and
its scale is arbitrary. A *posed* shape is in the camera frame: x and y are those of
the image and z is depth along the viewing axis, in the units of the input.

Three masks, never one: `observed` (the network is given this point), `annotated` (its
2D exists and may enter a loss), `evaluated` (3D truth exists for it). Values under a
False mask are zero and carry no meaning.

`Observation` has no field for 3D. A 2D-only task is written against it, so 3D truth,
which lives in `Labelled`, cannot reach a 2D-only loss.
"""

import dataclasses
import typing

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

ArrayLike = Array | np.ndarray


@typing.dataclass_transform(frozen_default=True)
def _tree(cls):
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """What the keypoints of one category are; static, never traced.

    Attributes:
        name: the category, e.g. "nsp__cheetah".
        keypoints: one name per keypoint, in the order of every array.
        edges: pairs of keypoint indices; may be empty.
        units: "mm" or "unit", of the 3D the category comes with.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()
    units: str = "unit"


@_tree
class Observation:
    """2D keypoints and nothing in 3D: all that a 2D-only task ever sees.

    `clip` says which frames follow one another: neighbours of one number, which is not
    negative, are consecutive frames of a clip. None: each frame stands alone.
    """

    points2d: Float[ArrayLike, "*b n 2"]
    observed: Bool[ArrayLike, "*b n"]
    annotated: Bool[ArrayLike, "*b n"]
    category: Int[ArrayLike, "*b"]
    clip: Int[ArrayLike, "*b"] | None = None

    @property
    def observation(self) -> "Observation":
        """Itself: what is true or not known in 3D may be asked for its 2D alike."""
        return self


@_tree
class Labelled:
    """An observation with its 3D truth in the camera frame; evaluation and 3D tasks."""

    observation: Observation
    points3d: Float[ArrayLike, "*b n 3"]
    evaluated: Bool[ArrayLike, "*b n"]


@_tree
class Packing:
    """How the keypoints of a padded batch [b n] lie in dense rows of tokens [r l].

    Attributes:
        token: index of each slot's keypoint in the flattened batch (i * n + j);
            b * n, one past the end, for an empty slot.
        segment: which instance of the row the slot belongs to, 0 for an empty slot;
            attention never crosses segments.
    """

    token: Int[ArrayLike, "r l"]
    segment: Int[ArrayLike, "r l"]


@_tree
class Past:
    """What a network that looks back keeps of the last w frames, layer by layer.

    Attributes:
        clip: of each frame, as in Observation; -1 where there was none.
        seen: which of its points were observed.
        keys: what the points of later frames compare themselves with.
        values: what they receive.
    """

    clip: Int[ArrayLike, "w"]
    seen: Bool[ArrayLike, "w n"]
    keys: Float[ArrayLike, "layers w n d"]
    values: Float[ArrayLike, "layers w n d"]


@_tree
class Pose:
    """Scaled orthographic camera: x = scale * (rotation @ X)[:2] + translation."""

    scale: Float[ArrayLike, "*b"]
    rotation: Float[ArrayLike, "*b 3 3"]
    translation: Float[ArrayLike, "*b 2"]


@_tree
class Prediction:
    """What lifting gives, in the units of the input.

    Attributes:
        canonical: the network's shape, centred, in the pose it was predicted in.
        pose: the camera that best explains the observed 2D.
        posed: the canonical shape in the camera frame.
        lifted: the observed xy with the depth of the posed shape; points that were
            not observed are wholly the posed shape's.
        start: the same of what the network begins at, where it does, in either depth
            sign: a yardstick.
    """

    canonical: Float[ArrayLike, "*b n 3"]
    pose: Pose
    posed: Float[ArrayLike, "*b n 3"]
    lifted: Float[ArrayLike, "*b n 3"]
    start: "Prediction | None" = None


@_tree
class TrainState:
    """All that training changes, and all that a checkpoint holds of it.

    Attributes:
        step: updates done.
        params: what the optimiser moves.
        averaged: exponential moving average of params; what is evaluated and served.
        opt_state: the optimiser's state.
        key: root of every random stream; folded with a name and the step, never
            carried forward.
        depth_sign: +1 or -1 per category, chosen on validation at the end: 2D cannot
            tell a shape from its mirror image in depth. 0 until then.
    """

    step: Int[ArrayLike, ""]
    params: PyTree
    averaged: PyTree
    opt_state: PyTree
    key: Key[Array, ""]
    depth_sign: Float[ArrayLike, "c"]
