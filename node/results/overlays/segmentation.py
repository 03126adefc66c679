"""Masks to a Segmentation on their own grid: binary, fractional or a label map (PS3.3 section A.51)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription, SegmentsOverlapValues
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from models.types import Segment
from node.results.concepts import code_dataset, coding_schemes, concept
from node.results.evidence import placed_images, placed_multi_frame, unplaced_image
from node.results.facts import RunFacts
from node.results.given import AllGiven
from node.results.overlays.segmentation_plan import MAXIMUM_FRACTIONAL_VALUE, Plan
from node.results.patient_orientation import directions
from node.results.provenance import NOT_FOR_DIAGNOSIS, algorithm_parameters, device_serial_number, stamp
from node.results.uids import run_uid, tracking_uid

_MAX_LONG_STRING, _MAX_SHORT_TEXT = 64, 1024
# Sorts behind all other series of the run.
_SERIES_OF_OTHERS = 48


class _Masks(Segmentation):
    """Leaves patient and study to ``stamp``: the library copies them by SOP class, and knows not all."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing."""

    def copy_specimen_information(self, dataset: Dataset) -> None:
        """Copy nothing."""

    @classmethod
    def _check_and_cast_pixel_array(
        cls, pixel_array: Any, segment_numbers: Any, segmentation_type: Any, dtype: Any
    ) -> Any:
        """Leave probabilities alone: they are checked, and the library would sort all of them to see that."""
        if segmentation_type != SegmentationTypeValues.FRACTIONAL:
            return super()._check_and_cast_pixel_array(pixel_array, segment_numbers, segmentation_type, dtype)
        several = pixel_array.shape[-1] > 1
        return pixel_array, SegmentsOverlapValues.UNDEFINED if several else SegmentsOverlapValues.NO


def segmentation(plan: Plan, given: AllGiven, run: RunFacts) -> Dataset:
    """Return the Segmentation of ``plan``: empty frames left out, each frame refers to its image.

    It lies in the study of the first input, also when it is of an earlier study's images. On a single
    image without a frame of reference it has none either: its pixels are those of the image.
    """
    source, header = given.first.source, given.first.header
    made = _Masks(
        source_images=_source_images(plan),
        pixel_array=_pixels(plan),
        segmentation_type=SegmentationTypeValues(plan.form),
        max_fractional_value=MAXIMUM_FRACTIONAL_VALUE,
        segment_descriptions=[
            _description(segment, number, given, run) for number, segment in enumerate(plan.segments, 1)
        ],
        series_instance_uid=run_uid(f"{plan.series} series", source, run),
        series_number=1,
        sop_instance_uid=run_uid(plan.what, source, run),
        instance_number=plan.number,
        manufacturer="anode",
        manufacturer_model_name=run.card.name[:_MAX_LONG_STRING],
        software_versions=run.card.version[:_MAX_LONG_STRING],
        device_serial_number=device_serial_number(run),
        content_label="SEGMENTATION",
        content_description=f"{run.card.name[:40]}, {NOT_FOR_DIAGNOSIS}",
        omit_empty_frames=True,
    )
    data_set = Dataset()
    data_set.update(made)
    _name_the_classes(
        data_set, {one.sop_instance_uid: one.sop_class_uid for one in plan.given.header.instances}
    )
    stamp(
        data_set,
        source,
        header,
        run,
        plan.kind,
        what=plan.what,
        number=plan.number,
        series=plan.series,
        series_index=plan.given.index and _SERIES_OF_OTHERS + plan.given.index,
    )
    data_set.BurnedInAnnotation = "NO"
    if plan.grid.positions_mm is None:
        # Of type 2C where no Image Plane says it (PS3.3 table C.7-9).
        data_set.PatientOrientation = directions(plan.given.header.first)
    _set_dimension_organization(data_set, run_uid(f"{plan.what} dimension organization", source, run))
    _set_study_of_source(data_set, plan)
    if schemes := coding_schemes(data_set):
        data_set.CodingSchemeIdentificationSequence = schemes
    return data_set


