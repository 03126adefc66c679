"""Derived images of an enhanced multi-frame source: one instance of its class (PS3.3 section C.7.6.16).

On the grid of the source all functional groups of its frames stay, but for those of stored values. On
another grid the frames have their place, and what all frames of the source share.
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)

from models.types import DerivedImage
from node.errors import ResultImpossible
from node.results.concepts import code_dataset
from node.results.grid import lie_apart
from node.results.header_values import as_decimal_string, items, text
from node.results.images.conditions import mend_frames
from node.results.images.derivation import About, set_pixels, set_window
from node.results.images.inheritance import inherited, source_image_items, valid
from node.results.images.planes import Plane
from node.results.source_header import SourceHeader

#: Of stored values, or said anew.
_REPLACED = (
    "PixelValueTransformationSequence", "FrameVOILUTSequence", "RealWorldValueMappingSequence",
    "DerivationImageSequence", "ReferencedImageSequence", "ConversionSourceAttributesSequence",
)  # fmt: skip
_OF_PLACE = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_FRAME_TYPES = (
    "CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence",
    "XAXRFFrameCharacteristicsSequence", "XRay3DFrameTypeSequence", "USImageDescriptionSequence",
)  # fmt: skip
_STACK_ID, _IN_STACK_POSITION, _FRAME_CONTENT = 0x00209056, 0x00209057, 0x00209111
_SHORT_TEXT = 1024
#: MR Pulse Sequence and bulk motion: modules of original images alone (PS3.3 sections C.8.13.4, C.8.12.7).
_OF_ORIGINALS = (
    "PulseSequenceName", "MRAcquisitionType", "EchoPulseSequence", "MultipleSpinEcho",
    "MultiPlanarExcitation", "PhaseContrast", "VelocityEncodingAcquisitionSequence",
    "TimeOfFlightContrast", "ArterialSpinLabelingContrast", "SteadyStatePulseSequence",
    "EchoPlanarPulseSequence", "SaturationRecovery", "SpectrallySelectedSuppression",
    "OversamplingPhase", "GeometryOfKSpaceTraversal", "RectilinearPhaseEncodeReordering",
    "SegmentedKSpaceTraversal", "CoverageOfKSpace", "NumberOfKSpaceTrajectories",
    "BulkMotionCompensationTechnique", "VelocityEncodingDirection", "VelocityEncodingMinimumValue",
    "VelocityEncodingMaximumValue",
)  # fmt: skip
#: What a source may lack though it must not.
_REPAIRS = {
    "PixelPresentation": "MONOCHROME", "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE", "PresentationLUTShape": "IDENTITY",
    "BurnedInAnnotation": "NO", "AcquisitionContextSequence": [],
}  # fmt: skip
_MR_REPAIRS = {
    "ComplexImageComponent": "MAGNITUDE", "AcquisitionContrast": "UNKNOWN",
    "ApplicableSafetyStandardAgency": "UNKNOWN",
}  # fmt: skip
_CT_AND_MR: set[str] = {
    EnhancedCTImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
}  # fmt: skip
#: Their Multi-frame Dimension module is mandatory (PS3.3 tables A.38-1 and A.36-1).
_INDEXED: set[str] = {EnhancedCTImageStorage, EnhancedMRImageStorage}
_LEGACY: set[str] = {
    LegacyConvertedEnhancedCTImageStorage, LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
}  # fmt: skip


def enhanced(
    image: DerivedImage,
    placed: tuple[Plane, ...],
    header: SourceHeader,
    about: About,
    dimension_organization_uid: str,
) -> Dataset:
    """Return the instance, but for what ``stamp`` sets; its dimensions are its own on a grid of its own."""
    source = header.first
    data_set = inherited(source)
    data_set.SOPClassUID = header.instances[0].sop_class_uid
    data_set.Modality = header.modality
    frame_type = _frame_type(source)
    data_set.ImageType = frame_type
    if placed[0].is_placed or "FrameOfReferenceUID" in source:
        data_set.FrameOfReferenceUID = header.frame_of_reference_uid
        if "PositionReferenceIndicator" not in data_set:
            data_set.PositionReferenceIndicator = None
    data_set.SourceImageEvidenceSequence = [_evidence(header)]
    is_own = image.affine is not None
    # On the grid of the source its own order of frames stays, and so do their indices.
    frames = placed if is_own else tuple(sorted(placed, key=lambda one: one.sources[0].frame or 0))
    shared = valid((items(source, "SharedFunctionalGroupsSequence") or [Dataset()])[0])
    _take_out(shared, _REPLACED)
    data_set.NumberOfFrames = len(frames)
    voxels = image.voxels[[one.index for one in frames]]
    set_pixels(data_set, about.how.stored(voxels), is_colour=voxels.ndim == 4)
    groups = items(source, "PerFrameFunctionalGroupsSequence")
    if is_own:
        shared.update(_common(groups))
        _take_out(shared, (*_OF_PLACE, *_REPLACED))
        per_frame = [_placed_frame(plane, data_set.SOPClassUID in _LEGACY) for plane in frames]
        _set_place(shared, frames[0])
        _set_dimensions(data_set, dimension_organization_uid)
    else:
        per_frame = [valid(groups[(plane.sources[0].frame or 1) - 1]) for plane in frames]
        if not items(data_set, "DimensionIndexSequence") and _are_counted(per_frame, frames, data_set, image):
            _set_dimensions(data_set, dimension_organization_uid)
    mend_frames(data_set, [shared, *per_frame])
    for group, plane in zip(per_frame, frames, strict=True):
        _take_out(group, _REPLACED)
        group.DerivationImageSequence = [_derivation_of(plane, about)]
    _set_values(shared, about, voxels.ndim == 4)
    if data_set.SOPClassUID in _CT_AND_MR:
        _repair(data_set)
    described = [data_set]
    for group in (shared, *per_frame):
        for keyword in _FRAME_TYPES:
            for item in group.get(keyword, []):
                item.FrameType = frame_type
                described.append(item)
    for item in described:
        # Common CT and MR Image Description macro (PS3.3 section C.8.16.2): grey now, whatever it was.
        if "PixelPresentation" in item:
            item.PixelPresentation = "MONOCHROME"
    _take_out(data_set, _OF_ORIGINALS)
    data_set.SharedFunctionalGroupsSequence = [shared]
    data_set.PerFrameFunctionalGroupsSequence = per_frame
    data_set.DerivationDescription = about.description[:_SHORT_TEXT]
    return data_set


def _repair(data_set: Dataset) -> None:
    repairs = _REPAIRS | (_MR_REPAIRS if data_set.SOPClassUID == EnhancedMRImageStorage else {})
    for keyword, value in repairs.items():
        if keyword not in data_set or (value and data_set.get(keyword) in (None, "")):
            setattr(data_set, keyword, value)
    if "PatientOrientationCodeSequence" not in data_set and "PatientPosition" not in data_set:
        data_set.PatientPosition = None
    # What it was made by is no product, whatever the scanner is.
    data_set.ContentQualification = "RESEARCH"


def _evidence(header: SourceHeader) -> Dataset:
    """Return the item of Source Image Evidence: the one instance that the frames were made of."""
    instance, series, study = Dataset(), Dataset(), Dataset()
    source = header.instances[0]
    instance.ReferencedSOPClassUID = source.sop_class_uid
    instance.ReferencedSOPInstanceUID = source.sop_instance_uid
    series.SeriesInstanceUID = source.series_instance_uid
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = source.study_instance_uid
    study.ReferencedSeriesSequence = [series]
    return study


def _common(groups: list[Dataset]) -> Dataset:
    """Return the functional groups that all frames have alike, and the types of the first."""
    frames = [valid(group) for group in groups]
    common = Dataset()
    for element in frames[0]:
        is_type = element.keyword in (*_FRAME_TYPES, "MRArterialSpinLabelingSequence")
        if is_type or (
            element.keyword != "FrameContentSequence"
            and all(one.get(element.keyword) == element.value for one in frames[1:])
        ):
            common[element.tag] = element
    return common


def _take_out(group: Dataset, keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if keyword in group:
            delattr(group, keyword)


def _frame_type(source: Dataset) -> list[str]:
    """Return Image Type and Frame Type, which have four values (PS3.3 section C.8.16.1)."""
    own = [part.strip() for part in text(source, "ImageType").split("\\")]
    own += [""] * (4 - len(own))
    return ["DERIVED", "PRIMARY", own[2] or "VOLUME", own[3] or "NONE"]


def _derivation_of(plane: Plane, about: About) -> Dataset:
    item = Dataset()
    item.DerivationDescription = about.description[:_SHORT_TEXT]
    item.DerivationCodeSequence = [code_dataset(about.code)]
    item.SourceImageSequence = source_image_items(plane.sources)
    return item


def _set_values(shared: Dataset, about: About, is_colour: bool) -> None:
    if is_colour:
        return
    transformation, window = Dataset(), Dataset()
    transformation.RescaleIntercept = as_decimal_string(about.how.intercept)
    transformation.RescaleSlope = as_decimal_string(about.how.slope)
    transformation.RescaleType = about.rescale_type
    set_window(window, about)
    shared.PixelValueTransformationSequence = [transformation]
    shared.FrameVOILUTSequence = [window]


def _placed_frame(plane: Plane, is_legacy: bool) -> Dataset:
    group, position, content = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [as_decimal_string(value) for value in plane.position_mm]
    content.StackID, content.InStackPositionNumber = "1", plane.index + 1
    content.DimensionIndexValues = [1, plane.index + 1]
    group.PlanePositionSequence = [position]
    group.FrameContentSequence = [content]
    if is_legacy:
        group.UnassignedPerFrameConvertedAttributesSequence = [Dataset()]
    return group


def _set_place(shared: Dataset, plane: Plane) -> None:
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = [as_decimal_string(value) for value in plane.spacing_mm]
    measures.SliceThickness = as_decimal_string(plane.thickness_mm)
    orientation.ImageOrientationPatient = [as_decimal_string(value) for value in plane.orientation]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]


def _are_counted(
    groups: list[Dataset], frames: tuple[Plane, ...], data_set: Dataset, image: DerivedImage
) -> bool:
    """Give frames of a source that has no index their numbers by place, from one end of the stack.

    Where they do not lie in one, there are none, which only some classes allow.
    """
    if not frames[0].is_placed or not lie_apart([plane.position_mm for plane in frames]):
        if data_set.SOPClassUID not in _INDEXED:
            return False
        raise ResultImpossible(
            f"the image {image.name} cannot be of its source's SOP class: the frames of the source have no "
            "index, and do not lie in one stack, so they have no order"
        )
    along, down = np.array(frames[0].orientation[:3]), np.array(frames[0].orientation[3:])
    heights = np.array([plane.position_mm for plane in frames]) @ np.cross(along, down)
    for number, index in enumerate(np.argsort(heights, kind="stable").tolist(), 1):
        group = groups[index]
        content = (items(group, "FrameContentSequence") or [Dataset()])[0]
        content.StackID = text(content, "StackID") or "1"
        content.InStackPositionNumber = number
        content.DimensionIndexValues = [1, number]
        group.FrameContentSequence = [content]
    return True


def _set_dimensions(data_set: Dataset, organization_uid: str) -> None:
    """Index the frames by their place in one stack (PS3.3 section C.7.6.17)."""
    organization = Dataset()
    organization.DimensionOrganizationUID = organization_uid
    data_set.DimensionOrganizationSequence = [organization]
    data_set.DimensionOrganizationType = "3D"
    pointers = []
    for tag in (_STACK_ID, _IN_STACK_POSITION):
        pointer = Dataset()
        pointer.DimensionIndexPointer, pointer.FunctionalGroupPointer = tag, _FRAME_CONTENT
        pointer.DimensionOrganizationUID = organization_uid
        pointers.append(pointer)
    data_set.DimensionIndexSequence = pointers
