"""What is accepted, what is refused, and the PDUs that say so."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID_dictionary
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.sop_class import _STORAGE_CLASSES

from node.wire import contexts, negotiation, sop_classes
from node.wire.contexts import AssociationRequest, ProposedContext, RequestedContext, negotiate
from node.wire.extended_negotiation import CommonExtension
from node.wire.pdu import Violation
from tests.support import scripted_peer as peer
from tests.unit.test_wire_pynetdicom_contract import EVERY_USER_ITEM

CT = peer.CT_IMAGE_STORAGE
IMPLICIT = sop_classes.IMPLICIT_VR_LITTLE_ENDIAN
EXPLICIT = sop_classes.EXPLICIT_VR_LITTLE_ENDIAN
BIG = sop_classes.EXPLICIT_VR_BIG_ENDIAN
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
ALL_VERBS = ("store", "query", "retrieve", "commit")


def asked(*wanted: tuple[str, tuple[str, ...]], roles=None) -> AssociationRequest:
    return AssociationRequest(
        calling_ae_title="A",
        called_ae_title="B",
        peer_address="127.0.0.1",
        application_context_uid=contexts.APPLICATION_CONTEXT,
        contexts=tuple(
            RequestedContext(2 * number + 1, abstract, syntaxes)
            for number, (abstract, syntaxes) in enumerate(wanted)
        ),
        roles=roles or {},
    )


def answered(request: AssociationRequest, verbs=ALL_VERBS, unknown: bool = False) -> list[tuple[int, str]]:
    admission = negotiate(request, verbs=verbs, accept_unknown_sop_classes=unknown)
    return [(result.result, result.transfer_syntax_uid) for result in admission.results]


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ((JPEG_BASELINE, EXPLICIT), EXPLICIT),
        ((JPEG_2000, JPEG_LS), JPEG_LS),
        ((JPEG_BASELINE, JPEG_2000), JPEG_BASELINE),
        ((JPEG_BASELINE,), JPEG_BASELINE),
        ((JPEG_LS, EXPLICIT), JPEG_LS),
        ((EXPLICIT, JPEG_LS), EXPLICIT),
        ((IMPLICIT, EXPLICIT), EXPLICIT),
        ((IMPLICIT, JPEG_LS), IMPLICIT),
        ((BIG, EXPLICIT), BIG),
        ((RLE, IMPLICIT, EXPLICIT), RLE),
        (("1.2.3.4", IMPLICIT), IMPLICIT),
    ],
)
def test_never_lossy_beside_lossless_then_the_proposers_order_then_explicit(
    proposed: tuple[str, ...], chosen: str
) -> None:
    assert answered(asked((CT, proposed))) == [(0, chosen)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(sorted(sop_classes.STORAGE_TRANSFER_SYNTAXES)), min_size=1, unique=True))
def test_a_lossy_syntax_is_never_chosen_where_a_lossless_one_is_offered(proposed: list[str]) -> None:
    [(result, chosen)] = answered(asked((CT, tuple(proposed))))
    assert result == 0
    assert chosen in proposed
    if set(proposed) & sop_classes.LOSSLESS_TRANSFER_SYNTAXES:
        assert chosen in sop_classes.LOSSLESS_TRANSFER_SYNTAXES


def test_every_transfer_syntax_of_the_standard_is_acceptable_for_storage() -> None:
    by_reference_or_not_dicom = ("JPIP", "SMPTE", "MIME", "XML", "Papyrus")
    standard = {
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "Transfer Syntax" and not any(word in name for word in by_reference_or_not_dicom)
    }
    assert standard == sop_classes.STORAGE_TRANSFER_SYNTAXES


def test_lossless_is_what_the_standard_calls_lossless() -> None:
    named = {
        uid
        for uid in sop_classes.STORAGE_TRANSFER_SYNTAXES
        if "Lossless" in UID_dictionary[uid][0] and "Near-Lossless" not in UID_dictionary[uid][0]
    }
    assert named <= sop_classes.LOSSLESS_TRANSFER_SYNTAXES
    assert not sop_classes.LOSSLESS_TRANSFER_SYNTAXES & sop_classes.LOSSY_TRANSFER_SYNTAXES


def test_every_storage_sop_class_that_pynetdicom_knows_is_accepted() -> None:
    assert set(map(str, _STORAGE_CLASSES.values())) <= sop_classes.storage_sop_classes()


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2", "1.2.840.10008.1.3.10"])
def test_storage_commitment_and_the_dicomdir_are_no_storage_sop_classes(uid: str) -> None:
    assert uid not in sop_classes.storage_sop_classes()


@pytest.mark.parametrize("uid", ["1.2.840.113619.4.26", "1.2.840.10008.5.1.4.1.1.999"])
def test_private_and_newer_sop_classes_are_accepted_only_when_configured(uid: str) -> None:
    assert answered(asked((uid, (IMPLICIT,)))) == [(3, IMPLICIT)]
    assert answered(asked((uid, (IMPLICIT,))), unknown=True) == [(0, IMPLICIT)]


def test_a_service_that_is_not_offered_stays_refused_also_when_unknown_ones_are_accepted() -> None:
    worklist = "1.2.840.10008.5.1.4.31"
    assert answered(asked((worklist, (IMPLICIT,))), unknown=True) == [(3, IMPLICIT)]


def test_an_identifier_needs_a_plain_transfer_syntax() -> None:
    assert answered(asked((peer.STUDY_ROOT_FIND, (JPEG_BASELINE,)))) == [(4, JPEG_BASELINE)]
    assert answered(asked((peer.STUDY_ROOT_FIND, (JPEG_BASELINE, IMPLICIT)))) == [(0, IMPLICIT)]
    assert answered(asked((peer.STUDY_ROOT_FIND, ()))) == [(4, IMPLICIT)]


def test_a_peer_that_may_not_store_has_its_storage_contexts_refused_by_the_user() -> None:
    request = asked((CT, (EXPLICIT,)), (peer.VERIFICATION, (IMPLICIT,)), (peer.STUDY_ROOT_FIND, (IMPLICIT,)))
    assert [result for result, _ in answered(request, verbs=("query",))] == [1, 0, 0]


def test_a_peer_that_may_only_retrieve_can_still_be_the_scp_of_its_c_get() -> None:
    request = asked((CT, (EXPLICIT,)), roles={CT: (True, True)})
    admission = negotiate(request, verbs=("retrieve",), accept_unknown_sop_classes=False)
    assert admission.roles == {CT: (False, True)}
    [context] = admission.contexts.values()
    assert (context.requestor_is_scu, context.requestor_is_scp) == (False, True)


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([(JPEG_2000_LOSSLESS, IMPLICIT, EXPLICIT)], [EXPLICIT]),
        ([(JPEG_2000_LOSSLESS, IMPLICIT)], [IMPLICIT]),
        ([(JPEG_2000_LOSSLESS,)], [JPEG_2000_LOSSLESS]),
        ([(JPEG_2000_LOSSLESS,), (EXPLICIT,)], [JPEG_2000_LOSSLESS, EXPLICIT]),
        ([(JPEG_2000_LOSSLESS, EXPLICIT), (EXPLICIT,)], [JPEG_2000_LOSSLESS, EXPLICIT]),
        ([(JPEG_LS, EXPLICIT), (JPEG_2000_LOSSLESS, EXPLICIT), (RLE,)], [JPEG_LS, EXPLICIT, RLE]),
    ],
)
def test_where_the_node_is_to_send_a_class_has_a_context_for_every_instance(
    proposed: list[tuple[str, ...]], chosen: list[str]
) -> None:
    wanted = [(CT, syntaxes) for syntaxes in proposed]
    assert answered(asked(*wanted, roles={CT: (False, True)})) == [(0, one) for one in chosen]
    # where it receives, what is proposed first is taken
    assert answered(asked(*wanted))[0] == (0, proposed[0][0])
    admission = negotiate(
        asked(*wanted, roles={CT: (True, True)}), verbs=ALL_VERBS, accept_unknown_sop_classes=False
    )
    assert [context.transfer_syntax_uid for context in admission.contexts.values()] == chosen


ALL, NO_STORE, NO_RETRIEVE = ALL_VERBS, ("retrieve",), ("store",)
FIND, GET = peer.STUDY_ROOT_FIND, sop_classes.STUDY_ROOT_GET
MOVE, PUSH = sop_classes.STUDY_ROOT_MOVE, sop_classes.STORAGE_COMMITMENT_PUSH_MODEL


@pytest.mark.parametrize(
    ("sop_class_uid", "verbs", "proposed", "granted"),
    [
        # proposed and granted roles of the requestor as (SCU, SCP); no role granted: the context is refused
        (CT, ALL, None, (True, False)),
        (CT, ALL, (True, False), (True, False)),
        (CT, ALL, (False, True), (False, True)),
        (CT, ALL, (True, True), (True, True)),
        (CT, ALL, (False, False), None),
        (CT, NO_STORE, None, None),
        (CT, NO_STORE, (True, False), None),
        (CT, NO_STORE, (False, True), (False, True)),
        (CT, NO_STORE, (True, True), (False, True)),
        (CT, NO_RETRIEVE, None, (True, False)),
        (CT, NO_RETRIEVE, (True, False), (True, False)),
        (CT, NO_RETRIEVE, (False, True), None),
        (CT, NO_RETRIEVE, (True, True), (True, False)),
        (FIND, ALL, None, (True, False)),
        (FIND, ALL, (True, False), (True, False)),
        (FIND, ALL, (True, True), (True, False)),
        (FIND, ALL, (False, True), None),
        (FIND, ALL, (False, False), None),
        (PUSH, ALL, None, (True, False)),
        (PUSH, ALL, (True, False), (True, False)),
        (PUSH, ALL, (True, True), (True, True)),
        (PUSH, ALL, (False, True), (False, True)),
        (PUSH, ALL, (False, False), None),
    ],
)
def test_no_role_is_granted_that_was_not_proposed(
    sop_class_uid: str, verbs: tuple, proposed: tuple | None, granted: tuple | None
) -> None:
    """Each combination of proposed roles gets those that are offered (PS3.7 section D.3.3.4)."""
    roles = {} if proposed is None else {sop_class_uid: proposed}
    request = asked((sop_class_uid, (EXPLICIT,)), roles=roles)
    admission = negotiate(request, verbs=verbs, accept_unknown_sop_classes=False)
    accepted = [(c.requestor_is_scu, c.requestor_is_scp) for c in admission.contexts.values()]
    assert accepted == ([] if granted is None else [granted])
    assert admission.roles == ({} if granted is None or proposed is None else {sop_class_uid: granted})


def test_roles_are_answered_for_their_own_sop_class_alone() -> None:
    """A role that is proposed for one SOP class says nothing of another."""
    mr = "1.2.840.10008.5.1.4.1.1.4"
    request = asked((CT, (EXPLICIT,)), (mr, (EXPLICIT,)), roles={CT: (True, True)})
    admission = negotiate(request, verbs=ALL_VERBS, accept_unknown_sop_classes=False)
    assert admission.roles == {CT: (True, True)}
    assert not admission.contexts[3].requestor_is_scp


@pytest.mark.parametrize(
    ("sop_class_uid", "proposed", "answered"),
    [
        # relational queries, date-time, fuzzy names, timezone, multi-frame: none of them is done
        (FIND, b"\1", b"\0"),
        (FIND, b"\1\1\1", b"\0\0\0"),
        (FIND, b"\1\1\1\1\1", bytes(5)),
        (FIND, b"\1" * 9, bytes(5)),
        (FIND, b"", b""),
        # relational retrieval is
        (GET, b"\1", b"\1"),
        (GET, b"\0", b"\0"),
        (GET, b"\7", b"\0"),
        (MOVE, b"\1\1", b"\1\0"),
        # Storage, as SCP: level 2, signature level 3, no coercion
        (CT, b"\3\0\0\0\2\0", b"\2\0\3\0\0\0"),
        (CT, b"\0", b"\2\0\3\0\0\0"),
        (peer.VERIFICATION, b"\1", None),
        (PUSH, b"\1", None),
    ],
)
def test_extended_negotiation_says_what_the_node_does(
    sop_class_uid: str, proposed: bytes, answered: bytes | None
) -> None:
    """Service-class-application-information is true, and no longer than a query's (PS3.4 B.3.1, C.5)."""
    extended = {"1.2.3": b"\1", sop_class_uid: proposed}
    request = replace(asked((sop_class_uid, (EXPLICIT,))), extended=extended)
    admission = negotiate(request, verbs=ALL_VERBS, accept_unknown_sop_classes=False)
    assert admission.extended == ({} if answered is None else {sop_class_uid: answered})


