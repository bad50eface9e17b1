"""When training ends early: when it is asked to, or has nothing more to gain.

Ctrl-C and SIGTERM are a request that the loop heeds between two steps.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Sequence

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_request() -> Iterator[list[int]]:
    """A list, empty until Ctrl-C or SIGTERM asks to stop; then it holds the signal.

    A second request acts at once.
    """
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore_handlers() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number, _) -> None:
        requests.append(number)
        restore_handlers()
        _log.info("stopping after this step")

    for number in numbers:
        signal.signal(number, request)
    try:
        yield requests
    finally:
        restore_handlers()


def plateau(losses: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` losses were no lower than the best before them.

    Args:
        losses: of all validations so far, in their order.
        patience: 0 for never.
    """
    before = losses[: len(losses) - patience]
    return bool(patience and before) and min(losses) >= min(before)
