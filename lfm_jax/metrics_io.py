"""Numbers of a run as they come: metrics.jsonl, and a line or a bar to watch.

A line of metrics.jsonl is one object: `step` (updates done), then scalars. Lines are
in the order of steps, and those past the step a run resumes from are dropped, so that
a file reads the same whether or not the run was interrupted.
"""

import json
import logging
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import tqdm

from lfm_jax.workdir import write_text

_log = logging.getLogger(__name__)


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
        else:
            _log.warning("%s: a damaged line was left out", path)
    return lines


class MetricsWriter:
    """Appends to metrics.jsonl.

    Args:
        path: the file; made if missing.
        step: the step the run goes on from; later lines are dropped.
        silent: write nothing, as another process does.

    Attributes:
        kept: the lines up to that step.
    """

    def __init__(self, path: pathlib.Path, step: int, silent: bool = False):
        self.kept = [line for line in read_metrics(path) if line["step"] <= step]
        self._path, self._silent = path, silent
        if not silent:
            write_text(path, "".join(json.dumps(line) + "\n" for line in self.kept))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._silent:
            return
        line = json.dumps({"step": step, **scalars}) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)


class Progress:
    """How fast it goes and how long it will take: a bar on a terminal, else lines.

    Rates are over the time since the last report, without the pauses (evaluation,
    checkpoints) that `pause` covers.
    """

    def __init__(self, step: int, steps: int, silent: bool = False):
        terminal = sys.stderr.isatty() and not silent
        self._bar = (
            tqdm.tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)
            if terminal
            else None
        )
        self._steps = steps
        self._restart(step)

    def _restart(self, step: int) -> None:
        self._since, self._started, self._tokens = step, time.perf_counter(), 0

    def advance(self, useful_tokens: int) -> None:
        """One more step is under way, with that many real keypoints in it."""
        self._tokens += useful_tokens
        if self._bar is not None:
            self._bar.update()

    def rates(self, step: int) -> dict[str, float]:
        """Steps and useful tokens per second since the last call."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        rates = {
            "steps_per_second": (step - self._since) / seconds,
            "useful_tokens_per_second": self._tokens / seconds,
        }
        self._restart(step)
        return rates

    def pause(self, step: int) -> None:
        """Leaves out of the rates what was done since the last step."""
        self._restart(step)

    def show(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line for the eye: the loss, the rates and the time left."""
        speed = scalars["steps_per_second"]
        text = (
            f"loss {scalars['loss']:.4g}, {speed:.2f} steps/s, "
            f"{scalars['useful_tokens_per_second']:.0f} useful tokens/s"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            return
        left = tqdm.tqdm.format_interval((self._steps - step) / speed)
        _log.info("step %d/%d: %s, %s left", step, self._steps, text, left)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
