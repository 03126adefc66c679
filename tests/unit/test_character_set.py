"""Specific Character Set in both directions: the standard's own examples (PS3.5 annexes H to K)."""

from __future__ import annotations

import pytest
from pydicom.charset import convert_encodings, decode_bytes

from node.index.character_set import UTF_8, CharacterSet, character_set, of_terms

# (Specific Character Set, encoded name, text); bytes are those that the annexes print
EXAMPLES = [
    (  # H.3.1
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (  # H.3.2
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    (  # I.2
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    (  # J.1
        "ISO_IR 192",
        b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1=",
        "Wang^XiaoDong=王^小東=",
    ),
    ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),  # J.3
    ("GBK", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
    (  # K.2
        "\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东=",
    ),
    ("ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
    ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
    ("ISO_IR 144", b"\xbb\xee\xdace\xdc\xd1yp\xd3", "Люкceмбypг"),
    ("ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
    ("ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
    ("ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ("ISO 2022 IR 100\\ISO 2022 IR 126", b"\xc4\xe9^\x1b-F\xc4\xe9", "Äé^Δι"),
]


@pytest.mark.parametrize(("terms", "encoded", "text"), EXAMPLES)
def test_the_examples_of_the_standard_are_read(terms: str, encoded: bytes, text: str) -> None:
    assert character_set(terms.encode()).decode(encoded, is_name=True) == text


@pytest.mark.parametrize(("terms", "encoded", "text"), EXAMPLES)
def test_the_examples_of_the_standard_are_written_byte_for_byte(
    terms: str, encoded: bytes, text: str
) -> None:
    assert character_set(terms.encode()).encode(text, is_name=True) == encoded


# pydicom 3.0 leaves the escape sequences of ISO 2022 IR 58 in the text
@pytest.mark.parametrize(("terms", "encoded", "text"), [one for one in EXAMPLES if "IR 58" not in one[0]])
def test_pydicom_reads_what_is_written(terms: str, encoded: bytes, text: str) -> None:
    written = character_set(terms.encode()).encode(text, is_name=True)
    assert written is not None
    codecs = convert_encodings(terms.split("\\"))
    assert decode_bytes(written, codecs, {0x5C, 0x5E, 0x3D}) == text


def test_a_delimiter_returns_to_the_first_set() -> None:
    mixed = character_set(b"ISO 2022 IR 144\\ISO 2022 IR 100")
    assert mixed.decode(b"\x1b-A\xe9\\\xd2", is_name=False) == "é\\в"


def test_a_backslash_byte_inside_a_character_is_no_delimiter() -> None:
    text = "誠\\乗"
    encoded = text.encode("gb18030")
    assert CharacterSet(("GB18030",)).decode(encoded) == text
    kanji = "太郎と次郎"
    jis = character_set(b"\\ISO 2022 IR 87")
    assert jis.decode(jis.encode(kanji) or b"") == kanji


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        ("", "Müller".encode(), "Müller"),  # UTF-8 without a label
        ("", "Müller".encode("latin_1"), "Müller"),
        ("ISO_IR 192", "Müller".encode("latin_1"), "Müller"),
        ("ISO_IR 999", "Müller".encode(), "Müller"),
        ("\\ISO 2022 IR 87", b"\x1b$B;3E", "\x1b$B;3E"),  # cut off
        ("\\ISO 2022 IR 87", b"\x1b%/1", "\x1b%/1"),
        ("GB18030", b"\xcd", "Í"),
        ("ISO_IR 6", b"\xff\xfe", "ÿþ"),
    ],
)
def test_a_wrong_label_loses_nothing(terms: str, raw: bytes, text: str) -> None:
    assert character_set(terms.encode()).decode(raw) == text


@pytest.mark.parametrize("slip", ["ISO-IR 100", "ISO_IR_100", "ISO IR 100", "iso_ir 100", " ISO_IR 100 "])
def test_slips_in_the_label_are_understood(slip: str) -> None:
    assert character_set(slip.encode()).terms == ("ISO_IR 100",)


def test_what_a_set_cannot_hold_is_not_written_in_it() -> None:
    assert CharacterSet().encode("é") is None
    assert CharacterSet(("ISO_IR 100",)).encode("山") is None
    assert of_terms(["", "ISO 2022 IR 87"]).encode("Ж한", is_name=True) is None
    assert of_terms(["", "ISO 2022 IR 149"]).encode("홍", is_name=True) == b"\x1b$)C\xc8\xab"
    assert UTF_8.encode("Ж한é") == "Ж한é".encode()


def test_only_sets_that_go_together_are_repeated_in_answers() -> None:
    assert of_terms(["", "ISO 2022 IR 87"]).is_standard
    assert of_terms(["ISO 2022 IR 13", "ISO 2022 IR 87"]).is_standard
    assert of_terms(["GB18030"]).is_standard
    assert not of_terms(["ISO_IR 192", "ISO 2022 IR 87"]).is_standard
    assert not of_terms(["ISO_IR 100", "ISO 2022 IR 87"]).is_standard
