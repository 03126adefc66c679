"""The receivers that are compared, each started as its users start it, in a folder of its own."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom.uid import JPEG2000Lossless

from benchmarks.processes import (
    HOST,
    BenchmarkFailure,
    Program,
    environment,
    executable,
    free_port,
    listens,
)

ROOT = Path(__file__).parents[1]
_STARTS_WITHIN_SECONDS = 60.0


class Receiver(ABC):
    """A storage SCP in ``folder``. A context manager: runs in the block, is gone after it.

    Attributes
    ----------
    name : str
        As it is called in figures and pictures.
    ae_title : str
        Its called AE title.
    port : int
        Where it listens.
    keeps : bool
        Whether it keeps what it is sent, so that ``received`` counts it.
    makes_results : bool
        Whether it adds instances of its own to what it is sent.
    """

    name: str
    ae_title: str
    keeps = True
    makes_results = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self._program: Program | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it can be called."""

    @abstractmethod
    def received(self) -> int:
        """How many instances it holds."""

    def rest(self) -> None:  # noqa: B027
        """Wait until it works no more in the background; most never do."""

    def stop(self) -> None:
        """Stop it; what it holds stays."""
        if self._program is not None:
            self._program.stop()
            self._program = None

    @property
    def process_id(self) -> int:
        """Number of its process."""
        if self._program is None:
            raise BenchmarkFailure(f"{self.name} does not run")
        return self._program.process_id

    @property
    def last_words(self) -> str:
        """The end of its log, for a failure."""
        return "" if self._program is None else self._program.output[-1500:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # Not killed: a process that works for it would go on writing for a moment to where it lay.
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Orthanc(Receiver):
    """Orthanc with its defaults: only folder, ports and who may connect are set.

    With ``transcodes_to_jpeg_2000`` it stores what it receives in JPEG 2000, by its plugin for GDCM.
    Without ``no_delay`` its environment is as it was installed, and its answers wait for Nagle's
    algorithm: then it receives 20 instances a second, whatever the sender does.
    """

    name = "Orthanc"
    ae_title = "ORTHANC"

    def __init__(
        self,
        folder: Path,
        destinations: dict[str, int] | None = None,
        *,
        no_delay: bool = True,
        transcodes_to_jpeg_2000: bool = False,
    ) -> None:
        super().__init__(folder)
        self.transcodes_to_jpeg_2000 = transcodes_to_jpeg_2000
        self._no_delay = no_delay
        self._http_port = free_port()
        self._destinations = destinations or {}

    def start(self) -> None:
        """Start it and wait until it answers."""
        configuration = {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [_gdcm_plugin()] if self.transcodes_to_jpeg_2000 else [],
            **({"IngestTranscoding": JPEG2000Lossless} if self.transcodes_to_jpeg_2000 else {}),
            "HttpPort": self._http_port,
            "DicomPort": self.port,
            "DicomAet": self.ae_title,
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "UnknownSopClassAccepted": True,
            "DicomModalities": {name: [name, HOST, port] for name, port in self._destinations.items()},
        }
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(configuration))
        self._program = Program(
            [executable("Orthanc", "orthanc"), str(file)],
            folder=self.folder,
            log=self.folder / "orthanc.log",
            variables=environment(no_delay=self._no_delay),
        )
        self._program.wait_until(self._answers, _STARTS_WITHIN_SECONDS)

    def received(self) -> int:
        """What its statistics say."""
        return int(self._get("/statistics")["CountInstances"])

    def stored_bytes(self) -> int:
        """Bytes of its files."""
        return int(self._get("/statistics")["TotalDiskSize"])

    def _answers(self) -> bool:
        try:
            self._get("/system")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{HOST}:{self._http_port}{path}", timeout=60) as answer:
            return json.loads(answer.read())


def _gdcm_plugin() -> str:
    plugin = Path("/usr/share/orthanc/plugins/libOrthancGdcm.so")
    if not plugin.exists():
        raise BenchmarkFailure("Orthanc's plugin for GDCM is not installed (Debian: orthanc-gdcm)")
    return str(plugin)


class Storescp(Receiver):
    """DCMTK's ``storescp --fork``: a process for each association writes files, unflushed, unindexed."""

    name = "storescp --fork"
    ae_title = "STORESCP"
    options: tuple[str, ...] = ()

    def start(self) -> None:
        """Start it and wait until it listens."""
        files = self.folder / "files"
        files.mkdir(exist_ok=True)
        command = [executable("storescp", "dcmtk"), "--fork", *self.options, "-aet", self.ae_title]
        self._program = Program(
            [*command, "-od", str(files), str(self.port)],
            folder=self.folder,
            log=self.folder / "storescp.log",
            variables=environment(no_delay=True),
        )
        self._program.wait_until(lambda: listens(self.port), _STARTS_WITHIN_SECONDS)

    def received(self) -> int:
        """Its files."""
        return sum(1 for _ in (self.folder / "files").iterdir())


class IgnoringStorescp(Storescp):
    """``storescp --ignore --fork``: throws away what it is sent, so it shows what the wire can carry.

    It accepts every transfer syntax that it knows.
    """

    name = "storescp --ignore"
    options: tuple[str, ...] = ("--ignore", "+xa")
    keeps = False

    def received(self) -> int:
        """It keeps nothing."""
        return 0


class PickyIgnoringStorescp(IgnoringStorescp):
    """The same, but it accepts uncompressed transfer syntaxes alone."""

    options = ("--ignore",)


class PynetdicomStorescp(Receiver):
    """A storage SCP of pynetdicom: chunked receive, PDUs of 128 KiB, a file for each instance."""

    name = "pynetdicom"
    ae_title = "PYNETDICOM"

    def start(self) -> None:
        """Start it and wait until it listens."""
        files = self.folder / "files"
        files.mkdir(exist_ok=True)
        self._program = Program(
            [
                sys.executable,
                "-m",
                "benchmarks.pynetdicom_storescp",
                str(self.port),
                self.ae_title,
                str(files),
            ],
            folder=ROOT,
            log=self.folder / "pynetdicom.log",
        )
        self._program.wait_until(lambda: listens(self.port), _STARTS_WITHIN_SECONDS)

    def received(self) -> int:
        """Its files."""
        return sum(1 for path in (self.folder / "files").iterdir() if path.suffix == ".dcm")
