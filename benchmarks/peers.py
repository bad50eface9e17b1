"""All methods on one set of data, from the runs of a sweep.

    python launch/sweep.py configs/sweeps/peers.py --out=runs/peers/zoo
    python benchmarks/peers.py runs/peers/zoo [FOLDER ...] [--limit=SECONDS]

One table for each folder of runs of the same data. Errors are `ne` on the test split:
`lifted` in the camera (observed xy kept, no rotation of the prediction but that of the
alignment that ends every `ne`), `canonical` of the shape as the network gives it. Each
has its own yardsticks. Seeds of a method are averaged, with the smallest and largest
mean in brackets. Depth has one sign per category, chosen on validation; "by frame" is
lifted in the better sign of every frame. Minutes are those of the training steps and
of the start, on the machine of the run, without evaluation.

  *  uses 3D labels
  +  transductive: fitted to the very frames it is judged by, whose truth also chooses
     its depth sign, one a category. Classical methods have --limit seconds of a
     category; where they fail, or points are missing and may not, the category is left
     out: compare with "x rigid", lifted against rigid in the same categories.
  o  reads a depth map instead of learning: rendered from the true shape, so errors are
     those of the surface in front of a keypoint alone. Of the zoo only, whose bones
     become capsules.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import pathlib
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax import metrics, workdir
from lfm_jax.classical.backprojection import View, back_project
from lfm_jax.classical.bmm import bmm
from lfm_jax.classical.factorization import bregler, tomasi_kanade
from lfm_jax.data.dataset import open_dataset
from lfm_jax.errors import LfmError
from lfm_jax.metrics_io import read_metrics
from lfm_jax.rigs.surface import render_depth

NAMES = {
    "lfm2d": "2D-LFM",
    "lfm3d": "3D-LFM",
    "mlp": "perceptron, our loss",
    "c3dpo": "C3DPO",
    "deep_nrsfm": "Deep NRSfM",
    "paul": "PAUL",
}
HEAD = (
    *("method", "networks", "parameters", "minutes", "categories"),
    *("lifted", "median", "x rigid", "below rigid", "by frame"),
    *("canonical", "median"),
)
KEYS = ("ne_lifted", "ne_canonical", "ne_best_flip_lifted")
BASES = 4  # of Bregler and BMM, or as many as a third of the keypoints can tell
PIXELS, THICK = 128, (0.05, 0.15)  # of a depth map; radii of bones, in RMS radii


@dataclasses.dataclass
class Row:
    """A method; per run the errors of its categories, by `KEYS`."""

    name: str
    networks: str = ""
    parameters: int | None = None
    minutes: list[float] = dataclasses.field(default_factory=list)
    runs: list[dict[str, dict[str, float]]] = dataclasses.field(default_factory=list)

    def cells(self, rigid: dict[str, float]) -> list[str]:
        count = "" if self.parameters is None else f"{self.parameters:,}"
        minutes = spread(self.minutes) if self.minutes else ""
        lifted, canonical, flip = (
            [{c: e[key] for c, e in run.items() if key in e} for run in self.runs]
            for key in KEYS
        )
        categories = next((run for run in (*lifted, *canonical) if run), {})
        mean = {c: np.mean([run[c] for run in lifted]) for c in lifted[0]}
        same = [rigid[c] for c in mean if c in rigid]
        ratio = f"{sum(mean.values()) / sum(same):.2f}" if same else ""
        below = sum(mean[c] < rigid[c] for c in mean if c in rigid)
        return [
            *(self.name, self.networks, count, minutes, str(len(categories))),
            *summary(lifted),
            *((ratio, f"{below} of {len(same)}") if same else ("", "")),
            *summary(flip)[:1],
            *summary(canonical),
        ]


def spread(values: list[float]) -> str:
    """Mean (smallest to largest)."""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{np.mean(values):.1f}" + (f" ({low} to {high})" if low != high else "")


def summary(runs: list[dict[str, float]]) -> tuple[str, str]:
    """Mean over categories, with the spread of runs, and the median category."""
    if not runs or not runs[0]:
        return "", ""
    by_category = [np.mean([run[c] for run in runs]) for c in runs[0]]
    means = [float(np.mean(list(run.values()))) for run in runs]
    return spread(means), f"{np.median(by_category):.1f}"


# ------------------------------------------------------------------------------- runs


def minutes(run: pathlib.Path, has_start: bool) -> list[float]:
    """Of the steps, compilation included, and of the factorization begun with.

    Empty where it was made before its time was kept.
    """
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    before = [0, *(line["step"] for line in lines)]
    seconds = sum(
        (line["step"] - last) / line["steps_per_second"]
        for last, line in zip(before, lines, strict=False)
    )
    if has_start:
        with np.load(run / workdir.FACTORIZATION, allow_pickle=False) as arrays:
            if "seconds" not in arrays.files:
                return []
            seconds += float(arrays["seconds"].sum())
    return [seconds / 60.0]


def describe(config) -> tuple[str, str]:
    """The method of a run, and how many networks it has."""
    name = NAMES[config.model.name]
    if config.model.name == "lfm2d" and not config.model.bases:
        name += ", no start"
    if config.objective.supervised:
        name += ", with labels *" if config.model.name == "lfm2d" else " *"
    return name, "one each" if config.model.alone else "one"


def trained(runs: list[pathlib.Path]) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for run in runs:
        config = workdir.read_config(run / workdir.CONFIG)
        numbers = json.loads((run / "eval.json").read_text())
        row = rows.setdefault(key := describe(config), Row(*key))
        row.parameters = numbers.get("parameters")
        row.minutes.extend(minutes(run, bool(config.model.bases)))
        row.runs.append(numbers["categories"])
    return sorted(rows.values(), key=lambda row: "*" in row.name)


def yardsticks(numbers: dict) -> list[Row]:
    """Of the first run; all have the same but for the seed of rigid's search."""
    rows = []
    for name, key in (("flat", "flat"), ("rigid", "rigid"), ("mean *", "mean_shape")):
        found = {
            category: {
                ours: entry[theirs]
                for ours, theirs in (
                    ("ne_lifted", f"ne_{key}{'_lifted' if key != 'flat' else ''}"),
                    ("ne_canonical", f"ne_{key}" if key != "flat" else ""),
                )
                if theirs in entry
            }
            for category, entry in numbers["categories"].items()
        }
        rows.append(Row(name, runs=[found]))
    return rows


