"""What an association is asked for and granted: contexts, roles, rejections (PS3.8 9.3, PS3.7 annex D)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from node.config.settings import LimitsConfig, Verb
from node.wire.certificates import PeerCertificate
from node.wire.extended_negotiation import (
    CommonExtension,
    application_information,
    is_like_known_storage,
    is_of_another_service,
)
from node.wire.sop_classes import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    PLAIN_TRANSFER_SYNTAXES,
    STORAGE_TRANSFER_SYNTAXES,
    UNCOMPRESSED,
    Service,
    choose_transfer_syntax,
    may_be_storage,
    service_of,
)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

# PS3.8 table 9-18: results of a presentation context
ACCEPTANCE = 0
USER_REJECTION = 1
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4

# PS3.7 section D.3.3.3: operations invoked, operations performed
_ONE_AT_A_TIME = (1, 1)

_ACCEPT_UNKNOWN = "set [node] accept_unknown_sop_classes = true"


@dataclass(frozen=True)
class AcceptedContext:
    """An accepted presentation context with its roles (PS3.7 section D.3.3.4)."""

    context_id: int
    abstract_syntax_uid: str
    transfer_syntax_uid: str
    requestor_is_scu: bool = True
    requestor_is_scp: bool = False


@dataclass(frozen=True)
class ProposedContext:
    """A presentation context that we propose.

    With ``scp_role`` we propose to be its SCP (C-GET sub-operations, storage commitment reports)
    and, unless ``scu_role`` says so, not its SCU.
    """

    abstract_syntax_uid: str
    transfer_syntax_uids: tuple[str, ...]
    scp_role: bool = False
    scu_role: bool | None = None

    @property
    def roles(self) -> tuple[bool, bool]:
        """The proposed (SCU, SCP) roles of the requestor."""
        return (not self.scp_role if self.scu_role is None else self.scu_role), self.scp_role


@dataclass(frozen=True)
class RequestedContext:
    """A presentation context that the peer proposes."""

    context_id: int
    abstract_syntax_uid: str
    transfer_syntax_uids: tuple[str, ...]


@dataclass(frozen=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ asks for, and the address it came from.

    Attributes
    ----------
    roles
        The (SCU, SCP) roles that the requestor proposes for itself, by abstract syntax.
    extended
        Service-class-application-information by SOP class (PS3.7 section D.3.3.5).
    common_extended
        What it says of the nature of SOP classes (PS3.7 section D.3.3.6).
    proposes_asynchronous_operations
        Whether it has proposed an Asynchronous Operations Window (PS3.7 section D.3.3.3).
    is_over_tls
        Whether it came through TLS.
    peer_certificate
        What the peer has shown there and was verified; None where peers need not show one.
    """

    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    application_context_uid: str
    contexts: tuple[RequestedContext, ...]
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)
    common_extended: Mapping[str, CommonExtension] = field(default_factory=dict)
    proposes_asynchronous_operations: bool = False
    max_pdu_bytes: int = 0
    protocol_version: int = 1
    implementation_version_name: str = ""
    wants_username_confirmed: bool = False
    is_over_tls: bool = False
    peer_certificate: PeerCertificate | None = None


@dataclass(frozen=True)
class Rejection:
    """The fields of an A-ASSOCIATE-RJ (PS3.8 table 9-21) and our words for the log.

    ``action`` is what the operator would do so that it is not rejected.
    """

    result: int
    source: int
    reason: int
    explanation: str
    action: str = ""

    @property
    def is_transient(self) -> bool:
        """Whether the peer may try again."""
        return self.result == 2


