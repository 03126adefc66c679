"""Decodes one frame of each encapsulated transfer syntax, with the libraries that can."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import decode as _openjpeg_decode
from pydicom import uid

from node.errors import UnsupportedPixelData
from node.transcode import htj2k, jpeg_xl
from node.transcode.facts import PixelFacts
from node.transcode.native import NativeLayout, unpacked_bits, values
from node.transcode.rle import rle_bits, rle_words
from node.undecodable import UNDECODABLE

#: What the libraries raise for a damaged code stream.
FAILURES = (*UNDECODABLE, AssertionError, MemoryError, OSError, zlib.error)


@dataclass(frozen=True)
class Stream:
    """What the code stream says of itself; ``precision`` in bits, 0 when it does not say."""

    rows: int
    columns: int
    precision: int
    is_signed: bool = False


@dataclass(frozen=True)
class _Family:
    """Transfer syntaxes that are decoded alike; the decoders are tried in their order."""

    transfer_syntax_uids: Sequence[str]
    decoders: Sequence[Callable[[bytes], NDArray[Any]]]
    inspect: Callable[[bytes], Stream | None]
    # Whether the precision of the stream, rather than Bits Stored, says where the sign is.
    knows_precision: bool


def is_known(transfer_syntax_uid: str) -> bool:
    """Whether frames of this encapsulated transfer syntax can be decoded."""
    return transfer_syntax_uid in _FAMILIES or transfer_syntax_uid in _OWN


def decoded_photometric_interpretation(
    encoded: bytes, photometric_interpretation: str, transfer_syntax_uid: str
) -> str:
    """Photometric Interpretation of decoded frames (PS3.5 section 8.2).

    Parameters
    ----------
    encoded : bytes
        The first frame. A JPEG stream says its colour space itself, and some headers err.
    photometric_interpretation : str
        That of the encoded image.
    transfer_syntax_uid : str
        In which the frame is encoded.
    """
    if photometric_interpretation in ("YBR_RCT", "YBR_ICT", "XYB"):
        return "RGB"
    if transfer_syntax_uid in _JPEG:
        try:
            says = _jpeg_colour(encoded)
        except (struct.error, LookupError):
            says = ""  # damaged; decoding will say so
        if says and says.startswith("YBR") != photometric_interpretation.startswith("YBR"):
            return says
    if photometric_interpretation.startswith(("YBR_FULL_4", "YBR_PARTIAL_4")):
        # Subsampled chrominance has been repeated for each pixel.
        return photometric_interpretation.rsplit("_", 1)[0]
    return photometric_interpretation


def decode(encoded: bytes, facts: PixelFacts, transfer_syntax_uid: str) -> NDArray[np.generic]:
    """Decode one frame.

    Returns
    -------
    ndarray
        (rows, columns) or (rows, columns, samples), as wide as Bits Allocated and signed as Pixel
        Representation says.

    Raises
    ------
    UnsupportedPixelData
        The frame is damaged, of another size than Rows and Columns say, or of a kind that no
        library here decodes.
    """
    own = _OWN.get(transfer_syntax_uid)
    if own is not None:
        try:
            return own(encoded, facts)
        except FAILURES as error:
            raise UnsupportedPixelData(f"the frame cannot be decoded: {error}") from error
    family = _FAMILIES[transfer_syntax_uid]
    problems = []
    stream = check_size(encoded, facts, transfer_syntax_uid)
    if transfer_syntax_uid in _NEEDS_END and not _has_end(encoded):
        raise UnsupportedPixelData("the code stream is cut short")
    for decoder in family.decoders:
        try:
            return _conformed(np.asarray(decoder(encoded)), facts, stream, family)
        except FAILURES as error:
            problems.append(str(error).strip() or type(error).__name__)
    raise UnsupportedPixelData(f"the frame cannot be decoded: {'; '.join(problems)}"[:500])


def check_size(encoded: bytes, facts: PixelFacts, transfer_syntax_uid: str) -> Stream | None:
    """Look at what a code stream says of itself, before anything is decoded.

    Returns None where it does not say. Raises UnsupportedPixelData where its size is not that of the image,
    which may be an attack, or it is cut short.
    """
    family = _FAMILIES.get(transfer_syntax_uid)
    stream = None if family is None else _inspect(family, encoded)
    if stream is not None and (stream.columns != facts.columns or stream.rows not in (0, facts.rows)):
        raise UnsupportedPixelData(
            f"the code stream has {stream.rows} rows and {stream.columns} columns, "
            f"the image {facts.rows} and {facts.columns}"
        )
    return stream


def jpeg2000_stream(encoded: bytes) -> Stream:
    """What a JPEG 2000 stream says of itself; ValueError where it says nothing."""
    stream = _inspect_jpeg2000(encoded)
    if stream is None:
        raise ValueError("there is no code stream")
    return stream


def _inspect(family: _Family, encoded: bytes) -> Stream | None:
    try:
        return family.inspect(encoded)
    except (struct.error, LookupError) as error:
        raise UnsupportedPixelData("the code stream is cut short") from error
    except ValueError as error:
        raise UnsupportedPixelData(f"the frame cannot be decoded: {error}") from error


def _conformed(
    frame: NDArray[Any], facts: PixelFacts, stream: Stream | None, family: _Family
) -> NDArray[np.generic]:
    """Give a decoded frame the shape, width and sign that the attributes say."""
    shape = facts.frame_shape
    planes = (facts.samples_per_pixel, facts.rows, facts.columns)
    if facts.samples_per_pixel > 1 and frame.shape != shape and frame.shape == planes:
        frame = np.moveaxis(frame, 0, -1)
    if frame.shape != shape:
        if [side for side in frame.shape if side > 1] != [side for side in shape if side > 1]:
            raise ValueError(f"the frame has the shape {frame.shape}")
        frame = frame.reshape(shape)
    bits = max(8, facts.bits_allocated)
    knows_precision, is_signless = family.knows_precision, family.inspect is _inspect_jpeg
    precision = stream.precision if stream and knows_precision else facts.bits_stored
    precision = min(precision or facts.bits_stored, bits)
    if facts.is_signed and is_signless:
        precision = min(precision, facts.bits_stored)  # the words may have no sign above it
    if facts.bits_allocated == 1:
        return frame.astype(np.uint8)
    words = frame.astype(f"i{bits // 8}" if facts.is_signed else f"u{bits // 8}", copy=False)
    unused = bits - precision
    # What the library took for unsigned is signed, or the other way: the sign bit is at the
    # precision (PS3.5 sections 8.2.3 and 8.2.4). Shifting up and down again does both.
    return np.ascontiguousarray((words << unused) >> unused if unused else words)


# --- what code streams say of themselves -------------------------------------


def _jpeg_segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset of its content) up to the first scan (ISO/IEC 10918-1 section B.1.1.4)."""
    position = encoded.find(b"\xff\xd8") + 2
    if position < 2:
        return
    while position + 4 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xDA:
            return
        yield marker, position + 4
        position += 2 + struct.unpack_from(">H", encoded, position + 2)[0]


