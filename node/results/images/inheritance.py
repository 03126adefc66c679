"""What a derived image takes over from its source: all that still holds, and is valid."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from copy import deepcopy

from pydicom import config
from pydicom.datadict import dictionary_is_retired, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import validate_value

from models.types import Code
from node.results.concepts import code_dataset
from node.results.grid import Slice
from node.results.header_values import as_decimal_string, numbers, text
from node.results.patient_orientation import directions
from node.results.references import image_items
from node.results.source_header import SourceHeader
from node.undecodable import UNDECODABLE_IN_MEMORY

SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")
_MAX_LONG_STRING = 64

#: Of the patient, the study, the order, the instance or its stored values; ``stamp`` and the makers set
#: those that a result has.
_NOT_INHERITED_KEYWORDS = """
    SpecificCharacterSet LanguageCodeSequence InstanceCreationDate InstanceCreationTime InstanceCreatorUID
    InstanceCoercionDateTime SOPClassUID SOPInstanceUID RelatedGeneralSOPClassUID
    OriginalSpecializedSOPClassUID StudyDate SeriesDate ContentDate StudyTime SeriesTime ContentTime
    AccessionNumber IssuerOfAccessionNumberSequence QueryRetrieveView Manufacturer InstitutionName
    InstitutionAddress InstitutionCodeSequence InstitutionalDepartmentName ReferringPhysicianName
    ReferringPhysicianIdentificationSequence ConsultingPhysicianName StudyDescription
    ProcedureCodeSequence SeriesDescription SeriesDescriptionCodeSequence PhysiciansOfRecord
    PerformingPhysicianName NameOfPhysiciansReadingStudy OperatorsName OperatorIdentificationSequence
    ManufacturerModelName StationName ReferencedStudySequence ReferencedPerformedProcedureStepSequence
    ReferencedPatientSequence ReferencedVisitSequence ReferencedImageSequence ReferencedInstanceSequence
    SourceImageSequence DerivationDescription DerivationCodeSequence ReferencedImageEvidenceSequence
    SourceImageEvidenceSequence StudiesContainingOtherReferencedInstancesSequence ReferencedSeriesSequence
    PatientSpeciesDescription DeviceSerialNumber SoftwareVersions DeviceUID UniqueDeviceIdentifierSequence
    UDISequence PrivateDataElementCharacteristicsSequence ContributingEquipmentSequence
    TimezoneOffsetFromUTC BodyPartExamined StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber
    InstanceNumber FrameOfReferenceUID OtherStudyNumbers ImageComments SamplesPerPixel
    PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored
    HighBit PixelRepresentation PixelDataProviderURL SmallestImagePixelValue LargestImagePixelValue
    SmallestPixelValueInSeries LargestPixelValueInSeries SmallestImagePixelValueInPlane
    LargestImagePixelValueInPlane PixelPaddingValue PixelPaddingRangeLimit FloatPixelPaddingValue
    DoubleFloatPixelPaddingValue RedPaletteColorLookupTableDescriptor
    GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    PaletteColorLookupTableUID RedPaletteColorLookupTableData GreenPaletteColorLookupTableData
    BluePaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData ICCProfile
    ColorSpace RescaleIntercept RescaleSlope RescaleType ModalityLUTSequence VOILUTSequence WindowCenter
    WindowWidth WindowCenterWidthExplanation VOILUTFunction RealWorldValueMappingSequence
    PixelValueTransformationSequence FrameVOILUTSequence LossyImageCompression LossyImageCompressionRatio
    LossyImageCompressionMethod IconImageSequence RequestAttributesSequence PerformedProcedureStepID
    PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepEndDate
    PerformedProcedureStepEndTime PerformedProcedureStepDescription PerformedProtocolCodeSequence
    CommentsOnThePerformedProcedureStep StudyStatusID RequestingPhysician RequestedProcedureDescription
    RequestedProcedureCodeSequence AdmissionID InstanceOriginStatus EncryptedAttributesSequence
    OriginalAttributesSequence MACParametersSequence DigitalSignaturesSequence PresentationLUTSequence
    HL7StructuredDocumentReferenceSequence PatientIdentityRemoved DeidentificationMethod
    DeidentificationMethodCodeSequence LongitudinalTemporalInformationModified MaskSubtractionSequence
    RecommendedViewingMode ConcatenationUID InConcatenationNumber InConcatenationTotalNumber
    ConcatenationFrameOffsetNumber SOPInstanceUIDOfConcatenationSource StorageMediaFileSetID
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
"""
_NOT_INHERITED = frozenset(_NOT_INHERITED_KEYWORDS.split())
#: Patient, clinical trial, visit, overlays, waveforms, pixels, signatures.
_GROUPS_NOT_INHERITED = {0x0002, 0x0010, 0x0012, 0x0032, 0x0038, 0x4FFE, 0x5400, 0x7FE0, 0xFFFA, 0xFFFC}


def inherited(data_set: Dataset) -> Dataset:
    """Return a copy of what a derived image keeps: acquisition, geometry, anatomy; valid elements alone.

    Private and retired elements, curves and overlays, and whatever says something of the stored values
    are left out, and so are values that break their value representation (PS3.5 section 6.2).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = _valid(data_set, _NOT_INHERITED)
    if "PatientOrientation" in kept and directions(kept) is None:
        kept.PatientOrientation = None
    return kept


