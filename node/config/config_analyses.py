"""Reads ``[[analyses]]``: what a model takes is asked of the model, so that every fault is told at load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.config import config_lines, config_tables
from node.config.config_reading import TableReading
from node.config.config_values import listed, pattern_text, shown, suggestion
from node.config.settings import AnalysisConfig, Pattern, Patterns
from node.index.matching_rules import alternatives, analysis_of, comparison, differs

if TYPE_CHECKING:
    from models.base import Need
    from models.types import ParameterValue
    from node.catalogue.catalogue import Description  # loads numpy

_TITLE = "[[analyses]]"
#: Where an input comes from, and the key that says which series it is.
_KEYS = {"study": "inputs", "prior": "priors"}


@dataclass(frozen=True)
class _Stanza:
    path: config_lines.Path
    raw: Mapping[str, Any]
    values: dict[str, Any]


def read(reading: TableReading, peers: set[str]) -> list[AnalysisConfig]:
    """Read the analyses; what is wrong with them is noted in ``reading``."""
    stanzas: list[_Stanza] = []
    lines: dict[str, int] = {}
    for path, raw in reading.elements("analyses"):
        values = reading.values(
            path,
            _TITLE,
            raw,
            config_tables.ANALYSIS,
            required=("name", "model"),
            others=config_tables.ANALYSIS_TABLES,
        )
        free_name = values.get("name")
        if free_name in lines:
            message = f"{_TITLE} name: '{free_name}' is already the analysis of line {lines[free_name]}"
            reading.problem((*path, "name"), message)
        elif free_name is not None:
            lines[free_name] = reading.line_of(path)
        reading.destinations((*path, "send_to"), _TITLE, values, peers)
        stanzas.append(_Stanza(path, raw, values))
    _refuse_circles(reading, stanzas)
    return [_Analysis(reading, stanza, lines).config() for stanza in stanzas]


def _refuse_circles(reading: TableReading, stanzas: Sequence[_Stanza]) -> None:
    """Refuse analyses that would wait for each other for ever."""
    after = {one.values["name"]: one.values.get("after", ()) for one in stanzas if "name" in one.values}
    told: set[str] = set()
    for stanza in stanzas:
        name = stanza.values.get("name")
        if name is None or name in told or name in after[name]:
            continue
        circle = _circle(name, after)
        if circle:
            told.update(circle)
            words = f"{listed(circle)} wait for each other"
            reading.problem(
                (*stanza.path, "after"), f"{_TITLE} after: {words}: none of them would ever begin"
            )


def _circle(name: str, after: Mapping[str, Sequence[str]]) -> list[str]:
    """A way from ``name`` back to it along ``after``; empty when there is none."""
    ways = [[name]]
    seen = set()
    while ways:
        way = ways.pop()
        for one in after.get(way[-1], ()):
            if one == name:
                return way
            if one not in seen:
                seen.add(one)
                ways.append([*way, one])
    return []


class _Analysis:
    """One stanza, beside the names of all analyses."""

    def __init__(self, reading: TableReading, stanza: _Stanza, names: Mapping[str, int]) -> None:
        self._reading = reading
        self._path = stanza.path
        self._raw = stanza.raw
        self._values = stanza.values
        self._names = names

    def config(self) -> AnalysisConfig:
        self._after()
        values = {**self._values, "when": self._when()}
        description = None
        if "model" in values:
            values["model"] = self._reference(values["model"])
            description = self._described(values["model"])
        tables = {key: self._table(key) for key in ("parameters", "inputs", "priors")}
        if description is not None:
            values["parameters"] = self._parameters(description, tables["parameters"])
            for comes_from, key in _KEYS.items():
                values[key] = self._inputs(description, comes_from, key, tables[key])
            self._refuse_modalities(description.needs[0], values["when"], ("when",))
        return AnalysisConfig(**{"name": "", "model": "", **values})

    # --- the model -------------------------------------------------------------

    def _reference(self, model: str) -> str:
        """A name as it is; of a folder, which is told by its separator or first letter, the whole path."""
        if os.sep not in model and not model.startswith((".", "~")):
            return model
        folder = Path(model).expanduser()
        return str((self._reading.path.absolute().parent / folder).resolve())

    def _described(self, model: str) -> Description | None:
        from models import registry  # loads numpy and more: only a file with analyses pays for it
        from node.catalogue import catalogue

        try:
            return catalogue.describe(model)
        except (registry.UnknownModel, registry.UnusableModel) as error:
            for fault in str(error).splitlines():
                self._problem("model", fault)
        return None

    def _parameters(self, description: Description, given: Mapping[str, Any]) -> dict[str, ParameterValue]:
        """Those that are not as they are by default."""
        from node.catalogue import catalogue, parameters

        try:
            read_values = catalogue.read_parameters(description, given)
        except parameters.ParameterFaults as error:
            for key, fault in error.faults.items():
                self._problem("parameters", f"{key}: {fault}", key)
            return {}
        unset = {one.name: one.default for one in description.parameters}
        return {key: value for key, value in read_values.items() if value != unset[key]}

    def _inputs(
        self, description: Description, comes_from: str, key: str, given: Mapping[str, Any]
    ) -> dict[str, dict[str, Pattern]]:
        """Which series the further inputs are that come from the study, or from an earlier one."""
        needs = {need.name: need for need in description.needs}
        patterns = {}
        for name, raw in given.items():
            need = needs.get(name)
            if need is None or need.comes_from != comes_from:
                self._problem(key, f"{name}: {self._misplaced(description, name, need, comes_from)}", name)
            else:
                path = (*self._path, key, name)
                patterns[name] = self._reading.patterns(path, _TITLE, raw, f"{key}: {name}")
                self._refuse_modalities(need, patterns[name], (key, name))
        for need in description.needs:
            # The patterns of the analysis itself count for a prior.
            if need.comes_from == comes_from == "study" and not need.is_optional and need.name not in given:
                example = f'inputs = {{ {need.name} = {{ Modality = "..." }} }}'
                told = f"the model needs '{need.name}', another series of the study: say which, {example}"
                self._reading.problem((*self._path, key), f"{_TITLE} {key}: {told}")
        return patterns

    def _refuse_modalities(self, need: Need, patterns: Patterns, place: tuple[str, ...]) -> None:
        """Refuse to select series of a modality that the model would refuse, each and every one."""
        for pattern in alternatives(patterns.get("Modality", ())):
            is_taken = any(
                differs({"Modality": pattern}, {"Modality": one}) is None for one in need.modalities
            )
            if need.modalities and not is_taken:
                taken = " or ".join(need.modalities)
                message = f"Modality: the model takes {taken} here, and would refuse every '{pattern}'"
                path = (*self._path, *place, "Modality")
                self._reading.problem(path, f"{_TITLE} {': '.join(place)}: {message}")

    def _misplaced(self, description: Description, name: str, need: Need | None, comes_from: str) -> str:
        if need is not None and need.comes_from == "series":
            return "that is the series that the analysis is started for, and 'when' says which"
        if need is not None:
            return f"this input is one of {_where(need.comes_from)}; it belongs in {_KEYS[need.comes_from]}"
        known = [one.name for one in description.needs if one.comes_from == comes_from]
        others = suggestion(name, known) or (f"; there are {listed(known)}" if known else "")
        return f"the model has no such input of {_where(comes_from)}{others}"

    # --- other analyses --------------------------------------------------------

    def _after(self) -> None:
        name = self._values.get("name")
        for number, one in enumerate(self._values.get("after", ())):
            place = number if isinstance(self._raw["after"], list) else None
            if one == name:
                self._problem("after", f"'{one}' is this analysis itself", place)
            elif one not in self._names:
                self._problem("after", f"there is no analysis '{one}'{suggestion(one, self._names)}", place)

    def _when(self) -> dict[str, Pattern]:
        """Attributes, and results of analyses before this one: ``ANALYSIS.NAME``, also as nested tables."""
        raw = self._raw.get("when", {})
        if not isinstance(raw, dict):
            return self._reading.patterns((*self._path, "when"), _TITLE, raw)
        attributes = {key: value for key, value in raw.items() if not _asks_for_result(key, value)}
        patterns = self._reading.patterns((*self._path, "when"), _TITLE, attributes)
        for place, key, value in _flat(raw):
            if not _asks_for_result(key, value):
                continue
            try:
                self._refuse_unasked(key)
                patterns[key] = pattern_text(value)
                for one in alternatives(patterns[key]):
                    comparison(one)
            except ValueError as error:
                self._reading.problem((*self._path, "when", *place), f"{_TITLE} when: {key}: {error}")
        return patterns

    def _refuse_unasked(self, key: str) -> None:
        if analysis_of(key, self._values.get("after", ())) is not None:
            return
        known = analysis_of(key, self._names)
        if known is None:
            first = key.partition(".")[0]
            hint = suggestion(first, self._names)
            raise ValueError(f"no analysis is called '{first}', whose result this would be{hint}")
        if known == self._values.get("name"):
            raise ValueError("a result of this analysis itself, which it cannot wait for")
        raise ValueError(f"a result of '{known}', which has to be over first; add after = [\"{known}\"]")

    # --- tables and problems ---------------------------------------------------

    def _table(self, key: str) -> Mapping[str, Any]:
        value = self._raw.get(key, {})
        if isinstance(value, dict):
            return value
        self._problem(key, f"expected a table in braces, not {shown(value)}")
        return {}

    def _problem(self, key: str, message: str, place: str | int | None = None) -> None:
        path = (*self._path, key) if place is None else (*self._path, key, place)
        self._reading.problem(path, f"{_TITLE} {key}: {message}")


def _where(comes_from: str) -> str:
    return "an earlier study" if comes_from == "prior" else "the study"


def _asks_for_result(key: str, value: Any) -> bool:
    return "." in key or isinstance(value, dict)


def _flat(raw: Mapping[str, Any], place: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str, Any]]:
    """(place, key, value): what TOML reads as a table within a table becomes ``ANALYSIS.NAME``."""
    found: list[tuple[tuple[str, ...], str, Any]] = []
    for key, value in raw.items():
        here = (*place, key)
        if isinstance(value, dict):
            found += _flat(value, here)
        else:
            found.append((here, ".".join(here), value))
    return found
