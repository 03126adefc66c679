"""The audit of dependencies notices what it is there for."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support import dependencies

HOLE = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}]}
WHOLE: dict[str, Any] = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
UNKNOWN = {"dependencies": [{"name": "pillow", "skip_reason": "Dependency not found"}]}


def answering(canary: Mapping[str, Any] | None, environment: Mapping[str, Any] | None) -> Any:
    return lambda *arguments: canary if "--requirement" in arguments else environment


def test_a_package_that_is_not_on_the_list_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tomllib.loads(dependencies.REVIEWED.read_text())
    of_node = dependencies.closure()
    assert {"pydicom", "numpy", "cffi"} <= of_node
    assert not {"pytest", "ruff"} & of_node
    assert "pytest" in dependencies.closure(["test"])
    installed = dict.fromkeys(of_node, "MIT")
    assert dependencies.unreviewed(installed, listed["node"], "the list") == []
    [problem] = dependencies.unreviewed(installed, set(listed["node"]) - {"cffi"}, "the list")
    assert problem.startswith("cffi (MIT) is new")


@pytest.mark.parametrize(
    ("licence", "is_accepted"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND 0BSD AND MIT", True),
        ("MIT AND AGPL-3.0", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("unknown", False),
        ("the one that was looked at", True),
    ],
)
def test_a_licence_that_nobody_accepted_is_named(licence: str, is_accepted: bool) -> None:
    exceptions = {"a": "the one that was looked at"}
    problems = dependencies.unaccepted({"a": licence}, ["MIT", "BSD", "0BSD"], exceptions)
    assert (problems == []) == is_accepted


def test_an_advisory_for_an_installed_version_fails_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "pip_audit", answering(HOLE, WHOLE))
    assert dependencies.advisory_problems(is_required=True) == []
    monkeypatch.setattr(dependencies, "pip_audit", answering(HOLE, HOLE))
    assert dependencies.advisory_problems(is_required=False) == ["a 1: PYSEC-1, fixed in 2"]


@pytest.mark.parametrize("canary", [None, UNKNOWN, WHOLE])
def test_a_service_that_knows_of_no_hole_in_what_has_some_counts_as_not_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], canary: Mapping[str, Any] | None
) -> None:
    monkeypatch.setattr(dependencies, "pip_audit", answering(canary, WHOLE))
    assert dependencies.advisory_problems(is_required=False) == []
    assert "the service cannot be reached" in capsys.readouterr().out
    [problem] = dependencies.advisory_problems(is_required=True)
    assert "nothing was compared" in problem