def test_extended_negotiation_is_not_answered_where_the_context_is_refused_or_nothing_was_said() -> None:
    """An answer needs an accepted context and a sub-item of the requestor."""
    request = replace(asked((CT, (EXPLICIT,)), (FIND, (EXPLICIT,))), extended={CT: b"\3\0\0\0\2\0"})
    assert not negotiate(request, verbs=("query",), accept_unknown_sop_classes=False).extended
    assert list(negotiate(request, verbs=ALL, accept_unknown_sop_classes=False).extended) == [CT]


def test_as_the_scu_of_sub_operations_alone_the_node_claims_nothing_of_an_scp() -> None:
    """Where the requestor is SCP only, the storage levels are those of an SCU (PS3.4 table B.3-2)."""
    request = replace(asked((CT, (EXPLICIT,)), roles={CT: (False, True)}), extended={CT: bytes(6)})
    admission = negotiate(request, verbs=ALL, accept_unknown_sop_classes=False)
    assert admission.extended == {CT: b"\3\0\0\0\2\0"}


STORAGE = "1.2.840.10008.4.2"
PRIVATE, NEWER, WORKLIST = "1.2.840.113619.4.26", "1.2.840.10008.5.1.4.1.1.999", "1.2.840.10008.5.1.4.31"


@pytest.mark.parametrize(
    ("sop_class_uid", "extension", "accepted_by_default", "accepted_when_configured"),
    [
        (PRIVATE, CommonExtension(STORAGE, (CT,)), True, True),
        (NEWER, CommonExtension(STORAGE, ("1.2.3", CT)), True, True),
        (PRIVATE, CommonExtension(STORAGE), False, True),
        (PRIVATE, CommonExtension(STORAGE, ("1.2.3",)), False, True),
        (PRIVATE, CommonExtension("1.2.840.10008.4.1", (CT,)), False, False),
        (WORKLIST, CommonExtension(STORAGE, (CT,)), False, False),
        (FIND, CommonExtension(STORAGE, (CT,)), True, True),
    ],
)
def test_a_sop_class_like_a_known_storage_class_is_stored(
    sop_class_uid: str,
    extension: CommonExtension,
    accepted_by_default: bool,
    accepted_when_configured: bool,
) -> None:
    """Common Extended Negotiation makes an unknown SOP class storage, and changes no known one."""
    request = replace(asked((sop_class_uid, (IMPLICIT,))), common_extended={sop_class_uid: extension})
    assert (answered(request)[0][0] == 0) is accepted_by_default
    assert (answered(request, unknown=True)[0][0] == 0) is accepted_when_configured
    if sop_class_uid == FIND:
        assert answered(request, verbs=("query",))[0][0] == 0


