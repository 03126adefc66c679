"""Draws a result: the slices with their contours and marks, and a panel of words below, never over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from node.results.pictures.anatomy import Anatomy
from node.results.pictures.drawing import WIDTH, drawn
from node.results.pictures.lettering import font_of, printable

_MARGIN = 36
# At half size, 512 pixels wide, the smallest text is still 14 pixels high.
TEXT_SIZE, TITLE_SIZE, WARNING_SIZE = 30, 40, 44
_SMALLEST_TEXT_SIZE = 28
_LINE, _LEADING = 42, 12
#: What a workstation shows without scrolling for long; the anatomy has its place above.
MOST_HEIGHT = 4096
# More than this nobody reads in a picture, and the Structured Report has it all.
_LONGEST_TEXT, _LONGEST_LINE = 600, 200
MORE = "and {} more, in the Structured Report"
_REGION_LEFT, _NAME_LEFT, _NUMBER_RIGHT, _UNIT_LEFT = _MARGIN + 42, 350, 904, 914
_BLACK, _PANEL, _WHITE, _GREY = (0, 0, 0), (18, 20, 24), (245, 245, 245), (165, 170, 178)
_GREEN, _AMBER = (110, 215, 130), (255, 176, 59)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class NumberRow:
    """One number; the ``colour`` of its region stands on the first row of that only."""

    region: str
    name: str
    number: str
    unit: str
    colour: Colour | None = None


@dataclass(frozen=True)
class CheckRow:
    """One check, answer or remark; ``passed`` is None for a plain text."""

    text: str
    passed: bool | None = None


@dataclass(frozen=True)
class Words:
    """All that the panel says, from top to bottom."""

    title: str
    numbers: Sequence[NumberRow] = ()
    checks: Sequence[CheckRow] = ()
    remarks: Sequence[str] = ()
    warning: str = ""
    footer: Sequence[str] = field(default=())


def draw(anatomy: Anatomy | None, words: Words) -> NDArray[np.uint8]:
    """Return the picture, (row, column, 3) uint8, ``WIDTH`` columns wide."""
    panel = _panel(words)
    if anatomy is None:
        return np.asarray(panel)
    image = drawn(anatomy)
    whole = Image.new("RGB", (WIDTH, image.height + panel.height), _BLACK)
    whole.paste(image, (0, 0))
    whole.paste(panel, (0, image.height))
    return np.asarray(whole)


# --- panel -------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """Some lines of the panel; ``paint`` is given the row of pixels that they begin in."""

    height: int
    paint: Callable[[ImageDraw.ImageDraw, int], None]


def _panel(words: Words) -> Image.Image:
    """Draw the panel, no taller than ``MOST_HEIGHT``: what has no room is counted instead."""
    numbers = [_number_row(row) for row in words.numbers]
    rows = [*map(_check_row, words.checks), *(_lines(one, TEXT_SIZE, _WHITE) for one in words.remarks)]
    above = [_lines(words.title, TITLE_SIZE, _WHITE), _space(8)]
    between = [_space(8)] if numbers else []
    below = [
        _space(12),
        _lines(words.warning, WARNING_SIZE, _AMBER),
        *(_lines(line, _SMALLEST_TEXT_SIZE, _GREY) for line in words.footer),
    ]
    room = MOST_HEIGHT - 2 * _MARGIN - sum(one.height for one in (*above, *between, *below))
    blocks = [*above, *_fitting(numbers, room * 2 // 3)]
    room -= sum(one.height for one in blocks) - sum(one.height for one in above)
    blocks += [*between, *_fitting(rows, room), *below]
    height = 2 * _MARGIN + sum(one.height for one in blocks)
    panel = Image.new("RGB", (WIDTH, height + height % 2), _PANEL)
    pen, y = ImageDraw.Draw(panel), _MARGIN
    for block in blocks:
        block.paint(pen, y)
        y += block.height
    return panel


def _fitting(blocks: list[_Block], room: int) -> list[_Block]:
    """Return the blocks that ``room`` has space for, and in place of the others how many they are."""
    if sum(one.height for one in blocks) <= room:
        return blocks
    kept: list[_Block] = []
    room -= _lines(MORE.format(len(blocks)), TEXT_SIZE, _WHITE).height
    for block in blocks:
        if block.height > room:
            break
        kept.append(block)
        room -= block.height
    return [*kept, _lines(MORE.format(len(blocks) - len(kept)), TEXT_SIZE, _WHITE)]


def _space(height: int) -> _Block:
    return _Block(height, lambda _pen, _y: None)


def _number_row(row: NumberRow) -> _Block:
    font = font_of(TEXT_SIZE)
    names = _wrapped(row.name, font, _NUMBER_RIGHT - 130 - _NAME_LEFT) or [""]
    region = _cut(row.region, font, _NAME_LEFT - _REGION_LEFT - 12)
    unit = _cut(row.unit, font, WIDTH - _UNIT_LEFT - 8)

    def paint(pen: ImageDraw.ImageDraw, y: int) -> None:
        if row.colour is not None:
            pen.rectangle((_MARGIN, y + 7, _MARGIN + 26, y + 33), fill=row.colour)
        pen.text((_REGION_LEFT, y), region, font=font, fill=_WHITE)
        pen.text((_NUMBER_RIGHT, y), row.number, font=font, fill=_WHITE, anchor="ra")
        pen.text((_UNIT_LEFT, y), unit, font=font, fill=_WHITE)
        for index, line in enumerate(names):
            pen.text((_NAME_LEFT, y + index * _LINE), line, font=font, fill=_GREY)

    return _Block(len(names) * _LINE, paint)


def _check_row(row: CheckRow) -> _Block:
    if row.passed is None:
        return _lines(row.text, TEXT_SIZE, _WHITE)
    word, colour = ("pass", _GREEN) if row.passed else ("FAIL", _AMBER)
    text = _lines(row.text, TEXT_SIZE, _WHITE if row.passed else _AMBER, left=_MARGIN + 90)

    def paint(pen: ImageDraw.ImageDraw, y: int) -> None:
        pen.text((_MARGIN, y), word, font=font_of(TEXT_SIZE), fill=colour)
        text.paint(pen, y)

    return _Block(max(text.height, TEXT_SIZE + _LEADING), paint)


def _lines(text: str, size: int, colour: Colour, left: int = _MARGIN) -> _Block:
    font = font_of(size)
    lines = _wrapped(text, font, WIDTH - left - _MARGIN)

    def paint(pen: ImageDraw.ImageDraw, y: int) -> None:
        for index, line in enumerate(lines):
            pen.text((left, y + index * (size + _LEADING)), line, font=font, fill=colour)

    return _Block(len(lines) * (size + _LEADING), paint)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in printable(shortened(text)).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_cut(word, font, width))
    return lines


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    shown = printable(text[:_LONGEST_LINE])
    if len(text) <= _LONGEST_LINE and font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(shown + "...") > width:
        shown = shown[:-1]
    return shown.rstrip() + "..."


def shortened(text: str) -> str:
    """Return so much of a text as has a place in the panel, cut between words where there are some."""
    if len(text) <= _LONGEST_TEXT:
        return text
    start = text[:_LONGEST_TEXT]
    return (start.rsplit(" ", 1)[0] if " " in start else start) + " ..."
