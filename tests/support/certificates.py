"""Certificates for tests, made with the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node.config.settings import TlsConfig

LOCAL = "DNS:localhost,IP:127.0.0.1"
EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Whoever signs certificates; ``certificate`` is what others trust.

    One ``under`` another has its certificate from there.
    """

    def __init__(
        self, folder: Path, name: str = "Hospital CA", *, days: int = 30, under: Authority | None = None
    ) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.crt", folder / "ca.key"
        if under is not None:
            constraints = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
            pair = under.issue(name, days=days, extensions=constraints)
            shutil.copyfile(pair.certificate, self.certificate)
            shutil.copyfile(pair.key, self._key)
            return
        _openssl(
            *("req", "-x509", "-nodes", "-days", days, "-subj", f"/CN={name}", *EC_KEY),
            *(
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign",
                "-keyout",
                self._key,
                "-out",
                self.certificate,
            ),
        )

    def issue(
        self,
        name: str,
        names: str = LOCAL,
        *,
        days: int = 30,
        new_key: Sequence[object] = EC_KEY,
        digest: str = "sha256",
        usage: str = "",
        extensions: str = "keyUsage=critical,digitalSignature\n",
    ) -> Pair:
        """Sign a certificate for ``names`` (subjectAltName); with negative ``days`` it is expired.

        ``usage`` is its extended key usage, as openssl writes it.
        """
        pair, request = self._request(name, new_key)
        file = request.with_suffix(".ext")
        usage = f"extendedKeyUsage={usage}\n" if usage else ""
        file.write_text(f"subjectAltName={names}\n{extensions}{usage}")
        _openssl(
            *("x509", "-req", f"-{digest}", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", days, "-extfile", file, "-out", pair.certificate),
        )
        return pair

    def issue_for_later(self, name: str) -> Pair:
        """Sign a certificate that is valid from 2090 to 2099."""
        pair, request = self._request(name, EC_KEY)
        extensions = request.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={LOCAL}\n")
        self._as_authority(
            *("-in", request, "-out", pair.certificate, "-extfile", extensions),
            *("-startdate", "20900101000000Z", "-enddate", "20990101000000Z"),
        )
        return pair

    def revoking(self, *pairs: Pair, days: int = 30) -> Path:
        """Return a list that revokes ``pairs``; with negative ``days`` it is out of date."""
        for pair in pairs:
            self._as_authority("-revoke", pair.certificate)
        path = self._folder / f"revoked-{len(pairs)}-{days}.crl"
        dates = ("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z")
        self._as_authority("-gencrl", "-out", path, *(dates if days < 0 else ("-crldays", days)))
        return path

    def _request(self, name: str, new_key: Sequence[object]) -> tuple[Pair, Path]:
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        _openssl("req", "-nodes", "-subj", f"/CN={name}", *new_key, "-keyout", pair.key, "-out", request)
        return pair, request

    def _as_authority(self, *arguments: object) -> None:
        settings, books = self._folder / "ca.cnf", self._folder / "index.txt"
        if not settings.exists():
            books.touch()
            settings.write_text(
                f"[ca]\ndefault_ca=this\n[this]\ndatabase={books}\nnew_certs_dir={self._folder}\n"
                "rand_serial=yes\ndefault_md=sha256\npolicy=any\ndefault_days=30\nunique_subject=no\n"
                "[any]\ncommonName=supplied\n"
            )
        keys = ("-cert", self.certificate, "-keyfile", self._key)
        _openssl("ca", "-batch", "-config", settings, *keys, *arguments)

    def alone(self, name: str) -> Pair:
        """Make a certificate that signs itself and nothing else."""
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        _openssl(
            *("req", "-x509", "-nodes", "-days", 30, "-subj", f"/CN={name}", *EC_KEY),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={LOCAL}"),
            *("-addext", "keyUsage=critical,digitalSignature", "-keyout", pair.key, "-out", pair.certificate),
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


def _openssl(*arguments: object) -> None:
    executable = shutil.which("openssl")
    if executable is None:
        pytest.skip("openssl is not installed")
    done = subprocess.run(
        [executable, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
