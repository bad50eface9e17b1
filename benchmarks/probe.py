"""How much of a keypoint's identity its token holds, layer by layer: a linear probe.

    python benchmarks/probe.py RUN [RUN ...]

The tokens of a trained transformer (lfm2d) after every block. Ridge regression to
one-hot keypoints, fitted per category on validation frames, names the keypoint of every
token of test frames, at most `FRAMES` of either. A row has the share of names that are
right, the mean over categories; guessing is the mean of 1 / keypoints.
"""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax import models, tasks, workdir
from lfm_jax.checkpoint import read_weights
from lfm_jax.data.dataset import open_dataset
from lfm_jax.models.attention import Block
from lfm_jax.train.start import read_factorized
from lfm_jax.types import Labelled

FRAMES = 64
RIDGE = 1e-3  # of the mean variance of a feature


def probe(folder: pathlib.Path) -> tuple[dict, np.ndarray, float]:
    """The run's config, the share of right names after each block, and by guessing."""
    config = workdir.read_config(folder / workdir.CONFIG)
    dataset = open_dataset(config.data, str(folder))
    skeletons = dataset.training.skeletons
    start = read_factorized(folder / workdir.FACTORIZATION).start
    network = models.NETWORKS[config.model.name](config.model, skeletons, start)
    params = read_weights(folder / "checkpoints").params

    @jax.jit
    def blocks(params, observation):
        seen, _, _ = tasks.normalise(observation)
        _, kept = network.apply(
            {"params": params},
            seen,
            capture_intermediates=lambda module, _: isinstance(module, Block),
            mutable="intermediates",
        )
        found = kept["intermediates"]
        return jnp.stack([found[name]["__call__"][0] for name in sorted(found)])

    shares = []
    parts = dataset.evaluation.validation, dataset.evaluation.test
    for known, asked in zip(*parts, strict=True):
        first, second = (blocks(params, _few(part)) for part in (known, asked))
        shares.append([_right(*pair) for pair in zip(first, second, strict=True)])
    guess = np.mean([1.0 / len(skeleton.keypoints) for skeleton in skeletons])
    return dataclasses.asdict(config.model), np.mean(shares, axis=0), float(guess)


def _few(record):
    seen = record.observation if isinstance(record, Labelled) else record
    frames = len(seen.category)
    rows = np.arange(FRAMES) * frames // FRAMES  # fewer frames come more than once
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], seen)


def _right(known, asked) -> float:
    """Share of tokens [f n d] whose keypoint is named right."""
    known, asked = (np.asarray(tokens, np.float64) for tokens in (known, asked))
    count, size = known.shape[1:]
    features = known.reshape(-1, size)
    middle = features.mean(axis=0)
    features = features - middle
    target = np.tile(np.eye(count), (len(known), 1)) - 1.0 / count
    moments = features.T @ features
    moments += RIDGE * np.trace(moments) / size * np.eye(size)
    weights = np.linalg.solve(moments, features.T @ target)
    named = np.argmax((asked - middle) @ weights, axis=-1)
    return float(np.mean(named == np.arange(count)))


def main(folders: list[str]) -> None:
    print("| encoding | injection | guessing | after each block |\n|---|---|---|---|")
    for folder in folders:
        model, shares, guess = probe(pathlib.Path(folder))
        cells = " ".join(f"{share:.2f}" for share in shares)
        print(f"| {model['encoding']} | {model['injection']} | {guess:.2f} | {cells} |")


if __name__ == "__main__":
    main(sys.argv[1:])
