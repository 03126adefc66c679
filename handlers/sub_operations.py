"""The C-STORE sub-operations of C-MOVE and C-GET, and what the responses say of them.

PS3.4 sections C.4.2 and C.4.3; the numbers are those of PS3.7 sections 9.1.3 and 9.1.4.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterator

from pydicom.dataset import Dataset

from node.errors import NoAcceptedContext, NodeError, ObjectError, PeerError
from node.index.index import StoredInstance
from node.query import query
from node.sending.shipping import Shipping
from node.services import Services
from node.status import (
    CANCEL,
    DUPLICATE_SOP_INSTANCE,
    PENDING,
    RETRIEVE_CANNOT_PERFORM,
    SUB_OPERATIONS_WARNING,
    SUCCESS,
    is_store_warning,
)
from node.wire.association import Association, Request, Response
from node.wire.sop_classes import STUDY_ROOT_GET, STUDY_ROOT_MOVE

logger = logging.getLogger(__name__)


def instances_asked_for(services: Services, request: Request) -> list[StoredInstance]:
    """Find what the Identifier of a C-MOVE-RQ or C-GET-RQ names; raises as ``node.query.query`` does."""
    identifier = request.identifier()
    is_study_root = request.context.abstract_syntax_uid in (STUDY_ROOT_MOVE, STUDY_ROOT_GET)
    with services.database.read() as connection:
        return query.instances_to_retrieve(connection, identifier, "study" if is_study_root else "patient")


class SubOperations:
    """Counts the sub-operations of one request and words its responses.

    Parameters
    ----------
    total
        how many instances were asked for
    """

    def __init__(self, services: Services, request: Request, total: int) -> None:
        self._services = services
        self._request = request
        self._remaining = total
        self._completed = 0
        self._warning = 0
        self._failed: list[str] = []
        self._last_failure = ""
        self.is_cancelled = False

    def perform(
        self,
        association: Association,
        left: deque[StoredInstance],
        *,
        move_originator_ae_title: str | None = None,
        move_originator_message_id: int | None = None,
    ) -> Iterator[Response]:
        """Send the instances of ``left`` one by one, and yield a pending response after each but the last.

        Each is taken from ``left`` when its turn has come. Stops where the requestor cancels. A
        sub-operation that fails is counted, and the others go on; a PeerError of a lost association is
        raised, with the present instance counted as failed.
        """
        with Shipping(
            self._services,
            association,
            tuple(left),
            priority=int(self._request.command.get("Priority") or 0),
            move_originator_ae_title=move_originator_ae_title,
            move_originator_message_id=move_originator_message_id,
            requestor=self._request.association,
        ) as shipping:
            while left:
                if self._request.is_cancelled():
                    self.is_cancelled = True
                    return
                stored = left.popleft()
                try:
                    answer = shipping.send_next()
                except PeerError as error:
                    self.fail([stored], str(error))
                    if not isinstance(error, NoAcceptedContext):
                        raise
                except (ObjectError, NodeError, OSError) as error:
                    self.fail([stored], str(error))
                else:
                    self._count(stored, answer.status, answer.comment)
                if self._remaining:
                    yield self._response(PENDING, remaining=self._remaining)

    def _count(self, stored: StoredInstance, status: int, comment: str) -> None:
        if status == SUCCESS:
            self._remaining -= 1
            self._completed += 1
        elif is_store_warning(status) or status == DUPLICATE_SOP_INSTANCE:
            # 0111: the destination holds the instance, which is what was asked for.
            self._remaining -= 1
            self._warning += 1
        else:
            self.fail([stored], f"status {status:04X} {comment}".rstrip(), shown=f"status {status:04X}")

    def fail(self, instances: Collection[StoredInstance], why: str, *, shown: str = "") -> None:
        """Count sub-operations that failed, or could not even be tried.

        ``shown`` is what the log says where ``why`` has words of the peer, which may hold anything.
        """
        self._remaining -= len(instances)
        self._failed.extend(stored.sop_instance_uid for stored in instances)
        self._last_failure = why
        logger.warning(
            "sub-operations failed",
            extra={
                "association": self._request.association.number,
                "instances": len(instances),
                "reason": shown or why,
            },
        )

    def final(self) -> Response:
        """Word the last response: done, done with failures, none done, or cancelled."""
        if self.is_cancelled:
            return self._response(CANCEL, remaining=self._remaining)
        if not self._failed and not self._warning:
            return self._response(SUCCESS)
        if self._completed or self._warning:
            return self._response(SUB_OPERATIONS_WARNING)
        return self._response(RETRIEVE_CANNOT_PERFORM)

    def _response(self, status: int, *, remaining: int | None = None) -> Response:
        identifier = None
        # PS3.4 sections C.4.2.1.4.2 and C.4.3.1.3.2: only with failures, never with pending or success.
        if self._failed and status != PENDING:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = self._failed
        return Response(
            status,
            comment="" if status in (PENDING, SUCCESS, CANCEL) else self._last_failure,
            identifier=identifier,
            remaining=remaining,
            completed=self._completed,
            failed=len(self._failed),
            warning=self._warning,
        )