def valid(data_set: Dataset) -> Dataset:
    """Return a copy of the public, valid elements, at all depths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _valid(data_set, frozenset())


def _valid(data_set: Dataset, left_out: frozenset[str]) -> Dataset:
    kept = Dataset()
    for tag in data_set.keys():  # noqa: SIM118  (a data set iterates over its elements, which decodes them)
        if (
            tag.is_private
            or tag.element == 0
            or tag.group in _GROUPS_NOT_INHERITED
            or tag.group & 0xFF00 in (0x5000, 0x6000)
        ):
            continue
        keyword = keyword_for_tag(tag)
        if not keyword or keyword in left_out or dictionary_is_retired(tag):
            continue
        try:
            element = data_set[tag]
            if element.VR == "SQ":
                items = [_valid(item, frozenset()) for item in element.value or []]
                items = [item for item in items if len(item) and not _is_half_a_code(item)]
                # One that is empty in the source may be of type 2.
                if items or not element.value:
                    kept[tag] = DataElement(tag, "SQ", items)
            elif _is_valid(element):
                kept[tag] = deepcopy(element)
            elif element.VR == "DS" and (values := numbers(data_set, keyword)):
                # Numbers that were written with too many digits, positions among them, are none the worse.
                kept[tag] = DataElement(tag, "DS", [as_decimal_string(value) for value in values])
        except UNDECODABLE_IN_MEMORY:
            continue
    return kept


def _is_half_a_code(item: Dataset) -> bool:
    """Whether it is an item of a code sequence that lacks a part (PS3.3 section 8)."""
    has_value = any(item.get(keyword) for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue"))
    if not has_value and "CodeMeaning" not in item:
        return False
    return not (has_value and item.get("CodingSchemeDesignator") and item.get("CodeMeaning"))


def _is_valid(element: DataElement) -> bool:
    value = element.value
    if value is None or (isinstance(value, str | bytes | MultiValue | list) and len(value) == 0):
        return True
    values = value if isinstance(value, MultiValue | list) else [value]
    try:
        for one in values:
            # A number that was not read from a file has no text of its own.
            written = getattr(one, "original_string", str(one)) if element.VR in ("DS", "IS") else one
            validate_value(element.VR, written, config.RAISE)
    except ValueError:
        return False
    return True


def set_lossy(data_set: Dataset, header: SourceHeader) -> None:
    """Say whether the source was compressed with loss, which its images never shed (PS3.3 C.7.6.1.1.5)."""
    data_set.LossyImageCompression = "01" if header.lossy_image_compression else "00"
    if not header.lossy_image_compression:
        return
    # A ratio has to be there; 1 says nothing of it.
    data_set.LossyImageCompressionRatio = [as_decimal_string(value) for value in header.lossy_ratios or (1,)]
    data_set.LossyImageCompressionMethod = list(header.lossy_methods) or ["ISO_10918_1"]


def source_image_items(slices: Iterable[Slice]) -> list[Dataset]:
    """Return items of a Source Image Sequence (0008,2112), one for each image, with its frames."""
    found = image_items(slices)
    for item in found:
        item.PurposeOfReferenceCodeSequence = [code_dataset(SOURCE_IMAGE)]
    return found


def acquisition_equipment(header: SourceHeader) -> list[Dataset]:
    """Return the scanner as an item of Contributing Equipment, none when the source does not name it."""
    first = header.first
    if not (manufacturer := text(first, "Manufacturer")):
        return []
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_dataset(ACQUISITION_EQUIPMENT)]
    item.Manufacturer = manufacturer.replace("\\", "/")[:_MAX_LONG_STRING]
    for keyword, length in (
        ("ManufacturerModelName", 64),
        ("DeviceSerialNumber", 64),
        ("SoftwareVersions", 64),
        ("StationName", 16),
    ):
        if value := text(first, keyword):
            setattr(item, keyword, value.replace("\\", "/")[:length])
    return [item]
