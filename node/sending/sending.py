"""Sends files to a peer by C-STORE: as they are where the peer allows, else decompressed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from node.config.settings import PeerConfig
from node.errors import AnodeError, PeerError
from node.sending import contexts, dicom_files
from node.sending.contexts import Part
from node.sending.dicom_files import DicomFile
from node.status import SUCCESS, is_store_warning
from node.wire import scu
from node.wire.contexts import AcceptedContext, ProposedContext
from node.wire.sop_classes import UNCOMPRESSED
from node.wire.tls import ClientTls

Recode = Callable[[DicomFile, str], BinaryIO]
"""Opens the data set of a file in another, uncompressed transfer syntax; raises AnodeError."""


@dataclass(frozen=True)
class Sent:
    """What came of one file.

    ``status`` is the peer's answer, None when there is none; ``problem`` then says why, and
    ``comment`` is the peer's Error Comment. ``transfer_syntax_uid`` is that of the association.
    """

    file: DicomFile
    status: int | None
    comment: str = ""
    transfer_syntax_uid: str = ""
    problem: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether the peer says that it holds the instance."""
        return self.status is not None and (self.status == SUCCESS or is_store_warning(self.status))


class Sender:
    """Sends to one peer, over as many associations as the files need.

    Parameters
    ----------
    peer
        Where to.
    calling_ae_title, timeout_seconds, max_pdu_bytes
        As the associations are requested.
    recode
        For peers that do not take a file as it is.
    tls
        How to call over TLS; None is plain.
    """

    def __init__(
        self,
        peer: PeerConfig,
        *,
        calling_ae_title: str,
        timeout_seconds: float,
        max_pdu_bytes: int,
        recode: Recode,
        tls: ClientTls | None = None,
    ) -> None:
        self._peer = peer
        self._calling_ae_title = calling_ae_title
        self._timeout_seconds = timeout_seconds
        self._max_pdu_bytes = max_pdu_bytes
        self._recode = recode
        self._tls = tls

    def send(self, files: Sequence[DicomFile]) -> Iterator[Sent]:
        """Send ``files`` in their order and yield what came of each.

        A file during which the association was lost is tried once more on a new one. When no
        association can be had, the rest is not tried.
        """
        for part in parts(files, self._peer):
            left = deque(part.instances)
            lost_before: DicomFile | None = None
            while left:
                try:
                    association = self._associate(part.contexts)
                except PeerError as error:
                    yield from (Sent(file, None, problem=str(error)) for file in left)
                    break
                try:
                    with association:
                        while left:
                            yield self._send_one(association, left[0])
                            left.popleft()
                except PeerError as error:
                    if left and left[0] is lost_before:
                        yield Sent(left.popleft(), None, problem=str(error))
                    elif left:
                        lost_before = left[0]

    def _associate(self, proposed: Sequence[ProposedContext]) -> scu.RequestedAssociation:
        return scu.connect(
            self._peer.host,
            self._peer.port,
            calling_ae_title=self._calling_ae_title,
            called_ae_title=self._peer.ae_title,
            contexts=proposed,
            timeout_seconds=self._timeout_seconds,
            max_pdu_bytes=self._max_pdu_bytes,
            tls=self._tls,
        )

    def _send_one(self, association: scu.RequestedAssociation, file: DicomFile) -> Sent:
        context = association.context_for(file.sop_class_uid, (file.transfer_syntax_uid,))
        if context is not None:
            try:
                data_set = dicom_files.open_data_set(file)
            except OSError as error:
                return Sent(file, None, problem=f"cannot be read: {error.strerror}")
            return self._store(association, context, file, data_set)
        context = association.context_for(file.sop_class_uid, UNCOMPRESSED)
        if context is None:
            return Sent(file, None, problem="the peer accepts this SOP class in no transfer syntax that fits")
        try:
            recoded = self._recode(file, context.transfer_syntax_uid)
        except PeerError:
            raise
        except AnodeError as error:
            problem = f"the peer wants it uncompressed, but it cannot be decompressed: {error}"
            return Sent(file, None, problem=problem)
        return self._store(association, context, file, recoded)

    @staticmethod
    def _store(
        association: scu.RequestedAssociation, context: AcceptedContext, file: DicomFile, data_set: BinaryIO
    ) -> Sent:
        with data_set:
            answer = association.send_store(
                context,
                sop_class_uid=file.sop_class_uid,
                sop_instance_uid=file.sop_instance_uid,
                data_set=data_set,
            )
        return Sent(file, answer.status, answer.comment, context.transfer_syntax_uid)


def parts(files: Iterable[DicomFile], peer: PeerConfig) -> Iterator[Part[DicomFile]]:
    """Divide ``files``, in their order, so that each part needs at most 128 presentation contexts."""

    def needs(file: DicomFile) -> tuple[str, tuple[str, ...]]:
        possible = tuple(dict.fromkeys((file.transfer_syntax_uid, *UNCOMPRESSED)))
        return file.sop_class_uid, contexts.sent_to(peer, possible)

    return contexts.parts(files, needs)
