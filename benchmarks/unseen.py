"""Categories that a network never trained on, lifted by it: how far does that go?

    python benchmarks/unseen.py RUN CATEGORY,CATEGORY,... [RUN CATEGORY,...] ...

RUN has no start, and an encoding that needs no training (rff, sinusoid, laplacian, or
injection=none), or is 3D-LFM of either kind; it trained without these categories of its
data.dir, and lifts their test frames here. Several runs, each with what it left out,
make one table. The embedding of a category, where there are any, is the mean of those
that it knows. Depth signs are chosen on validation frames, as always. The yardsticks
know the category.
"""

import dataclasses
import pathlib
import sys

import jax.numpy as jnp
import numpy as np

from lfm_jax import models, workdir
from lfm_jax.checkpoint import read_weights
from lfm_jax.config import ModelConfig
from lfm_jax.data import views
from lfm_jax.data.dataset import open_dataset
from lfm_jax.errors import LfmError
from lfm_jax.lifting import make_predict
from lfm_jax.train.evaluate import choose_depth_sign, evaluate
from lfm_jax.train.start import factorized

COLUMNS = {
    "flat": "ne_flat",
    "rigid": "ne_rigid_lifted",
    "mean shape*": "ne_mean_shape_lifted",
    "lifted": "ne_lifted",
    "better sign": "ne_best_flip_lifted",
}
FILMS = {
    "SA flat": "ne_sequence_flat",
    "SA mean shape*": "ne_sequence_mean_shape_lifted",
    "SA": "ne_sequence_lifted",
    "SA, better sign": "ne_sequence_best_flip_lifted",
    "velocity flat": "ne_velocity_flat",
    "velocity mean shape*": "ne_velocity_mean_shape_lifted",
    "velocity": "ne_velocity_lifted",
    "velocity, better sign": "ne_velocity_best_flip_lifted",
}


def measure(folder: pathlib.Path, names: str) -> dict[str, dict[str, float]]:
    """eval.json's entries of categories that a run has not seen."""
    config = workdir.read_config(folder / workdir.CONFIG)
    other = folder / "unseen"
    other.mkdir(exist_ok=True)
    dataset = open_dataset(dataclasses.replace(config.data, only=names), str(other))
    skeletons, parts = dataset.training.skeletons, dataset.evaluation
    params = dict(read_weights(folder / "checkpoints").params)
    if "category" in params:
        known = jnp.mean(params["category"]["embedding"], axis=0)
        params["category"] = {"embedding": jnp.tile(known, (len(skeletons), 1))}
    model = models.build(config.model, skeletons)
    unsigned = np.ones(len(skeletons), np.float32)
    signs = choose_depth_sign(make_predict(model, params, unsigned, skeletons), parts)
    held_out = [part.observation for part in parts.validation]
    bare = ModelConfig(bases="")
    rigid = factorized(dataset.training, held_out, bare, config.seed, other).rigid
    numbers = evaluate(
        make_predict(model, params, signs, skeletons),
        dataset.training,
        parts,
        [r[: len(s.keypoints)] for r, s in zip(rigid, skeletons, strict=True)],
        films=config.data.camera in views.BY_CLIP,
    )
    return numbers["categories"]


def main(arguments: list[str]) -> None:
    if not arguments or len(arguments) % 2:
        sys.exit(__doc__)
    entries = {}
    for folder, names in zip(arguments[::2], arguments[1::2], strict=True):
        entries |= measure(pathlib.Path(folder), names)
    films = any("ne_sequence_lifted" in entry for entry in entries.values())
    columns = COLUMNS | FILMS if films else COLUMNS
    print("| category | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    table = [
        [entry.get(key, np.nan) for key in columns.values()]
        for entry in entries.values()
    ]
    for name, row in zip([*entries, "mean"], [*table, np.mean(table, 0)], strict=True):
        print(f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in row) + " |")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LfmError as error:
        sys.exit(str(error))
