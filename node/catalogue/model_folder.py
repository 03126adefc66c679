"""Reads a model folder's ``analysis.toml``: every fault at once, each with its line and a suggestion."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.base import ModelCard, Need, Parameter
from models.registry import UnknownModel, UnusableModel
from models.types import Code
from node.catalogue import folder_keys, folder_sense
from node.catalogue.folder_tables import (
    BundleTable,
    CheckTable,
    InputTable,
    LabelTable,
    MeasurementTable,
    ModelFolder,
    OutputTable,
    RunnerTable,
)
from node.catalogue.parameters import read_one
from node.catalogue.pinned_files import STATED, PackageSource, PinnedFile, joint_digest
from node.config import config_lines
from node.config.config_values import Reader, listed, shown, suggestion

FILE = STATED
_ARRAYS = ("input", "parameter", "output", "measurement", "check")
_NETWORK = Code("123110", "DCM", "Artificial Intelligence")


class FolderFaults(UnusableModel):
    """``problems`` lists every fault of a model folder with its place.

    ``pins`` are the files that it pins all the same, those that it does wrongly without a digest, and
    ``unpinned`` what it leaves out.
    """

    def __init__(
        self, problems: list[str], pins: Sequence[PinnedFile] = (), unpinned: Sequence[str] = ()
    ) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.pins = tuple(pins)
        self.unpinned = tuple(unpinned)


def read(folder: Path) -> ModelFolder:
    """Read the model folder ``folder``; none of its other files is looked at.

    Raises
    ------
    UnknownModel
        when there is no such folder, or no ``analysis.toml`` in it
    FolderFaults
        with every fault, each ``FILE:LINE: [table] key: what is wrong``
    """
    path = folder / FILE
    try:
        content = path.read_bytes()
        document_text = content.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        what = f"no {FILE} in it" if folder.is_dir() else "no such folder"
        raise UnknownModel(f"'{folder}' is no model folder: there is {what}") from None
    except OSError as error:
        raise FolderFaults([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError:
        raise FolderFaults([f"{path}: the file is not UTF-8 text"]) from None
    try:
        document = tomllib.loads(document_text)
    except tomllib.TOMLDecodeError as error:
        raise FolderFaults([f"{path}: not valid TOML: {error}"]) from None
    digest = hashlib.sha256(content).hexdigest()
    return _Reading(document, config_lines.lines_of(document_text), folder, digest).folder()


class _Reading:
    """One pass over a document; faults are gathered, not raised, until the end."""

    def __init__(
        self, document: dict[str, Any], lines: dict[config_lines.Path, int], folder: Path, digest: str
    ) -> None:
        self._document = document
        self._lines = lines
        self._folder = folder
        self._digest = digest
        self._problems: list[tuple[int, str]] = []
        self._pins: list[PinnedFile] = []
        self._unpinned: tuple[str, ...] = ()

    def folder(self) -> ModelFolder:
        known = ("analysis", "runner", *_ARRAYS)
        for key, value in self._document.items():
            if key not in known:
                what = f"[{key}]" if isinstance(value, dict) else f"[[{key}]]"
                self._problem((key,), f"{what}: unknown table{suggestion(key, known)}")
        card = self._values(("analysis",), self._only_table("analysis"), folder_keys.ANALYSIS)
        runner = self._runner()
        kind = runner.kind
        inputs = [self._input(path, raw, kind) for path, raw in self._tables("input")]
        parameters = [self._parameter(path, raw) for path, raw in self._tables("parameter")]
        outputs = [self._output(path, raw) for path, raw in self._tables("output")]
        measurements = self._all("measurement", MeasurementTable, folder_keys.MEASUREMENT)
        checks = self._all("check", CheckTable, folder_keys.CHECK)
        self._refuse_faults()
        read_folder = ModelFolder(
            self._folder,
            self._card(card, runner, inputs, outputs),
            runner,
            tuple(inputs),
            tuple(parameters),
            tuple(outputs),
            tuple(measurements),
            tuple(checks),
            self._digest,
        )
        for place, message in folder_sense.faults(read_folder):
            title = place[:2] if len(place) > 1 and isinstance(place[1], int) else place[:1]
            self._problem(place, f"{_title(title) if title else ''}{message}")
        self._refuse_faults()
        return read_folder

    def _refuse_faults(self) -> None:
        if self._problems:
            ordered = sorted(set(self._problems))
            told = [f"{self._folder / FILE}:{line}: {message}" for line, message in ordered]
            raise FolderFaults(told, self._pins, self._unpinned)

    # --- tables --------------------------------------------------------------

    def _runner(self) -> RunnerTable:
        raw = dict(self._only_table("runner"))
        files = [
            self._file(path, one) for path, one in self._tables_of(("runner", "files"), raw.pop("files", []))
        ]
        bundle_raw = raw.pop("bundle", {})
        bundle = BundleTable()
        if not isinstance(bundle_raw, dict):
            self._problem(("runner", "bundle"), f"[runner] bundle: {shown(bundle_raw)} is no table")
        elif bundle_raw:
            bundle = BundleTable(
                **self._values(("runner", "bundle"), bundle_raw, folder_keys.BUNDLE, required=())
            )
        values = self._values(("runner",), raw, folder_keys.RUNNER)
        self._unpinned = values.get("unpinned", ())
        return RunnerTable(**{"kind": "python", **values}, files=tuple(filter(None, files)), bundle=bundle)

    def _file(self, path: config_lines.Path, raw: dict[str, Any]) -> PinnedFile | None:
        values = self._values(path, raw, folder_keys.FILE, required=("path", "sha256"))
        if "path" in values:
            self._pins.append(PinnedFile(values["path"], values.get("sha256", "")))
        if not {"path", "sha256"} <= values.keys():
            return None
        package = {key: raw[key] for key in folder_keys.PACKAGE if key in raw}
        source = None
        if package:
            missing = [key for key in folder_keys.PACKAGE if key not in package]
            if missing:
                self._problem(
                    path, f"[[runner.files]]: {listed(missing)} is missing beside {', '.join(package)}"
                )
            else:
                source = PackageSource(*(values.get(key, "") for key in folder_keys.PACKAGE))
        self._pins[-1] = PinnedFile(values["path"], values["sha256"], source)
        return self._pins[-1]

    def _input(self, path: config_lines.Path, raw: dict[str, Any], kind: str) -> InputTable:
        readers = (
            folder_keys.NEED if kind not in ("onnx", "torch") else {**folder_keys.NEED, **folder_keys.TENSOR}
        )
        values = self._values(path, raw, readers, required=(), other=folder_keys.TENSOR)
        for name in folder_keys.TENSOR:
            if name in raw and name not in readers:
                self._problem((*path, name), f"[[input]] {name}: counts for the runners onnx and torch alone")
        need_kind = values.pop("kind", "volume")
        need = Need(
            values.pop("name", need_kind),
            need_kind,
            values.pop("comes_from", "series"),
            values.pop("is_optional", False),
            values.pop("modalities", ()),
            values.pop("unit", ""),
            values.pop("min_slices", 0),
        )
        return InputTable(need, **{key: one for key, one in values.items() if key not in folder_keys.NEED})

    def _parameter(self, path: config_lines.Path, raw: dict[str, Any]) -> Parameter:
        values = self._values(path, raw, folder_keys.PARAMETER, required=("name", "default", "meaning"))
        parameter = Parameter(**{"name": "", "default": 0, "meaning": "", **values})
        for choice in parameter.choices:
            try:
                read_one(Parameter(parameter.name, parameter.default, ""), choice)
            except ValueError as error:
                self._problem((*path, "choices"), f"[[parameter]] choices: {error}")
        try:
            read_one(parameter, parameter.default)
        except ValueError as error:
            self._problem((*path, "default"), f"[[parameter]] default: {error}")
        return parameter

    def _output(self, path: config_lines.Path, raw: dict[str, Any]) -> OutputTable:
        raw = dict(raw)
        labels = [
            self._label(one, each) for one, each in self._tables_of((*path, "labels"), raw.pop("labels", []))
        ]
        values = self._values(path, raw, folder_keys.OUTPUT, required=("name", "as"))
        values = {"kind": "segmentation", "name": "", **values}
        return OutputTable(**values, labels=tuple(labels))

    def _label(self, path: config_lines.Path, raw: dict[str, Any]) -> LabelTable:
        values = self._values(path, raw, folder_keys.LABEL, required=("index", "name"))
        values = {"index": 0, "name": "", **values}
        values.setdefault("label", values["name"].replace("-", " ").capitalize())
        values.setdefault("type", private_code(values["name"], values["label"]))
        return LabelTable(**values)

    def _all(self, array: str, kind: Any, readers: Mapping[str, tuple[str, Reader]]) -> list[Any]:
        required = {"measurement": ("name", "of", "as"), "check": ("name", "reason")}[array]
        read_tables = []
        for path, raw in self._tables(array):
            values = self._values(path, raw, readers, required=required)
            if all(folder_keys.field_of(readers, key) in values for key in required):
                read_tables.append(kind(**values))
        return read_tables

    def _card(
        self,
        values: dict[str, Any],
        runner: RunnerTable,
        inputs: list[InputTable],
        outputs: list[OutputTable],
    ) -> ModelCard:
        citation = values.pop("citation", "")
        if citation:
            values["evidence"] = f"{values['evidence']} Citation: {citation}"
        values["limits"] = f"{values['limits']} Status: {values.pop('status', 'research')}."
        values.setdefault("inputs", "; ".join(map(_told_input, inputs)))
        told = [_told_output(one) for one in outputs]
        values.setdefault("outputs", "; ".join(told) or "what the program finds")
        values.setdefault("family", _NETWORK)
        return ModelCard(**values, weights_sha256=joint_digest(runner.files, self._digest))

    # --- values --------------------------------------------------------------

    def _only_table(self, key: str) -> dict[str, Any]:
        raw = self._document.get(key)
        if raw is None:
            self._problem((), f"[{key}]: this table is missing")
            return {}
        if not isinstance(raw, dict):
            self._problem((key,), f"[{key}]: {shown(raw)} is no table; write [{key}]")
            return {}
        return raw

    def _tables(self, array: str) -> list[tuple[config_lines.Path, dict[str, Any]]]:
        return self._tables_of((array,), self._document.get(array, []))

    def _tables_of(self, path: config_lines.Path, raw: Any) -> list[tuple[config_lines.Path, dict[str, Any]]]:
        if not isinstance(raw, list) or not all(isinstance(one, dict) for one in raw):
            self._problem(path, f"[[{_dotted(path)}]]: expected tables, not {shown(raw)}")
            return []
        return [((*path, number), one) for number, one in enumerate(raw)]

    def _values(
        self,
        path: config_lines.Path,
        raw: Mapping[str, Any],
        readers: Mapping[str, tuple[str, Reader]],
        *,
        required: tuple[str, ...] | None = None,
        other: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Read the keys of one table into the fields that they stand for; faults are noted, and left out."""
        values: dict[str, Any] = {}
        title = _title(path)
        for key, value in raw.items():
            if key in readers:
                field, reader = readers[key]
                try:
                    values[field] = reader(value)
                except ValueError as error:
                    self._problem((*path, key), f"{title}{key}: {error}")
            elif key not in (other or {}):
                self._problem((*path, key), f"{title}{key}: unknown key{suggestion(key, readers)}")
        for key in folder_keys.REQUIRED[str(path[0])] if required is None else required:
            if key not in raw:
                self._problem(path, f"{title.strip()}: '{key}' is missing")
        return values

    def _problem(self, path: config_lines.Path, message: str) -> None:
        while path and path not in self._lines:
            path = path[:-1]
        self._problems.append((self._lines.get(path, 1), message))


