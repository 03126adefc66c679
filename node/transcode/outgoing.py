"""A stored instance on its way out, in whichever transfer syntax the other side accepts.

Nothing is given before it has been checked. What is small is read once, into memory, and what was
checked is what is sent; of what is large, the file that was checked stays open, and is not written to.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

from node.errors import (
    AnodeError,
    IntegrityFailure,
    LimitExceeded,
    MalformedDataSet,
    UnsupportedPixelData,
)
from node.index.index import StoredInstance
from node.storage import archive
from node.storage.storage import Storage
from node.storage.window import LastingWindow
from node.transcode import pixels
from node.transcode.checksum import crc32
from node.transcode.facts import MOST_FRAME_BYTES
from node.transcode.restoring import pieces, restore
from node.transcode.side_by_side import CORES
from node.transcode.spool import IN_MEMORY_BYTES, spool
from node.transcode.uncompressed import UNCOMPRESSED, uncompressed

#: Stored data sets of up to this length are read into memory to be sent.
READ_WHOLE_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 20
# Of what comes compressed, little grows more when it is decoded.
_GROWS_TIMES = 16
# more than the File Meta Information before a data set usually has
_META_BYTES = 64 << 10


class NotWanted(AnodeError):
    """Nobody waits for the data set any more."""


def _always() -> bool:
    return True


class Outgoing:
    """An instance that can be sent in some transfer syntaxes.

    Parameters
    ----------
    storage : Storage
        Where its bytes are.
    stored : StoredInstance
        Its row, as it is now.
    is_wanted : callable
        Asked now and then in long work, from whichever thread does it; false ends it.
    frame_bytes : int
        The largest frame that is decoded; what was encoded here is restored whatever its size.
    """

    def __init__(
        self,
        storage: Storage,
        stored: StoredInstance,
        is_wanted: Callable[[], bool] = _always,
        *,
        frame_bytes: int = MOST_FRAME_BYTES,
    ) -> None:
        self._storage = storage
        self._stored = stored
        self._is_wanted = is_wanted
        self._frame_bytes = frame_bytes

    def transfer_syntaxes(self) -> tuple[str, ...]:
        """UIDs of the transfer syntaxes in which it can be sent, best first.

        As it is stored, which costs nothing; as it was received, byte for byte; then Explicit and Implicit
        VR Little Endian, unless the pixels are of a kind that is not decoded (video). What was received with
        an odd length, which no data set may have, is sent so only to peers that take nothing else:
        most abort at a fragment of odd length (PS3.5 section 7.1.1, PS3.8 section E.2).
        """
        received = self._stored.received_transfer_syntax_uid
        possible = [self._stored.stored_transfer_syntax_uid, received]
        if pixels.is_decodable(received):
            possible += UNCOMPRESSED
        if self._stored.data_set_bytes % 2 and received != DeflatedExplicitVRLittleEndian:
            possible = [*(other for other in possible if other != received), received]
        return tuple(dict.fromkeys(possible))

    def is_made(self, transfer_syntax_uid: str) -> bool:
        """Whether ``data_set`` has to make it, by decoding, rather than read what is stored."""
        return transfer_syntax_uid != self._stored.stored_transfer_syntax_uid

    def is_at_hand(self, transfer_syntax_uid: str) -> bool:
        """Whether ``data_set`` is so little work that it is not worth another thread."""
        noted = self._noted()
        return (
            not self.is_made(transfer_syntax_uid) and "crc32" in noted and noted["length"] <= READ_WHOLE_BYTES
        )

    def memory_bytes(self, transfer_syntax_uid: str) -> int:
        """Memory, at most, that ``data_set`` needs and its result holds, roughly."""
        if self.is_made(transfer_syntax_uid):
            count = self._stored.data_set_bytes
            received = self._stored.received_transfer_syntax_uid
            if transfer_syntax_uid != received and received not in UNCOMPRESSED:
                count *= _GROWS_TIMES
            return min(count, IN_MEMORY_BYTES)
        length = int(self._noted().get("length", self._stored.data_set_bytes))
        return length if length <= READ_WHOLE_BYTES else _CHUNK_BYTES

    def read_ahead(self) -> None:
        """Have the system begin to read what is stored; of what is large, the beginning."""
        count = min(self._stored.data_set_bytes + _META_BYTES, READ_WHOLE_BYTES)
        self._storage.read_ahead(self._stored.location, count)

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
        NotWanted
            ``is_wanted`` became false.
        """
        stored = self._stored
        if not self.is_made(transfer_syntax_uid):
            return self._as_stored()
        if transfer_syntax_uid == stored.received_transfer_syntax_uid:
            return self._received()
        if transfer_syntax_uid not in self.transfer_syntaxes():
            raise UnsupportedPixelData(f"the instance cannot be sent in {transfer_syntax_uid}")
        received = self._received()
        with io.BytesIO(received) if isinstance(received, bytes) else received as file:
            try:
                return _handed_over(
                    uncompressed(
                        file,
                        stored.received_transfer_syntax_uid,
                        transfer_syntax_uid,
                        frame_bytes=self._frame_bytes,
                    )
                )
            except (MalformedDataSet, LimitExceeded) as error:
                raise UnsupportedPixelData(f"the data set cannot be encoded: {error}") from error

    def _noted(self) -> Mapping[str, Any]:
        """What its row says of the stored data set; of one that is not settled, nothing."""
        noted = (self._stored.proof or {}).get("stored") if self._stored.is_settled else None
        return noted if isinstance(noted, dict) else {}

    def _stored_sha256(self) -> str:
        """Digest of what is stored: of its row where that has it, else of its archive file."""
        stored = self._stored
        if stored.location.kind == "log":
            return stored.data_set_sha256
        noted = self._noted()
        if noted.get("transfer_syntax_uid") == stored.stored_transfer_syntax_uid and "sha256" in noted:
            return str(noted["sha256"])
        return str(private_information(self._storage, stored)["stored"]["sha256"])

    def _as_stored(self) -> BinaryIO | bytes:
        """The stored data set, checked: in memory, or as its open file."""
        file = self._storage.open(self._stored.location)
        try:
            length = file.seek(0, os.SEEK_END)
            file.seek(0)
            if length <= READ_WHOLE_BYTES:
                data_set = file.read()
                self._check(lambda: iter((data_set,)), length)
            else:
                self._check(lambda: self._while_wanted(_from_start(file)), length)
                file.seek(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        return data_set

    def _check(self, read: Callable[[], Iterator[bytes]], length: int) -> None:
        """Raise IntegrityFailure unless what ``read`` gives, each time, is what was stored."""
        noted = self._noted()
        if noted.get("length") == length and noted.get("crc32") == crc32(read()):
            return
        digest = hashlib.sha256()
        for chunk in read():
            digest.update(chunk)
        if digest.hexdigest() != self._stored_sha256():
            raise IntegrityFailure("a data set is not the one that was stored: its SHA-256 is another")

    def _received(self) -> BinaryIO | bytes:
        """The data set as it was received, checked; in a file of its own where it is large."""
        if not self.is_made(self._stored.received_transfer_syntax_uid):
            return self._as_stored()
        restored = self._while_wanted(received_chunks(self._storage, self._stored, threads=CORES))
        if self._stored.data_set_bytes <= IN_MEMORY_BYTES:
            return b"".join(restored)
        file = spool()
        try:
            for chunk in restored:
                file.write(chunk)
        except BaseException:
            file.close()
            raise
        return _handed_over(file)

    def _while_wanted(self, data: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        with closing(data):  # and with it the files from which it comes
            for chunk in data:
                if not self._is_wanted():
                    raise NotWanted("the data set is not wanted any more")
                yield chunk


def _from_start(file: BinaryIO) -> Generator[bytes, None, None]:
    file.seek(0)
    return pieces(file)


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


def received_chunks(
    storage: Storage, stored: StoredInstance, *, threads: int = 1
) -> Generator[bytes, None, None]:
    """Yield the data set of an instance exactly as it was received; raises as ``restore`` does."""
    private = private_information(storage, stored)
    with storage.open(stored.location) as file:
        yield from restore(file, private, threads=threads)


def _handed_over(file: BinaryIO) -> BinaryIO | bytes:
    """The content of a spool: itself where it is in memory, else a file that the system can send."""
    with file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        if length <= IN_MEMORY_BYTES:
            return file.read()
        file.flush()
        return LastingWindow(os.dup(file.fileno()), 0, length, owns_file=True)
