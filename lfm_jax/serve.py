"""Lift 2D keypoints with a trained model: numpy in, numpy out.

    lifter = Lifter.from_workdir("runs/lfm2d")
    lifted = lifter.lift(points2d, category="dog", names=["nose", "tail", ...])

A user's keypoints are matched to those of the category by name; whatever comes out is
in the category's order. Frames are the camera's: x and y are those of the image, z is
depth along the viewing axis, all in the units of the input unless `rescaled`.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from lfm_jax import numerics, workdir
from lfm_jax.config import suggest
from lfm_jax.data.matching import arrange
from lfm_jax.data.readers import Keypoints2D, keypoints2d
from lfm_jax.errors import LfmError
from lfm_jax.skeleton_io import read_skeletons
from lfm_jax.train.confidence import Trust, confidence, misfit
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
        unusual: frames that the model explains worse than 99 of 100 that it knows, as
            it does what is not of the category.
        depth_sign: "chosen on validation", or "undetermined" where the category came
            without 3D: the shape may then be its own mirror image in depth.
        expected_error: of points3d, in their units; NaN where training did not come to
            its end, at which it is measured (train/confidence.py).
        confidence: probability that a point is within a tenth of the shape's RMS radius
            of where it should be, up to a similarity; likewise.
        frames: the number of each frame in its video, from 0.
        individual: what the source calls the individual; may be empty.
        fps: frames per second, NaN where not known.
        units: of lengths in 3D; "input" where they are those of the 2D.
        unit_length: one unit of points2d in `units`.
        smoothing: what was done to points3d over time; empty where nothing was.
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
    unusual: Bool[np.ndarray, "f"]
    depth_sign: str
    expected_error: Float[np.ndarray, "f n"]
    confidence: Float[np.ndarray, "f n"]
    frames: Int[np.ndarray, "f"]
    individual: str
    fps: float
    units: str = "input"
    unit_length: float = 1.0
    smoothing: str = ""


@dataclasses.dataclass(frozen=True)
class Lifter:
    """A trained model, ready to lift.

    Attributes:
        skeletons: the categories it knows; the index is the category id.
        has_truth: for which categories 3D has fixed the sign of depth, as training
            does when it ends.
        predict: lifts unpadded numpy observations of one category.
        trust: per category, what it knows about its own errors.
    """

    skeletons: tuple[Skeleton, ...]
    has_truth: tuple[bool, ...]
    predict: Callable[[Observation], Prediction]
    trust: tuple[Trust, ...]

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
            clip=np.zeros(len(points2d), np.int32),
        )
        prediction = self.predict(scaled)
        miss = misfit(prediction.posed, scaled)
        prediction = _multiply(prediction, unit)
        _check_finite(prediction, keypoints)
        trust = self.trust[index]
        expected = trust.expected_error(visible, miss)
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
            reprojection=miss,
            unusual=miss > trust.usual,
            depth_sign=(
                "chosen on validation" if self.has_truth[index] else "undetermined"
            ),
            expected_error=expected * _radius(prediction.lifted, visible)[:, None],
            confidence=confidence(expected),
            frames=keypoints.frames,
            individual=keypoints.individual,
            fps=keypoints.fps,
        )

    def liftable(
        self,
        keypoints: Keypoints2D,
        *,
        category: str,
        renames: Mapping[str, str] | None = None,
    ) -> Keypoints2D:
        """The frames that can be lifted: with enough visible points of the category.

        Raises:
            LfmError: no frame can be, or as `lift`.
        """
        arranged = arrange(keypoints, self.skeleton(category), renames or {})
        enough = liftable_frames(*arranged[:2])
        if not enough.any():
            raise LfmError(
                f"{keypoints.source}: no frame has {MIN_VISIBLE} visible points of "
                f"'{category}' at different places: try a lower --threshold, or --map "
                "more of its keypoints."
            )
        return keypoints.take(enough)

    def _index(self, category: str) -> int:
        if category not in self.categories:
            raise LfmError(
                f"The model has no category '{category}'"
                f"{suggest(category, self.categories)}."
            )
        return self.categories.index(category)


# ----------------------------------------------------------------------------- frames


def liftable_frames(
    points2d: Float[np.ndarray, "f n 2"], visible: Bool[np.ndarray, "f n"]
) -> Bool[np.ndarray, "f"]:
    """Frames with at least MIN_VISIBLE points that are not all on one spot."""
    largest = np.abs(points2d).max((-2, -1))
    spread = _spread(points2d, visible)
    return (visible.sum(-1) >= MIN_VISIBLE) & (spread > RESOLUTION * largest)


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


def _radius(
    points: Float[np.ndarray, "f n 3"], mask: Bool[np.ndarray, "f n"]
) -> Float[np.ndarray, "f"]:
    """RMS distance of the masked points from their centroid."""
    return numerics.in_blocks(_rms_radius, points, mask)


_rms_radius = jax.jit(numerics.rms_radius)


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


# ------------------------------------------------------------------------------ units


def bone_lengths(lifted: Lifted, bone: tuple[str, str]) -> Float[np.ndarray, "k"]:
    """The distance between two keypoints in the frames where both were given."""
    one, other = map(lifted.names.index, bone)
    both = lifted.visible[:, one] & lifted.visible[:, other]
    return np.linalg.norm(
        lifted.points3d[both, one] - lifted.points3d[both, other], axis=-1
    )


def check_bone(skeleton: Skeleton, bone: tuple[str, str]) -> None:
    """Raises `LfmError` where a bone does not join two keypoints of the category."""
    for name in bone:
        if name not in skeleton.keypoints:
            raise LfmError(
                f"Category '{skeleton.name}' has no keypoint '{name}' that a bone "
                f"could end at{suggest(name, skeleton.keypoints)}."
            )


def rescaled(
    lifted: Lifted, bone: tuple[str, str], length: float, units: str
) -> Lifted:
    """The same in units in which the median length of a bone is `length`.

    One factor for all frames: under a weak-perspective camera the size of an object
    that comes nearer grows, and goes on to.

    Raises:
        LfmError: the category has no such keypoint, or no frame has both.
    """
    check_bone(Skeleton(lifted.category, lifted.names), bone)
    lengths = bone_lengths(lifted, bone)
    median = float(np.median(lengths)) if len(lengths) else 0.0
    if not median > 0:
        raise LfmError(
            f"The bone from '{bone[0]}' to '{bone[1]}' gives no scale: its ends are "
            "never both visible, or on one spot; choose another."
        )
    factor = length / median
    by = np.float32(factor)
    return dataclasses.replace(
        lifted,
        points3d=lifted.points3d * by,
        expected_error=lifted.expected_error * factor,
        posed=lifted.posed * by,
        scale=lifted.scale * by,
        translation=lifted.translation * by,
        units=units,
        unit_length=lifted.unit_length * factor,
    )


# ----------------------------------------------------------------------------- reading


def _read_workdir(folder: pathlib.Path) -> tuple:
    """The fields of a `Lifter` from a work directory."""
    model, params, depth_sign, skeletons, has_truth = read_model(folder)
    from lfm_jax import lifting

    if model.views > 1:
        raise LfmError(
            f"{folder} holds a model of {model.views} views of every frame, which "
            "cannot lift one; use lfm_jax.multiview.reconstruct."
        )
    # Zero: the run has not come to its end, where signs are chosen.
    decided = depth_sign != 0.0
    signs = np.where(decided, depth_sign, 1.0)
    own = {"finely": True, "identity": workdir.identity(folder)}
    predict = lifting.make_predict(model, params, signs, skeletons, **own)
    known = tuple((decided & has_truth).tolist())
    trust = _read_trust(folder / workdir.CONFIDENCE, skeletons)
    return skeletons, known, predict, trust


def read_model(folder: pathlib.Path) -> tuple:
    """The network of a work directory, its averaged weights, the signs of depth (zero
    where none is chosen), the categories, and which of them have 3D truth.

    Raises:
        LfmError: a file is missing or damaged.
    """
    config = workdir.read_config(folder / workdir.CONFIG)
    skeletons, has_truth = read_skeletons(folder / workdir.SKELETONS)
    # Only loading needs the checkpoint's reader and the network's library.
    from lfm_jax import checkpoint, models
    from lfm_jax.train import start

    begun = start.read_factorized(folder / workdir.FACTORIZATION).start
    weights = checkpoint.read_weights(folder / "checkpoints")
    model = models.build(config.model, skeletons, begun, config.data.views)
    return model, weights.params, weights.depth_sign, skeletons, has_truth


def _read_trust(path: pathlib.Path, skeletons: Sequence[Skeleton]) -> tuple[Trust, ...]:
    counts = [len(skeleton.keypoints) for skeleton in skeletons]
    if not path.exists():
        return tuple(map(Trust.unknown, counts))
    known = workdir.read_json(path)
    try:
        trust = tuple(Trust.from_json(known[skeleton.name]) for skeleton in skeletons)
        shapes = [(one.seen.shape, one.hidden.shape) for one in trust]
        whole = shapes == [((count,), (count,)) for count in counts]
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise LfmError(
            f"{path} does not say how far to trust these categories: evaluate the run "
            "again."
        )
    return trust
