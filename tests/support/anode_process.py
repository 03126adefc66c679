"""``anode run`` as a process of its own, as an operator starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


class AnodeProcess:
    """A node in ``folder``: its ``config.toml``, data and log lie there.

    ``configuration`` is TOML; host, port and data_dir are set here. The port is chosen by the
    system at the first start and kept afterwards. ``program`` is what is started with the arguments of
    ``anode run``.
    """

    def __init__(
        self,
        folder: Path,
        configuration: str = "",
        *,
        node: str = "",
        port: int = 0,
        segment_bytes: int = 8 << 20,
        program: Sequence[str] = (sys.executable, "-m", "node"),
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "config.toml"
        self._configuration = configuration
        self._node = node
        self.port = port
        self._segment_bytes = segment_bytes
        self._program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "anode.log"

    def launch(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start the process and wait for nothing."""
        self.config.write_text(
            f'[node]\nport = {self.port}\ndata_dir = "data"\n{self._node}\n'
            f"[storage]\nfree_space_reserve_bytes = 1000000\nsegment_bytes = {self._segment_bytes}\n"
            f"spare_segments = 4\n"
            f"{self._configuration}\n"
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._program, "run", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **environment},
            )
        return self.process

    def start(self, **environment: str) -> None:
        """Start it and wait for its one line."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        self.launch(**environment)

        def is_ready() -> bool:
            assert self.process is not None
            said = self.log.read_text()[offset:]
            assert self.process.poll() is None, said[-3000:]
            found = re.search(r"anode ready: \S+ on \S+?:(\d+)", said)
            if found:
                self.port = int(found[1])
            return found is not None

        wait_until(is_ready, 300, "the node to be ready")

    def kill(self) -> None:
        """SIGKILL, at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def open_now(self) -> tuple[int, int]:
        """How many descriptors and threads it has; its own files come by the clock and do not count."""
        assert self.process is not None
        here = Path(f"/proc/{self.process.pid}")
        descriptors = 0
        for file in (here / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                descriptors += not file.readlink().is_relative_to(self.folder / "data")
        return descriptors, len(list((here / "task").iterdir()))

    def resident_bytes(self) -> int:
        """How much memory it has in use."""
        assert self.process is not None
        assert self.process.poll() is None, "the node has ended"
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run an ``anode`` command against this node's configuration."""
        done = subprocess.run(
            [sys.executable, "-m", "node", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """Run an ``anode`` command with ``--json`` and return what it says."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def __enter__(self) -> AnodeProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
