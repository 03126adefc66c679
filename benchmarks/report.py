"""What a run found: lines for people, and the figures' part of ``docs/performance.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

from benchmarks import bars
from benchmarks.figures import Case
from benchmarks.processes import BenchmarkFailure
from benchmarks.words import compared, limit, number, said, spread

BEGIN = "<!-- figures: begin; written by `make bench DOCS=1` -->"
END = "<!-- figures: end -->"

ROWS: Mapping[str, str] = {
    "store": "C-STORE, sender without Nagle's algorithm",
    "nagle": "C-STORE, sender with Nagle's algorithm",
    "small": "C-STORE of objects of 2 KB",
    "index": "C-STORE with a full index",
    "get": "Retrieval, stored transfer syntax accepted",
    "decode": "Retrieval, decoding needed",
    "latency": "How long C-STORE takes under load",
    "memory": "One large object",
    "idle": "Idle associations",
    "lossless": "Compressed and proven, beside Orthanc's transcoding",
    "backlog": "Receiving while the node settles",
    "models": "A model in a process of its own",
    "disk": "The disk's own rates",
    "codec": "The decoders' own rates",
}
#: Rows that have a picture; the others are one or two figures.
_PICTURES = ("store", "nagle", "get", "decode", "latency")


def lines(case: Case) -> list[str]:
    """The figures of a case and its verdicts."""
    out = [f"{case.row}: {case.title} ({case.unit})"]
    for name, values in case.figures.items():
        out.append(f"    {name:<38} {number(median(values)):>9}   ({spread(values)})")
    for verdict in case.verdicts():
        words = f"    {compared(verdict):<38} {number(verdict.value):>9}"
        words += f"   ({number(verdict.lowest)} - {number(verdict.highest)})"
        out.append(words if verdict.holds is None else f"{words}  {limit(verdict)}: {said(verdict)}")
    return out + [f"    {note}" for note in case.notes]


def summary(cases: Sequence[Case]) -> str:
    """How many targets hold, and those that do not."""
    judged = [(case, verdict) for case in cases for verdict in case.verdicts() if verdict.holds is not None]
    missed = [
        f"    {case.row}, {case.title}: {compared(verdict)} is {number(verdict.value)}, {limit(verdict)}"
        for case, verdict in judged
        if not verdict.holds
    ]
    return "\n".join([f"{len(judged) - len(missed)} of {len(judged)} targets hold", *missed])


def write_page(page: Path, facts: Mapping[str, str], cases: Sequence[Case]) -> None:
    """Write figures and pictures into the page between its two marks; the rest stays as it is."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise BenchmarkFailure(f"{page} lacks its marks: {BEGIN} and {END}, each once")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    (page.parent / "pictures").mkdir(exist_ok=True)
    for row, ours in _by_row(cases):
        if row in _PICTURES:
            _picture_file(page, row).write_text(bars.picture(ROWS[row], ours))
    body = "\n".join(_page_lines(facts, cases))
    page.write_text(f"{head}{BEGIN}\n{body}\n{END}{tail}")


def _by_row(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    for row, ours in groupby(cases, key=lambda case: case.row):
        yield row, list(ours)


def _picture_file(page: Path, row: str) -> Path:
    return page.parent / "pictures" / f"performance-{row}.svg"


def _page_lines(facts: Mapping[str, str], cases: Sequence[Case]) -> Iterator[str]:
    yield from ("", "| | |", "| --- | --- |")
    yield from (f"| {name} | {value} |" for name, value in facts.items())
    yield ""
    first, *missed = summary(cases).splitlines()
    yield f"**{first}.**{' These do not:' if missed else ''}"
    if missed:
        yield ""
    yield from (f"- {line.strip()}" for line in missed)
    for row, ours in _by_row(cases):
        yield from ("", f"### {ROWS[row]}", "")
        if row in _PICTURES:
            yield from (f"![{ROWS[row]}](pictures/performance-{row}.svg)", "")
        yield from _tables(ours)


def _tables(cases: Sequence[Case]) -> Iterator[str]:
    yield from ("| | | median | lowest - highest |", "| --- | --- | ---: | ---: |")
    for case in cases:
        for name, values in case.figures.items():
            yield f"| {case.title} | {name} | {number(median(values))} {case.unit} | {spread(values)} |"
    verdicts = [(case, verdict) for case in cases for verdict in case.verdicts()]
    if verdicts:
        yield from (
            "",
            "| | | value | lowest - highest | target | |",
            "| --- | --- | ---: | ---: | --- | --- |",
        )
    for case, verdict in verdicts:
        yield (
            f"| {case.title} | {compared(verdict)} | {number(verdict.value)}"
            f" | {number(verdict.lowest)} - {number(verdict.highest)} | {limit(verdict)} | {said(verdict)} |"
        )
    for note in dict.fromkeys(note for case in cases for note in case.notes):
        yield from ("", f"{note[:1].upper()}{note[1:]}{'' if note.endswith('.') else '.'}")