def test_operations_are_performed_one_at_a_time() -> None:
    """An Asynchronous Operations Window is answered with (1, 1), and only where it is proposed."""
    request = asked((CT, (EXPLICIT,)))
    silent = negotiate(request, verbs=ALL, accept_unknown_sop_classes=False)
    assert silent.asynchronous_window is None
    proposing = replace(request, proposes_asynchronous_operations=True)
    assert negotiate(proposing, verbs=ALL, accept_unknown_sop_classes=False).asynchronous_window == (1, 1)


def test_a_transfer_syntax_that_we_did_not_propose_is_not_accepted() -> None:
    """An acceptor that chooses another transfer syntax has accepted nothing that we could send."""
    encoded = peer.associate_ac({1: (0, EXPLICIT), 3: (0, JPEG_LS)})
    proposed = [ProposedContext(CT, (EXPLICIT,)), ProposedContext(CT, (EXPLICIT, IMPLICIT))]
    assert list(negotiation.decode_acceptance(encoded, proposed).contexts) == [1]


@pytest.mark.parametrize(
    ("granted", "roles"), [((1, 1), (False, True)), ((1, 0), (False, False)), ((0, 1), (False, True))]
)
def test_a_role_that_we_did_not_propose_is_not_taken(granted: tuple, roles: tuple) -> None:
    """An acceptor that grants the SCU role beside the SCP role that we proposed has granted that alone."""
    encoded = peer.associate_ac({1: (0, EXPLICIT)}, more_user_items=peer.role(CT, *granted))
    proposed = [ProposedContext(CT, (EXPLICIT,), scp_role=True)]
    [context] = negotiation.decode_acceptance(encoded, proposed).contexts.values()
    assert (context.requestor_is_scu, context.requestor_is_scp) == roles


