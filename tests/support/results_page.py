"""Makes the checklist of ``docs/results.md`` from the marks of the tests: ``make results-page``.

A test says which lines it shows by ``@pytest.mark.checklist("G2", ...)``. A line that nothing here can
show says why. The marks are read from the source, so that nothing has to run.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
LINES = Path(__file__).with_name("results_checklist.toml")
BEGIN, END = "<!-- checklist: begin; written by `make results-page` -->", "<!-- checklist: end -->"
HOLDS, IN_PART, DOES_NOT_APPLY = "holds", "in part", "does not apply"


@dataclass(frozen=True)
class Line:
    """One line of the checklist. ``reason`` says why it does not apply, or what else is to know of it."""

    name: str
    text: str
    reason: str = ""
    applies: bool = True


@dataclass(frozen=True)
class Part:
    """Lines under one heading."""

    title: str
    lines: tuple[Line, ...]


def _parts() -> tuple[Part, ...]:
    content = tomllib.loads(LINES.read_text(encoding="utf-8"))
    return tuple(
        Part(part["title"], tuple(Line(**line) for line in part["line"])) for part in content["part"]
    )


def marks(root: Path = ROOT) -> dict[str, list[str]]:
    """For each line the tests that show it, as ``path::name``, in order."""
    found: dict[str, list[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "mark.checklist" not in source:
            continue
        for function, names in _marked(ast.parse(source)):
            for name in names:
                found.setdefault(name, []).append(f"{path.relative_to(root).as_posix()}::{function}")
    return found


def _marked(module: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in module.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.checklist":
                yield (
                    node.name,
                    [str(one.value) for one in decorator.args if isinstance(one, ast.Constant)],
                )


PARTS = _parts()


def problems(shown: Mapping[str, Sequence[str]], parts: Sequence[Part] = PARTS) -> list[str]:
    """Lines that nothing shows and no reason excuses, and marks of no line."""
    lines = {line.name: line for part in parts for line in part.lines}
    wrong = [f"a test shows {name}, which is no line" for name in sorted(shown.keys() - lines.keys())]
    for name, line in lines.items():
        if line.applies and not shown.get(name):
            wrong.append(f"no test shows {name}")
        if not line.applies and (not line.reason or shown.get(name)):
            wrong.append(f"{name} does not apply, and says no reason or has a test")
    return wrong


def table(shown: Mapping[str, Sequence[str]], parts: Sequence[Part] = PARTS) -> str:
    """The checklist in Markdown."""
    out = []
    for part in parts:
        out += [f"### {part.title}", "", "| | what | | shown by |", "|---|---|---|---|"]
        for line in part.lines:
            state = DOES_NOT_APPLY if not line.applies else IN_PART if line.reason else HOLDS
            tests = "<br>".join(f"`{_short(one)}`" for one in shown.get(line.name, []))
            last = "<br>".join(filter(None, [tests, line.reason]))
            out.append(f"| {line.name} | {line.text} | {state} | {last} |")
        out.append("")
    return "\n".join(out)


def _short(test: str) -> str:
    path, _, name = test.partition("::")
    return f"{path.removeprefix('tests/')}::{name}"


def page(text: str, body: str) -> str:
    """The page with ``body`` between its marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has not the marks {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{body}\n{END}{tail}"


def main() -> int:
    """Write the page; say what is missing."""
    shown = marks()
    wrong = problems(shown)
    for one in wrong:
        print(one, file=sys.stderr)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), table(shown)), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {sum(len(tests) for tests in shown.values())} marks")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
