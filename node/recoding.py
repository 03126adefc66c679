"""A file's data set in an uncompressed transfer syntax, for peers that take no other.

What the node itself holds goes out through ``node/transcode/outgoing.py``, which proves what it
does; this is for files of others, which ``anode send`` brings to a peer.
"""

from __future__ import annotations

from array import array

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.dicom_files import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, DicomFile
from node.errors import MalformedDataSet, UnsupportedPixelData

_DECODING_FAILURES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_WORD_BYTES = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}
_WORD_CODES = {2: "H", 4: "I", 8: "Q"}


def uncompressed(file: DicomFile, transfer_syntax_uid: str) -> bytes:
    """Return the data set of ``file`` in Explicit or Implicit VR Little Endian (PS3.5 annex A).

    Pixels are decoded where they are compressed; Photometric Interpretation says what came out.

    Raises
    ------
    UnsupportedPixelData
        When the pixels cannot be decoded.
    MalformedDataSet
        When the rest cannot be read or written.
    """
    try:
        data_set = dcmread(file.path)
    except (InvalidDicomError, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise MalformedDataSet(f"the data set cannot be read: {error}") from error
    _decode(data_set)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    buffer.is_little_endian = True
    try:
        if file.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN:
            data_set.walk(_swap_words)
        write_dataset(buffer, data_set)
    except (BytesLengthException, *_DECODING_FAILURES) as error:
        raise MalformedDataSet(f"the data set cannot be encoded anew: {error}") from error
    return buffer.getvalue()


def _decode(data_set: FileDataset) -> None:
    """Replace compressed pixels by decoded ones."""
    try:
        if not data_set.file_meta.TransferSyntaxUID.is_compressed or "PixelData" not in data_set:
            return
        if data_set.BitsAllocated == 1:
            raise NotImplementedError("single bits are not unpacked here")
        # Colours stay in the space they were encoded in: a conversion would change values.
        data_set.decompress(as_rgb=False, generate_instance_uid=False)
    except _DECODING_FAILURES as error:
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedPixelData(f"the pixels cannot be decoded: {reason}") from error
    if data_set.PhotometricInterpretation == "YBR_FULL_422":  # the decoder has filled in the colours
        data_set.PhotometricInterpretation = "YBR_FULL"


def _swap_words(data_set: Dataset, element: DataElement) -> None:
    """Turn the words of binary values, which pydicom leaves as they were (PS3.5 section 7.3)."""
    width_bytes = _WORD_BYTES.get(element.VR, 1)
    if element.keyword == "PixelData" and element.VR == "OW":
        width_bytes = max(2, data_set.BitsAllocated // 8)
    if width_bytes > 1 and isinstance(element.value, bytes):
        words = array(_WORD_CODES[width_bytes], element.value)
        words.byteswap()
        element.value = words.tobytes()
