"""What transcoders of other systems have got wrong, sent through a running node: none of it happens here.

Every kind of pixel is sent by ``storescu`` for every codec, which a rule chooses; then each is retrieved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import iter_pixels

from node.config.settings import PeerConfig
from node.sending import dicom_files
from node.sending.dicom_files import DicomFile
from node.sending.recoding import uncompressed
from node.sending.sending import Sender
from node.storage import archive
from node.transcode.codecs import CODECS
from node.transcode.facts import facts_of
from tests.support import made, workstation
from tests.support.anode_process import AnodeProcess
from tests.support.dcmtk import dcmtk
from tests.support.made_pixels import KINDS, smooth
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.xdist_group("transcoders-faults"),
    pytest.mark.timeout(600),
]

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
EXPLICIT = str(uid.ExplicitVRLittleEndian)
STUDY = "2.25.4711"
UNCHANGED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
RULES = "[transcode]\nto = 'keep'\n" + "".join(
    f'[[transcode.rules]]\nwhen = {{ SeriesDescription = "as {name}" }}\nto = "{name}"\n'
    for name in [*CODECS, "best"]
)


@dataclass
class Held:
    """``sent`` has, by SOP Instance UID, what it is, the codec that a rule names, and the data set."""

    node: AnodeProcess
    sent: dict[str, tuple[str, str, Dataset]] = field(default_factory=dict)

    def get(
        self, sop_class_uid: str, *transfer_syntax_uids: str, study: str = STUDY
    ) -> dict[str, tuple[str, bytes]]:
        """C-GET of a study by a peer that takes these alone: (transfer syntax, data set) by UID."""
        got = workstation.get(
            self.node.port, sop_class_uid, *transfer_syntax_uids, level="STUDY", StudyInstanceUID=study
        )
        assert got.status in (0x0000, 0xB000)
        return got.instances


def prepared(kind: str, choice: str) -> Dataset:
    data_set = KINDS[kind]()
    data_set.SOPInstanceUID, data_set.SeriesInstanceUID = uid.generate_uid(), uid.generate_uid()
    data_set.StudyInstanceUID, data_set.SeriesDescription = STUDY, f"as {choice}"
    return data_set


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder = tmp_path_factory.mktemp("transcoders")
    files = folder / "files"
    files.mkdir()
    with AnodeProcess(folder / "node", RULES) as node:
        everything = Held(node)
        for number, (kind, choice) in enumerate((kind, name) for kind in KINDS for name in [*CODECS, "best"]):
            data_set = prepared(kind, choice)
            everything.sent[data_set.SOPInstanceUID] = kind, choice, data_set
            (files / f"{number:04}.dcm").write_bytes(made.part10(data_set))
        report = made.instance()
        report.StudyInstanceUID, report.SeriesDescription = STUDY, "as jpeg-lossless"
        everything.sent[report.SOPInstanceUID] = "an SR", "jpeg-lossless", report
        (files / "report.dcm").write_bytes(made.part10(report))
        dcmtk("storescu", "-aec", "ANODE", "-R", "+sd", "127.0.0.1", node.port, files)
        wait_until(lambda: node.json("status")["instances_not_settled"] == 0, 120, "settling")
        yield everything


def test_nothing_is_refused_because_a_rule_names_a_codec_that_does_not_take_it(held: Held) -> None:
    """Single bits for JPEG 2000, 32 bits for JPEG-LS, a report for JPEG: all are stored."""
    assert held.node.json("status")["instances"] >= len(held.sent)
    assert held.node.json("jobs", "--state", "set-aside") == []
    assert "0 damaged" in held.node.run("verify").stdout


def test_every_kind_comes_back_byte_for_byte_whatever_it_was_stored_as(held: Held) -> None:
    """8 of 16 bits in JPEG Lossless, signed and partial depths in JPEG 2000, odd lengths, white images."""
    wrong = []
    for sop_class_uid in {str(data_set.SOPClassUID) for _, _, data_set in held.sent.values()}:
        got = held.get(sop_class_uid, EXPLICIT)
        for sop_instance_uid, (kind, choice, data_set) in held.sent.items():
            if data_set.SOPClassUID == sop_class_uid and got.get(sop_instance_uid) != (
                EXPLICIT,
                made.encoded(data_set),
            ):
                wrong.append((kind, choice))
    assert wrong == []


def test_what_is_sent_as_it_is_stored_says_of_itself_what_is_so(held: Held, tmp_path: Path) -> None:
    """Photometric Interpretation and Planar Configuration are those of the code, and others read it so."""
    syntaxes = [codec.transfer_syntax_uid for codec in CODECS.values()]
    by_syntax = {codec.transfer_syntax_uid: codec for codec in CODECS.values()}
    compressed = 0
    for sop_class_uid in (str(uid.CTImageStorage), str(uid.SecondaryCaptureImageStorage)):
        for sop_instance_uid, (transfer_syntax_uid, encoded) in held.get(sop_class_uid, *syntaxes).items():
            kind, choice, original = held.sent[sop_instance_uid]
            path = tmp_path / "stored.dcm"
            path.write_bytes(as_file(original, transfer_syntax_uid, encoded))
            stored = pydicom.dcmread(path)
            codec = by_syntax[transfer_syntax_uid]
            facts = facts_of(original)
            assert stored.PhotometricInterpretation == codec.photometric_interpretation(facts), (kind, choice)
            if original.SamplesPerPixel == 3:
                assert stored.PlanarConfiguration == codec.planar_configuration
            for keyword in (
                "Rows",
                "Columns",
                "BitsAllocated",
                "BitsStored",
                "HighBit",
                "PixelRepresentation",
            ):
                assert stored[keyword].value == original[keyword].value
            assert "LossyImageCompression" not in stored
            compressed += 1
            if kind != "64 bits" and not {"jpeg-xl", "deflated-frame"} & {name_of(transfer_syntax_uid)}:
                path.with_suffix(".original").write_bytes(made.part10(original))
                expected = list(iter_pixels(pydicom.dcmread(path.with_suffix(".original")), raw=True))
                found = list(iter_pixels(stored, raw=True))
                assert all(map(np.array_equal, found, expected)), (kind, choice)
    assert compressed > 250


def name_of(transfer_syntax_uid: str) -> str:
    return next(name for name, one in CODECS.items() if one.transfer_syntax_uid == transfer_syntax_uid)


def as_file(data_set: Dataset, transfer_syntax_uid: str, encoded: bytes) -> bytes:
    meta = archive.part10(str(data_set.SOPClassUID), str(data_set.SOPInstanceUID), transfer_syntax_uid, {})
    return meta + encoded


def test_a_report_is_never_given_a_transfer_syntax_of_images(held: Held) -> None:
    sop_instance_uid, sop_class_uid = next(
        (name, str(one.SOPClassUID)) for name, (kind, _, one) in held.sent.items() if kind == "an SR"
    )
    jpeg = CODECS["jpeg-lossless"].transfer_syntax_uid
    got = held.get(sop_class_uid, jpeg, EXPLICIT)
    assert got[sop_instance_uid][0] == EXPLICIT


# --- frames and fragments ----------------------------------------------------------


def multi_frame(choice: str, form: str) -> tuple[Dataset, list[np.ndarray]]:
    """Four compressed frames whose fragments are told apart by one table or another."""
    frames = [smooth(41, 65, seed=seed).astype(np.uint16) for seed in range(4)]
    data_set = made.ct_image(pixels=frames[0])
    data_set.NumberOfFrames = 4
    facts = facts_of(data_set)
    codes = [CODECS[choice].encode(frame, facts) for frame in frames]
    fragments = 3 if "fragments" in form else 1
    if form == "extended":
        value, offsets, lengths = encapsulate_extended(codes)
        data_set.ExtendedOffsetTable, data_set.ExtendedOffsetTableLengths = offsets, lengths
    else:
        value = encapsulate(codes, fragments_per_frame=fragments, has_bot="empty" not in form)
    if form == "one frame more than said":
        data_set.NumberOfFrames = 3
    if form == "without Number of Frames":
        value = encapsulate(codes[:1])
        del data_set.NumberOfFrames
        frames = frames[:1]
    data_set.add_new("PixelData", "OB", value)
    data_set["PixelData"].is_undefined_length = True
    return data_set, frames


FORMS = [
    "basic",
    "empty",
    "extended",
    "many fragments",
    "many fragments, empty",
    "without Number of Frames",
    "one frame more than said",
]


@pytest.mark.parametrize("choice", ["jpeg-ls", "jpeg2000", "jpeg-lossless"])
def test_no_frame_is_lost_or_taken_for_another(held: Held, choice: str, tmp_path: Path) -> None:
    syntax, study = CODECS[choice].transfer_syntax_uid, uid.generate_uid()
    sent: dict[str, tuple[str, DicomFile, list[np.ndarray]]] = {}
    for form in FORMS:
        data_set, frames = multi_frame(choice, form)
        data_set.StudyInstanceUID, data_set.SeriesDescription = study, "as rle"
        data_set.file_meta = FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = uid.UID(syntax)
        path = tmp_path / f"{form}.dcm"
        data_set.save_as(path, enforce_file_format=True)
        sent[data_set.SOPInstanceUID] = form, dicom_files.read(path), frames
    sender = Sender(
        PeerConfig("ANODE", "127.0.0.1", held.node.port),
        calling_ae_title="SCANNER",
        timeout_seconds=60,
        max_pdu_bytes=131072,
        recode=uncompressed,
    )
    answers = list(sender.send([file for _, file, _ in sent.values()]))
    assert [(one.status, one.transfer_syntax_uid) for one in answers] == [(0, syntax)] * len(FORMS)
    wait_until(lambda: held.node.json("status")["instances_not_settled"] == 0, 120, "settling")
    as_received = held.get(made.CT_IMAGE_STORAGE, syntax, study=study)
    native = held.get(made.CT_IMAGE_STORAGE, EXPLICIT, study=study)
    for sop_instance_uid, (form, file, frames) in sent.items():
        with dicom_files.open_data_set(file) as opened:
            assert as_received[sop_instance_uid] == (syntax, opened.read()), form
        path = tmp_path / "decoded.dcm"
        path.write_bytes(as_file(pydicom.dcmread(file.path), *native[sop_instance_uid]))
        found = list(iter_pixels(pydicom.dcmread(path), raw=True))
        assert len(found) == len(frames), form
        assert all(map(np.array_equal, found, frames)), form
