"""Several processes that train together: who is who, who waits, and what they say
when one is lost. The only room that starts `jax.distributed`.

All of them run the same program. The first (index 0) alone writes files of the work
directory, which all must see; checkpoints are the exception, Orbax writes them with
all. Alone, a process is the first, and nothing here waits.
"""

import contextlib
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from lfm_jax.errors import LfmError

SILENCE = 30  # seconds without a sign of life after which a process counts as lost
LOST = (
    "One of the processes that train together was lost, and the others end with it; "
    "the first log to end says why. The same commands go on from the last checkpoint."
)
# What JAX, its collectives and Orbax raise then.
_SIGNS = re.compile("gloo|nccl|barrier|heartbeat|coordination|unavailable", re.I)
# Prints what it is told where nothing was written to it before its input ended.
_LAST_WORDS = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr)"


@contextlib.contextmanager
def joined(place: str) -> Iterator[None]:
    """Within, this process is one of several; they leave together.

    It ends with status 2 and `LOST` where another is lost, at once or, where that is
    silent, within a minute. This holds for what JAX does then, too, which is to abort.

    Args:
        place: "INDEX/COUNT@HOST:PORT", where HOST is that of process 0 and PORT free
            there; "auto" where JAX finds it (SLURM, TPU pods, Open MPI, Kubernetes);
            empty for a process alone.

    Raises:
        LfmError: no such place, or the others did not come.
    """
    if not place:
        yield
        return
    _join(place)
    ear, mouth = os.pipe()
    speaker = [sys.executable, "-S", "-c", _LAST_WORDS, LOST]
    # a session of its own: what stops this process leaves it
    subprocess.Popen(speaker, stdin=ear, start_new_session=True)
    os.close(ear)
    try:
        yield
        wait("the end")
        os.write(mouth, b"well")
    except SystemExit:  # asked to stop, and all at the same step
        os.write(mouth, b"well")
        raise
    except BaseException as error:
        os.write(mouth, b"said")
        _leave(error)


def _join(place: str) -> None:
    found = re.fullmatch(r"(\d+)/(\d+)@(.+:\d+)", place)
    if place != "auto" and not (found and int(found[1]) < int(found[2])):
        raise LfmError(
            f"--process is {place!r}; give INDEX/COUNT@HOST:PORT with INDEX from 0 to "
            "COUNT - 1, or auto."
        )
    where = (found[3], int(found[2]), int(found[1])) if found else ()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(*where, heartbeat_timeout_seconds=SILENCE)
        wait("all are here")  # opens the connections, for which there is little time
    except (ValueError, RuntimeError) as error:
        raise LfmError(
            f"The other processes of --process={place} were not found "
            f"({str(error).splitlines()[0]}); start all of them, with one COUNT and "
            "HOST:PORT."
        ) from error


def _leave(error: BaseException) -> NoReturn:
    """Ends at once: an orderly end would wait for the others, who wait for this."""
    status = 2
    if isinstance(error, LfmError):
        print(error, file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("stopped; the same commands go on", file=sys.stderr)
        status = 130
    elif _SIGNS.search(str(error)):
        print(f"{LOST} ({str(error).splitlines()[0]})", file=sys.stderr)
    else:
        status = 1
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def several() -> bool:
    """Whether this process trains together with others."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def share() -> tuple[int, int]:
    """Which process this is, and of how many."""
    return jax.process_index(), jax.process_count()


def wait(name: str) -> None:
    """Until all processes are here."""
    if several():
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def first_goes_first(name: str) -> Iterator[None]:
    """The first process goes through alone, then the others: they find its files."""
    if not first():
        wait(name)
    yield
    if first():
        wait(name)


def from_first(tree: PyTree) -> PyTree:
    """What the first process has there; the others give something of its shape."""
    if not several():
        return tree
    wait("the first is ready")
    return multihost_utils.broadcast_one_to_all(tree)


def time_to_stop(step: int) -> bool:
    """Whether to stop before this step, as any of the processes was asked by SIGTERM.

    To be asked at every step: all get the same answer, some steps after the signal.
    """
    return multihost_utils.reached_preemption_sync_point(step)
