"""Transforms by a matrix: Spatial Registration Storage (PS3.3 section A.39.1, module C.20.2).

The registered coordinate system is that of the fixed input: its item has the identity, that of the moving
input the matrix that takes its points there. Where both lie in one frame of reference the items name the
images alone, as the frame of reference would not tell them apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SpatialRegistrationStorage

from models.types import Code, Findings, Transform
from node.results.concepts import code_dataset, coding_schemes
from node.results.facts import RunFacts
from node.results.given import AllGiven
from node.results.laterality import set_laterality
from node.results.provenance import NOT_FOR_DIAGNOSIS, stamp
from node.results.references import instance_item, set_references
from node.results.registrations.deformable_registration import deformable_registration
from node.results.registrations.transform_matrix import matrix_item
from node.results.source_header import SourceHeader

_BY_CONTENT = Code("125024", "DCM", "Image Content-based Alignment")
_IDENTITY = Code("125021", "DCM", "Frame of Reference Identity")
_MAX_LONG_STRING = 64


def registrations(findings: Findings, given: AllGiven, run: RunFacts) -> tuple[list[Dataset], list[str]]:
    """Return a Spatial or a Deformable Spatial Registration for each transform.

    Those to one frame of reference lie in one series. With them come the reasons why others were not made.

    Raises
    ------
    ValueError
        when a transform is none: its matrix has no inverse, or its grid is sheared
    """
    made: list[Dataset] = []
    reasons: list[str] = []
    source, header = given.first.source, given.first.header
    numbers: dict[str, int] = {}
    for transform in findings.transforms:
        moving, fixed = (given.on(name).header for name in (transform.moving, transform.fixed))
        if not (moving.images and fixed.images):
            reasons.append(f"the transform {transform.name} is between inputs one of which has no images")
            continue
        frame = fixed.frame_of_reference_uid
        numbers[frame] = numbers.get(frame, 0) + 1
        series_index = list(numbers).index(frame)
        if transform.displacements is None:
            data_set = _spatial_registration(transform, moving, fixed)
        else:
            data_set = deformable_registration(transform, moving, fixed)
        data_set.FrameOfReferenceUID = frame
        data_set.PositionReferenceIndicator = None
        data_set.Modality = "REG"
        data_set.ContentLabel = "REGISTRATION"
        words = f"{transform.label or transform.name}"[: _MAX_LONG_STRING - 20]
        data_set.ContentDescription = f"{words}, {NOT_FOR_DIAGNOSIS}"
        data_set.ContentCreatorName = None
        stamp(
            data_set, source, header, run, "reg", what=f"reg {transform.name}", number=numbers[frame],
            series="reg" if series_index == 0 else f"reg {frame}",
        )  # fmt: skip
        set_laterality(data_set, header.laterality)
        used = (*fixed.images, *moving.images)
        set_references(data_set, used, header.study_instance_uid)
        if schemes := coding_schemes(data_set):
            data_set.CodingSchemeIdentificationSequence = schemes
        made.append(data_set)
    return made, reasons


def _spatial_registration(transform: Transform, moving: SourceHeader, fixed: SourceHeader) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID = SpatialRegistrationStorage
    share_a_frame = moving.frame_of_reference_uid == fixed.frame_of_reference_uid
    data_set.RegistrationSequence = [
        _item(fixed, np.eye(4), "RIGID", _IDENTITY, share_a_frame, transform),
        _item(moving, transform.matrix, transform.kind, _BY_CONTENT, share_a_frame, transform),
    ]
    return data_set


def _item(
    header: SourceHeader,
    matrix: NDArray[np.float64],
    kind: str,
    how: Code,
    share_a_frame: bool,
    transform: Transform,
) -> Dataset:
    item, registration = Dataset(), Dataset()
    if not share_a_frame:
        # One that the source lacks is made up for it, the same for all of its results.
        item.FrameOfReferenceUID = header.frame_of_reference_uid
    item.ReferencedImageSequence = [instance_item(one) for one in header.images]
    comment = f"{transform.moving or 'moving'} to {transform.fixed or 'fixed'}"
    registration.FrameOfReferenceTransformationComment = comment[:_MAX_LONG_STRING]
    registration.RegistrationTypeCodeSequence = [code_dataset(how)]
    registration.MatrixSequence = [matrix_item(matrix, kind, transform.name)]
    item.MatrixRegistrationSequence = [registration]
    return item
