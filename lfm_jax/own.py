"""A category of one's own, from 2D files to a model that lifts it.

    files -> one archive in OUT/keypoints -> a run of the one loop in OUT

The run is that of configs/lfm2d.py on this category alone, begun at the weights that
come with the package. Training on other categories at the same time was not found to
add anything to that (docs/results.md).
"""

import math
import pathlib

import numpy as np

from lfm_jax.classical.diversity import view_spread
from lfm_jax.config import Config, DataConfig, TrainConfig
from lfm_jax.data.archive import Category, read_category, write_category
from lfm_jax.data.views import MIN_VISIBLE
from lfm_jax.errors import LfmError
from lfm_jax.workdir import CONFIG, writing

KEYPOINTS = "keypoints"  # where the archive goes, below the work directory
LEAST_SPREAD = 30.0  # degrees; what bodies that never turn come to: docs/files.md
SHAPES = 48  # in a step
WEIGHTS = "lfm2d-small"  # of the same network
STEPS, VALIDATE, PATIENCE = 1000, 50, 3  # ends as soon as validation gains no more


def measure_views(category: Category) -> float:
    """`view_spread` of the frames that have enough points to be lifted.

    Raises:
        LfmError: there are too few.
    """
    seen = category.visibility.sum(axis=1) >= MIN_VISIBLE
    if seen.sum() < MIN_VISIBLE:
        raise LfmError(
            f"Only {int(seen.sum())} frames of {len(seen)} have {MIN_VISIBLE} visible "
            "points: give more frames, or a lower --threshold."
        )
    return view_spread(category.points2d[seen], category.visibility[seen])


def check_views(spread: float) -> None:
    """Raises `LfmError` where the views are too much alike to tell depth."""
    if not spread >= LEAST_SPREAD:
        raise LfmError(
            f"The views differ by {spread:.0f} degrees and should by at least "
            f"{LEAST_SPREAD:.0f}: an object that is always seen from the same side "
            "cannot be lifted; add videos from other sides, or insist with --anyway."
        )


def own_config(folder: pathlib.Path, category: Category, seed: int = 0) -> Config:
    """The run that learns this category from the archive below `folder`."""
    frames = len(category.sequence)
    return Config(
        seed=seed,
        data=DataConfig(dir=str(folder / KEYPOINTS), camera="real"),
        train=TrainConfig(
            steps=STEPS,
            per_category=min(SHAPES, math.ceil(frames / 4)),
            weights=WEIGHTS,
            patience=PATIENCE,
            validate_every=VALIDATE,
            checkpoint_every=VALIDATE,
        ),
    )


def train_own(folder: pathlib.Path, category: Category, seed: int = 0):
    """Trains, or goes on; the results, from which a report is in the folder too.

    Args:
        folder: the work directory.
        category: what to learn, see `data.collect.collect`.
        seed: of the run.

    Raises:
        LfmError: the folder holds the run of something else, or as
            `train.loop.train_and_evaluate`.
    """
    from lfm_jax.train.loop import train_and_evaluate
    from lfm_jax.viz.report import report_run

    place = folder / KEYPOINTS / f"{category.name}.npz"
    if (folder / CONFIG).exists():
        if not place.exists() or _differ(read_category(place), category):
            raise LfmError(
                f"{folder} is of other files, keypoints, edges or another name: choose "
                "another --out, or give the same again."
            )
    with writing(folder):
        place.parent.mkdir(parents=True, exist_ok=True)
    write_category(place, category)
    results = train_and_evaluate(own_config(folder, category, seed), str(folder))
    report_run(results, folder)
    return results


def _differ(one: Category, other: Category) -> bool:
    """Whether two categories have other keypoints, edges, clips or 2D."""

    def content(category: Category) -> tuple:
        seen = category.visibility
        points = np.where(seen[..., None], category.points2d, 0.0)
        return category.keypoints, category.edges, category.sequence, seen, points

    pairs = zip(content(one), content(other), strict=True)
    return not all(np.array_equal(before, after) for before, after in pairs)
