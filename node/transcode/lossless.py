"""Lossless storage that can be proven: encode, restore, compare; else keep as received.

Stored are the data set in Explicit VR Little Endian with encapsulated frames, and beside it, in the
*private information* of its archive file, the received bytes before and behind the samples. Frames
and these bytes together give the received data set back, byte for byte; ``settle`` does that once
before anything is given up, and ``restore`` whenever it is asked for.
"""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Self

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from node.config.settings import LimitsConfig
from node.errors import (
    AnodeError,
    IntegrityFailure,
    NodeError,
    OutOfSpace,
    StorageFailure,
    UnsupportedPixelData,
)
from node.ingest.sameness import Copy, difference
from node.transcode import choosing, encapsulation, headers
from node.transcode.checksum import crc32
from node.transcode.codecs import Codec, by_name
from node.transcode.codestreams import FAILURES
from node.transcode.encapsulation import OffsetTables
from node.transcode.facts import MOST_FRAME_BYTES
from node.transcode.native_image import DEEPEST_NESTING, NativeImage, NoPixels, native_image
from node.transcode.restoring import (
    DEFLATE,
    FrameDigests,
    chunks,
    noted,
    packed,
    pieces,
    resembling,
    restore,
    shared_bytes,
)
from node.transcode.spool import spool
from node.transcode.unused_bits import AS_CODED, UnusedBits

__all__ = ["Settlement", "keep", "restore", "settle"]

FORMAT = 1
_DEFLATE_LEVEL = 6
#: Each frame costs a digest, a fragment and its offset, in memory while it is settled.
MOST_FRAMES = 100_000
#: Of the digest of a further frame in the file, compressed.
_DIGEST_BYTES = 36
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_PLANAR_CONFIGURATION = 0x00280006
_PIXEL_GROUP_LENGTH = 0x7FE00000
_LIMITS = LimitsConfig(nesting_depth=DEEPEST_NESTING)


