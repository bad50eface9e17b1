"""Train and evaluate from the command line.

python -m lfm_jax.main --config=configs/lfm2d.py --workdir=runs/lfm2d

The same command goes on where its work directory stands. Bad input ends in one
sentence on stderr and exit status 2. Several processes train together where each is
given its --process, and the same flags otherwise.
"""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator, Sequence

from absl import app, flags
from ml_collections import config_flags

from lfm_jax.config import check_key, from_config_dict
from lfm_jax.errors import LfmError
from lfm_jax.memory import keep_freed

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: FILE[:preset,key=value].", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where all files of the run go.")
_MODE = flags.DEFINE_string("mode", "train_and_eval", "train_and_eval, train or eval.")
_PROCESS = flags.DEFINE_string(
    "process", "", "Of several: INDEX/COUNT@HOST:PORT of the first, or auto."
)
flags.mark_flags_as_required(["config", "workdir"])


def main(arguments: Sequence[str]) -> None:
    if len(arguments) > 1:
        raise LfmError(f"{arguments[1]!r} is no flag; did you mean --{arguments[1]}?")
    if not _WORKDIR.value:
        raise LfmError("--workdir is empty; name the directory of the run.")
    with _readable():
        config = from_config_dict(_CONFIG.value)
    keep_freed()
    # Imported late, so that help and mistakes come back at once.
    from lfm_jax import processes
    from lfm_jax.train.loop import train_and_evaluate

    # libraries log much, and say where they look for accelerators
    for name in ("absl", "jax"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with processes.joined(_PROCESS.value):
        level = logging.INFO if processes.first() else logging.ERROR
        logging.getLogger("lfm_jax").setLevel(level)
        results = train_and_evaluate(config, _WORKDIR.value, _MODE.value)
        if results is not None:
            from lfm_jax.viz.report import report_run

            report_run(results, pathlib.Path(_WORKDIR.value))


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Reads the flags; every mistake is an `LfmError`."""
    for argument in arguments[1:]:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name.startswith("config."):
            check_key(name.removeprefix("config."))
    try:
        with _readable():
            return flags.FLAGS(arguments)
    except flags.Error as error:
        raise LfmError(f"{error}".replace("\n", " ")) from error


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """A config file is read when it is first asked for: by an override, or after."""
    try:
        yield
    except OSError as error:
        raise LfmError("The file that --config names cannot be read.") from error
    except AttributeError as error:
        raise LfmError(f"The file that --config names is none: {error}.") from error


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=parse_flags)
    except LfmError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # while training, the loop saves and ends by itself
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
