"""Headers like those that scanners write: some hundred attributes with sequences and a private block.

Every identifier is a placeholder of the length of what takes its place.
"""

from __future__ import annotations

from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

PLACEHOLDERS = {
    "instance": "2.25.100000000000000000000000000000000000001",
    "series": "2.25.100000000000000000000000000000000000002",
    "study": "2.25.100000000000000000000000000000000000003",
    "frame_of_reference": "2.25.100000000000000000000000000000000000004",
    "patient": "BENCH-0123456789",
}
_CHEST_MM = 300.0
_REPORT_CHARACTERS = 960

_STUDY: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "StudyDate": "20240229",
    "StudyTime": "101500.000000",
    "AccessionNumber": "ACC0012345",
    "ReferringPhysicianName": "Referring^Physician",
    "StudyDescription": "CT Chest with contrast",
    "PatientName": "Benchmark^Made",
    "PatientBirthDate": "19500101",
    "PatientSex": "O",
    "PatientAge": "074Y",
    "StudyID": "4711",
    "InstitutionName": "Hospital of the benchmarks",
}
_CT: dict[str, Any] = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "InstanceCreationDate": "20240229",
    "SeriesDate": "20240229",
    "AcquisitionDate": "20240229",
    "ContentDate": "20240229",
    "SeriesTime": "101610.123000",
    "Modality": "CT",
    "Manufacturer": "made by a program",
    "InstitutionAddress": "1 Long Street, Some Town, 12345",
    "StationName": "CT1",
    "SeriesDescription": "Chest 1.2 mm soft tissue",
    "InstitutionalDepartmentName": "Radiology",
    "PerformingPhysicianName": "Performing^Physician",
    "OperatorsName": "Operator^One",
    "ManufacturerModelName": "phantom scanner",
    "PatientSize": "1.75",
    "PatientWeight": "80",
    "ContrastBolusAgent": "APPLIED",
    "BodyPartExamined": "CHEST",
    "ScanOptions": "HELICAL MODE",
    "KVP": "120",
    "DataCollectionDiameter": "500",
    "DeviceSerialNumber": "0000012345",
    "SoftwareVersions": "bench 1",
    "ProtocolName": "5.1 Chest routine",
    "ReconstructionDiameter": "384",
    "DistanceSourceToDetector": "949.075",
    "DistanceSourceToPatient": "541",
    "GantryDetectorTilt": "0",
    "TableHeight": "157.5",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "XRayTubeCurrent": "280",
    "Exposure": "140",
    "FilterType": "BODY FILTER",
    "GeneratorPower": "33600",
    "FocalSpots": "1.2",
    "ConvolutionKernel": "STANDARD",
    "PatientPosition": "HFS",
    "SingleCollimationWidth": 0.625,
    "TotalCollimationWidth": 40.0,
    "TableSpeed": 78.75,
    "TableFeedPerRotation": 39.375,
    "SpiralPitchFactor": 0.984375,
    "CTDIvol": 8.5,
    "AcquisitionNumber": "1",
    "SeriesNumber": "2",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PositionReferenceIndicator": "SN",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": ["0.75", "0.75"],
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "WindowCenter": "40",
    "WindowWidth": "400",
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "RescaleType": "HU",
    "PerformedProcedureStepStartDate": "20240229",
    "PerformedProcedureStepStartTime": "101500",
    "PerformedProcedureStepID": "PPS0012345",
    "RequestedProcedureID": "RP0012345",
}


