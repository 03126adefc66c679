"""What can be imported: a file of anybody, a settled file of an anode, a record of a receive log.

Each gives the data set as it was received by whoever kept it, byte for byte.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from node.errors import IntegrityFailure, MalformedDataSet, StorageFailure
from node.sending import dicom_files
from node.sending.dicom_files import SOP_CLASS_UID, SOP_INSTANCE_UID, DicomFile
from node.storage.held_log import HeldLog
from node.storage.location import Location
from node.storage.record import Head
from node.transcode.restoring import pieces, restore


class Source(ABC):
    """One instance that can be imported.

    Attributes
    ----------
    where : str
        The file, for people.
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
        Of the data set as it is given.
    data_set_bytes : int
        Its length.
    """

    where: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_bytes: int

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Digest of the data set, in hex; raises as ``chunks`` does where it has to be read for that."""

    @abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """Yield the data set.

        Raises
        ------
        MalformedDataSet, IntegrityFailure
            It cannot be read, or is damaged; perhaps only at the end. Nothing that was yielded counts then.
        """


class AnyFile(Source):
    """A DICOM file, whoever wrote it."""

    def __init__(self, file: DicomFile) -> None:
        self._file = file
        self.where = str(file.path)
        self.sop_class_uid = file.sop_class_uid
        self.sop_instance_uid = file.sop_instance_uid
        self.transfer_syntax_uid = file.transfer_syntax_uid
        self.data_set_bytes = file.data_set_bytes

    @cached_property
    def sha256(self) -> str:
        """As of ``Source``."""
        digest = hashlib.sha256()
        for chunk in self._read():
            digest.update(chunk)
        return digest.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """As of ``Source``; what is read now is what was digested."""
        return _proven(self._read(), self.sha256, "it changed while it was read")

    def _read(self) -> Iterator[bytes]:
        try:
            with dicom_files.open_data_set(self._file) as data_set:
                yield from pieces(data_set)
        except (OSError, StorageFailure) as error:
            raise MalformedDataSet(f"cannot be read: {error}") from error


class SettledFile(Source):
    """An archive file of an anode, which gives back what was received."""

    def __init__(self, file: DicomFile, private: Mapping[str, Any]) -> None:
        self._file = file
        self._private = private
        self.where = str(file.path)
        self.sop_class_uid = file.sop_class_uid
        self.sop_instance_uid = file.sop_instance_uid
        try:
            received = private["received"]
            self._sha256 = str(received["sha256"])
            self.transfer_syntax_uid = str(received["transfer_syntax_uid"])
            self.data_set_bytes = int(received["length"])
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise IntegrityFailure("the proof in it is damaged") from error

    @property
    def sha256(self) -> str:
        """As of ``Source``."""
        return self._sha256

    def chunks(self) -> Iterator[bytes]:
        """As of ``Source``."""
        try:
            with dicom_files.open_data_set(self._file) as data_set:
                yield from restore(data_set, self._private)
        except (OSError, StorageFailure) as error:
            raise MalformedDataSet(f"cannot be read: {error}") from error


class LogRecord(Source):
    """A record of a receive log of an anode, which was not settled yet."""

    def __init__(self, log: HeldLog, location: Location, head: Head, where: str) -> None:
        self._log = log
        self._location = location
        self._head = head
        self.where = where
        self.transfer_syntax_uid = head.transfer_syntax_uid
        self.data_set_bytes = head.data_set_bytes
        with log.open(location) as data_set:
            uids = dicom_files.uids_of(data_set, head.transfer_syntax_uid)
        self.sop_class_uid = uids.get(SOP_CLASS_UID, "")
        self.sop_instance_uid = uids.get(SOP_INSTANCE_UID, "")

    @property
    def sha256(self) -> str:
        """As of ``Source``."""
        return self._head.data_set_sha256

    def chunks(self) -> Iterator[bytes]:
        """As of ``Source``."""
        try:
            with self._log.open(self._location) as data_set:
                yield from _proven(pieces(data_set), self.sha256, "the record is torn or damaged")
        except StorageFailure as error:
            raise MalformedDataSet(f"cannot be read: {error}") from error


def _proven(chunks: Iterator[bytes], sha256: str, problem: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise IntegrityFailure(problem)