def private_code(name: str, meaning: str) -> Code:
    """Make a code of the project's own scheme for something that has no other."""
    value = "".join(one if one.isalnum() else "-" for one in name.upper())[:16].strip("-")
    return Code(value or "LABEL", "99ANODE", meaning[:64])


def _told_input(one: InputTable) -> str:
    need = one.need
    words = [need.kind, *(["of " + " or ".join(need.modalities)] if need.modalities else [])]
    words += [f"in {need.unit}"] if need.unit else []
    words += [f"of at least {need.min_slices} slices"] if need.min_slices else []
    words += {"study": ["from the same study"], "prior": ["from an earlier study"]}.get(need.comes_from, [])
    return " ".join([f"{need.name}:", *words, *(["(optional)"] if need.is_optional else [])])


def _told_output(one: OutputTable) -> str:
    labels = ", ".join(label.label for label in one.labels)
    concept = "" if one.concept is None else one.concept.meaning
    said = ": ".join(filter(None, (concept, labels))) or one.label or one.name
    return f"{one.kind} ({said})"


def _dotted(path: config_lines.Path) -> str:
    return ".".join(str(one) for one in path if isinstance(one, str))


def _title(path: config_lines.Path) -> str:
    is_array = path[0] in _ARRAYS or any(isinstance(one, int) for one in path)
    return f"[[{_dotted(path)}]] " if is_array else f"[{_dotted(path)}] "
