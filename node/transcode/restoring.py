"""Gives received data sets back from what is stored, byte for byte, and says when it cannot."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import struct
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import fields
from typing import Any, BinaryIO

import numpy as np

from node.errors import IntegrityFailure, MalformedDataSet
from node.ingest.header import inflated
from node.transcode import unused_bits
from node.transcode.codecs import by_name
from node.transcode.codestreams import FAILURES
from node.transcode.encapsulation import fragments
from node.transcode.facts import PixelFacts
from node.transcode.native import NativeLayout, Words, packed_frames
from node.transcode.side_by_side import side_by_side

#: Called so where a codec is named: the data set is deflated as a whole.
DEFLATE = "deflate"
_CHUNK_BYTES = 1 << 20
_LARGEST_PACKED_BYTES = 128 << 20
_WINDOW_BYTES = 1 << 15
_FOR_THE_FILE = frozenset({"prefix", "suffix", "frame_sha256"})
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


class FrameDigests:
    """SHA-256 of each decoded frame, in hex.

    Over its words, unused bits included, Little Endian, row by row, the samples of a pixel beside each
    other; of Bits Allocated 1, over a byte of 0 or 1 for each.
    """

    def __init__(self) -> None:
        self.sha256: list[str] = []

    def update(self, words: Words) -> None:
        """Add the words of the next frame."""
        self.sha256.append(hashlib.sha256(np.ascontiguousarray(words).data).hexdigest())


def restore(
    data_set: BinaryIO, private: Mapping[str, Any], pixels: FrameDigests | None = None, *, threads: int = 1
) -> Iterator[bytes]:
    """Yield an instance's data set exactly as it was received.

    Parameters
    ----------
    data_set : BinaryIO
        The stored data set, as ``Storage.open`` gives it.
    private : mapping
        The private information of its archive file.
    pixels : FrameDigests, optional
        Is shown the decoded frames.
    threads : int
        How many frames are decoded at the same time.

    Raises
    ------
    IntegrityFailure
        What is stored does not give the received data set. It may come only at the end: what was
        yielded before is worthless then.
    """
    try:
        received = private["received"]
        restored: Iterator[bytes]
        codec = private["stored"].get("codec")
        data_set.seek(0)
        if not codec:
            restored = pieces(data_set)
        elif codec == DEFLATE:
            restored = _inflated(data_set)
        else:
            restored = _rebuilt(data_set, private, pixels, threads)
        yield from _checked(restored, received, "the received data set is not given back")
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityFailure("the proof of an instance is damaged") from error


def noted(private: Mapping[str, Any]) -> dict[str, Any]:
    """What the index keeps of the private information: all but what only restoring and proving need."""
    return {key: value for key, value in private.items() if key not in _FOR_THE_FILE}


def received_start(data_set: BinaryIO, private: Mapping[str, Any]) -> bytes:
    """Give the received data set back up to its first sample; only where its pixels were encoded.

    Raises IntegrityFailure when what it is made of is damaged. That it is what was received, ``restore``
    alone can tell.
    """
    try:
        return b"".join(_before_the_pixels(data_set, private))
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityFailure("the proof of an instance is damaged") from error


def chunks(data_set: BinaryIO, expected: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield what is left of ``data_set``; IntegrityFailure when it is not what ``expected`` says."""
    return _checked(pieces(data_set), expected, "a data set is not the one that was stored")


def shared_bytes(one: bytes, other: bytes) -> int:
    """Length of the beginning that both have in common."""
    length = min(len(one), len(other))
    differs = np.frombuffer(one, np.uint8, length) != np.frombuffer(other, np.uint8, length)
    return int(differs.argmax()) if differs.any() else length


def resembling(head: bytes, received_transfer_syntax_uid: str) -> bytes:
    """What is known of a received header when the stored one is: a dictionary for ``packed``.

    Of Implicit VR that is each element of the stored header without its VR, values as they are.
    What this gives for a header must never change: what was packed with it could not be unpacked.

    Parameters
    ----------
    head : bytes
        The elements before Pixel Data as they are stored, in Explicit VR Little Endian.
    received_transfer_syntax_uid : str
        In which the header was received.
    """
    if received_transfer_syntax_uid != "1.2.840.10008.1.2":
        return head
    parts = []
    position = 0
    while position + 12 <= len(head):
        vr, length = struct.unpack_from("<2sH", head, position + 4)
        value = position + 8
        if vr in _LONG_VRS:
            length = struct.unpack_from("<L", head, value)[0]
            value += 4
        parts.append(head[position : position + 4] + struct.pack("<L", length) + head[value : value + length])
        position = value + length
    return b"".join(parts)


