"""The rules of ``check`` for Spatial and Deformable Spatial Registrations (PS3.3 sections C.20.2, C.20.3)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from node.results.checks.check_image import is_orthonormal
from node.results.checks.check_references import referenced_instances
from node.results.header_values import numbers
from node.results.registrations.transform_matrix import least_kind

_KINDS = ("RIGID", "RIGID_SCALE", "AFFINE")


def registration_problems(data_set: Dataset) -> Iterator[str]:
    """Yield what is wrong with a Spatial Registration."""
    yield from _common(data_set)
    entries = data_set.get("RegistrationSequence") or []
    if len(entries) < 2:
        yield "a registration has not both a fixed and a moving item"
    identities = 0
    for item in entries:
        yield from _images(item, data_set)
        matrices = [
            matrix
            for registration in item.get("MatrixRegistrationSequence") or []
            for matrix in registration.get("MatrixSequence") or []
        ]
        if not matrices:
            yield "an item of the registration has no matrix"
        for matrix in matrices:
            yield from _matrix(matrix)
            values = numbers(matrix, "FrameOfReferenceTransformationMatrix")
            identities += values == tuple(np.eye(4).ravel().tolist())
    if not identities:
        yield "no item has the identity, so none is the fixed one"
    own = [item.get("FrameOfReferenceUID") for item in entries]
    if any(own) and data_set.get("FrameOfReferenceUID") not in own:
        yield "no item lies in the frame of reference of the registration"


def deformation_problems(data_set: Dataset) -> Iterator[str]:
    """Yield what is wrong with a Deformable Spatial Registration."""
    yield from _common(data_set)
    entries = data_set.get("DeformableRegistrationSequence") or []
    grids = []
    for item in entries:
        if not item.get("SourceFrameOfReferenceUID"):
            yield "an item has no Source Frame of Reference UID"
        yield from _images(item, data_set)
        grids += list(item.get("DeformableRegistrationGridSequence") or [])
        for keyword in (
            "PreDeformationMatrixRegistrationSequence",
            "PostDeformationMatrixRegistrationSequence",
        ):
            for matrix in item.get(keyword) or []:
                yield from _matrix(matrix)
    if not grids:
        yield "no item has a deformation grid"
    for grid in grids:
        dimensions = [int(count) for count in numbers(grid, "GridDimensions")]
        resolution = numbers(grid, "GridResolution")
        if len(dimensions) != 3 or len(resolution) != 3 or min(resolution) <= 0:
            yield "a deformation grid has not three dimensions with steps"
        elif len(grid.get("VectorGridData") or b"") != math.prod(dimensions) * 12:
            yield "Vector Grid Data has not the length that Grid Dimensions say"
        if not is_orthonormal(grid):
            yield "the axes of a deformation grid are not two unit vectors at right angles"
        if len(numbers(grid, "ImagePositionPatient")) != 3:
            yield "a deformation grid has no position"


def _common(data_set: Dataset) -> Iterator[str]:
    for keyword in ("FrameOfReferenceUID", "ContentLabel", "ContentDescription", "DeviceSerialNumber"):
        if not data_set.get(keyword):
            yield f"{keyword} is absent or empty"


def _images(item: Dataset, data_set: Dataset) -> Iterator[str]:
    images = {str(image.ReferencedSOPInstanceUID) for image in item.get("ReferencedImageSequence") or []}
    if not images:
        yield "an item of the registration names no images"
    if not images <= referenced_instances(data_set):
        yield "a registered image is not in Referenced Series Sequence"


def _matrix(item: Dataset) -> Iterator[str]:
    values = numbers(item, "FrameOfReferenceTransformationMatrix")
    kind = item.get("FrameOfReferenceTransformationMatrixType")
    if len(values) != 16 or not np.allclose(values[12:], (0, 0, 0, 1)):
        yield "a transformation matrix has not 16 values, the last 0 0 0 1"
        return
    if kind not in _KINDS:
        yield "a transformation matrix has no type"
    elif _KINDS.index(kind) < _KINDS.index(least_kind(np.reshape(values, (4, 4)))):
        yield f"a transformation matrix is not {kind}"
