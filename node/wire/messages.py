"""What handlers get and give: requests, responses, answers (PS3.7 sections 9 and 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from node.errors import LimitExceeded, MalformedDataSet
from node.refusals import Refusal
from node.wire import data_sets
from node.wire.dimse import Command
from node.wire.stream import Message, MessageStream

if TYPE_CHECKING:
    from node.services import Services
    from node.wire.association import Association


@dataclass(frozen=True)
class Answer:
    """The peer's final word on a request of ours (PS3.7 annex C)."""

    status: int
    comment: str = ""

    @classmethod
    def of(cls, command: Command) -> Answer:
        """Take it from the command set of a response."""
        return cls(int(command.Status), str(command.get("ErrorComment") or ""))


@dataclass(frozen=True)
class Response:
    """A response to a request: of a handler here, or of a peer to a C-MOVE or C-GET of ours.

    Attributes
    ----------
    status, comment
        The DIMSE status and the Error Comment (cut to 64 characters on sending).
    identifier
        Data set of the response: a Dataset, or one encoded in the context's transfer syntax.
    remaining, completed, failed, warning
        Numbers of sub-operations.
    elements
        More elements of the command set by keyword, such as ``ErrorID``.
    """

    status: int
    comment: str = ""
    identifier: Dataset | bytes | None = None
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    elements: Mapping[str, Any] = field(default_factory=dict)


class Request:
    """A request of the peer, as a handler sees it.

    Attributes
    ----------
    association
        The association it came on, with the AE titles and the peer's address.
    context
        Its presentation context, with the transfer syntax of its data set.
    command
        The command set: values by keyword, as attributes or by ``get``.
    operation
        ``"C-STORE"``, ``"C-FIND"``, ...
    message_id
        The Message ID (0000,0110).
    encoded_identifier
        What ``identifier`` has read, as it came.
    """

    def __init__(
        self,
        association: Association,
        message: Message,
        operation: str,
        *,
        stream: MessageStream,
        identifier_bytes: int,
    ) -> None:
        self.association = association
        self.context = message.context
        self.command = message.command
        self.operation = operation
        self.message_id = int(message.command["MessageID"])
        self.encoded_identifier = b""
        self._stream = stream
        self._identifier_bytes = identifier_bytes

    def fragments(self) -> Iterator[list[memoryview]]:
        """Yield the data set as it comes in; the views are valid until the next ones are asked for."""
        return self._stream.fragments()

    def identifier(self) -> Dataset:
        """Read and decode the whole data set, for requests whose data set is small.

        Raises
        ------
        MalformedDataSet
            There is none, or it cannot be parsed.
        LimitExceeded
            It is longer than ``limits.identifier_bytes``. What was not read is drained later.
        """
        if not self.command.has_data_set:
            raise MalformedDataSet(f"the {self.operation} request has no data set")
        limit_bytes = self._identifier_bytes
        encoded = bytearray()
        for fragment in chain.from_iterable(self.fragments()):
            encoded += fragment
            if len(encoded) > limit_bytes:
                raise LimitExceeded(f"the identifier is longer than {limit_bytes} bytes")
        self.encoded_identifier = bytes(encoded)
        return data_sets.decode(
            self.encoded_identifier, self.context.transfer_syntax_uid, limit_bytes=limit_bytes
        )

    def is_cancelled(self) -> bool:
        """Whether the peer has sent a C-CANCEL-RQ for this request; looks without waiting."""
        return self.association.has_cancelled(self.message_id)


# an Operation has its services already; a Handler is given them
Operation = Callable[[Request], Iterator[Response]]
Handler = Callable[["Services", Request], Iterator[Response]]


def refused_operation(request: Request, reason: str, action: str, detail: str = "") -> Refusal:
    """What is noted of a request that is refused."""
    association = request.association
    return Refusal(
        "operation",
        reason,
        action,
        detail,
        calling_ae_title=association.calling_ae_title,
        called_ae_title=association.called_ae_title,
        peer_address=association.peer_address,
        association=association.number,
    )
