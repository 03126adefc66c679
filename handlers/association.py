"""Who may have an association with this node, and what for."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from node.refusals import Refusal
from node.wire.contexts import (
    ACCEPTANCE,
    APPLICATION_CONTEXT,
    CALLED_AE_TITLE_UNKNOWN,
    NO_APPLICATION_CONTEXT,
    Admission,
    AssociationRequest,
    ContextResult,
    Rejection,
    negotiate,
)
from node.wire.sop_classes import name_of

if TYPE_CHECKING:
    from node.services import Services

logger = logging.getLogger(__name__)

# of the SOP classes that were refused for one reason, so many are named
_MOST_NAMED = 4


def admit(services: Services, request: AssociationRequest) -> Admission:
    """Decide on an association request (PS3.8 section 9.3.4 for the rejections).

    Rejected are: another application context, another called AE title (unless
    ``check_called_ae_title`` is false), and what ``Peers.caller`` rejects: a calling AE title that is not
    configured, or that is used from another address, without TLS or with another certificate than it may.
    What the peer is not allowed to store is refused context by context.
    """
    config = services.config
    if request.application_context_uid != APPLICATION_CONTEXT:
        return Admission(rejection=NO_APPLICATION_CONTEXT)
    if config.node.check_called_ae_title and request.called_ae_title != config.node.ae_title:
        return Admission(rejection=CALLED_AE_TITLE_UNKNOWN)
    caller = services.peers.caller(request)
    if isinstance(caller, Rejection):
        return Admission(rejection=caller)
    peer = caller.peer
    admission = negotiate(
        request,
        verbs=caller.allow,
        accept_unknown_sop_classes=config.node.accept_unknown_sop_classes,
        transfer_syntaxes=peer.transfer_syntaxes if peer is not None else (),
        send_transfer_syntaxes=peer.send_transfer_syntaxes if peer is not None else (),
    )
    _note_refused_contexts(services, request, admission)
    return replace(
        admission,
        limits=config.limits_of(peer) if peer is not None else None,
        places=caller.places,
        most_associations=caller.associations,
    )


def _note_refused_contexts(services: Services, request: AssociationRequest, admission: Admission) -> None:
    by_reason: dict[tuple[str, str], list[ContextResult]] = {}
    for result in admission.results:
        if result.result != ACCEPTANCE:
            logger.debug("context refused", extra={"abstract_syntax_uid": result.abstract_syntax_uid})
            by_reason.setdefault((result.explanation, result.action), []).append(result)
    for (reason, action), results in by_reason.items():
        names = list(dict.fromkeys(name_of(result.abstract_syntax_uid) for result in results))
        more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
        refusal = Refusal(
            "context",
            reason,
            action,
            detail=", ".join([*names[:_MOST_NAMED], *more]),
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            peer_address=request.peer_address,
        )
        services.refusals.refused(refusal, len(results))
