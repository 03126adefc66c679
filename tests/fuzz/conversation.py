"""What both sides of the PDU target's associations do: handlers that answer, and scripts that ask."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Any

from pydicom.dataset import Dataset

from handlers.c_echo import c_echo
from node import commitment, status
from node.wire.association import Association, Handler, Operation, Request, Response
from node.wire.contexts import ProposedContext
from node.wire.requestor import RequestedAssociation
from node.wire.sop_classes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
CONTEXTS = (
    ProposedContext(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ProposedContext(CT_IMAGE_STORAGE, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),
    ProposedContext(STUDY_ROOT_FIND, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),
    ProposedContext(STUDY_ROOT_MOVE, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ProposedContext(STUDY_ROOT_GET, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ProposedContext(CT_IMAGE_STORAGE, (EXPLICIT_VR_LITTLE_ENDIAN,), scp_role=True),
    ProposedContext(STORAGE_COMMITMENT_PUSH_MODEL, (IMPLICIT_VR_LITTLE_ENDIAN,)),
)
# a data set in Explicit VR Little Endian, of several fragments where the peer takes short ones
STORED = b"".join(
    struct.pack("<HH2sH", group, element, vr, len(value)) + value
    for group, element, vr, value in (
        (0x0008, 0x0016, b"UI", CT_IMAGE_STORAGE.encode() + b"\0"),
        (0x0008, 0x0018, b"UI", b"1.2.3\0"),
        (0x0010, 0x4000, b"LT", b"made up " * 50),
        (0x0020, 0x000D, b"UI", b"1.2.3\0"),
        (0x0020, 0x000E, b"UI", b"1.2.3.4\0"),
    )
)


# --- what the acceptor's handlers do -------------------------------------------


def _store(services: Any, request: Request) -> Iterator[Response]:
    sop_instance_uid = request.command.AffectedSOPInstanceUID
    if services.script & 1:
        services.events.append(("refused", sop_instance_uid))
        next(request.fragments(), None)
        yield Response(status.STORE_CANNOT_UNDERSTAND)  # before the rest has come
        return
    received = bytearray()
    for fragment in itertools.chain.from_iterable(request.fragments()):
        received += fragment
    services.events.append(("stored", sop_instance_uid, bytes(received)))
    yield Response(status.SUCCESS)


def _find(services: Any, request: Request) -> Iterator[Response]:
    asked = request.identifier()
    services.events.append(("find", len(asked)))
    for _ in range(3):
        if request.is_cancelled():
            yield Response(status.CANCEL)
            return
        yield Response(status.PENDING, identifier=b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY ")
    yield Response(status.SUCCESS)


def _get(services: Any, request: Request) -> Iterator[Response]:
    request.identifier()
    association = request.association
    done = failed = 0
    for number in (1, 2):
        if request.is_cancelled():
            yield Response(status.CANCEL, remaining=3 - number, completed=done, failed=failed, warning=0)
            return
        context = association.context_for(CT_IMAGE_STORAGE)
        if context is None:
            failed += 1
            continue
        data_set: Any = io.BytesIO(STORED) if services.script & 2 else STORED
        answer = association.send_store(
            context, sop_class_uid=CT_IMAGE_STORAGE, sop_instance_uid=f"1.2.{number}", data_set=data_set
        )
        services.events.append(("sub-operation", answer))
        done += 1
        yield Response(status.PENDING, remaining=2 - number, completed=done, failed=failed, warning=0)
    yield Response(status.SUCCESS, completed=done, failed=failed, warning=0)


def _move(services: Any, request: Request) -> Iterator[Response]:
    asked = request.identifier()
    services.events.append(("move", request.command.MoveDestination, len(asked)))
    yield Response(status.PENDING, remaining=1, completed=0, failed=0, warning=0)
    yield Response(status.SUCCESS, remaining=0, completed=1, failed=0, warning=0)


def _action(services: Any, request: Request) -> Iterator[Response]:
    services.events.append(("action", commitment.read_action(request.identifier())))
    yield Response(status.SUCCESS)

    def report(association: Association) -> None:
        answer = association.event_report(
            sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            event_type_id=1,
        )
        services.events.append(("reported", answer))

    request.association.post(report)


def _event_report(services: Any, request: Request) -> Iterator[Response]:
    services.events.append(("event report", commitment.read_event(request.identifier())))
    yield Response(status.SUCCESS)


HANDLERS: dict[str, Handler] = {
    "C-ECHO": c_echo,
    "C-STORE": _store,
    "C-FIND": _find,
    "C-GET": _get,
    "C-MOVE": _move,
    "N-ACTION": _action,
    "N-EVENT-REPORT": _event_report,
}


# --- what the requestor does ------------------------------------------------------


def _echo(association: RequestedAssociation, events: list[Any]) -> None:
    events.append(association.echo())


def _send(data_set: Callable[[], Any]) -> Callable[[RequestedAssociation, list[Any]], None]:
    def send(association: RequestedAssociation, events: list[Any]) -> None:
        context = association.context_for(CT_IMAGE_STORAGE, (EXPLICIT_VR_LITTLE_ENDIAN,))
        if context is not None:
            events.append(
                association.send_store(
                    context, sop_class_uid=CT_IMAGE_STORAGE, sop_instance_uid="1.2.3", data_set=data_set()
                )
            )

    return send


def _asking() -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    asked.StudyInstanceUID = "1.2.3"
    return asked


_ASKED = _asking()


def _query(association: RequestedAssociation, events: list[Any]) -> None:
    for code, found in association.find(STUDY_ROOT_FIND, _ASKED):
        events.append((code, None if found is None else len(found)))


def _query_a_little(association: RequestedAssociation, events: list[Any]) -> None:
    answers = association.find(STUDY_ROOT_FIND, _ASKED)
    events.append(next(answers)[0])
    answers.close()  # cancels


def _have_moved(association: RequestedAssociation, events: list[Any]) -> None:
    events.extend(
        (code, answer.completed) for code, answer in association.move(STUDY_ROOT_MOVE, _ASKED, "ELSEWHERE")
    )


def _retrieve(association: RequestedAssociation, events: list[Any]) -> None:
    events.extend((code, answer.remaining) for code, answer in association.get(STUDY_ROOT_GET, _ASKED))


def _commit(association: RequestedAssociation, events: list[Any]) -> None:
    before = len(events)
    answer = association.action(
        sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        action_type_id=1,
        information=_ASKED,
    )
    # the report may have come before the answer
    events.append((association.serve(1.0, until=lambda: len(events) > before), answer))


_send_from_memory, _send_by_reading = _send(lambda: STORED), _send(lambda: io.BytesIO(STORED))
#: By the second byte of an input: what is asked of the peer, one after the other.
SCRIPTS = (
    (_echo,),
    (_send_from_memory, _send_by_reading),
    (_query,),
    (_query_a_little, _echo),
    (_have_moved,),
    (_retrieve,),
    (_commit,),
    (_echo, _send_from_memory, _query, _send_from_memory),
)


def requestor_operations(events: list[Any]) -> dict[str, Operation]:
    """What the peer may ask of us while we ask it."""

    def store(request: Request) -> Iterator[Response]:
        length = sum(map(len, itertools.chain.from_iterable(request.fragments())))
        events.append(("sub-operation", length))
        yield Response(status.SUCCESS)

    def event_report(request: Request) -> Iterator[Response]:
        # not guarded, so that what a handler raises is seen at any time
        events.append(("event report", commitment.read_event(request.identifier())))
        yield Response(status.SUCCESS)

    return {"C-STORE": store, "N-EVENT-REPORT": event_report}
