"""A trained run on test frames with points hidden from it, or moved by noise.

    python benchmarks/robustness.py runs/archive-0 runs/archive-1 runs/archive-2

Hidden: each observed point of a test frame with that probability, at least four kept.
Noise: Gaussian, of that many percent of the frame's RMS radius in each image
coordinate. The yardsticks get the very same input. Errors are means over categories,
in % of a shape's RMS radius, over all points, hidden or not; with several runs the mean
over runs, and for ours the smallest and largest.
"""

import dataclasses
import pathlib
import sys

import numpy as np
from ml_collections import ConfigDict

from lfm_jax.config import from_config_dict
from lfm_jax.data.dataset import EvaluationData, open_dataset
from lfm_jax.serve import Lifter
from lfm_jax.train.evaluate import evaluate
from lfm_jax.train.start import read_factorized
from lfm_jax.types import Labelled
from lfm_jax.workdir import CONFIG, FACTORIZATION, read_json

HIDDEN = (0.0, 0.2, 0.4, 0.6)
NOISE = (0.01, 0.02, 0.05)
KEPT = 4
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


def measure(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """The mean errors of one run, by what was done to the 2D."""
    config = from_config_dict(ConfigDict(read_json(folder / CONFIG)))
    dataset = open_dataset(config.data, str(folder))
    lifter = Lifter.from_workdir(folder)
    skeletons = dataset.training.skeletons
    padded = read_factorized(folder / FACTORIZATION).rigid
    rigid = [r[: len(s.keypoints)] for r, s in zip(padded, skeletons, strict=True)]
    settings = {f"hidden {share:.0%}": (share, 0.0) for share in HIDDEN}
    settings |= {f"noise {share:.0%}": (0.0, share) for share in NOISE}
    found = {}
    for name, (hidden, noise) in settings.items():
        parts = dataset.evaluation
        test = [damaged(part, hidden, noise, i) for i, part in enumerate(parts.test)]
        worse = EvaluationData(parts.train, parts.validation, tuple(test))
        perspective = config.data.camera == "perspective"
        numbers = evaluate(
            lifter.predict, dataset.training, worse, rigid, perspective=perspective
        )
        found[name] = numbers["mean"]
    return found


def main(folders: list[str]) -> None:
    runs = [measure(pathlib.Path(folder)) for folder in folders]
    print("| input | flat | rigid | mean shape* | 2D-LFM |\n|---|---|---|---|---|")
    for name in runs[0]:
        table = np.array([[run[name][key] for key in COLUMNS] for run in runs])
        cells = [f"{value:.1f}" for value in table.mean(axis=0)]
        low, high = table[:, -1].min(), table[:, -1].max()
        spread = f" ({low:.1f} to {high:.1f})" if len(runs) > 1 else ""
        print(f"| {name} | " + " | ".join(cells) + f"{spread} |")


if __name__ == "__main__":
    main(sys.argv[1:])
