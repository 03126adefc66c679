"""A data set of any transfer syntax, in Explicit or Implicit VR Little Endian, still telling the truth."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from node.config.settings import LimitsConfig
from node.errors import UnsupportedPixelData
from node.ingest.elements import Element, ElementWalk
from node.ingest.header import is_implicit_vr, walk
from node.transcode import headers, pixels
from node.transcode.codestreams import FAILURES
from node.transcode.encapsulation import EXTENDED_OFFSET_TABLES
from node.transcode.facts import MOST_FRAME_BYTES, PixelFacts, facts_from
from node.transcode.native import packed_frames
from node.transcode.native_image import DEEPEST_NESTING, PIXEL_DATA, value_reader
from node.transcode.pixel_data import plain
from node.transcode.side_by_side import CORES
from node.transcode.spool import spool

UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))

_CHUNK_BYTES = 1 << 20
_LARGEST_VALUE = 0xFFFFFFFE
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_PLANAR_CONFIGURATION = 0x00280006
_LOSSY_IMAGE_COMPRESSION = 0x00282110
_PIXEL_GROUP_LENGTH = 0x7FE00000
# JPEG with a quantiser, and JPEG-LS that may be off by a little: there is no lossless way to use them.
_ALWAYS_LOSSY = frozenset(map(str, (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless))) | frozenset(
    f"1.2.840.10008.1.2.4.{number}" for number in (52, 53, 54, 55, 56)
)


def uncompressed(
    data_set: BinaryIO,
    from_transfer_syntax_uid: str,
    to_transfer_syntax_uid: str,
    *,
    frame_bytes: int = MOST_FRAME_BYTES,
) -> BinaryIO:
    """Encode a data set in an uncompressed Little Endian transfer syntax.

    Parameters
    ----------
    data_set : BinaryIO
        Without file meta information; read from position 0.
    from_transfer_syntax_uid, to_transfer_syntax_uid : str
        Any; and one of ``UNCOMPRESSED``.
    frame_bytes : int
        The largest frame that is decoded.

    Returns
    -------
    BinaryIO
        The encoded data set, at position 0, of even length; the caller closes it. Photometric
        Interpretation and Planar Configuration are those of the decoded pixels: what JPEG coded
        as luminance and chrominance becomes RGB. Lossy Image Compression says 01 where pixels were
        lossy.

    Raises
    ------
    UnsupportedPixelData
        The pixels cannot be decoded or are too large, or something nested cannot be encoded.
    MalformedDataSet, LimitExceeded
        The data set cannot be walked.
    """
    with plain(data_set, from_transfer_syntax_uid, LimitsConfig()) as file:
        return _encoded_anew(file, from_transfer_syntax_uid, to_transfer_syntax_uid, frame_bytes)


def _encoded_anew(
    data_set: BinaryIO, from_transfer_syntax_uid: str, to_transfer_syntax_uid: str, frame_bytes: int
) -> BinaryIO:
    elements = walk(data_set, from_transfer_syntax_uid, max_depth=DEEPEST_NESTING)
    every = tuple(elements.elements())
    source = _Source(data_set, from_transfer_syntax_uid, elements, every, frame_bytes)
    file = spool()
    try:
        _write(source, to_transfer_syntax_uid, file)
        file.seek(0)
    except FAILURES as error:
        file.close()
        raise UnsupportedPixelData(f"the data set cannot be encoded: {error}") from error
    except BaseException:
        file.close()
        raise
    return file


class _Place(io.RawIOBase):
    """A file that is read from a position of its own, whoever else reads it meanwhile."""

    def __init__(self, file: BinaryIO, position: int) -> None:
        super().__init__()
        self._file = file
        self._position = position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = self._position + offset, io.SEEK_SET
        self._position = self._file.seek(offset, whence)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(-1 if size is None else size)
        self._position += len(data)
        return data


@dataclass(frozen=True)
class _Source:
    file: BinaryIO
    transfer_syntax_uid: str
    walk: ElementWalk
    every: tuple[Element, ...]
    frame_bytes: int


def _write(source: _Source, transfer_syntax_uid: str, file: BinaryIO) -> None:
    place = next((number for number, one in enumerate(source.every) if one.tag == PIXEL_DATA), None)
    if place is None:
        file.write(_recoded(source, source.every, transfer_syntax_uid, {}))
        return
    pixel_data = source.every[place]
    facts: PixelFacts | None
    changes: dict[int, tuple[str, bytes]] = {}
    if pixel_data.is_undefined:
        facts, frames = _decoded(source, pixel_data)
        changes = _truth(source, facts)
        value = _encoded(facts, frames)
    elif source.transfer_syntax_uid not in pixels.NATIVE_TRANSFER_SYNTAXES:
        raise UnsupportedPixelData("the pixels are not encapsulated as their transfer syntax demands")
    else:
        facts = _native_facts(source)
        value = _native_value(source, pixel_data, facts)
    after = _recoded(source, source.every[place + 1 :], transfer_syntax_uid, {})
    file.write(_recoded(source, source.every[:place], transfer_syntax_uid, changes))
    _write_pixels(file, value, _vr(facts, pixel_data), is_implicit=is_implicit_vr(transfer_syntax_uid))
    file.write(after)


def _recoded(
    source: _Source, elements: tuple[Element, ...], transfer_syntax_uid: str, changes: headers.Changes
) -> bytes:
    return headers.recoded(source.walk, elements, source.transfer_syntax_uid, transfer_syntax_uid, changes)


def _vr(facts: PixelFacts | None, pixel_data: Element) -> str:
    """VR of native Pixel Data (PS3.5 section 8.1.2 with annex A.2)."""
    if facts is not None and facts.bits_allocated > 8:
        return "OW"
    if pixel_data.vr in ("OB", "OW") and not pixel_data.is_undefined:
        return pixel_data.vr
    return "OW" if facts is None else "OB"


def _write_pixels(file: BinaryIO, value: Iterator[bytes], vr: str, *, is_implicit: bool) -> None:
    """Write Pixel Data; its length goes into its head when it is known."""
    place = file.tell()
    head = headers.element_head(PIXEL_DATA, vr, 0, is_implicit=is_implicit)
    file.write(head)
    length = 0
    for chunk in value:
        file.write(chunk)
        length += len(chunk)
    file.write(b"\0" * (length % 2))
    length += length % 2
    if length > _LARGEST_VALUE:
        raise UnsupportedPixelData("the decoded pixels are longer than native Pixel Data can be")
    file.seek(place)
    file.write(headers.element_head(PIXEL_DATA, vr, length, is_implicit=is_implicit))
    file.seek(0, io.SEEK_END)


# --- native pixels -----------------------------------------------------------


def _native_facts(source: _Source) -> PixelFacts | None:
    try:
        return facts_from(value_reader(source.walk, source.every))
    except UnsupportedPixelData:
        return None  # what makes no sense is passed on as it is


def _native_value(source: _Source, pixel_data: Element, facts: PixelFacts | None) -> Iterator[bytes]:
    word_bytes = 1
    if not source.walk.is_little_endian:
        if facts is None:
            raise UnsupportedPixelData("Big Endian pixels of an unknown width")
        # 8-bit samples in words lie in swapped pairs (PS3.5 section 8.1.1).
        word_bytes = max(facts.bits_allocated // 8, 2 if pixel_data.vr != "OB" else 1)
    for start in range(0, pixel_data.length, _CHUNK_BYTES):
        chunk = source.walk.read(
            pixel_data.value_offset + start, min(_CHUNK_BYTES, pixel_data.length - start)
        )
        if word_bytes > 1:
            whole = len(chunk) - len(chunk) % word_bytes
            chunk = np.frombuffer(chunk[:whole], f"u{word_bytes}").byteswap().tobytes() + chunk[whole:]
        yield chunk


# --- compressed pixels -------------------------------------------------------


def _decoded(source: _Source, pixel_data: Element) -> tuple[PixelFacts, Iterator[pixels.Frame]]:
    """Facts of the decoded frames, and the frames."""
    tables = {one.tag: source.walk.value(one) for one in source.every if one.tag in EXTENDED_OFFSET_TABLES}
    offsets = tables.get(EXTENDED_OFFSET_TABLES[0]), tables.get(EXTENDED_OFFSET_TABLES[1])
    facts = facts_from(value_reader(source.walk, source.every), frame_bytes=source.frame_bytes)
    decoded = pixels.encapsulated_frames(
        facts,
        cast(BinaryIO, _Place(source.file, pixel_data.value_offset)),
        source.transfer_syntax_uid,
        extended_offsets=(offsets[0], offsets[1]) if offsets[0] and offsets[1] else None,
        threads=CORES,
    )
    facts = decoded.facts
    if source.transfer_syntax_uid in _ALWAYS_LOSSY and facts.photometric_interpretation == "YBR_FULL":
        rgb = PixelFacts(**{**facts.__dict__, "photometric_interpretation": "RGB"})
        return rgb, (convert_color_space(frame, "YBR_FULL", "RGB") for frame in decoded.frames)
    return facts, decoded.frames


def _truth(source: _Source, facts: PixelFacts) -> dict[int, tuple[str, bytes]]:
    """Elements that the decoded pixels change."""
    photometric_interpretation = facts.photometric_interpretation.encode("ascii", "replace")
    changes: dict[int, tuple[str, bytes]] = {
        _PHOTOMETRIC_INTERPRETATION: (
            "CS",
            photometric_interpretation + b" " * (len(photometric_interpretation) % 2),
        ),
        **dict.fromkeys((_PIXEL_GROUP_LENGTH, *EXTENDED_OFFSET_TABLES), ("", b"")),
    }
    if facts.samples_per_pixel > 1:
        changes[_PLANAR_CONFIGURATION] = ("US", b"\0\0")
    if source.transfer_syntax_uid in _ALWAYS_LOSSY:
        changes[_LOSSY_IMAGE_COMPRESSION] = ("CS", b"01")
    return changes


def _encoded(facts: PixelFacts, frames: Iterator[pixels.Frame]) -> Iterator[bytes]:
    if facts.bits_allocated == 1:
        yield from packed_frames(frames)
        return
    for frame in frames:
        yield frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes()
