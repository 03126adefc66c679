"""Does the same to many things in several threads, and gives the results in order.

The codecs release the interpreter's lock, so frames are decoded on as many cores as there are.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: How many threads are of use: one for each core.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int
) -> Iterator[_Result]:
    """Yield ``work(item)`` of each item, in the order of the items.

    Parameters
    ----------
    work
        Called in other threads, unless ``threads`` is 1.
    items
        Taken by the calling thread, at most two for each thread before their results are.

    Raises
    ------
    Exception
        What ``items`` or ``work`` raised; with several threads some results of the items before it may
        be left out. No thread is left then, nor when the iteration ends early.
    """
    if threads < 2:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, "frames")
    running: deque[Future[_Result]] = deque()
    try:
        source = iter(items)
        for item in islice(source, 2 * threads):
            running.append(pool.submit(work, item))
        while running:
            result = running.popleft().result()
            for item in islice(source, 1):
                running.append(pool.submit(work, item))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
