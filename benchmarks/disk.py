"""Row of the disk: how many images a second it can make durable, whoever receives them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.figures import Case
from benchmarks.images import Images
from benchmarks.options import Options
from benchmarks.rounds import alternate

IMAGE_BYTES = 512 * 1024
FILE = "a new file, fdatasync"
RECORD = "a record in a written file, fdatasync"


def disk(options: Options, _images: Images) -> Generator[Case, None, None]:
    """Rates of the disk itself, with as many threads as there are associations elsewhere."""
    folder = options.folder / "disk"
    for threads in options.associations:
        count = options.instances
        contestants: dict[str, Callable[[], float]] = {
            FILE: partial(_rate, _write_files, folder, threads, count),
            RECORD: partial(_rate, _write_records, folder, threads, count),
        }
        title = "1 thread" if threads == 1 else f"{threads} threads"
        figures = alternate(contestants, options.rounds, before=os.sync, what=f"disk, {title}")
        yield Case("disk", title, "images of 0.5 MB/s", figures)


def _rate(write: Callable[[Path, int], float], folder: Path, threads: int, count: int) -> float:
    """Images per second of all threads together: between the first start and the last end."""
    folders = [folder / str(number) for number in range(threads)]
    for one in folders:
        one.mkdir(parents=True)
    with ThreadPoolExecutor(threads) as pool:
        begun = list(pool.map(write, folders, [count] * threads))
    seconds = time.perf_counter() - min(begun)
    shutil.rmtree(folder)
    return threads * count / seconds


def _write_files(folder: Path, count: int) -> float:
    """Write ``count`` new files; return when that began."""
    image = os.urandom(IMAGE_BYTES)
    begun = time.perf_counter()
    for number in range(count):
        file = os.open(folder / str(number), os.O_CREAT | os.O_WRONLY)
        try:
            os.write(file, image)
            os.fdatasync(file)
        finally:
            os.close(file)
    return begun


def _write_records(folder: Path, count: int) -> float:
    """Write ``count`` records into a file that was written once before; return when that began."""
    image = os.urandom(IMAGE_BYTES)
    file = os.open(folder / "records", os.O_CREAT | os.O_WRONLY)
    try:
        for number in range(count):
            os.pwrite(file, image, number * IMAGE_BYTES)
        os.fsync(file)
        begun = time.perf_counter()
        for number in range(count):
            os.pwrite(file, image, number * IMAGE_BYTES)
            os.fdatasync(file)
        return begun
    finally:
        os.close(file)
