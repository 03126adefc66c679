"""What a result object says it refers to, for the rules of ``check`` that ask whether it is all."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset


def referenced_instances(data_set: Dataset) -> set[str]:
    """Return the SOP Instance UIDs of the Common Instance Reference module (PS3.3 section C.12.2)."""
    return {
        str(instance.get("ReferencedSOPInstanceUID"))
        for series in _series(data_set)
        for keyword in ("ReferencedInstanceSequence", "ReferencedImageSequence")
        for instance in series.get(keyword) or []
    }


def _series(data_set: Dataset) -> Iterator[Dataset]:
    yield from data_set.get("ReferencedSeriesSequence") or []
    for study in data_set.get("StudiesContainingOtherReferencedInstancesSequence") or []:
        yield from study.get("ReferencedSeriesSequence") or []
