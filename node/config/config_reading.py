"""Reads the tables of a configuration document; what is wrong is gathered with its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.config import config_lines, config_tables
from node.config.config_values import Reader, matchable_keyword, pattern_text, shown, suggestion
from node.config.settings import Pattern
from node.index.matching_rules import alternatives, comparison

ONLY_CALLS_US = "; a peer that is never called has addresses in place of host and port"


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong, and where."""

    line: int
    message: str


class TableReading:
    """A document and what was found wrong with it so far.

    ``only_call_us`` are the AE titles of peers that cannot be called, with the lines of their tables.
    """

    def __init__(self, document: dict[str, Any], lines: dict[config_lines.Path, int], path: Path) -> None:
        self.document = document
        self.lines = lines
        self.path = path
        self.problems: list[Problem] = []
        self.only_call_us: dict[str, int] = {}

    def elements(self, array: str) -> list[tuple[config_lines.Path, dict[str, Any]]]:
        """The tables of a named array, as ``tables_of`` gives them."""
        return self.tables_of((array,), self.document.get(array, []))

    def tables_of(self, path: tuple[str, ...], raw: Any) -> list[tuple[config_lines.Path, dict[str, Any]]]:
        """The tables of an array, each with its path; a fault where there is no such array."""
        array = ".".join(path)
        if isinstance(raw, dict):
            self.problem(path, f"[{array}]: there may be several; write [[{array}]]")
            return []
        if not isinstance(raw, list) or not is_tables(raw):
            if raw != []:
                self.problem(path, f"{array}: expected tables; write [[{array}]]")
            return []
        return [((*path, number_of_element), element) for number_of_element, element in enumerate(raw)]

    def values(
        self,
        path: config_lines.Path,
        title: str,
        raw: Mapping[str, Any],
        readers: Mapping[str, Reader],
        *,
        required: tuple[str, ...] = (),
        when: bool = False,
        others: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Read the keys of one table; what is unfit is reported and left out.

        Of ``others`` it is only known that they may be there.
        """
        values: dict[str, Any] = {}
        for key, value in raw.items():
            if key == "when" and when:
                values[key] = self.patterns((*path, key), title, value)
            elif key in others:
                continue
            elif key not in readers:
                names = [*readers, *others, *(["when"] if when else [])]
                hint = suggestion(key, names) or self.home_of(key)
                self.problem((*path, key), f"{title} {key}: unknown key{hint}")
            else:
                try:
                    values[key] = readers[key](value)
                except ValueError as error:
                    self.problem((*path, key), f"{title} {key}: {error}")
        for key in required:
            if key not in raw:
                hint = ONLY_CALLS_US if key in ("host", "port") else ""
                self.problem(path, f"{title}: '{key}' is missing{hint}")
        return values

    def patterns(
        self, path: config_lines.Path, title: str, raw: Any, what: str = "when"
    ) -> dict[str, Pattern]:
        """Read ``when`` or what is like it: DICOM keywords, each with a pattern or several."""
        if not isinstance(raw, dict):
            message = f'{title} {what}: expected a table such as {{ Modality = "CT" }}, not {shown(raw)}'
            self.problem(path, message)
            return {}
        patterns: dict[str, Pattern] = {}
        for keyword, pattern in raw.items():
            try:
                patterns[matchable_keyword(keyword)] = _no_comparison(pattern_text(pattern))
            except ValueError as error:
                self.problem((*path, keyword), f"{title} {what}: {keyword}: {error}")
        return patterns

    def home_of(self, key: str) -> str:
        """Name the table in which a misplaced key is known."""
        homes = [f"[{table}]" for table, (_, readers) in config_tables.TABLES.items() if key in readers]
        homes += ["[node.tls]"] if key in config_tables.TLS else []
        homes += [f"[[{title}]]" for title, readers in config_tables.ARRAYS.items() if key in readers]
        return f"; it belongs in {' or '.join(homes)}" if homes else ""

    def problem(self, path: config_lines.Path, message: str) -> None:
        """Note what is wrong with the value at ``path``."""
        self.problems.append(Problem(self.line_of(path), message))

    def line_of(self, path: config_lines.Path) -> int:
        """The line of a value, or of the nearest table around it that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def destinations(
        self, path: config_lines.Path, title: str, values: dict[str, Any], peers: set[str]
    ) -> None:
        """Note what ``send_to`` names that cannot be sent to."""
        for number_of_element, peer in enumerate(values.get("send_to", ())):
            if peer not in peers:
                hint = suggestion(peer, peers) or "; add a [[peers]] table for it"
                message = f"{title} send_to: '{peer}' is not among the peers{hint}"
                self.problem((*path, number_of_element), message)
            elif peer in self.only_call_us:
                message = (
                    f"{title} send_to: '{peer}' only calls us; add host and port to its table of line "
                    f"{self.only_call_us[peer]}"
                )
                self.problem((*path, number_of_element), message)


def _no_comparison(pattern: Pattern) -> Pattern:
    """Refuse what is meant for a number: the text of an attribute would never match it."""
    for one in alternatives(pattern):
        try:
            compared = comparison(one)
        except ValueError:
            # As text that begins so: "<MPR Range>".
            continue
        if compared is not None:
            raise ValueError(
                f"'{one}' compares numbers, which only results of other analyses can be asked for; "
                "of an attribute give the text, with * and ? for what may vary"
            )
    return pattern


def is_tables(value: Any) -> bool:
    """Whether a value is an array of tables that is not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
