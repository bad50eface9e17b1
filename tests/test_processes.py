"""Two processes train as one does; where one is lost, the other says so and ends.

Each is this file as a program: `python tests/test_processes.py DIRECTORY PLACE`.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import losses, models, processes, sharding, tasks
from lfm_jax.checkpoint import Checkpoints, read_weights
from lfm_jax.config import Config, ModelConfig, TrainConfig
from lfm_jax.data.dataset import Dataset, EvaluationData, TrainingData
from lfm_jax.data.mixture import training_batches
from lfm_jax.errors import LfmError
from lfm_jax.metrics_io import read_metrics
from lfm_jax.train import loop
from lfm_jax.types import Observation, Skeleton

ROOT = pathlib.Path(__file__).parents[1]
STEPS, SAVE, STRIKE = 6, 2, 5
COUNTS, FRAMES = (5, 7, 4), 20


def dataset():
    rng = np.random.default_rng(0)
    skeletons, seen = [], []
    for category, n in enumerate(COUNTS):
        skeletons.append(Skeleton(f"of_{n}", tuple(map(str, range(n)))))
        points = rng.normal(size=(FRAMES, n, 2)).astype(np.float32)
        there = np.ones((FRAMES, n), bool)
        seen.append(Observation(points, there, there, np.full(FRAMES, category)))
    sequences = (np.zeros(FRAMES, np.int32),) * len(COUNTS)
    training = TrainingData(tuple(skeletons), tuple(seen), sequences)
    rows = {skeleton.name: {"train": range(FRAMES)} for skeleton in skeletons}
    none = EvaluationData((), (), ())
    return Dataset(training, none, {}, {"categories": rows})


def reconstruction(apply, params, seen, packing, key):
    """An objective that compiles soon."""
    image = apply(params, seen, packing)[..., :2]
    return {"loss": losses.mean_squared(image, seen.points2d, seen.annotated)}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def train(directory, at=STEPS, act=None):
    """The loop with all that it does, but for an objective that is small; on the way
    to the update after step `at`, something happens."""
    data = dataset()
    skeletons = data.training.skeletons
    network = ModelConfig(width=16, layers=2, heads=2, bases="", gate=False)
    steps = TrainConfig(steps=STEPS, per_category=2, checkpoint_every=SAVE, log_every=1)
    config = Config(model=network, train=steps, mesh="fsdp")  # each keeps its part
    batches = training_batches(
        data.training, per_category=2, seed=0, share=processes.share()
    )
    model, task = models.build(network, skeletons), tasks.Task(reconstruction)
    mesh = sharding.make_mesh()
    init, compiled, abstract = loop.place(config, model, task, len(skeletons), mesh)

    def step(state, batch):
        if int(state.step) == at:
            act()
        return compiled(state, batch)

    parts = dict(mesh=mesh, abstract=abstract, model=model, task=task)
    validate = lambda params: jnp.zeros(())
    built = loop.Built(
        config, directory, dataset=data, rigid=(), init=init, step=step, **parts,
        validate=validate, batches=batches,
    )  # fmt: skip
    with Checkpoints(directory / "checkpoints") as checkpoints:
        last = loop.run(built, loop.restore(built, checkpoints), checkpoints)
        checkpoints.save(last.step, last.state, last.batches)


def begin(directory, places):
    """This file as so many programs, which have two devices together."""
    devices = f"--xla_force_host_platform_device_count={2 // len(places)}"
    # with the emitters of every day: others round a process's part of a sum differently
    usual = os.environ["XLA_FLAGS"].replace("emitters=false", "emitters=true")
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(directory), *place],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | {"XLA_FLAGS": f"{usual} {devices}", "PYTHONPATH": str(ROOT)},
        )
        for place in places
    ]


def alone(directory):
    (one,) = begin(directory, [()])
    out, _ = one.communicate()
    assert one.returncode == 0, out


def together(directory):
    """Two processes, of which the second will die."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return begin(directory, [(f"{i}/2@localhost:{port}",) for i in range(2)])


def outcome(directory):
    """The weights, and what metrics.jsonl says but for rates."""
    lines = read_metrics(directory / "metrics.jsonl")
    told = [{k: v for k, v in x.items() if "per_second" not in k} for x in lines]
    weights = read_weights(directory / "checkpoints")
    return weights.step, jax.tree.map(np.asarray, weights.params), told


def saved(directory):
    return sorted(p.name for p in (directory / "checkpoints").glob("[0-9]*"))


def test_from_one_to_two_of_which_one_is_lost_and_back(tmp_path):
    """A run of one process is the answer, to the last bit. Two go on from its second
    step, each reading half of every batch, and save the fourth. Then one dies, and one
    process goes on from there."""
    one, two = tmp_path / "one", tmp_path / "two"
    alone(one)
    assert saved(two) == [str(SAVE)]
    other, struck = together(two)
    last, _ = struck.communicate()
    since = time.monotonic()
    out, _ = other.communicate()
    assert time.monotonic() - since < 60
    assert struck.returncode == -signal.SIGKILL and processes.LOST in last, last
    assert other.returncode == 2 and out.count(processes.LOST) == 1, out
    assert "Traceback" not in out, out
    assert saved(two) == [str(SAVE), str(2 * SAVE)]
    alone(two)
    expected, found = outcome(one), outcome(two)
    assert expected[0] == found[0] == STEPS and expected[2] == found[2]
    jax.tree.map(np.testing.assert_array_equal, expected[1], found[1])


@pytest.mark.parametrize("place", ["2/2@host:1", "0/2", "0/2@host", "two", "-1/2@h:1"])
def test_a_place_that_is_none_is_one_sentence(place):
    with pytest.raises(LfmError, match=re.escape(place)), processes.joined(place):
        pass


if __name__ == "__main__":
    folder, place = pathlib.Path(sys.argv[1]), "".join(sys.argv[2:])
    with processes.joined(place):
        if not place:  # others go on from its first checkpoint
            train(
                folder, SAVE, lambda: shutil.copytree(folder, folder.with_name("two"))
            )
        else:
            train(folder, STEPS if processes.first() else STRIKE, die)
