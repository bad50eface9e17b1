"""The 2D view of each frame: one, or several real ones for networks that fuse them.

A frame is seen by exactly one camera, fixed by `view_seed`, the category's name and the
frame's row in the archive, whatever the training seed and however many epochs: a second
view of a frame would be 3D supervision by the back door.

Made views: the frame is centred on its points, turned into the camera frame and
projected; a point missing in 3D is missing in everything. Real views: 2D as it is in
the archive, visibility says what was observed, and 3D is turned by the scaled
orthographic camera that best fits its 2D. Units are those of the source throughout.

Several views are rows side by side, [f * v, n 2]: those of a frame follow one another.
"""

import difflib
import zlib
from functools import partial

import jax
import numpy as np
from jaxtyping import Float

from lfm_jax.data.archive import Category
from lfm_jax.errors import LfmError
from lfm_jax.geometry import cameras
from lfm_jax.geometry.pose import fit_pose
from lfm_jax.types import Labelled, Observation

_fit_poses = jax.jit(jax.vmap(fit_pose))

FAMILIES = ("orthographic", "static", "orbit", "upright", "perspective", "real")
BY_CLIP = ("static", "orbit")  # of which a clip is a film
MIN_VISIBLE = 4
STRETCH = 10  # frames for which a point stays occluded


def check_family(camera: str) -> None:
    """Raises LfmError if there is no such family of cameras."""
    if camera not in FAMILIES:
        near = difflib.get_close_matches(camera, FAMILIES, n=1, cutoff=0.0)[0]
        raise LfmError(
            f"unknown data.camera {camera!r}: did you mean {near!r}? There are "
            f"{', '.join(FAMILIES)}."
        )


def check_clip(camera: str, clip: int) -> None:
    """Raises LfmError if a family does not make films, of which `clip` frames are."""
    if clip > 1 and camera not in BY_CLIP:
        raise LfmError(
            f"data.camera is {camera!r}, which jumps from frame to frame, and "
            f"train.clip is {clip}; choose {' or '.join(BY_CLIP)}, or 1."
        )


def unseen(category: Category, camera: str, count: int = 1) -> str:
    """Why so many cameras of a family cannot see a category; empty if they can."""
    real = _real_views(category)
    if camera == "real" and real is None:
        return "no 2D of a real camera"
    if count > 1 and len(real[0]) < count:
        return f"{len(real[0])} real cameras, {count} wanted"
    if camera == "upright" and category.points3d is not None and category.up is None:
        return "no up direction"
    return ""


def one_view(
    category: Category,
    category_id: int,
    camera: str,
    view_seed: int,
    occlusion: float = 0.0,
) -> Labelled | Observation:
    """What one camera sees of each frame; a Labelled where the archive has 3D.

    Args:
        category: the archive; archives without 3D are always seen by `real`.
        category_id: written to the observation.
        camera: family of the cameras; one for which `unseen` is empty.
        view_seed: seed of the cameras.
        occlusion: share of the points that have no 2D, each for stretches of a clip.
    """
    points2d, visible, *truth = _on_cpu(_see, category, camera, view_seed)
    if occlusion:
        visible = visible & ~_occluded(category, view_seed, occlusion)
    return _record(category_id, points2d, visible, *truth)


def several_views(
    category: Category, category_id: int, count: int
) -> Labelled | Observation:
    """What the first `count` real cameras see, a row for each view of each frame.

    A view with too few points to be lifted is one in which nothing is seen.
    """
    return _record(category_id, *_on_cpu(_see_several, category, count))


def _on_cpu(function, *inputs):
    # The same cameras to the last bit whatever accelerator there is.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return function(*inputs)


def _record(category_id, points2d, visible, points3d, present):
    chosen = np.full(len(points2d), category_id, np.int32)
    observation = Observation(_keep(points2d, visible), visible, visible, chosen)
    if points3d is None:
        return observation
    return Labelled(observation, _keep(points3d, present), present)


def _see(category, camera, view_seed):
    """2D and what is visible, 3D in the camera frame and what is present, or None."""
    key = cameras.category_key(view_seed, category.name)
    if category.points3d is None:
        return *_choose(category, key), None, None
    present = np.isfinite(category.points3d).all(axis=-1)
    centred = _centred(category.points3d, present)
    if camera == "real":
        points2d, visible = _choose(category, key)
        points3d = _turn(centred, _fit(centred, present, points2d, visible))
        return points2d, visible, points3d, present
    points2d, points3d = _project(category, key, camera, centred, present)
    return points2d, present, points3d, present


def _occluded(category, view_seed, share):
    """Which points something hides, [f n]; the same whatever else is seen."""
    stretch = np.cumsum(_frame_in_clip(category.sequence) % STRETCH == 0) - 1
    random = np.random.default_rng([view_seed, zlib.crc32(category.name.encode())])
    draws = random.random((stretch[-1] + 1, len(category.keypoints)))
    return draws[stretch] < share


def _keep(points, mask):
    return np.where(mask[..., None], points, 0).astype(np.float32)


