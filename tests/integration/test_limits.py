"""Each limit of ``[limits]`` that an object can break, and what its sender is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node import status
from node.jobs.task import Done, Job
from node.tasks.settle import SettleTask
from node.wire import scu
from node.wire.association import Request, Response
from tests.support import data_sets, made, scripted_peer
from tests.support.retrieving import STUDY_ROOT_GET, connect, identifier
from tests.support.scripted_peer import COMMAND, LAST, ScriptedPeer
from tests.support.small_node import SmallNode, config, small_node
from tests.support.toy_node import toy_node
from tests.support.waiting import wait_until

EXPLICIT, DEFLATED = str(uid.ExplicitVRLittleEndian), str(uid.DeflatedExplicitVRLittleEndian)


@contextmanager
def limited(folder: Path, **limits: int) -> Iterator[SmallNode]:
    settings = config(folder / "data")
    with small_node(replace(settings, limits=replace(settings.limits, **limits))) as running:
        yield running


def send(node: SmallNode, data_set: Dataset, transfer_syntax_uid: str = EXPLICIT) -> tuple[int, str]:
    """Status and Error Comment of a C-STORE."""
    contexts = [scu.ProposedContext(str(data_set.SOPClassUID), (transfer_syntax_uid,))]
    with connect(node.port, contexts) as association:
        [context] = association.contexts.values()
        answer = association.send_store(
            context,
            sop_class_uid=str(data_set.SOPClassUID),
            sop_instance_uid=str(data_set.SOPInstanceUID),
            data_set=made.encoded(data_set, transfer_syntax_uid),
        )
    return answer.status, answer.comment


def document(count: int, *, vr: str = "OB") -> Dataset:
    """A report with one long element."""
    data_set = made.instance()
    data_set.add_new(0x00420011, vr, bytes(count))
    return data_set


def behind_the_pixels(count: int) -> Dataset:
    data_set = made.ct_image()
    data_set.add_new(0xFFFCFFFC, "OB", bytes(count))
    return data_set


def nested(depth: int) -> Dataset:
    inner = Dataset()
    for _ in range(depth):
        outer = Dataset()
        outer.ContentSequence = Sequence([inner])
        inner = outer
    return made.instance(ContentSequence=inner.ContentSequence)


@pytest.mark.parametrize(
    ("limits", "data_set", "syntax", "comment"),
    [
        pytest.param(
            {"instance_bytes": 100_000},
            document(150_000),
            EXPLICIT,
            "longer than 100000 bytes",
            id="instance",
        ),
        pytest.param(
            {"instance_bytes": 100_000},
            document(150_000),
            DEFLATED,
            "the inflated data set is longer than 100000 bytes",
            id="instance that is deflated",
        ),
        pytest.param(
            {"header_bytes": 100_000},
            document(150_000),
            EXPLICIT,
            "the header is longer than 100000 bytes",
            id="header",
        ),
        pytest.param(
            {"element_bytes": 1_500_000},
            document(1_500_002),
            EXPLICIT,
            "(0042,0011) has more than 1500000 bytes",
            id="element",
        ),
        pytest.param(
            {"element_bytes": 1_500_000},
            document(1_500_002),
            DEFLATED,
            "(0042,0011) has more than 1500000 bytes",
            id="element that is deflated",
        ),
        pytest.param(
            {"element_bytes": 1_500_000},
            behind_the_pixels(1_500_002),
            EXPLICIT,
            "(FFFC,FFFC) has more than 1500000 bytes",
            id="element behind the pixels",
        ),
        pytest.param(
            {"nesting_depth": 3}, nested(4), EXPLICIT, "sequences are nested more than 3 deep", id="nesting"
        ),
    ],
)
def test_an_instance_over_a_limit_is_refused_with_the_limit_in_the_comment(
    tmp_path: Path, limits: dict[str, int], data_set: Dataset, syntax: str, comment: str
) -> None:
    """Status C002; nothing is kept, and the next instance is taken."""
    with limited(tmp_path, **limits) as node:
        answer = send(node, data_set, syntax)
        assert answer[0] == status.STORE_LIMIT_EXCEEDED
        assert comment in answer[1]
        assert send(node, made.ct_image()) == (0, "")
        with node.services.database.read() as connection:
            assert node.services.index.get(connection, str(data_set.SOPInstanceUID)) is None


@pytest.mark.parametrize(
    ("limits", "data_set"),
    [
        ({"instance_bytes": 200_000}, document(150_000)),
        ({"element_bytes": 1_500_000}, document(1_500_000)),
        ({"element_bytes": 1024**2}, made.ct_image(pixels=np.zeros((1100, 1000), np.int16))),
        ({"nesting_depth": 4}, nested(4)),
    ],
    ids=["instance", "element", "Pixel Data is no element of the header", "nesting"],
)
def test_an_instance_within_the_limits_is_stored(
    tmp_path: Path, limits: dict[str, int], data_set: Dataset
) -> None:
    with limited(tmp_path, **limits) as node:
        assert send(node, data_set) == (0, "")


def test_a_query_over_the_limit_is_refused_with_the_limit_in_the_comment(tmp_path: Path) -> None:
    """Status A700, and the next query is answered."""
    with limited(tmp_path, identifier_bytes=1024) as node, ScriptedPeer.to(node.port) as peer:
        peer.associate()
        peer.request(5, scripted_peer.find_rq(1), bytes(2000))
        answer, _ = peer.read_message()
        assert (answer[0x0900], answer[0x0902]) == (0xA700, "the identifier is longer than 1024 bytes")
        peer.request(5, scripted_peer.find_rq(2), data_sets.study_identifier())
        assert peer.read_message()[0][0x0900] == 0
        peer.release()


def settle(node: SmallNode, sop_instance_uid: str) -> None:
    task = SettleTask()
    job = Job(1, "settle", sop_instance_uid, "", {"sop_instance_uid": sop_instance_uid}, "1.2", 1, 0.0)
    [(_, outcome)] = list(task.run(node.services, [job]))
    task.cancel()
    assert isinstance(outcome, Done)
    assert outcome.apply is not None
    node.services.database.write(outcome.apply)


def got(node: SmallNode, image: Dataset, transfer_syntax_uid: str) -> tuple[Response, list[bytes]]:
    """The final response to a C-GET of one instance, and the data sets that came."""
    came: list[bytes] = []

    def store(request: Request) -> Iterator[Response]:
        came.append(b"".join(bytes(view) for views in request.fragments() for view in views))
        yield Response(status.SUCCESS)

    contexts = [
        scu.ProposedContext(STUDY_ROOT_GET, (EXPLICIT,)),
        scu.ProposedContext(str(image.SOPClassUID), (transfer_syntax_uid,), scp_role=True),
    ]
    with connect(node.port, contexts, {"C-STORE": store}) as association:
        wanted = identifier("STUDY", StudyInstanceUID=str(image.StudyInstanceUID))
        *_, (_, final) = association.get(STUDY_ROOT_GET, wanted)
    return final, came


def test_a_frame_over_the_limit_is_not_encoded_and_its_instance_kept_as_received(tmp_path: Path) -> None:
    """Success; the reason to keep it is told, and it goes out as it came."""
    image = made.ct_image(pixels=np.zeros((200, 100), np.int16))
    with limited(tmp_path, frame_bytes=39_999) as node:
        assert send(node, image) == (0, "")
        settle(node, str(image.SOPInstanceUID))
        stored = node.stored(str(image.SOPInstanceUID))
        assert stored.kept_reason == "a frame has 40000 bytes, more than the limit of 39999"
        final, came = got(node, image, EXPLICIT)
    assert final.status == 0
    assert came == [made.encoded(image)]


def test_a_compressed_frame_over_the_limit_is_not_decoded(tmp_path: Path) -> None:
    """Who takes it compressed gets it; who does not is told why, before anything was decoded."""
    image = made.ct_image(pixels=np.zeros((200, 100), np.int16))
    rle = str(uid.RLELossless)
    with limited(tmp_path, frame_bytes=39_999) as node:
        assert send(node, image, rle) == (0, "")
        settle(node, str(image.SOPInstanceUID))
        final, came = got(node, image, EXPLICIT)
        assert (final.status, final.failed, came) == (status.RETRIEVE_CANNOT_PERFORM, 1, [])
        assert final.comment == "a frame has 40000 bytes, more than the limit of 39999"
        final, came = got(node, image, rle)
        assert (final.status, came) == (0, [made.encoded(image, rle)])


def test_what_was_encoded_under_a_higher_limit_is_still_given_as_it_was_received(tmp_path: Path) -> None:
    """A limit that is lowered takes nothing away."""
    image = made.ct_image(pixels=np.zeros((200, 100), np.int16))
    with limited(tmp_path) as node:
        assert send(node, image) == (0, "")
        settle(node, str(image.SOPInstanceUID))
        assert node.stored(str(image.SOPInstanceUID)).kept_reason == ""
    with limited(tmp_path, frame_bytes=39_999, element_bytes=10) as node:
        final, came = got(node, image, EXPLICIT)
    assert (final.status, came) == (0, [made.encoded(image)])


# --- how long an association lasts ---------------------------------------------------


def test_an_association_that_has_lasted_too_long_is_released_between_two_messages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was sent is answered, then comes the A-RELEASE-RQ; the log says why."""
    with (
        caplog.at_level(logging.INFO),
        toy_node(association_seconds=0.4) as node,
        ScriptedPeer.to(node.port) as peer,
    ):
        peer.associate()
        answered = 0
        while True:
            peer.request(1, scripted_peer.echo_rq(answered % 60000 + 1))
            kind, _ = peer.read_pdu()
            if kind == scripted_peer.A_RELEASE_RQ:
                break
            answered += 1
        peer.send(scripted_peer.pdu(scripted_peer.A_RELEASE_RP, bytes(4)))
        peer.expect_end()
        assert answered
        wait_until(lambda: not node.server._connections)
    [end] = [record for record in caplog.records if record.message == "association released"]
    assert end.reason == "it lasted 0.4 s, the limit of one"


def test_a_message_that_does_not_end_is_aborted_some_time_after_the_association_should_have() -> None:
    """A byte now and then keeps no association: a network timeout after its time it is aborted."""
    with (
        toy_node(association_seconds=0.3, network_timeout_seconds=0.5) as node,
        ScriptedPeer.to(node.port) as trickling,
    ):
        trickling.associate()
        trickling.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq())
        begin = time.monotonic()
        trickling.socket.settimeout(0.05)
        while True:
            try:
                assert trickling.read_abort() == (0, 0)
                break
            except TimeoutError:
                trickling.send_pdv(3, 0, b"x")
        assert time.monotonic() - begin > 0.5
        assert node.stored == []
        with ScriptedPeer.to(node.port) as lively:
            lively.associate()
            lively.release()
        wait_until(lambda: not node.server._connections)
        assert not node.server._lifetimes._finish_at
        assert not node.server._lifetimes._abort_at