@dataclass
class Settlement:
    """How an instance is to be stored; a context manager, which frees what it holds.

    Attributes
    ----------
    stored_transfer_syntax_uid : str
        Transfer syntax of what ``chunks`` gives.
    kept_reason : str
        Why the data set stays as received; empty when it is transcoded and proven.
    private : dict
        What the archive file must carry for ``restore``, of JSON types.
    choices : tuple of str
        The codecs in the order in which they were tried, of which the next instance of the series may be
        spared the measurement.
    """

    stored_transfer_syntax_uid: str
    kept_reason: str
    private: dict[str, Any]
    choices: tuple[str, ...]
    _data_set: BinaryIO = field(repr=False)
    _is_own: bool = False

    @property
    def proof(self) -> dict[str, Any]:
        """What the index keeps of ``private``: what was received, what is stored, how it was proven."""
        return noted(self.private)

    def chunks(self) -> Iterator[bytes]:
        """Yield the data set to store.

        Raises at the end when it was not the one that was proven: IntegrityFailure for a received data set,
        StorageFailure for one that was encoded.
        """
        self._data_set.seek(0)
        if self._is_own:  # it was proven a moment ago, so what is seen quickly is enough
            return _unaltered(self._data_set, self.private["stored"]["crc32"])
        return chunks(self._data_set, self.private["stored"])

    def close(self) -> None:
        """Free the encoded data set; the received one is the caller's."""
        if self._is_own:
            self._data_set.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def settle(
    data_set: BinaryIO,
    transfer_syntax_uid: str,
    choices: Sequence[str],
    *,
    data_set_sha256: str,
    frame_bytes: int = MOST_FRAME_BYTES,
    measure: bool = False,
    deflate_bytes: int = 0,
) -> Settlement:
    """Encode the pixels of an instance with a lossless codec, and prove it; else keep it.

    Parameters
    ----------
    data_set : BinaryIO
        The data set as received, without file meta information; stays open, and is read again by
        ``Settlement.chunks`` when it is kept.
    transfer_syntax_uid : str
        As received.
    choices : sequence of str
        Names of ``codecs.CODECS``: the first that makes it smaller and is proven is taken. None of them
        keeps the instance.
    data_set_sha256 : str
        In hex, taken when the data set was received.
    frame_bytes : int
        An instance with larger frames is kept.
    measure : bool
        Whether ``choices`` are put in order by measuring them on the first frames
        (``node/transcode/choosing.py``).
    deflate_bytes : int
        From this length on, a data set without pixels is deflated as a whole where it came in Explicit VR
        Little Endian; 0 is never.

    Returns
    -------
    Settlement
        Transcoded only where restoring gave ``data_set_sha256``. Whatever stands against it is the
        reason to keep.

    Raises
    ------
    NodeError
        The received data set cannot be read, or there is no space to work in.
    """
    received = _received(data_set, transfer_syntax_uid, data_set_sha256)
    if not choices:
        return _kept(data_set, received, "the configuration says keep")
    try:
        image = native_image(data_set, transfer_syntax_uid, frame_bytes=frame_bytes)
        measured: dict[str, Any] = {}
        if measure:
            choices, measured = choosing.ranked(image, choices)
            if not measured:
                raise UnsupportedPixelData("no codec makes it smaller")
    except NodeError:
        raise
    except NoPixels as error:
        is_large = 0 < deflate_bytes <= received["length"] and transfer_syntax_uid == ExplicitVRLittleEndian
        return _deflated(data_set, received) if is_large else _kept(data_set, received, str(error))
    except (AnodeError, *FAILURES) as error:
        return _kept(data_set, received, _reason(error))
    reasons: dict[str, None] = {}
    for choice in choices:
        if reasons and by_name(choice).refuses(image.facts):
            continue  # what the first one lacks is reason enough
        settled = _attempt(image, choice, tuple(choices), received, reasons)
        if settled is not None:
            if measured:
                settled.private["measured"] = measured
            return settled
    kept = _kept(data_set, received, "; ".join(reasons))
    kept.choices = tuple(choices)
    return kept


def _deflated(data_set: BinaryIO, received: dict[str, Any]) -> Settlement:
    """Deflate a data set as a whole (PS3.5 section A.5), and prove it; else keep it."""
    begun = time.perf_counter()
    encoded = spool()
    try:
        packer = zlib.compressobj(_DEFLATE_LEVEL, wbits=-zlib.MAX_WBITS)
        data_set.seek(0)
        for piece in pieces(data_set):
            encoded.write(packer.compress(piece))
        encoded.write(packer.flush())
        encoded.write(b"\0" * (encoded.tell() % 2))
        length = encoded.tell()
        private: dict[str, Any] = {
            "format": FORMAT,
            "received": received,
            "stored": {
                "transfer_syntax_uid": str(DeflatedExplicitVRLittleEndian),
                **_sums(encoded),
                "length": length,
                "codec": DEFLATE,
                "codec_version": f"zlib {zlib.ZLIB_RUNTIME_VERSION}",
                "parameters": {"level": _DEFLATE_LEVEL},
                "ratio": round(received["length"] / length, 4),
            },
            "kept_reason": "",
        }
        reason = "" if length < received["length"] else "deflating does not make it smaller"
        if not reason:
            _prove(encoded, private)
    except IntegrityFailure as error:
        reason = f"not proven: {error}"
    except OSError as error:
        encoded.close()
        raise OutOfSpace("no space to encode in for the time being") from error
    if reason:
        encoded.close()
        return _kept(data_set, received, reason)
    private["stored"]["seconds"] = round(time.perf_counter() - begun, 4)
    return Settlement(str(DeflatedExplicitVRLittleEndian), "", private, (), encoded, _is_own=True)


