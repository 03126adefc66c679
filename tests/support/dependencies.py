"""What the project depends on, directly and through others: is it reviewed, whole, and without known holes?

``make audit`` runs it. Three questions are asked:

- Is each package in ``tests/dependencies.toml``, under a licence that is accepted there? What comes newly
  with an update of another is seen here.
- Do the installed versions fit each other (``pip check``)?
- Does an advisory of the Python Packaging Advisory Database name an installed version (``pip-audit``)?
  Where the service cannot be reached, that is said, and is a failure only with ``ANODE_AUDIT_REQUIRED=1``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REVIEWED = Path(__file__).parents[1] / "dependencies.toml"
PROJECT = "anode"
#: An old version with advisories that will never go away: who knows of none cannot be asked.
CANARY = "pillow==9.0.0"
_LONGEST_SECONDS = 300


def closure(extras: Iterable[str] = ()) -> set[str]:
    """Names of the installed packages that the project needs, directly or through others."""
    found: set[str] = set()
    wanted = [(PROJECT, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        name, of_extras = wanted.pop()
        if (name, of_extras) in seen:
            continue
        seen.add((name, of_extras))
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for text in requires:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*of_extras, "")):
                wanted.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found - {PROJECT}


def licence_of(name: str) -> str:
    """What the metadata of a package say of its licence, in one line."""
    facts = metadata.metadata(name)
    expression = facts.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [
        one.rpartition(" :: ")[2] for one in facts.get_all("Classifier") or () if one.startswith("License ::")
    ]
    return " AND ".join(sorted(classifiers)) or str(facts.get("License") or "unknown").strip().split("\n")[0]


def unreviewed(installed: Mapping[str, str], reviewed: Iterable[str], where: str) -> list[str]:
    """Say which of ``installed`` (name to licence) was not reviewed."""
    return [
        f"{name} ({installed[name]}) is new: look at who makes it and why it came, then add it to {where}"
        for name in sorted(set(installed) - set(reviewed))
    ]


def unaccepted(
    installed: Mapping[str, str], accepted: Iterable[str], exceptions: Mapping[str, str]
) -> list[str]:
    """Say whose licence has a part that is not one of ``accepted``, and that was not looked at by itself."""
    known = re.compile(r"\b(" + "|".join(map(re.escape, accepted)) + r")\b")
    return [
        f"{name} is under '{licence}', which nobody has accepted"
        for name, licence in sorted(installed.items())
        if exceptions.get(name) != licence
        and not all(known.search(part) for part in re.split(r"\bAND\b|\bOR\b|\bWITH\b", licence))
    ]


def vulnerable(report: Mapping[str, Any]) -> list[str]:
    """Say which packages of a report of pip-audit have advisories."""
    return [
        f"{one['name']} {one['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'none'}"
        for one in report.get("dependencies", ())
        for hole in one.get("vulns", ())
    ]


def pip_audit(*arguments: str) -> Mapping[str, Any] | None:
    """Run pip-audit and return its report; None when the service gives none."""
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", *arguments],
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def advisories() -> list[str] | None:
    """Say which installed packages have advisories; None where nobody can be asked.

    pip-audit takes a package that the service does not know for one without advisories. So it is first
    asked for one that has some.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(f"{CANARY}\n")
        file.flush()
        canary = pip_audit("--disable-pip", "--no-deps", "--requirement", file.name)
    if canary is None or not vulnerable(canary):
        return None
    report = pip_audit("--local", "--skip-editable")
    return None if report is None else vulnerable(report)


def advisory_problems(*, is_required: bool) -> list[str]:
    """Print what the advisories say, and return what is wrong; ``is_required``: not to know is wrong."""
    holes = advisories()
    if holes is None:
        told = "advisories: the service cannot be reached from here, so nothing was compared with them"
        print(told)
        return [told] if is_required else []
    print(f"advisories: {len(holes)} name an installed version")
    return holes


def main() -> int:
    """Ask all, print what was found, and return the exit status."""
    reviewed = tomllib.loads(REVIEWED.read_text())
    of_node = {name: licence_of(name) for name in closure()}
    of_tests = {name: licence_of(name) for name in closure(["test"]) - set(of_node)}
    problems = unreviewed(of_node, reviewed["node"], f"'node' of tests/{REVIEWED.name}")
    of_torch = {name: licence_of(name) for name in closure(["torch", "monai"]) - set(of_node) - set(of_tests)}
    problems += unreviewed(of_tests, reviewed["test"], f"'test' of tests/{REVIEWED.name}")
    problems += unreviewed(of_torch, reviewed["torch"], f"'torch' of tests/{REVIEWED.name}")
    problems += unaccepted({**of_node, **of_tests, **of_torch}, reviewed["licences"], reviewed["exceptions"])
    print(
        f"{len(of_node)} packages of the node, {len(of_tests)} more of the tests and"
        f" {len(of_torch)} of the extras torch and monai are on the list or new"
    )
    fits = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if fits.returncode:
        problems += fits.stdout.splitlines()
    problems += advisory_problems(is_required=bool(os.environ.get("ANODE_AUDIT_REQUIRED")))
    for problem in problems:
        print(f"audit: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
