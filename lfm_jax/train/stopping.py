"""Ctrl-C and SIGTERM as a request that the loop heeds between two steps."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

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
