"""Asking a node as a workstation does, on our own upper layer: C-GET and C-FIND."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from node import status
from node.wire import scu
from node.wire.association import Request, Response

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"


def identifier(level: str, **keys: str | list[str]) -> Dataset:
    """An Identifier of the study root model."""
    data_set = Dataset()
    data_set.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(data_set, keyword, value)
    return data_set


def connect(
    port: int, contexts: Sequence[scu.ProposedContext], handlers: dict[str, scu.RequestHandler] | None = None
) -> scu.RequestedAssociation:
    """Associate with the node on ``port``."""
    return scu.connect(
        "127.0.0.1",
        port,
        calling_ae_title="WORKSTATION",
        called_ae_title="ANODE",
        contexts=contexts,
        timeout_seconds=60,
        max_pdu_bytes=131072,
        handlers=handlers,
    )


def find(port: int, level: str, **keys: str | list[str]) -> list[Dataset]:
    """Every match of a C-FIND at the study root."""
    context = scu.ProposedContext(STUDY_ROOT_FIND, ("1.2.840.10008.1.2.1",))
    with connect(port, [context]) as association:
        answers = list(association.find(STUDY_ROOT_FIND, identifier(level, **keys)))
    assert answers[-1][0] == status.SUCCESS
    return [data_set for code, data_set in answers[:-1] if status.is_pending(code) and data_set is not None]


def get_digests(
    port: int, kinds: dict[str, set[str]], level: str, **keys: str | list[str]
) -> dict[str, tuple[str, str]]:
    """C-GET: SOP Instance UID to (transfer syntax, SHA-256 of the data set as it came).

    ``kinds`` maps the SOP classes that are expected to the transfer syntaxes that are taken.
    """
    got: dict[str, tuple[str, str]] = {}

    def store(request: Request) -> Iterator[Response]:
        digest = hashlib.sha256()
        for fragment in itertools.chain.from_iterable(request.fragments()):
            digest.update(fragment)
        got[str(request.command.AffectedSOPInstanceUID)] = (
            request.context.transfer_syntax_uid,
            digest.hexdigest(),
        )
        yield Response(status.SUCCESS)

    contexts = [scu.ProposedContext(STUDY_ROOT_GET, ("1.2.840.10008.1.2.1",))]
    contexts += [
        scu.ProposedContext(sop_class_uid, (transfer_syntax_uid,), scp_role=True)
        for sop_class_uid, syntaxes in kinds.items()
        for transfer_syntax_uid in sorted(syntaxes)
    ]
    with connect(port, contexts, {"C-STORE": store}) as association:
        answers = list(association.get(STUDY_ROOT_GET, identifier(level, **keys)))
    assert answers[-1][0] == status.SUCCESS, (hex(answers[-1][0]), answers[-1][1].comment)
    return got
