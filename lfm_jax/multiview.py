"""From 2D tracks of several cameras that nobody calibrated to 3D, cameras and outliers.

    tracks [f v n 2] -> an archive -> a run of the one loop (MV-NRSfM) -> MultiView

The run is transductive: it learns from the very frames that it reconstructs, from their
2D alone. f frames, v views, n keypoints; cameras are scaled orthographic,
x = scale * (rotation @ X)[:2] + translation.
"""

import dataclasses
import pathlib
import tempfile

import numpy as np
from jaxtyping import Float

from lfm_jax.config import Config, from_config_dict, parse_arg
from lfm_jax.data.archive import Category, write_category
from lfm_jax.data.views import MIN_VISIBLE
from lfm_jax.errors import LfmError
from lfm_jax.types import Observation, Prediction, Skeleton
from lfm_jax.workdir import writing

METHOD = {
    "data.camera": "real",
    "model.name": "mv_nrsfm",
    "model.bases": "",
    "model.width": 256,
    "model.layers": 2,
    "model.code": 64,
    "objective.name": "mv_nrsfm",
    "optim.learning_rate": 3e-3,
    "train.steps": 3000,
    "train.per_category": 32,
    "train.validate_every": 500,
    "train.checkpoint_every": 1000,
    "train.log_every": 250,
}
SUSPECT = 6.0  # an outlier score
POINTS_PER_SUSPECT = 4  # of so many points of a view, at most one is left out


@dataclasses.dataclass(frozen=True)
class MultiView:
    """A body in f frames and the v cameras that see it; x = s (R X)[:2] + t.

    The world's frame, its unit and its mirror image are open: 2D does not tell them,
    and the unit differs from frame to frame.

    Attributes:
        points3d: centred, complete; NaN in frames in which no view sees enough points.
        rotations: world to camera, in SO(3); NaN, as the rest, where there is no view.
        scales: of the images.
        translations: where the image of the world's origin is, in units of the tracks.
        outlier: of every point that is seen, how far it lies from the reprojection:
            0 is usual for its keypoint and 1 a standard deviation more, as told by
            median and MAD over all frames and views. NaN where nothing is seen.
    """

    points3d: Float[np.ndarray, "f n 3"]
    rotations: Float[np.ndarray, "f v 3 3"]
    scales: Float[np.ndarray, "f v"]
    translations: Float[np.ndarray, "f v 2"]
    outlier: Float[np.ndarray, "f v n"]


def default_config() -> Config:
    """How `reconstruct` learns, which its caller may change; `METHOD`."""
    return from_config_dict(parse_arg(None, {}, METHOD))


def reconstruct(
    tracks2d: Float[np.ndarray, "f v n 2"],
    skeleton: Skeleton,
    *,
    config: Config | None = None,
    workdir: str | pathlib.Path | None = None,
) -> MultiView:
    """Learns to reconstruct these frames, and does.

    Args:
        tracks2d: image points in any units; NaN for a point that is not seen.
        skeleton: its name and keypoints.
        config: how to learn, and the seed; `default_config()` if None. Which data is
            for this function to say.
        workdir: where the run is kept, so that the same call goes on or is done at
            once; by default nothing is kept.

    Raises:
        LfmError: too few frames, fewer than two views, keypoints that do not fit, or as
            `train.loop.train_and_evaluate`.
    """
    from lfm_jax.train.loop import train_and_evaluate

    _check(tracks2d, skeleton)
    views = tracks2d.shape[1]
    with tempfile.TemporaryDirectory() as passing:
        folder = pathlib.Path(workdir or passing)
        place = folder / "keypoints" / f"{skeleton.name}.npz"
        with writing(folder):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_category(place, _archive(tracks2d, skeleton))
        config = config or default_config()
        data = dataclasses.replace(
            config.data, dir=str(place.parent), views=views, transductive=True
        )
        run = dataclasses.replace(config, data=data)
        results = train_and_evaluate(run, str(folder))
    return read_out(results.predict, tracks2d)