def _source_images(plan: Plan) -> list[Dataset]:
    """Return the images of the source as the library needs them.

    It wants a frame of reference of what it knows as CT, and none of a Secondary Capture; the classes
    are put right in ``_name_the_classes``.
    """
    header, grid = plan.given.header, plan.grid
    if grid.positions_mm is None:
        image = unplaced_image(header, grid.slices[0].number)
        image.SOPClassUID = SecondaryCaptureImageStorage
        return [image]
    volume = plan.given.source.volume
    thickness_mm = header.slice_thickness_mm or (volume.spacing_mm[0] if volume is not None else 1.0)
    if grid.is_multi_frame:
        return [placed_multi_frame(header, thickness_mm, grid.positions_mm[list(plan.frame_order)])]
    wanted = {one.number for one in grid.slices}
    images = [one for number, one in enumerate(placed_images(header, thickness_mm)) if number in wanted]
    for image in images:
        image.SOPClassUID = CTImageStorage
    return images


def _name_the_classes(data_set: Dataset, classes: Mapping[str, str]) -> None:
    """Give every reference to a source its SOP class: the library knows not all."""
    for element in data_set:
        if element.VR != "SQ":
            continue
        for item in element.value:
            if (known := classes.get(str(item.get("ReferencedSOPInstanceUID", "")))) is not None:
                item.ReferencedSOPClassUID = known
            _name_the_classes(item, classes)


def _description(segment: Segment, number: int, given: AllGiven, run: RunFacts) -> SegmentDescription:
    algorithm = AlgorithmIdentificationSequence(
        name=run.card.name[:_MAX_LONG_STRING],
        family=concept(run.card.family),
        version=run.card.version[:_MAX_LONG_STRING],
        source=run.card.manufacturer[:_MAX_LONG_STRING],
    )
    algorithm[0].AlgorithmParameters = ", ".join(algorithm_parameters(given.first.source, run))
    description = SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:_MAX_LONG_STRING] or segment.name[:_MAX_LONG_STRING],
        segmented_property_category=concept(segment.category),
        segmented_property_type=concept(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid(
            given.first.header.study_instance_uid,
            given.first.header.series_instance_uid,
            run.analysis,
            segment.name,
        ),
        tracking_id=segment.name[:_MAX_LONG_STRING],
        display_color=CIELabColor.from_rgb(*segment.colour),
    )
    if segment.laterality is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_dataset(segment.laterality)]
    return description


# --- pixels ------------------------------------------------------------------


def _pixels(plan: Plan) -> NDArray[Any]:
    """Return (frame, row, column) labels where no masks overlap, else (frame, row, column, segment)."""
    order = np.asarray(plan.frame_order)
    in_order = order.tolist() == list(range(len(order)))
    if plan.form == "FRACTIONAL":
        shape = (*plan.grid.shape, len(plan.segments))
        steps = np.empty(shape, np.float32)
        for index, segment in enumerate(plan.segments):
            assert segment.probability is not None
            values = segment.probability if in_order else segment.probability[order]
            steps[..., index] = np.rint(values * MAXIMUM_FRACTIONAL_VALUE) / MAXIMUM_FRACTIONAL_VALUE
        return steps
    masks = [segment.mask if in_order else segment.mask[order] for segment in plan.segments]
    is_label_map = plan.form == "LABELMAP"
    labels = np.zeros(masks[0].shape, np.uint8 if len(masks) < 256 else np.uint16)
    if is_label_map or len(masks) < 256:
        for number, mask in enumerate(masks, 1):
            if not is_label_map and labels[mask].any():
                break
            labels[mask] = number
        else:
            return labels
    return np.stack(masks, axis=-1).astype(np.uint8)


# --- what the library makes otherwise ----------------------------------------


def _set_dimension_organization(data_set: Dataset, dimension_organization_uid: str) -> None:
    """Replace the random UID that the library makes."""
    for item in data_set.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = dimension_organization_uid
    for item in data_set.DimensionIndexSequence:
        item.DimensionOrganizationUID = dimension_organization_uid


def _set_study_of_source(data_set: Dataset, plan: Plan) -> None:
    """Refer to images of another study as such (PS3.3 section C.12.2, Common Instance Reference)."""
    study = plan.given.header.study_instance_uid
    if study == str(data_set.StudyInstanceUID):
        return
    item = Dataset()
    item.StudyInstanceUID = study
    item.ReferencedSeriesSequence = data_set.ReferencedSeriesSequence
    data_set.StudiesContainingOtherReferencedInstancesSequence = [item]
    del data_set.ReferencedSeriesSequence
