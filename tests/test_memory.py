"""What is freed is kept, and costs nothing to take again."""

import pathlib
import platform
import resource
import subprocess
import sys

import pytest

HUGE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
# where all pages are large anyway there is nothing to be seen
SMALL = resource.getpagesize() == 4096 and "[always]" not in (
    HUGE.read_text() if HUGE.exists() else ""
)
GNU = platform.libc_ver()[0] == "glibc"
PROGRAM = """
import resource, sys, threading
from lfm_jax.memory import keep_freed
if len(sys.argv) > 1:
    keep_freed()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def take():
    for megabytes in (50, 300, 50, 300):
        b"1" * (megabytes << 20)
for _ in range(2):
    thread = threading.Thread(target=take)  # as XLA does
    before = faults()
    thread.start(), thread.join()
print(faults() - before)
"""


def pages_taken(*arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.skipif(not (GNU and SMALL), reason="the GNU allocator alone is told")
def test_a_piece_is_asked_of_the_system_once():
    assert pages_taken("keep") < 1000
    assert pages_taken() > 100_000  # 700 MB in pages of 4 KB
