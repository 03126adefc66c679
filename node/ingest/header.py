"""The header of an instance: what stands before its pixels, checked and ready to be read."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

from pydicom.charset import STAND_ALONE_ENCODINGS, default_encoding, python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.config.settings import LimitsConfig
from node.errors import InvalidUid, LimitExceeded, MalformedDataSet
from node.ingest.elements import PIXEL_DATA_TAGS, Element, ElementWalk, tag_text

# PS3.5 section A.5, and the JPIP referenced transfer syntaxes whose data set is deflated too.
DEFLATED_TRANSFER_SYNTAXES = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
# PS3.5 section 9.1, but for leading zeros, which devices in the field write.
_UID = re.compile(rb"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*\Z")
_MISSPELT = re.compile(r"^ISO[-_ ]IR[-_ ]?(\d+)$")
_SPECIFIC_CHARACTER_SET = BaseTag(0x00080005)
_CHUNK_BYTES = 1 << 18
# Larger values are bulk data and not part of what is searched, shown or matched.
_BULK_BYTES = 1 << 20
_BULK_SEQUENCE_BYTES = 16 << 20


@dataclass(frozen=True)
class Header:
    """What is known of an instance without its pixels.

    Attributes
    ----------
    data_set : pydicom.Dataset
        The elements before Pixel Data, decoded when they are looked at. Those in ``left_out``
        are missing.
    sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid : str
        Valid (PS3.5 section 9.1), without padding.
    transfer_syntax_uid : str
        In which the data set is encoded.
    pixel_data_offset : int or None
        Byte offset of the Pixel Data element's tag within the data set; None when there is none,
        or when the data set is deflated.
    left_out : frozenset of int
        Tags whose values were too large to be read: over 1 MiB, sequences over 16 MiB.
    """

    data_set: Dataset
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    pixel_data_offset: int | None
    left_out: frozenset[int] = field(default_factory=frozenset)


def is_implicit_vr(transfer_syntax_uid: str) -> bool:
    """Whether data sets of this transfer syntax carry no VRs (PS3.5 section A.1)."""
    return transfer_syntax_uid == ImplicitVRLittleEndian


def is_little_endian(transfer_syntax_uid: str) -> bool:
    """Whether data sets of this transfer syntax are Little Endian: all but one (PS3.5 A.3)."""
    return transfer_syntax_uid != ExplicitVRBigEndian


def walk(
    data_set: BinaryIO, transfer_syntax_uid: str, *, max_depth: int, length: int | None = None
) -> ElementWalk:
    """Walk the elements of a data set that is not deflated, or has been inflated."""
    return ElementWalk(
        data_set,
        is_implicit=is_implicit_vr(transfer_syntax_uid),
        is_little_endian=is_little_endian(transfer_syntax_uid),
        max_depth=max_depth,
        length=length,
    )


def inflate(data_set: BinaryIO, limits: LimitsConfig, *, keep_bytes: int) -> tuple[BinaryIO, int]:
    """Inflate a deflated data set (PS3.5 section A.5).

    Parameters
    ----------
    data_set : BinaryIO
        The deflated data set.
    limits : LimitsConfig
        ``instance_bytes`` bounds the inflated length, so that a bomb costs time but no memory.
    keep_bytes : int
        How much to keep; the rest is only counted.

    Returns
    -------
    file : BinaryIO
        The first ``keep_bytes`` inflated bytes.
    length : int
        How many bytes there are in all.
    """
    data_set.seek(0)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    kept = io.BytesIO()
    length = 0
    try:
        while not inflater.eof:
            deflated = inflater.unconsumed_tail or data_set.read(_CHUNK_BYTES)
            if not deflated:
                raise MalformedDataSet("the deflated data set is cut short")
            inflated = inflater.decompress(deflated, _CHUNK_BYTES)
            if length < keep_bytes:
                kept.write(inflated[: keep_bytes - length])
            length += len(inflated)
            if length > limits.instance_bytes:
                raise LimitExceeded(f"the inflated data set is longer than {limits.instance_bytes} bytes")
    except zlib.error as error:
        raise MalformedDataSet("the data set is not deflated as PS3.5 section A.5 says") from error
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
        Nesting depth, bytes of the header, bytes of an inflated data set.

    Raises
    ------
    MalformedDataSet
        The data set is empty, truncated or not encoded as PS3.5 says.
    InvalidUid
        One of the four UIDs that identify an instance is missing or not a UID.
    LimitExceeded
        The data set is nested too deeply, or its header or inflated form is too large.
    """
    file = io.BytesIO(data_set) if isinstance(data_set, bytes | memoryview) else data_set
    length = None
    is_deflated = transfer_syntax_uid in DEFLATED_TRANSFER_SYNTAXES
    if is_deflated:
        file, length = inflate(file, limits, keep_bytes=limits.header_bytes)
    elements = walk(file, transfer_syntax_uid, max_depth=limits.nesting_depth, length=length)
    if not elements.length:
        raise MalformedDataSet("the data set is empty")
    raw: dict[BaseTag, RawDataElement] = {}
    left_out: set[int] = set()
    pixel_data_offset = None
    header_bytes = 0
    for element in elements.elements():
        if element.tag in PIXEL_DATA_TAGS and pixel_data_offset is None:
            pixel_data_offset = element.offset
        if pixel_data_offset is not None:
            if element.end > elements.readable:
                break  # what follows deflated pixels was counted, not kept
            continue
        if element.length > (_BULK_SEQUENCE_BYTES if element.is_undefined else _BULK_BYTES) and (
            element.vr != "SQ" or element.length > _BULK_SEQUENCE_BYTES
        ):
            left_out.add(element.tag)
            continue
        header_bytes += element.length
        if header_bytes > limits.header_bytes or element.end > elements.readable:
            raise LimitExceeded(f"the header is longer than {limits.header_bytes} bytes")
        raw[BaseTag(element.tag)] = _raw(element, elements)
    return Header(
        data_set=_data_set(raw, elements),
        sop_class_uid=_uid(raw, 0x00080016, "SOP Class UID"),
        sop_instance_uid=_uid(raw, 0x00080018, "SOP Instance UID"),
        study_instance_uid=_uid(raw, 0x0020000D, "Study Instance UID"),
        series_instance_uid=_uid(raw, 0x0020000E, "Series Instance UID"),
        transfer_syntax_uid=transfer_syntax_uid,
        pixel_data_offset=None if is_deflated else pixel_data_offset,
        left_out=frozenset(left_out),
    )


