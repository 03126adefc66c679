"""Decodes pixels, frame by frame, of every transfer syntax of the standard except video."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from node.errors import UnsupportedPixelData
from node.transcode import codestreams
from node.transcode.facts import MOST_FRAME_BYTES, PixelFacts, facts_of
from node.transcode.native import NativeLayout, bit_frames, values
from node.transcode.side_by_side import side_by_side

Frame = NDArray[np.generic]
Decode = Callable[[bytes, PixelFacts, str], Frame]
"""Decodes one encoded frame, as ``codestreams.decode`` does."""

NATIVE_TRANSFER_SYNTAXES = frozenset(
    map(
        str,
        (
            ImplicitVRLittleEndian,
            ExplicitVRLittleEndian,
            ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian,
        ),
    )
)
_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Decoded:
    """Frames that were decoded, or are while they are taken.

    Attributes
    ----------
    facts : PixelFacts
        Of the frames as they come out: Planar Configuration 0, and the Photometric Interpretation
        that is now true (PS3.5 section 8.2).
    frames : iterator of ndarray
        As ``frames`` gives them.
    """

    facts: PixelFacts
    frames: Iterator[Frame]


def is_decodable(transfer_syntax_uid: str) -> bool:
    """Whether pixels of this transfer syntax can be decoded here: all but video and references."""
    return transfer_syntax_uid in NATIVE_TRANSFER_SYNTAXES or codestreams.is_known(transfer_syntax_uid)


def frames(
    data_set: Dataset,
    transfer_syntax_uid: str,
    pixel_data: BinaryIO | None = None,
    *,
    frame_bytes: int = MOST_FRAME_BYTES,
) -> Iterator[Frame]:
    """Decode the frames of an image one after the other.

    Parameters
    ----------
    data_set : Dataset
        With its Pixel Data, Float or Double Float Pixel Data; or without, when ``pixel_data`` is
        given.
    transfer_syntax_uid : str
        In which the data set is encoded.
    pixel_data : BinaryIO, optional
        The data set's file at the value of Pixel Data, so that this need not be in memory. Nobody
        else may move its position meanwhile.
    frame_bytes : int
        The largest decoded frame.

    Yields
    ------
    ndarray
        (rows, columns), or (rows, columns, samples) for colour, Bits Allocated wide, signed where
        the pixels are. Samples are as they were before they were encoded: no palette is applied,
        and a colour space is only changed where the code stream is defined to change it (a
        multiple component transform of JPEG 2000 gives RGB). Bits Allocated 1 gives 0 and 1.

    Raises
    ------
    UnsupportedPixelData
        There are no pixels, they are video, too large, or damaged. Frames before the damage have
        been given.
    """
    yield from decoded(data_set, transfer_syntax_uid, pixel_data, frame_bytes=frame_bytes).frames


def decoded(
    data_set: Dataset,
    transfer_syntax_uid: str,
    pixel_data: BinaryIO | None = None,
    *,
    frame_bytes: int = MOST_FRAME_BYTES,
    decode: Decode = codestreams.decode,
    skip: int = 0,
) -> Decoded:
    """Decode as ``frames`` does, and say what comes out; by ``decode``, without the first ``skip`` frames."""
    facts = facts_of(data_set, frame_bytes=frame_bytes)
    source = pixel_data or _value(data_set)
    if transfer_syntax_uid in NATIVE_TRANSFER_SYNTAXES:
        is_little_endian = transfer_syntax_uid != ExplicitVRBigEndian
        is_words = is_little_endian or _is_words(data_set, source)
        layout = NativeLayout(facts, is_little_endian, is_words)
        native = native_frames(facts, _skipped(source, facts, layout, skip), layout)
        return (
            native if facts.bits_allocated > 1 else replace(native, frames=islice(native.frames, skip, None))
        )
    return encapsulated_frames(
        facts,
        source,
        transfer_syntax_uid,
        extended_offsets=_extended_offsets(data_set),
        decode=decode,
        skip=skip,
    )


def _skipped(source: BinaryIO, facts: PixelFacts, layout: NativeLayout, skip: int) -> BinaryIO:
    """``source`` behind the first frames; of bits, which end within bytes, at the first."""
    if skip and facts.bits_allocated > 1:
        source.seek(source.tell() + skip * layout.frame_bytes)
    return source


def _value(data_set: Dataset) -> BinaryIO:
    for keyword in _KEYWORDS:
        if keyword in data_set:
            value = data_set[keyword].value
            if isinstance(value, bytes | bytearray | memoryview):
                return io.BytesIO(value)
            if value is not None:
                return cast(BinaryIO, value)
    raise UnsupportedPixelData("the instance has no pixels")


def _is_words(data_set: Dataset, source: BinaryIO) -> bool:
    """Whether Big Endian pixels are an element of words: by their VR, which a file has before them."""
    if "PixelData" in data_set:
        element: Any = data_set.get_item("PixelData")
        return bool(element.VR != "OB")
    place = source.tell()
    source.seek(max(0, place - 12))
    head = source.read(min(12, place))
    source.seek(place)
    return head[4:6] != b"OB"


def _extended_offsets(data_set: Dataset) -> tuple[bytes, bytes] | None:
    offsets = data_set.get("ExtendedOffsetTable")
    lengths = data_set.get("ExtendedOffsetTableLengths")
    return (offsets, lengths) if offsets and lengths else None


# --- native ------------------------------------------------------------------


def native_frames(facts: PixelFacts, source: BinaryIO, layout: NativeLayout) -> Decoded:
    """Frames of native Pixel Data that begins at the present position of ``source``."""
    if facts.bits_allocated == 1:
        return Decoded(facts, bit_frames(lambda count: _read(source, count), facts))
    layout.check()
    described = _described(facts, photometric_interpretation="YBR_FULL" if facts.is_subsampled else "")
    return Decoded(described, _words(facts, source, layout))


def _described(facts: PixelFacts, photometric_interpretation: str = "") -> PixelFacts:
    return replace(
        facts,
        planar_configuration=0,
        photometric_interpretation=photometric_interpretation or facts.photometric_interpretation,
    )


def _read(source: BinaryIO, count: int) -> bytes:
    encoded = source.read(count)
    if len(encoded) < count:
        raise UnsupportedPixelData("Pixel Data is shorter than its frames")
    return encoded


def _words(facts: PixelFacts, source: BinaryIO, layout: NativeLayout) -> Iterator[Frame]:
    for _ in range(facts.number_of_frames):
        words = layout.words(_read(source, layout.frame_bytes))
        if facts.is_float:
            yield words.view(np.dtype(f"f{facts.bits_allocated // 8}"))
        else:
            yield values(words, facts)


# --- encapsulated ------------------------------------------------------------


def encapsulated_frames(
    facts: PixelFacts,
    source: BinaryIO,
    transfer_syntax_uid: str,
    *,
    extended_offsets: tuple[bytes, bytes] | None = None,
    threads: int = 1,
    decode: Decode = codestreams.decode,
    skip: int = 0,
) -> Decoded:
    """Frames of encapsulated Pixel Data whose first item is at the present position of ``source``.

    Nobody else may move that position meanwhile. So many frames as there are ``threads`` are decoded
    at the same time, by ``decode``, without the first ``skip``.
    """
    if not codestreams.is_known(transfer_syntax_uid):
        raise UnsupportedPixelData(f"pixels of transfer syntax {transfer_syntax_uid} are not decoded")
    encoded_frames = _encoded_frames(facts, source, extended_offsets)
    first = next(encoded_frames, None)
    if first is None:
        raise UnsupportedPixelData("there is no frame")
    described = _described(
        facts,
        codestreams.decoded_photometric_interpretation(
            first, facts.photometric_interpretation, transfer_syntax_uid
        ),
    )
    every = islice(chain([first], encoded_frames), skip, None)
    wanted = facts.number_of_frames - skip

    def decode_one(encoded: bytes) -> Frame:
        return decode(encoded, facts, transfer_syntax_uid)

    return Decoded(described, _each(side_by_side(decode_one, every, threads=min(threads, wanted)), wanted))


def _encoded_frames(
    facts: PixelFacts, source: BinaryIO, extended_offsets: tuple[bytes, bytes] | None
) -> Iterator[bytes]:
    """Encoded frames, each of its one or more fragments (PS3.5 section A.4)."""
    try:
        yield from generate_frames(
            cast(Any, source), number_of_frames=facts.number_of_frames, extended_offsets=extended_offsets
        )
    except codestreams.FAILURES as error:
        raise UnsupportedPixelData(f"the frames cannot be told apart: {error}") from error


def _each(frames: Iterator[Frame], wanted: int) -> Iterator[Frame]:
    count = 0
    for frame in frames:
        yield frame
        count += 1
    if count < wanted:
        raise UnsupportedPixelData(f"{count} frames of {wanted} are there")
