"""Programs that judge result objects: each returns the lines that say ERROR, empty when all is well."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PIXELMED = Path("/usr/share/java/pixelmed.jar")


def dciodvfy(file: Path) -> list[str]:
    """David Clunie's validator of IODs."""
    return [line for line in _run("dciodvfy", file, package="dicom3tools") if line.startswith("Error")]


def pixelmed_sr(file: Path) -> list[str]:
    """PixelMed's validator of SR templates, the judge of IHE's tests.

    Java's default limits on XPath are too small for TID 1500.
    """
    if not PIXELMED.exists():
        pytest.skip("the PixelMed toolkit is not installed (Debian: libpixelmed-java)")
    lines = _run(
        "java",
        # It compiles a large style sheet each time; these halve what that costs.
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        *(f"-Djdk.xml.xpath{limit}=0" for limit in ("ExprOpLimit", "TotalOpLimit", "ExprGrpLimit")),
        "-cp",
        "/usr/share/java/*",
        "com.pixelmed.validate.DicomSRValidator",
        file,
        package="default-jre-headless",
    )
    problems = [line for line in lines if re.search(r"\b(Error|Exception)\b", line)]
    # A validator that did not come to its end has found nothing, which is no praise.
    return problems if "IOD validation complete" in lines else [*problems, "the validator did not finish"]


def dsrdump(file: Path) -> list[str]:
    """DCMTK's reader of Structured Reports."""
    lines = _run("dsrdump", file, package="dcmtk")
    errors = [line for line in lines if line.startswith(("E:", "F:"))]
    return errors if any("CONTAINER" in line for line in lines) else [*errors, "nothing was read"]


def dcm2pnm(file: Path, picture: Path) -> list[str]:
    """DCMTK's renderer; it writes ``picture``."""
    lines = _run("dcm2pnm", "+on", file, picture, package="dcmtk")
    errors = [line for line in lines if line.startswith(("E:", "F:"))]
    return errors if picture.exists() and picture.stat().st_size else [*errors, "nothing was drawn"]


def _run(tool: str, *arguments: object, package: str) -> list[str]:
    executable = shutil.which(tool)
    if executable is None:
        pytest.skip(f"{tool} is not installed (Debian: {package})")
    done = subprocess.run(
        [executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    return done.stdout.splitlines()
