"""Masks to a binary Segmentation on the source's own grid (PS3.3 section A.51)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from models.types import Findings, Segment, Volume
from node.results.concepts import code_dataset, coding_schemes, concept
from node.results.evidence import frame_positions_mm, placed_images, placed_multi_frame
from node.results.facts import RunFacts, Source
from node.results.provenance import NOT_FOR_DIAGNOSIS, algorithm_parameters, device_serial_number, stamp
from node.results.source_header import SourceHeader
from node.results.uids import run_uid, tracking_uid

_MAX_LONG_STRING = 64
_DIRECTION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Outline:
    """Which segments a Segmentation would hold, numbered from 1 in this order.

    ``frame_order`` gives the slice of the volume that each frame of the source is; ``reason`` says
    why there are masks that cannot be encoded.
    """

    segments: tuple[Segment, ...] = ()
    frame_order: tuple[int, ...] = ()
    reason: str = ""

    def number_of(self, segment: Segment) -> int | None:
        """Segment Number, or None when the segment is not in the Segmentation."""
        names = [one.name for one in self.segments]
        return names.index(segment.name) + 1 if segment.name in names else None


def outline(findings: Findings, source: Source, header: SourceHeader) -> Outline:
    """Decide what can be laid on the source's grid, checking that the volume *is* that grid.

    Raises
    ------
    ValueError
        when a mask has not the shape of the volume, or two segments share a name
    """
    if len({segment.name for segment in findings.segments}) != len(findings.segments):
        raise ValueError("two segments have the same name")
    if source.volume is None:
        return Outline(reason="the analysis had no volume" if findings.segments else "")
    shape = source.volume.voxels.shape
    for segment in findings.segments:
        if segment.mask.shape != shape:
            raise ValueError(f"mask of {segment.name} is {segment.mask.shape}, the volume is {shape}")
    segments = tuple(segment for segment in findings.segments if segment.mask.any())
    if not segments:
        return Outline()
    frame_order, reason = _frame_order(source.volume, header)
    return Outline(segments, frame_order) if frame_order else Outline(reason=reason)


class _Masks(Segmentation):
    """Leaves patient and study to ``stamp``: the library copies them by SOP class, and knows not all."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing."""

    def copy_specimen_information(self, dataset: Dataset) -> None:
        """Copy nothing."""


def segmentation(plan: Outline, source: Source, header: SourceHeader, run: RunFacts) -> Dataset:
    """Return the Segmentation of ``plan``: empty frames left out, each frame refers to its image."""
    assert source.volume is not None, "an outline with segments has a volume"
    thickness_mm = header.slice_thickness_mm or source.volume.spacing_mm[0]
    if _is_multi_frame(header):
        images = [placed_multi_frame(header, thickness_mm)]
    else:
        images = placed_images(header, thickness_mm)
        for image in images:
            image.SOPClassUID = CTImageStorage  # see _name_the_classes
    made = _Masks(
        source_images=images,
        pixel_array=_stack(plan),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(segment, number, source, header, run)
            for number, segment in enumerate(plan.segments, 1)
        ],
        series_instance_uid=run_uid("seg series", source, run),
        series_number=1,
        sop_instance_uid=run_uid("seg", source, run),
        instance_number=1,
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
    _name_the_classes(data_set, {one.sop_instance_uid: one.sop_class_uid for one in header.instances})
    stamp(data_set, source, header, run, "seg")
    data_set.BurnedInAnnotation = "NO"
    _set_dimension_organization(data_set, run_uid("seg dimension organization", source, run))
    if schemes := coding_schemes(data_set):
        data_set.CodingSchemeIdentificationSequence = schemes
    return data_set


def _name_the_classes(data_set: Dataset, classes: Mapping[str, str]) -> None:
    """Give every reference to a source its SOP class.

    The library does not know retired and private SOP classes, so it is shown all single-frame
    sources as CT images.
    """
    for element in data_set:
        if element.VR != "SQ":
            continue
        for item in element.value:
            if (known := classes.get(str(item.get("ReferencedSOPInstanceUID", "")))) is not None:
                item.ReferencedSOPClassUID = known
            _name_the_classes(item, classes)