def test_a_request_is_encoded_as_the_standard_says() -> None:
    ours = negotiation.encode_request(
        "ME",
        "YOU",
        [ProposedContext(CT, (EXPLICIT, IMPLICIT)), ProposedContext(CT, (JPEG_LS,), scp_role=True)],
        max_pdu_bytes=16384,
    )
    decoded = A_ASSOCIATE_RQ()
    decoded.decode(ours)
    assert (decoded.calling_ae_title, decoded.called_ae_title) == ("ME", "YOU")
    assert [c.context_id for c in decoded.presentation_context] == [1, 3]
    assert decoded.user_information.maximum_length == 16384
    assert [(r.scu, r.scp) for r in decoded.user_information.role_selection.values()] == [(0, 1)]
    back = negotiation.decode_request(ours, "192.0.2.1")
    assert back.contexts[0] == RequestedContext(1, CT, (EXPLICIT, IMPLICIT))
    assert back.roles == {CT: (False, True)}


def test_an_acceptance_repeats_the_ae_titles_and_says_what_is_accepted() -> None:
    encoded = peer.associate_rq(peer.CONTEXTS, calling="  SPACED", called="ANODE")
    request = negotiation.decode_request(encoded, "127.0.0.1")
    assert request.calling_ae_title == "SPACED"
    admission = negotiate(request, verbs=("store",), accept_unknown_sop_classes=False)
    acceptance = negotiation.encode_acceptance(encoded, admission, max_pdu_bytes=131072)
    assert acceptance[10:74] == encoded[10:74]
    decoded = A_ASSOCIATE_AC()
    decoded.decode(acceptance)
    assert len(acceptance) == len(decoded)
    assert [(c.context_id, c.result, c.transfer_syntax) for c in decoded.presentation_context] == [
        (1, 0, IMPLICIT),
        (3, 0, EXPLICIT),
        (5, 0, IMPLICIT),
    ]
    assert decoded.user_information.maximum_length == 131072