NO_APPLICATION_CONTEXT = Rejection(1, 1, 2, "application context name not supported")
CALLING_AE_TITLE_UNKNOWN = Rejection(
    1,
    1,
    3,
    "calling AE title is not configured",
    "add a [[peers]] table for it, or set [node] accept_unknown_peers = true",
)
CALLING_AE_TITLE_ELSEWHERE = Rejection(
    1,
    1,
    3,
    "calling AE title is configured with other addresses; it may call from there alone",
    "add this one to addresses of its [[peers]] table",
)
CALLING_WITHOUT_TLS = Rejection(
    1,
    1,
    3,
    "calling AE title is configured to call over TLS alone",
    "have the peer call [node.tls] port over TLS, or set require_tls = false in its [[peers]] table",
)
CALLING_WITH_ANOTHER_CERTIFICATE = Rejection(
    1,
    1,
    3,
    "the certificate is none of those that the calling AE title is configured with",
    "add a name or the SHA-256 of the certificate to its [[peers]] table",
)
CALLED_AE_TITLE_UNKNOWN = Rejection(
    1,
    1,
    7,
    "called AE title is not that of this node",
    "have the peer call [node] ae_title, or set [node] check_called_ae_title = false",
)
PROTOCOL_VERSION_UNKNOWN = Rejection(1, 2, 2, "protocol version not supported")
TEMPORARY_CONGESTION = Rejection(2, 3, 1, "temporary congestion")
LOCAL_LIMIT_EXCEEDED = Rejection(
    2, 3, 2, "there are as many associations as may be", "raise [limits] associations"
)
PEERS_LIMIT_EXCEEDED = Rejection(
    2,
    3,
    2,
    "there are as many associations with this peer as may be",
    "raise associations of its [[peers]] table, or [limits] associations_per_peer",
)


@dataclass(frozen=True)
class ContextResult:
    """Our answer to one proposed context; ``accepted`` is None unless ``result`` is acceptance.

    ``explanation`` and ``action`` say why it was refused, and what the operator would do to allow it.
    """

    context_id: int
    result: int
    transfer_syntax_uid: str
    accepted: AcceptedContext | None = None
    abstract_syntax_uid: str = ""
    explanation: str = ""
    action: str = ""


@dataclass(frozen=True)
class Admission:
    """The answer to an AssociationRequest: a rejection, or a result for each context.

    ``asynchronous_window`` has the numbers of operations that may be invoked and performed at a time,
    where they are answered. ``allow`` has what the peer may ask for, ``limits`` what counts for it
    where that is its own. ``places`` names what it counts for: in the first, there may be
    ``most_associations`` together.
    """

    results: tuple[ContextResult, ...] = ()
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)
    asynchronous_window: tuple[int, int] | None = None
    rejection: Rejection | None = None
    allow: frozenset[Verb] = frozenset()
    limits: LimitsConfig | None = None
    places: tuple[str, ...] = ()
    most_associations: int = 0

    @property
    def contexts(self) -> dict[int, AcceptedContext]:
        """The accepted contexts by their id."""
        return {result.context_id: result.accepted for result in self.results if result.accepted}


def negotiate(
    request: AssociationRequest,
    *,
    verbs: Iterable[Verb],
    accept_unknown_sop_classes: bool,
    transfer_syntaxes: Iterable[str] = (),
    send_transfer_syntaxes: Iterable[str] = (),
) -> Admission:
    """Answer every proposed context (design: never lossy where lossless is offered).

    A peer that may not store gets its storage contexts refused, unless it only takes part in
    them as SCP, as a C-GET requestor does. A role is granted only where it was proposed (PS3.7
    section D.3.3.4), and operations are performed one at a time.

    Parameters
    ----------
    transfer_syntaxes, send_transfer_syntaxes
        UIDs of those in which instances are taken from this peer, and sent to it; empty for all.
    """
    taken, sent = frozenset(transfer_syntaxes), frozenset(send_transfer_syntaxes)
    allowed = frozenset(verbs)
    results = []
    uncompressed: dict[int, str] = {}
    roles: dict[str, tuple[bool, bool]] = {}
    extended: dict[str, bytes] = {}
    for context in request.contexts:
        abstract_syntax_uid = context.abstract_syntax_uid
        service = _service_of(abstract_syntax_uid, request, accept_unknown_sop_classes)
        if service is None:
            may_be = may_be_storage(abstract_syntax_uid)
            action = _ACCEPT_UNKNOWN if may_be and not accept_unknown_sop_classes else ""
            results.append(_refused(context, ABSTRACT_SYNTAX_NOT_SUPPORTED, "SOP class not offered", action))
            continue
        proposed = request.roles.get(abstract_syntax_uid)
        wants_scu, wants_scp = is_scu, is_scp = proposed or (True, False)
        acceptable = PLAIN_TRANSFER_SYNTAXES
        if service is Service.STORAGE:
            acceptable = STORAGE_TRANSFER_SYNTAXES
            is_scu = is_scu and "store" in allowed
            is_scp = is_scp and "retrieve" in allowed
            if is_scu and taken:
                acceptable &= taken
            if is_scp and sent:
                acceptable &= sent
        elif service is not Service.STORAGE_COMMITMENT:
            is_scp = False
        if not is_scu and not is_scp:
            results.append(_refused(context, USER_REJECTION, *_not_allowed(service, wants_scu, wants_scp)))
            continue
        transfer_syntax_uid = choose_transfer_syntax(context.transfer_syntax_uids, acceptable)
        if transfer_syntax_uid is None:
            results.append(_refused(context, TRANSFER_SYNTAXES_NOT_SUPPORTED, *_not_taken(context, service)))
            continue
        if proposed is not None:
            roles[abstract_syntax_uid] = (is_scu, is_scp)
        if abstract_syntax_uid in request.extended:
            information = application_information(
                abstract_syntax_uid, service, request.extended[abstract_syntax_uid], is_scp_here=is_scu
            )
            if information is not None:
                extended[abstract_syntax_uid] = information
        plain = [one for one in UNCOMPRESSED if one in acceptable and one in context.transfer_syntax_uids]
        if service is Service.STORAGE and is_scp and plain:
            uncompressed[context.context_id] = plain[0]
        accepted = AcceptedContext(
            context.context_id, abstract_syntax_uid, transfer_syntax_uid, is_scu, is_scp
        )
        results.append(ContextResult(context.context_id, ACCEPTANCE, transfer_syntax_uid, accepted))
    results = _with_a_way_for_all(results, uncompressed)
    window = _ONE_AT_A_TIME if request.proposes_asynchronous_operations else None
    return Admission(tuple(results), roles, extended, window, allow=allowed)


