"""Words of which explanations are made."""

from __future__ import annotations


def instances(count: int) -> str:
    """Return a number of instances in words."""
    return "1 instance" if count == 1 else f"{count} instances"


def sentence(text: str) -> str:
    """Return ``text`` as a sentence."""
    text = text.strip()
    if not text:
        return ""
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")
