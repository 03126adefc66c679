"""Arrays that a model's process wrote: what they are is read first, and what they hold when that is fine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from node.processes import process_tree
from node.processes.foreign_files import open_plain

#: With a mask goes its shape: the file holds its bits.
PACKED = "packed"
#: Of all arrays of a result together, as the node has them in memory; of one file that holds an array.
MOST_RESULT_BYTES, MOST_FILE_BYTES = 8 << 30, 8 << 30
_MOST_HEADER_BYTES = 4096
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_Facts = tuple[tuple[int, ...], bool, np.dtype[Any]]


class ArrayFiles:
    """The files of a result that hold its arrays, each asked for twice: for its ``outline`` and to ``read``.

    Parameters
    ----------
    folder
        where they lie
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._facts: dict[str, _Facts] = {}
        self._bytes = 0
        available = process_tree.available_bytes()
        # What is made of them needs as much again.
        self._most_bytes = MOST_RESULT_BYTES if available is None else min(MOST_RESULT_BYTES, available // 2)

    def outline(self, raw: Any) -> NDArray[Any]:
        """Return an array of the shape and type that the file says, which holds nothing.

        Raises
        ------
        ValueError
            it is none, or more than all of them may be, or one file is named twice
        """
        name = raw["file"]
        if name in self._facts:
            raise ValueError(f"the file {name!r} is named for two arrays")
        with open_plain(self._folder, name, MOST_FILE_BYTES) as file:
            facts = shape, _, dtype = _header(file)
        if PACKED in raw:
            dimensions = _dimensions(raw[PACKED])
            _refuse_other_bits(shape, dtype, dimensions)
            shape, dtype = dimensions, np.dtype(np.bool_)
        self._bytes += math.prod(shape) * dtype.itemsize
        if self._bytes > self._most_bytes:
            raise ValueError(
                f"its arrays take more than the {self._most_bytes >> 20} MB that the node has for them"
            )
        self._facts[name] = facts
        return np.broadcast_to(np.zeros((), dtype), shape)

    def read(self, raw: Any) -> NDArray[Any]:
        """Read the array into memory.

        Raises
        ------
        ValueError
            it is not what it was, or cut short
        """
        name = raw["file"]
        with open_plain(self._folder, name, MOST_FILE_BYTES) as file:
            facts = shape, is_fortran, dtype = _header(file)
            if facts != self._facts[name]:
                raise ValueError(f"the file {name!r} has changed while it was read")
            count = math.prod(shape)
            array: NDArray[Any] = np.fromfile(file, dtype, count)
        if len(array) != count:
            raise ValueError(f"the file {name!r} is cut short")
        array = array.reshape(shape, order="F" if is_fortran else "C")
        return unpacked(array, raw[PACKED]) if PACKED in raw else array


def unpacked(bits: NDArray[Any], dimensions: Any) -> NDArray[np.bool_]:
    """Return the mask of the shape ``dimensions`` that ``numpy.packbits`` made ``bits`` of.

    Raises
    ------
    TypeError, ValueError
        there is none
    """
    shape = _dimensions(dimensions)
    _refuse_other_bits(bits.shape, bits.dtype, shape)
    return np.unpackbits(bits, count=math.prod(shape)).view(np.bool_).reshape(shape)


def _dimensions(raw: Any) -> tuple[int, ...]:
    shape = tuple(raw)
    if not all(type(one) is int and one >= 0 for one in shape):
        raise ValueError(f"{str(raw)[:100]} is no shape of a mask")
    return shape


def _refuse_other_bits(shape: tuple[int, ...], dtype: np.dtype[Any], mask: tuple[int, ...]) -> None:
    if len(shape) != 1 or dtype != np.uint8 or shape[0] != -(-math.prod(mask) // 8):
        raise ValueError(f"{dtype} of the shape {shape} are no bits of a mask of the shape {mask}")


def _header(file: BinaryIO) -> _Facts:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of .npy is not read")
    facts: _Facts = _HEADERS[version](file, max_header_size=_MOST_HEADER_BYTES)
    shape, _, dtype = facts
    if dtype.kind not in "iuf" or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} and the shape {shape} is none of a result")
    return facts
