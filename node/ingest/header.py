"""The header of an instance: what stands before its pixels, checked and ready to be read."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from pydicom.charset import STAND_ALONE_ENCODINGS, default_encoding, python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.config.settings import LimitsConfig
from node.errors import InvalidUid, LimitExceeded, MalformedDataSet
from node.ingest.elements import PIXEL_DATA_TAGS, Element, ElementWalk, RawElement, tag_text
from node.ingest.header_memory import MOST_BYTES, HeaderMemory, Shared

# PS3.5 section A.5, and the JPIP referenced transfer syntaxes whose data set is deflated too.
DEFLATED_TRANSFER_SYNTAXES = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
# PS3.5 section 9.1, but for leading zeros, which devices in the field write.
_UID = re.compile(rb"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*\Z")
_MISSPELT = re.compile(r"^ISO[-_ ]IR[-_ ]?(\d+)$")
_SPECIFIC_CHARACTER_SET = 0x00080005
_IDENTIFYING = {
    "SOPClassUID": (0x00080016, "SOP Class UID"),
    "SOPInstanceUID": (0x00080018, "SOP Instance UID"),
    "StudyInstanceUID": (0x0020000D, "Study Instance UID"),
    "SeriesInstanceUID": (0x0020000E, "Series Instance UID"),
}
_CHUNK_BYTES = 1 << 18
_START_BYTES = 1 << 17
# Larger values are bulk data and not part of what is searched, shown or matched.
_BULK_BYTES = 1 << 20
_BULK_SEQUENCE_BYTES = 16 << 20


@dataclass(frozen=True)
class Header:
    """What is known of an instance without its pixels.

    Attributes
    ----------
    own : mapping of int to RawElement
        The elements before Pixel Data by their tags, except those in ``shared`` and ``left_out``.
    shared : Shared or None
        Elements that the headers before in this series had as well; those that can be told cheaply.
    is_implicit, is_little_endian : bool
        How they are encoded.
    sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid : str
        Valid (PS3.5 section 9.1), without padding.
    transfer_syntax_uid : str
        In which the data set is encoded.
    pixel_data_offset : int or None
        Byte offset of the Pixel Data element's tag within the data set; None when there is none,
        or when the data set is deflated.
    left_out : frozenset of int
        Tags whose values were too large to be read: over 1 MiB, sequences over 16 MiB.
    places : sequence of int
        How many of ``own`` stand before each run of ``shared``.
    """

    own: Mapping[int, RawElement]
    shared: Shared | None
    is_implicit: bool
    is_little_endian: bool
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    pixel_data_offset: int | None
    left_out: frozenset[int] = frozenset()
    places: Sequence[int] = ()

    def value(self, tag: int) -> bytes:
        """The encoded value of an element; empty where there is none."""
        element = self.own.get(tag)
        if element is None and self.shared is not None:
            element = self.shared.elements.get(tag)
        return b"" if element is None else element[1]

    @cached_property
    def elements(self) -> Mapping[int, RawElement]:
        """The elements before Pixel Data by their tags, in their order; those in ``left_out`` are missing."""
        return self.own if self.shared is None else self.shared.among(self.own, self.places)

    @cached_property
    def data_set(self) -> Dataset:
        """The elements as a pydicom data set, decoded when they are looked at."""
        return _data_set(self.elements, is_implicit=self.is_implicit, is_little_endian=self.is_little_endian)


def is_implicit_vr(transfer_syntax_uid: str) -> bool:
    """Whether data sets of this transfer syntax carry no VRs (PS3.5 section A.1)."""
    return transfer_syntax_uid == ImplicitVRLittleEndian


def is_little_endian(transfer_syntax_uid: str) -> bool:
    """Whether data sets of this transfer syntax are Little Endian: all but one (PS3.5 A.3)."""
    return transfer_syntax_uid != ExplicitVRBigEndian


def walk(
    data_set: BinaryIO,
    transfer_syntax_uid: str,
    *,
    max_depth: int,
    length: int | None = None,
    start: bytes = b"",
) -> ElementWalk:
    """Walk the elements of a data set that is not deflated, or has been inflated."""
    return ElementWalk(
        data_set,
        is_implicit=is_implicit_vr(transfer_syntax_uid),
        is_little_endian=is_little_endian(transfer_syntax_uid),
        max_depth=max_depth,
        length=length,
        start=start,
    )


def inflated(data_set: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a deflated data set (PS3.5 section A.5), inflated, by pieces of bounded size.

    Raises MalformedDataSet when it is cut short or not deflated; that may come only at the end.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while not inflater.eof:
            deflated = inflater.unconsumed_tail or data_set.read(_CHUNK_BYTES)
            # Without input it may still hold what the last one gave and did not fit.
            piece = inflater.decompress(deflated, _CHUNK_BYTES)
            if not deflated and not piece and not inflater.eof:
                raise MalformedDataSet("the deflated data set is cut short")
            yield piece
    except zlib.error as error:
        raise MalformedDataSet("the data set is not deflated as PS3.5 section A.5 says") from error


def inflate(
    data_set: BinaryIO, limits: LimitsConfig, *, keep_bytes: int, into: BinaryIO | None = None
) -> tuple[BinaryIO, int]:
    """Inflate a deflated data set (PS3.5 section A.5).

    Parameters
    ----------
    data_set : BinaryIO
        The deflated data set.
    limits : LimitsConfig
        ``instance_bytes`` bounds the inflated length, so that a bomb costs time but no memory.
    keep_bytes : int
        How much to keep; the rest is only counted.
    into : BinaryIO or None
        Where it is kept, an empty file of the caller's; None is memory, for a ``keep_bytes`` that fits.

    Returns
    -------
    file : BinaryIO
        The first ``keep_bytes`` inflated bytes.
    length : int
        How many bytes there are in all.
    """
    data_set.seek(0)
    kept = io.BytesIO() if into is None else into
    length = 0
    for piece in inflated(data_set):
        if length < keep_bytes:
            kept.write(piece[: keep_bytes - length])
        length += len(piece)
        if length > limits.instance_bytes:
            raise LimitExceeded(f"the inflated data set is longer than {limits.instance_bytes} bytes")
    return kept, length


def read_header(
    data_set: BinaryIO | bytes | memoryview, transfer_syntax_uid: str, limits: LimitsConfig
) -> Header:
    """Check the structure of an encoded data set and read what stands before its pixels.

    Parameters
    ----------
    data_set : BinaryIO, bytes or memoryview
        The whole data set, without file meta information. A file is read by pages.
    transfer_syntax_uid : str
        In which it is encoded.
    limits : LimitsConfig
        Nesting depth, bytes of the header, of an element and of an inflated data set.

    Raises
    ------
    MalformedDataSet
        The data set is empty, truncated or not encoded as PS3.5 says.
    InvalidUid
        One of the four UIDs that identify an instance is missing or not a UID.
    LimitExceeded
        The data set is nested too deeply, or its header, an element or its inflated form is too large.
    """
    file = io.BytesIO(data_set) if isinstance(data_set, bytes | memoryview) else data_set
    reader = HeaderReader(transfer_syntax_uid, limits)
    reader.check_rest(file)
    return reader.header


class HeaderReader:
    """Reads the header of a data set that is still coming in.

    ``read_start`` may be called once, when the first bytes are here; ``check_rest`` has to be, when all
    are. ``header`` is there after the first when it returned True, and after the second.

    Parameters
    ----------
    transfer_syntax_uid : str
        In which the data set is encoded.
    limits : LimitsConfig
        Nesting depth, bytes of the header, of an element and of an inflated data set.
    memory : HeaderMemory or None
        What was read before in this thread, nearly always from the same series.
    """

    def __init__(
        self, transfer_syntax_uid: str, limits: LimitsConfig, memory: HeaderMemory | None = None
    ) -> None:
        self._transfer_syntax_uid = transfer_syntax_uid
        self._limits = limits
        self._memory = memory
        self._is_deflated = transfer_syntax_uid in DEFLATED_TRANSFER_SYNTAXES
        self._own: dict[int, RawElement] = {}
        self._shared: Shared | None = None
        self._places: Sequence[int] = ()
        self._starts: list[int] = []
        self._left_out: set[int] = set()
        self._header_bytes = 0
        self._start = b""
        self._position = 0
        self._pixel_data_offset: int | None = None
        self._header: Header | None = None

    @property
    def header(self) -> Header:
        """What was read; raises InvalidUid as ``read_header`` does."""
        if self._header is None:
            own, shared, syntax = self._own, self._shared, self._transfer_syntax_uid
            known = {} if shared is None else shared.made(identifying_uids)
            self._header = Header(
                own=own,
                shared=shared,
                is_implicit=is_implicit_vr(syntax),
                is_little_endian=is_little_endian(syntax),
                sop_class_uid=known.get("SOPClassUID") or _uid(own, "SOPClassUID"),
                sop_instance_uid=known.get("SOPInstanceUID") or _uid(own, "SOPInstanceUID"),
                study_instance_uid=known.get("StudyInstanceUID") or _uid(own, "StudyInstanceUID"),
                series_instance_uid=known.get("SeriesInstanceUID") or _uid(own, "SeriesInstanceUID"),
                transfer_syntax_uid=syntax,
                pixel_data_offset=None if self._is_deflated else self._pixel_data_offset,
                left_out=frozenset(self._left_out),
                places=self._places,
            )
            if self._memory is not None and shared is None:
                self._learn(self._memory, self._header)
        return self._header

    def read_start(self, start: bytes) -> bool:
        """Read the header from the first bytes of the data set; whether all of it was in them.

        What is wrong with them is for ``check_rest`` to find, except LimitExceeded, which is raised.
        """
        if self._is_deflated:
            return False
        self._start = start
        if self._recall(None):
            return True
        elements = self._walk(io.BytesIO(start), None)
        try:
            self._read(elements)
        except MalformedDataSet:
            # what is cut off here goes on behind the first bytes
            return False
        return self._pixel_data_offset is not None

    def check_rest(self, data_set: BinaryIO) -> None:
        """Read what is left of the header and check the structure of all that follows.

        Raises
        ------
        MalformedDataSet, LimitExceeded
            As ``read_header``.
        """
        limits, length = self._limits, None
        if self._is_deflated:
            data_set, length = inflate(data_set, limits, keep_bytes=limits.header_bytes)
        elements = self._walk(data_set, length)
        if not elements.length:
            raise MalformedDataSet("the data set is empty")
        if self._pixel_data_offset is None:
            self._start = self._start or elements.read(0, _START_BYTES)
            if self._position or not self._recall(elements.length):
                self._read(elements)
        while self._position < elements.length:
            element = elements.element_at(self._position)
            self._check_length(element)
            self._position = element.end
            if element.end > elements.readable:
                break  # what follows deflated pixels was counted, not kept

    def _walk(self, data_set: BinaryIO, length: int | None) -> ElementWalk:
        return walk(
            data_set,
            self._transfer_syntax_uid,
            max_depth=self._limits.nesting_depth,
            length=length,
            start=self._start,
        )

    def _read(self, elements: ElementWalk) -> None:
        """Read elements up to Pixel Data or the end; at Pixel Data ``_position`` stands on its tag."""
        while self._position < elements.length:
            position = elements.plain_elements(
                self._start, self._position, self._own, self._starts, PIXEL_DATA_TAGS
            )
            self._count(position - self._position)
            self._position = position
            if position < elements.length and self._read_closely(elements):
                return

    def _recall(self, length: int | None) -> bool:
        """Read the header with what is remembered; otherwise nothing has changed."""
        if self._memory is None:
            return False
        recalled = self._memory.recall(self._start, length, self._kind)
        if recalled is None or recalled.end > self._limits.header_bytes:
            return False
        self._own, self._shared, self._position = recalled.own, recalled.shared, recalled.end
        self._places = recalled.places
        if recalled.is_at_pixels:
            self._pixel_data_offset = recalled.end
        return True

    def _learn(self, memory: HeaderMemory, header: Header) -> None:
        end = self._position if self._pixel_data_offset is None else self._pixel_data_offset
        if end > len(self._start) or end > MOST_BYTES:
            return
        memory.learn(
            header.own,
            self._starts,
            self._start[:end],
            like=walk(io.BytesIO(), self._transfer_syntax_uid, max_depth=self._limits.nesting_depth),
            kind=self._kind,
            series_instance_uid=header.series_instance_uid,
        )

    @property
    def _kind(self) -> tuple[str, int]:
        return self._transfer_syntax_uid, self._limits.nesting_depth

    def _read_closely(self, elements: ElementWalk) -> bool:
        """Read an element that may be a sequence, or be anywhere; whether it is Pixel Data."""
        # its tag is known before its end: pixels need not be here yet
        if elements.tag_at(self._position) in PIXEL_DATA_TAGS:
            self._pixel_data_offset = self._position
            return True
        element = elements.element_at(self._position)
        self._check_length(element)
        if element.length > (_BULK_SEQUENCE_BYTES if element.is_undefined else _BULK_BYTES) and (
            element.vr != "SQ" or element.length > _BULK_SEQUENCE_BYTES
        ):
            self._left_out.add(element.tag)
        else:
            if element.end > elements.readable:
                raise LimitExceeded(f"the header is longer than {self._limits.header_bytes} bytes")
            self._count(element.end - element.offset)
            self._own[element.tag] = elements.raw(element)
            self._starts.append(element.offset)
        self._position = element.end
        return False

    def _check_length(self, element: Element) -> None:
        """Refuse an element that is too long; those that ``plain_elements`` takes are never."""
        if element.length > self._limits.element_bytes and element.tag not in PIXEL_DATA_TAGS:
            raise LimitExceeded(f"{tag_text(element.tag)} has more than {self._limits.element_bytes} bytes")

    def _count(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > self._limits.header_bytes:
            raise LimitExceeded(f"the header is longer than {self._limits.header_bytes} bytes")


def data_set_without_pixels(elements: ElementWalk) -> Dataset:
    """Make a pydicom data set of all elements; Pixel Data has its VR, but no value.

    Raises as ``ElementWalk.elements`` does.
    """
    raw = {
        element.tag: elements.raw(element._replace(length=0) if element.tag in PIXEL_DATA_TAGS else element)
        for element in elements.elements()
    }
    return _data_set(raw, is_implicit=elements.is_implicit, is_little_endian=elements.is_little_endian)


def _data_set(raw: Mapping[int, RawElement], *, is_implicit: bool, is_little_endian: bool) -> Dataset:
    """Make a pydicom data set whose elements are decoded when they are looked at."""
    undecoded: dict[BaseTag, DataElement | RawDataElement] = {
        BaseTag(tag): RawDataElement(BaseTag(tag), vr, len(value), value, 0, implicit, is_little_endian)
        for tag, (vr, value, implicit) in raw.items()
    }
    data_set = Dataset(undecoded)
    character_set = raw.get(_SPECIFIC_CHARACTER_SET)
    encodings = _encodings(character_set[1]) if character_set else [default_encoding]
    data_set.set_original_encoding(is_implicit, is_little_endian, encodings)
    return data_set


def _encodings(value: bytes) -> list[str]:
    """Python's names for Specific Character Set (0008,0005) (PS3.3 section C.12.1.1.2).

    What is unknown counts as the default repertoire; an instance is not refused for it. Where a
    character set that allows no code extension stands among others, the first one counts.
    """
    names = [name.strip("\0 ") for name in value.decode("ascii", "replace").split("\\")]
    names = [_MISSPELT.sub(r"ISO_IR \1", name) for name in names]
    if names[0] in STAND_ALONE_ENCODINGS:
        names = names[:1]
    names = names[:1] + [name for name in names[1:] if name not in STAND_ALONE_ENCODINGS]
    return [python_encoding.get(name, default_encoding) for name in names]


def identifying_uids(shared: Shared) -> dict[str, str]:
    """The UIDs that identify an instance, by keyword, as far as they are among these elements."""
    return {
        keyword: _uid(shared.elements, keyword)
        for keyword, (tag, _) in _IDENTIFYING.items()
        if tag in shared.elements
    }


def _uid(raw: Mapping[int, RawElement], keyword: str) -> str:
    tag, name = _IDENTIFYING[keyword]
    element = raw.get(tag)
    value = b"" if element is None else element[1].rstrip(b"\0 ")
    if not value:
        raise InvalidUid(f"{name} {tag_text(tag)} is missing")
    if not _UID.match(value):
        raise InvalidUid(f"{name} {tag_text(tag)} is not a UID")
    return value.decode("ascii")
