"""Common Instance Reference (PS3.3 section C.12.2): what an object refers to, by study and series."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset

from node.results.grid import Slice
from node.results.source_header import SourceInstance


def set_references(data_set: Dataset, used: Iterable[SourceInstance], study_instance_uid: str) -> None:
    """Name all instances that ``data_set``, an object of the study, refers to; each once."""
    here: dict[str, SourceInstance] = {}
    elsewhere: dict[str, SourceInstance] = {}
    for one in used:
        of = here if one.study_instance_uid == study_instance_uid else elsewhere
        of.setdefault(one.sop_instance_uid, one)
    for keyword in ("ReferencedSeriesSequence", "StudiesContainingOtherReferencedInstancesSequence"):
        if keyword in data_set:
            delattr(data_set, keyword)
    if here:
        data_set.ReferencedSeriesSequence = referenced_series(here.values())
    if elsewhere:
        data_set.StudiesContainingOtherReferencedInstancesSequence = studies_of_others(elsewhere.values())


def referenced_series(used: Iterable[SourceInstance]) -> list[Dataset]:
    """Return items of a Referenced Series Sequence (0008,1115), of instances of one study."""
    by_series: dict[str, list[Dataset]] = {}
    for one in used:
        by_series.setdefault(one.series_instance_uid, []).append(instance_item(one))
    found = []
    for uid, instances in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = instances
        found.append(item)
    return found


def studies_of_others(used: Iterable[SourceInstance]) -> list[Dataset]:
    """Return items of Studies Containing Other Referenced Instances (0008,1200)."""
    by_study: dict[str, list[SourceInstance]] = {}
    for one in used:
        by_study.setdefault(one.study_instance_uid, []).append(one)
    found = []
    for uid, instances in by_study.items():
        item = Dataset()
        item.StudyInstanceUID = uid
        item.ReferencedSeriesSequence = referenced_series(instances)
        found.append(item)
    return found


def instance_item(one: SourceInstance) -> Dataset:
    """Return a SOP Instance Reference (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class_uid
    item.ReferencedSOPInstanceUID = one.sop_instance_uid
    return item


def image_items(slices: Iterable[Slice]) -> list[Dataset]:
    """Return an Image SOP Instance Reference (PS3.3 table 10-3) for each image, with its frames.

    An image of which all frames are meant has no numbers.
    """
    items: dict[int, Dataset] = {}
    frames: dict[int, list[int]] = {}
    of: dict[int, int] = {}
    for one in slices:
        items.setdefault(one.number, instance_item(one.instance))
        of[one.number] = one.instance.frames
        if one.frame is not None:
            frames.setdefault(one.number, []).append(one.frame)
    for number, of_image in frames.items():
        if len(set(of_image)) < of[number]:
            items[number].ReferencedFrameNumber = of_image if len(of_image) > 1 else of_image[0]
    return list(items.values())
