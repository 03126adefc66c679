"""A file's data set in an uncompressed transfer syntax, for peers that take no other."""

from __future__ import annotations

from typing import BinaryIO

from node.errors import MalformedDataSet
from node.sending import dicom_files
from node.sending.dicom_files import DicomFile
from node.transcode import uncompressed as transcoding


def uncompressed(file: DicomFile, transfer_syntax_uid: str) -> BinaryIO:
    """Open the data set of ``file`` in Explicit or Implicit VR Little Endian (PS3.5 annex A).

    Raises
    ------
    UnsupportedPixelData
        When the pixels cannot be decoded.
    MalformedDataSet, LimitExceeded
        When the file cannot be read.
    """
    try:
        data_set = dicom_files.open_data_set(file)
    except OSError as error:
        raise MalformedDataSet(f"the file cannot be read: {error.strerror}") from error
    with data_set:
        return transcoding.uncompressed(data_set, file.transfer_syntax_uid, transfer_syntax_uid)
