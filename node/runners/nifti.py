"""NIfTI-1 files (.nii, .nii.gz): how programs for research are given volumes, and say what they found.

The grid stands in the sform, so that a tilted gantry is kept as it is. The axes of a file are (column,
row, slice) and its coordinates RAS; here they are (slice, row, column) and LPS, as in ``models.types``.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES, _DATA_OFFSET = 348, 352
_CODES: dict[int, str] = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_MOST_BYTES = 16 * 1024**3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSED = [2, 1, 0, 3]


def write(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write a volume (slice, row, column), compressed when the name ends in ``.gz``.

    ``affine`` is that of ``models.types.Volume``. Booleans are written as bytes of 0 and 1.
    """
    array = voxels.view(np.uint8) if voxels.dtype == np.bool_ else voxels
    kind = array.dtype.str[1:]
    code = next((code for code, one in _CODES.items() if one == kind), None)
    if code is None:
        raise ValueError(f"NIfTI has no voxels of {array.dtype}")
    ras = ras_of(affine)
    lengths = np.linalg.norm(ras[:3, :3], axis=0)
    header = bytearray(_DATA_OFFSET)
    struct.pack_into("<i", header, 0, _HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 3, *reversed(array.shape), 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, array.dtype.itemsize * 8)
    struct.pack_into("<8f", header, 76, 1.0, *lengths, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, _DATA_OFFSET, 1.0, 0.0)
    header[123] = 2  # lengths in mm
    struct.pack_into("<2h", header, 252, 0, 1)  # no qform; the sform holds scanner coordinates
    struct.pack_into("<12f", header, 280, *ras[:3].astype(np.float32).reshape(-1))
    header[344:348] = b"n+1\0"
    little = array.dtype.newbyteorder("<")
    with _opened(path, "wb") as file:
        file.write(bytes(header))
        # slice by slice: the voxels may be mapped from a file, and are large
        for plane in array:
            file.write(np.ascontiguousarray(plane, little).tobytes())


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read a file of three axes: voxels (slice, row, column), and their affine as that of ``Volume``.

    Raises
    ------
    ValueError
        when it is no such file, or is cut short
    """
    try:
        with _opened(path, "rb") as file:
            header = file.read(_HEADER_BYTES)
            order = _byte_order(path, header)
            lengths = struct.unpack_from(f"{order}8h", header, 40)
            code = struct.unpack_from(f"{order}h", header, 70)[0]
            offset, slope, intercept = struct.unpack_from(f"{order}3f", header, 108)
            if code not in _CODES:
                raise ValueError(f"{path.name}: voxels of type {code} are not read here")
            dtype = np.dtype(order + _CODES[code])
            shape = tuple(lengths[1 : 1 + lengths[0]]) if 0 < lengths[0] < 8 else ()
            if len(shape) < 3 or min(shape) < 1 or any(one != 1 for one in shape[3:]):
                raise ValueError(f"{path.name}: expected a volume of three axes, not {shape}")
            count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            if count > _MOST_BYTES or not _HEADER_BYTES <= offset < 2**20:
                raise ValueError(f"{path.name}: its header cannot be true")
            file.read(int(offset) - _HEADER_BYTES)
            content = file.read(count)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    if len(content) != count:
        raise ValueError(f"{path.name} is cut short")
    voxels = (
        np.frombuffer(content, dtype).reshape(shape[:3][::-1]).astype(dtype.newbyteorder("="), copy=False)
    )
    if slope and np.isfinite(slope) and (slope, intercept) != (1.0, 0.0):
        voxels = voxels * np.float32(slope) + np.float32(intercept)
    return voxels, lps_of(_ras(header, order))


def ras_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine of ``Volume`` as that of a NIfTI file: (column, row, slice) to RAS mm."""
    ras: NDArray[np.float64] = _LPS_TO_RAS @ affine[:, _REVERSED]
    return ras


def lps_of(ras: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine of a NIfTI file as that of ``Volume``."""
    lps: NDArray[np.float64] = (_LPS_TO_RAS @ ras)[:, _REVERSED]
    return lps


def _opened(path: Path, mode: Any) -> Any:
    if path.suffix != ".gz":
        return path.open(mode)
    # a constant time, so that the same volume makes the same file
    return gzip.GzipFile(path, mode, compresslevel=1, mtime=0) if mode == "wb" else gzip.open(path, mode)


def _byte_order(path: Path, header: bytes) -> str:
    if len(header) == _HEADER_BYTES and header[344:347] == b"n+1":
        for order in "<>":
            if struct.unpack_from(f"{order}i", header)[0] == _HEADER_BYTES:
                return order
    raise ValueError(f"{path.name} is no NIfTI-1 file")


def _ras(header: bytes, order: str) -> NDArray[np.float64]:
    qform, sform = struct.unpack_from(f"{order}2h", header, 252)
    affine = np.eye(4)
    if sform > 0:
        affine[:3] = np.array(struct.unpack_from(f"{order}12f", header, 280)).reshape(3, 4)
        return affine
    lengths = struct.unpack_from(f"{order}8f", header, 76)
    if qform <= 0:
        return np.diag([*lengths[1:4], 1.0])
    b, c, d, *origin = struct.unpack_from(f"{order}6f", header, 256)
    a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handed = -1.0 if lengths[0] < 0 else 1.0
    affine[:3, :3] = rotation * np.array([lengths[1], lengths[2], lengths[3] * handed])
    affine[:3, 3] = origin
    return affine
