"""report.html: what a run learned, in one file that needs no network.

The page holds the frames as JSON, of which two canvases show the chosen one
(report.html and pane.js in this folder), and plotly.js once, for the curves. Nothing
from the data reaches the page as markup: text is escaped, and JSON is written without
"<".

Coordinates are drawn in units of the shape's RMS radius, in the camera frame: x and y
of the image, depth towards the viewer.
"""

import dataclasses
import html
import importlib.resources
import json
import math
import os
import pathlib
import string
from collections.abc import Callable, Sequence

import jax
import numpy as np
import plotly.offline
from jaxtyping import Bool, Float

from lfm_jax import metrics, workdir
from lfm_jax.data.dataset import EvaluationData
from lfm_jax.metrics_io import read_metrics
from lfm_jax.train.loop import Results
from lfm_jax.train.table import COLUMNS, cell
from lfm_jax.types import Labelled, Observation, Prediction, Skeleton

# a camera looks along z with y down; a plot has y up and z towards the reader
UPRIGHT = np.array([1.0, -1.0, -1.0])
CURVE_POINTS = 600

FROM_2D = """
<p>The model was trained on 2D keypoints alone. Each training frame was seen from one
camera only; no 3D entered the training or decided when to stop. From the 2D points of a
single frame it says where every keypoint lies in 3D. 2D cannot tell a shape from its
mirror image in depth: one sign per category was chosen on validation frames where their
3D is known, and is undetermined elsewhere.</p>
"""
FROM_3D = """
<p>The model was trained on <b>3D labels</b>: what 2D alone is measured against.</p>
"""
STATEMENT = """
<p>Errors are the mean distance to the true points after the best similarity alignment,
in percent of the shape's RMS radius: 0 is perfect, and drawing the 2D input flat on
paper (<b>flat</b>) shows what no depth at all costs. <b>rigid</b> is the one shape per
category that explains the 2D best: only below it has a model learned that things
deform. <b>start</b> is what training began with, factorized from the same 2D.
<b>mean shape*</b> is the mean of the true training shapes; it uses 3D labels.
<i>lifted</i> keeps the observed 2D and takes the depth from the
model; <i>canonical</i> is the model's shape itself.</p>
"""


@dataclasses.dataclass(frozen=True)
class ReportFrame:
    """One test frame as the page shows it.

    Attributes:
        category: its name.
        rank: "best", "median" or "worst" of the category.
        frame: its row among the test frames.
        error: percent; of the shape's radius, or of the 2D radius without 3D truth.
        points2d, observed: the input.
        lifted: the prediction in the camera frame.
        true, evaluated: the truth there; None without 3D truth.
    """

    category: str
    rank: str
    frame: int
    error: float
    points2d: Float[np.ndarray, "n 2"]
    observed: Bool[np.ndarray, "n"]
    lifted: Float[np.ndarray, "n 3"]
    true: Float[np.ndarray, "n 3"] | None = None
    evaluated: Bool[np.ndarray, "n"] | None = None


def collect_frames(
    predict: Callable[[Observation], Prediction],
    evaluation: EvaluationData,
    skeletons: Sequence[Skeleton],
    errors: Sequence[Float[np.ndarray, "f"]],
) -> list[ReportFrame]:
    """The best, median and worst test frame of every category.

    Args:
        predict: as for `evaluate`.
        evaluation: its test part is shown.
        skeletons: of the categories, in their order.
        errors: per category and test frame, as `frame_errors` gives them; NaN frames
            are not shown.
    """
    frames = []
    for skeleton, record, values in zip(
        skeletons, evaluation.test, errors, strict=True
    ):
        order = np.argsort(values)[: np.isfinite(values).sum()]
        if len(order):
            picked = {"best": 0, "median": len(order) // 2, "worst": -1}
            rows = np.array([order[place] for place in picked.values()])
            shown = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], record)
            frames += _frames(predict, skeleton, shown, list(picked), rows, values)
    return frames


def _frames(predict, skeleton, shown, ranks, rows, values) -> list[ReportFrame]:
    labelled = isinstance(shown, Labelled)
    seen = shown.observation if labelled else shown
    lifted = np.asarray(predict(seen).lifted)
    return [
        ReportFrame(
            category=skeleton.name,
            rank=rank,
            frame=int(rows[i]),
            error=float(values[rows[i]]),
            points2d=seen.points2d[i],
            observed=seen.observed[i],
            lifted=lifted[i],
            true=shown.points3d[i] if labelled else None,
            evaluated=shown.evaluated[i] if labelled else None,
        )
        for i, rank in enumerate(ranks)
    ]


