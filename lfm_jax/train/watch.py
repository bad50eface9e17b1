"""Looks at the numbers of many steps together: what was left out, and what jumped.

Everything that is not as it should be is one line of the log that names the step, the
category and, where a single frame is to blame, its row in the archive.
"""

import collections
import itertools
import logging
import statistics
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lfm_jax.errors import LfmError
from lfm_jax.train.step import FLAWS

LOST = 20  # steps in a row without an update after which there is no hope
USUAL = 100  # what is usual is the median of so many steps
KNOWN = 10  # and is known from so many on
JUMP = 10.0  # times the usual is worth a line
NAMED = 5  # frames of a category that a line names

_log = logging.getLogger(__name__)


class Watch:
    """Holds the scalars of recent steps on the device, and looks at them together.

    Reading each step's scalars would make the host wait for every step.

    Args:
        categories: names, in the order of `loss_per_category`.
        rate: the learning rate by step.
        clip: norm to which gradients are clipped.
        frame: (step, place in its batch) -> category and row in the archive.
    """

    def __init__(
        self,
        categories: Sequence[str],
        rate: Callable[[int], jax.Array],
        clip: float,
        frame: Callable[[int, int], tuple[str, int]],
    ):
        self._categories = list(categories)
        self._rate, self._clip, self._frame = rate, clip, frame
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._usual = {
            name: collections.deque(maxlen=USUAL) for name in ("loss", "grad_norm")
        }
        self._lost = 0

    def add(self, step: int, scalars: dict[str, jax.Array]) -> None:
        """The scalars of the update that made the state of `step`."""
        self._pending.append((step, scalars))

    def check(self) -> dict[str, float]:
        """The newest scalars as numbers, and `left_out`: examples since the last check.

        Raises:
            LfmError: too many steps in a row had no finite loss and gradient.
        """
        pending, self._pending = jax.device_get(self._pending), []
        left_out = self._count_flaws(pending)
        for step, scalars in pending:
            if scalars["finite"]:
                self._lost = 0
                self._compare(step, scalars)
            else:
                self._lose(step, scalars)
        step, scalars = pending[-1]
        line = {k: float(v) for k, v in scalars.items() if v.ndim == 0}
        rate = float(self._rate(step - 1))
        return line | {"left_out": float(left_out), "learning_rate": rate}

    def _count_flaws(self, pending) -> int:
        found = collections.defaultdict(list)
        for step, scalars in pending:
            for example in np.flatnonzero(scalars["flaw"]):
                category, row = self._frame(step - 1, int(example))
                found[category, int(scalars["flaw"][example])].append(row)
        for (category, flaw), rows in found.items():
            named = ", ".join(map(str, sorted(set(rows))[:NAMED]))
            _log.warning(
                "up to step %d, %d samples of %s %s were left out (frames %s%s)",
                *(pending[-1][0], len(rows), category, FLAWS[flaw], named),
                ", ..." if len(set(rows)) > NAMED else "",
            )
        return sum(map(len, found.values()))

    def _compare(self, step: int, scalars: dict[str, np.ndarray]) -> None:
        """Says what is many times the usual."""
        worst = self._categories[int(np.argmax(scalars["loss_per_category"]))]
        for name, recent in self._usual.items():
            value = float(scalars[name])
            usual = statistics.median(recent) if len(recent) >= KNOWN else np.inf
            if value > JUMP * usual:
                _log.warning(
                    "step %d: %s is %.3g, %.0f times the usual %.3g; most loss in %s%s",
                    *(step, name, value, value / usual, usual, worst),
                    f"; clipped to {self._clip:g}" if name == "grad_norm" else "",
                )
            recent.append(value)

    def _lose(self, step: int, scalars: dict[str, np.ndarray]) -> None:
        self._lost += 1
        blame = self._blame(scalars)
        _log.warning(
            "step %d was left out: no finite loss or gradient; %s", step, blame
        )
        if self._lost >= LOST:
            raise LfmError(
                f"The loss has had no finite value or gradient for {LOST} steps up "
                f"to step {step} ({blame}); lower optim.learning_rate, or look at "
                "these categories' data."
            )

    def _blame(self, scalars: dict[str, np.ndarray]) -> str:
        """The categories whose own loss is not finite, else all of the batch."""
        finite = np.isfinite(scalars["loss_per_category"])
        names = list(itertools.compress(self._categories, ~finite))
        return ", ".join(names) or f"in the batch: {', '.join(self._categories)}"