def ct(number: int, count: int, shape: tuple[int, ...]) -> Dataset:
    """Header of image ``number`` of ``count`` of ``shape`` (row, column) of a chest CT (PS3.3 A.3)."""
    data_set = _study(CTImageStorage, number)
    data_set.update(_elements(_CT))
    data_set.FrameOfReferenceUID = PLACEHOLDERS["frame_of_reference"]
    spacing_mm = _CHEST_MM / count
    height_mm = (number - (count - 1) / 2) * spacing_mm
    seconds = 10 + number * 0.02
    data_set.InstanceCreationTime = data_set.ContentTime = f"1016{seconds:09.6f}"
    data_set.AcquisitionTime = f"1016{seconds:09.6f}"
    data_set.SliceThickness = f"{spacing_mm:.4g}"
    data_set.ImagePositionPatient = ["-191.625", "-191.625", f"{height_mm:.4f}"]
    data_set.SliceLocation = f"{height_mm:.4f}"
    data_set.Rows, data_set.Columns = shape[:2]
    data_set.CTDIPhantomTypeCodeSequence = [_code("113691", "DCM", "IEC Body Dosimetry Phantom")]
    data_set.ProcedureCodeSequence = [_code("RPID16", "RADLEX", "CT CHEST W CON")]
    requested = Dataset()
    requested.RequestedProcedureDescription = "CT Chest with contrast"
    requested.ScheduledProcedureStepDescription = "Chest"
    requested.ScheduledProcedureStepID = "SPS0012345"
    requested.RequestedProcedureID = "RP0012345"
    data_set.RequestAttributesSequence = [requested]
    block = data_set.private_block(0x0027, "ANODE BENCHMARKS 1", create=True)
    for element in range(12):
        block.add_new(element, "DS", f"{number + element / 8:.6g}")
    block.add_new(0x40, "OB", bytes(256))
    return data_set


def report(number: int) -> Dataset:
    """A Structured Report of 2 KB (Basic Text SR, PS3.3 A.35.1)."""
    data_set = _study(BasicTextSRStorage, number)
    data_set.Modality = "SR"
    data_set.Manufacturer = "made by a program"
    data_set.SeriesNumber = "9"
    data_set.SeriesDescription = "Report"
    data_set.ContentDate, data_set.ContentTime = "20240229", "101700"
    data_set.ReferencedPerformedProcedureStepSequence = []
    data_set.PerformedProcedureCodeSequence = []
    data_set.ValueType = "CONTAINER"
    data_set.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    data_set.ContinuityOfContent = "SEPARATE"
    data_set.CompletionFlag, data_set.VerificationFlag = "COMPLETE", "UNVERIFIED"
    finding = Dataset()
    finding.RelationshipType = "CONTAINS"
    finding.ValueType = "TEXT"
    finding.ConceptNameCodeSequence = [_code("121071", "DCM", "Finding")]
    sentence = f"No finding in image {number}; the words go on so that the object has two kilobytes. "
    finding.TextValue = (sentence * 20)[:_REPORT_CHARACTERS]
    data_set.ContentSequence = [finding]
    return data_set


def _study(sop_class_uid: str, number: int) -> Dataset:
    data_set = Dataset()
    data_set.update(_elements(_STUDY))
    data_set.SOPClassUID = sop_class_uid
    data_set.SOPInstanceUID = PLACEHOLDERS["instance"]
    data_set.StudyInstanceUID = PLACEHOLDERS["study"]
    data_set.SeriesInstanceUID = PLACEHOLDERS["series"]
    data_set.PatientID = PLACEHOLDERS["patient"]
    data_set.InstanceNumber = str(number + 1)
    return data_set


def _elements(values: dict[str, Any]) -> Dataset:
    data_set = Dataset()
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def multi_frame(frames: int) -> Dataset:
    """Header of a Multi-frame Grayscale Word Secondary Capture of 512 by 512 (PS3.3 A.8.4)."""
    data_set = _study(MultiFrameGrayscaleWordSecondaryCaptureImageStorage, 0)
    data_set.Modality = "OT"
    data_set.ConversionType = "SYN"
    data_set.SeriesNumber = "3"
    data_set.SamplesPerPixel = 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.NumberOfFrames = str(frames)
    data_set.FrameIncrementPointer = Tag("PageNumberVector")
    data_set.PageNumberVector = [str(number + 1) for number in range(frames)]
    data_set.Rows = data_set.Columns = 512
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = (
        16,
        12,
        11,
        0,
    )
    return data_set
