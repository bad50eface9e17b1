"""3D errors of runs on validation frames, by which a recipe with labels is chosen.

    python benchmarks/validation.py RUN RUN ...

Test frames are not looked at. Errors as in eval.json, means over categories. Only where
a method trains with 3D labels may they choose between its recipes.
"""

import dataclasses
import pathlib
import sys

from lfm_jax import workdir
from lfm_jax.data.dataset import open_dataset
from lfm_jax.errors import LfmError
from lfm_jax.serve import Lifter
from lfm_jax.train.evaluate import evaluate
from lfm_jax.train.start import read_factorized

COLUMNS = ("ne_flat", "ne_mean_shape_lifted", "ne_lifted", "ne_canonical")


def measure(folder: pathlib.Path) -> dict[str, float]:
    """The means over categories that eval.json would have for validation frames."""
    config = workdir.read_config(folder / workdir.CONFIG)
    dataset = open_dataset(config.data, str(folder))
    skeletons, parts = dataset.training.skeletons, dataset.evaluation
    padded = read_factorized(folder / workdir.FACTORIZATION).rigid
    numbers = evaluate(
        Lifter.from_workdir(folder).predict,
        dataset.training,
        dataclasses.replace(parts, test=parts.validation),
        [r[: len(s.keypoints)] for r, s in zip(padded, skeletons, strict=True)],
        perspective=config.data.camera == "perspective",
    )
    return numbers["mean"]


def main(folders: list[str]) -> None:
    names = "run, seed, learning rate, steps, flat, mean shape*, lifted, canonical"
    print("| " + names.replace(", ", " | ") + " |")
    print("|---" * 8 + "|")
    for folder in map(pathlib.Path, folders):
        config, mean = workdir.read_config(folder / workdir.CONFIG), measure(folder)
        cells = [folder.name, config.seed, config.optim.learning_rate]
        cells += [config.train.steps, *(f"{mean[key]:.2f}" for key in COLUMNS)]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LfmError as error:
        sys.exit(str(error))
