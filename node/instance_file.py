"""One instance as a file that any DICOM software reads (PS3.10 section 7), or its bare data set."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from node.errors import AnodeError, WrongUsage
from node.index.index import StoredInstance
from node.storage import archive, disk
from node.storage.storage import Storage
from node.transcode.outgoing import Outgoing
from node.transcode.restoring import pieces


def write(
    storage: Storage,
    stored: StoredInstance,
    path: Path,
    *,
    look_up: Callable[[str], StoredInstance | None],
    as_stored: bool = False,
    has_meta: bool = True,
) -> None:
    """Write an instance, durable.

    Parameters
    ----------
    storage : Storage
        Where its bytes are. All of the data set is checked before any of it is written.
    stored : StoredInstance
        Its row.
    path : Path
        Where there is no file yet.
    look_up : callable
        Gives the present row of an instance that was settled meanwhile.
    as_stored : bool
        In the transfer syntax in which it is stored, rather than received.
    has_meta : bool
        With File Meta Information before the data set.

    Raises
    ------
    WrongUsage
        There is such a file.
    IntegrityFailure, StorageFailure, OutOfSpace
        It cannot be given, or written; there is no file then.
    """
    syntax, data_set = data_set_of(storage, stored, look_up=look_up, as_stored=as_stored)
    try:
        _write(stored, syntax, data_set, path, has_meta=has_meta)
    finally:
        if not isinstance(data_set, bytes):
            data_set.close()


def _write(
    stored: StoredInstance, syntax: str, data_set: bytes | BinaryIO, path: Path, *, has_meta: bool
) -> None:
    """Write beside ``path``, and give it that name when it is whole and on the disk."""
    try:
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    except OSError as error:
        raise disk.failure(error, f"writing {path}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            if has_meta:
                file.write(b"\0" * 128 + b"DICM")
                write_file_meta_info(DicomFileLike(file), file_meta(stored, syntax))
            file.writelines((data_set,) if isinstance(data_set, bytes) else pieces(data_set))
            file.flush()
            disk.sync_data(file.fileno())
        os.link(unfinished, path)
        disk.sync_directory(path.absolute().parent)
    except FileExistsError:
        raise WrongUsage(f"{path} is there already", action="name a file that is absent") from None
    except OSError as error:
        raise disk.failure(error, f"writing {path}") from error
    finally:
        os.unlink(unfinished)


def file_meta(stored: StoredInstance, transfer_syntax_uid: str) -> FileMetaDataset:
    """File Meta Information of an instance in this transfer syntax."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(stored.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(stored.sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(archive.IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = archive.IMPLEMENTATION_VERSION_NAME
    return meta


def data_set_of(
    storage: Storage,
    stored: StoredInstance,
    *,
    look_up: Callable[[str], StoredInstance | None],
    as_stored: bool,
) -> tuple[str, bytes | BinaryIO]:
    """The data set of an instance, all of it checked, and its transfer syntax; parameters as of ``write``.

    A file is at position 0, and the caller closes it. Raises IntegrityFailure or StorageFailure.
    """
    try:
        return _data_set(storage, stored, as_stored)
    except AnodeError:
        now = look_up(stored.sop_instance_uid)
        if now is None or now.location == stored.location:
            raise
        return _data_set(storage, now, as_stored)  # it was settled meanwhile


def _data_set(storage: Storage, stored: StoredInstance, as_stored: bool) -> tuple[str, bytes | BinaryIO]:
    syntax = stored.stored_transfer_syntax_uid if as_stored else stored.received_transfer_syntax_uid
    return syntax, Outgoing(storage, stored).data_set(syntax)
