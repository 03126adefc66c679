"""Sends stored instances by C-STORE, each in the best transfer syntax that the other side accepts.

Used wherever anode sends what it holds: delivery, C-MOVE and C-GET (PS3.4 annexes B and C).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

from node.config.settings import PeerConfig
from node.errors import (
    AnodeError,
    IntegrityFailure,
    NoAcceptedContext,
    StorageFailure,
    UnsupportedPixelData,
)
from node.index.index import StoredInstance
from node.sending import contexts
from node.sending.contexts import Part
from node.sending.memory import LARGEST_MADE_BYTES, Made
from node.sending.read_ahead import ReadAhead
from node.services import Services
from node.storage import disk
from node.transcode.outgoing import Outgoing
from node.verification import note_damage
from node.wire.association import Answer, Association
from node.wire.contexts import AcceptedContext
from node.wire.sop_classes import UNCOMPRESSED

logger = logging.getLogger(__name__)

#: After so many instances in a row that were not taken, the peer is at fault, not the instances.
MOST_FAILURES_IN_A_ROW = 3

#: Transfer syntaxes in which an instance can be sent, best first, each with a context for it.
Choices = tuple[tuple[str, AcceptedContext], ...]


@dataclass(frozen=True)
class _Ready:
    """A data set that is known to be right, in the first of ``choices``; what is large is an open file."""

    stored: StoredInstance
    choices: Choices
    data_set: BinaryIO | bytes

    def close(self) -> None:
        if not isinstance(self.data_set, bytes):
            self.data_set.close()


def shipments(
    services: Services, instances: Iterable[StoredInstance], peer: PeerConfig
) -> Iterator[Part[StoredInstance]]:
    """Divide ``instances``, in their order, so that each part needs at most 128 presentation contexts.

    Those are in the transfer syntaxes that are sent to ``peer``.
    """

    def needs(stored: StoredInstance) -> tuple[str, tuple[str, ...]]:
        possible = Outgoing(services.storage, stored).transfer_syntaxes()
        return stored.sop_class_uid, contexts.sent_to(peer, possible)

    return contexts.parts(instances, needs)


class Shipping:
    """Stored instances on their way over one association; a context manager.

    While one is being sent, the next are read and proven, or decoded and proven, so that damage is
    found before the first byte of an instance is sent.

    Parameters
    ----------
    association : Association
        One that we requested, or that of a C-GET; a context counts in which we are the SCU of the SOP
        class.
    instances : sequence of StoredInstance
        In the order in which they are to be sent. Rows may have become old meanwhile.
    requestor : Association or None
        Whose C-MOVE or C-GET asks for it, for the audit trail; None where the node does by itself.
    priority, move_originator_ae_title, move_originator_message_id
        As C-STORE-RQ has them (PS3.7 section 9.1.1.1).
    """

    def __init__(
        self,
        services: Services,
        association: Association,
        instances: Sequence[StoredInstance],
        *,
        priority: int = 0,
        move_originator_ae_title: str | None = None,
        move_originator_message_id: int | None = None,
        requestor: Association | None = None,
    ) -> None:
        self._services = services
        self._association = association
        self._priority = priority
        self._move_originator_ae_title = move_originator_ae_title
        self._move_originator_message_id = move_originator_message_id
        self._order = iter(instances)
        self._audited = services.audit.sending(association, instances, requestor)
        self._choices: dict[tuple[str, str, str, int], Choices] = {}
        self._ahead: ReadAhead[StoredInstance, _Ready] = ReadAhead(
            instances,
            announce=self._announce,
            prepare=self._prepare,
            is_little_work=self._is_at_hand,
            bytes_of=self._memory_bytes,
            discard=_Ready.close,
            budget=services.sending_memory.ahead,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ahead.close()
        self._audited.done()

    def send_next(self) -> Answer:
        """Send the next instance and wait for the answer.

        Raises
        ------
        NoAcceptedContext
            No context fits this SOP class and any transfer syntax in which the instance can be sent.
        UnsupportedPixelData
            A context fits, but the pixels cannot be decoded for it.
        IntegrityFailure, StorageFailure
            The instance cannot be read; nothing was sent.
        PeerUnreachable, AssociationAborted, ProtocolViolation
            The association is lost; whether the peer holds the instance is not known.
        """
        stored = next(self._order)
        try:
            answer = self._send_next()
        except (AnodeError, OSError) as error:
            self._audited.failed(stored, error.name if isinstance(error, AnodeError) else "storage-failure")
            raise
        self._audited.answered(stored, answer.status)
        return answer

    def _send_next(self) -> Answer:
        ready = self._ahead.take()
        answer = self._store(ready)
        if not _was_not_understood(answer):
            return answer
        # Some peers cannot read what other senders write (every VR given as UN, say), but can read
        # the same instance written anew. Asked once; if that fails too, the first answer counts.
        anew = tuple(choice for choice in ready.choices[1:] if choice[0] in UNCOMPRESSED)
        if not anew:
            return answer
        try:
            written_anew = self._first_that_can_be_made(ready.stored, anew)
        except UnsupportedPixelData:
            return answer
        second = self._store(written_anew)
        return answer if _was_not_understood(second) else second

    def _store(self, ready: _Ready) -> Answer:
        try:
            return self._association.send_store(
                ready.choices[0][1],
                sop_class_uid=ready.stored.sop_class_uid,
                sop_instance_uid=ready.stored.sop_instance_uid,
                data_set=ready.data_set,
                priority=self._priority,
                move_originator_ae_title=self._move_originator_ae_title,
                move_originator_message_id=self._move_originator_message_id,
                meanwhile=self._ahead.use_idle_time,
            )
        except OSError as error:
            raise disk.failure(error, "sending an instance") from error
        finally:
            ready.close()

    # --- ahead of the socket ------------------------------------------------------

    def _announce(self, stored: StoredInstance) -> None:
        Outgoing(self._services.storage, stored).read_ahead()

    def _is_at_hand(self, stored: StoredInstance) -> bool:
        choices = self._choices_of(stored)
        return not choices or Outgoing(self._services.storage, stored).is_at_hand(choices[0][0])

    def _memory_bytes(self, stored: StoredInstance) -> int:
        choices = self._choices_of(stored)
        return Outgoing(self._services.storage, stored).memory_bytes(choices[0][0]) if choices else 0

    def _choices_of(self, stored: StoredInstance) -> Choices:
        """What the contexts of the association allow; the same for instances of the same kind."""
        kind = (
            stored.sop_class_uid,
            stored.received_transfer_syntax_uid,
            stored.stored_transfer_syntax_uid,
            stored.data_set_bytes % 2,
        )
        choices = self._choices.get(kind)
        if choices is None:
            possible = Outgoing(self._services.storage, stored).transfer_syntaxes()
            found = ((uid, self._association.context_for(stored.sop_class_uid, (uid,))) for uid in possible)
            choices = tuple((uid, context) for uid, context in found if context is not None)
            self._choices[kind] = choices
        return choices

    def _prepare(self, stored: StoredInstance) -> _Ready:
        """Find and check, or make, what is to be sent; damage is noted as ``anode verify`` does."""
        try:
            return self._ready(stored)
        except (IntegrityFailure, StorageFailure) as error:
            # It may have been settled, and its segment used again, since its row was read.
            now = current(self._services, stored.sop_instance_uid)
            if now == stored:
                note_damage(self._services, stored, str(error))
                raise
        try:
            return self._ready(now)
        except (IntegrityFailure, StorageFailure) as error:
            note_damage(self._services, now, str(error))
            raise

    def _ready(self, stored: StoredInstance) -> _Ready:
        choices = self._choices_of(stored)
        if not choices:
            # An Error Comment has 64 characters: what matters comes first.
            raise NoAcceptedContext(
                f"no transfer syntax accepted that fits, for SOP class {stored.sop_class_uid}"
            )
        return self._first_that_can_be_made(stored, choices)

    def _first_that_can_be_made(self, stored: StoredInstance, choices: Choices) -> _Ready:
        for number, (transfer_syntax_uid, _) in enumerate(choices):
            try:
                return _Ready(stored, choices[number:], self._data_set(stored, transfer_syntax_uid))
            except UnsupportedPixelData as error:
                undecodable = error
        raise undecodable

    def _data_set(self, stored: StoredInstance, transfer_syntax_uid: str) -> BinaryIO | bytes:
        outgoing = Outgoing(
            self._services.storage,
            stored,
            lambda: self._ahead.is_wanted,
            frame_bytes=self._services.config.limits.frame_bytes,
        )
        if not outgoing.is_made(transfer_syntax_uid) or stored.data_set_bytes > LARGEST_MADE_BYTES:
            return outgoing.data_set(transfer_syntax_uid)
        key = Made(stored.data_set_sha256, stored.received_transfer_syntax_uid, transfer_syntax_uid)
        return self._services.sending_memory.made.get(key, lambda: outgoing.data_set(transfer_syntax_uid))


def _was_not_understood(answer: Answer) -> bool:
    """Whether the peer says that it could not read the data set (PS3.4 table B.2-1: A9xx, Cxxx)."""
    return answer.status & 0xF000 == 0xC000 or answer.status & 0xFF00 == 0xA900


def current(services: Services, sop_instance_uid: str) -> StoredInstance:
    """The row of an instance as it is now; StorageFailure when it is not held any more."""
    with services.database.read() as connection:
        stored = services.index.get(connection, sop_instance_uid)
    if stored is None:
        raise StorageFailure("the instance is not held any more")
    return stored
