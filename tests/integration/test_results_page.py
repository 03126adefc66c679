"""The checklist of docs/results.md is what the tests show, line by line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support import results_page
from tests.support.results_page import Line, Part


def test_the_page_is_what_the_marks_of_the_tests_say() -> None:
    text = results_page.PAGE.read_text(encoding="utf-8")
    made = results_page.page(text, results_page.table(results_page.marks()))
    assert text == made, "docs/results.md is not what the marks say: run `make results-page`"


def test_every_line_has_a_test_or_a_reason() -> None:
    assert results_page.problems(results_page.marks()) == []


def test_names_of_lines_are_told_apart() -> None:
    names = [line.name for part in results_page.PARTS for line in part.lines]
    assert len(set(names)) == len(names)


def test_a_line_without_a_test_or_a_reason_is_told_and_so_is_a_mark_of_no_line(tmp_path: Path) -> None:
    parts = (
        Part(
            "part",
            (
                Line("X1", "is shown"),
                Line("X2", "is not shown"),
                Line("X3", "cannot be", "a reason", applies=False),
                Line("X4", "cannot be", applies=False),
            ),
        ),
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest\n\n\n@pytest.mark.checklist('X1', 'X9')\ndef test_that_it_is():\n    pass\n"
    )
    shown = results_page.marks(tmp_path)
    assert shown == {
        "X1": ["tests/test_it.py::test_that_it_is"],
        "X9": ["tests/test_it.py::test_that_it_is"],
    }
    assert results_page.problems(shown, parts) == [
        "a test shows X9, which is no line",
        "no test shows X2",
        "X4 does not apply, and says no reason or has a test",
    ]
    written = results_page.table(shown, parts)
    assert "| X1 | is shown | holds | `test_it.py::test_that_it_is` |" in written
    assert "| X3 | cannot be | does not apply | a reason |" in written


def test_a_page_without_its_marks_is_no_page() -> None:
    with pytest.raises(ValueError, match="has not the marks"):
        results_page.page("# nothing\n", "")


def test_each_mark_stands_at_a_test_that_is_collected() -> None:
    for tests in results_page.marks().values():
        for test in tests:
            path, _, name = test.partition("::")
            tree = ast.parse((results_page.ROOT / path).read_text(encoding="utf-8"))
            assert name.startswith("test_"), test
            assert any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body), test
