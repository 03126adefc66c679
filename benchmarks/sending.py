"""DCMTK's ``storescu`` as the scanner: one process for each association."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

from pydicom.uid import JPEGLSLossless

from benchmarks.images import Series
from benchmarks.peers import Receiver
from benchmarks.processes import HOST, BenchmarkFailure, environment, executable

_TAKES_AT_MOST_SECONDS = 600.0


def storescu(receiver: Receiver, batch: Sequence[Series], *, no_delay: bool = True) -> float:
    """Send each series in an association of its own, all at the same time; return the seconds it took.

    From the first start to the last exit, so that a process's start is part of it, whoever
    receives. Every identifier is new. BenchmarkFailure when anything is not stored.
    """
    held = receiver.received()
    start, end = sent(receiver, batch, no_delay=no_delay)
    check(receiver, batch, held)
    return end - start


def check(receiver: Receiver, batch: Sequence[Series], held: int) -> None:
    """Raise BenchmarkFailure unless the receiver, which held so many, holds ``batch`` as well."""
    count = sum(len(series.paths) for series in batch)
    gained = receiver.received() - held
    if receiver.keeps and (gained < count or (gained > count and not receiver.makes_results)):
        raise BenchmarkFailure(f"{receiver.name} was sent {count} instances and holds {gained} more")


def sent(
    receiver: Receiver, batch: Sequence[Series], *, no_delay: bool = True, together: bool = False
) -> tuple[float, float]:
    """Send as ``storescu`` does, and check nothing; return when it began and ended, by ``perf_counter``.

    ``together``: all series in one association, one after the other.
    """
    for series in batch:
        series.renew()
    program = executable("storescu", "dcmtk")
    called = ["-aec", receiver.ae_title, "+sd", HOST, str(receiver.port)]
    commands = [[program, *_syntax(series), *called, str(series.folder)] for series in batch]
    if together:
        commands = [[program, *called, *(str(series.folder) for series in batch)]]
    variables = environment(no_delay=no_delay)
    start = time.perf_counter()
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=variables)
        for command in commands
    ]
    said = [process.communicate(timeout=_TAKES_AT_MOST_SECONDS)[0] for process in processes]
    end = time.perf_counter()
    for process, output in zip(processes, said, strict=True):
        if process.returncode:
            words = output.decode(errors="replace")[-1000:]
            raise BenchmarkFailure(
                f"storescu to {receiver.name} ended with {process.returncode}: {words}\n{receiver.last_words}"
            )
    return start, end


def rate(receiver: Receiver, batch: Sequence[Series], *, no_delay: bool = True) -> float:
    """Instances per second of ``storescu``."""
    return sum(len(series.paths) for series in batch) / storescu(receiver, batch, no_delay=no_delay)


def _syntax(series: Series) -> list[str]:
    return ["-xt"] if series.transfer_syntax_uid == JPEGLSLossless else []