def read_out(predict, tracks2d: Float[np.ndarray, "f v n 2"]) -> MultiView:
    """What a trained model says of tracks, asked again without the points it suspects.

    Each time every view loses the point with the highest score above `SUSPECT`.

    Args:
        predict: lifts all views of all frames, those of a frame side by side.
        tracks2d: NaN for a point that is not seen.
    """
    seen = np.isfinite(tracks2d).all(axis=-1)
    sees = seen.sum(axis=2) >= MIN_VISIBLE
    trusted = seen = seen & sees[..., None]
    for _ in range(1 + seen.shape[2] // POINTS_PER_SUSPECT):
        found = predict(_observation(tracks2d, trusted))
        outlier = outlier_scores(_distances(found, tracks2d, seen))
        # a wild point moves the camera, and with it all the view's other points
        worst = np.max(outlier, axis=2, keepdims=True, initial=SUSPECT, where=trusted)
        suspect = trusted & (outlier >= worst)
        trusted = trusted & ~suspect
        if not suspect.any():
            break
    shape = found.canonical.reshape(*tracks2d.shape[:3], 3)[:, 0]
    pose = found.pose
    blank = lambda values: np.where(
        sees.reshape(sees.shape + (1,) * (values.ndim - 1)),
        values.reshape(*sees.shape, *values.shape[1:]),
        np.nan,
    )
    return MultiView(
        points3d=np.where(sees.any(axis=1)[:, None, None], shape, np.nan),
        rotations=blank(pose.rotation),
        scales=blank(pose.scale),
        translations=blank(pose.translation),
        outlier=outlier,
    )


def outlier_scores(
    distances: Float[np.ndarray, "f v n"],
) -> Float[np.ndarray, "f v n"]:
    """How many robust standard deviations distances lie above the usual one.

    A keypoint's usual distance is the median over frames and views, and its standard
    deviation 1.4826 times the median absolute deviation. Free of units; unlike a score
    between the least and the largest, one wild point leaves the others where they are.

    Args:
        distances: from the reprojection, not negative; NaN where nothing is seen.
    """
    seen = np.isfinite(distances)
    rows = np.where(seen, distances, np.nan).reshape(-1, distances.shape[2])
    known = np.flatnonzero(np.isfinite(rows).any(axis=0))
    usual, spread = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    usual[known] = np.nanmedian(rows[:, known], axis=0)
    away = np.abs(rows[:, known] - usual[known])
    spread[known] = 1.4826 * np.nanmedian(away, axis=0)
    # a keypoint that is always hit has no spread: any miss is then far out
    least = 1e-6 * np.nanmedian(rows[:, known]) + np.finfo(np.float32).tiny
    return (distances - usual) / np.maximum(spread, least)


def _check(tracks2d, skeleton):
    if tracks2d.ndim != 4 or tracks2d.shape[3] != 2 or tracks2d.shape[1] < 2:
        raise LfmError(
            f"The tracks have shape {list(tracks2d.shape)} where [frames, 2 or more "
            "views, keypoints, 2] is needed."
        )
    if tracks2d.shape[2] != len(skeleton.keypoints):
        raise LfmError(
            f"The tracks have {tracks2d.shape[2]} keypoints and {skeleton.name} has "
            f"{len(skeleton.keypoints)}: give a name to each."
        )


def _archive(tracks2d, skeleton) -> Category:
    """Every frame as a clip of its own: nothing is said of time."""
    points2d = np.swapaxes(tracks2d, 0, 1).astype(np.float32)
    return Category(
        name=skeleton.name,
        keypoints=skeleton.keypoints,
        edges=np.array(skeleton.edges, np.int32).reshape(-1, 2),
        units=skeleton.units,
        sequence=np.arange(len(tracks2d), dtype=np.int32),
        points2d_views=points2d,
    )


def _observation(tracks2d, mask) -> Observation:
    """All views as rows."""
    rows = lambda values: values.reshape(-1, *values.shape[2:])
    points = np.where(mask[..., None], tracks2d, 0.0).astype(np.float32)
    category = np.zeros(mask[..., 0].size, np.int32)
    return Observation(rows(points), rows(mask), rows(mask), category)


def _distances(found: Prediction, tracks2d, seen) -> Float[np.ndarray, "f v n"]:
    """From image points to the reprojection, in RMS radii of the latter."""
    image = found.posed[..., :2].reshape(tracks2d.shape)
    middle = image - image.mean(axis=2, keepdims=True)
    radius = np.sqrt(np.mean(np.sum(middle**2, axis=3), axis=2))[..., None]
    away = np.linalg.norm(image - np.where(seen[..., None], tracks2d, np.nan), axis=3)
    return away / np.where(radius > 0.0, radius, 1.0)
