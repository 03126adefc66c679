"""The one place where an exception becomes a DIMSE status (PS3.7 annex C, PS3.4 annexes B, C and J).

Handlers raise what ``node/errors.py`` names; nothing leaves ``guarded`` but responses.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from node import errors, status
from node.config.settings import Verb
from node.errors import AnodeError
from node.wire.association import Handler, Request, Response
from node.wire.dimse import error_comment
from node.wire.messages import refused_operation

if TYPE_CHECKING:
    from node.services import Services

logger = logging.getLogger(__name__)

StatusTable = Mapping[type[AnodeError], int]

# The class nearest to the error's own decides; what no line names is a processing failure.
STORE: StatusTable = {
    errors.OutOfSpace: status.STORE_OUT_OF_RESOURCES,
    errors.StorageFailure: status.STORE_OUT_OF_RESOURCES,
    errors.DatabaseFailure: status.STORE_OUT_OF_RESOURCES,
    errors.ArchiveUnavailable: status.STORE_OUT_OF_RESOURCES,
    errors.CommandMismatch: status.STORE_DATA_SET_MISMATCH,
    errors.ConflictingInstance: status.STORE_CONFLICTING_INSTANCE,
    errors.LimitExceeded: status.STORE_LIMIT_EXCEEDED,
    errors.ObjectError: status.STORE_CANNOT_UNDERSTAND,
}
FIND: StatusTable = {
    errors.OutOfSpace: status.QUERY_OUT_OF_RESOURCES,
    errors.LimitExceeded: status.QUERY_OUT_OF_RESOURCES,
    errors.CommandMismatch: status.IDENTIFIER_MISMATCH,
    errors.MalformedDataSet: status.UNABLE_TO_PROCESS,
    errors.ObjectError: status.IDENTIFIER_MISMATCH,
    errors.NodeError: status.UNABLE_TO_PROCESS,
}
GET: StatusTable = {
    errors.DatabaseFailure: status.RETRIEVE_CANNOT_COUNT,
    errors.PeerError: status.RETRIEVE_CANNOT_PERFORM,
    errors.CommandMismatch: status.IDENTIFIER_MISMATCH,
    errors.MalformedDataSet: status.UNABLE_TO_PROCESS,
    errors.LimitExceeded: status.UNABLE_TO_PROCESS,
    errors.ObjectError: status.IDENTIFIER_MISMATCH,
    errors.NodeError: status.RETRIEVE_CANNOT_PERFORM,
}
MOVE: StatusTable = {**GET, errors.UnknownPeer: status.MOVE_DESTINATION_UNKNOWN}
NORMALISED: StatusTable = {
    errors.OutOfSpace: status.RESOURCE_LIMITATION,
    errors.DatabaseFailure: status.RESOURCE_LIMITATION,
    errors.LimitExceeded: status.RESOURCE_LIMITATION,
    errors.CommandMismatch: status.NO_SUCH_SOP_INSTANCE,
    errors.ObjectError: status.INVALID_ARGUMENT_VALUE,
}
TABLES: Mapping[str, StatusTable] = {
    "C-ECHO": {},
    "C-STORE": STORE,
    "C-FIND": FIND,
    "C-GET": GET,
    "C-MOVE": MOVE,
    "N-ACTION": NORMALISED,
    "N-EVENT-REPORT": NORMALISED,
}
# what a peer must be allowed for each operation; the others are open to whoever has an association
VERBS: Mapping[str, Verb] = {
    "C-STORE": "store",
    "C-FIND": "query",
    "C-GET": "retrieve",
    "C-MOVE": "retrieve",
    "N-ACTION": "commit",
}


def guarded(operation: str, handler: Handler) -> Handler:
    """Wrap ``handler`` so that it is only run for peers that may use it, and never raises.

    An error becomes the final response with its status and an Error Comment. When the association
    itself has ended there is nobody to answer, so nothing more is yielded.
    """
    verb = VERBS.get(operation)

    def answer(services: Services, request: Request) -> Iterator[Response]:
        association = request.association
        if verb is not None and verb not in association.allow:
            action = f'add "{verb}" to allow of its [[peers]] table'
            services.refusals.refused(refused_operation(request, f"not allowed to {verb}", action, operation))
            yield Response(
                status.NOT_AUTHORISED, f"{association.calling_ae_title} is not allowed to {verb} here"
            )
            return
        failure = ""
        try:
            yield from handler(services, request)
        except errors.UnknownPeer as error:  # the destination of a C-MOVE
            why = str(error)
            reason = f"{operation} to where nothing is sent"
            services.refusals.refused(refused_operation(request, reason, error.action, why))
            yield Response(status_of(operation, error), error_comment(why))
        except AnodeError as error:
            failure = error.name
            if operation == "C-STORE":
                services.audit.not_received(request, failure, is_ours=isinstance(error, errors.NodeError))
            if association.is_established:
                yield _known(operation, request, error)
        except Exception as error:  # the boundary: a fault of ours must not end the association
            failure = "unexpected-failure"
            if operation == "C-STORE":
                services.audit.not_received(request, failure, is_ours=True)
            if association.is_established:
                yield _unknown(operation, request, error)
        finally:
            if operation == "C-FIND":
                services.audit.queried(request, failure)

    return answer


def status_of(operation: str, error: AnodeError) -> int:
    """DIMSE status that ``operation`` answers ``error`` with."""
    table = TABLES[operation]
    return next((table[kind] for kind in type(error).__mro__ if kind in table), status.PROCESSING_FAILURE)


def _known(operation: str, request: Request, error: AnodeError) -> Response:
    code = status_of(operation, error)
    is_ours = isinstance(error, errors.NodeError)
    logger.log(
        logging.ERROR if is_ours else logging.WARNING,
        "request failed",
        extra={
            "association": request.association.number,
            "calling_ae_title": request.association.calling_ae_title,
            "operation": operation,
            "status": f"{code:04X}",
            "error": error.name,
            "peer_address": request.association.peer_address,
            # ours, and those that say what is wrong with an object, name tags and never values;
            # a peer's words may hold anything, and are for DEBUG alone
            **({"reason": str(error)} if is_ours or isinstance(error, errors.ObjectError) else {}),
        },
    )
    logger.debug("request failed: detail", extra={"error": error.name, "reason": str(error)})
    return Response(code, error_comment(str(error) or error.name))


def _unknown(operation: str, request: Request, error: Exception) -> Response:
    # the message of an unforeseen error may hold values of the data set: frames alone are logged
    logger.error(
        "handler failed",
        extra={
            "association": request.association.number,
            "operation": operation,
            "error": type(error).__name__,
            "frames": "".join(traceback.format_tb(error.__traceback__)),
        },
    )
    return Response(status.PROCESSING_FAILURE, f"unforeseen failure: {type(error).__name__}")