def report_run(results: Results, folder: pathlib.Path) -> None:
    """Draws what a run came to into the report.html of its work directory."""
    data, skeletons = results.dataset.evaluation, results.dataset.training.skeletons
    write_report(
        folder / "report.html",
        eval_json=results.numbers,
        metrics=read_metrics(folder / "metrics.jsonl"),
        frames=collect_frames(results.predict, data, skeletons, results.errors),
        skeletons=skeletons,
    )
    print(f"report: {folder.resolve() / 'report.html'}")


def write_report(
    path: str | os.PathLike,
    *,
    eval_json: dict,
    metrics: Sequence[dict],
    frames: Sequence[ReportFrame],
    skeletons: Sequence[Skeleton],
) -> None:
    """Writes the page, all of it or nothing.

    Args:
        path: report.html.
        eval_json: what eval.json holds.
        metrics: the lines of metrics.jsonl.
        frames: from `collect_frames`.
        skeletons: of all categories in `frames`.

    Raises:
        LfmError: the file cannot be written.
    """
    path = pathlib.Path(path)
    with workdir.writing(path.parent):
        workdir.write_text(path, _page(eval_json, metrics, frames, skeletons))


def _page(eval_json, metrics_lines, frames, skeletons) -> str:
    assets = importlib.resources.files("lfm_jax.viz")
    read = lambda name: assets.joinpath(name).read_text(encoding="utf-8")
    data = {
        "skeletons": {
            s.name: {"keypoints": s.keypoints, "edges": s.edges} for s in skeletons
        },
        "categories": eval_json["categories"],
        "frames": report_frames(frames),
        "calibration": eval_json["calibration"],
        "curves": _curves(metrics_lines),
    }
    return string.Template(read("report.html")).substitute(
        pane=read("pane.js"),
        plotly=plotly.offline.get_plotlyjs(),
        subtitle=html.escape(_subtitle(eval_json)),
        statement=(FROM_3D if eval_json["supervised"] else FROM_2D) + STATEMENT,
        tiles=_tiles(eval_json["mean"]),
        table=_table(eval_json),
        skipped=_skipped(eval_json["skipped"]),
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace(
            "<", "\\u003c"
        ),
    )


# --------------------------------------------------------------------------- the data


def report_frames(frames: Sequence[ReportFrame]) -> list[dict]:
    """Frames as short JSON: three decimals of the RMS radius, null for no point.

    The prediction is aligned to the truth as the error's own alignment does it, and
    the truth stays in the camera frame.
    """
    return [
        _report_frame(frame, lifted)
        for frame, lifted in zip(frames, _aligned(frames), strict=True)
    ]


def _aligned(frames) -> list[np.ndarray]:
    """Each prediction moved onto its truth; one padded batch, so compiled once."""
    width = max((len(frame.observed) for frame in frames), default=0)
    shape = (len(frames), width)
    lifted = np.zeros((*shape, 3), np.float32)
    true, mask = np.zeros_like(lifted), np.zeros(shape, bool)
    for i, frame in enumerate(frames):
        lifted[i, : len(frame.lifted)] = frame.lifted
        if frame.true is not None:
            true[i, : len(frame.true)] = frame.true
            mask[i, : len(frame.evaluated)] = frame.evaluated
    moved = np.asarray(jax.jit(metrics.align)(lifted, true, mask))
    return [
        frame.lifted if frame.true is None else moved[i, : len(frame.lifted)]
        for i, frame in enumerate(frames)
    ]


def _report_frame(frame: ReportFrame, lifted: np.ndarray) -> dict:
    everywhere, truth = np.ones(frame.observed.shape, bool), None
    if frame.true is None:
        origin, radius = _size(lifted, everywhere)
    else:
        origin, radius = _size(frame.true, frame.evaluated)
        truth = _rounded(UPRIGHT * (frame.true - origin) / radius, frame.evaluated)
    centre, extent = _size(frame.points2d, frame.observed)
    return {
        "category": frame.category,
        "rank": frame.rank,
        "frame": frame.frame,
        "error": round(frame.error, 2),
        "input": _rounded(
            UPRIGHT[:2] * (frame.points2d - centre) / extent, frame.observed
        ),
        "lifted": _rounded(UPRIGHT * (lifted - origin) / radius, everywhere),
        "truth": truth,
    }


