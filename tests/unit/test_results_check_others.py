# ruff: noqa: E501
"""The checklist finds each fault that is planted in an image, map, registration, state or structure set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from models.types import Code, DerivedImage, Findings, Transform
from node.results.build import ResultObject
from node.results.check import check
from tests.support.made_findings import (
    HOUNSFIELD,
    all_built,
    everything,
    made_source,
    source_of,
    with_fault,
)
from tests.support.made_series import enhanced_ct

Fault = Callable[[Dataset], Any]
IMAGE, MAP, MATRIX, GRID, STATE, STRUCTURES, ENHANCED, COLOUR = (
    "image", "map", "matrix", "grid", "state", "structures", "enhanced", "colour"
)  # fmt: skip


@pytest.fixture(scope="module")
def good() -> dict[str, ResultObject]:
    prior = made_source(3, StudyInstanceUID="1.2.9", FrameOfReferenceUID="1.2.9.0")
    source = replace(made_source(), name="now", others={"before": replace(prior, is_prior=True)})
    assert source.volume is not None
    voxels = source.volume.voxels
    unit, quantity = Code("mm2/s", "UCUM", "mm2/s"), Code("113041", "DCM", "ADC")
    field = np.ones((2, 2, 2, 3), np.float32)
    matrix = np.eye(4)
    matrix[0, 3] = 5
    findings = replace(
        everything(source.volume),
        images=(
            DerivedImage("smooth", "Smoothed", voxels, HOUNSFIELD),
            DerivedImage("adc", "ADC", voxels.astype(np.float32), unit, "map", None, quantity),
            DerivedImage("colour", "Colour", np.zeros((*voxels.shape, 3), np.uint8), HOUNSFIELD),
        ),
        transforms=(
            Transform("matrix", "Matrix", "before", "now", matrix),
            Transform("grid", "Grid", "before", "now", matrix, "RIGID", field, np.eye(4)[[2, 1, 0, 3]]),
        ),
    )
    image, *_, colour = all_built(findings, source, kinds=("image",))
    [parametric] = all_built(findings, source, kinds=("pm",))
    spatial, deformable = all_built(findings, source, kinds=("reg",))
    [state] = all_built(findings, source, kinds=("pr",))
    [structures] = all_built(findings, source, kinds=("rtstruct",))
    frames = source_of([enhanced_ct()])
    assert frames.volume is not None
    twice = DerivedImage("twice", "Twice", frames.volume.voxels * 2, HOUNSFIELD)
    [enhanced] = all_built(Findings(images=(twice,)), frames, kinds=("image",))
    return {
        IMAGE: image, MAP: parametric, MATRIX: spatial, GRID: deformable, STATE: state,
        STRUCTURES: structures, ENHANCED: enhanced, COLOUR: colour,
    }  # fmt: skip


def without(keyword: str) -> Fault:
    return lambda data_set: delattr(data_set, keyword)


def put(keyword: str, value: Any) -> Fault:
    return lambda data_set: setattr(data_set, keyword, value)


def at(*path: str | int, fault: Fault) -> Fault:
    """Plant a fault in an item: keywords of sequences, each the first item unless a number follows."""

    def plant(data_set: Dataset) -> None:
        for index, step in enumerate(path):
            if isinstance(step, str):
                number = path[index + 1] if index + 1 < len(path) else 0
                data_set = data_set[step].value[number if isinstance(number, int) else 0]
        fault(data_set)

    return plant


def unplaced(data_set: Dataset) -> None:
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"):
        delattr(data_set, keyword)


def text_at(place: list[float]) -> Dataset:
    text = Dataset()
    text.AnchorPoint = place
    return text


REGISTRATION, MOVING = ("RegistrationSequence", 1), ("DeformableRegistrationSequence", 1)
A_MATRIX = (*REGISTRATION, "MatrixRegistrationSequence", "MatrixSequence")
A_GRID = (*MOVING, "DeformableRegistrationGridSequence")
SHARED, FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
MAPPING = (SHARED, "RealWorldValueMappingSequence")
CONTOUR = ("ROIContourSequence", "ContourSequence")
GRAPHIC = ("GraphicAnnotationSequence", "GraphicObjectSequence")

FAULTS: list[tuple[str, str, Fault]] = [
    *(
        (kind, "no Contributing Equipment", without("ContributingEquipmentSequence"))
        for kind in (IMAGE, MAP, MATRIX, GRID, STATE, STRUCTURES, ENHANCED, COLOUR)
    ),
    (IMAGE, "of which input", at("ContributingEquipmentSequence", fault=put("ContributionDescription", "x"))),
    (IMAGE, "Image Type", put("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"])),
    (IMAGE, "Derivation Description", without("DerivationDescription")),
    (IMAGE, "does not name its source", without("SourceImageSequence")),
    (IMAGE, "the image itself", at("SourceImageSequence", fault=put("ReferencedSOPInstanceUID", ""))),
    (IMAGE, "Lossy Image Compression is not", without("LossyImageCompression")),
    (IMAGE, "LossyImageCompressionRatio", put("LossyImageCompression", "01")),
    (IMAGE, "Pixel Data has not", put("Rows", 3)),
    (IMAGE, "Bits Stored", put("BitsStored", 12)),
    (IMAGE, "do not come together", without("RescaleSlope")),
    (IMAGE, "Rescale Slope is 0", put("RescaleSlope", 0)),
    (IMAGE, "Window Width", put("WindowWidth", 0)),
    (IMAGE, "Frame of Reference UID", without("FrameOfReferenceUID")),
    (IMAGE, "are not all there", unplaced),
    (IMAGE, "are not all there", without("ImagePositionPatient")),
    (IMAGE, "right angles", put("ImageOrientationPatient", [1, 0, 0, 1, 0, 0])),
    (IMAGE, "right angles", put("ImageOrientationPatient", [2, 0, 0, 0, 1, 0])),
    (IMAGE, "PixelSpacing has not 2", put("PixelSpacing", [1])),
    (IMAGE, "PixelPaddingValue", lambda d: d.add_new(0x00280120, "US", 0)),
    (IMAGE, "private elements", lambda d: d.add_new(0x00091001, "LO", "x")),
    (COLOUR, "are not all there", without("PixelSpacing")),
    (ENHANCED, "does not name its source", at(FRAME, 1, fault=without("DerivationImageSequence"))),
    (ENHANCED, "Number of Frames", lambda d: d.PerFrameFunctionalGroupsSequence.pop()),
    (ENHANCED, "no Plane Position", at(FRAME, 2, fault=without("PlanePositionSequence"))),
    (ENHANCED, "Rescale Slope is 0", at(SHARED, "PixelValueTransformationSequence", fault=put("RescaleSlope", 0))),
    (ENHANCED, "no functional groups", lambda d: (delattr(d, SHARED), delattr(d, FRAME))),
    (MAP, "DeviceSerialNumber", put("DeviceSerialNumber", "0000")),
    (MAP, "one element of floating", without("FloatPixelData")),
    (MAP, "FloatPixelData has not", put("FloatPixelData", b"\0\0\0\0")),
    (MAP, "Frame of Reference", without("FrameOfReferenceUID")),
    (MAP, "no series of the source", without("ReferencedSeriesSequence")),
    (MAP, "Mapping is absent", at(SHARED, fault=without("RealWorldValueMappingSequence"))),
    (MAP, "no UCUM unit", at(*MAPPING, "MeasurementUnitsCodeSequence", fault=put("CodingSchemeDesignator", "DCM"))),
    (MAP, "of which quantity", at(*MAPPING, fault=without("QuantityDefinitionSequence"))),
    (MAP, "no slope", at(*MAPPING, fault=without("RealWorldValueSlope"))),
    (MAP, "does not name its source", at(FRAME, 1, fault=without("DerivationImageSequence"))),
    (MATRIX, "FrameOfReferenceUID", without("FrameOfReferenceUID")),
    (MATRIX, "ContentLabel", without("ContentLabel")),
    (MATRIX, "both a fixed and a moving", lambda d: d.RegistrationSequence.pop()),
    (MATRIX, "so none is the fixed", lambda d: d.RegistrationSequence.pop(0)),
    (MATRIX, "no item lies", put("FrameOfReferenceUID", "1.2.8")),
    (MATRIX, "names no images", at(*REGISTRATION, fault=without("ReferencedImageSequence"))),
    (MATRIX, "not in Referenced Series", without("ReferencedSeriesSequence")),
    (MATRIX, "has no matrix", at(*REGISTRATION, fault=without("MatrixRegistrationSequence"))),
    (MATRIX, "16 values", at(*A_MATRIX, fault=put("FrameOfReferenceTransformationMatrix", [1] * 16))),
    (MATRIX, "has no type", at(*A_MATRIX, fault=put("FrameOfReferenceTransformationMatrixType", "OTHER"))),
    (MATRIX, "is not RIGID", at(*A_MATRIX, fault=put("FrameOfReferenceTransformationMatrix", [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]))),
    (GRID, "Source Frame of Reference", at(*MOVING, fault=without("SourceFrameOfReferenceUID"))),
    (GRID, "no item has a deformation grid", at(*MOVING, fault=without("DeformableRegistrationGridSequence"))),
    (GRID, "three dimensions", at(*A_GRID, fault=put("GridDimensions", [2, 2]))),
    (GRID, "Vector Grid Data", at(*A_GRID, fault=put("GridDimensions", [2, 2, 3]))),
    (GRID, "right angles", at(*A_GRID, fault=put("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]))),
    (GRID, "no position", at(*A_GRID, fault=without("ImagePositionPatient"))),
    (GRID, "16 values", at(*MOVING, "PostDeformationMatrixRegistrationSequence", fault=without("FrameOfReferenceTransformationMatrix"))),
    (STATE, "InstanceNumber", without("InstanceNumber")),
    (STATE, "ContentLabel", without("ContentLabel")),
    (STATE, "PresentationCreationDate", without("PresentationCreationDate")),
    (STATE, "of another study", put("StudiesContainingOtherReferencedInstancesSequence", [Dataset()])),
    (STATE, "no images are referred to", without("ReferencedSeriesSequence")),
    (STATE, "Displayed Area", without("DisplayedAreaSelectionSequence")),
    (STATE, "no corners", at("DisplayedAreaSelectionSequence", fault=without("PresentationSizeMode"))),
    (STATE, "neither spacing", at("DisplayedAreaSelectionSequence", fault=without("PresentationPixelSpacing"))),
    (STATE, "Presentation LUT Shape", without("PresentationLUTShape")),
    (STATE, "do not come together", without("RescaleIntercept")),
    (STATE, "one name", lambda d: put("GraphicLayer", d.GraphicLayerSequence[1].GraphicLayer)(d.GraphicLayerSequence[0])),
    (STATE, "graphic layer is not there", lambda d: d.GraphicLayerSequence.pop()),
    (STATE, "nothing is drawn", without("GraphicAnnotationSequence")),
    (STATE, "on every image", at("GraphicAnnotationSequence", fault=without("ReferencedImageSequence"))),
    (STATE, "annotated image is not", at("GraphicAnnotationSequence", "ReferencedImageSequence", fault=put("ReferencedSOPInstanceUID", "1.9"))),
    (STATE, "Number of Graphic Points", at(*GRAPHIC, fault=put("NumberOfGraphicPoints", 99))),
    (STATE, "beside the displayed area", at(*GRAPHIC, fault=lambda g: g.GraphicData.__setitem__(0, 9999.0))),
    (STATE, "beside the displayed area", at(*GRAPHIC, fault=lambda g: g.GraphicData.__setitem__(1, -0.5))),
    (STATE, "a text has no place", at("GraphicAnnotationSequence", fault=put("TextObjectSequence", [text_at([7.0, 1.0])]))),
    (STATE, "a text has no place", at("GraphicAnnotationSequence", fault=put("TextObjectSequence", [Dataset()]))),
    (STATE, "not in pixels", at(*GRAPHIC, fault=put("GraphicAnnotationUnits", "DISPLAY"))),
    (STRUCTURES, "Structure Set Label", without("StructureSetLabel")),
    (STRUCTURES, "StructureSetDate", without("StructureSetDate")),
    (STRUCTURES, "the chain", without("ReferencedFrameOfReferenceSequence")),
    (STRUCTURES, "Approval", put("ApprovalStatus", "APPROVED")),
    (STRUCTURES, "two have one number", at("StructureSetROISequence", fault=put("ROINumber", 2))),
    (STRUCTURES, "contours each", lambda d: d.ROIContourSequence.pop()),
    (STRUCTURES, "observation each", lambda d: d.RTROIObservationsSequence.pop()),
    (STRUCTURES, "not referred to", at("StructureSetROISequence", fault=put("ReferencedFrameOfReferenceUID", "1.9"))),
    (STRUCTURES, "made automatically", at("StructureSetROISequence", fault=put("ROIGenerationAlgorithm", "MANUAL"))),
    (STRUCTURES, "ROIInterpreter", at("RTROIObservationsSequence", fault=without("ROIInterpreter"))),
    (STRUCTURES, "no contour or no colour", at("ROIContourSequence", fault=without("ROIDisplayColor"))),
    (STRUCTURES, "Number of Contour Points", at(*CONTOUR, fault=put("NumberOfContourPoints", 3))),
    (STRUCTURES, "too few points", at(*CONTOUR, fault=put("ContourGeometricType", "OPEN"))),
    (STRUCTURES, "not among the contour images", at(*CONTOUR, "ContourImageSequence", fault=put("ReferencedSOPInstanceUID", "1.9"))),
    (STRUCTURES, "in a plane", at(*CONTOUR, fault=lambda c: c.ContourData.__setitem__(2, 99))),
]  # fmt: skip


@pytest.mark.parametrize("kind", [IMAGE, MAP, MATRIX, GRID, STATE, STRUCTURES, ENHANCED, COLOUR])
def test_a_good_object_has_no_fault(good: dict[str, ResultObject], kind: str) -> None:
    assert check(good[kind].part10) == []


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(("kind", "problem", "fault"), FAULTS, ids=[f"{k}: {p}" for k, p, _ in FAULTS])
@pytest.mark.checklist("A1", "A11", "M1", "R1", "C2")
def test_a_planted_fault_is_found(
    good: dict[str, ResultObject], kind: str, problem: str, fault: Fault
) -> None:
    found = check(with_fault(good[kind], fault))
    assert any(problem in one for one in found), found
