"""The page of `lfm view`: lifted keypoints to look at, in one file.

It needs no network: frames are quantised numbers, and two canvases draw them (view.html
and pane.js in this folder). Nothing from the data reaches it as markup: text is
escaped, and JSON is written without "<".
"""

import base64
import html
import importlib.resources
import json
import math
import os
import pathlib
import string
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from lfm_jax import workdir
from lfm_jax.errors import LfmError
from lfm_jax.serve import Lifted
from lfm_jax.viz.report import UPRIGHT

REACH = 8.0  # Half-widths of a pane; what lies further out is drawn there.
STEP = REACH / 32767  # Of 16 bits: well below a pixel.
VARIED = 3.0  # Larger ratios are not one thing that moves, but photographs.
RAMP = ((242, 84, 91), (247, 190, 74), (72, 209, 190))  # Confidence 0, 0.5 and 1.
GREY = (135, 147, 161)  # Where it is not known.
UNKNOWN = 127  # For a confidence; else it is in percent.


def check_alike(lifted: Sequence[Lifted], titles: Sequence[str]) -> None:
    """Raises `LfmError` where files cannot be compared, keypoint by keypoint."""
    for one, title in zip(lifted, titles, strict=True):
        if one.names != lifted[0].names:
            lacking = sorted(set(one.names) ^ set(lifted[0].names))
            how = f"in {', '.join(lacking[:3])}" if lacking else "in their order"
            raise LfmError(
                f"{titles[0]} and {title} differ {how}: only files with the same "
                "keypoints can be shown together."
            )


def write_page(
    path: str | os.PathLike, lifted: Sequence[Lifted], titles: Sequence[str]
) -> None:
    """Writes the page, all of it or nothing.

    Args:
        path: where to.
        lifted: individuals, or the same one lifted in several ways; two are compared
            from the beginning.
        titles: what each is called.

    Raises:
        LfmError: their keypoints differ, or the file cannot be written.
    """
    check_alike(lifted, titles)
    assets = importlib.resources.files("lfm_jax.viz")
    read = lambda name: assets.joinpath(name).read_text(encoding="utf-8")
    data = {
        "keypoints": lifted[0].names,
        "edges": lifted[0].edges.tolist(),
        "step": STEP,
        "ramp": RAMP,
        "grey": GREY,
        "files": [page_file(*each) for each in zip(lifted, titles, strict=True)],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    page = string.Template(read("view.html")).substitute(
        title=html.escape(" and ".join(titles[:2]) + " …" * (len(titles) > 2)),
        pane=read("pane.js"),
        data=text.replace("<", "\\u003c"),
    )
    with workdir.saving(pathlib.Path(path)) as beside:
        beside.write_text(page, encoding="utf-8")


def page_file(lifted: Lifted, title: str) -> dict:
    """One file as the page takes it: JSON with arrays in base64, little endian.

    points2d [f n 2] and points3d [f n 3] are multiples of STEP, 1 being half of what a
    pane shows, in a frame with y up and z towards the reader. trust [f n] is the
    confidence in percent, or UNKNOWN; 128 more where the point was given.
    """
    centre, half = _window(lifted.points2d, lifted.visible)
    flat = UPRIGHT[:2] * (lifted.points2d - centre) / half
    middle = lifted.points3d.mean(axis=1, keepdims=True)
    shape = UPRIGHT * (lifted.points3d - middle)
    reach = np.linalg.norm(shape, axis=-1).max(axis=1)
    return {
        "title": title,
        "individual": lifted.individual,
        "category": lifted.category,
        "depth_sign": lifted.depth_sign,
        "units": lifted.units,
        "smoothing": lifted.smoothing,
        "fps": lifted.fps if 0 < lifted.fps < math.inf else None,
        "frames": lifted.frames.tolist(),
        "labels": lifted.labels,
        "reprojection": [round(float(e), 2) for e in lifted.reprojection],
        "unusual": np.flatnonzero(lifted.unusual).tolist(),
        "points2d": _base64(_quantised(flat)),
        "points3d": _base64(_quantised(shape / _steady(reach)[:, None, None])),
        "trust": _base64(_trust(lifted)),
    }


def _window(
    points2d: Float[np.ndarray, "f n 2"], visible: Bool[np.ndarray, "f n"]
) -> tuple[Float[np.ndarray, "f 1 2"], Float[np.ndarray, "f 1 1"]]:
    """Middle and half width of what the 2D pane shows in each frame.

    The same for all frames where the object moves a few times its size, so that it is
    seen to move; else the pane follows it. Single wild points move no window.
    """
    points = np.where(visible[..., None], points2d.astype(np.float64), np.nan)
    points[~visible.any(axis=1)] = 0.0  # Nothing is shown there, wherever that is.
    low, high = np.nanmin(points, axis=1), np.nanmax(points, axis=1)
    half = (high - low).max(axis=-1) / 2
    usual = np.median(half)
    inner, outer = np.percentile(low, 1, axis=0), np.percentile(high, 99, axis=0)
    if 0 < (outer - inner).max() / 2 <= VARIED * usual:
        centre = np.broadcast_to((inner + outer) / 2, low.shape)
        half = np.full_like(half, (outer - inner).max() / 2)
    else:
        centre, half = (low + high) / 2, _steady(half)
    return centre[:, None], half[:, None, None]


def _steady(sizes: Float[np.ndarray, "f"]) -> Float[np.ndarray, "f"]:
    """One size for all frames where they vary little, so that a change is seen."""
    least, most = np.percentile(sizes, (2, 98))
    if 0 < most <= VARIED * least:
        return np.full(len(sizes), most)
    return np.where(sizes > 0, sizes, 1.0)


def _quantised(points: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    return (np.clip(points, -REACH, REACH) / STEP).round().astype("<i2")


def _trust(lifted: Lifted) -> UInt8[np.ndarray, "f n"]:
    percent = (100 * np.clip(lifted.confidence, 0.0, 1.0)).round()
    percent = np.where(np.isfinite(percent), percent, UNKNOWN)
    return (percent + 128 * lifted.visible).astype(np.uint8)


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
