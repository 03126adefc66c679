"""How the C library's allocator is told to treat what images are made in."""

from __future__ import annotations

import ctypes
import os

# <malloc.h>, mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
#: So much of freed memory each arena may keep.
_KEPT_BYTES = 8 << 20
#: There is an arena for each core, and no fewer than these.
_FEWEST_ARENAS = 4
#: What is longer is given back to the system at once.
_LARGEST_KEPT_BYTES = 4 << 20


def keep_freed_memory() -> None:
    """Have glibc use freed memory again rather than fetch it from the system anew, page by page.

    A decoded frame, and what it is copied to, are half a megabyte each and live for a moment; by default
    glibc gives such back as soon as a few are free, and each page costs a fault when it is wanted again:
    a sixth of what it takes to decode and send an HTJ2K image. Other C libraries have no such setting.

    By default there are eight arenas for each core, and as threads come and go, each of them comes to keep
    some megabytes sooner or later: memory that seems to grow with the number of associations.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, max(os.cpu_count() or 1, _FEWEST_ARENAS))
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
