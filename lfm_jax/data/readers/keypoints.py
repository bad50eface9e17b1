"""What every reader gives: the 2D keypoints of one individual, checked.

One rule for missing points, whatever the file: a point is *visible* where the file says
so, or, where it says nothing, where both coordinates are numbers. A likelihood says so
from the threshold on. A visible point has two finite coordinates or the file is
refused; a hidden point is zero and carries no meaning.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from lfm_jax.errors import LfmError

THRESHOLD = 0.6  # The cut-off that DeepLabCut plots and analyses with.
_LIKELY = 2.0  # Confidence maps peak a little above 1; percentages are far above.
_SHARE = 3.0  # Coordinates as shares of the image; some points lie outside of it.


@dataclasses.dataclass(frozen=True)
class Keypoints2D:
    """2D keypoints of one individual, as a user handed them in.

    Attributes:
        points2d: image coordinates, x right, y as in the source; zero where hidden.
        visible: which points are given.
        names: one name per keypoint, or None where the source gives none.
        labels: what to call each frame in a message.
        source: what to call the whole in a message, usually the path of the file.
        frames: the number of each frame in its video, from 0.
        individual: what the file calls the individual; empty where it has only one.
        fps: frames per second, NaN where the source does not say.
        kind: what kind of file it was, to be said.
    """

    points2d: Float[np.ndarray, "f n 2"]
    visible: Bool[np.ndarray, "f n"]
    names: tuple[str, ...] | None
    labels: tuple[str, ...]
    source: str
    frames: Int[np.ndarray, "f"]
    individual: str = ""
    fps: float = np.nan
    kind: str = "arrays"

    def take(self, rows: Bool[np.ndarray, "f"]) -> "Keypoints2D":
        """The same with some of the frames only."""
        return dataclasses.replace(
            self,
            points2d=self.points2d[rows],
            visible=self.visible[rows],
            labels=tuple(np.array(self.labels, object)[rows]),
            frames=self.frames[rows],
        )


def keypoints2d(
    points2d: ArrayLike,
    visible: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    source: str = "points2d",
    frames: Int[np.ndarray, "f"] | None = None,
    individual: str = "",
    fps: float = np.nan,
    kind: str = "arrays",
) -> Keypoints2D:
    """Check arrays and make them Keypoints2D.

    Args:
        points2d: [f n 2] image coordinates.
        visible: [f n] which points are given; None means all that are not NaN.
        names: [n] keypoint names, or None.
        labels: [f] what to call each frame in a message; None means by number.
        source: what to call the whole in a message.
        frames: [f] the number of each frame in its video; None means 0, 1, 2, ...
        individual: what the file calls the individual.
        fps: frames per second, NaN where not known.
        kind: what kind of file it was.

    Raises:
        LfmError: wrong shapes, no frames, or a visible point that is not finite.
    """
    points = _points(points2d, source)
    count, keypoints = points.shape[:2]
    frames = np.arange(count) if frames is None else frames
    labels = tuple(labels or (f"frame {number}" for number in frames))
    names = None if names is None else tuple(names)
    if names is not None and len(names) != keypoints:
        raise LfmError(
            f"{source} has {keypoints} keypoints but {len(names)} names: give one name "
            "per keypoint."
        )
    for name in names or ():
        if not name.encode(errors="ignore").decode() == name:
            raise LfmError(f"{source}: the name {name!a} is no text: give another.")
    shown = _visible(visible, points, source)
    broken = np.argwhere(shown & ~np.isfinite(points).all(-1))
    if len(broken):
        frame, keypoint = broken[0]
        called = f"'{names[keypoint]}'" if names else f"{keypoint}"
        raise LfmError(
            f"{source}, {labels[frame]}: keypoint {called} is visible but its "
            f"coordinates are {_coordinates(points[frame, keypoint])}, or too large to "
            "be a place in an image: mark it hidden."
        )
    points = np.where(shown[..., None], points, np.float32(0))
    return Keypoints2D(
        points, shown, names, labels, source, frames, individual, fps, kind
    )


def likely(
    points2d: Float[np.ndarray, "f n 2"],
    scores: Float[np.ndarray, "f n"],
    threshold: float,
    source: str,
) -> Bool[np.ndarray, "f n"]:
    """Points that have coordinates and a likelihood of at least `threshold`.

    Raises:
        LfmError: the likelihoods are in another unit, such as percent.
    """
    highest = np.max(scores, initial=0, where=~np.isnan(scores))
    if highest > _LIKELY:
        raise LfmError(
            f"{source} has likelihoods up to {highest:g}: write them between 0 and 1."
        )
    return ~np.isnan(points2d).any(-1) & (scores >= threshold)


def in_pixels(keypoints: Keypoints2D, size: tuple[int, int] | None) -> Keypoints2D:
    """Coordinates that are shares of an image's width and height as pixels.

    Raises:
        LfmError: they are shares but no size is given, or the other way round.
    """
    seen = keypoints.points2d[keypoints.visible]
    highest = np.abs(seen).max(initial=0)
    if size is None:
        inside = ((seen >= 0) & (seen <= 1)).all(-1)
        if highest <= _SHARE and inside.sum() > len(seen) / 2:
            raise LfmError(
                f"{keypoints.source}: coordinates from {seen.min():.2g} to "
                f"{seen.max():.2g} look like shares of the image's width and height: "
                "give --image-size=WIDTHxHEIGHT (1x1 if both have one unit)."
            )
        return keypoints
    if highest > _SHARE:
        raise LfmError(
            f"{keypoints.source}: coordinates up to {highest:g} are no shares of the "
            "image's width and height: leave --image-size out."
        )
    points2d = keypoints.points2d * np.array(size, np.float32)
    return dataclasses.replace(keypoints, points2d=points2d)


def _points(points2d: ArrayLike, source: str) -> Float[np.ndarray, "f n 2"]:
    points = as_array(points2d)
    if points.dtype.kind not in "fiu" or points.ndim != 3 or points.shape[-1] != 2:
        raise LfmError(
            f"{source} holds {points.dtype} of shape {list(points.shape)}: 2D "
            "keypoints are numbers of shape [frames, keypoints, 2]."
        )
    if 0 in points.shape:
        missing = "frames" if points.shape[0] == 0 else "keypoints"
        raise LfmError(f"{source} has no {missing}: give at least one.")
    with np.errstate(over="ignore"):  # What overflows is refused as infinite.
        return points.astype(np.float32)


def _visible(
    visible: ArrayLike | None, points: Float[np.ndarray, "f n 2"], source: str
) -> Bool[np.ndarray, "f n"]:
    if visible is None:
        return ~np.isnan(points).any(-1)
    visible = as_array(visible)
    if visible.dtype.kind not in "biu" or visible.shape != points.shape[:-1]:
        raise LfmError(
            f"{source}: visibility is {visible.dtype} of shape {list(visible.shape)}, "
            f"but must be true or false of shape {list(points.shape[:-1])}."
        )
    return visible > 0


def as_array(value: object) -> np.ndarray:
    """As an array; ragged nested lists come out empty, which fits no shape."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.empty(0)


def _coordinates(point: Float[np.ndarray, "2"]) -> str:
    return f"({point[0]:g}, {point[1]:g})"
