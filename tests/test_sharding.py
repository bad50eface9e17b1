"""Devices, microbatches, remat and bfloat16 change how a step is computed, not what.

What needs eight devices runs in a process of its own, which this file is then too:
`python tests/test_sharding.py DIRECTORY` prints what the tests compare.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lfm_jax import losses, models, sharding, tasks
from lfm_jax.checkpoint import Checkpoints
from lfm_jax.config import Config, ModelConfig
from lfm_jax.data.mixture import densest
from lfm_jax.errors import LfmError
from lfm_jax.train import loop
from lfm_jax.train.step import init_state, make_train_step
from lfm_jax.types import Observation, Skeleton

ROOT = pathlib.Path(__file__).parents[1]
SOON = {"xla_backend_optimization_level": 0}  # compiles in a third of the time
DEVICES, STEPS, STOP = 8, 20, 10
COUNTS = (5, 7, 4)  # of keypoints; twelve shapes do not divide by eight devices


SKELETONS = [Skeleton(f"of_{n}", tuple(map(str, range(n)))) for n in COUNTS]
PER_CATEGORY = 4
CONFIG = ModelConfig(width=16, layers=2, heads=2, bases="", gate=False)


def batch(microbatches=1, seed=0):
    b, n = PER_CATEGORY * len(COUNTS), max(COUNTS)
    counts = np.tile(COUNTS, PER_CATEGORY)
    real = np.arange(n) < counts[:, None]
    points = np.random.default_rng(seed).normal(size=(b, n, 2)) * real[..., None]
    category = np.tile(np.arange(len(COUNTS), dtype=np.int32), PER_CATEGORY)
    seen = Observation(points.astype(np.float32), real, real, category)
    return seen, densest(counts[: b // microbatches].tolist())


def reconstruction(apply, params, seen, packing, key):
    """An objective that compiles soon, and draws nothing: parts have their own keys."""
    image = apply(params, seen, packing)[..., :2]
    return {"loss": losses.mean_squared(image, seen.points2d, seen.annotated)}


def go_on(step, mesh, state, batches, steps):
    """A state some steps later, and the losses on the way."""
    losses = []
    for _ in range(steps):
        state, scalars = step(state, sharding.put_batch(next(batches), mesh))
        losses.append(float(scalars["loss"]))
    return state, losses


def stream():
    data = grain.MapDataset.range(STEPS).map(lambda seed: batch(seed=seed))
    return iter(data.to_iter_dataset())


def measure(directory):
    """Losses on one device and on eight, each stopped half-way and resumed on both."""
    task, found = tasks.Task(reconstruction), {}
    train = dataclasses.replace(Config().train, steps=STEPS)
    config = Config(model=CONFIG, train=train)
    model = models.build(CONFIG, SKELETONS)
    runs = {
        "one": (config, jax.devices()[:1]),
        "data": (config, jax.devices()),
        "fsdp": (dataclasses.replace(config, mesh="fsdp"), jax.devices()),
    }
    placed = {}
    for name, (config, devices) in runs.items():
        mesh = sharding.make_mesh(devices)
        init, step, abstract = loop.place(config, model, task, len(COUNTS), mesh)
        placed[name] = abstract, functools.partial(go_on, step, mesh)
        batches = stream()
        state, losses = placed[name][1](init(), batches, STOP)
        with Checkpoints(directory / name) as checkpoints:
            checkpoints.save(STOP, state, batches)
        found[f"local {name}"] = sum(
            leaf.addressable_shards[0].data.size
            for leaf in jax.tree.leaves(state.params)
        )
        found[name] = losses + placed[name][1](state, batches, STEPS - STOP)[1]
    for before, after in (("one", "fsdp"), ("fsdp", "one"), ("data", "one")):
        abstract, train = placed[after]
        batches = stream()
        with Checkpoints(directory / before) as checkpoints:
            state = checkpoints.restore(abstract, batches)
        rest = train(state, batches, STEPS - STOP)[1]
        found[f"{before}, then {after}"] = found[before][:STOP] + rest
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    options = {"xla_force_host_platform_device_count": DEVICES} | SOON
    flags = " ".join(f"--{name}={value}" for name, value in options.items())
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path_factory.mktemp("devices"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": flags},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["data", "fsdp"])
def test_eight_devices_train_as_one(measured, name):
    assert len(measured["one"]) == STEPS and measured["one"][-1] < measured["one"][0]
    np.testing.assert_allclose(measured[name], measured["one"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["one, then fsdp", "fsdp, then one", "data, then one"])
def test_a_run_goes_on_on_other_devices(measured, name):
    np.testing.assert_allclose(measured[name], measured["one"], rtol=1e-6, atol=1e-6)


def test_fsdp_keeps_a_part_on_each_device(measured):
    """All kernels but the head's, of 16 inputs and 3 outputs, are split in eight."""
    assert measured["local data"] == measured["local one"]
    assert measured["local fsdp"] < 0.3 * measured["local one"]


