"""Command sets on the wire."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.wire import dimse
from node.wire.dimse import Command
from node.wire.pdu import Violation


def encoded_by_pydicom(command: Command) -> bytes:
    data_set = Dataset()
    for keyword, value in command.items():
        setattr(data_set, keyword, list(value) if isinstance(value, tuple) else value)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = buffer.is_little_endian = True
    write_dataset(buffer, data_set)
    body = buffer.getvalue()
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


EVERYTHING = Command(
    AffectedSOPClassUID="1.2.840.10008.5.1.4.1.1.2",
    CommandField=0x8001,
    MessageIDBeingRespondedTo=65535,
    MoveDestination="DEST",
    CommandDataSetType=0x0101,
    Status=0xA700,
    OffendingElement=(0x00100010, 0x7FE00010),
    ErrorComment="out of space",
    ErrorID=7,
    AffectedSOPInstanceUID="1.2.3",
    NumberOfRemainingSuboperations=3,
    MoveOriginatorApplicationEntityTitle="ODD",
)


def test_a_command_set_is_encoded_as_pydicom_encodes_it() -> None:
    assert dimse.encode(EVERYTHING) == encoded_by_pydicom(EVERYTHING)


def test_a_command_set_comes_back_as_it_was() -> None:
    assert dimse.decode(dimse.encode(EVERYTHING)) == EVERYTHING


def test_elements_without_a_value_are_left_out() -> None:
    assert dimse.decode(dimse.encode(Command(CommandField=1, ErrorComment=None))) == {"CommandField": 1}


def test_unknown_elements_of_group_0000_are_passed_over() -> None:
    extra = struct.pack("<HHI", 0, 0x5010, 2) + b"\1\0"
    assert dimse.decode(dimse.encode(Command(CommandField=1)) + extra).CommandField == 1


def test_padding_of_either_kind_is_taken_off() -> None:
    encoded = struct.pack("<HHIH", 0, 0x0100, 2, 1) + struct.pack("<HHI", 0, 0x0002, 6) + b"1.2.3 "
    assert dimse.decode(encoded).AffectedSOPClassUID == "1.2.3"


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\0\0",
        struct.pack("<HHI", 0x0008, 0x0016, 0),
        struct.pack("<HHI", 0, 0x0100, 200),
        struct.pack("<HHI", 0, 0x0100, 1) + b"\1",
        struct.pack("<HHI", 0, 0x0100, 0),
    ],
)
def test_what_is_no_command_set_is_a_violation(encoded: bytes) -> None:
    with pytest.raises(Violation):
        dimse.decode(encoded)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_a_violation(encoded: bytes) -> None:
    with contextlib.suppress(Violation):
        dimse.decode(encoded)


def test_a_missing_element_is_an_attribute_error_and_none() -> None:
    command = Command(CommandField=1)
    with pytest.raises(AttributeError, match="MessageID"):
        _ = command.MessageID
    assert command.get("MessageID") is None
    assert not command.has_data_set


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("short", "short"),
        ("back\\slash\nline", "back/slash line"),
        ("Müller", "M?ller"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 61 + "..."),
    ],
)
def test_an_error_comment_is_a_legal_lo(text: str, comment: str) -> None:
    assert dimse.error_comment(text) == comment