def test_a_username_is_confirmed_when_that_is_asked_for() -> None:
    identity = peer.item(0x58, b"\x01\x01\x00\x03joe\x00\x00")
    encoded = peer.associate_rq(peer.CONTEXTS, more_user_items=identity)
    request = negotiation.decode_request(encoded, "127.0.0.1")
    assert request.wants_username_confirmed
    admission = negotiate(request, verbs=ALL_VERBS, accept_unknown_sop_classes=False)
    acceptance = negotiation.confirm_username(
        negotiation.encode_acceptance(encoded, admission, max_pdu_bytes=0)
    )
    decoded = A_ASSOCIATE_AC()
    decoded.decode(acceptance)
    assert decoded.user_information.user_identity.server_response == b""
    assert len(acceptance) == 6 + int.from_bytes(acceptance[2:6], "big")


def test_a_password_is_never_confirmed() -> None:
    identity = peer.item(0x58, b"\x02\x01\x00\x03joe\x00\x02pw")
    encoded = peer.associate_rq(peer.CONTEXTS, more_user_items=identity)
    assert not negotiation.decode_request(encoded, "127.0.0.1").wants_username_confirmed


def test_user_information_in_user_information_is_passed_over() -> None:
    """However deep it is nested: a stranger's PDU must not exhaust our stack."""
    nested = b""
    for _ in range(2000):
        nested = peer.item(0x50, nested)
    request = negotiation.decode_request(
        peer.associate_rq({1: (CT, (IMPLICIT,))}, more_user_items=nested), "127.0.0.1"
    )
    assert [context.abstract_syntax_uid for context in request.contexts] == [CT]


