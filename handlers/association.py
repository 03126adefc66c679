"""Who may have an association with this node, and what for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.wire.contexts import (
    APPLICATION_CONTEXT,
    CALLED_AE_TITLE_UNKNOWN,
    CALLING_AE_TITLE_ELSEWHERE,
    CALLING_AE_TITLE_UNKNOWN,
    NO_APPLICATION_CONTEXT,
    Admission,
    AssociationRequest,
    negotiate,
)

if TYPE_CHECKING:
    from node.services import Services


def admit(services: Services, request: AssociationRequest) -> Admission:
    """Decide on an association request (PS3.8 section 9.3.4 for the rejections).

    Rejected are: another application context, another called AE title (unless
    ``check_called_ae_title`` is false), a calling AE title that is not configured (unless
    ``accept_unknown_peers``) or that is used from another address than its host's. What the peer is
    not allowed to store is refused context by context.
    """
    node = services.config.node
    peers = services.peers
    calling_ae_title, address = request.calling_ae_title, request.peer_address
    if request.application_context_uid != APPLICATION_CONTEXT:
        return Admission(rejection=NO_APPLICATION_CONTEXT)
    if node.check_called_ae_title and request.called_ae_title != node.ae_title:
        return Admission(rejection=CALLED_AE_TITLE_UNKNOWN)
    if not peers.is_known(calling_ae_title, address):
        is_configured = peers.by_ae_title(calling_ae_title) is not None
        return Admission(rejection=CALLING_AE_TITLE_ELSEWHERE if is_configured else CALLING_AE_TITLE_UNKNOWN)
    return negotiate(
        request,
        verbs=peers.allowed(calling_ae_title, address),
        accept_unknown_sop_classes=node.accept_unknown_sop_classes,
    )