def _description(
    segment: Segment, number: int, source: Source, header: SourceHeader, run: RunFacts
) -> SegmentDescription:
    algorithm = AlgorithmIdentificationSequence(
        name=run.card.name[:_MAX_LONG_STRING],
        family=concept(run.card.family),
        version=run.card.version[:_MAX_LONG_STRING],
        source=run.card.manufacturer[:_MAX_LONG_STRING],
    )
    algorithm[0].AlgorithmParameters = ", ".join(algorithm_parameters(source, run))
    description = SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:_MAX_LONG_STRING] or segment.name[:_MAX_LONG_STRING],
        segmented_property_category=concept(segment.category),
        segmented_property_type=concept(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid(header.study_instance_uid, run.analysis, segment.name),
        tracking_id=segment.name[:_MAX_LONG_STRING],
        display_color=CIELabColor.from_rgb(*segment.colour),
    )
    if segment.laterality is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_dataset(segment.laterality)]
    return description


def _stack(plan: Outline) -> NDArray[np.uint8]:
    """Return a label map (frame, row, column) when no masks overlap, else (frame, row, column, segment)."""
    order = np.asarray(plan.frame_order)
    in_order = order.tolist() == list(range(len(order)))
    masks = [segment.mask if in_order else segment.mask[order] for segment in plan.segments]
    labels = np.zeros(masks[0].shape, dtype=np.uint8)
    if len(masks) < 255:
        for number, mask in enumerate(masks, 1):
            if labels[mask].any():
                break
            labels[mask] = number
        else:
            return labels
    return np.stack(masks, axis=-1).astype(np.uint8)


def _is_multi_frame(header: SourceHeader) -> bool:
    return len(header.instances) == 1 and bool(frame_positions_mm(header))


def _frame_order(volume: Volume, header: SourceHeader) -> tuple[tuple[int, ...], str]:
    """For each frame of the source its slice of the volume; empty, with a reason, when they do not match."""
    slices = volume.voxels.shape[0]
    first = header.instances[0]
    if any(not instance.is_image for instance in header.instances):
        return (), "an instance of the source is no image"
    if (first.rows, first.columns) != volume.voxels.shape[1:]:
        return (), "the volume has not the rows and columns of the source"
    if len(first.orientation) != 6 or len(first.pixel_spacing_mm) != 2:
        return (), "the source has no orientation or spacing"
    if not _in_plane_axes_agree(volume, first.orientation, first.pixel_spacing_mm):
        return (), "the volume is not on the grid of the source"
    multi_frame = _is_multi_frame(header)
    positions = (
        frame_positions_mm(header) if multi_frame else [instance.position_mm for instance in header.instances]
    )
    if len(positions) != slices or any(len(position) != 3 for position in positions):
        return (), "the slices of the volume are not the images of the source"
    return _slices_of(positions, volume)


def _slices_of(positions: Sequence[tuple[float, ...]], volume: Volume) -> tuple[tuple[int, ...], str]:
    """For each position the slice of the volume that lies nearest; each slice must be hit once."""
    step, origin = volume.affine[:3, 0], volume.affine[:3, 3]
    length = float(np.linalg.norm(step)) or 1.0
    offsets = np.asarray(positions, dtype=float) - origin
    along = np.round(offsets @ step / length**2).astype(int)
    distances = np.linalg.norm(offsets - along[:, None] * step, axis=1)
    # A slice may lie a little off an even grid, never as far as half way to its neighbour.
    if len(positions) > 1 and distances.max() > 0.45 * length:
        return (), "the slices of the volume do not lie where the images of the source lie"
    if sorted(along.tolist()) != list(range(len(positions))):
        return (), "the images of the source do not match the slices of the volume one to one"
    return tuple(along.tolist()), ""


def _in_plane_axes_agree(
    volume: Volume, orientation: tuple[float, ...], spacing_mm: tuple[float, ...]
) -> bool:
    along_row, along_column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    wanted = ((1, along_column * spacing_mm[0]), (2, along_row * spacing_mm[1]))
    return all(
        float(np.linalg.norm(volume.affine[:3, axis] - step))
        <= _DIRECTION_TOLERANCE * float(np.linalg.norm(step))
        for axis, step in wanted
    )


def _set_dimension_organization(data_set: Dataset, dimension_organization_uid: str) -> None:
    """Replace the random UID that the library makes."""
    for item in data_set.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = dimension_organization_uid
    for item in data_set.DimensionIndexSequence:
        item.DimensionOrganizationUID = dimension_organization_uid
