"""C-MOVE SCP: sends what was asked for to a third Application Entity (PS3.4 section C.4.2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from handlers.sub_operations import SubOperations, instances_asked_for
from node.errors import PeerError
from node.sending.shipping import MOST_FAILURES_IN_A_ROW, shipments
from node.services import Services
from node.wire.association import Request, Response


def c_move(services: Services, request: Request) -> Iterator[Response]:
    """Answer a C-MOVE-RQ: a pending response after each sub-operation, then the final one.

    The destination has to be a configured peer with host and port (A801). The sub-operations go over
    one association to it, or over another one where an instance broke the first, and carry the AE title
    and Message ID of the requestor.
    """
    destination = str(request.command.MoveDestination).strip()
    peer = services.peers.destination(destination)
    instances = instances_asked_for(services, request)
    sub_operations = SubOperations(services, request, len(instances))
    for shipment in shipments(services, instances, peer):
        # What the sub-operations have not counted yet when the association is lost.
        left = deque(shipment.instances)
        failures = 0
        while left and not sub_operations.is_cancelled:
            before = len(left)
            try:
                with services.peers.connect(peer, shipment.contexts) as association:
                    yield from sub_operations.perform(
                        association,
                        left,
                        move_originator_ae_title=request.association.calling_ae_title,
                        move_originator_message_id=request.message_id,
                    )
            except PeerError as error:
                if not request.association.is_established:
                    # It is the requestor that is gone.
                    raise
                tried = before - len(left)
                # One instance may be what broke the association: the others are tried over a new one.
                failures = failures + 1 if tried == 1 else 1
                if left and (not tried or failures >= MOST_FAILURES_IN_A_ROW):
                    sub_operations.fail(left, str(error))
                    break
    yield sub_operations.final()
