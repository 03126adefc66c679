"""Takes in what is imported: the same way, with the same checks, as what a peer sends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from node.errors import ConflictingInstance, ObjectError
from node.importing.sources import Source
from node.index import holding
from node.index.index import Provenance
from node.services import Services

#: Stands where the AE title of a sender does.
IMPORT = "IMPORT"
# Kept with each instance, and a record of the log has little room.
_LONGEST_ORIGIN = 600
# a character beyond the Basic Multilingual Plane, in JSON within JSON
_ESCAPED_BYTES = 14


@dataclass(frozen=True)
class Offer:
    """What is known of an instance before its first byte.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
        Of its data set.
    data_set_sha256 : str
        In hex.
    origin : str
        The file that it comes from.
    is_analyzed : bool
        Whether routes and analyses follow, as if a peer had sent it.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_sha256: str
    origin: str
    is_analyzed: bool

    @classmethod
    def of(cls, source: Source, *, is_analyzed: bool) -> Offer:
        """Make it of a source, which may be read for its digest; raises as ``Source.sha256``."""
        return cls(
            source.sop_class_uid,
            source.sop_instance_uid,
            source.transfer_syntax_uid,
            source.sha256,
            source.where,
            is_analyzed,
        )


Kind = Literal["stored", "held", "same", "repaired", "conflict", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What became of an instance, and why.

    ``held``: it was not even read, as the same data set is held. ``same``: it was compared.
    """

    kind: Kind
    reason: str = ""


class Door(Protocol):
    """Where instances are taken in: by the node that runs, or in its place."""

    def take(self, source: Source, *, is_analyzed: bool) -> Outcome:
        """Take in one instance, unless it is held.

        Raises
        ------
        MalformedDataSet, IntegrityFailure
            As ``Source.chunks``: the source is at fault.
        NodeError
            The node is. Nothing more can be taken in for now.
        """


class Intake:
    """Takes instances in, in the process that has the data directory."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def holds(self, offer: Offer) -> bool:
        """Whether that very data set is held, so that it need not be read."""
        with self._services.database.look() as connection:
            return holding.holds(
                connection,
                offer.sop_instance_uid,
                transfer_syntax_uid=offer.transfer_syntax_uid,
                data_set_sha256=offer.data_set_sha256,
            )

    def receive(self, offer: Offer, chunks: Iterable[bytes]) -> Outcome:
        """Take in an instance; when this returns, it is durable, or refused.

        What ``chunks`` raises goes through, and nothing is left behind.

        Raises
        ------
        NodeError
            The node cannot keep it.
        """
        origin = _shortened(offer.origin)
        provenance = Provenance(
            calling_ae_title=IMPORT,
            called_ae_title=self._services.config.node.ae_title,
            peer_address="",
            association=0,
            received_at=self._services.clock.timestamp(),
            imported_from=origin,
            starts_nothing=not offer.is_analyzed,
        )
        try:
            receipt = self._services.ingest.receive(
                ([chunk] for chunk in chunks),
                sop_class_uid=offer.sop_class_uid,
                sop_instance_uid=offer.sop_instance_uid,
                transfer_syntax_uid=offer.transfer_syntax_uid,
                provenance=provenance,
            )
        except ConflictingInstance as error:
            return Outcome("conflict", f"{error}; it is kept in quarantine")
        except ObjectError as error:
            return Outcome("refused", str(error))
        return Outcome(receipt.outcome)


class Inside:
    """The door of a stopped node, whose data directory this process has."""

    def __init__(self, services: Services) -> None:
        self._intake = Intake(services)

    def take(self, source: Source, *, is_analyzed: bool) -> Outcome:
        """As ``Door``."""
        offer = Offer.of(source, is_analyzed=is_analyzed)
        if self._intake.holds(offer):
            return Outcome("held")
        return self._intake.receive(offer, source.chunks())


def _shortened(origin: str) -> str:
    """Leave out the beginning of a place that is too long; what is not ASCII takes many bytes of a record."""
    left = _LONGEST_ORIGIN
    for at in range(len(origin) - 1, -1, -1):
        left -= 1 if origin[at].isascii() and origin[at].isprintable() else _ESCAPED_BYTES
        if left < 0:
            return f"…{origin[at + 1 :]}"
    return origin
