"""Checkpoints: the only file that knows Orbax (its v1 API).

A checkpoint holds the whole `TrainState` and the position of the data iterator
together, so that a resumed run goes on as if it had never stopped. It appears under its
final name only when it is complete. The newest two are kept.
"""

import contextlib
import dataclasses
import json
import logging
import math
import pathlib
import shutil
import time
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float, PyTree
from orbax.checkpoint import v1 as ocp

from lfm_jax import processes
from lfm_jax.errors import LfmError
from lfm_jax.types import TrainState
from lfm_jax.workdir import DIGESTS, digests, read_json, write_json

KEEP = 2
PLACE = "process_0-of-1.json"  # as Grain has it
RESERVE = 1 << 20  # bytes beyond the arrays

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run; use as a context manager."""

    def __init__(self, directory: pathlib.Path):
        self._directory = directory.absolute()
        policies = ocp.training.preservation_policies
        self._orbax = ocp.training.Checkpointer(
            self._directory,
            preservation_policy=policies.LatestN(KEEP),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self._orbax.close()
        except Exception:
            # Closing raises the error of a failed save once more.
            if kind is None:
                raise

    @property
    def steps(self) -> list[int]:
        """The steps there are checkpoints of, oldest first."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, step: int, state: TrainState, batches: Iterator) -> None:
        """Saves both; nothing to do where that step is there already.

        Raises:
            LfmError: the disk is full or cannot be written.
        """
        if step in self.steps:
            return
        path = self._directory / str(step)
        self._check_space(state)
        try:
            with _quiet():
                self._orbax.save_checkpointables(
                    step, {"state": state, "data": _Place(batches)}, force=True
                )
            if processes.first():
                write_json(path / DIGESTS, digests(path))
        except (OSError, ValueError) as error:
            # The writer below Orbax reports a full disk as a ValueError.
            raise LfmError(
                f"The checkpoint {path} could not be written ({_first_line(error)}); "
                f"free {_size(state) / 1e6:.1f} MB there and run the same command "
                "again, it goes on from the one before."
            ) from error

    def _check_space(self, state: TrainState) -> None:
        needed = _size(state)
        free = shutil.disk_usage(self._directory).free
        if free < needed + RESERVE:
            raise LfmError(
                f"The disk is full: a checkpoint needs {needed / 1e6:.1f} MB and "
                f"{self._directory} has {free / 1e6:.1f} MB left; free "
                f"{(needed + RESERVE - free) / 1e6:.1f} MB there (damaged-* may "
                "go) and run the same command again."
            )

    def restore(
        self, state: TrainState, batches: Iterator | None = None
    ) -> TrainState | None:
        """The newest readable checkpoint, or None where there is none at all.

        Args:
            state: abstract (shapes, dtypes, shardings): what is expected.
            batches: moved to where it was, unless None.

        Raises:
            LfmError: the checkpoint is of another model or optimiser, or every
                checkpoint is damaged.
        """
        if not self.steps:
            return None
        with processes.first_goes_first("looks for a checkpoint"):
            step, saved = self._newest()
        self._orbax.reload()
        _compare(_leaves(saved), _leaves(state), self._directory / str(step))
        wanted = {"state": state}
        if batches is not None:
            wanted["data"] = _Place(batches)
        return self._orbax.load_checkpointables(step, wanted)["state"]

    def _newest(self) -> tuple[int, PyTree]:
        """The newest step that can be read and its tree; damaged ones are set aside."""
        for step in reversed(_steps(self._directory)):
            path = self._directory / str(step)
            try:
                return step, _saved_tree(path)
            except _DamagedError as error:
                _log.warning("%s: it is set aside and the one before is used.", error)
                path.rename(self._directory / f"damaged-{step}-{time.time_ns()}")
        raise LfmError(
            f"No checkpoint in {self._directory} can be read, all are set aside; "
            "run the same command to start again."
        )


class _Place:
    """Where an iterator stands, as Orbax wants it. All processes stand at the same
    place: the first writes it, and any number of them goes on from there."""

    def __init__(self, batches: Iterator):
        self._batches = batches

    async def save(self, directory):
        text = json.dumps(self._batches.get_state(), indent=4)

        async def write():
            folder = await directory.await_creation()
            if processes.first():
                (folder / PLACE).write_text(text)

        return write()

    async def load(self, directory):
        async def read():
            self._batches.set_state(json.loads((directory / PLACE).read_text()))

        return read()


