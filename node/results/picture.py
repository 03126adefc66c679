"""Draws a result: the slice with its contours, and a panel of words below it, never over it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from node.results.anatomy import Anatomy

WIDTH = 1024
_MARGIN = 36
_MARK_MARGIN = 64
_ANATOMY_BOX = (WIDTH - 2 * _MARK_MARGIN, 840)
# At half size, 512 pixels wide, the smallest text is still 14 pixels high.
TEXT_SIZE, TITLE_SIZE, WARNING_SIZE = 30, 40, 44
_SMALLEST_TEXT_SIZE = 28
_LINE = 42
_REGION_LEFT, _NAME_LEFT, _NUMBER_RIGHT, _UNIT_LEFT = _MARGIN + 42, 350, 904, 914
_BLACK, _PANEL, _WHITE, _GREY = (0, 0, 0), (18, 20, 24), (245, 245, 245), (165, 170, 178)
_GREEN, _AMBER = (110, 215, 130), (255, 176, 59)
_MARK = (255, 222, 120)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class NumberRow:
    """One number: ``region`` and its ``colour`` stand on the first row of a region only."""

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
    image = _anatomy(anatomy)
    whole = Image.new("RGB", (WIDTH, image.height + panel.height), _BLACK)
    whole.paste(image, (0, 0))
    whole.paste(panel, (0, image.height))
    return np.asarray(whole)


# --- anatomy -----------------------------------------------------------------


def _anatomy(anatomy: Anatomy) -> Image.Image:
    """Return the slice in its true proportions, marks outside it."""
    rows, columns = anatomy.grey.shape[:2]
    height_mm, width_mm = rows * anatomy.spacing_mm[0], columns * anatomy.spacing_mm[1]
    scale = min(_ANATOMY_BOX[0] / width_mm, _ANATOMY_BOX[1] / height_mm)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    shown = Image.fromarray(anatomy.grey).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(shown)
    for segment, mask in anatomy.masks:
        for line in _contours(mask, size):
            pen.line(line, fill=segment.colour, width=3, joint="curve")
    whole = Image.new("RGB", (WIDTH, size[1] + 2 * _MARK_MARGIN), _BLACK)
    left, top = (WIDTH - size[0]) // 2, _MARK_MARGIN
    whole.paste(shown, (left, top))
    _marks(ImageDraw.Draw(whole), anatomy.edges, (left, top, left + size[0], top + size[1]))
    return whole


def _contours(mask: NDArray[np.bool_], size: tuple[int, int]) -> list[list[tuple[float, float]]]:
    """Return the outlines of ``mask`` in pixels of the scaled picture, half way between voxels."""
    rows, columns = mask.shape
    padded = np.pad(mask, 1).astype(np.float32)
    found = []
    for contour in find_contours(padded, 0.5):
        # A voxel's centre is half a voxel in from its edge; the padding adds one.
        x = (contour[:, 1] - 0.5) * size[0] / columns
        y = (contour[:, 0] - 0.5) * size[1] / rows
        found.append(list(zip(x.tolist(), y.tolist(), strict=True)))
    return found


def _marks(pen: ImageDraw.ImageDraw, edges: Sequence[str], box: tuple[int, int, int, int]) -> None:
    font = _font(TITLE_SIZE)
    left, top, right, bottom = box
    middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
    places = (
        (left - 10, middle_y, "rm"),
        (right + 10, middle_y, "lm"),
        (middle_x, top - 8, "mb"),
        (middle_x, bottom + 8, "mt"),
    )
    for text, (x, y, anchor) in zip(edges, places, strict=True):
        pen.text((x, y), text, font=font, fill=_MARK, anchor=anchor)


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
    font = _font(TEXT_SIZE)
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
    pen.text((_MARGIN, y), word, font=_font(TEXT_SIZE), fill=colour)
    return _lines(pen, y, row.text, TEXT_SIZE, _WHITE if row.passed else _AMBER, left=_MARGIN + 90)


def _lines(
    pen: ImageDraw.ImageDraw, y: int, text: str, size: int, colour: Colour, left: int = _MARGIN
) -> int:
    font = _font(size)
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


def printable(text: str) -> str:
    """Return ``text`` in characters that the font has: Latin-1, others as their base letter or ``?``."""
    composed = unicodedata.normalize("NFC", text).replace("–", "-").replace("—", "-").replace("−", "-")
    return "".join(_printable_character(character) for character in composed)


def _printable_character(character: str) -> str:
    if character.isspace():
        return " "
    if ord(character) < 256:
        return character if character.isprintable() else "?"
    base = unicodedata.normalize("NFKD", character)[0]
    return base if ord(base) < 128 else "?"


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that no font of the system is needed."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow without FreeType draws no text of this size"
    return font
