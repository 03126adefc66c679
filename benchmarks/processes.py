"""Programs that run beside us: started in a folder of their own, waited for, ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

HOST = "127.0.0.1"
_ENDS_WITHIN_SECONDS = 120.0
_LAST_WORDS = 2000


class BenchmarkFailure(Exception):
    """A benchmark gives no figure: a program is missing, ended, or lost something."""


def executable(name: str, package: str) -> str:
    """Path of a program; BenchmarkFailure names the Debian package that has it.

    Programs of this Python's environment do not count: pynetdicom brings a ``storescu`` of its own.
    """
    ours = str(Path(sys.executable).parent)
    places = [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if place != ours]
    path = shutil.which(name, path=os.pathsep.join([*places, "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        raise BenchmarkFailure(f"{name} is not installed (Debian: {package})")
    return path


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def environment(*, no_delay: bool) -> dict[str, str]:
    """Ours, with DCMTK's TCP_NODELAY set or absent: absent, DCMTK leaves Nagle's algorithm on."""
    values = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    return {**values, "TCP_NODELAY": "1"} if no_delay else values


def wait_until(is_so: Callable[[], bool], seconds: float, what: str, *, every: float = 0.05) -> None:
    """Return when ``is_so()``, asked ``every`` so many; BenchmarkFailure when not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise BenchmarkFailure(f"waited {seconds:g} s in vain for {what}")
        time.sleep(every)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on ``port``."""
    try:
        with socket.create_connection((HOST, port), 1):
            return True
    except OSError:
        return False


class Program:
    """One running program whose output goes to ``log``."""

    def __init__(
        self, command: list[str], *, folder: Path, log: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self._name = Path(command[0]).name
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=None if variables is None else {**variables},
            )

    @property
    def process_id(self) -> int:
        """Its number, for ``/proc``."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it printed so far."""
        return self._log.read_text(errors="replace")

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait until it is ready; BenchmarkFailure with its last words when it ends before that."""

        def is_so() -> bool:
            if self._process.poll() is not None:
                raise BenchmarkFailure(f"{self._name} ended at once:\n{self.output[-_LAST_WORDS:]}")
            return is_ready()

        wait_until(is_so, seconds, f"{self._name} to be ready")

    def stop(self) -> None:
        """End it and wait; one that does not end is killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_ENDS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
