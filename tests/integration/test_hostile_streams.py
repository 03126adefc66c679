"""Damaged and malicious code streams: an error by name, bounded memory and time, and the instance is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from node.config.settings import LimitsConfig
from node.index.index import Provenance
from node.verification import verify
from tests.support import hostile_streams, made, workstation
from tests.support.settling import settle
from tests.support.small_node import SmallNode, config, small_node

#: Of each of four kinds of damage: 1,000 in all for each stream.
COUNT = int(os.environ.get("ANODE_HOSTILE_COUNT", "250"))
SEED = int(os.environ.get("ANODE_HOSTILE_SEED", "1"))
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
EXPLICIT = str(uid.ExplicitVRLittleEndian)


def decoded(name: str, count: int = COUNT) -> dict[str, Any]:
    """What a process said that decoded them; it must not have died."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile_streams", name, str(count), str(SEED)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-1500:]}"
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", hostile_streams.streams())
def test_damaged_streams_of_every_codec_end_in_an_error_or_in_a_frame_of_the_right_size(name: str) -> None:
    said = decoded(name)
    assert said["refused"] + said["decoded"] >= 4 * COUNT
    assert said["refused"] > COUNT
    assert said["grown_bytes"] < hostile_streams.MOST_BYTES


def test_bombs_are_refused_before_they_take_memory() -> None:
    said = decoded("bombs")
    assert said.pop("grown_bytes") < hostile_streams.MOST_BYTES
    assert said.pop("deflated") == "decoded"  # as much of it as the frame has
    assert set(said.values()) == {"refused"}
    assert set(said) == {"rle", "jpeg", "jpeg-ls", "jpeg2000", "htj2k", "jpeg-xl"}


def test_every_header_with_a_size_has_one_that_claims_65535() -> None:
    with_size = {name for name, one in hostile_streams.streams().items() if hostile_streams.enormous(one)}
    without = {name for name in hostile_streams.streams() if name.startswith(("rle", "deflated", "jpeg-xl"))}
    assert with_size | without == set(hostile_streams.streams())


# --- through a node --------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    settings = replace(config(tmp_path / "data"), limits=LimitsConfig(frame_bytes=1 << 26))
    with small_node(settings) as running:
        yield running


def instance(stream: hostile_streams.Stream, encoded: bytes) -> Dataset:
    facts = stream.facts
    data_set = made.ct_image()
    data_set.SOPClassUID = uid.SecondaryCaptureImageStorage
    data_set.Rows, data_set.Columns, data_set.SamplesPerPixel = (
        facts.rows,
        facts.columns,
        facts.samples_per_pixel,
    )
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = (
        facts.bits_allocated,
        facts.bits_stored,
        facts.high_bit,
    )
    data_set.PixelRepresentation = 0
    data_set.PhotometricInterpretation = facts.photometric_interpretation
    if facts.samples_per_pixel > 1:
        data_set.PlanarConfiguration = 0
    data_set.PixelData = encapsulate([encoded])
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    return data_set


def encoded_instance(data_set: Dataset) -> bytes:
    """As it travels: Explicit VR Little Endian around the fragments."""
    pixels = data_set.pop("PixelData")
    start = made.encoded(data_set)
    value: bytes = pixels.value
    head = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    return start + head + value + (b"" if value.endswith(end) else end)


def test_what_is_hostile_is_kept_as_it_came_and_costs_its_own_sub_operation(node: SmallNode) -> None:
    sent: dict[str, tuple[str, bytes, Dataset]] = {}
    for stream in hostile_streams.streams().values():
        for encoded in [stream.encoded[: len(stream.encoded) // 2], *hostile_streams.enormous(stream)]:
            data_set = instance(stream, encoded)
            bytes_ = encoded_instance(data_set)
            node.services.ingest.receive(
                [[bytes_]],
                sop_class_uid=str(data_set.SOPClassUID),
                sop_instance_uid=str(data_set.SOPInstanceUID),
                transfer_syntax_uid=stream.transfer_syntax_uid,
                provenance=made_provenance(),
            )
            sent[str(data_set.SOPInstanceUID)] = stream.transfer_syntax_uid, bytes_, data_set
    with node.services.database.read():
        pass
    settle(node.services, *sent)
    for sop_instance_uid, (transfer_syntax_uid, bytes_, data_set) in sent.items():
        stored = node.stored(sop_instance_uid)
        assert stored.kept_reason == "already compressed"
        assert verify(node.services, stored) == ""
        # a peer that takes it as it is has it, one that wants it decoded is told why not
        assert got(node, data_set, transfer_syntax_uid) == (0x0000, bytes_, "")
        status, found, comment = got(node, data_set, EXPLICIT)
        if found is None:
            assert status == 0xA702
            assert comment
    image = made.ct_image()
    node.receive(image)
    assert got(node, image, EXPLICIT)[0] == 0


def test_an_image_that_claims_more_than_a_frame_may_have_is_kept(node: SmallNode) -> None:
    huge = made.ct_image()
    huge.Rows = huge.Columns = 65535
    compressed = instance(hostile_streams.streams()["rle"], b"\x02\0\0\0" + bytes(100))
    compressed.Rows = compressed.Columns = 65535
    (native,) = node.receive(huge)
    settle(node.services, native)
    assert "more than the limit of 67108864" in node.stored(native).kept_reason
    assert verify(node.services, node.stored(native)) == ""
    bytes_ = encoded_instance(compressed)
    node.services.ingest.receive(
        [[bytes_]],
        sop_class_uid=str(compressed.SOPClassUID),
        sop_instance_uid=str(compressed.SOPInstanceUID),
        transfer_syntax_uid=str(uid.RLELossless),
        provenance=made_provenance(),
    )
    with node.services.database.read():
        pass
    status, found, comment = got(node, compressed, EXPLICIT)
    assert (status, found) == (0xA702, None)
    assert "a frame has" in comment


def made_provenance() -> Provenance:
    return Provenance("SCANNER", "ANODE", "127.0.0.1", 0, 0.0)


def got(node: SmallNode, data_set: Dataset, transfer_syntax_uid: str) -> tuple[int, bytes | None, str]:
    """C-GET one instance: the final status, the data set, the Error Comment."""
    found = workstation.get(
        node.port,
        data_set.SOPClassUID,
        transfer_syntax_uid,
        level="IMAGE",
        StudyInstanceUID=data_set.StudyInstanceUID,
        SeriesInstanceUID=data_set.SeriesInstanceUID,
        SOPInstanceUID=data_set.SOPInstanceUID,
    )
    _, came = found.instances.get(data_set.SOPInstanceUID, ("", None))
    return found.status, came, found.comment