def _attempt(
    image: NativeImage,
    choice: str,
    choices: tuple[str, ...],
    received: dict[str, Any],
    reasons: dict[str, None],
) -> Settlement | None:
    """Encode and prove with one codec; None, and one of the ``reasons`` more, where that cannot be."""
    begun = time.perf_counter()
    encoded = spool()
    try:
        private = _encode(image, choice, received, encoded)
        private["frame_sha256"] = _prove(encoded, private)
    except IntegrityFailure as error:
        reasons[f"not proven: {error}"] = None
    except NodeError:
        encoded.close()
        raise
    except (AnodeError, *FAILURES) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            encoded.close()
            raise OutOfSpace("no space to encode in for the time being") from error
        reasons[_reason(error)] = None
    else:
        private["stored"]["seconds"] = round(time.perf_counter() - begun, 4)
        uid = private["stored"]["transfer_syntax_uid"]
        return Settlement(uid, "", private, choices, encoded, _is_own=True)
    encoded.close()
    return None


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def keep(data_set: BinaryIO, transfer_syntax_uid: str, reason: str, *, data_set_sha256: str) -> Settlement:
    """Keep an instance as it was received, and say why; parameters as of ``settle``."""
    return _kept(data_set, _received(data_set, transfer_syntax_uid, data_set_sha256), reason)


def _received(data_set: BinaryIO, transfer_syntax_uid: str, data_set_sha256: str) -> dict[str, Any]:
    length = data_set.seek(0, io.SEEK_END)
    return {"transfer_syntax_uid": transfer_syntax_uid, "sha256": data_set_sha256, "length": length}


def _kept(data_set: BinaryIO, received: dict[str, Any], reason: str) -> Settlement:
    stored = {**received, "crc32": _crc32(data_set)}
    private = {"format": FORMAT, "received": received, "stored": stored, "kept_reason": reason}
    return Settlement(received["transfer_syntax_uid"], reason, private, (), data_set)


def _encode(image: NativeImage, choice: str, received: dict[str, Any], encoded: BinaryIO) -> dict[str, Any]:
    """Write the data set to store into ``encoded``; return its private information."""
    codec = by_name(choice)
    problem = codec.refuses(image.facts)
    if problem:
        raise UnsupportedPixelData(problem)
    if image.facts.number_of_frames > MOST_FRAMES:
        raise UnsupportedPixelData(f"more than {MOST_FRAMES} frames")
    unused_bits = UnusedBits(image.facts)
    with spool() as frames:
        tables = OffsetTables(_encode_frames(image, choice, codec, unused_bits, frames))
        head = _head(image, codec, tables)
        start = tables.start_of_pixel_data()
        encoded.write(head + start)
        frames.seek(0)
        shutil.copyfileobj(frames, encoded, 1 << 20)
    encoded.write(encapsulation.END_OF_PIXEL_DATA)
    encoded.write(_recoded(image, image.after, {}))
    length = encoded.tell()
    prefix = image.prefix()
    shared = shared_bytes(prefix, head)
    like = resembling(head, image.transfer_syntax_uid)
    beside = packed(prefix[shared:], like), packed(image.suffix())
    proof_bytes = _DIGEST_BYTES * (image.facts.number_of_frames - 1)
    if length + sum(map(len, beside)) + proof_bytes >= received["length"]:
        raise UnsupportedPixelData(f"{choice} does not make it smaller")
    return {
        "format": FORMAT,
        "received": received,
        "stored": {
            "transfer_syntax_uid": codec.transfer_syntax_uid,
            **_sums(encoded),
            "length": length,
            "codec": choice,
            "codec_version": codec.library(),
            "parameters": dict(codec.parameters),
            "frames": image.facts.number_of_frames,
            "frames_offset": len(head) + len(start),
            "ratio": round(received["length"] / length, 4),
        },
        "pixels": {
            **vars(image.facts),
            "is_little_endian": image.layout.is_little_endian,
            "is_words": image.layout.is_words,
            "unused_bits": unused_bits.kind if codec.needs_clean_words else AS_CODED,
        },
        "kept_reason": "",
        "prefix": {"head": len(head), "shared": shared, "rest": beside[0]},
        "suffix": beside[1],
    }


