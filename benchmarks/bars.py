"""Horizontal bars as plain SVG: a group for each case, a bar for each contestant."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median

from benchmarks.figures import Case
from benchmarks.words import number

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 250, 90, 56
_BAR, _GAP, _GROUP_GAP = 16, 4, 26
#: Ours first; the others from dark to light. Each is told apart by its words as well.
_OURS, _OTHERS = ("#1f6f8b", "#6fb1c7", "#a9d3e0"), ("#8a4f2a", "#c98a5b", "#9a9a9a", "#c6c6c6")


def picture(title: str, cases: Sequence[Case]) -> str:
    """An SVG document of the medians of ``cases``, all in the same unit."""
    most = max(median(values) for case in cases for values in case.figures.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    drawn, y = [], _TOP
    for case in cases:
        drawn.append(_text(12, y + 12, case.title, "bold"))
        y += 20
        for name, values in case.figures.items():
            middle, low, high = median(values) * scale, min(values) * scale, max(values) * scale
            centre = y + _BAR / 2
            drawn += [
                _text(_LEFT - 8, y + 12.5, name, anchor="end"),
                f'<rect x="{_LEFT}" y="{y}" width="{middle:.1f}" height="{_BAR}"'
                f' fill="{_colour(case, name)}"/>',
                f'<line x1="{_LEFT + low:.1f}" x2="{_LEFT + high:.1f}" y1="{centre:.1f}" y2="{centre:.1f}"'
                ' stroke="#222" stroke-width="1.5"/>',
                _text(_LEFT + max(middle, high) + 6, y + 12.5, number(median(values))),
            ]
            y += _BAR + _GAP
        y += _GROUP_GAP - _GAP
    heading = _text(12, 24, title, "bold", size=16)
    unit = _text(12, 42, f"{cases[0].unit}; bar: median, line: lowest to highest of the rounds")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img"'
            f' font-family="system-ui, sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>',
            heading,
            unit,
            *drawn,
            "</svg>",
            "",
        ]
    )


def _colour(case: Case, name: str) -> str:
    ours = [other for other in case.figures if other.startswith("anode")]
    theirs = [other for other in case.figures if not other.startswith("anode")]
    if name in ours:
        return _OURS[ours.index(name) % len(_OURS)]
    return _OTHERS[theirs.index(name) % len(_OTHERS)]


def _text(
    x: float, y: float, text: str, weight: str = "normal", *, anchor: str = "start", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" text-anchor="{anchor}" font-size="{size}"'
        f' fill="#222">{escape(text)}</text>'
    )
