"""The data sets of the Storage Commitment Push Model, read and written (PS3.4 section J.3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from node import confirmations
from node.errors import MalformedDataSet
from node.services import Services
from node.status import (
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_SOP_CLASS,
    NO_SUCH_SOP_INSTANCE,
    SUCCESS,
)
from node.undecodable import UNDECODABLE_IN_MEMORY
from node.wire.association import Request, Response
from node.wire.sop_classes import STORAGE_COMMITMENT_PUSH_MODEL, STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE

#: PS3.4 sections J.3.2.1.1 and J.3.3.1.1
REQUEST_STORAGE_COMMITMENT = 1
ALL_HELD = 1
SOME_NOT_HELD = 2

#: Stands for a Failure Reason that the peer did not give (PS3.3 section C.14): processing failure.
NO_REASON_GIVEN = 0x0110

_LONGEST_UID = 64
_OF_UIDS = frozenset("0123456789.")


@dataclass(frozen=True)
class Reference:
    """An item of Referenced SOP Sequence (0008,1199)."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Report:
    """Event Information: what is held, and what is not with its Failure Reason (0008,1197)."""

    transaction_uid: str
    held: tuple[Reference, ...]
    failed: Mapping[Reference, int]

    @property
    def event_type_id(self) -> int:
        """1 when all is held, else 2."""
        return SOME_NOT_HELD if self.failed else ALL_HELD


def action_information(transaction_uid: str, references: Iterable[Reference]) -> Dataset:
    """Build Action Information (PS3.4 table J.3-1)."""
    data_set = Dataset()
    data_set.TransactionUID = transaction_uid
    data_set.ReferencedSOPSequence = DicomSequence([_item(reference) for reference in references])
    return data_set


def read_action(data_set: Dataset) -> tuple[str, list[Reference]]:
    """Read Action Information: the Transaction UID, and what is asked for, each once.

    Raises
    ------
    MalformedDataSet
        The Transaction UID is missing, or the sequence is missing or empty, or an item lacks a UID.
        An empty sequence is never taken to mean everything. Or one of them cannot be read.
    """
    with _reading():
        transaction_uid = _uid(data_set, "TransactionUID")
        references = list(dict.fromkeys(_references(data_set, "ReferencedSOPSequence")))
    if not references:
        raise MalformedDataSet("Referenced SOP Sequence (0008,1199) is missing or empty")
    return transaction_uid, references


def event_information(report: Report) -> Dataset:
    """Build Event Information (PS3.4 table J.3-2); a sequence without items is left out."""
    data_set = Dataset()
    data_set.TransactionUID = report.transaction_uid
    if report.held:
        data_set.ReferencedSOPSequence = DicomSequence([_item(reference) for reference in report.held])
    if report.failed:
        items = []
        for reference, reason in report.failed.items():
            item = _item(reference)
            item.FailureReason = reason
            items.append(item)
        data_set.FailedSOPSequence = DicomSequence(items)
    return data_set


def read_event(data_set: Dataset) -> Report:
    """Read Event Information; MalformedDataSet when a UID is missing or something cannot be read."""
    with _reading():
        failed = {}
        for item in _items(data_set, "FailedSOPSequence"):
            reason = item.get("FailureReason")
            failed[_reference(item)] = NO_REASON_GIVEN if reason is None else int(reason)
        held = tuple(_references(data_set, "ReferencedSOPSequence"))
        return Report(_uid(data_set, "TransactionUID"), held, failed)


def confirm_key(peer: str, study_instance_uid: str) -> str:
    """Key of the job that asks ``peer`` for the commitment of the results of a study."""
    return f"{peer}/{study_instance_uid}"


def receive_report(services: Services, request: Request) -> Response:
    """Write down an N-EVENT-REPORT-RQ, on whichever association it came, and word its response.

    Success once it is durable. 0115 for what this peer was never asked under that Transaction UID.
    """
    command = request.command
    refusal = wrong_instance(command.AffectedSOPClassUID, command.AffectedSOPInstanceUID)
    if refusal is not None:
        return refusal
    if command.EventTypeID not in (ALL_HELD, SOME_NOT_HELD):
        return Response(NO_SUCH_EVENT_TYPE, "the event type is neither 1 nor 2")
    try:
        report = read_event(request.identifier())
    except MalformedDataSet as error:
        return Response(INVALID_ARGUMENT_VALUE, str(error))
    association = request.association
    peer = association.called_ae_title if association.is_requestor else association.calling_ae_title
    if not _record(services, peer, report):
        return Response(INVALID_ARGUMENT_VALUE, "this was not asked for under this Transaction UID")
    return Response(SUCCESS)


def wrong_instance(sop_class_uid: str, sop_instance_uid: str) -> Response | None:
    """Refuse what is not the well-known SOP Instance of storage commitment (PS3.4 section J.3.5)."""
    if sop_class_uid != STORAGE_COMMITMENT_PUSH_MODEL:
        return Response(NO_SUCH_SOP_CLASS, "only the Storage Commitment Push Model is offered")
    if sop_instance_uid != STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE:
        return Response(NO_SUCH_SOP_INSTANCE, "not the well-known SOP Instance of storage commitment")
    return None


def _record(services: Services, peer: str, report: Report) -> bool:
    def work(connection: sqlite3.Connection) -> bool:
        study_instance_uid = confirmations.answer(
            connection,
            peer=peer,
            transaction_uid=report.transaction_uid,
            held=[reference.sop_instance_uid for reference in report.held],
            failed={reference.sop_instance_uid: reason for reference, reason in report.failed.items()},
            at=services.clock.timestamp(),
        )
        if study_instance_uid is None:
            return False
        services.queue.hasten(connection, "confirm", confirm_key(peer, study_instance_uid))
        return True

    return services.database.write(work)


@contextmanager
def _reading() -> Iterator[None]:
    """Pydicom decodes an element when somebody asks for it."""
    try:
        yield
    except UNDECODABLE_IN_MEMORY as error:
        raise MalformedDataSet("it holds an element that cannot be read") from error


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _references(data_set: Dataset, keyword: str) -> list[Reference]:
    return [_reference(item) for item in _items(data_set, keyword)]


def _items(data_set: Dataset, keyword: str) -> Sequence[Dataset]:
    value = data_set.get(keyword)
    return value if isinstance(value, DicomSequence) else ()


def _reference(item: Dataset) -> Reference:
    return Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _uid(data_set: Dataset, keyword: str) -> str:
    value = data_set.get(keyword)
    if not isinstance(value, str) or not value:
        raise MalformedDataSet(f"{keyword} is missing or is no single UID")
    if len(value) > _LONGEST_UID or not set(value) <= _OF_UIDS:
        raise MalformedDataSet(f"{keyword} is no UID")
    return str(value)
