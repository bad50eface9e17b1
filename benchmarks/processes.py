"""Trains in several processes, loses one, and compares with a run in one process.

    python benchmarks/processes.py --processes=4 --kills=2 --out=runs/processes \
        --config=configs/mlp.py:debug --config.data.only=car --mode=train \
        --config.train.per_category=4 --config.train.steps=40

What is not named below goes to the training command. The run is first made by one
process that has as many (simulated) devices as there will be processes, and then by
these, with a device each, on this machine and over loopback. Then they begin it once
more. Within a second of their next checkpoint one of them, drawn each time, is killed
(SIGKILL); when all have ended they begin again. Then one is asked to stop (SIGTERM) in
the same way, and all must. At last they bring the run to its end.

Weights, depth signs and the lines of metrics.jsonl but for rates must be those of the
processes that were left in peace, to the last bit. One process adds up gradients in
another order: how far its losses are from theirs is told. Prints a tally with the
longest time between the end of one and that of the last; the exit status is 1 at the
first difference.
"""

import argparse
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import kill_test

from lfm_jax.processes import LOST

PATIENCE = 60  # seconds for the others to end
POLL = 0.02


class Together:
    """One work directory, and the processes that train there."""

    def __init__(self, workdir: pathlib.Path, arguments: list[str]):
        self.run, self._arguments = kill_test.Run(workdir, arguments), arguments
        self._logs = workdir.with_name(f"{workdir.name}-logs")
        self._logs.mkdir()
        self.logs: list[pathlib.Path] = []

    def start(self, count: int, devices: int = 1) -> list[subprocess.Popen]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        flags = os.environ.get("XLA_FLAGS", "")
        flags += f" --xla_force_host_platform_device_count={devices}"
        program = [sys.executable, "-m", "lfm_jax.main", *self._arguments]
        program.append(f"--workdir={self.run.workdir}")
        self.logs = [
            self._logs / f"{time.time_ns()}-{index}.txt" for index in range(count)
        ]
        begun = []
        for index, path in enumerate(self.logs):
            place = [f"--process={index}/{count}@{address}"] if count > 1 else []
            with path.open("w") as log:
                begun.append(
                    subprocess.Popen(
                        [*program, *place],
                        stdout=log,
                        stderr=log,
                        env=os.environ | {"XLA_FLAGS": flags},
                    )
                )
        return begun

    def finish(self, count: int, devices: int = 1) -> dict:
        for process in self.start(count, devices):
            expect(process.wait() == 0, f"see {self.logs}")
        return self.run.outcome()

    def strike(self, count: int, number: int, draw: random.Random) -> tuple:
        """A signal to one; who it was, statuses of all, seconds until the last."""
        since, begun = time.time(), self.start(count)
        while not any(self.run.complete(since)) and begun[0].poll() is None:
            time.sleep(POLL)
        time.sleep(draw.uniform(0.0, 1.0))
        struck = draw.randrange(count)
        begun[struck].send_signal(number)
        begun[struck].wait()
        since = time.time()
        statuses = [process.wait() for process in begun]
        return struck, statuses, time.time() - since


def expect(true: bool, otherwise: str) -> None:
    if not true:
        sys.exit(otherwise)


def compare(out: pathlib.Path, count: int, kills: int, arguments: list[str]) -> str:
    """The tally, or an exit that says what is wrong."""
    draw, slowest = random.Random(0), 0.0
    alone = Together(out / "alone", arguments).finish(1, devices=count)
    peaceful = Together(out / "peaceful", arguments).finish(count)
    together = Together(out / "together", arguments)
    for _ in range(kills):
        struck, statuses, seconds = together.strike(count, signal.SIGKILL, draw)
        slowest = max(slowest, seconds)
        expect(statuses[struck] == -signal.SIGKILL, f"over too soon: {statuses}")
        expect(seconds < PATIENCE, f"the others went on for {seconds:.0f} s")
        for status, log in zip(statuses, together.logs, strict=True):
            expect(status != 0 and LOST in log.read_text(), f"{status}, see {log}")
    _, statuses, _ = together.strike(count, signal.SIGTERM, draw)
    expect(set(statuses) == {128 + signal.SIGTERM}, f"asked to stop: {statuses}")
    found = together.finish(count)
    wrong = [name for name in peaceful if found[name] != peaceful[name]]
    expect(not wrong, f"differs from those left in peace in {', '.join(wrong)}")
    losses = [
        [line["loss"] for line in each["metrics"] if "loss" in line]
        for each in (alone, found)
    ]
    apart = max(abs(one / other - 1.0) for one, other in zip(*losses, strict=True))
    return (
        f"{count} processes: {kills} times one was killed, and the last of the others "
        f"ended {slowest:.1f} s later at most, each with the sentence; asked to stop "
        "by a signal to one, all did; what they came to is bit for bit that of those "
        f"left in peace, and losses are within {apart:.1e} of those of one process"
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given, training = parser.parse_known_args(arguments)
    if given.out.exists():
        parser.error(f"{given.out} exists; name a new folder")
    given.out.mkdir(parents=True)
    print(compare(given.out, given.processes, given.kills, training))


if __name__ == "__main__":
    main(sys.argv[1:])
