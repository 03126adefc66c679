"""Small data sets of the wire: Identifiers, Action Information, Event Information (PS3.7 section 6.2)."""

from __future__ import annotations

import zlib
from io import BytesIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from node.errors import LimitExceeded, MalformedDataSet
from node.undecodable import UNDECODABLE_IN_MEMORY
from node.wire.sop_classes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)


def decode(encoded: bytes, transfer_syntax_uid: str, *, limit_bytes: int) -> Dataset:
    """Decode a data set that is held whole; values are converted when they are first read.

    Raises
    ------
    MalformedDataSet
        When it cannot be parsed or is cut off.
    LimitExceeded
        When it inflates to more than ``limit_bytes``.
    """
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        encoded = _inflate(encoded, limit_bytes)
    try:
        data_set = read_dataset(
            BytesIO(encoded),
            is_implicit_VR=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
            is_little_endian=transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN,
        )
        last = next(reversed(list(data_set.values())), None)
        # pydicom ends quietly where the bytes do; a sequence of undefined length has been read to its end
        if isinstance(last, RawDataElement) and last.value_tell + last.length != len(encoded):
            raise MalformedDataSet("the identifier is cut off")
    except UNDECODABLE_IN_MEMORY as error:
        raise MalformedDataSet("the identifier cannot be parsed") from error
    return data_set


def encode(data_set: Dataset, transfer_syntax_uid: str) -> bytes:
    """Encode ``data_set`` without file meta; text in its own Specific Character Set."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    buffer.is_little_endian = transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    write_dataset(buffer, data_set)
    encoded = buffer.getvalue()
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        encoded = deflate.compress(encoded) + deflate.flush()
        encoded += b"\0" * (len(encoded) % 2)
    return encoded


def _inflate(encoded: bytes, limit_bytes: int) -> bytes:
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        plain = inflate.decompress(encoded, limit_bytes + 1)
    except zlib.error as error:
        raise MalformedDataSet("the deflated identifier cannot be inflated") from error
    if len(plain) > limit_bytes:
        raise LimitExceeded(f"the identifier inflates to more than {limit_bytes} bytes")
    if not inflate.eof:
        raise MalformedDataSet("the deflated identifier is cut off")
    return plain
