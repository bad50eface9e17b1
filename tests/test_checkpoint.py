"""Checkpoints: what is restored is what was saved, or one sentence says why not."""

import logging
import pathlib
import re
import shutil
import subprocess
import sys

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lfm_jax import checkpoint, sharding
from lfm_jax.checkpoint import Checkpoints, read_weights
from lfm_jax.errors import LfmError
from lfm_jax.types import TrainState


def init(key, width=4):
    params = {"dense": {"kernel": jax.random.normal(key, (30, width))}}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        averaged=jax.tree.map(lambda x: x + 1.0, params),
        opt_state=optax.adamw(1e-3).init(params),
        key=key,
        depth_sign=jnp.array([1.0, -1.0, 1.0]),
    )


def make_state(seed=0, width=4):
    place = sharding.replicated(sharding.make_mesh())
    key = jax.random.key(seed)
    return jax.jit(init, static_argnums=1, out_shardings=place)(key, width)


def abstract(width=4):
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), width))
    mesh = sharding.make_mesh()
    return sharding.abstract(shapes, sharding.layout(shapes, mesh, "data"))


def batches():
    return iter(grain.MapDataset.range(30).shuffle(seed=1).repeat().to_iter_dataset())


def same(a, b):
    def data(x):
        typed_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if typed_key else x)

    return jax.tree.all(jax.tree.map(lambda x, y: (data(x) == data(y)).all(), a, b))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory, stream, after = tmp_path_factory.mktemp("run"), batches(), {}
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2):
            next(stream)
            checkpoints.save(step, make_state(step), stream)
            place = stream.get_state()
            after[step] = next(stream)
            stream.set_state(place)
    return directory, after


@pytest.fixture
def saved(written, tmp_path):
    """Checkpoints of steps 1 and 2, and the batch that comes after each."""
    directory, after = written
    shutil.copytree(directory, tmp_path / "checkpoints")
    return tmp_path / "checkpoints", after


def test_state_and_place_in_the_data_come_back(saved):
    directory, after = saved
    stream = batches()
    with Checkpoints(directory) as checkpoints:
        state = checkpoints.restore(abstract(), stream)
    assert same(state, make_state(2))
    assert jax.tree.structure(state) == jax.tree.structure(make_state(2))
    assert next(stream) == after[2]


def test_nothing_to_restore_is_none(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(abstract(), batches()) is None


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (3, 5, 8, 9):
            checkpoints.save(step, make_state(), batches())
        assert checkpoints.steps == [8, 9]


def test_saving_a_step_again_changes_nothing(saved):
    directory, _ = saved
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(2, make_state(7), batches())
        assert same(checkpoints.restore(abstract()), make_state(2))


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        (abstract(width=5), "params/dense/kernel"),
        (
            jax.tree.map(
                lambda x: (
                    jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding)
                    if x.dtype == jnp.float32
                    else x
                ),
                abstract(),
            ),
            "params/dense/kernel is float32.* bfloat16",
        ),
    ],
    ids=["shape", "dtype"],
)
def test_another_model_is_named_by_its_first_difference(saved, wanted, path):
    with (
        Checkpoints(saved[0]) as checkpoints,
        pytest.raises(LfmError, match=path),
    ):
        checkpoints.restore(wanted, batches())


def newest_file(directory, pattern):
    files = [path for path in (directory / "2").glob(pattern) if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("pattern", ["state/d/*", "state/_METADATA", "data/*.json"])
@pytest.mark.parametrize("damage", ["truncated", "one byte flipped", "gone"])
def test_a_damaged_newest_is_said_and_the_one_before_used(
    saved, pattern, damage, caplog
):
    directory, after = saved
    file = newest_file(directory, pattern)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if damage == "truncated" else content)
    with pytest.raises(LfmError, match="damaged"):
        read_weights(directory)
    stream = batches()
    with caplog.at_level(logging.WARNING), Checkpoints(directory) as checkpoints:
        assert same(checkpoints.restore(abstract(), stream), make_state(1))
        assert checkpoints.steps == [1]
        checkpoints.save(2, make_state(2), stream)
    assert "damaged" in caplog.text
    assert next(stream) == after[1]
    assert read_weights(directory).step == 2


def test_all_damaged_is_an_error(saved):
    directory, _ = saved
    for step in ("1", "2"):
        (directory / step / "state" / "_METADATA").unlink()
    with Checkpoints(directory) as checkpoints, pytest.raises(LfmError, match="again"):
        checkpoints.restore(abstract(), batches())


def test_weights_are_the_averaged_ones(saved):
    weights = read_weights(saved[0])
    expected = make_state(2)
    assert weights.step == 2
    assert same(weights.params, expected.averaged)
    assert same(weights.depth_sign, expected.depth_sign)


def test_weights_of_an_empty_folder_are_an_error(tmp_path):
    with pytest.raises(LfmError, match="no checkpoint"):
        read_weights(tmp_path)


def test_a_full_disk_is_one_sentence_and_leaves_the_old_checkpoint(saved, monkeypatch):
    directory, _ = saved
    usage = shutil.disk_usage(directory)._replace(free=10)
    with Checkpoints(directory) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(LfmError, match="disk is full") as error:
            checkpoints.save(3, make_state(3), batches())
    assert "\n" not in str(error.value)
    assert read_weights(directory).step == 2


FILLING_UP = """
import pathlib, resource, sys
import test_checkpoint as here
state = here.make_state(3)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
with here.Checkpoints(pathlib.Path(sys.argv[1])) as checkpoints:
    checkpoints.save(3, state, here.batches())
"""


def test_a_write_that_fails_half_way_leaves_the_old_checkpoints(saved):
    """The kernel refuses what is beyond 500 bytes of any file, as a full disk does."""
    directory, _ = saved
    done = subprocess.run(
        [sys.executable, "-c", FILLING_UP, str(directory)],
        cwd=pathlib.Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert re.search("LfmError: .*3 could not be written.*free .* MB", done.stderr)
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.steps == [1, 2]
        assert same(checkpoints.restore(abstract()), make_state(2))
        checkpoints.save(3, make_state(3), batches())
    assert read_weights(directory).step == 3


def test_spelling_of_paths_is_that_of_the_saved_tree(saved):
    tree = checkpoint._saved_tree(saved[0] / "2")
    assert checkpoint._leaves(tree) == checkpoint._leaves(abstract())
