"""The benchmarks themselves, at a small size: what they count, write and say, never how fast it was."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import report, sending
from benchmarks.figures import Case, Target
from benchmarks.images import Images
from benchmarks.peers import Storescp
from benchmarks.processes import BenchmarkFailure

ROOT = Path(__file__).parents[2]
GROUPS = {
    "receiving": ["store", "nagle", "small", "memory", "idle", "disk"],
    "all else": ["index", "get", "decode", "latency", "models", "codec"],
    "settling": ["lossless", "backlog"],
}
SMALL = {
    "runs": 1,
    "instances": 8,
    "associations": 1,
    "small-instances": 20,
    "index-rows": 2000,
    "large-object-bytes": 67108864,
    "idle-associations": 20,
    "backlog-instances": 40,
    "latency-seconds": 1,
    "segments-ahead": 1,
}


def require_peers() -> None:
    for tool, package in (("storescu", "dcmtk"), ("Orthanc", "orthanc")):
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"{tool} is not installed (Debian: {package})")
    if not Path("/usr/share/orthanc/plugins/libOrthancGdcm.so").exists():
        pytest.skip("Orthanc's plugin for GDCM is not installed (Debian: orthanc-gdcm)")


@pytest.mark.parametrize("group", GROUPS)
def test_every_row_counts_what_was_sent_and_gives_figures_on_paper(group: str, tmp_path: Path) -> None:
    """A run ends well only when every receiver held what it was sent; its figures are then everywhere."""
    require_peers()
    page = tmp_path / "docs" / "performance.md"
    page.parent.mkdir()
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    figures = tmp_path / "figures.json"
    said = {**SMALL, "rows": ",".join(GROUPS[group]), "folder": tmp_path, "page": page, "json": figures}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *(f"--{name}={value}" for name, value in said.items())],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads(figures.read_text())["cases"]
    assert list(dict.fromkeys(case["row"] for case in cases)) == GROUPS[group]
    assert [
        case for case in cases if not case["figures"] or not all(map(len, case["figures"].values()))
    ] == []
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "\nold\n" not in text
    assert [row for row in GROUPS[group] if f"### {report.ROWS[row]}" not in text] == []
    pictures = re.findall(r"\((pictures/[\w.-]+)\)", text)
    assert [name for name in pictures if "<svg" not in (page.parent / name).read_text()] == []
    assert [path for path in tmp_path.iterdir() if path.name.startswith("anode-benchmarks-")] == []


def test_the_groups_are_all_rows() -> None:
    """No row is left out of the test above, and each has its title."""
    assert sorted(row for rows in GROUPS.values() for row in rows) == sorted(program.ROWS)
    assert sorted(program.ROWS) == sorted(report.ROWS)


def test_an_instance_that_goes_missing_ends_the_run(tmp_path: Path) -> None:
    """A receiver that holds fewer instances than it was sent gives no figure."""
    require_peers()

    class Forgetful(Storescp):
        def received(self) -> int:
            return max(0, super().received() - 1)

    series = Images(tmp_path / "images").small(1, 3)
    with (
        Forgetful(tmp_path / "forgetful") as receiver,
        pytest.raises(BenchmarkFailure, match="was sent 3 instances and holds 2"),
    ):
        sending.storescu(receiver, series)


def test_every_sending_has_identifiers_of_its_own(tmp_path: Path) -> None:
    """Renewed files hold new UIDs at each level, and nothing else has changed."""
    [series] = Images(tmp_path).small(1, 2)
    before = [path.read_bytes() for path in series.paths]
    held = {series.study_instance_uid, series.series_instance_uid, *series.sop_instance_uids}
    series.renew()
    after = [path.read_bytes() for path in series.paths]
    assert held.isdisjoint({series.study_instance_uid, series.series_instance_uid, *series.sop_instance_uids})
    for old, new, sop_instance_uid in zip(before, after, series.sop_instance_uids, strict=True):
        assert len(old) == len(new)
        assert new.count(sop_instance_uid.encode()) == 2
        assert new.count(series.study_instance_uid.encode()) == 1
        assert not any(uid.encode() in new for uid in held)
        assert sum(one != other for one, other in zip(old, new, strict=True)) < 5 * 44


@pytest.mark.parametrize(
    ("target", "value", "holds"),
    [
        (Target("a", "b", 1.5), 2.0, True),
        (Target("a", "b", 2.5), 2.0, False),
        (Target("a", "", 30.0), 20.0, False),
        (Target("a", "", 30.0, is_most=True), 20.0, True),
        (Target("b", "a", 0.4, is_most=True), 0.5, False),
        (Target("a", "b"), 2.0, None),
    ],
)
def test_a_target_is_judged_by_the_medians(target: Target, value: float, holds: bool | None) -> None:
    """At least and at most, ratios and figures: the medians decide, not a single round."""
    [verdict] = Case(
        "row", "title", "unit", {"a": [10.0, 20.0, 90.0], "b": [30.0, 9.0, 10.0]}, (target,)
    ).verdicts()
    assert (verdict.value, verdict.holds) == (pytest.approx(value), holds)


def test_a_page_without_its_marks_is_left_alone(tmp_path: Path) -> None:
    """Figures are never written to where somebody has written prose."""
    page = tmp_path / "page.md"
    page.write_text("prose")
    with pytest.raises(BenchmarkFailure, match="lacks its marks"):
        report.write_page(page, {}, [])
    assert page.read_text() == "prose"


def test_the_page_has_its_marks_and_every_row() -> None:
    """The page of the project can take the figures, and says of each row what is done."""
    text = program.PAGE.read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
    assert [row for row in program.ROWS if f"| `{row}` |" not in text] == []


def test_nothing_that_runs_imports_the_benchmarks() -> None:
    """The benchmarks look at the node from outside: no arrow leads back."""
    files = [path for layer in ("node", "handlers", "models") for path in (ROOT / layer).rglob("*.py")]
    assert files
    assert [path for path in files if "benchmarks" in imported_rooms(path.read_text())] == []
    assert imported_rooms("from benchmarks.images import Images\nimport node.app") == {"benchmarks", "node"}


def imported_rooms(source: str) -> set[str]:
    modules: set[str] = set()
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            modules |= {name.name for name in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            modules.add(statement.module or "")
    return {module.partition(".")[0] for module in modules}
