"""C-STORE (PS3.4 annex B, PS3.7 section 9.1.1): take one instance in."""

from __future__ import annotations

from collections.abc import Iterator

from node import alarms, status
from node.audit.message import Action
from node.errors import OutOfSpace
from node.index.index import Provenance
from node.services import Services
from node.wire.association import Request, Response

_SUCCESS = Response(status.SUCCESS)
#: What an outcome is called in the audit trail: made here, held already, changed here.
_ACTIONS: dict[str, Action] = {"stored": "C", "same": "R", "repaired": "U"}


def c_store(services: Services, request: Request) -> Iterator[Response]:
    """Store the data set that follows the command; answer Success only when it is durable and indexed.

    Raises what ``Ingest.receive`` raises, for the boundary to answer.
    """
    association, data_dir = request.association, services.config.node.data_dir
    sop_class_uid = str(request.command.get("AffectedSOPClassUID", ""))
    try:
        receipt = services.ingest.receive(
            request.fragments(),
            sop_class_uid=str(request.command.get("AffectedSOPClassUID", "")),
            sop_instance_uid=str(request.command.get("AffectedSOPInstanceUID", "")),
            transfer_syntax_uid=request.context.transfer_syntax_uid,
            provenance=Provenance(
                calling_ae_title=association.calling_ae_title,
                called_ae_title=association.called_ae_title,
                peer_address=association.peer_address,
                association=association.number,
                received_at=services.clock.timestamp(),
            ),
        )
    except OutOfSpace as error:
        alarms.raise_alarm(data_dir, alarms.DISK_FULL, str(error), services.clock.timestamp())
        raise
    services.audit.received(
        association,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=receipt.sop_instance_uid,
        study_instance_uid=receipt.study_instance_uid,
        action=_ACTIONS[receipt.outcome],
    )
    alarms.clear_alarm(data_dir, alarms.DISK_FULL)
    yield _SUCCESS
