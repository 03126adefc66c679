"""Long lists of numbers as decimal strings, without an object for each: contours have millions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.results.header_values import numbers


def decimal_strings(tag: BaseTag, values: NDArray[np.float64]) -> RawDataElement:
    """Return an element (DS) of ``values``, any shape, to a thousandth: as mm, finer than any voxel.

    It is as an element that was read from a file of little endian and explicit VR.
    """
    rounded = np.round(values.ravel(), 3) + 0.0  # no minus in front of a zero
    content = "\\".join([f"{value:.10g}" for value in rounded.tolist()]).encode()
    content += b" " * (len(content) % 2)
    return RawDataElement(tag, "DS", len(content), content, 0, False, True)


def decimals(data_set: Dataset, keyword: str) -> NDArray[np.float64]:
    """Return the numbers of an element, (n,) float64; empty when any is none."""
    element: Any = data_set.get_item(keyword) if keyword in data_set else None
    if not isinstance(element, RawDataElement) or element.value is None:
        return np.array(numbers(data_set, keyword), np.float64)
    try:
        found = np.array(element.value.decode("ascii").split("\\"), np.float64)
    except ValueError:
        return np.empty(0)
    return found if np.isfinite(found).all() else np.empty(0)
