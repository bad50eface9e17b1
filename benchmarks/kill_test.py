"""Kills a run again and again, and compares what it comes to with one left in peace.

    python benchmarks/kill_test.py --kills=50 --out=runs/kill_test \
        --config=configs/lfm2d.py:debug --config.data.only=car --config.train.steps=100

What is not named below goes to the training command. The run is first made once without
a stop. Then the same command is given as often as it takes, each time killed (SIGKILL)
in one of two ways, in turn: at a moment drawn uniformly from the time of a whole run,
and within 0.3 s of the begin of its second save, which takes about as long.

A run that comes to its end between two kills is compared, and the next one begun. It
must have the same averaged weights and depth signs to the last bit, the same lines in
metrics.jsonl but for rates (so that no step is counted twice or left out), and the same
eval.json. Prints a tally; the exit status is 1 at the first difference or failure.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import random
import re
import subprocess
import sys
import time

import jax
import numpy as np

from lfm_jax.checkpoint import read_weights
from lfm_jax.metrics_io import read_metrics
from lfm_jax.workdir import DIGESTS

SAVE = 0.3  # seconds that a strike waits at most after the begin of a save
POLL = 0.002  # seconds between looks for it


class Run:
    """One work directory and the command that trains there."""

    def __init__(self, workdir: pathlib.Path, arguments: list[str]):
        self.workdir, self._arguments = workdir, arguments
        workdir.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> str:
        return (self.workdir / "log.txt").read_text()

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "lfm_jax.main", *self._arguments]
        with (self.workdir / "log.txt").open("a") as log:
            return subprocess.Popen(
                [*command, f"--workdir={self.workdir}"], stdout=log, stderr=log
            )

    def complete(self, since: float) -> list[bool]:
        """Whether they are, of the checkpoints begun since then."""
        found = (self.workdir / "checkpoints").glob("[0-9]*")
        return [
            path.name.isdigit() and (path / DIGESTS).exists()
            for path in found
            if path.stat().st_mtime > since
        ]

    def outcome(self) -> dict:
        """All that must not depend on kills, comparable by ==."""
        weights = read_weights(self.workdir / "checkpoints")
        leaves = jax.tree.leaves((weights.params, weights.depth_sign))
        evaluated = self.workdir / "eval.json"
        return {
            "step": weights.step,
            "weights": [np.asarray(leaf).tobytes() for leaf in leaves],
            "metrics": [
                {key: value for key, value in line.items() if "per_second" not in key}
                for line in read_metrics(self.workdir / "metrics.jsonl")
            ],
            "eval.json": json.loads(evaluated.read_text()) if evaluated.exists() else 0,
        }


def strike_at(process: subprocess.Popen, seconds: float) -> None:
    """Kills after so many seconds, if it still runs."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()


def strike_save(
    process: subprocess.Popen, run: Run, since: float, seconds: float
) -> None:
    """Kills so many seconds after its second save has begun, if it still runs.

    One was completed then, so that kills while saving do not keep it from going on.
    """
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # renamed as it was looked at
            if {True, False} <= set(run.complete(since)):
                break
        time.sleep(POLL)
    strike_at(process, seconds)


def torment(out: pathlib.Path, arguments: list[str], kills: int, seed: int) -> str:
    """Kills and compares; the tally, or an exit that says what is wrong."""
    draw, tally = random.Random(seed), collections.Counter()
    peaceful, begin = Run(out / "peaceful", arguments), time.time()
    _expect(peaceful.start().wait() == 0, f"{peaceful.workdir} failed: {peaceful.log}")
    whole, expected = time.time() - begin, peaceful.outcome()
    finished, run = 0, Run(out / "killed-0", arguments)
    while True:
        struck, process, begin = sum(tally.values()), run.start(), time.time()
        if struck == kills:
            process.wait()
        elif struck % 2:
            strike_save(process, run, begin, draw.uniform(0.0, SAVE))
        else:
            strike_at(process, draw.uniform(0.0, whole))
        if process.wait() < 0:
            saving = not all(run.complete(begin))
            tally["while saving" if saving else "elsewhere"] += 1
            continue
        # the first run has compiled for the others
        whole = min(whole, time.time() - begin)
        _expect(process.returncode == 0, f"{run.workdir} failed: {run.log}")
        found = run.outcome()
        wrong = [name for name in expected if found[name] != expected[name]]
        _expect(not wrong, f"{run.workdir} differs in {', '.join(wrong)}")
        finished += 1
        if struck == kills:
            return _tell(out, tally, finished)
        run = Run(out / f"killed-{finished}", arguments)


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        sys.exit(otherwise)


def _tell(out, tally, finished):
    logs = [path.read_text() for path in sorted(out.glob("killed-*/log.txt"))]
    resumed = [
        int(step) for log in logs for step in re.findall(r"from step (\d+)", log)
    ]
    places = ", ".join(f"{count} {phase}" for phase, count in sorted(tally.items()))
    return (
        f"{sum(tally.values())} kills ({places}); {len(resumed)} resumed from a "
        f"checkpoint, at {len(set(resumed))} different steps; {finished} runs came to "
        "their end, all equal to the one left in peace, bit for bit"
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given, training = parser.parse_known_args(arguments)
    if given.out.exists():
        parser.error(f"{given.out} exists; name a new folder")
    print(torment(given.out, training, given.kills, given.seed))


if __name__ == "__main__":
    main(sys.argv[1:])
