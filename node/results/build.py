"""Findings to DICOM: the one door of this room.

::

    objects = build(findings, Source(data_sets, volume, input_digest), RunFacts(...), ("sr", "seg", "sc"))

The same inputs give the same bytes, so a job that is repeated after a crash sends nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pydicom.dataset import Dataset

from models.types import Findings, ParameterValue
from node.config.settings import ResultKind
from node.errors import ResultImpossible, ResultInvalid
from node.results.check import check
from node.results.encoding import part10
from node.results.facts import (
    PredecessorReference,
    ResultObject,
    RunFacts,
    Source,
)
from node.results.given import AllGiven
from node.results.images import derived_image, parametric_map
from node.results.overlays import presentation_state, rt_structure_set, segmentation
from node.results.overlays.segmentation_plan import Outline, outline
from node.results.pictures import secondary_capture
from node.results.registrations import registration
from node.results.report import structured_report
from node.results.source_header import SourceHeader
from node.results.withholding import withheld

__all__ = [
    "ParameterValue",
    "PredecessorReference",
    "ResultObject",
    "RunFacts",
    "Source",
    "build",
]


@dataclass(frozen=True)
class _Making:
    """What the makers are given; ``made`` has what those before them have made, ``left_out`` why not all."""

    findings: Findings
    run: RunFacts
    given: AllGiven
    outline: Outline
    made: dict[ResultKind, list[Dataset]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def build(
    findings: Findings, source: Source, run: RunFacts, kinds: Sequence[ResultKind]
) -> list[ResultObject]:
    """Make the result objects of one run, in the order of ``kinds``; a kind may have several, or none.

    There is always one Structured Report and one Secondary Capture at least, where they are asked for; of
    the other kinds there is one where the findings have something that it can hold. A Segmentation
    is left out when no segment has a voxel, or when the masks cannot be laid on the source's grid, and a
    derived image, a map or a registration when the source cannot hold it, or a region that an RT Structure
    Set has no room for; the Structured Report then says why. An object refers to another of the run only
    when both are made.

    Raises
    ------
    ResultInvalid
        when an object breaks the checklist of ``check``; nothing is returned then
    ResultImpossible
        when an image, a map, a registration or a region is left out, and no report is asked for to say so
    ValueError
        when ``source`` has no instances, or a mask has not the shape of the volume
    """
    if not source.data_sets:
        raise ValueError("a result needs at least one source instance")
    findings = withheld(findings)
    run = replace(run, kinds=tuple(kinds))
    given = AllGiven.of(source, SourceHeader.of(source))
    making = _Making(findings, run, given, outline(findings, given, kinds))
    for kind, make in _MAKERS.items():
        if kind in kinds:
            making.made[kind] = make(making)
    if making.left_out and "sr" not in kinds:
        raise ResultImpossible("; ".join(making.left_out))
    return [
        _finished(kind, data_set, making)
        for kind in dict.fromkeys(kinds)
        for data_set in making.made.get(kind, [])
    ]


def _segmentations(making: _Making) -> list[Dataset]:
    return [
        segmentation.segmentation(plan, making.given, making.run) for plan in making.outline.of_kind("seg")
    ]


def _label_maps(making: _Making) -> list[Dataset]:
    return [
        segmentation.segmentation(plan, making.given, making.run)
        for plan in making.outline.of_kind("labelmap")
    ]


def _reports(making: _Making) -> list[Dataset]:
    outlined = [*making.made.get("seg", []), *making.made.get("labelmap", [])]
    derived = [one for kind in _DERIVED for one in making.made.get(kind, [])]
    reasons = (*making.outline.reasons, *making.left_out)
    return [
        structured_report.structured_report(
            making.findings,
            making.given,
            making.run,
            replace(making.outline, reasons=reasons),
            outlined,
            derived,
        )
    ]


#: What else the report refers to.
_DERIVED: tuple[ResultKind, ...] = ("image", "pm", "reg")
_PlainMaker = Callable[[Findings, AllGiven, RunFacts], list[Dataset]]
_PartialMaker = Callable[[Findings, AllGiven, RunFacts], tuple[list[Dataset], list[str]]]


def _as_held(make: _PartialMaker) -> Callable[[_Making], list[Dataset]]:
    """A maker that leaves out what the source cannot hold, and says why."""

    def held(making: _Making) -> list[Dataset]:
        made, reasons = make(making.findings, making.given, making.run)
        making.left_out.extend(reasons)
        return made

    return held


def _from(make: _PlainMaker) -> Callable[[_Making], list[Dataset]]:
    """A maker that needs nothing of what others have made."""
    return lambda making: make(making.findings, making.given, making.run)


#: In the order of making: the report may refer to what is above it, and nothing above it to the report.
_MAKERS: dict[ResultKind, Callable[[_Making], list[Dataset]]] = {
    "seg": _segmentations,
    "labelmap": _label_maps,
    "image": _as_held(derived_image.derived_images),
    "pm": _as_held(parametric_map.parametric_maps),
    "reg": _as_held(registration.registrations),
    "rtstruct": _as_held(rt_structure_set.rt_structure_sets),
    "sr": _reports,
    "pr": _from(presentation_state.presentation_states),
    "sc": _from(secondary_capture.secondary_captures),
}


def _finished(kind: ResultKind, data_set: Dataset, making: _Making) -> ResultObject:
    content = part10(data_set, making.given.first.header)
    if problems := check(content, making.given):
        raise ResultInvalid(f"{kind} of {making.run.analysis}: " + "; ".join(problems))
    return ResultObject(
        kind,
        str(data_set.SOPClassUID),
        str(data_set.SOPInstanceUID),
        str(data_set.SeriesInstanceUID),
        content,
    )
