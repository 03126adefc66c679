"""The letters of the pictures: one typeface, and text in what it has."""

from __future__ import annotations

import unicodedata

from PIL import ImageFont


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


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that no font of the system is needed."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow without FreeType draws no text of this size"
    return font
