"""Numbers read back from a Structured Report of TID 1500, as a workstation would read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

_MEASUREMENT_GROUP, _TRACKING_IDENTIFIER = "125007", "112039"


@dataclass(frozen=True)
class ReportedNumber:
    """One NUM content item: the group's tracking identifier, concept meaning, value, unit."""

    region: str
    concept: str
    value: float
    unit: str


def numbers(report: Path) -> list[ReportedNumber]:
    """Return every number of the report's measurement groups in document order."""
    found: list[ReportedNumber] = []
    _collect(dcmread(report), "", found)
    return found


def _collect(item: Dataset, region: str, found: list[ReportedNumber]) -> None:
    children = list(item.get("ContentSequence", []))
    if _code(item) == _MEASUREMENT_GROUP:
        region = next((str(c.TextValue) for c in children if _code(c) == _TRACKING_IDENTIFIER), region)
    for child in children:
        if region and child.ValueType == "NUM" and child.MeasuredValueSequence:
            measured = child.MeasuredValueSequence[0]
            found.append(
                ReportedNumber(
                    region,
                    _concept(child),
                    float(measured.NumericValue),
                    str(measured.MeasurementUnitsCodeSequence[0].CodeValue),
                )
            )
        _collect(child, region, found)


def _concept(item: Dataset) -> str:
    """The meaning of the concept, with its derivation where there is one: ``Mean Attenuation``."""
    meaning = str(item.ConceptNameCodeSequence[0].CodeMeaning)
    derivations = [
        str(child.ConceptCodeSequence[0].CodeMeaning)
        for child in item.get("ContentSequence", [])
        if _code(child) == "121401" and "ConceptCodeSequence" in child
    ]
    return " ".join([*derivations, meaning])


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""
