"""Compiled programs, of which a process can hold only so many.

Linux gives a process 65,530 memory maps. On a processor, one large program takes
thousands of them, and one map too many is a segmentation fault in the compiler.
"""

import pathlib

import jax

MAPS = 20_000  # room for what the longest part of a run compiles
_HELD = pathlib.Path("/proc/self/maps")  # Linux only


def forget_some(most: int = MAPS) -> None:
    """Forgets all compiled programs where they have become many.

    Args:
        most: memory maps that may be held.
    """
    if _HELD.exists() and _HELD.read_text().count("\n") > most:
        jax.clear_caches()