def _with_a_way_for_all(
    results: Sequence[ContextResult], uncompressed: Mapping[int, str]
) -> list[ContextResult]:
    """Let every instance of a class be sendable where we are its SCU: its contexts were accepted one by one.

    In a compressed transfer syntax we could send what is stored or was received in it. So where a class has
    no context without compression, its last one that offers such a syntax, as ``uncompressed`` has it by
    Presentation Context ID, is accepted in that.
    """
    sendable = {
        result.accepted.abstract_syntax_uid
        for result in results
        if result.accepted is not None and result.transfer_syntax_uid in UNCOMPRESSED
    }
    answers = []
    for result in reversed(results):
        accepted, syntax = result.accepted, uncompressed.get(result.context_id)
        if accepted is not None and syntax is not None and accepted.abstract_syntax_uid not in sendable:
            sendable.add(accepted.abstract_syntax_uid)
            accepted = replace(accepted, transfer_syntax_uid=syntax)
            result = replace(result, transfer_syntax_uid=syntax, accepted=accepted)
        answers.append(result)
    return answers[::-1]


def _service_of(
    abstract_syntax_uid: str, request: AssociationRequest, accept_unknown_sop_classes: bool
) -> Service | None:
    service = service_of(abstract_syntax_uid)
    if service is None and may_be_storage(abstract_syntax_uid):
        extension = request.common_extended.get(abstract_syntax_uid)
        is_acceptable = accept_unknown_sop_classes and not is_of_another_service(extension)
        if is_acceptable or is_like_known_storage(extension):
            return Service.STORAGE
    return service


def _refused(context: RequestedContext, result: int, explanation: str, action: str = "") -> ContextResult:
    # PS3.8 section 9.3.3.2: a transfer syntax is sent but not significant
    syntax = next(iter(context.transfer_syntax_uids), IMPLICIT_VR_LITTLE_ENDIAN)
    return ContextResult(
        context.context_id, result, syntax, None, context.abstract_syntax_uid, explanation, action
    )


def _not_taken(context: RequestedContext, service: Service) -> tuple[str, str]:
    """Say why none of the transfer syntaxes is chosen, and what would change it."""
    if service is Service.STORAGE and not STORAGE_TRANSFER_SYNTAXES.isdisjoint(context.transfer_syntax_uids):
        return (
            "none of the transfer syntaxes that are allowed with this peer",
            "add one to transfer_syntaxes, or for C-GET to send_transfer_syntaxes, of its [[peers]] table",
        )
    return "no transfer syntax that is taken here", ""


def _not_allowed(service: Service, wants_scu: bool, wants_scp: bool) -> tuple[str, str]:
    """Say why neither role was granted, and what would grant one."""
    if service is not Service.STORAGE or not (wants_scu or wants_scp):
        return "the proposed role is not offered", ""
    verb = "store" if wants_scu else "retrieve"
    return f"not allowed to {verb}", f'add "{verb}" to allow of its [[peers]] table'