def _encode_frames(
    image: NativeImage, choice: str, codec: Codec, unused_bits: UnusedBits, frames: BinaryIO
) -> list[int]:
    """Write a fragment for each frame; return their lengths without the item headers."""
    lengths = []
    size = 0
    for words in image.words():
        if codec.needs_clean_words:
            unused_bits.see(words)
        fragment = encapsulation.fragment(codec.encode(words, image.facts))
        lengths.append(len(fragment) - 8)
        size += len(fragment)
        if size >= image.frames_bytes:
            raise UnsupportedPixelData(f"{choice} does not make it smaller")
        frames.write(fragment)
    return lengths


def _head(image: NativeImage, codec: Codec, tables: OffsetTables) -> bytes:
    """Elements before Pixel Data, in Explicit VR Little Endian, that tell the truth of the frames."""
    facts = image.facts
    # Tables of an encapsulated form that native pixels once had would be wrong now.
    gone = dict.fromkeys((_PIXEL_GROUP_LENGTH, *encapsulation.EXTENDED_OFFSET_TABLES), ("", b""))
    changes: dict[int, tuple[str, bytes]] = {**gone, **tables.elements()}
    photometric_interpretation = codec.photometric_interpretation(facts)
    if photometric_interpretation != facts.photometric_interpretation:
        value = photometric_interpretation.encode("ascii")
        changes[_PHOTOMETRIC_INTERPRETATION] = ("CS", value + b" " * (len(value) % 2))
    if facts.samples_per_pixel > 1 and facts.planar_configuration != codec.planar_configuration:
        changes[_PLANAR_CONFIGURATION] = ("US", codec.planar_configuration.to_bytes(2, "little"))
    if image.transfer_syntax_uid != ExplicitVRLittleEndian:
        _check_recoded(image)
    return _recoded(image, image.before, changes)


def _recoded(image: NativeImage, elements: tuple[Any, ...], changes: headers.Changes) -> bytes:
    return headers.recoded(
        image.walk, elements, image.transfer_syntax_uid, str(ExplicitVRLittleEndian), changes
    )


def _check_recoded(image: NativeImage) -> None:
    """Raise UnsupportedPixelData unless the elements still say the same in their new encoding."""
    beside_pixels = [
        (image.before, image.walk.read(0, image.pixel_data.offset)),
        (
            image.after,
            image.walk.read(image.pixel_data.end, image.walk.length - image.pixel_data.end),
        ),
    ]
    for elements, received in beside_pixels:
        stored = _recoded(image, elements, {})
        found = difference(
            Copy(io.BytesIO(received), image.transfer_syntax_uid),
            Copy(io.BytesIO(stored), str(ExplicitVRLittleEndian)),
            _LIMITS,
        )
        if found:
            raise UnsupportedPixelData(f"the header does not survive its encoding: {found}")


def _sums(file: BinaryIO) -> dict[str, Any]:
    """SHA-256 and CRC-32 of the same bytes, so that the one may stand for the other."""
    digest, value = hashlib.sha256(), 0
    file.seek(0)
    for piece in pieces(file):
        digest.update(piece)
        value = crc32([piece], value)
    return {"sha256": digest.hexdigest(), "crc32": value}


def _crc32(file: BinaryIO) -> int:
    file.seek(0)
    return crc32(pieces(file))


def _unaltered(encoded: BinaryIO, expected_crc32: int) -> Iterator[bytes]:
    value = 0
    for piece in pieces(encoded):
        value = crc32([piece], value)
        yield piece
    if value != expected_crc32:
        raise StorageFailure("what was encoded has changed since it was proven")


def _prove(encoded: BinaryIO, private: dict[str, Any]) -> list[str]:
    """Restore from what will be stored; return the digest of each decoded frame.

    Raises IntegrityFailure when that does not give the received data set.
    """
    frames = FrameDigests()
    for _ in restore(encoded, private, frames):
        pass
    return frames.sha256