def _is_frame_header(marker: int) -> bool:
    return marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))


def _inspect_jpeg(encoded: bytes) -> Stream | None:
    """Find the frame header of a JPEG or JPEG-LS stream (ISO/IEC 10918-1 section B.2.2)."""
    for marker, offset in _jpeg_segments(encoded):
        if _is_frame_header(marker):
            precision, rows, columns = struct.unpack_from(">BHH", encoded, offset)
            return Stream(rows, columns, precision)
    return None


def _jpeg_colour(encoded: bytes) -> str:
    """Colour space of a JPEG stream of three components; empty when it does not say."""
    says = ""
    for marker, offset in _jpeg_segments(encoded):
        if marker == 0xE0 and encoded[offset : offset + 4] == b"JFIF":
            says = "YBR_FULL"
        elif marker == 0xEE and encoded[offset : offset + 5] == b"Adobe" and encoded[offset - 1] >= 14:
            return "RGB" if encoded[offset + 11] == 0 else "YBR_FULL"
        elif _is_frame_header(marker):
            if encoded[offset + 5] != 3:
                return ""
            components = encoded[offset + 6 : offset + 15 : 3]
            if components in (b"RGB", b"rgb"):
                return "RGB"
    return says


def _has_end(encoded: bytes) -> bool:
    """Whether a stream of the JPEG family has its end-of-image marker, before padding."""
    return encoded[-64:].rstrip(b"\0\xff").endswith(b"\xff\xd9")


def _inspect_jpeg2000(encoded: bytes) -> Stream | None:
    """Read the SIZ segment (ISO/IEC 15444-1 section A.5.1)."""
    start = encoded.find(b"\xff\x4f\xff\x51")
    if start < 0:
        return None
    x_end, y_end, x_start, y_start = struct.unpack_from(">4L", encoded, start + 8)
    component = encoded[start + 42]
    return Stream(y_end - y_start, x_end - x_start, (component & 0x7F) + 1, bool(component & 0x80))


def _inspect_jpeg_xl(encoded: bytes) -> Stream | None:
    rows, columns = jpeg_xl.size(encoded)
    return Stream(rows, columns, 0)


# --- the libraries -----------------------------------------------------------


def _libjpeg_turbo(encoded: bytes) -> NDArray[Any]:
    # Named alike on both sides, the colour spaces leave the samples as they are coded.
    if _components(encoded) == 3:
        return np.asarray(imagecodecs.jpeg8_decode(encoded, colorspace="YCBCR", outcolorspace="YCBCR"))
    return np.asarray(imagecodecs.jpeg8_decode(encoded))


