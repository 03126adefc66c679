"""Every error has one status, and no handler raises."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.boundary import TABLES, guarded, status_of
from node import errors, status
from node.audit.trail import AuditTrail
from node.clock import Clock
from node.errors import AnodeError
from node.refusals import Refusals
from node.wire.association import Response

ALL_VERBS = ("store", "query", "retrieve", "commit")


def request(**changes: Any) -> Any:
    association = SimpleNamespace(
        number=3,
        calling_ae_title="SCANNER",
        called_ae_title="ANODE",
        peer_address="192.0.2.1",
        is_established=True,
        allow=frozenset(ALL_VERBS),
    )
    vars(association).update(changes)
    return SimpleNamespace(association=association)


SERVICES: Any = SimpleNamespace(refusals=Refusals(Clock()), audit=AuditTrail.off())


def raising(error: Exception, *before: Response) -> Any:
    def handler(services: Any, request: Any) -> Iterator[Response]:
        yield from before
        raise error

    return handler


@pytest.mark.parametrize(
    ("operation", "error", "expected"),
    [
        ("C-STORE", errors.OutOfSpace("full"), 0xA700),
        ("C-STORE", errors.StorageFailure("io"), 0xA700),
        ("C-STORE", errors.DatabaseFailure("locked"), 0xA700),
        ("C-STORE", errors.CommandMismatch("differs"), 0xA900),
        ("C-STORE", errors.MalformedDataSet("torn"), 0xC000),
        ("C-STORE", errors.InvalidUid("../x"), 0xC000),
        ("C-STORE", errors.ConflictingInstance("other"), 0xC001),
        ("C-STORE", errors.LimitExceeded("long"), 0xC002),
        ("C-STORE", errors.IntegrityFailure("damaged"), 0x0110),
        ("C-FIND", errors.MalformedDataSet("torn"), 0xC000),
        ("C-FIND", errors.ObjectError("no level"), 0xA900),
        ("C-FIND", errors.DatabaseFailure("locked"), 0xC000),
        ("C-FIND", errors.LimitExceeded("long"), 0xA700),
        ("C-MOVE", errors.UnknownPeer("who"), 0xA801),
        ("C-MOVE", errors.PeerUnreachable("down"), 0xA702),
        ("C-MOVE", errors.DatabaseFailure("locked"), 0xA701),
        ("C-GET", errors.ObjectError("no key"), 0xA900),
        ("N-ACTION", errors.MalformedDataSet("torn"), 0x0115),
        ("N-ACTION", errors.OutOfSpace("full"), 0x0213),
        ("N-EVENT-REPORT", errors.StorageFailure("io"), 0x0110),
    ],
)
@pytest.mark.checklist("N4")
def test_an_error_is_answered_with_the_status_of_its_service(
    operation: str, error: AnodeError, expected: int
) -> None:
    [response] = guarded(operation, raising(error))(SERVICES, request())
    assert response.status == expected
    assert response.comment == str(error)


@pytest.mark.checklist("N4")
def test_every_error_has_a_failure_status_for_every_operation() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, AnodeError)]
    assert len(kinds) > 20
    for operation in TABLES:
        for kind in kinds:
            code = status_of(operation, kind.__new__(kind))
            assert code != status.SUCCESS
            assert not status.is_warning(code)
            assert not status.is_pending(code)


@pytest.mark.parametrize("error", [ValueError("Doe^John"), ZeroDivisionError(), MemoryError()])
def test_an_unforeseen_error_is_a_processing_failure_logged_without_its_values(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        [response] = guarded("C-STORE", raising(error))(SERVICES, request())
    assert response.status == status.PROCESSING_FAILURE
    assert response.comment == f"unforeseen failure: {type(error).__name__}"
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "in handler" in record.frames
    assert "Doe" not in str(vars(record))


def test_what_a_peer_says_is_quoted_at_debug_alone(caplog: pytest.LogCaptureFixture) -> None:
    refused = errors.PeerRefused("PatientName Doe", status=0xC000)
    with caplog.at_level(logging.DEBUG):
        list(guarded("C-MOVE", raising(refused))(SERVICES, request()))
    assert [record.levelno for record in caplog.records if "Doe" in str(vars(record))] == [logging.DEBUG]


def test_a_refused_object_can_be_traced_without_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        list(guarded("C-STORE", raising(errors.InvalidUid("(0020,000D) is missing")))(SERVICES, request()))
    [record] = caplog.records
    assert "(0020,000D) is missing" in str(vars(record))


def test_responses_before_the_error_are_kept() -> None:
    pending = Response(status.PENDING)
    responses = list(guarded("C-FIND", raising(errors.NodeError("x"), pending))(SERVICES, request()))
    assert [response.status for response in responses] == [0xFF00, 0xC000]


def test_nothing_is_answered_once_the_association_has_ended() -> None:
    for error in (errors.AssociationAborted("gone"), RuntimeError("late")):
        assert list(guarded("C-GET", raising(error))(SERVICES, request(is_established=False))) == []


@pytest.mark.parametrize(
    ("operation", "verb"),
    [
        ("C-STORE", "store"),
        ("C-FIND", "query"),
        ("C-GET", "retrieve"),
        ("C-MOVE", "retrieve"),
        ("N-ACTION", "commit"),
    ],
)
def test_a_verb_that_a_peer_does_not_have_is_refused_before_the_handler_runs(
    operation: str, verb: str
) -> None:
    others = set(ALL_VERBS) - {verb}
    handler = guarded(operation, raising(AssertionError("it ran")))
    [response] = handler(SERVICES, request(allow=frozenset(others)))
    assert response.status == status.NOT_AUTHORISED
    assert response.comment == f"SCANNER is not allowed to {verb} here"


@pytest.mark.parametrize("operation", ["C-ECHO", "N-EVENT-REPORT"])
def test_verification_and_reports_need_no_verb(operation: str) -> None:
    def handler(services: Any, request: Any) -> Iterator[Response]:
        yield Response(status.SUCCESS)

    assert list(guarded(operation, handler)(SERVICES, request(allow=frozenset()))) == [Response(0)]