def test_an_unknown_mesh_is_an_error():
    with pytest.raises(LfmError, match="did you mean 'fsdp'"):
        sharding.check_layout("fdsp")


# ----------------------------------------------------------------------------
# One device.
# ----------------------------------------------------------------------------


@functools.cache
def stepped(microbatches=1, **model):
    """The scalars of a step, the weights after it, and its memory for temporaries."""
    network = models.build(dataclasses.replace(CONFIG, **model), SKELETONS)
    optimizer = optax.sgd(0.1)
    task = tasks.Task(reconstruction)
    step = make_train_step(network, task, optimizer, microbatches=microbatches)
    state = init_state(network, optimizer, jax.random.key(0), len(COUNTS))
    lowered = jax.jit(step).lower(state, batch(microbatches))
    compiled = lowered.compile(compiler_options=SOON)
    state, scalars = compiled(state, batch(microbatches))
    memory = compiled.memory_analysis().temp_size_in_bytes
    return scalars, state.params, memory


def test_microbatches_add_up_to_the_whole_batch():
    whole, parts = stepped(), stepped(microbatches=4)
    for name in ("loss", "grad_norm", "loss_per_category"):
        np.testing.assert_allclose(parts[0][name], whole[0][name], rtol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (parts[1], whole[1])), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert parts[2] < whole[2]


def test_remat_changes_nothing_but_memory():
    """What the gradient keeps of the forward pass. XLA's own count will not do: on a
    CPU it merges what is computed twice."""

    def held(remat):
        network = models.build(dataclasses.replace(CONFIG, remat=remat), SKELETONS)
        apply = lambda params: network.apply(params, *batch())
        backward = jax.vjp(apply, network.init(jax.random.key(0)))[1]
        return sum(leaf.nbytes for leaf in jax.tree.leaves(backward))

    kept, again = stepped(), stepped(remat=True)
    for one, other in zip(*map(jax.tree.leaves, (kept[:2], again[:2])), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert held(True) < 0.5 * held(False)


def test_bfloat16_stays_inside_the_network():
    """Weights and result are float32, and what rounding changes is small."""
    seen, packing = batch()
    shapes = {}
    for dtype in ("float32", "bfloat16"):
        network = models.build(dataclasses.replace(CONFIG, dtype=dtype), SKELETONS)
        params = network.init(jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.float32.dtype}
        shapes[dtype] = jax.jit(network.apply)(params, seen, packing)
        text = jax.jit(network.apply).lower(params, seen, packing).as_text()
        assert ("bf16" in text) == (dtype == "bfloat16")
    exact, rounded = shapes["float32"], shapes["bfloat16"]
    assert rounded.dtype == jnp.float32
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 0.0 < error < 0.02
    with pytest.raises(LfmError, match="bfloat16"):
        models.build(dataclasses.replace(CONFIG, dtype="half"), SKELETONS)


if __name__ == "__main__":
    print(json.dumps(measure(pathlib.Path(sys.argv[1]))))
