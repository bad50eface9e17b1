r"""A training step of the bare network: ours beside the same one in PyTorch.

    python benchmarks/torch_step.py --config=configs/lfm2d.py:scratch \
        --python=TORCH_PYTHON

The network is `models.lfm2d` without a start, of the config's size, and the loss the
mean square of what it is off in the image, without any pose: what would be measured of
the geometry is how well it is written in either library. Both begin at the same
weights, which are noise, and have to agree on the loss and on the norm of its
gradient three steps later, before anything is timed. A step is that gradient, clipped,
and AdamW.

    ours        packed rows, one compiled program
    packed      PyTorch, scaled dot product attention, the same rows
    padded      PyTorch, every shape padded to the longest, as is usual
    compiled    either of these through torch.compile

TORCH_PYTHON has PyTorch and NumPy. It waits in a process of its own, and steps are
taken in turns, so that a busy machine slows all of them alike. Prints medians over
rounds, and the median over rounds of how many times as long each of PyTorch's takes.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from ml_collections import config_flags

from lfm_jax import tasks
from lfm_jax.config import from_config_dict
from lfm_jax.memory import keep_freed
from lfm_jax.models.encodings import correspondence
from lfm_jax.train import loop
from lfm_jax.train.optim import matrices

STEPS = 3  # in a turn
CLIP, RATE, DECAY = 1.0, 1e-3, 1e-2
KINDS = ("packed", "padded", "packed compiled", "padded compiled")
THEIRS = pathlib.Path(__file__).with_name("torch_network.py")

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train.")
_PYTHON = flags.DEFINE_string("python", sys.executable, "One with PyTorch.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/torch_step", "Keeps the data.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Medians are over so many.")


def our_step(built):
    """The step, its first state, and the arrays that PyTorch needs for the same."""
    records, packing = next(iter(built.batches))
    normal = jax.jit(lambda seen: tasks.normalise(seen)[0])(records)
    key = jax.random.key(0)
    params = built.model.init(key)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [
        x + 0.02 * jax.random.normal(k, x.shape)
        for k, x in zip(keys, leaves, strict=True)
    ]
    params = jax.tree.unflatten(tree, noisy)
    optimizer = optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.adamw(RATE, weight_decay=DECAY, mask=matrices),
    )

    def loss_of(params, seen):
        found = built.model.apply(params, seen, packing)
        off = (found[..., :2] - seen.points2d) * seen.observed[..., None]
        return jnp.sum(jnp.square(off)) / jnp.sum(seen.observed)

    @jax.jit
    def step(state, seen):
        params, moments = state
        loss, gradient = jax.value_and_grad(loss_of)(params, seen)
        update, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, update)
        return (params, moments), (loss, optax.global_norm(gradient))

    skeletons, config = built.dataset.training.skeletons, built.config.model
    counts = np.array([len(skeleton.keypoints) for skeleton in skeletons])
    width = records.points2d.shape[1]
    phi = correspondence(config.encoding, skeletons, config.width, config.sigma)
    directions = np.random.default_rng(0).normal(size=(3, config.width // 4))
    batch = {
        "points2d": normal.points2d * normal.observed[..., None],
        "observed": normal.observed,
        "category": np.asarray(normal.category, np.int64),
        "present": np.arange(width) < counts[:, None],
        "token": np.asarray(packing.token, np.int64),
        "segment": packing.segment,
        "phi": phi[:, :width].astype(np.float32),
        "directions": directions.astype(np.float32),
    }
    arrays = {f"batch/{name}": np.asarray(value) for name, value in batch.items()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(("params", *(entry.key for entry in path)))
        arrays[name] = np.asarray(leaf)
    return step, (params, optimizer.init(params)), normal, arrays


def compare(config, python: str, workdir: pathlib.Path, rounds: int) -> None:
    """Prints the table."""
    built = loop.build(config, workdir)
    step, state, seen, arrays = our_step(built)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "problem.npz")
        np.savez(path, **arrays)
        settings = {"heads": config.model.heads, "steps": STEPS, "clip": CLIP}
        settings |= {"rate": RATE, "decay": DECAY}
        command = [python, THEIRS, path, json.dumps(settings)]
        theirs = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def ask(kind: str) -> tuple[float, float, float]:
            print(kind, file=theirs.stdin, flush=True)
            return tuple(json.loads(theirs.stdout.readline()))

        def ours() -> tuple[float, float, float]:
            nonlocal state
            begin = time.perf_counter()
            for _ in range(STEPS):
                state, found = step(state, seen)
            found = [float(x) for x in jax.block_until_ready(found)]
            return (time.perf_counter() - begin) / STEPS, *found

        times = {name: [] for name in ("ours", *KINDS)}
        for turn in range(rounds + 1):
            found = {"ours": ours()} | {kind: ask(kind) for kind in KINDS}
            if not turn:  # compiled now; and the first steps of all of them
                for kind in KINDS:
                    np.testing.assert_allclose(found[kind][1:], found["ours"][1:], 1e-2)
                continue
            for name, (seconds, *_) in found.items():
                times[name].append(seconds)
        theirs.stdin.close()
        theirs.wait()
    size = sum(v.size for name, v in arrays.items() if name.startswith("params/"))
    rows, length = arrays["batch/token"].shape
    shapes, width = arrays["batch/observed"].shape
    print(f"{size:,} parameters; {rows} rows of {length}, or {shapes} of {width}")
    print("| | ms a step | times ours |\n|---|---|---|")
    for name, seconds in times.items():
        ratios = [t / o for t, o in zip(seconds, times["ours"], strict=True)]
        print(
            f"| {name} | {1e3 * statistics.median(seconds):.1f} "
            f"| {statistics.median(ratios):.2f} |"
        )


def main(_) -> None:
    keep_freed()  # as training does
    config = from_config_dict(_CONFIG.value)
    compare(config, _PYTHON.value, pathlib.Path(_WORKDIR.value), _ROUNDS.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
