"""What the node asks of a settling process, and what it answers: lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from node.errors import (
    AnodeError,
    IntegrityFailure,
    OutOfSpace,
    StorageFailure,
    TransientFailure,
    UnexpectedFailure,
)
from node.storage.location import Location
from node.transcode.facts import MOST_FRAME_BYTES

#: Said by the process when it has encoded, proven and written an instance, or failed to. The answer follows
#: once the file is durable.
WORKED = b""
#: Failures that keep their name on the way; any other was not foreseen.
_FORESEEN = {
    error.__name__: error for error in (IntegrityFailure, OutOfSpace, StorageFailure, TransientFailure)
}


@dataclass(frozen=True)
class Order:
    """One instance to settle.

    Attributes
    ----------
    location : str
        Of the received data set.
    sop_class_uid, sop_instance_uid, series_instance_uid : str
        Of the instance.
    transfer_syntax_uid, data_set_sha256, provenance : str
        As received; the provenance in JSON.
    choices : tuple of str
        Names of ``codecs.CODECS``, see ``lossless.settle``.
    measure : bool
        Whether they are put in order by measurement.
    deflate_bytes : int
        A data set without pixels of at least this length is deflated; 0 is none.
    at : float
        When it is settled, seconds since the epoch.
    keep_reason : str
        Why its pixels must not be touched, whatever ``choices`` say; empty where they may be.
    frame_bytes : int
        The largest frame that is encoded.
    """

    location: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    data_set_sha256: str
    provenance: str
    choices: tuple[str, ...]
    at: float
    measure: bool = False
    deflate_bytes: int = 0
    keep_reason: str = ""
    frame_bytes: int = MOST_FRAME_BYTES

    @property
    def data_set_bytes(self) -> int:
        """Length of the received data set."""
        return Location.parse(self.location).length


@dataclass(frozen=True)
class Settled:
    """Where and how an instance is stored for good; as ``Index.settle`` takes it.

    ``choices`` are the codecs in the order in which they were tried.
    """

    location: Location
    transfer_syntax_uid: str
    kept_reason: str
    proof: dict[str, Any]
    choices: tuple[str, ...] = ()


def encode_orders(orders: Sequence[Order]) -> bytes:
    """Encode what ``decode_orders`` gives back."""
    return json.dumps([vars(order) for order in orders]).encode()


def decode_orders(message: bytes) -> list[Order]:
    """Decode what ``encode_orders`` made."""
    return [Order(**{**values, "choices": tuple(values["choices"])}) for values in json.loads(message)]


@dataclass(frozen=True)
class Answer:
    """What became of an order; ``frames`` tells where an error arose."""

    outcome: Settled | AnodeError
    frames: str = ""


def encode_answers(answers: Iterable[Answer]) -> bytes:
    """Encode what ``decode_answers`` gives back."""
    return json.dumps([_values(answer) for answer in answers]).encode()


def _values(answer: Answer) -> dict[str, Any]:
    outcome = answer.outcome
    if isinstance(outcome, AnodeError):
        return {"error": type(outcome).__name__, "message": str(outcome), "frames": answer.frames}
    return {**vars(outcome), "location": str(outcome.location)}


def decode_answers(message: bytes) -> list[Answer]:
    """Decode what ``encode_answers`` made."""
    return [_answer(values) for values in json.loads(message)]


def _answer(values: dict[str, Any]) -> Answer:
    if "error" in values:
        error = _FORESEEN.get(values["error"], UnexpectedFailure)
        return Answer(error(values["message"]), values["frames"])
    values["location"], values["choices"] = Location.parse(values["location"]), tuple(values["choices"])
    return Answer(Settled(**values))
