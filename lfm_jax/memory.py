"""Memory that a process keeps, because its next step takes it again.

A training step or a lift needs hundreds of megabytes for a moment. The GNU allocator
gives a piece of that size back to the system as soon as it is free, and gets it again
page by page, each filled with zeros: a third of a step's time on a processor.
"""

import ctypes
import sys

HUGE = 1 << 21  # bytes of a page, instead of 4096, where the system has such
RESERVED = 4 << 30  # addresses, not memory: what is never used costs nothing

# mallopt(3), madvise(2)
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_HUGEPAGE = 14


def keep_freed() -> None:
    """From now on, what this process frees stays its own until it ends.

    For programs, not for a library: it changes how much memory everything in the
    process holds. Nothing happens where the C library is not GNU's.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    # all pieces come from the one heap that has no limit, which never shrinks
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_ARENA_MAX, 1)
    library.mallopt(_TRIM_THRESHOLD, -1)
    library.malloc.restype = ctypes.c_void_p
    place = library.malloc(ctypes.c_size_t(RESERVED))
    if place:  # its first part is in large pages, which are found faster
        first, last = -(-place // HUGE) * HUGE, (place + RESERVED) // HUGE * HUGE
        size = ctypes.c_size_t(last - first)
        library.madvise(ctypes.c_void_p(first), size, _HUGEPAGE)
        library.free(ctypes.c_void_p(place))
