"""Projects and predictions of SLEAP (.slp), and its analysis files (.h5).

Read by sleap-io, which SLEAP's authors keep. Videos are not opened.
"""

import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from lfm_jax.data.readers.keypoints import Keypoints2D, keypoints2d, likely
from lfm_jax.errors import LfmError


def read(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    """The tracks of a SLEAP project or of its predictions."""
    return _individuals(
        path,
        threshold,
        lambda io: io.load_slp(str(path.resolve()), open_videos=False),
    )


def read_analysis(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    """The tracks of a SLEAP analysis file."""
    # Given a video, it does not look for the one that the file names.
    return _individuals(
        path,
        threshold,
        lambda io: io.load_analysis_h5(
            str(path.resolve()), video=io.Video("", open_backend=False)
        ),
    )


def _individuals(
    path: pathlib.Path, threshold: float, load: Callable
) -> list[Keypoints2D]:
    try:
        import sleap_io
    except ImportError as error:
        raise LfmError(
            f"{path} needs sleap-io to be read: pip install 'lfm_jax[sleap]'."
        ) from error
    try:
        with warnings.catch_warnings(action="ignore"):
            labels = load(sleap_io)
            skeletons = [skeleton.node_names for skeleton in labels.skeletons]
            found = _instances(labels)
    # Damage shows as any of a dozen kinds of exception, depending on where it is.
    except Exception as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise LfmError(
            f"{path} is damaged or no file of SLEAP ({reason}): export it again."
        ) from error
    if len(skeletons) != 1:
        raise LfmError(
            f"{path} holds {len(skeletons)} skeletons: keep one kind of object in a "
            "file."
        )
    if not found:
        raise LfmError(f"{path} has no frames: nobody is labelled or tracked in it.")
    return [
        _individual(path, name if len(found) > 1 else "", rows, skeletons[0], threshold)
        for name, rows in found.items()
    ]


def _instances(labels) -> dict[str, dict[int, np.ndarray]]:
    """For each individual its points [n 3] (x, y, likelihood) by frame.

    An individual is a track or, where there are no tracks, a place in its frame.
    """
    found = {}
    for frame in labels.labeled_frames:
        video = pathlib.PurePath(str(frame.video.filename)).stem
        for name, instance in _of_frame(frame).items():
            key = f"{video} {name}" if len(labels.videos) > 1 else name
            number = int(np.int64(frame.frame_idx))  # Damaged ones are too large.
            found.setdefault(key, {})[number] = _points(instance)
    return found


def _of_frame(frame) -> dict:
    """A frame's instances by name; what a person labelled replaces predictions."""
    chosen = {}
    untracked = frame.user_instances or frame.predicted_instances
    for place, instance in enumerate(i for i in untracked if i.track is None):
        chosen[f"{place}"] = instance
    for instance in (*frame.predicted_instances, *frame.user_instances):
        if instance.track is not None:
            chosen[instance.track.name] = instance
    return chosen


def _points(instance) -> np.ndarray:
    if "score" in instance.points.dtype.names:
        return instance.numpy(scores=True)
    points = instance.numpy()
    return np.column_stack((points, np.ones(len(points))))


def _individual(
    path: pathlib.Path,
    name: str,
    rows: dict[int, np.ndarray],
    keypoints: list[str],
    threshold: float,
) -> Keypoints2D:
    frames = sorted(rows)
    table = np.stack([rows[frame] for frame in frames])
    source = f"{path} ({name})" if name else str(path)
    points, scores = table[..., :2], table[..., 2]
    visible = likely(points, scores, threshold, source)
    return keypoints2d(
        points,
        visible,
        keypoints,
        source=source,
        frames=np.array(frames),
        individual=name,
        kind="SLEAP",
    )