def _steps(directory: pathlib.Path) -> list[int]:
    """The steps there are checkpoints of, oldest first."""
    return sorted(int(p.name) for p in directory.glob("*") if p.name.isdigit())


def _size(state: TrainState) -> int:
    """Bytes of all arrays."""
    leaves = jax.tree.leaves(state)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


@dataclasses.dataclass(frozen=True)
class Weights:
    """What lifting needs of a checkpoint.

    Attributes:
        step: updates done.
        params: the averaged weights.
        depth_sign: +1 or -1 per category; 0 where training has not ended.
    """

    step: int
    params: PyTree
    depth_sign: Float[np.ndarray, "c"]


def write_weights(directory: pathlib.Path, weights: Weights) -> None:
    """A `checkpoints/` folder with nothing but these, for `read_weights`."""
    path = directory.absolute() / str(weights.step)
    state = {"averaged": weights.params, "depth_sign": weights.depth_sign}
    with _quiet():
        ocp.save_checkpointables(path, {"state": state})
    for note in path.rglob("commit_success.txt"):
        note.write_text("")  # it is there: enough for Orbax; it told where it was made
    write_json(path / DIGESTS, digests(path))


def read_weights(directory: pathlib.Path) -> Weights:
    """The newest weights in a `checkpoints/` folder, without the optimiser's state.

    Raises:
        LfmError: there is no checkpoint, or it is damaged.
    """
    directory = directory.absolute()
    steps = _steps(directory)
    if not steps:
        raise LfmError(f"There is no checkpoint in {directory}; train first.")
    path = directory / str(steps[-1])
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    try:
        saved = _saved_tree(path)
    except _DamagedError as error:
        raise LfmError(f"{error}: remove it, and the one before is used.") from error
    wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, saved)
    for name in ("averaged", "depth_sign"):
        wanted[name] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
            saved[name],
        )
    loaded = ocp.load(path, wanted, checkpointable_name="state")
    return Weights(steps[-1], loaded["averaged"], np.asarray(loaded["depth_sign"]))


# ----------------------------------------------------------------------------
# Damage. Orbax reads what it can and complains from its threads; digests tell first.
# ----------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax from logging, thread by thread, an error that it raises as well."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class _DamagedError(Exception):
    """The checkpoint is not what was written; says which and why."""


def _saved_tree(path: pathlib.Path) -> PyTree:
    """The saved state with metadata (shape, dtype) for leaves."""
    # A crash between the two leaves a whole checkpoint without digests.
    if (path / DIGESTS).exists():
        found = digests(path)
        for name, digest in read_json(path / DIGESTS).items():
            if found.get(name) != digest:
                raise _DamagedError(f"{path} is damaged ({name} has changed)")
    try:
        tree = ocp.metadata(path, checkpointable_name="state").metadata
    except Exception as error:  # any, of the many libraries below
        raise _DamagedError(f"{path} is damaged ({_first_line(error)})") from error
    if tree is None:
        raise _DamagedError(f"{path} is damaged (its state cannot be read)")
    return tree


# ----------------------------------------------------------------------------
# Comparison. Orbax reports a wrong tree as "incompatible handler" and casts a wrong
# dtype in silence.
# ----------------------------------------------------------------------------

Leaves = dict[str, tuple[tuple[int, ...], str]]


def _leaves(tree: PyTree) -> Leaves:
    """Shape and dtype by path, spelt alike for a live tree and a saved one."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_spell(path): _shape_dtype(leaf) for path, leaf in paths}


def _spell(path: tuple) -> str:
    names = (getattr(k, "name", getattr(k, "key", getattr(k, "idx", k))) for k in path)
    return "/".join(map(str, names))


def _shape_dtype(leaf) -> tuple[tuple[int, ...], str]:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return tuple(leaf.shape), str(leaf.dtype)


def _compare(saved: Leaves, wanted: Leaves, path: pathlib.Path) -> None:
    for name in dict.fromkeys((*wanted, *saved)):
        here, there = wanted.get(name), saved.get(name)
        if here != there:
            raise LfmError(
                f"The checkpoint {path} is of another model: {name} is "
                f"{_describe(there)} there and {_describe(here)} here; use the config "
                "and code it was made with, or another --workdir."
            )


def _describe(leaf: tuple[tuple[int, ...], str] | None) -> str:
    return "missing" if leaf is None else f"{leaf[1]}{list(leaf[0])}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
