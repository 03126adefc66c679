"""A data set as the bytes of a PS3.10 file, in a character set that can hold its text."""

from __future__ import annotations

import io
from collections.abc import Iterator

from pydicom import dcmwrite
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.errors import ResultInvalid
from node.results.source_header import SourceHeader
from node.storage.archive import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_TEXT = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_SINGLE_BYTE = {
    "ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 126", "ISO_IR 127", "ISO_IR 138",
    "ISO_IR 144", "ISO_IR 148", "ISO_IR 203",
}  # fmt: skip
UTF_8 = "ISO_IR 192"
_MOST_BYTES = 65534
#: So many decimal strings of 16 characters always fit.
_SHORTEST_LONG_LIST = _MOST_BYTES // 17


def part10(data_set: Dataset, header: SourceHeader) -> bytes:
    """Return ``data_set`` as a file; sets its Specific Character Set.

    It is in Explicit VR Little Endian, but in Implicit VR where a value is longer than the 64 KiB that most
    value representations have room for there: the contour of a large region (PS3.5 section 7.1.2).

    The source's character set is kept when it is a single-byte one that can hold all text;
    otherwise it is UTF-8, since code extensions (ISO 2022) are where readers differ.

    Raises ResultInvalid for a value that its value representation cannot hold.
    """
    data_set.SpecificCharacterSet = character_set(data_set, header.specific_character_set)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if _has_long_values(data_set) else ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    plain = Dataset()
    plain.update(data_set)
    plain.file_meta = meta
    plain.preamble = b"\x00" * 128
    out = io.BytesIO()
    try:
        dcmwrite(out, plain, enforce_file_format=True)
    except OSError as error:
        # Nothing is written to a disk: this is how the library says that a number is too large.
        raise ResultInvalid(f"an element cannot be encoded: {str(error).splitlines()[0]}") from error
    return out.getvalue()


def character_set(data_set: Dataset, of_source: str) -> str:
    """Return the Specific Character Set (PS3.3 section C.12.1.1.2) for the text of ``data_set``."""
    everything = "".join(_texts(data_set))
    if of_source in _SINGLE_BYTE:
        try:
            everything.encode(python_encoding[of_source])
        except UnicodeEncodeError:
            return UTF_8
        return of_source
    return UTF_8


def _has_long_values(data_set: Dataset) -> bool:
    """Whether a list of decimal strings does not fit into a length of 16 bits."""
    for element in _elements(data_set):
        if isinstance(element, RawDataElement):
            if len(element.value or b"") > _MOST_BYTES:
                return True
        elif element.VR == "SQ":
            if any(_has_long_values(item) for item in element.value):
                return True
        elif element.VR == "DS" and element.VM > _SHORTEST_LONG_LIST:
            written = sum(len(str(one)) + 1 for one in element.value)
            if written > _MOST_BYTES:
                return True
    return False


def _elements(data_set: Dataset) -> Iterator[DataElement | RawDataElement]:
    """Yield the elements; numbers that are written already stay as they are."""
    for tag in data_set.keys():  # noqa: SIM118  (a data set iterates over its elements)
        element = data_set.get_item(tag)
        is_written = isinstance(element, RawDataElement) and element.VR == "DS"
        yield element if is_written else data_set[tag]


def _texts(data_set: Dataset) -> list[str]:
    found = []
    for element in _elements(data_set):
        if isinstance(element, RawDataElement):
            continue
        if element.VR == "SQ":
            for item in element.value:
                found += _texts(item)
        elif element.VR in _TEXT and element.value is not None:
            values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
            found += [str(value) for value in values]
    return found
