"""Storage Commitment Push Model, both sides (PS3.4 annex J).

As SCP: N-ACTION is checked and enqueued; a job re-reads what was asked for and reports. As SCU: the
N-EVENT-REPORT with which a peer confirms our results is written down.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from node import commitment
from node.errors import MalformedDataSet
from node.jobs import listing
from node.services import Services
from node.status import INVALID_ARGUMENT_VALUE, NO_SUCH_ACTION_TYPE, RESOURCE_LIMITATION, SUCCESS
from node.wire.association import Request, Response

#: So many requests may wait, or be set aside until they are forgotten: of one peer, and in all.
_MOST_OPEN_OF_A_PEER, _MOST_OPEN = 1000, 5000


def n_action(services: Services, request: Request) -> Iterator[Response]:
    """Answer an N-ACTION-RQ for storage commitment: Success once the job is durable.

    A Transaction UID that was asked before is looked at and reported anew. 0213 while too many requests
    wait, or were set aside because nobody could be told.
    """
    command = request.command
    refusal = commitment.wrong_instance(command.RequestedSOPClassUID, command.RequestedSOPInstanceUID)
    if refusal is None and command.ActionTypeID != commitment.REQUEST_STORAGE_COMMITMENT:
        refusal = Response(NO_SUCH_ACTION_TYPE, "the action type is not 1")
    if refusal is not None:
        yield refusal
        return
    try:
        transaction_uid, references = commitment.read_action(request.identifier())
    except MalformedDataSet as error:
        yield Response(INVALID_ARGUMENT_VALUE, str(error))
        return
    peer = request.association.calling_ae_title
    services.storage.check_free_space()

    def enqueue(connection: sqlite3.Connection) -> bool:
        by_peer = listing.open_by_lane(connection, "commit")
        if by_peer[peer] >= _MOST_OPEN_OF_A_PEER or by_peer.total() >= _MOST_OPEN:
            return False
        services.queue.enqueue(
            connection,
            "commit",
            key=f"{peer}/{transaction_uid}",
            payload={
                "transaction_uid": transaction_uid,
                "items": [[item.sop_class_uid, item.sop_instance_uid] for item in references],
                "peer": peer,
                "association": request.association.number,
            },
            lane=peer,
            again=True,
        )
        return True

    if services.database.write(enqueue):
        yield Response(SUCCESS)
    else:
        yield Response(RESOURCE_LIMITATION, "too many requests for storage commitment are open")


def n_event_report(services: Services, request: Request) -> Iterator[Response]:
    """Answer an N-EVENT-REPORT-RQ: Success once it is written down; 0115 for what was never asked."""
    yield commitment.receive_report(services, request)
