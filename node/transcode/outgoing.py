"""A stored instance on its way out, in whichever transfer syntax the other side accepts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.errors import IntegrityFailure, LimitExceeded, MalformedDataSet, UnsupportedPixelData
from node.index.index import StoredInstance
from node.storage import archive
from node.storage.storage import Storage
from node.transcode import pixels
from node.transcode.restoring import chunks, restore
from node.transcode.spool import spool
from node.transcode.uncompressed import UNCOMPRESSED, uncompressed

_IN_MEMORY_BYTES = 16 << 20


class Outgoing:
    """An instance that can be sent in some transfer syntaxes.

    Parameters
    ----------
    storage : Storage
        Where its bytes are.
    stored : StoredInstance
        Its row, as it is now.
    """

    def __init__(self, storage: Storage, stored: StoredInstance) -> None:
        self._storage = storage
        self._stored = stored

    def transfer_syntaxes(self) -> tuple[str, ...]:
        """UIDs of the transfer syntaxes in which it can be sent, best first.

        As it was received, byte for byte; as it is stored; then Explicit and Implicit VR Little
        Endian, unless the pixels are of a kind that is not decoded (video). What was received with
        an odd length, which no data set may have, is sent so only to peers that take nothing else:
        most abort at a fragment of odd length (PS3.5 section 7.1.1, PS3.8 section E.2).
        """
        received = self._stored.received_transfer_syntax_uid
        possible = [received, self._stored.stored_transfer_syntax_uid]
        if pixels.is_decodable(received):
            possible += UNCOMPRESSED
        if self._stored.data_set_bytes % 2 and received != DeflatedExplicitVRLittleEndian:
            possible = [*(other for other in possible if other != received), received]
        return tuple(dict.fromkeys(possible))

    def data_set(self, transfer_syntax_uid: str) -> BinaryIO | bytes:
        """Return the encoded data set in one of ``transfer_syntaxes``, all of it checked already.

        Returns
        -------
        BinaryIO or bytes
            A file at position 0, which the caller closes, where it is large.

        Raises
        ------
        IntegrityFailure
            The stored bytes are damaged; nothing of them is given.
        StorageFailure
            They cannot be read.
        UnsupportedPixelData
            The pixels cannot be decoded, or not in this transfer syntax.
        """
        stored = self._stored
        if transfer_syntax_uid == stored.received_transfer_syntax_uid:
            return _small(self._received())
        if transfer_syntax_uid == stored.stored_transfer_syntax_uid:
            return _small(self._as_stored())
        if transfer_syntax_uid not in self.transfer_syntaxes():
            raise UnsupportedPixelData(f"the instance cannot be sent in {transfer_syntax_uid}")
        with self._received() as received:
            try:
                return _small(
                    uncompressed(received, stored.received_transfer_syntax_uid, transfer_syntax_uid)
                )
            except (MalformedDataSet, LimitExceeded) as error:
                raise UnsupportedPixelData(f"the data set cannot be encoded: {error}") from error

    def _received(self) -> BinaryIO:
        """The data set as it was received, checked, in a file of its own."""
        return _checked(received_chunks(self._storage, self._stored))

    def _as_stored(self) -> BinaryIO:
        with self._storage.open(self._stored.location) as file:
            return _checked(chunks(file, private_information(self._storage, self._stored)["stored"]))


def private_information(storage: Storage, stored: StoredInstance) -> Mapping[str, Any]:
    """What ``restore`` has to know of an instance, wherever it lies.

    Raises IntegrityFailure when its archive file says something else than its row.
    """
    received = {
        "transfer_syntax_uid": stored.received_transfer_syntax_uid,
        "sha256": stored.data_set_sha256,
        "length": stored.data_set_bytes,
    }
    if stored.location.kind == "log":
        return {"received": received, "stored": received}
    private = archive.read_private(storage.path(stored.location))
    try:
        is_right = (
            private["received"]["sha256"] == stored.data_set_sha256
            and private["received"]["transfer_syntax_uid"] == stored.received_transfer_syntax_uid
            and private["stored"]["transfer_syntax_uid"] == stored.stored_transfer_syntax_uid
            and isinstance(private["stored"]["sha256"], str)
        )
    except (KeyError, TypeError) as error:
        raise IntegrityFailure("the proof of an instance is damaged") from error
    if not is_right:
        raise IntegrityFailure("an archive file is not that of its instance")
    return private


def received_chunks(storage: Storage, stored: StoredInstance) -> Iterator[bytes]:
    """Yield the data set of an instance exactly as it was received; raises as ``restore`` does."""
    private = private_information(storage, stored)
    with storage.open(stored.location) as file:
        yield from restore(file, private)


def _checked(data: Iterator[bytes]) -> BinaryIO:
    """Take all of ``data``, so that what it raises is raised here."""
    file = spool()
    try:
        for chunk in data:
            file.write(chunk)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _small(file: BinaryIO) -> BinaryIO | bytes:
    """The content itself where it is small."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if length > _IN_MEMORY_BYTES:
        return file
    with file:
        return file.read()
