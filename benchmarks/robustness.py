"""A trained run on test frames with points hidden or moved, or under other cameras.

    python benchmarks/robustness.py runs/archive-0 runs/archive-1 runs/archive-2
    python benchmarks/robustness.py --cameras runs/archive-0 runs/archive-1 ...

Hidden: each observed point of a test frame with that probability, at least four kept.
Noise: Gaussian, of that many percent of the frame's RMS radius in each image
coordinate.

Cameras: the run keeps its weights, models and depth signs, and is shown the test frames
of every family (docs/data.md) that can see a category; `perspective` from so many times
the largest distance between two points of the frame, in the run's own views.

At most `FRAMES` test frames of a category, evenly spaced. The yardsticks get the very
same input. Errors are means over categories, in % of a shape's RMS radius, over all
points, hidden or not; with several runs the mean over runs, and for ours the smallest
and largest.
"""

import argparse
import dataclasses
import pathlib
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from lfm_jax.config import DataConfig, from_config_dict
from lfm_jax.data.dataset import Dataset, EvaluationData, TrainingData, open_dataset
from lfm_jax.errors import LfmError
from lfm_jax.geometry.cameras import project_perspective
from lfm_jax.serve import Lifter
from lfm_jax.train.evaluate import evaluate
from lfm_jax.train.start import read_factorized
from lfm_jax.types import Labelled
from lfm_jax.workdir import CONFIG, FACTORIZATION, read_json

HIDDEN = (0.0, 0.2, 0.4, 0.6)
NOISE = (0.01, 0.02, 0.05)
FAMILIES = ("orthographic", "static", "orbit", "upright", "real")
DISTANCES = (10.0, 5.0, 3.0, 2.0, 1.5)
FRAMES = 128
KEPT = 4
FIELDS = ("skeletons", "observations", "sequences")
COLUMNS = ("ne_flat", "ne_rigid_lifted", "ne_mean_shape_lifted", "ne_lifted")


def damaged(record, hidden: float, noise: float, seed: int):
    """The record with its 2D made worse, and its 3D as it is."""
    seen = record.observation
    random = np.random.default_rng(seed)
    observed, points = np.asarray(seen.observed), np.asarray(seen.points2d)
    # the points with the largest numbers stay, so that enough do
    lots = np.where(observed, random.random(observed.shape), -1.0)
    fourth = np.sort(lots, axis=1)[:, -KEPT, None]
    observed = observed & ((lots >= hidden) | (lots >= fourth))
    shown = np.asarray(seen.observed)[..., None]
    count = np.maximum(shown.sum(1, keepdims=True), 1)
    centred = np.where(
        shown, points - (points * shown).sum(1, keepdims=True) / count, 0
    )
    radius = np.sqrt(np.square(centred).sum((1, 2), keepdims=True) / count)
    moved = points + noise * radius * random.normal(size=points.shape)
    points = np.where(shown, moved, points).astype(np.float32)
    worse = dataclasses.replace(
        seen, observed=observed, points2d=np.where(observed[..., None], points, 0.0)
    )
    if isinstance(record, Labelled):
        return dataclasses.replace(record, observation=worse)
    return worse


def from_near(record: Labelled, distance: float) -> Labelled:
    """The frames of orthographic views, seen by a pinhole on the same axis."""
    points, known = record.points3d, record.evaluated
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    both = known[:, :, None] & known[:, None]
    far = distance * np.where(both, apart, 0.0).max(axis=(1, 2))
    before = points + far[:, None, None] * np.array([0.0, 0.0, 1.0])
    seen = record.observation
    image = np.where(
        seen.observed[..., None], np.asarray(project_perspective(before, far)), 0.0
    )
    seen = dataclasses.replace(seen, points2d=image.astype(np.float32))
    return dataclasses.replace(record, observation=seen)


