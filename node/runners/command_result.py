"""Reads what a program left: ``out/result.json`` and the files that it names (docs/models.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.types import (
    Check,
    Code,
    DerivedImage,
    Evaluation,
    Findings,
    Inputs,
    Mark,
    Measurement,
    Segment,
    Volume,
)
from node.catalogue import folder_values
from node.catalogue.folder_tables import LabelTable, ModelFolder, OutputTable
from node.catalogue.model_folder import private_code
from node.config.config_values import suggestion
from node.runners import result_files
from node.runners.failures import RunFailed
from node.runners.regions import after

RESULT = "result.json"
CONTRACT = 1
_MOST_JSON_BYTES = 64 * 1024**2
_KEYS = (
    *("contract", "status", "reason", "segmentations", "maps", "measurements", "classes"),
    *("points", "boxes", "checks", "summary"),
)
_COLOURS = ((255, 196, 0), (86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0))


class BrokenResult(RunFailed):
    """The program failed, or what it left is not as agreed."""


def read(out: Path, folder: ModelFolder, inputs: Inputs) -> Findings:
    """Read the result in ``out``.

    Raises
    ------
    ValueError
        when the program refuses the input: the status is ``refused``
    BrokenResult
        when it failed, or the result is not as agreed
    """
    result = _json(out / RESULT)
    status, reason = result.get("status", "ok"), str(result.get("reason", ""))
    if status == "refused":
        raise ValueError(reason or "the program refuses the input without a reason")
    if status != "ok":
        raise BrokenResult(f"the program says that it failed: {reason or status}")
    try:
        return _Reading(out, folder, inputs).findings(result)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise BrokenResult(f"{RESULT} is not as agreed: {what}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_JSON_BYTES:
            raise BrokenResult(f"{RESULT} is a link, or larger than {_MOST_JSON_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenResult(f"{RESULT} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("contract") != CONTRACT:
        raise BrokenResult(f'{RESULT} does not say "contract": {CONTRACT}')
    for key in content:
        if key not in _KEYS:
            raise BrokenResult(f"{RESULT}: unknown key '{key}'{suggestion(key, _KEYS)}")
    return content


class _Reading:
    def __init__(self, out: Path, folder: ModelFolder, inputs: Inputs) -> None:
        self._out = out
        self._folder = folder
        self._inputs = inputs

    def findings(self, result: Mapping[str, Any]) -> Findings:
        segments = [one for raw in result.get("segmentations", ()) for one in self._segments(raw)]
        loose: list[Measurement] = []
        of_segments: dict[str, list[Measurement]] = {one.name: [] for one in segments}
        for raw in result.get("measurements", ()):
            of = raw.get("of", "")
            if of and of not in of_segments:
                raise ValueError(f"a measurement is of '{of}', which is no segment")
            (of_segments[of] if of else loose).append(self._measurement(raw))
        marks = [
            self._mark(raw, shape, number)
            for shape, key in (("point", "points"), ("box", "boxes"))
            for number, raw in enumerate(result.get(key, ()), 1)
        ]
        return Findings(
            segments=tuple(replace(one, measurements=tuple(of_segments[one.name])) for one in segments),
            measurements=tuple(loose),
            evaluations=tuple(self._evaluation(raw) for raw in result.get("classes", ())),
            checks=tuple(_check(raw) for raw in result.get("checks", ())),
            summary=str(result.get("summary", "")),
            marks=tuple(marks),
            images=tuple(self._image(raw) for raw in result.get("maps", ())),
        )

    def _segments(self, raw: Mapping[str, Any]) -> list[Segment]:
        on = str(raw.get("reference", ""))
        table = self._table(raw, ("segmentation", "fractional"))
        labels = table.labels if table is not None else _private_labels(raw["labels"])
        given = self._inputs.given[on] if on else self._inputs.primary
        voxel_ml = given.voxel_ml if isinstance(given, Volume) else 0.0
        found = result_files.labels(self._out, raw["file"], given, [one.index for one in labels])
        post = table.post if table is not None else ()
        return [
            Segment(
                one.name,
                one.label,
                after(np.asarray(found == one.index), post, voxel_ml, self._inputs.parameters),
                one.category,
                one.type,
                one.laterality,
                colour=one.colour,
                on=on,
            )
            for one in labels
        ]

    def _image(self, raw: Mapping[str, Any]) -> DerivedImage:
        on = str(raw.get("reference", ""))
        table = self._table(raw, ("map", "image"))
        if table is None:
            raise ValueError("a map needs an [[output]] of analysis.toml that says what its values are")
        given = self._inputs.given[on] if on else self._inputs.primary
        # where the program says nothing, an image has the lowest value of its source: 0 HU would be water
        is_image = table.kind == "image" and isinstance(given, Volume)
        outside = float(given.voxels.min()) if is_image and isinstance(given, Volume) else 0.0
        values = result_files.values(self._out, raw["file"], given, outside)
        values = values.astype(np.float32, copy=False)
        unit = table.unit or folder_values.unit(getattr(given, "unit", "1"))
        return DerivedImage(
            table.name,
            table.label or table.name,
            values,
            unit,
            "map" if table.kind == "map" else "image",
            quantity=table.concept,
            on=on,
        )

    def _measurement(self, raw: Mapping[str, Any]) -> Measurement:
        name = str(raw["name"])
        table = next((one for one in self._folder.outputs if one.name == name), None)
        concept = folder_values.code(raw["code"]) if "code" in raw else table.concept if table else None
        unit = folder_values.unit(raw["unit"]) if "unit" in raw else table.unit if table else None
        if unit is None:
            raise ValueError(
                f"measurement '{name}' has no unit, and no [[output]] of analysis.toml is called so"
            )
        return Measurement(concept or private_code(name, name), float(raw["value"]), unit, name=name)

    def _evaluation(self, raw: Mapping[str, Any]) -> Evaluation:
        name, value = str(raw["name"]), str(raw["value"])
        table = next((one for one in self._folder.outputs if one.name == name), None)
        concept = table.concept if table is not None and table.concept else private_code(name, name)
        labels = {one.name: one.type for one in table.labels} if table is not None else {}
        if labels and value not in labels:
            raise ValueError(f"class '{value}' is no label of {name}{suggestion(value, labels)}")
        told: Code | str = labels.get(value, value)
        probability = raw.get("probability")
        return Evaluation(concept, told, None if probability is None else float(probability), name)

    def _mark(self, raw: Mapping[str, Any], shape: Any, number: int) -> Mark:
        table = self._table(raw, ("points", "boxes"))
        name = str(raw.get("label", ""))
        label = next((one for one in table.labels if one.name == name), None) if table is not None else None
        if label is None and table is not None and not name:
            label = table.labels[0]
        if label is None:
            label = LabelTable(0, name or shape, name or shape, private_code(name or shape, name or shape))
        points = np.array(raw["points"], np.float64).reshape(-1, 3)
        score = raw.get("probability")
        return Mark(
            f"{label.name}-{shape}-{number}",
            f"{label.label} {number}",
            shape,
            points,
            label.category,
            label.type,
            site=label.site,
            laterality=label.laterality,
            probability=None if score is None else float(score),
            colour=label.colour,
            on=str(raw.get("reference", "")),
        )

    def _table(self, raw: Mapping[str, Any], kinds: tuple[str, ...]) -> OutputTable | None:
        """Return the [[output]] that is meant: the one that is named, else the only one of its kind."""
        fit = [one for one in self._folder.outputs if one.kind in kinds]
        if "output" in raw:
            name = str(raw["output"])
            for one in fit:
                if one.name == name:
                    return one
            raise ValueError(f"there is no [[output]] '{name}'{suggestion(name, [one.name for one in fit])}")
        return fit[0] if len(fit) == 1 else None


def _check(raw: Mapping[str, Any]) -> Check:
    passed = raw["passed"]
    if not isinstance(passed, bool):
        raise ValueError("the 'passed' of a check is true or false")
    withholds = tuple(str(one) for one in raw.get("withholds", () if passed else ("*",)))
    return Check(str(raw["name"]), passed, str(raw.get("reason", "")), withholds)


def _private_labels(raw: Mapping[str, Any]) -> tuple[LabelTable, ...]:
    return tuple(
        LabelTable(
            int(index),
            "-".join(str(name).split()),
            str(name),
            private_code(str(name), str(name)),
            colour=_COLOURS[number % len(_COLOURS)],
        )
        for number, (index, name) in enumerate(raw.items())
    )
