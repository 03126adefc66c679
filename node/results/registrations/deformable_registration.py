"""Transforms with displacements: Deformable Spatial Registration Storage (PS3.3 section A.39.2, C.20.3).

The standard takes a point of the registered coordinate system, which is that of the fixed input, to the
source, which is the moving one: ``source = post @ (pre @ registered + displacement)``. Pre is the
identity here, as the grid lies in the fixed input, and post the inverse of the matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import DeformableSpatialRegistrationStorage

from models.types import Code, Transform
from node.results.concepts import code_dataset
from node.results.header_values import as_decimal_string
from node.results.references import instance_item
from node.results.registrations.transform_matrix import matrix_item
from node.results.source_header import SourceHeader

_BY_CONTENT = Code("125024", "DCM", "Image Content-based Alignment")
_MAX_LONG_STRING = 64
_PERPENDICULAR = 1e-4


def deformable_registration(transform: Transform, moving: SourceHeader, fixed: SourceHeader) -> Dataset:
    """Return the Deformable Spatial Registration module of ``transform``, and its SOP class."""
    data_set = Dataset()
    data_set.SOPClassUID = DeformableSpatialRegistrationStorage
    if abs(float(np.linalg.det(transform.matrix))) < 1e-9:
        raise ValueError(f"the matrix of {transform.name} has no inverse")
    inverse = np.asarray(np.linalg.inv(transform.matrix), np.float64)
    of_moving = _item(moving, transform)
    of_moving.DeformableRegistrationGridSequence = [_grid(transform)]
    of_moving.PreDeformationMatrixRegistrationSequence = [matrix_item(np.eye(4), "RIGID", transform.name)]
    of_moving.PostDeformationMatrixRegistrationSequence = [
        matrix_item(inverse, transform.kind, transform.name)
    ]
    # The fixed input is as it is: an item that names its images and changes nothing.
    data_set.DeformableRegistrationSequence = [_item(fixed, transform), of_moving]
    return data_set


def _item(header: SourceHeader, transform: Transform) -> Dataset:
    item = Dataset()
    item.SourceFrameOfReferenceUID = header.frame_of_reference_uid
    item.ReferencedImageSequence = [instance_item(one) for one in header.images]
    comment = f"{transform.moving or 'moving'} to {transform.fixed or 'fixed'}"
    item.FrameOfReferenceTransformationComment = comment[:_MAX_LONG_STRING]
    item.RegistrationTypeCodeSequence = [code_dataset(_BY_CONTENT)]
    return item


def _grid(transform: Transform) -> Dataset:
    """Return the Deformable Registration Grid: x, the column index, runs fastest, then y, then z."""
    affine, displacements = transform.displacement_affine, transform.displacements
    assert affine is not None
    assert displacements is not None
    steps = affine[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    if (lengths <= 0).any():
        raise ValueError(f"the grid of {transform.name} has a step of no length")
    down_slices, down_rows, along_row = (steps / lengths).T
    normal = np.cross(along_row, down_rows)
    if max(abs(float(along_row @ down_rows)), *map(abs, down_slices @ (steps / lengths)[:, 1:])) > (
        _PERPENDICULAR
    ):
        raise ValueError(
            f"the grid of {transform.name} is sheared, and that of a Deformable Spatial Registration has "
            "axes at right angles; give the displacements on such a grid"
        )
    origin = affine[:3, 3]
    if float(down_slices @ normal) < 0:
        # The standard has the third axis where the other two make a right-handed system with it.
        displacements = displacements[::-1]
        origin = origin + steps[:, 0] * (len(displacements) - 1)
    item = Dataset()
    item.ImagePositionPatient = [as_decimal_string(value) for value in origin]
    item.ImageOrientationPatient = [as_decimal_string(value) for value in (*along_row, *down_rows)]
    item.GridDimensions = [int(count) for count in displacements.shape[2::-1]]
    item.GridResolution = [float(lengths[axis]) for axis in (2, 1, 0)]
    item.VectorGridData = _little_endian(displacements)
    return item


def _little_endian(displacements: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(displacements, dtype="<f4").tobytes()
