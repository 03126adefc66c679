"""Bytes of a peer, to a real association of either side: parser, state machine, DIMSE, performer.

An input is two bytes that choose, then everything that the peer sends. Nothing is a socket, a thread
or a clock, so an input has one outcome. Whatever comes, the node raises nothing but what
``node/errors.py`` names, ends in Sta1, sends valid PDUs alone, and does not wait for ever; and how
the network has cut the bytes makes no difference.
"""

from __future__ import annotations

import logging
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from handlers.association import admit
from handlers.boundary import guarded
from node.audit.trail import AuditTrail
from node.config.settings import Config, LimitsConfig
from node.errors import AnodeError, PeerError
from node.refusals import Refusal
from node.wire import acceptor, negotiation, requestor
from node.wire.association import Handler
from node.wire.contexts import Admission, AssociationRequest
from node.wire.peers import Peers
from node.wire.requestor import RequestedAssociation, request_association
from node.wire.server import Bindings, Server
from node.wire.states import State
from node.wire.upper_layer import UpperLayer
from tests.fuzz import sent_pdus
from tests.fuzz.conversation import CONTEXTS, HANDLERS, SCRIPTS, requestor_operations
from tests.fuzz.memory_connection import End, MemoryConnection, Time, Turns

LIMITS = LimitsConfig(max_pdu_bytes=16384, instance_bytes=1 << 15, identifier_bytes=1 << 12)
# byte by byte for as long as a header, not through all that is long: that would be half of the time
PIECES: tuple[tuple[int, ...], ...] = ((), (*(1,) * 40, 4000), (6, 1, 5, 64, 2000), (4096, 3))
CALLING, CALLED = "ANODE", "PEER"
# to run an input once more for each costs as much as it tells
_ONE_COMPARED_OF = 16
_PATIENCE_SECONDS = 10.0
_MOST_SENT_BYTES = 1 << 16
_MOST_SENT_PER_BYTE = 64


# who asks for the time
_TIMED: Any = [
    import_module(f"node.wire.{name}")
    for name in ("acceptor", "association", "connection", "requestor", "upper_layer")
]


_GUARDED: dict[str, Handler] = {name: guarded(name, handler) for name, handler in HANDLERS.items()}


class Fault(AssertionError):
    """The node did what it must never do."""


@dataclass
class Outcome:
    """Everything of one run that anybody can see."""

    events: list[Any] = field(default_factory=list)
    sent: bytes = b""
    kinds: list[int] = field(default_factory=list)
    raised: str = ""


# --- choices ------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """What the first two bytes of an input say."""

    is_requestor: bool
    end: End
    pieces: tuple[int, ...]
    turns: Turns
    script: int

    @classmethod
    def of(cls, first: int, second: int) -> Choices:
        return cls(
            bool(first & 1),
            End((first >> 1 & 3) % 3),
            PIECES[first >> 3 & 3],
            Turns((first >> 6) % 3),
            second,
        )


def encode_choices(
    *, is_requestor: bool, end: End = End.CLOSES, turns: Turns = Turns.PATIENT, script: int = 0
) -> bytes:
    """The first two bytes of an input."""
    return bytes([int(is_requestor) | end.value << 1 | turns.value << 6, script])


class _Complaints(logging.Handler):
    """Keeps what is logged as our own fault; the rest is passed over."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("node.", "handlers.")):
            self.records.append(record)


# --- the target -------------------------------------------------------------------


class _Remembering:
    """``negotiation`` with a memory for what was in the corpus.

    To decode an association request or acceptance takes many times longer than all the rest of an input.
    What it makes of one is a function of the bytes alone. Nothing is remembered later than at the
    start, so that what an input does depends on no other.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Any] = {}
        self._is_learning = False
        self._encoded_request = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(negotiation, name)

    def learn(self, inputs: Iterable[bytes], run: Callable[[bytes], Any]) -> None:
        self._is_learning = True
        for data in inputs:
            run(data)
        self._is_learning = False

    def _remembered(self, name: str, encoded: bytes, *arguments: Any, **more: Any) -> Any:
        known = self._known.get((name, encoded))
        if known is None:
            known = getattr(negotiation, name)(encoded, *arguments, **more)
            if self._is_learning:
                self._known[name, encoded] = known
        return known

    def decode_request(self, encoded: bytes, peer_address: str) -> AssociationRequest:
        self._encoded_request = encoded
        return self._remembered("decode_request", encoded, peer_address)

    def admit(self, services: Any, request: AssociationRequest) -> Admission:
        key = ("admit", self._encoded_request)
        known = self._known.get(key)
        if known is None:
            before = len(services.events)
            admission = admit(services, request)
            known = admission, services.events[before:]
            if self._is_learning:
                self._known[key] = known
        else:
            services.events.extend(known[1])
        return known[0]

    def encode_acceptance(self, encoded_request: bytes, admission: Admission, *, max_pdu_bytes: int) -> bytes:
        return self._remembered("encode_acceptance", encoded_request, admission, max_pdu_bytes=max_pdu_bytes)

    def decode_acceptance(self, encoded: bytes, contexts: Any) -> negotiation.Acceptance:
        return self._remembered("decode_acceptance", encoded, contexts)


