"""Runs a sweep on this machine: every run of a sweep file once, some at a time.

    python launch/sweep.py configs/sweeps/injection.py --workers=2 \
        --config.data.dir=DIR

A sweep file holds CONFIG, what `--config` of the training command takes, and RUNS, for
each run the config keys it sets; where methods differ, a run says itself what `config`
it has. Settings given here apply to all runs. In the folder
--out (default runs/sweeps) are

    <hash of the config>/   the work directory of a run, and its log.txt
    <name of the sweep>.csv  a line for every run that finished and category, and one
                            for the mean over categories: what tables are made from

With --share=I/N only runs I, I + N, ... are trained here (I counts from 0), so that N
machines with one --out do the sweep together.

A run that finished is never trained again, in whichever sweep it stands; one that was
stopped goes on from its checkpoint. Runs of the same data, start and seed begin from
the same factorization, which is made once, by the first of them; others begin when it
is there: list seeds innermost, so that runs side by side do not all wait for the same.
"""

import argparse
import csv
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from lfm_jax.config import assign, from_config_dict
from lfm_jax.errors import LfmError
from lfm_jax.workdir import FACTORIZATION, read_json, replacing

POLL = 0.2  # seconds between looks at what runs


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        settings: config keys and values that tell it from others of its sweep.
        arguments: of the training command, but for the work directory.
        workdir: where it goes.
        start: where the factorization that it begins from is kept.
    """

    settings: dict
    arguments: list[str]
    workdir: pathlib.Path
    start: pathlib.Path

    @property
    def finished(self) -> bool:
        return (self.workdir / "eval.json").exists()

    @property
    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "lfm_jax.main"),
            *self.arguments,
            f"--workdir={self.workdir}",
        ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=pathlib.Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default="runs/sweeps")
    parser.add_argument("--share", default="0/1", help="I/N: every Nth run, from I on")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    given, common = parser.parse_known_args(arguments)
    runs = expand(given.sweep, common, given.out)
    ours = share(runs, given.share)
    if given.dry_run:
        for run in ours:
            done = "# finished: " if run.finished else ""
            print(done + shlex.join(["python", *run.command[1:]]))
        return 0
    failed = train([run for run in ours if not run.finished], given.workers)
    table = given.out / f"{given.sweep.stem}.csv"
    write_table(table, [run for run in runs if run.finished])
    print(f"{sum(run.finished for run in runs)} of {len(runs)} runs in {table}")
    for run in failed:
        print(f"failed: {run.settings}, see {run.workdir / 'log.txt'}")
    return bool(failed)


def expand(sweep: pathlib.Path, common: list[str], out: pathlib.Path) -> list[Run]:
    """The runs of a sweep file.

    Args:
        sweep: the file.
        common: `--config.key=value` for all runs.
        out: where work directories go.

    Raises:
        LfmError: a file that cannot be read, or a setting that does not exist.
    """
    module = _load(sweep)
    everywhere = dict(map(_setting, common))
    runs = []
    for settings in module.RUNS:
        changes = {key: str(value) for key, value in settings.items()} | everywhere
        base = changes.pop("config", None) or module.CONFIG
        path, _, preset = base.partition(":")
        values = _load(pathlib.Path(path)).get_config(preset)
        for key, text in changes.items():
            assign(values, key, text)
        config = from_config_dict(values)
        made_from = config.model.bases, config.model.neighbours, config.seed
        begins = [dataclasses.asdict(config.data), *made_from]
        flags = [f"--config.{key}={text}" for key, text in changes.items()]
        runs.append(
            Run(
                settings,
                [f"--config={base}", *flags],
                out / _hash(dataclasses.asdict(config)),
                out / "starts" / f"{_hash(begins)}.npz",
            )
        )
    return runs


def share(runs: list[Run], text: str) -> list[Run]:
    """The runs that "I/N" says.

    Raises:
        LfmError: it does not name a share.
    """
    found = re.fullmatch("([0-9]+)/([0-9]+)", text)
    index, count = map(int, found.groups()) if found else (0, 0)
    if index >= count:
        raise LfmError(f"--share is {text!r}; give I/N with I from 0 to N - 1.")
    return runs[index::count]


def train(runs: list[Run], workers: int) -> list[Run]:
    """Trains each, and returns those that failed; stopped, it stops them all."""
    waiting, running, failed = list(runs), {}, []

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        while waiting or running:
            while len(running) < workers and (run := _next(waiting, running)):
                waiting.remove(run)
                running[run.workdir] = run, _begin(run)
            for run, process in list(running.values()):
                over = process.poll() is not None
                _keep_start(run)  # first: a signal may come between these lines
                if over:
                    del running[run.workdir]
                    failed += [] if run.finished else [run]
                    done = len(runs) - len(waiting) - len(running)
                    print(f"{done} of {len(runs)}: {run.settings}", flush=True)
            time.sleep(POLL)
    finally:
        for _, process in running.values():
            process.terminate()  # it saves a checkpoint
        for run, process in running.values():
            process.wait()
            _keep_start(run)
    return failed


def _next(waiting: list[Run], running: dict) -> Run | None:
    """The first whose start is there, or is not being made by a run under way."""
    made = {run.start for run, _ in running.values()}
    ready = (run for run in waiting if run.start.exists() or run.start not in made)
    return next(ready, None)


def _begin(run: Run) -> subprocess.Popen:
    run.workdir.mkdir(parents=True, exist_ok=True)
    start = run.workdir / FACTORIZATION
    if run.start.exists() and not start.exists():
        _copy(run.start, start)
    # runs of one sweep compile much the same
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(run.start.parent.resolve())}
    with (run.workdir / "log.txt").open("a") as log:
        return subprocess.Popen(
            run.command, stdout=log, stderr=log, env=compiled | os.environ
        )


def _keep_start(run: Run) -> None:
    start = run.workdir / FACTORIZATION
    if start.exists() and not run.start.exists():
        run.start.parent.mkdir(exist_ok=True)
        _copy(start, run.start)


def write_table(path: pathlib.Path, runs: list[Run]) -> None:
    """Writes what runs came to, a line for each category and one for their mean."""
    rows = []
    for run in runs:
        numbers = read_json(run.workdir / "eval.json")
        places = {"mean": numbers["mean"]} | numbers["categories"]
        for category, entry in places.items():
            plain = {k: v for k, v in entry.items() if not isinstance(v, (dict, list))}
            rows.append(
                {"run": run.workdir.name, **run.settings}
                | {"category": category}
                | plain
            )
    # all settings before the category, also those that only later runs have
    settings = (key for run in runs for key in run.settings)
    found = (column for row in rows for column in row)
    columns = list(dict.fromkeys(("run", *settings, "category", *found)))
    with replacing(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _load(path: pathlib.Path):
    """The module in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or not path.exists():
        raise LfmError(f"There is no Python file {path}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _setting(argument: str) -> tuple[str, str]:
    """("key", "value") of "--config.key=value"."""
    key, given, text = argument.removeprefix("--config.").partition("=")
    if not given or not argument.startswith("--config."):
        raise LfmError(f"{argument} is no setting; write --config.key=value.")
    return key, text


def _hash(value) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    with replacing(target) as beside:
        shutil.copyfile(source, beside)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LfmError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
