"""In which transfer syntax an instance leaves: one order, whoever asked for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node.config.settings import PeerConfig
from node.wire import scu
from tests.support import made, workstation
from tests.support.retrieving import STUDY_ROOT_MOVE, connect, identifier
from tests.support.scripted_pacs import ScriptedPacs, scripted_pacs
from tests.support.settling import settle
from tests.support.small_node import SmallNode, config, small_node

EXPLICIT, IMPLICIT = str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian)
BIG_ENDIAN, JPEG_LS = str(uid.ExplicitVRBigEndian), str(uid.JPEGLSLossless)
LOSSY = str(uid.JPEGBaseline8Bit)
PIXELS = (np.arange(64 * 50).reshape(64, 50) // 9).astype(np.uint16)

CASES = {
    "the stored one before all others": ([IMPLICIT, EXPLICIT, BIG_ENDIAN, JPEG_LS], JPEG_LS),
    "else the received one": ([EXPLICIT, IMPLICIT, BIG_ENDIAN], BIG_ENDIAN),
    "else Explicit VR": ([IMPLICIT, EXPLICIT], EXPLICIT),
    "else Implicit VR": ([IMPLICIT], IMPLICIT),
    "else none": ([LOSSY], None),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[list[str], str | None]:
    return CASES[request.param]


@pytest.fixture
def pacs(case: tuple[list[str], str | None]) -> Iterator[ScriptedPacs]:
    with scripted_pacs(contexts={made.CT_IMAGE_STORAGE: case[0]}) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[SmallNode]:
    peer = PeerConfig("PACS", "127.0.0.1", pacs.port)
    with small_node(config(tmp_path / "data", peers=[peer])) as running:
        yield running


@pytest.fixture
def image(node: SmallNode) -> Dataset:
    """An instance that came in Big Endian, and is stored as JPEG-LS."""
    data_set = made.ct_image(pixels=PIXELS)
    settle(node.services, *node.receive(data_set, transfer_syntax_uid=BIG_ENDIAN))
    return data_set


def assert_is(data_set: bytes, transfer_syntax_uid: str, image: Dataset) -> None:
    if transfer_syntax_uid != JPEG_LS:
        assert data_set == made.encoded(image, transfer_syntax_uid)


def test_what_is_delivered(
    node: SmallNode, pacs: ScriptedPacs, image: Dataset, case: tuple[list[str], str | None]
) -> None:
    node.enqueue_delivery("PACS", image.SOPInstanceUID)
    node.engine.run_until_idle(30)
    (job,) = node.jobs(kind="deliver")
    if case[1] is None:
        assert (job["state"], job["error_name"]) == ("set_aside", "no-accepted-context")
        assert pacs.stored == []
        return
    assert job["state"] == "done"
    assert pacs.transfer_syntaxes == {image.SOPInstanceUID: case[1]}
    assert_is(pacs.data_sets[image.SOPInstanceUID], case[1], image)


def test_what_is_sent_by_c_move(
    node: SmallNode, pacs: ScriptedPacs, image: Dataset, case: tuple[list[str], str | None]
) -> None:
    context = scu.ProposedContext(STUDY_ROOT_MOVE, (EXPLICIT,))
    with connect(node.port, [context]) as association:
        asked = identifier("STUDY", StudyInstanceUID=image.StudyInstanceUID)
        *_, (status, response) = association.move(STUDY_ROOT_MOVE, asked, "PACS")
    if case[1] is None:
        assert status == 0xA702
        assert (response.completed, response.failed) == (0, 1)
        assert "transfer syntax" in response.comment
        return
    assert (status, response.completed, response.failed) == (0, 1, 0)
    assert pacs.transfer_syntaxes == {image.SOPInstanceUID: case[1]}
    assert_is(pacs.data_sets[image.SOPInstanceUID], case[1], image)


def test_what_is_sent_by_c_get(node: SmallNode, image: Dataset, case: tuple[list[str], str | None]) -> None:
    got = workstation.get(
        node.port, made.CT_IMAGE_STORAGE, *case[0], level="STUDY", StudyInstanceUID=image.StudyInstanceUID
    )
    if case[1] is None:
        assert got.status == 0xA702
        assert got.failed_sop_instance_uids == [image.SOPInstanceUID]
        assert "transfer syntax" in got.comment
        return
    assert got.status == 0
    assert list(got.instances) == [image.SOPInstanceUID]
    transfer_syntax_uid, data_set = got.instances[image.SOPInstanceUID]
    assert transfer_syntax_uid == case[1]
    assert_is(data_set, case[1], image)
