"""Lossless HTJ2K by OpenJPH: encodes, and decodes streams that are whole and of the usual form.

OpenJPH is twice as fast as OpenJPEG, but a wrong number in the header may have it take all memory there
is, and where it finds damage, imagecodecs says nothing and leaves the rest of the samples as they were. So
what the markers say is followed from the first to the last byte beforehand (ISO/IEC 15444-1 annex A), and
afterwards the last row must have been written. What is not decoded here is for OpenJPEG, which has the
last word. Damage that leaves a stream of its form is not seen by any decoder, as code-blocks carry no
checksum; what anode itself stores is covered by its SHA-256.
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

# Of the first component, in the SIZ segment that every stream begins with (ISO/IEC 15444-1 section A.5.1).
_PRECISION_OFFSET, _COMPONENT_BYTES = 42, 3
_SIGNED = 0x80
_START_OF_CODESTREAM = b"\xff\x4f"
_END_OF_CODESTREAM = b"\xff\xd9"
_START_OF_DATA = b"\xff\x93"
_SIZE, _CODING_STYLE, _QUANTISATION, _START_OF_TILE_PART = 0xFF51, 0xFF52, 0xFF5C, 0xFF90
# extended capabilities, the lengths of tile-parts, a comment
_OTHERS = frozenset({0xFF50, 0xFF55, 0xFF64})
_TILE_PART_HEADER_BYTES = 12
_MOST_LEVELS = 8
_HIGH_THROUGHPUT = 0x40
_REVERSIBLE = 1


def encoded(
    samples: NDArray[np.integer[Any]], bits_stored: int, *, has_colours: bool, has_lengths: bool = False
) -> bytes:
    """Encode a frame with the reversible wavelet, its resolutions in order (RPCL).

    Parameters
    ----------
    samples : ndarray
        (rows, columns) or (rows, columns, components), signed or unsigned, 8 or 16 bits wide.
    bits_stored : int
        Precision, of which the samples must be.
    has_colours : bool
        Whether they are red, green and blue, which are transformed reversibly.
    has_lengths : bool
        Whether the stream begins with the lengths of its tile-parts, so that a reader finds a resolution.

    Returns
    -------
    bytes
        A stream that states this precision. OpenJPH takes it from the type of the array, so samples of
        less are encoded without an offset, as signed ones are, and the stream then says how they are meant:
        a decoder adds half the range to what is unsigned (section G.1), and the number of bit-planes is
        stated by the quantisation, not by the precision (section E.1).
    """
    is_signed = samples.dtype.kind == "i"
    is_narrow = bits_stored < 8 * samples.dtype.itemsize
    if is_narrow and not is_signed:
        offset = 1 << (bits_stored - 1)
        # in words that wrap around, which read as signed are what was meant
        shifted = samples - samples.dtype.type(offset)
        samples = shifted.view(shifted.dtype.str.replace("u", "i"))
    stream = bytearray(
        imagecodecs.htj2k_encode(
            np.ascontiguousarray(samples),
            reversible=True,
            planar=False,
            rgb=has_colours,
            tlm=has_lengths,
        )
    )
    if is_narrow:
        for component in range(samples.shape[2] if samples.ndim > 2 else 1):
            precision = bits_stored - 1 | (_SIGNED if is_signed else 0)
            stream[_PRECISION_OFFSET + component * _COMPONENT_BYTES] = precision
    return bytes(stream)


def own_samples(encoded: bytes) -> NDArray[Any]:
    """Samples of a frame that ``encoded`` made; damage need not be noticed, since its digest tells.

    Raises ValueError or RuntimeError where it is.
    """
    stream, decoded = _whole(encoded)
    imagecodecs.htj2k_decode(stream, planar=False, out=decoded)
    return decoded


def reduced_samples(encoded: bytes, levels: int) -> NDArray[Any]:
    """Samples of a frame that is halved ``levels`` times, or as often as its wavelet was applied.

    Raises ValueError or RuntimeError for a stream that is damaged, or of a form that is left to others.
    """
    stream, _ = _whole(encoded)
    most = stream[stream.index(_CODING_STYLE.to_bytes(2, "big")) + 9]
    return np.asarray(imagecodecs.htj2k_decode(stream, planar=False, skipres=min(levels, most)))


def samples(encoded: bytes) -> NDArray[Any]:
    """Samples of a frame, (rows, columns) or (rows, columns, components).

    Raises
    ------
    ValueError, RuntimeError
        The stream is damaged, or of a form that is left to others.
    """
    stream, decoded = _whole(encoded)
    last_row = decoded.reshape(len(decoded), decoded.shape[1], -1)[-1, :, -1]
    last_row[:] = 0
    imagecodecs.htj2k_decode(stream, planar=False, out=decoded)
    if not last_row.any():
        raise ValueError("the code stream is damaged, or its image ends in a row of zeros")
    return decoded


def _whole(encoded: bytes) -> tuple[bytes, NDArray[Any]]:
    """The stream without what pads it, and an array of the shape and type of its samples."""
    try:
        position, decoded = _main_header(encoded)
        while encoded[position : position + 2] != _END_OF_CODESTREAM:
            position = _after_tile_part(encoded, position)
    except (struct.error, LookupError) as error:
        raise ValueError("the code stream is cut short") from error
    end = position + len(_END_OF_CODESTREAM)
    if encoded[end:].strip(b"\0\xff"):
        raise ValueError("something follows the code stream")
    return encoded[:end], decoded


def _main_header(encoded: bytes) -> tuple[int, NDArray[Any]]:
    """Check the marker segments of the main header; return where the first tile-part begins."""
    _require(encoded.startswith(_START_OF_CODESTREAM))
    found: dict[int, bytes] = {}
    position = len(_START_OF_CODESTREAM)
    while True:
        marker, length = struct.unpack_from(">HH", encoded, position)
        if marker == _START_OF_TILE_PART:
            break
        _require(marker == _SIZE or _SIZE in found)  # it comes first, and there it was looked at before
        _require(
            marker in _OTHERS or (marker in (_SIZE, _CODING_STYLE, _QUANTISATION) and marker not in found)
        )
        found[marker] = encoded[position + 4 : position + 2 + length]
        _require(len(found[marker]) == length - 2)
        position += 2 + length
    decoded = _array(found[_SIZE])
    levels = _levels(found[_CODING_STYLE])
    # no quantisation: an exponent for each sub-band, and nothing else
    quantisation = found[_QUANTISATION]
    _require(quantisation[0] & 0x1F == 0 and len(quantisation) == 2 + 3 * levels)
    return position, decoded


def _array(segment: bytes) -> NDArray[Any]:
    """Array for one tile, which begins at the origin as the image does, and components that are alike."""
    _, *corners, components = struct.unpack_from(">H8LH", segment)
    columns, rows, left, top, tile_columns, tile_rows, tile_left, tile_top = corners
    _require(not any((left, top, tile_left, tile_top)))
    _require(tile_columns >= columns and tile_rows >= rows)
    _require(components in (1, 3) and segment[36:] == segment[36:39] * components)
    precision = (segment[36] & 0x7F) + 1
    _require(precision <= 16 and segment[37:39] == b"\1\1")
    shape = (rows, columns) if components == 1 else (rows, columns, components)
    return np.empty(shape, f"{'i' if segment[36] & 0x80 else 'u'}{1 if precision <= 8 else 2}")


def _levels(segment: bytes) -> int:
    """Number of decomposition levels of a reversible style without precincts and with one layer."""
    style, _, layers, _, levels, wide, high, block_style, wavelet = struct.unpack(">BBHBBBBBB", segment)
    _require(style & ~0x06 == 0 and layers == 1 and levels <= _MOST_LEVELS)
    _require(wide <= 8 and high <= 8 and wide + high <= 8)
    _require(block_style == _HIGH_THROUGHPUT and wavelet == _REVERSIBLE)
    return int(levels)


def _after_tile_part(encoded: bytes, position: int) -> int:
    marker, length, tile, part_bytes = struct.unpack_from(">HHHL", encoded, position)
    start = position + _TILE_PART_HEADER_BYTES
    _require(marker == _START_OF_TILE_PART and length == _TILE_PART_HEADER_BYTES - 2 and tile == 0)
    _require(encoded[start : start + 2] == _START_OF_DATA)
    _require(part_bytes >= _TILE_PART_HEADER_BYTES + 2 and position + part_bytes < len(encoded))
    return position + int(part_bytes)


def _require(is_usual: bool) -> None:
    if not is_usual:
        raise ValueError("the code stream is damaged or unusual")