class PduTarget:
    """Runs inputs, between ``__enter__`` and ``__exit__``; for one thread."""

    name = "pdu"

    def __init__(self) -> None:
        config = Config(limits=LIMITS)
        self._services: Any = SimpleNamespace(
            config=config,
            peers=Peers(config),
            refusals=SimpleNamespace(refused=self._refused),
            audit=AuditTrail.off(),
        )
        bindings = Bindings(admit=self._admit, operations=_GUARDED)
        # what negotiates is the server's, which is never started
        self._negotiator = Server(self._services, bindings)._negotiator
        self._complaints = _Complaints()
        self._warnings = warnings.catch_warnings()
        self._time = Time()
        self._negotiation = _Remembering()
        self._our_request = negotiation.encode_request(
            CALLING, CALLED, CONTEXTS, max_pdu_bytes=LIMITS.max_pdu_bytes
        )
        self._max_pdu_bytes = 0

    def __enter__(self) -> PduTarget:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")  # pydicom's; the node logs them, at DEBUG
        root = logging.getLogger()
        self._logging = root.handlers, root.level
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # as ``node/logs.py`` has it
        root.handlers = [self._complaints]
        root.setLevel(logging.ERROR)  # loggers remember what is enabled, and are told only so
        acceptor.negotiation = requestor.negotiation = self._negotiation
        for module in _TIMED:
            module.time = self._time
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.handlers, level = self._logging
        root.setLevel(level)
        self._warnings.__exit__(None, None, None)
        acceptor.negotiation = requestor.negotiation = negotiation
        for module in _TIMED:
            module.time = time

    def know(self, inputs: Iterable[bytes]) -> None:
        """Run the inputs of the corpus, and be faster with what begins as they do."""
        self._negotiation.learn(inputs, self.run)

    def run(self, data: bytes) -> Outcome:
        """Run one input; raises Fault, or whatever else the node should not have raised."""
        if len(data) < 2:
            return Outcome()
        choices = Choices.of(data[0], data[1])
        outcome = self._checked(data[2:], choices, choices.pieces)
        number = zlib.crc32(data)
        # how much of what is sent a reset destroys is a matter of the pieces
        if number % _ONE_COMPARED_OF == 0 and choices.end is not End.RESETS:
            self._compare(outcome, data, choices, PIECES[number // _ONE_COMPARED_OF % len(PIECES)])
        return outcome

    def run_thoroughly(self, data: bytes) -> Outcome:
        """Run one input, and again with its bytes cut in every other way."""
        outcome = self.run(data)
        if len(data) >= 2:
            choices = Choices.of(data[0], data[1])
            if choices.end is not End.RESETS:
                for pieces in PIECES:
                    self._compare(outcome, data, choices, pieces)
        return outcome

    def _compare(self, outcome: Outcome, data: bytes, choices: Choices, pieces: tuple[int, ...]) -> None:
        other = self._checked(data[2:], choices, pieces)
        if other != outcome:
            raise Fault(f"cut into {pieces or 'one'}: {other} instead of {outcome}")

    def _checked(self, incoming: bytes, choices: Choices, pieces: tuple[int, ...]) -> Outcome:
        self._complaints.records.clear()
        self._max_pdu_bytes = 0
        outcome = Outcome()
        connection = MemoryConnection(
            incoming, time=self._time, end=choices.end, turns=choices.turns, piece_bytes=pieces
        )
        upper_layer = UpperLayer(
            connection, is_requestor=choices.is_requestor, artim_seconds=_PATIENCE_SECONDS
        )
        (self._request if choices.is_requestor else self._accept)(outcome, upper_layer, choices)
        connection.close()
        outcome.sent = connection.sent
        if self._complaints.records:
            record = self._complaints.records[0]
            raise Fault(f"{record.getMessage()}: {record.__dict__}")
        # what cannot be sent any more ends an association that is over in any case
        is_cut = choices.end is End.RESETS
        if upper_layer.state is not State.STA1 and not (is_cut and outcome.raised):
            raise Fault(f"ends in {upper_layer.state!r}")
        if len(outcome.sent) > _MOST_SENT_BYTES + _MOST_SENT_PER_BYTE * len(incoming):
            raise Fault(f"{len(outcome.sent)} bytes were sent for {len(incoming)}")
        outcome.kinds = sent_pdus.check(
            outcome.sent,
            is_requestor=choices.is_requestor,
            max_pdu_bytes=self._max_pdu_bytes,
            is_cut=is_cut,
        )
        return outcome

    def _accept(self, outcome: Outcome, upper_layer: UpperLayer, choices: Choices) -> None:
        self._services.events, self._services.script = outcome.events, choices.script
        try:  # as ``Server`` does
            association = self._negotiator.accept(upper_layer, "127.0.0.1")
            if association is not None:
                if choices.script & 4:
                    association.finish(self._time.monotonic() + choices.script / 32)
                association.serve()
            upper_layer.await_close()
        except PeerError as error:
            outcome.raised = error.name

    def _refused(self, refusal: Refusal, times: int = 1) -> None:
        self._services.events.append((refusal.kind, refusal.reason, times))

    def _admit(self, services: Any, request: AssociationRequest) -> Admission:
        self._max_pdu_bytes = request.max_pdu_bytes
        return self._negotiation.admit(services, request)

    def _request(self, outcome: Outcome, upper_layer: UpperLayer, choices: Choices) -> None:
        events = outcome.events
        try:  # as ``scu.connect`` does
            acceptance = request_association(
                upper_layer, self._our_request, CONTEXTS, where=CALLED, timeout_seconds=_PATIENCE_SECONDS
            )
            self._max_pdu_bytes = acceptance.max_pdu_bytes
            association = RequestedAssociation(
                upper_layer,
                is_requestor=True,
                calling_ae_title=CALLING,
                called_ae_title=CALLED,
                peer_address="127.0.0.1",
                contexts=acceptance.contexts,
                operations=requestor_operations(events),
                limits=LIMITS,
                peer_max_pdu_bytes=acceptance.max_pdu_bytes,
            )
            with association:
                for ask in SCRIPTS[choices.script % len(SCRIPTS)]:
                    ask(association, events)
        except AnodeError as error:
            outcome.raised = error.name