def packed(plain: bytes, like: bytes = b"") -> str:
    """Bytes as text for JSON, compressed; ``like`` is known when they are unpacked."""
    if not plain:
        return ""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=like[-_WINDOW_BYTES:])
    return base64.b64encode(packer.compress(plain) + packer.flush()).decode("ascii")


def _unpacked(text: str, like: bytes = b"") -> bytes:
    if not text:
        return b""
    try:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS, zdict=like[-_WINDOW_BYTES:])
        return unpacker.decompress(base64.b64decode(text), _LARGEST_PACKED_BYTES)
    except (zlib.error, binascii.Error, ValueError) as error:
        raise IntegrityFailure("the received header of an instance is damaged") from error


def pieces(file: BinaryIO) -> Generator[bytes, None, None]:
    """Yield what is left of ``file``."""
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _checked(data: Iterator[bytes], expected: Mapping[str, Any], problem: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in data:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != expected["sha256"]:
        raise IntegrityFailure(f"{problem}: its SHA-256 is another")


def _inflated(data_set: BinaryIO) -> Iterator[bytes]:
    try:
        yield from inflated(data_set)
    except MalformedDataSet as error:
        raise IntegrityFailure("the deflated data set of an instance is damaged") from error


def _before_the_pixels(data_set: BinaryIO, private: Mapping[str, Any]) -> Iterator[bytes]:
    prefix = private["prefix"]
    data_set.seek(0)
    head = data_set.read(prefix["head"])
    yield head[: prefix["shared"]]
    yield _unpacked(prefix["rest"], resembling(head, private["received"]["transfer_syntax_uid"]))


class _Decoder:
    """Decodes the stored frames of an instance to the words that were received."""

    def __init__(self, private: Mapping[str, Any]) -> None:
        described = private["pixels"]
        self.facts = PixelFacts(**{one.name: described[one.name] for one in fields(PixelFacts)})
        self.layout = NativeLayout(self.facts, described["is_little_endian"], described["is_words"])
        self._decode = by_name(private["stored"]["codec"]).decode
        self._unused_bits = described["unused_bits"]

    def words(self, number: int, encoded: bytes) -> Words:
        """Raise IntegrityFailure, which names the frame by ``number``, where that cannot be."""
        facts = self.facts
        try:
            decoded = self._decode(encoded, facts).reshape(facts.frame_shape)
            return unused_bits.restored(decoded, facts, self._unused_bits)
        except FAILURES as error:
            raise IntegrityFailure(f"stored frame {number} cannot be decoded: {error}") from error


def _rebuilt(
    data_set: BinaryIO, private: Mapping[str, Any], pixels: FrameDigests | None, threads: int
) -> Iterator[bytes]:
    decoder = _Decoder(private)
    facts = decoder.facts
    is_bits = facts.bits_allocated == 1

    def decoded(frame: tuple[int, bytes]) -> tuple[Words, bytes]:
        words = decoder.words(*frame)
        return words, b"" if is_bits else decoder.layout.encoded(words)

    def frames() -> Iterator[tuple[Words, bytes]]:
        data_set.seek(private["stored"]["frames_offset"])
        count = 0
        for words, native in side_by_side(
            decoded, enumerate(fragments(data_set), 1), threads=min(threads, facts.number_of_frames)
        ):
            if pixels is not None:
                pixels.update(words)
            yield words, native
            count += 1
        if count != facts.number_of_frames:
            raise IntegrityFailure(f"{count} frames of {facts.number_of_frames} are stored")

    yield from _before_the_pixels(data_set, private)
    if is_bits:
        yield from packed_frames(words for words, _ in frames())
    else:
        yield from (native for _, native in frames())
    yield _unpacked(private["suffix"])


def differing_frames(data_set: BinaryIO, private: Mapping[str, Any]) -> list[int]:
    """Numbers, from 1, of the stored frames that do not decode to the pixels that were proven.

    Of an instance whose pixels were encoded. Where the order of the frames is lost, all from there on.
    """
    decoder = _Decoder(private)
    expected: list[str] = private["frame_sha256"]
    good: set[int] = set()
    data_set.seek(private["stored"]["frames_offset"])
    with contextlib.suppress(IntegrityFailure):
        for number, (encoded, sha256) in enumerate(zip(fragments(data_set), expected, strict=False), 1):
            found = FrameDigests()
            with contextlib.suppress(IntegrityFailure):
                found.update(decoder.words(number, encoded))
            if found.sha256 == [sha256]:
                good.add(number)
    return [number for number in range(1, len(expected) + 1) if number not in good]
