"""Real files of every kind are kept as they are, or refused with a reason."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from node.config.settings import LimitsConfig
from node.errors import ConflictingInstance, InvalidUid
from node.ingest.header import read_header
from tests.support.data import require_data
from tests.support.ingest_bench import Bench, ingest_bench

# They lack a UID that every composite instance has (PS3.3 section A.1.2), or have one that is none.
REFUSED = {
    "generated_encapsulated_defined_bot_2_to_2.dcm",
    "NeurosurgeryPlan.dcm",
    "jpeg2000-multiframe-multifragments.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "chrSQEncoding1.dcm",
    "fall.dcm",
    "nested_priv_SQ.dcm",
    "HTJ2KLossless_08_RGB.dcm",
    "HTJ2K_08_RGB.dcm",
    "JLSL_08_07_0_1F.dcm",
    "JLSL_16_15_1_1F.dcm",
}


def files() -> list[Path]:
    """Each single file, and the first of each folder of a series."""
    root = require_data()
    found = [path for folder in ("singles", "made") for path in sorted((root / folder).rglob("*"))]
    for folder in ("series", "pet_sarcoma"):
        firsts: dict[Path, Path] = {}
        for path in sorted((root / folder).rglob("*.dcm")):
            firsts.setdefault(path.parent, path)
        found += firsts.values()
    return [path for path in found if path.is_file()]


def split(path: Path) -> tuple[str, bytes] | None:
    """Transfer syntax and data set of a Part 10 file with a whole file meta; None for others."""
    content = path.read_bytes()
    if content[128:132] != b"DICM" or content[132:140] != b"\2\0\0\0UL\4\0":
        return None
    try:
        meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
    except (InvalidDicomError, EOFError):
        return None
    if "TransferSyntaxUID" not in meta:
        return None
    return str(meta.TransferSyntaxUID), content[144 + struct.unpack_from("<L", content, 140)[0] :]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_real_file_is_stored_byte_for_byte_or_refused_by_name(tmp_path):
    count = 0
    with ingest_bench(tmp_path / "data") as bench:
        for path in files():
            encoded = split(path)
            if encoded is None:
                continue
            count += 1
            if path.name in REFUSED:
                with pytest.raises(InvalidUid):
                    read_header(encoded[1], encoded[0], LimitsConfig())
            else:
                check_stored(bench, *encoded)
    assert count > 150


def check_stored(bench: Bench, transfer_syntax_uid: str, encoded: bytes) -> None:
    header = read_header(encoded, transfer_syntax_uid, LimitsConfig())
    try:
        receipt = bench.receive(
            encoded,
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
        )
    except ConflictingInstance:
        # Some of these files are variants of one image that share its UID.
        digests = {row["data_set_sha256"] for row in bench.quarantined()}
        assert hashlib.sha256(encoded).hexdigest() in digests
        return
    if receipt.outcome == "stored":
        assert bench.bytes_of(bench.held(header.sop_instance_uid)) == encoded
