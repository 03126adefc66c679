"""A matrix of a registration, with the type that it has (PS3.3 section C.20.2.1.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.results.header_values import as_decimal_string

_KINDS = ("RIGID", "RIGID_SCALE", "AFFINE")
#: How far a matrix may be off what its type says; single precision does not reach farther.
_TOLERANCE = 1e-5


def matrix_item(matrix: NDArray[np.float64], kind: str, what: str) -> Dataset:
    """Return an item with Frame of Reference Transformation Matrix and its type.

    The type is ``kind``, or what the matrix is where that is more: a scaling that calls itself rigid
    would be taken for one.

    Raises
    ------
    ValueError
        when it has no inverse, or its last row is not 0 0 0 1
    """
    if not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-9):
        raise ValueError(f"the last row of the matrix of {what} is not 0 0 0 1")
    if abs(float(np.linalg.det(matrix[:3, :3]))) < 1e-9:
        raise ValueError(f"the matrix of {what} has no inverse")
    item = Dataset()
    item.FrameOfReferenceTransformationMatrixType = max(kind, least_kind(matrix), key=_KINDS.index)
    item.FrameOfReferenceTransformationMatrix = [as_decimal_string(value) for value in matrix.ravel()]
    return item


def least_kind(matrix: NDArray[np.float64]) -> str:
    """Return the least that a matrix is: a rotation; one with scaling along the axes; neither."""
    linear = matrix[:3, :3]
    lengths = np.linalg.norm(linear, axis=0)
    directions = linear / lengths
    is_rotation = np.allclose(directions.T @ directions, np.eye(3), atol=_TOLERANCE) and (
        float(np.linalg.det(directions)) > 0
    )
    if not is_rotation:
        return "AFFINE"
    return "RIGID" if np.allclose(lengths, 1.0, atol=_TOLERANCE) else "RIGID_SCALE"
