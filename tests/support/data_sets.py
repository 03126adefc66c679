"""Small data sets, encoded."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset


def implicit(data_set: Dataset) -> bytes:
    """``data_set`` in Implicit VR Little Endian, without file meta."""
    return _encoded(data_set, is_implicit_vr=True)


def explicit(data_set: Dataset) -> bytes:
    """``data_set`` in Explicit VR Little Endian, without file meta."""
    return _encoded(data_set, is_implicit_vr=False)


def _encoded(data_set: Dataset, *, is_implicit_vr: bool) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = is_implicit_vr
    buffer.is_little_endian = True
    write_dataset(buffer, data_set)
    return buffer.getvalue()


def study_query() -> Dataset:
    """An Identifier that asks for all studies."""
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = ""
    return query


def study_identifier() -> bytes:
    """``study_query`` in Implicit VR Little Endian."""
    return implicit(study_query())