def worsened(dataset: Dataset) -> dict[str, list]:
    """The test frames, as they are and damaged."""
    settings = {f"hidden {share:.0%}": (share, 0.0) for share in HIDDEN}
    settings |= {f"noise {share:.0%}": (0.0, share) for share in NOISE}
    test = [_thin(part) for part in dataset.evaluation.test]
    return {
        name: [damaged(part, *setting, i) for i, part in enumerate(test)]
        for name, setting in settings.items()
    }


def seen_by(dataset: Dataset, config: DataConfig, folder: str) -> dict[str, list]:
    """The test frames of other cameras, None where they cannot see a category."""
    names = [skeleton.name for skeleton in dataset.training.skeletons]
    few = [_thin(part) for part in dataset.evaluation.test]
    found = {}
    for camera in FAMILIES:
        try:
            other = open_dataset(dataclasses.replace(config, camera=camera), folder)
        except LfmError:  # no category has such cameras
            continue
        known = [skeleton.name for skeleton in other.training.skeletons]
        tests = dict(zip(known, other.evaluation.test, strict=True))
        rows = [tests.get(name) for name in names]
        found[camera] = [part and _thin(part) for part in rows]
    near = {
        f"perspective, {d:g}": [from_near(part, d) for part in few] for d in DISTANCES
    }
    return found | near


def _of(index: int, record):
    """The record, or observation, as of that category."""
    if isinstance(record, Labelled):
        return dataclasses.replace(record, observation=_of(index, record.observation))
    return dataclasses.replace(record, category=np.full_like(record.category, index))


def _thin(record):
    frames = len(jax.tree.leaves(record)[0])
    few = min(FRAMES, frames)
    rows = np.arange(few) * frames // few
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], record)


def measure(folder: pathlib.Path, cameras: bool) -> dict[str, dict]:
    """Means and entries of the categories of one run, by what was done to the 2D."""
    config = from_config_dict(ConfigDict(read_json(folder / CONFIG)))
    dataset = open_dataset(config.data, str(folder))
    lifter = Lifter.from_workdir(folder)
    skeletons, parts = dataset.training.skeletons, dataset.evaluation
    padded = read_factorized(folder / FACTORIZATION).rigid
    rigid = [r[: len(s.keypoints)] for r, s in zip(padded, skeletons, strict=True)]
    if cameras:
        settings = seen_by(dataset, config.data, str(folder))
    else:
        settings = worsened(dataset)
    found = {}
    for name, test in settings.items():
        use = [i for i, part in enumerate(test) if part is not None]
        pick = lambda values, use=use: tuple(values[i] for i in use)
        these = lambda values, pick=pick: tuple(
            map(_of, range(len(pick(values))), pick(values))
        )
        predict = lambda seen, use=use: lifter.predict(_of(use[seen.category[0]], seen))
        training = TrainingData(
            *(pick(getattr(dataset.training, field)) for field in FIELDS)
        )
        shown = EvaluationData(these(parts.train), these(parts.validation), these(test))
        numbers = evaluate(
            predict,
            training,
            shown,
            pick(rigid),
            perspective=config.data.camera == "perspective",
        )
        found[name] = numbers["mean"] | {"of": len(use)}
        print(f"{folder}, {name}: {numbers['mean']['ne_lifted']:.2f}", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="+", type=pathlib.Path)
    parser.add_argument("--cameras", action="store_true")
    given = parser.parse_args()
    runs = [measure(folder, given.cameras) for folder in given.run]
    print("| input | categories | flat | rigid | mean shape* | 2D-LFM |")
    print("|---|---|---|---|---|---|")
    for name, first in runs[0].items():
        table = np.array([[run[name][key] for key in COLUMNS] for run in runs])
        cells = [f"{value:.1f}" for value in table.mean(axis=0)]
        low, high = table[:, -1].min(), table[:, -1].max()
        spread = f" ({low:.1f} to {high:.1f})" if len(runs) > 1 else ""
        print(f"| {name} | {first['of']} | " + " | ".join(cells) + f"{spread} |")


if __name__ == "__main__":
    main()