def data_set_without_pixels(elements: ElementWalk) -> Dataset:
    """Make a pydicom data set of all elements; Pixel Data has its VR, but no value.

    Raises as ``ElementWalk.elements`` does.
    """
    raw = {
        BaseTag(element.tag): _raw(
            element._replace(length=0) if element.tag in PIXEL_DATA_TAGS else element, elements
        )
        for element in elements.elements()
    }
    return _data_set(raw, elements)


def _raw(element: Element, elements: ElementWalk) -> RawDataElement:
    value = elements.value(element)
    vr = element.vr
    if element.is_undefined and vr in (None, "UN") and element.tag not in PIXEL_DATA_TAGS:
        vr = "SQ"
    return RawDataElement(
        BaseTag(element.tag),
        vr,
        len(value),
        value,
        element.value_offset,
        element.is_implicit,
        elements.is_little_endian,
    )


def _data_set(raw: dict[BaseTag, RawDataElement], elements: ElementWalk) -> Dataset:
    """Make a pydicom data set whose elements are decoded when they are looked at."""
    undecoded: dict[BaseTag, DataElement | RawDataElement] = {**raw}
    data_set = Dataset(undecoded)
    character_set = raw.get(_SPECIFIC_CHARACTER_SET)
    encodings = _encodings(character_set.value or b"") if character_set else [default_encoding]
    data_set.set_original_encoding(elements.is_implicit, elements.is_little_endian, encodings)
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


def _uid(raw: dict[BaseTag, RawDataElement], tag: int, what: str) -> str:
    element = raw.get(BaseTag(tag))
    value = (element.value or b"").rstrip(b"\0 ") if element is not None else b""
    if not value:
        raise InvalidUid(f"{what} {tag_text(tag)} is missing")
    if not _UID.match(value):
        raise InvalidUid(f"{what} {tag_text(tag)} is not a UID")
    return value.decode("ascii")
