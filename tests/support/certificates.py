"""Certificates for tests, made with the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node.config.settings import TlsConfig

LOCAL = "DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Whoever signs certificates; ``certificate`` is what others trust."""

    def __init__(self, folder: Path, name: str = "Hospital CA") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.crt", folder / "ca.key"
        _openssl(
            *("req", "-x509", "-nodes", "-days", 30, "-subj", f"/CN={name}", *_NEW_KEY),
            *("-addext", "keyUsage=critical,keyCertSign", "-keyout", self._key, "-out", self.certificate),
        )

    def issue(self, name: str, names: str = LOCAL, *, days: int = 30) -> Pair:
        """Sign a certificate for ``names`` (subjectAltName); with negative ``days`` it is expired."""
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nkeyUsage=critical,digitalSignature\n")
        _openssl("req", "-nodes", "-subj", f"/CN={name}", *_NEW_KEY, "-keyout", pair.key, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", days, "-extfile", extensions, "-out", pair.certificate),
        )
        return pair

    def config(self, pair: Pair, **changes: Any) -> TlsConfig:
        """``[node.tls]`` of a node that shows ``pair`` and trusts this authority."""
        values: dict[str, Any] = {
            "port": 0,
            "certificate": pair.certificate,
            "key": pair.key,
            "ca": self.certificate,
        }
        return TlsConfig(**{**values, **changes})

    def dcmtk(self, pair: Pair) -> list[object]:
        """The options of DCMTK's tools that mean the same."""
        return ["+tls", pair.key, pair.certificate, "+cf", self.certificate]


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def _openssl(*arguments: object) -> None:
    executable = shutil.which("openssl")
    if executable is None:
        pytest.skip("openssl is not installed")
    done = subprocess.run(
        [executable, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
