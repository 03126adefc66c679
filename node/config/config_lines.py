"""On which line of a TOML document each key stands; ``tomllib`` does not tell.

The text has been read by ``tomllib`` before, so it is known to be valid TOML 1.0: the scanner
only has to find keys, headers and the ends of values, not to judge them.
"""

from __future__ import annotations

import tomllib
from typing import Any

Path = tuple[str | int, ...]
"""``("peers", 0, "port")``: keys by name, elements of arrays by number."""

_BLANK = " \t"
_SPACE = " \t\r\n"


def lines_of(text: str) -> dict[Path, int]:
    """Map the path of every table, key and array element in ``text`` to its line, counted from 1.

    A table's line is its first header; a key's line is where its name stands.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[Path, int] = {}
        self._elements: dict[Path, int] = {}  # arrays of tables: how many elements were opened
        self._counted = 0  # the line number of _counted_to, so that counting stays linear
        self._counted_to = 0

    def document(self) -> None:
        table: Path = ()
        while self._skip(_SPACE):
            if self.text.startswith("[[", self.position):
                table = self._header(2)
            elif self.text[self.position] == "[":
                table = self._header(1)
            else:
                self._key_and_value(table)

    def _header(self, brackets: int) -> Path:
        line = self._line()
        self.position += brackets
        names = self._key()
        self.position += brackets
        path: Path = ()
        for number, name in enumerate(names):
            path = (*path, name)
            if brackets == 2 and number == len(names) - 1:
                self._elements[path] = self._elements.get(path, 0) + 1
                self.lines.setdefault(path, line)
            if path in self._elements:  # [peers.x] after [[peers]] speaks of its last element
                path = (*path, self._elements[path] - 1)
            self.lines.setdefault(path, line)
        return path

    def _key_and_value(self, table: Path) -> None:
        line = self._line()
        path = table
        for name in self._key():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self.position += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip(_BLANK)
            start = self.position
            if self.text[start] in "\"'":
                self._string()
                names.append(_unquoted(self.text[start : self.position]))
            else:
                while self.text[self.position].isalnum() or self.text[self.position] in "_-":
                    self.position += 1
                names.append(self.text[start : self.position])
            self._skip(_BLANK)
            if self.text[self.position] != ".":
                return names
            self.position += 1

    def _value(self, path: Path) -> None:
        opening = self.text[self.position]
        if opening in "\"'":
            self._string()
        elif opening == "[":
            self.position += 1
            number = 0
            while self._skip(_SPACE + ",") and self.text[self.position] != "]":
                self.lines.setdefault((*path, number), self._line())
                self._value((*path, number))
                number += 1
            self.position += 1
        elif opening == "{":
            self.position += 1
            while self._skip(_SPACE + ",") and self.text[self.position] != "}":
                self._key_and_value(path)
            self.position += 1
        else:
            while self.position < len(self.text) and self.text[self.position] not in ",]}#\r\n":
                self.position += 1

    def _string(self) -> None:
        quote = self.text[self.position]
        many = self.text.startswith(quote * 3, self.position)
        self.position += 3 if many else 1
        while True:
            if quote == '"' and self.text[self.position] == "\\":
                self.position += 2
            elif many and self.text.startswith(quote * 3, self.position):
                self.position += 3
                while self.text.startswith(quote, self.position):  # """a"""" ends with a quote inside
                    self.position += 1
                return
            elif not many and self.text[self.position] == quote:
                self.position += 1
                return
            else:
                self.position += 1

    def _skip(self, characters: str) -> bool:
        """Go past ``characters`` and, where lines may end, comments; return whether text is left."""
        while self.position < len(self.text):
            if self.text[self.position] == "#" and "\n" in characters:
                end = self.text.find("\n", self.position)
                self.position = len(self.text) if end < 0 else end
            elif self.text[self.position] not in characters:
                return True
            else:
                self.position += 1
        return False

    def _line(self) -> int:
        self._counted += self.text.count("\n", self._counted_to, self.position)
        self._counted_to = self.position
        return self._counted + 1


def _unquoted(literal: str) -> str:
    document: dict[str, Any] = tomllib.loads(f"key = {literal}")
    return str(document["key"])
