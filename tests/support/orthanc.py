"""A real Orthanc as the PACS, in a folder of its own and on free ports."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Pair
from tests.support.dcmtk import UNDELAYED
from tests.support.ports import free_port
from tests.support.waiting import wait_until


class Orthanc:
    """``port`` speaks DICOM, ``http_port`` REST; ``folder`` holds configuration, log and storage.

    With ``tls`` (its certificate, and whom it trusts) it speaks TLS alone, in both directions. It ends an
    association of which it hears nothing for ``scp_seconds``, and so one of which it takes no more. With
    ``has_gdcm`` it decodes JPEG 2000, by its plugin.
    """

    ae_title = "ORTHANC"

    def __init__(
        self,
        folder: Path,
        modalities: dict[str, tuple[str, int]] | None = None,
        *,
        tls: tuple[Pair, Path] | None = None,
        scp_seconds: int = 30,
        has_gdcm: bool = False,
    ) -> None:
        executable = shutil.which("Orthanc")
        if executable is None:
            pytest.skip("Orthanc is not installed (Debian: orthanc)")
        self._executable = executable
        self._folder = folder
        self._modalities = modalities or {}
        self._tls = tls
        self._scp_seconds = scp_seconds
        self._plugins = [_gdcm_plugin()] if has_gdcm else []
        self.port, self.http_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = {
            "Name": "pacs",
            "StorageDirectory": str(self._folder / "storage"),
            "IndexDirectory": str(self._folder / "index"),
            "Plugins": self._plugins,
            # what it can decode by itself it shall not leave to the plugin
            "Gdcm": {"Enable": True, "RestrictTransferSyntaxes": ["1.2.840.10008.1.2.4.90"]},
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": False,
            "DicomScpTimeout": self._scp_seconds,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "UnknownSopClassAccepted": True,
            "TranscodeDicomProtocol": True,
            "StableAge": 1,
            "DicomModalities": {
                name: {
                    "AET": name,
                    "Host": host,
                    "Port": port,
                    "AllowTranscoding": True,
                    "UseDicomTls": self._tls is not None,
                }
                for name, (host, port) in self._modalities.items()
            },
        }
        if self._tls is not None:
            pair, trusted = self._tls
            configuration |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(pair.certificate),
                "DicomTlsPrivateKey": str(pair.key),
                "DicomTlsTrustedCertificates": str(trusted),
                "DicomTlsRemoteCertificateRequired": True,
            }
        file = self._folder / "orthanc.json"
        file.write_text(json.dumps(configuration))
        log = (self._folder / "orthanc.log").open("ab")
        self._process = subprocess.Popen(
            [self._executable, str(file)], stdout=log, stderr=log, cwd=self._folder, env=UNDELAYED
        )
        log.close()
        wait_until(self._answers, 30, "Orthanc to answer")

    def stop(self) -> None:
        """Stop it; what it holds stays in its folder."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "orthanc.log").read_text()[-2000:]
        try:
            self.get("/system")
        except OSError:
            return False
        return True

    def get(self, path: str) -> Any:
        """JSON of a GET request."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def get_bytes(self, path: str) -> bytes:
        """Body of a GET request."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def post(self, path: str, body: Any) -> Any:
        """JSON of a POST request with a JSON body."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", data=json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())

    def post_bytes(self, path: str, body: bytes) -> Any:
        """JSON of a POST request with ``body`` as it is."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body, method="POST")
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())

    def instances(self) -> dict[str, str]:
        """SOP Instance UID to Orthanc's own name of each instance."""
        return {item["MainDicomTags"]["SOPInstanceUID"]: item["ID"] for item in self.get("/instances?expand")}

    def files(self, into: Path, modality: str | None = None) -> list[Path]:
        """Every held instance (of ``modality``) as a Part 10 file in ``into``."""
        into.mkdir(parents=True, exist_ok=True)
        paths = []
        for series in self.get("/series?expand"):
            if modality is not None and series["MainDicomTags"].get("Modality") != modality:
                continue
            for instance in series["Instances"]:
                path = into / f"{instance}.dcm"
                path.write_bytes(self.get_bytes(f"/instances/{instance}/file"))
                paths.append(path)
        return paths

    def modalities(self) -> list[str]:
        """Modality of each series it holds, sorted."""
        return sorted(item["MainDicomTags"].get("Modality", "") for item in self.get("/series?expand"))


def _gdcm_plugin() -> str:
    plugin = Path("/usr/share/orthanc/plugins/libOrthancGdcm.so")
    if not plugin.exists():
        pytest.skip("Orthanc's plugin for GDCM is not installed (Debian: orthanc-gdcm)")
    return str(plugin)


@contextmanager
def running_orthanc(
    folder: Path,
    modalities: dict[str, tuple[str, int]] | None = None,
    *,
    scp_seconds: int = 30,
    has_gdcm: bool = False,
) -> Iterator[Orthanc]:
    """Run a fresh Orthanc for the length of the block."""
    orthanc = Orthanc(folder, modalities, scp_seconds=scp_seconds, has_gdcm=has_gdcm)
    orthanc.start()
    try:
        yield orthanc
    finally:
        orthanc.stop()