def _centred(points3d, present):
    """Each frame about the mean of its points, missing ones at the origin.

    In float64: world coordinates may be far from the origin.
    """
    points = np.where(present[..., None], points3d, 0).astype(np.float64)
    mean = points.sum(axis=1) / np.maximum(present.sum(axis=1), 1)[:, None]
    return np.where(present[..., None], points - mean[:, None], 0)


def _turn(points3d, rotation):
    return np.einsum("fij,fnj->fni", np.asarray(rotation, np.float64), points3d)


# ----------------------------------------------------------------------- made views


def _project(category, key, camera, centred, present):
    """2D and 3D in the camera frame, under a made camera."""
    row = np.arange(len(centred), dtype=np.int32)
    if camera == "perspective":
        rotation, distance = _blocked(partial(cameras.perspective, key), row)
        distance = distance * _extent(centred, present)
        points3d = _turn(centred, rotation)
        points3d[..., 2] += distance[:, None]
        return cameras.project_perspective(points3d, distance), points3d
    clip, frame = category.sequence, _frame_in_clip(category.sequence)
    family, index = {
        "orthographic": (cameras.orthographic, (row,)),
        "upright": (partial(cameras.upright, up=category.up), (row,)),
        "static": (cameras.static, (clip,)),
        "orbit": (cameras.orbit, (clip, frame)),
    }[camera]
    rotation = _blocked(partial(family, key), *index)
    points3d = _turn(centred, rotation)
    return cameras.project_orthographic(points3d), points3d


def _blocked(function, *arrays, block=2048):
    """Calls a function of frames in blocks of one size, to compile it only once."""
    frames = len(arrays[0])
    parts = []
    for start in range(0, frames, block):
        part = [_padded(array[start : start + block], block, 0) for array in arrays]
        parts.append(jax.tree.map(np.asarray, function(*part)))
    return jax.tree.map(lambda *p: np.concatenate(p)[:frames], *parts)


def _padded(array, size, axis):
    width = [(0, 0)] * array.ndim
    width[axis] = (0, size - array.shape[axis])
    return np.pad(array, width)


def _frame_in_clip(sequence):
    starts = np.flatnonzero(np.diff(sequence, prepend=sequence[0] - 1))
    length = np.diff(starts, append=len(sequence))
    return (np.arange(len(sequence)) - np.repeat(starts, length)).astype(np.int32)


def _extent(centred, present) -> Float[np.ndarray, "f"]:
    """The largest distance between two points of each frame; 1 if there is none."""
    largest = np.zeros(len(centred))
    for shift in range(1, centred.shape[1] // 2 + 1):
        both = present & np.roll(present, shift, axis=1)
        apart = np.linalg.norm(centred - np.roll(centred, shift, axis=1), axis=-1)
        largest = np.maximum(largest, np.where(both, apart, 0).max(axis=1))
    return np.where(largest > 0, largest, 1)


# ----------------------------------------------------------------------- real views


def _real_views(category):
    """2D [v f n 2] and what is visible [v f n]; detections before projections."""
    for points2d, visible in (
        (category.points2d_views, category.visibility_views),
        (category.points2d, category.visibility),
        (category.projected2d_views, category.visibility_views),
        (category.projected2d, category.visibility),
    ):
        if points2d is not None:
            known = np.isfinite(points2d).all(axis=-1)
            visible = known if visible is None else known & visible
            if points2d.ndim == 3:
                points2d, visible = points2d[None], visible[None]
            return points2d, visible
    return None


def _see_several(category, count):
    """As `_see`, of the first real cameras."""
    points2d, visible = (
        np.swapaxes(array[:count], 0, 1).reshape(-1, *array.shape[2:])
        for array in _real_views(category)
    )
    visible = visible & (visible.sum(axis=1, keepdims=True) >= MIN_VISIBLE)
    if category.points3d is None:
        return points2d, visible, None, None
    truth = np.repeat(category.points3d, count, axis=0)
    present = np.isfinite(truth).all(axis=-1)
    centred = _centred(truth, present)
    points3d = _turn(centred, _fit(centred, present, points2d, visible))
    return points2d, visible, points3d, present


def _choose(category, key):
    """One real view per frame: the preferred one of those that see enough points."""
    points2d, visible = _real_views(category)
    row = np.arange(points2d.shape[1], dtype=np.int32)
    preference = np.asarray(cameras.real(key, row, len(points2d)))
    preference = preference + (visible.sum(axis=-1) >= MIN_VISIBLE).T
    view = preference.argmax(axis=1)
    return points2d[view, row], visible[view, row]


def _fit(centred, present, points2d, visible):
    """Rotations of the real cameras, from 3D and 2D together; for evaluation only."""
    arrays = centred.astype(np.float32), _keep(points2d, visible), present & visible
    keypoints = 64 * -(-centred.shape[1] // 64)  # few sizes to compile for
    padded = [_padded(array, keypoints, 1) for array in arrays]
    return _blocked(_fit_poses, *padded).rotation