def _components(encoded: bytes) -> int:
    """Number of components of a JPEG stream, by its frame header; 0 when there is none."""
    for marker, offset in _jpeg_segments(encoded):
        if _is_frame_header(marker):
            return encoded[offset + 5]
    return 0


def jpeg_ls_samples(encoded: bytes) -> NDArray[Any]:
    """Samples of a JPEG-LS stream, without a sign; raises what is in ``FAILURES``."""
    # Of some streams that are cut short CharLS never finds the end.
    if not _has_end(encoded):
        raise ValueError("the code stream is cut short")
    return np.asarray(imagecodecs.jpegls_decode(encoded))


def lossless_jpeg_samples(encoded: bytes) -> NDArray[Any]:
    """Samples of a lossless JPEG stream, without a sign; raises what is in ``FAILURES``."""
    if not _has_end(encoded):
        raise ValueError("the code stream is cut short")
    return _libjpeg_turbo(encoded)


def _openjpeg(encoded: bytes) -> NDArray[Any]:
    return np.asarray(imagecodecs.jpeg2k_decode(encoded))


def _pylibjpeg_openjpeg(encoded: bytes) -> NDArray[Any]:
    return _openjpeg_decode(encoded)


def _libjxl(encoded: bytes) -> NDArray[Any]:
    return np.asarray(imagecodecs.jpegxl_decode(encoded))


# Processes 1 to 28 of ISO/IEC 10918-1, most of them retired.
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (*range(50, 67), 70))

# Lossless ones, of which a part that was made up would be worse than none.
_NEEDS_END = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (57, 58, 65, 66, 70, 80, 81))

_FAMILIES: dict[str, _Family] = {
    transfer_syntax_uid: family
    for family in (
        _Family(sorted(_JPEG), [_libjpeg_turbo], _inspect_jpeg, False),
        _Family([uid.JPEGLSLossless, uid.JPEGLSNearLossless], [jpeg_ls_samples], _inspect_jpeg, True),
        _Family(
            [uid.JPEG2000Lossless, uid.JPEG2000, uid.JPEG2000MCLossless, uid.JPEG2000MC],
            [_openjpeg, _pylibjpeg_openjpeg],
            _inspect_jpeg2000,
            True,
        ),
        _Family(
            [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL],
            [htj2k.samples, _openjpeg, _pylibjpeg_openjpeg],
            _inspect_jpeg2000,
            True,
        ),
        # Not by OpenJPH: it lets samples that quantisation moved beyond the range wrap around.
        _Family([uid.HTJ2K], [_openjpeg, _pylibjpeg_openjpeg], _inspect_jpeg2000, True),
        _Family(
            [f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112)],
            [_libjxl],
            _inspect_jpeg_xl,
            False,
        ),
    )
    for transfer_syntax_uid in family.transfer_syntax_uids
}


# --- what needs the facts ----------------------------------------------------


def _rle(encoded: bytes, facts: PixelFacts) -> NDArray[np.generic]:
    if facts.bits_allocated == 1:
        return rle_bits(encoded, facts)
    return values(rle_words(encoded, facts), facts)


def deflated_samples(encoded: bytes, facts: PixelFacts) -> NDArray[Any]:
    """Samples of a frame of Deflated Image Frame Compression (PS3.5 section 8.2.16).

    Raises ValueError or zlib.error for a damaged frame.
    """
    expected = (facts.frame_samples * facts.bits_allocated + 7) // 8
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    native = inflater.decompress(encoded, expected + 1)
    if len(native) < expected:
        raise ValueError("the deflated frame is too short")
    if facts.bits_allocated == 1:
        return unpacked_bits(native, facts.frame_samples).reshape(facts.frame_shape)
    return values(NativeLayout(facts).words(native[:expected]), facts)


def _plain(encoded: bytes, facts: PixelFacts) -> NDArray[Any]:
    """A frame as it is, in a fragment (PS3.5 section A.4.11), with at most a byte of padding."""
    expected = (facts.frame_samples * facts.bits_allocated + 7) // 8
    if not expected <= len(encoded) <= expected + 1:
        raise ValueError(f"the frame has {len(encoded)} bytes instead of {expected}")
    if facts.bits_allocated == 1:
        return unpacked_bits(encoded, facts.frame_samples).reshape(facts.frame_shape)
    return values(NativeLayout(facts).words(encoded[:expected]), facts)


_OWN: dict[str, Callable[[bytes, PixelFacts], NDArray[np.generic]]] = {
    uid.RLELossless: _rle,
    "1.2.840.10008.1.2.8.1": deflated_samples,
    "1.2.840.10008.1.2.1.98": _plain,
}
