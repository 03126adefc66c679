"""Findings to DICOM: the one door of this room.

::

    objects = build(findings, Source(data_sets, volume, input_digest), RunFacts(...), ("sr", "seg", "sc"))

The same inputs give the same bytes, so a job that is repeated after a crash sends nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from models.types import Findings
from node.config.settings import ResultKind
from node.errors import ResultInvalid
from node.results import secondary_capture, segmentation, structured_report
from node.results.check import check
from node.results.encoding import part10
from node.results.facts import (
    ParameterValue,
    PredecessorReference,
    ResultObject,
    RunFacts,
    Source,
)
from node.results.source_header import SourceHeader

__all__ = [
    "ParameterValue",
    "PredecessorReference",
    "ResultObject",
    "RunFacts",
    "Source",
    "build",
]


def build(
    findings: Findings, source: Source, run: RunFacts, kinds: Sequence[ResultKind]
) -> list[ResultObject]:
    """Make the result objects of one run, in the order of ``kinds``.

    A Segmentation is left out when no segment has a voxel, or when the masks cannot be laid on
    the source's grid (the Structured Report then says why). The Structured Report refers to the
    Segmentation only when both are made.

    Raises
    ------
    ResultInvalid
        when an object breaks the checklist of ``check``; nothing is returned then
    ValueError
        when ``source`` has no instances, or a mask has not the shape of the volume
    """
    if not source.data_sets:
        raise ValueError("a result needs at least one source instance")
    header = SourceHeader.of(source)
    made: dict[ResultKind, Dataset] = {}
    outline = segmentation.outline(findings, source, header)
    if "seg" in kinds and outline.segments:
        made["seg"] = segmentation.segmentation(outline, source, header, run)
    if "sr" in kinds:
        made["sr"] = structured_report.structured_report(
            findings, source, header, run, outline, made.get("seg")
        )
    if "sc" in kinds:
        made["sc"] = secondary_capture.secondary_capture(findings, source, header, run)
    results = []
    for kind in dict.fromkeys(kinds):
        data_set = made.get(kind)
        if data_set is None:
            continue
        content = part10(data_set, header)
        if problems := check(content):
            raise ResultInvalid(f"{kind} of {run.analysis}: " + "; ".join(problems))
        results.append(
            ResultObject(
                kind,
                str(data_set.SOPClassUID),
                str(data_set.SOPInstanceUID),
                str(data_set.SeriesInstanceUID),
                content,
            )
        )
    return results