def _size(points: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Centroid and RMS radius of the points under the mask."""
    centre = points[mask].mean(axis=0)
    radius = np.sqrt(np.square(points[mask] - centre).sum(axis=-1).mean())
    return centre, float(radius) or 1.0


def _rounded(points, mask) -> list:
    values = np.asarray(points, np.float64).round(3).tolist()
    return [p if known else None for p, known in zip(values, mask, strict=True)]


def _curves(lines: Sequence[dict]) -> dict:
    """Every loss by step, thinned; a loss that is not positive has no logarithm."""
    curves = {}
    for line in lines:
        for name, value in line.items():
            if "loss" in name and value is not None and 0.0 < value < math.inf:
                curve = curves.setdefault(name, {"x": [], "y": []})
                curve["x"].append(line["step"])
                curve["y"].append(float(f"{value:.4g}"))
    for curve in curves.values():
        stride = -(-len(curve["x"]) // CURVE_POINTS)
        curve["x"], curve["y"] = curve["x"][::stride], curve["y"][::stride]
    return curves


# ------------------------------------------------------------------------- the markup


def _subtitle(eval_json: dict) -> str:
    count = eval_json["trained_categories"]
    return (
        f"step {eval_json['step']} · seed {eval_json['seed']} · {count} "
        f"{'category' if count == 1 else 'categories'} · {eval_json['split']} frames"
    )


def _tiles(mean: dict) -> str:
    tiles = (
        ("ours, lifted", "ne_lifted", "tile ours"),
        ("mean shape*", "ne_mean_shape_lifted", "tile"),
        ("start", "ne_start_lifted", "tile"),
        ("rigid", "ne_rigid_lifted", "tile"),
        ("flat", "ne_flat", "tile"),
    )
    return "".join(
        f'<div class="{style}"><b>{mean[key]:.1f} %</b><span>{title}</span></div>'
        for title, key, style in tiles
        if key in mean
    )


# where a group of columns begins, and the yardsticks that a column of ours should beat
GROUPS = {
    "ne_flat": ("lifted, %", 5),
    "ne_rigid": ("canonical, %", 4),
    "shape_variance_ratio": ("", 4),
}
YARDSTICKS = {
    "ne_lifted": ("ne_rigid_lifted", "ne_mean_shape_lifted"),
    "ne_canonical": ("ne_rigid", "ne_mean_shape"),
}


def _table(eval_json: dict) -> str:
    rows = [
        f'<tr data-category="{html.escape(name)}">'
        f"<td>{html.escape(name)}</td><td>{entry['keypoints']}</td>"
        f"<td>{entry['test_frames']}</td>{_cells(entry)}</tr>"
        for name, entry in eval_json["categories"].items()
    ]
    mean = dict(eval_json["mean"])
    mean["shape_variance_ratio"] = mean.get("shape_variance_ratio_median")
    groups = "".join(
        f'<th class="group" colspan="{span}">{title}</th>'
        for title, span in GROUPS.values()
    )
    heads = "".join(
        f'<th class="{_style(key, {})}">{title}</th>' for title, _, key in COLUMNS
    )
    return (
        '<div class="scroll"><table>'
        f'<thead><tr><th></th><th colspan="2"></th>{groups}</tr>'
        f"<tr><th>category</th><th>points</th><th>frames</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody>"
        f"<tfoot><tr><td>mean</td><td></td><td></td>{_cells(mean)}</tr></tfoot>"
        "</table></div>"
        '<p class="soft">* uses 3D labels. <span class="beats">Green</span>: better '
        'than rigid and mean*; <span class="near">pale</span>: better than rigid only. '
        "var: variance of the predicted over that of the true shapes (mean: median). "
        "near*: error of the nearest training shape; near zero, test resembles "
        "training. 2D: reprojection error in percent. Click a row to see its "
        "shapes.</p>"
    )


def _cells(entry: dict) -> str:
    if entry.get("units") != "mm":
        entry = entry | {"pa_mpjpe_lifted": None}
    return "".join(
        f'<td class="{_style(key, entry)}">{cell(key, entry.get(key))}</td>'
        for _, _, key in COLUMNS
    )


def _style(key: str, entry: dict) -> str:
    styles = ["group"] if key in GROUPS else []
    if key in YARDSTICKS:
        styles.append("mine")
        if key in entry:
            rigid, mean = (entry[k] > entry[key] for k in YARDSTICKS[key])
            styles += ["beats"] if rigid and mean else ["near"] if rigid else []
    return " ".join(styles)


def _skipped(skipped: dict[str, str]) -> str:
    if not skipped:
        return ""
    items = "".join(
        f"<li>{html.escape(name)}: {html.escape(why)}</li>"
        for name, why in skipped.items()
    )
    return f"<section><h2>Skipped categories</h2><ul>{items}</ul></section>"
