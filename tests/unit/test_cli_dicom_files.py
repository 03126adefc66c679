"""What ``anode send`` reads of the files of others, and how it makes them fit an association."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset

from node.config.settings import PeerConfig
from node.errors import MalformedDataSet, UnsupportedPixelData
from node.sending import dicom_files, recoding
from node.sending.dicom_files import DicomFile
from node.sending.sending import UNCOMPRESSED, parts
from tests.support import made

ALL = (*made.NATIVE_TRANSFER_SYNTAXES, *made.COMPRESSED_TRANSFER_SYNTAXES)


def write(path: Path, transfer_syntax_uid: str = uid.ExplicitVRLittleEndian, **attributes: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.part10(made.ct_image(**attributes), transfer_syntax_uid))
    return path


@pytest.mark.parametrize("transfer_syntax_uid", ALL)
def test_a_file_says_what_c_store_needs(tmp_path: Path, transfer_syntax_uid: str) -> None:
    path = write(tmp_path / "a.dcm", transfer_syntax_uid, sop_instance_uid="1.2.3")
    file = dicom_files.read(path)
    assert (file.sop_class_uid, file.sop_instance_uid) == (made.CT_IMAGE_STORAGE, "1.2.3")
    assert file.transfer_syntax_uid == transfer_syntax_uid
    with dicom_files.open_data_set(file) as data_set:
        content = data_set.read()
    assert len(content) == file.data_set_bytes
    assert path.read_bytes().endswith(content)
    assert content == made.encoded(dcmread(path)) or transfer_syntax_uid != uid.ExplicitVRLittleEndian


def test_a_wrong_group_length_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", sop_instance_uid="1.2.3")
    right = dicom_files.read(path)
    content = bytearray(path.read_bytes())
    content[140:144] = b"\xff\xff\0\0"
    path.write_bytes(content)
    assert dicom_files.read(path) == right


def test_the_uids_are_those_of_the_data_set(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", sop_instance_uid="1.2.3.4")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.3.4", b"1.2.3.5", 1))  # the first is that of the file meta
    assert dicom_files.read(path).sop_instance_uid == "1.2.3.4"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", dicom_files.NotDicom),
        (b"hello", dicom_files.NotDicom),
        (b"\0" * 200, dicom_files.NotDicom),
        (b"\0" * 128 + b"DICM", MalformedDataSet),
        (b"\0" * 128 + b"DICM\2\0\x10\0UI\x14\0", MalformedDataSet),
        (b"\0" * 128 + b"DICM\2\0\x10\0UI\x12\x001.2.840.10008.1.2\0", MalformedDataSet),
        (b"\0" * 128 + b"DICM\2\0\x10\0UI\x12\x001.2.840.10008.1.2\0\x08\0\x16\0\xff", MalformedDataSet),
    ],
)
def test_what_is_no_instance_is_refused(
    tmp_path: Path, content: bytes, error: type[MalformedDataSet]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        dicom_files.read(path)
    assert type(caught.value) is error


def test_no_start_of_a_file_is_read_as_a_whole_instance_or_breaks_the_reader(tmp_path: Path) -> None:
    content = write(tmp_path / "a.dcm").read_bytes()
    path = tmp_path / "cut"
    for length in range(0, 600, 7):
        path.write_bytes(content[:length])
        try:
            file = dicom_files.read(path)
        except MalformedDataSet:
            continue
        assert file.data_set_offset + file.data_set_bytes == length


@pytest.mark.parametrize(
    "transfer_syntax_uid", sorted({*made.NATIVE_TRANSFER_SYNTAXES} - {uid.DeflatedExplicitVRLittleEndian})
)
def test_a_data_set_without_file_meta_information_is_read_as_what_it_must_be(
    tmp_path: Path, transfer_syntax_uid: str
) -> None:
    whole = write(tmp_path / "a.dcm", transfer_syntax_uid, sop_instance_uid="1.2.3")
    expected = dicom_files.read(whole)
    path = tmp_path / "bare"
    path.write_bytes(whole.read_bytes()[expected.data_set_offset :])
    file = dicom_files.read(path)
    assert (file.sop_class_uid, file.sop_instance_uid) == (expected.sop_class_uid, "1.2.3")
    assert (file.data_set_offset, file.data_set_bytes) == (0, path.stat().st_size)
    assert file.transfer_syntax_uid == transfer_syntax_uid
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(MalformedDataSet):
        dicom_files.read(path)


def test_a_preamble_may_be_missing(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.dcm", uid.JPEGLSLossless, sop_instance_uid="1.2.3")
    expected = dicom_files.read(whole)
    path = tmp_path / "bare"
    path.write_bytes(whole.read_bytes()[128 + 4 :])
    file = dicom_files.read(path)
    assert (file.transfer_syntax_uid, file.sop_instance_uid) == (uid.JPEGLSLossless, "1.2.3")
    with dicom_files.open_data_set(file) as one, dicom_files.open_data_set(expected) as other:
        assert one.read() == other.read()


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\0",
        b"\x08\0" + b"\0" * 4096,
        b"\x08\0" * 4096,
        b"\x08\0\x16\0" + b"\xff" * 4096,
        b"\x08\0\x16\0UI\4\x001.2\0",
        b"\x08\0\x16\0UI\4\0\xff\xfe\xff\xfe" + b"\x08\0\x18\0UI\4\x001.3\0",
        b"\x08\0\x18\0UI\4\x001.3\0" + b"\x08\0\x16\0UI\4\x001.2\0",
    ],
)
def test_what_only_begins_like_a_data_set_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "volume.raw"
    path.write_bytes(content)
    with pytest.raises(dicom_files.NotDicom):
        dicom_files.read(path)


def test_a_uid_that_cannot_be_sent_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", sop_instance_uid="1.2.3.4")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.3.4", b"1.2.\xfc.4"))
    with pytest.raises(MalformedDataSet, match="one that is none"):
        dicom_files.read(path)


def test_of_compressed_pixels_somebody_must_say_how(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.dcm", uid.JPEGLSLossless)
    path = tmp_path / "bare"
    path.write_bytes(whole.read_bytes()[dicom_files.read(whole).data_set_offset :])
    with pytest.raises(MalformedDataSet, match="how its pixels are compressed"):
        dicom_files.read(path)


def test_a_file_that_is_nested_too_deeply_is_refused_by_name(tmp_path: Path) -> None:
    uids = b"\x08\0\x16\0UI\4\x001.2\0" + b"\x08\0\x18\0UI\4\x001.3\0"
    item = b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    path = tmp_path / "deep"
    path.write_bytes(uids + (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + item) * 100)
    with pytest.raises(MalformedDataSet, match="nested"):
        dicom_files.read(path)


def test_folders_are_searched_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a/3", ".hidden/4", "b/.5", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    found = [path.relative_to(tmp_path).as_posix() for path in dicom_files.find([tmp_path / "b", tmp_path])]
    assert found == ["b/1", "b/2", "c", "a/3", "b/1", "b/2"]


@pytest.mark.parametrize("target", UNCOMPRESSED)
@pytest.mark.parametrize("transfer_syntax_uid", ALL)
def test_a_file_is_decompressed_without_change_of_a_pixel(
    tmp_path: Path, transfer_syntax_uid: str, target: str
) -> None:
    path = write(tmp_path / "a.dcm", transfer_syntax_uid, sop_instance_uid="1.2.3")
    with recoding.uncompressed(dicom_files.read(path), target) as encoded:
        content = io.BytesIO(encoded.read())
    data_set = read_dataset(content, target == uid.ImplicitVRLittleEndian, True)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = uid.UID(target)
    assert data_set.SOPInstanceUID == "1.2.3"
    assert np.array_equal(data_set.pixel_array, dcmread(path).pixel_array)


def test_pixels_that_cannot_be_decoded_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", uid.JPEG2000Lossless)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xff\x4f\xff\x51", b"\0\0\0\0"))
    with pytest.raises(UnsupportedPixelData, match="cannot be decoded"):
        recoding.uncompressed(dicom_files.read(path), uid.ExplicitVRLittleEndian)


PACS = PeerConfig("PACS", "192.0.2.7", 104)


def file_of(sop_class: int, transfer_syntax: int) -> DicomFile:
    return DicomFile(Path("x"), f"1.2.{sop_class}", "1.2.3", f"1.9.{transfer_syntax}", 0, 0)


def test_a_transfer_syntax_of_the_files_is_proposed_alone() -> None:
    explicit = DicomFile(Path("x"), "1.2", "1.2.3", uid.ExplicitVRLittleEndian, 0, 0)
    compressed = DicomFile(Path("x"), "1.2", "1.2.4", uid.JPEGLSLossless, 0, 0)
    (part,) = parts([explicit, compressed, explicit], PACS)
    assert [context.transfer_syntax_uids for context in part.contexts] == [
        (uid.ExplicitVRLittleEndian,),
        UNCOMPRESSED,
        (uid.JPEGLSLossless,),
    ]


def test_more_kinds_than_fit_an_association_are_divided_in_order() -> None:
    files = [file_of(sop_class, syntax) for sop_class in range(50) for syntax in range(4)] * 2
    divided = list(parts(files, PACS))
    assert [file for part in divided for file in part.instances] == files
    assert all(len(part.contexts) <= 128 for part in divided)
    # three contexts for a compressed kind, and one or two for those that every peer reads
    assert len(divided) == 5