# -------------------------------------------------------------------------- classical


@contextlib.contextmanager
def limit(seconds: float):
    """Raises TimeoutError when they are over."""

    def over(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def all_seen(method):
    """A method of tracks without gaps."""

    def solve(points, observed):
        if not observed.all():
            raise LfmError("points are missing")
        return method(points, min(BASES, (points.shape[1] - 1) // 3))

    return solve


CLASSICAL = {
    "Tomasi-Kanade +": tomasi_kanade,
    "Bregler +": all_seen(bregler),
    "BMM +": all_seen(bmm),
}

ne = jax.jit(metrics.ne)


def classical(records: dict, seconds: float) -> list[Row]:
    rows = []
    for name, method in CLASSICAL.items():
        began, found = time.perf_counter(), {}
        for category, record in records.items():
            seen = record.observation
            points, observed = np.asarray(seen.points2d), np.asarray(seen.observed)
            with contextlib.suppress(LfmError, TimeoutError, np.linalg.LinAlgError):
                with limit(seconds):
                    world = method(points, observed)
                found[category] = score(world, points, observed, record)
        spent = (time.perf_counter() - began) / 60.0
        rows.append(Row(name, minutes=[spent], runs=[found]))
    return rows


def score(world, points, observed, record) -> dict[str, float]:
    """Of a Reconstruction, in the depth sign that is better in the mean."""
    posed = np.einsum("fij,fnj->fni", world.rotations, world.points3d)
    posed = posed * world.scales[:, None, None]
    xy = posed[..., :2] + world.translations[:, None]
    xy = np.where(observed[..., None], points, xy)
    lifted = np.concatenate([xy, posed[..., 2:]], axis=2)
    pair = lambda shape: [
        errors(mirror * shape, record) for mirror in ([1, 1, 1], [1, 1, -1])
    ]
    signs, shapes = pair(lifted), pair(world.points3d)
    best = int(np.argmin([sign.mean() for sign in signs]))
    return {
        "ne_lifted": float(signs[best].mean()),
        "ne_canonical": float(shapes[best].mean()),
        "ne_best_flip_lifted": float(np.minimum(*signs).mean()),
    }


def errors(shapes, record) -> np.ndarray:
    """ne of every frame that can be scored."""
    known = np.asarray(record.evaluated)
    shapes = jnp.asarray(shapes, jnp.float32)
    values = ne(shapes, jnp.asarray(record.points3d), jnp.asarray(known))
    return np.asarray(values)[metrics.scorable(known)]


# ------------------------------------------------------------------------ depth maps


@functools.partial(jax.jit, static_argnames="pixels")
def rendered(points3d, edges, radius, reach, pixels=PIXELS):
    line = jnp.linspace(-reach, reach, pixels)
    draw = lambda points: render_depth(points, edges, radius, line, line)
    return jax.lax.map(draw, points3d)


def from_depth(records: dict, skeletons: dict, thick: float) -> Row:
    """Back-projection of maps of the true bodies."""
    found = {}
    for category, record in records.items():
        true = np.asarray(record.points3d)
        radius = np.sqrt(np.mean(np.sum(true**2, axis=2)))
        far = 2.0 * np.abs(true).max()  # depth is positive in front of a camera
        edges = np.array(skeletons[category].edges).reshape(-1, 2)
        maps = rendered(true + [0.0, 0.0, far], edges, thick * radius, far / 1.5)
        size = (PIXELS - 1) / (2.0 * far / 1.5)
        view = View(size, 2 * ((PIXELS - 1) / 2.0,))
        pixels = np.asarray(record.observation.points2d, np.float64) * size
        seen = np.asarray(record.observation.observed)
        shapes = [
            back_project(depth, points, visible, view)[0]
            for depth, points, visible in zip(
                np.asarray(maps), pixels + view.centre[0], seen, strict=True
            )
        ]
        found[category] = {"ne_lifted": float(errors(shapes, record).mean())}
    return Row(f"depth map, bones of {thick:g} o", runs=[found])


# ------------------------------------------------------------------------------ tables


def tables(folder: pathlib.Path, seconds: float) -> str:
    runs = sorted(path.parent for path in folder.glob("*/eval.json"))
    if not runs:
        raise LfmError(f"{folder} holds no run that has come to its end; train first.")
    config = workdir.read_config(runs[0] / workdir.CONFIG).data
    numbers = json.loads((runs[0] / "eval.json").read_text())
    rows = yardsticks(numbers) + trained(runs)
    dataset = open_dataset(config, str(runs[0]))
    skeletons = {one.name: one for one in dataset.training.skeletons}
    records = {
        name: record
        for name, record in zip(skeletons, dataset.evaluation.test, strict=True)
        if "ne_lifted" in numbers["categories"][name]
    }
    if seconds:
        rows += classical(records, seconds)
    if not config.dir:
        rows += [from_depth(records, skeletons, thick) for thick in THICK]
    rigid = {
        name: entry["ne_rigid_lifted"]
        for name, entry in numbers["categories"].items()
        if name in records
    }
    frames = collections.Counter(
        {name: len(record.points3d) for name, record in records.items()}
    )
    title = (
        f"\n{pathlib.Path(config.dir).name or 'zoo'}, {config.camera}: "
        f"{len(records)} categories, {frames.total()} test frames\n"
    )
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells(rigid) for row in rows)]
    return "\n".join([title, *(f"| {' | '.join(line)} |" for line in lines)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--limit", type=float, default=20.0, help="0 for none of them")
    given = parser.parse_args()
    for folder in given.folders:
        print(tables(folder, given.limit), flush=True)


if __name__ == "__main__":
    main()
