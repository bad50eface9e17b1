"""Lift 2D keypoints with a trained model: numpy in, numpy out.

    lifter = Lifter.from_workdir("runs/lfm2d")
    lifted = lifter.lift(points2d, category="dog", names=["nose", "tail", ...])

A user's keypoints are matched to those of the category by name; whatever comes out is
in the category's order. Frames are the camera's: x and y are those of the image, z is
depth along the viewing axis, all in the units of the input.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from lfm_jax import metrics, workdir
from lfm_jax.config import Config, from_config_dict, suggest
from lfm_jax.data.matching import arrange
from lfm_jax.data.readers import Keypoints2D, keypoints2d
from lfm_jax.errors import LfmError
from lfm_jax.skeleton_io import read_skeletons
from lfm_jax.types import Observation, Pose, Prediction, Skeleton

MIN_VISIBLE = 4  # A weak-perspective pose of a shape needs four points.
RESOLUTION = 1e-6  # Of float32 coordinates: smaller differences are rounding.


@dataclasses.dataclass(frozen=True)
class Lifted:
    """What lifting gives; every array is in the order of `names`.

    Attributes:
        category: the category it was lifted as.
        names: the category's keypoints.
        edges: pairs of keypoint indices.
        labels: what each frame is called in the source.
        unknown: names of the input that the category does not have.
        points2d: the input, zero where hidden.
        visible: which points were given.
        points3d: the given xy with predicted depth; hidden points are predicted
            wholly.
        canonical: the network's shape, without pose and of arbitrary scale.
        posed: the canonical shape in the camera frame.
        scale, rotation, translation: posed = scale * rotation @ canonical, with
            translation added to x and y.
        reprojection: mean distance in the image between the posed shape and the given
            points, in percent of their RMS radius.
        depth_sign: "chosen on validation", or "undetermined" where the category came
            without 3D: the shape may then be its own mirror image in depth.
    """

    category: str
    names: tuple[str, ...]
    edges: Int[np.ndarray, "e 2"]
    labels: tuple[str, ...]
    unknown: tuple[str, ...]
    points2d: Float[np.ndarray, "f n 2"]
    visible: Bool[np.ndarray, "f n"]
    points3d: Float[np.ndarray, "f n 3"]
    canonical: Float[np.ndarray, "f n 3"]
    posed: Float[np.ndarray, "f n 3"]
    scale: Float[np.ndarray, "f"]
    rotation: Float[np.ndarray, "f 3 3"]
    translation: Float[np.ndarray, "f 2"]
    reprojection: Float[np.ndarray, "f"]
    depth_sign: str


@dataclasses.dataclass(frozen=True)
class Lifter:
    """A trained model, ready to lift.

    Attributes:
        skeletons: the categories it knows; the index is the category id.
        has_truth: for which categories 3D has fixed the sign of depth, as training
            does when it ends.
        predict: lifts unpadded numpy observations of one category.
    """

    skeletons: tuple[Skeleton, ...]
    has_truth: tuple[bool, ...]
    predict: Callable[[Observation], Prediction]

    @classmethod
    def from_workdir(cls, folder: str | os.PathLike) -> "Lifter":
        """The newest checkpoint of a training run.

        Raises:
            LfmError: the folder is no work directory, or has no checkpoint.
        """
        return cls(*_read_workdir(pathlib.Path(folder)))

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories that can be lifted."""
        return tuple(skeleton.name for skeleton in self.skeletons)

    def skeleton(self, category: str) -> Skeleton:
        """Keypoints and edges of a category.

        Raises:
            LfmError: the model does not know the category; suggests a close one.
        """
        return self.skeletons[self._index(category)]

    def lift(
        self,
        points2d: ArrayLike,
        visible: ArrayLike | None = None,
        *,
        category: str,
        names: Sequence[str] | None = None,
        renames: Mapping[str, str] | None = None,
    ) -> Lifted:
        """Lift frames of one category.

        Args:
            points2d: [f n 2] image coordinates in any unit.
            visible: [f n] which points are given; None means all that are not NaN.
            category: one of `categories`.
            names: [n] keypoint names, in any order and number; None means exactly
                the category's keypoints in their order.
            renames: the category's name for names of the input that differ.

        Raises:
            LfmError: unknown category, names that do not fit, wrong shapes, visible
                points that are not finite, or a frame with too few visible points.
        """
        keypoints = keypoints2d(points2d, visible, names)
        return self.lift_keypoints(keypoints, category=category, renames=renames)

    def lift_keypoints(
        self,
        keypoints: Keypoints2D,
        *,
        category: str,
        renames: Mapping[str, str] | None = None,
    ) -> Lifted:
        """`lift` for keypoints that `data.readers.read_keypoints` gave."""
        index = self._index(category)
        skeleton = self.skeletons[index]
        points2d, visible, unknown = arrange(keypoints, skeleton, renames or {})
        _check_frames(points2d, visible, keypoints)
        unit = _unit(points2d, visible)
        scaled = Observation(
            points2d=points2d / unit[:, None, None],
            observed=visible,
            annotated=visible,
            category=np.full(len(points2d), index, np.int32),
        )
        prediction = self.predict(scaled)
        miss = metrics.reprojection(
            *map(jnp.asarray, (prediction.posed, scaled.points2d, visible))
        )
        prediction = _multiply(prediction, unit)
        _check_finite(prediction, keypoints)
        return Lifted(
            category=skeleton.name,
            names=skeleton.keypoints,
            edges=np.asarray(skeleton.edges, np.int32).reshape(-1, 2),
            labels=keypoints.labels,
            unknown=unknown,
            points2d=points2d,
            visible=visible,
            points3d=prediction.lifted,
            canonical=prediction.canonical,
            posed=prediction.posed,
            scale=prediction.pose.scale,
            rotation=prediction.pose.rotation,
            translation=prediction.pose.translation,
            reprojection=np.asarray(miss),
            depth_sign=(
                "chosen on validation" if self.has_truth[index] else "undetermined"
            ),
        )

    def _index(self, category: str) -> int:
        if category not in self.categories:
            raise LfmError(
                f"The model has no category '{category}'"
                f"{suggest(category, self.categories)}."
            )
        return self.categories.index(category)