def test_items_of_unknown_type_are_passed_over() -> None:
    encoded = peer.associate_rq(
        peer.CONTEXTS, more_items=peer.item(0x77, b"what?"), more_user_items=peer.item(0x5F, b"eh")
    )
    assert len(negotiation.decode_request(encoded, "127.0.0.1").contexts) == 3


@pytest.mark.parametrize(
    "encoded",
    [
        peer.associate_rq({2: peer.CONTEXTS[1]}),
        peer.associate_rq(peer.CONTEXTS)[:-3],
        peer.associate_rq(peer.CONTEXTS)[:60],
        peer.associate_rq(peer.CONTEXTS, called=" "),
        peer.pdu(1, b""),
    ],
)
def test_a_broken_request_is_a_violation(encoded: bytes) -> None:
    with pytest.raises(Violation):
        negotiation.decode_request(encoded, "127.0.0.1")


@pytest.mark.filterwarnings("ignore:.*Invalid value for VR UI:UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_request_with_any_byte_changed_decodes_or_is_a_violation(data: st.DataObject) -> None:
    encoded = bytearray(peer.associate_rq(peer.CONTEXTS, more_user_items=EVERY_USER_ITEM))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(6, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Violation):
        negotiation.decode_request(bytes(encoded), "127.0.0.1")


def test_a_rejection_is_encoded_with_its_three_fields() -> None:
    decoded = A_ASSOCIATE_RJ()
    decoded.decode(negotiation.encode_rejection(contexts.LOCAL_LIMIT_EXCEEDED))
    assert (decoded.result, decoded.source, decoded.reason_diagnostic) == (2, 3, 2)
    back = negotiation.decode_rejection(negotiation.encode_rejection(contexts.CALLED_AE_TITLE_UNKNOWN))
    assert not back.is_transient
    assert back.explanation.lower() == "called ae title not recognised"


@pytest.mark.parametrize("count", [0, 129])
def test_more_contexts_than_an_association_can_have_are_refused_here(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        negotiation.encode_request("A", "B", [ProposedContext(CT, (EXPLICIT,))] * count, max_pdu_bytes=0)


def test_an_acceptance_of_contexts_we_did_not_propose_is_passed_over() -> None:
    encoded = peer.associate_ac({1: (0, EXPLICIT), 3: (0, EXPLICIT), 5: (4, EXPLICIT)}, max_pdu_bytes=77)
    acceptance = negotiation.decode_acceptance(encoded, [ProposedContext(CT, (EXPLICIT,))])
    assert list(acceptance.contexts) == [1]
    assert acceptance.max_pdu_bytes == 77


def test_without_an_answer_to_our_role_the_default_roles_hold() -> None:
    proposed = [ProposedContext(CT, (EXPLICIT,), scp_role=True)]
    unanswered = negotiation.decode_acceptance(peer.associate_ac({1: (0, EXPLICIT)}), proposed)
    assert not unanswered.contexts[1].requestor_is_scp
    granted = peer.associate_ac({1: (0, EXPLICIT)}, more_user_items=peer.role(CT, 0, 1))
    assert negotiation.decode_acceptance(granted, proposed).contexts[1].requestor_is_scp
