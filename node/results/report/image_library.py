"""The images that a report speaks of: TID 1600, Image Library, and what the run derived (PS3.16)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from highdicom.sr import (
    CodeContentItem,
    CompositeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DateContentItem,
    ImageContentItem,
    NumContentItem,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset

from models.types import Code
from node.results import concepts
from node.results.checks.check_segmentation import LABEL_MAP_SEGMENTATION_STORAGE
from node.results.concepts import concept
from node.results.given import Given
from node.results.source_header import SourceHeader

_CONTAINS, _ACQUISITION = "CONTAINS", "HAS ACQ CONTEXT"


def image_library(given: Iterable[Given]) -> list[ContainerContentItem]:
    """Return TID 1600: a group for each input, its descriptors shared by all its images; none without."""
    groups = [_group(one) for one in given if one.header.images]
    if not groups:
        return []
    library = ContainerContentItem(
        name=concept(Code("111028", "DCM", "Image Library")), relationship_type=_CONTAINS, template_id="1600"
    )
    library.ContentSequence = ContentSequence(groups)
    return [library]


def derived_objects(derived: Sequence[Dataset]) -> list[ContainerContentItem]:
    """Return a container that refers to the images, maps and registrations of the same run.

    TID 1500 is extensible, and has no row for what is no input.
    """
    if not derived:
        return []
    container = ContainerContentItem(name=concept(concepts.DERIVED_OBJECTS), relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence([_derived(one) for one in derived])
    return [container]


def _derived(data_set: Dataset) -> ContentItem:
    is_label_map = data_set.SOPClassUID == LABEL_MAP_SEGMENTATION_STORAGE
    is_image = int(data_set.get("Rows", 0) or 0) > 0 and not is_label_map
    name = concepts.DERIVED_IMAGE if is_image else concepts.REGISTRATION
    # Readers that do not know its SOP class take a label map for no image, and refuse the report.
    kind = ImageContentItem if is_image else CompositeContentItem
    item: ContentItem = kind(
        name=concept(concepts.LABEL_MAP if is_label_map else name),
        referenced_sop_class_uid=data_set.SOPClassUID,
        referenced_sop_instance_uid=data_set.SOPInstanceUID,
        relationship_type=_CONTAINS,
    )
    return item


def _group(given: Given) -> ContainerContentItem:
    group = ContainerContentItem(
        name=concept(Code("126200", "DCM", "Image Library Group")), relationship_type=_CONTAINS
    )
    group.ContentSequence = ContentSequence([*_descriptors(given), *_images(given.header)])
    return group


def _descriptors(given: Given) -> list[ContentItem]:
    """Return the descriptors of TID 1602 that are the same for the whole series."""
    header = given.header
    first = header.images[0]
    pixels = concept(Code("{pixels}", "UCUM", "Pixels"))
    found: list[ContentItem] = [
        CodeContentItem(
            name=concept(Code("121139", "DCM", "Modality")),
            value=concept(concepts.modality(header)),
            relationship_type=_ACQUISITION,
        )
    ]
    day = str(header.patient_and_study.get("StudyDate") or "")
    if given.source.is_prior and len(day) == 8:
        found.append(
            DateContentItem(
                name=concept(Code("111060", "DCM", "Study Date")),
                value=date(int(day[:4]), int(day[4:6]), int(day[6:])),
                relationship_type=_ACQUISITION,
            )
        )
    if given.has_frame_of_reference and all(one.is_placed for one in header.images):
        found.append(
            UIDRefContentItem(
                name=concept(Code("112227", "DCM", "Frame of Reference UID")),
                value=header.frame_of_reference_uid,
                relationship_type=_ACQUISITION,
            )
        )
    for code, value in (
        (Code("110910", "DCM", "Pixel Data Rows"), first.rows),
        (Code("110911", "DCM", "Pixel Data Columns"), first.columns),
    ):
        found.append(
            NumContentItem(name=concept(code), value=value, unit=pixels, relationship_type=_ACQUISITION)
        )
    return found


def _images(header: SourceHeader) -> list[ContentItem]:
    return [
        ImageContentItem(
            name=concept(Code("260753009", "SCT", "Source")),
            referenced_sop_class_uid=instance.sop_class_uid,
            referenced_sop_instance_uid=instance.sop_instance_uid,
            relationship_type=_CONTAINS,
        )
        for instance in header.images
    ]