# ----------------------------------------------------------------------------- frames


def _check_frames(
    points2d: Float[np.ndarray, "f n 2"],
    visible: Bool[np.ndarray, "f n"],
    keypoints: Keypoints2D,
) -> None:
    counts = visible.sum(-1)
    few = np.flatnonzero(counts < MIN_VISIBLE)
    if len(few):
        raise LfmError(
            f"{keypoints.source}, {keypoints.labels[few[0]]}: {counts[few[0]]} visible "
            f"points of the category, {MIN_VISIBLE} needed (so in {len(few)} of "
            f"{len(counts)} frames): leave such frames out."
        )
    largest = np.abs(points2d).max((-2, -1))
    flat = np.flatnonzero(_spread(points2d, visible) <= RESOLUTION * largest)
    if len(flat):
        raise LfmError(
            f"{keypoints.source}, {keypoints.labels[flat[0]]}: all visible points lie "
            f"on one spot (so in {len(flat)} of {len(counts)} frames): mark missing "
            "points hidden or leave such frames out."
        )


def _spread(
    points2d: Float[np.ndarray, "f n 2"], visible: Bool[np.ndarray, "f n"]
) -> Float[np.ndarray, "f"]:
    """The longer side of the box around the visible points."""
    shown = visible[..., None]
    high = np.max(points2d, -2, where=shown, initial=-np.inf)
    low = np.min(points2d, -2, where=shown, initial=np.inf)
    return (high - low).max(-1)


def _unit(
    points2d: Float[np.ndarray, "f n 2"], visible: Bool[np.ndarray, "f n"]
) -> Float[np.ndarray, "f"]:
    """About the size of each frame: in it, no guard against zero takes hold.

    A power of two, so that coordinates come back exactly.
    """
    return np.exp2(np.round(np.log2(_spread(points2d, visible))))


def _multiply(prediction: Prediction, unit: Float[np.ndarray, "f"]) -> Prediction:
    """The prediction with image lengths in a unit that many times smaller."""
    by = unit[:, None, None]
    with np.errstate(over="ignore"):  # What overflows is refused as infinite.
        pose = Pose(
            scale=np.asarray(prediction.pose.scale) * unit,
            rotation=np.asarray(prediction.pose.rotation),
            translation=np.asarray(prediction.pose.translation) * by[:, 0],
        )
        return Prediction(
            canonical=np.asarray(prediction.canonical),
            pose=pose,
            posed=np.asarray(prediction.posed) * by,
            lifted=np.asarray(prediction.lifted) * by,
        )


def _check_finite(prediction: Prediction, keypoints: Keypoints2D) -> None:
    finite = np.isfinite(prediction.lifted).all((-2, -1))
    if not finite.all():
        label = keypoints.labels[np.flatnonzero(~finite)[0]]
        raise LfmError(
            f"{keypoints.source}, {label}: does not lift to finite numbers: give "
            "the coordinates in pixels."
        )


# ------------------------------------------------------------------------------ files


def write_lifted(path: str | os.PathLike, lifted: Lifted) -> None:
    """Write an npz of plain arrays atomically.

    Keys are the attributes of `Lifted`, and `units`, which is "input": lengths are in
    the units of the 2D.

    Raises:
        LfmError: the file cannot be written there.
    """
    path = pathlib.Path(path)
    if not path.name:
        raise LfmError(f"{path} is not a name of a file: give one that ends in .npz.")
    arrays = {}
    for field in dataclasses.fields(lifted):
        value = getattr(lifted, field.name)
        arrays[field.name] = np.asarray(
            value, None if isinstance(value, np.ndarray) else str
        )
    try:
        with workdir.replacing(path) as beside, open(beside, "wb") as file:
            np.savez_compressed(file, **arrays, units="input")
    except OSError as error:
        raise LfmError(
            f"{path} cannot be written ({error.strerror or error}): choose another "
            "place."
        ) from error


def _read_workdir(
    folder: pathlib.Path,
) -> tuple[tuple[Skeleton, ...], tuple[bool, ...], Callable]:
    """The fields of a `Lifter` from a work directory."""
    config = _read_config(folder / "config.json")
    skeletons, has_truth = read_skeletons(folder / workdir.SKELETONS)
    # Only loading needs the checkpoint's reader and the network's library.
    from lfm_jax import checkpoint, lifting, models
    from lfm_jax.train import start

    begun = start.read_factorized(folder / workdir.FACTORIZATION).start
    weights = checkpoint.read_weights(folder / "checkpoints")
    model = models.build(config.model, skeletons, begun)
    # Zero: the run has not come to its end, where signs are chosen.
    decided = weights.depth_sign != 0.0
    signs = np.where(decided, weights.depth_sign, 1.0)
    predict = lifting.make_predict(model, weights.params, signs, skeletons)
    return skeletons, tuple((decided & has_truth).tolist()), predict


def _read_config(path: pathlib.Path) -> Config:
    values = workdir.read_json(path)
    try:
        return from_config_dict(ml_collections.ConfigDict(values))
    except (TypeError, AttributeError, ValueError) as error:
        raise LfmError(
            f"{path} is not the config of a run: copy it from there again."
        ) from error
