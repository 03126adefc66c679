"""Draws a result: the slices with their contours and marks, and a panel of words below, never over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
_LINE = 42
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


def _panel(words: Words) -> Image.Image:
    tall = Image.new("RGB", (WIDTH, _tallest(words)), _PANEL)
    pen = ImageDraw.Draw(tall)
    y = _MARGIN
    y = _lines(pen, y, words.title, TITLE_SIZE, _WHITE) + 8
    for row in words.numbers:
        y = _number_row(pen, y, row)
    y += 8 if words.numbers else 0
    for check in words.checks:
        y = _check_row(pen, y, check)
    for remark in words.remarks:
        y = _lines(pen, y, remark, TEXT_SIZE, _WHITE)
    y += 12
    y = _lines(pen, y, words.warning, WARNING_SIZE, _AMBER)
    for line in words.footer:
        y = _lines(pen, y, line, _SMALLEST_TEXT_SIZE, _GREY)
    height = y + _MARGIN
    return tall.crop((0, 0, WIDTH, height + height % 2))


def _number_row(pen: ImageDraw.ImageDraw, y: int, row: NumberRow) -> int:
    font = font_of(TEXT_SIZE)
    if row.colour is not None:
        pen.rectangle((_MARGIN, y + 7, _MARGIN + 26, y + 33), fill=row.colour)
    pen.text(
        (_REGION_LEFT, y), _cut(row.region, font, _NAME_LEFT - _REGION_LEFT - 12), font=font, fill=_WHITE
    )
    pen.text((_NUMBER_RIGHT, y), row.number, font=font, fill=_WHITE, anchor="ra")
    pen.text((_UNIT_LEFT, y), _cut(row.unit, font, WIDTH - _UNIT_LEFT - 8), font=font, fill=_WHITE)
    for line in _wrapped(row.name, font, _NUMBER_RIGHT - 130 - _NAME_LEFT) or [""]:
        pen.text((_NAME_LEFT, y), line, font=font, fill=_GREY)
        y += _LINE
    return y


def _check_row(pen: ImageDraw.ImageDraw, y: int, row: CheckRow) -> int:
    if row.passed is None:
        return _lines(pen, y, row.text, TEXT_SIZE, _WHITE)
    word, colour = ("pass", _GREEN) if row.passed else ("FAIL", _AMBER)
    pen.text((_MARGIN, y), word, font=font_of(TEXT_SIZE), fill=colour)
    return _lines(pen, y, row.text, TEXT_SIZE, _WHITE if row.passed else _AMBER, left=_MARGIN + 90)


def _lines(
    pen: ImageDraw.ImageDraw, y: int, text: str, size: int, colour: Colour, left: int = _MARGIN
) -> int:
    font = font_of(size)
    for line in _wrapped(text, font, WIDTH - left - _MARGIN):
        pen.text((left, y), line, font=font, fill=colour)
        y += size + 12
    return y


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in printable(text).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_cut(word, font, width))
    return lines


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    shown = printable(text)
    if font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(shown + "...") > width:
        shown = shown[:-1]
    return shown.rstrip() + "..."


def _tallest(words: Words) -> int:
    """An upper bound of the panel's height: no character is wider than its font is high."""
    texts = [words.title, words.warning, *words.remarks, *words.footer, *(row.text for row in words.checks)]
    texts += [f"{row.name} " * 2 for row in words.numbers]
    lines = sum(math.ceil(len(text) * WARNING_SIZE / (WIDTH - 200)) + text.count(" ") + 1 for text in texts)
    return (lines + len(words.numbers) + 2) * (WARNING_SIZE + 12) + 4 * _MARGIN
