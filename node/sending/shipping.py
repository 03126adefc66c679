"""Sends stored instances by C-STORE: which presentation contexts they need, and which of them fits.

Used wherever anode sends what it holds: delivery, C-MOVE and C-GET (PS3.4 annexes B and C).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from node.errors import NoAcceptedContext, StorageFailure, UnsupportedPixelData
from node.index.index import StoredInstance
from node.services import Services
from node.transcode.outgoing import Outgoing
from node.wire.association import Answer, Association
from node.wire.negotiation import ProposedContext
from node.wire.sop_classes import UNCOMPRESSED

#: PS3.8 section 9.3.2.2: context IDs are the odd numbers from 1 to 255.
MOST_CONTEXTS = 128


@dataclass(frozen=True)
class Shipment:
    """Instances that fit one association, and the presentation contexts to propose for them."""

    instances: tuple[StoredInstance, ...]
    contexts: tuple[ProposedContext, ...]


def shipments(services: Services, instances: Iterable[StoredInstance]) -> Iterator[Shipment]:
    """Divide ``instances``, in their order, so that each part needs at most 128 presentation contexts."""
    part: list[StoredInstance] = []
    needed: dict[tuple[str, tuple[str, ...]], None] = {}
    for stored in instances:
        wanted = list(_proposals(services, stored))
        if part and len(needed.keys() | set(wanted)) > MOST_CONTEXTS:
            yield _shipment(part, needed)
            part, needed = [], {}
        part.append(stored)
        needed.update(dict.fromkeys(wanted))
    if part:
        yield _shipment(part, needed)


def send(
    services: Services,
    association: Association,
    sop_instance_uid: str,
    *,
    priority: int = 0,
    move_originator_ae_title: str | None = None,
    move_originator_message_id: int | None = None,
) -> Answer:
    """Send one instance over ``association``, in the best transfer syntax that its contexts allow.

    ``association`` may be one that we requested, or that of a C-GET; a context counts in which we are
    the SCU of the SOP class.

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
    stored = current(services, sop_instance_uid)
    undecodable: UnsupportedPixelData | None = None
    unread: Answer | None = None
    for transfer_syntax_uid in Outgoing(services.storage, stored).transfer_syntaxes():
        context = association.context_for(stored.sop_class_uid, (transfer_syntax_uid,))
        if context is None or (unread is not None and transfer_syntax_uid not in UNCOMPRESSED):
            continue
        try:
            stored, data_set = _read(services, stored, transfer_syntax_uid)
        except UnsupportedPixelData as error:
            undecodable = error
            continue
        try:
            answer = association.send_store(
                context,
                sop_class_uid=stored.sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                data_set=data_set,
                priority=priority,
                move_originator_ae_title=move_originator_ae_title,
                move_originator_message_id=move_originator_message_id,
            )
        finally:
            if not isinstance(data_set, bytes):
                data_set.close()
        if not _was_not_understood(answer):
            return answer
        if unread is not None:
            return unread
        # Some peers cannot read what other senders write (every VR given as UN, say), but can read
        # the same instance written anew. Asked once; if that fails too, the first answer counts.
        unread = answer
    if unread is not None:
        return unread
    if undecodable is not None:
        raise undecodable
    raise NoAcceptedContext(
        f"the peer accepts SOP class {stored.sop_class_uid} in no transfer syntax in which it can be sent"
    )


def _was_not_understood(answer: Answer) -> bool:
    """Whether the peer says that it could not read the data set (PS3.4 table B.2-1: A9xx, Cxxx)."""
    return answer.status & 0xF000 == 0xC000 or answer.status & 0xFF00 == 0xA900


def current(services: Services, sop_instance_uid: str) -> StoredInstance:
    """Where an instance lies now; StorageFailure when it is not held any more."""
    with services.database.read() as connection:
        stored = services.index.get(connection, sop_instance_uid)
    if stored is None:
        raise StorageFailure("the instance is not held any more")
    return stored


def _read(
    services: Services, stored: StoredInstance, transfer_syntax_uid: str
) -> tuple[StoredInstance, BinaryIO | bytes]:
    try:
        return stored, Outgoing(services.storage, stored).data_set(transfer_syntax_uid)
    except StorageFailure:
        # It may have been settled, and its segment used again, since its row was read.
        moved = current(services, stored.sop_instance_uid)
        if moved.location == stored.location:
            raise
        return moved, Outgoing(services.storage, moved).data_set(transfer_syntax_uid)


def _proposals(services: Services, stored: StoredInstance) -> Iterator[tuple[str, tuple[str, ...]]]:
    """One context for each compressed or exact form, and one for the two that every peer reads."""
    possible = Outgoing(services.storage, stored).transfer_syntaxes()
    for number, transfer_syntax_uid in enumerate(possible):
        # The first is the exact form: alone in its context, the peer cannot prefer another.
        if number == 0 or transfer_syntax_uid not in UNCOMPRESSED:
            yield stored.sop_class_uid, (transfer_syntax_uid,)
    uncompressed = tuple(uid for uid in UNCOMPRESSED if uid in possible)
    if uncompressed and uncompressed != possible[:1]:
        yield stored.sop_class_uid, uncompressed


def _shipment(part: Sequence[StoredInstance], needed: Iterable[tuple[str, tuple[str, ...]]]) -> Shipment:
    return Shipment(tuple(part), tuple(ProposedContext(*proposal) for proposal in needed))
