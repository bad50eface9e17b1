"""When training ends early: when it is asked to, or has nothing more to gain.

Ctrl-C and SIGTERM are a request that the loop heeds between two steps. Of several
processes each may be asked, and all stop before the same step.
"""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from lfm_jax import processes

GAIN = 1e-4  # relative; what a loss falls by less is rounding, or not worth waiting for

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_request() -> Iterator[Callable[[int], int]]:
    """Tells of a step whether Ctrl-C or SIGTERM asks to stop before it: the signal, or
    0. To be asked at every step.

    A second request acts at once.
    """
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: 0
        return
    # JAX listens to SIGTERM where there are several processes, and tells all of them.
    together = processes.several()
    numbers = (signal.SIGINT,) if together else (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore_handlers() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number, _) -> None:
        requests.append(number)
        restore_handlers()
        if together:
            os.kill(os.getpid(), signal.SIGTERM)
        _log.info("stopping after this step")

    def asked(step: int) -> int:
        if together:
            return signal.SIGTERM if processes.time_to_stop(step) else 0
        return requests[0] if requests else 0

    for number in numbers:
        signal.signal(number, request)
    try:
        yield asked
    finally:
        restore_handlers()


def plateau(losses: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` losses gained next to nothing on the best before.

    Args:
        losses: of all validations so far, in their order.
        patience: 0 for never.
    """
    before = losses[: max(len(losses) - patience, 0)]
    return bool(patience and before) and min(losses) >= (1.0 - GAIN) * min(before)
