"""Lifted keypoints as a recording for rerun, in the camera's frame and their units."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from lfm_jax import workdir
from lfm_jax.errors import LfmError
from lfm_jax.serve import Lifted
from lfm_jax.viz.view import GREY, RAMP, check_alike


def write_recording(
    path: str | os.PathLike, lifted: Sequence[Lifted], titles: Sequence[str]
) -> None:
    """Writes an .rrd file: 2D and 3D points of every file, by number of the frame.

    Args:
        path: where to.
        lifted: of the same keypoints.
        titles: what each is called.

    Raises:
        LfmError: rerun-sdk is not installed, keypoints differ, or the file cannot be
            written.
    """
    path = pathlib.Path(path)
    check_alike(lifted, titles)
    try:
        import rerun
    except ImportError as error:
        raise LfmError(
            f"{path} needs rerun-sdk to be written: pip install 'lfm_jax[rerun]'."
        ) from error
    with workdir.saving(path) as beside:
        beside.touch()  # Where that fails, the exception is one of Python's.
        with rerun.RecordingStream("lfm_jax") as stream:
            stream.save(beside)
            stream.log("/", rerun.ViewCoordinates.RDF, static=True)
            stream.log("/", _skeleton(rerun, lifted[0]), static=True)
            for number, one in enumerate(lifted):
                _log(
                    rerun, stream, f"{number}_{pathlib.Path(titles[number]).stem}", one
                )


def _skeleton(rerun, lifted: Lifted):
    """Names and bones, which rerun then draws wherever there are keypoints."""
    return rerun.AnnotationContext(
        rerun.ClassDescription(
            info=rerun.AnnotationInfo(id=0, label=lifted.category),
            keypoint_annotations=[
                rerun.AnnotationInfo(id=i, label=name)
                for i, name in enumerate(lifted.names)
            ],
            keypoint_connections=lifted.edges.tolist(),
        )
    )


def _log(rerun, stream, place: str, lifted: Lifted) -> None:
    ids, colours = np.arange(len(lifted.names)), _colours(lifted.confidence)
    radius = rerun.Radius.ui_points(4.0)
    for row, number in enumerate(lifted.frames.tolist()):
        stream.set_time("frame", sequence=number)
        if lifted.fps > 0:
            stream.set_time("time", duration=number / lifted.fps)
        given = lifted.visible[row]
        look = {"radii": radius, "class_ids": 0, "show_labels": False}
        flat = rerun.Points2D(
            lifted.points2d[row, given],
            colors=colours[row, given],
            keypoint_ids=ids[given],
            **look,
        )
        shape = rerun.Points3D(
            lifted.points3d[row], colors=colours[row], keypoint_ids=ids, **look
        )
        stream.log(f"input/{place}", flat)
        stream.log(f"lifted/{place}", shape)


def _colours(confidence: Float[np.ndarray, "f n"]) -> UInt8[np.ndarray, "f n 3"]:
    known = np.isfinite(confidence)
    at = np.where(known, confidence, 0.0)
    shades = np.linspace(0.0, 1.0, len(RAMP))
    mixed = [np.interp(at, shades, channel) for channel in np.transpose(RAMP)]
    return np.where(known[..., None], np.stack(mixed, -1), GREY).astype(np.uint8)
