"""Bytes of a data set, to the reader of headers: alone, with a memory of its series, and by pydicom.

An input is two bytes that choose, then the data set. Whatever it is, the reader raises nothing but what is
the sender's fault; with and without memory the header is the same; and where pydicom reads the data set
as well, it finds the same elements with the same bytes.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydicom import config as pydicom_config
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from node.config.settings import LimitsConfig
from node.errors import InvalidUid, LimitExceeded, MalformedDataSet
from node.index.attributes import COLUMNS
from node.index.entry import Entry
from node.index.index_values import HEADER_VALUE_CHARACTERS, VALUE_CHARACTERS
from node.ingest.elements import PIXEL_DATA_TAGS, vr_of
from node.ingest.header import Header
from node.ingest.header_memory import HeaderMemory
from node.undecodable import UNDECODABLE_IN_MEMORY
from tests.support import header_reading, made

LIMITS = LimitsConfig(nesting_depth=6, header_bytes=1 << 14, instance_bytes=1 << 17)
#: By the first byte of an input. A deflated data set is deflated here where the last one is chosen, so that
#: what is inside can be changed.
SYNTAXES = (
    str(uid.ImplicitVRLittleEndian),
    str(uid.ExplicitVRLittleEndian),
    str(uid.ExplicitVRBigEndian),
    str(uid.RLELossless),
    str(uid.DeflatedExplicitVRLittleEndian),
    str(uid.DeflatedExplicitVRLittleEndian),
)
_DEFLATED_HERE = 5
#: Whether VRs are absent, and the byte order, of each.
ENCODINGS = ((True, "<"), (False, "<"), (False, ">"), (False, "<"), (False, "<"), (False, "<"))
CHOICE_BYTES = 2
_ONE_BY_PYDICOM_OF = 4
_KEYWORDS = frozenset().union(*COLUMNS.values())


class Fault(AssertionError):
    """The reader did what it must never do."""


def image(number: int) -> Dataset:
    """An image of the series that the memory has seen."""
    return made.ct_image(
        pixels=made.np.arange(16, dtype="<i2").reshape(4, 4),
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        sop_instance_uid=f"1.2.3.4.{number}",
        InstanceNumber=number,
        SliceLocation=str(number * 1.5),
    )


@cache
def _series(syntax: str) -> tuple[bytes, ...]:
    return tuple(made.encoded(image(number), syntax) for number in (1, 2))


class HeaderTarget:
    """Runs inputs, between ``__enter__`` and ``__exit__``; for one thread."""

    name = "header"

    def __init__(self) -> None:
        self._warnings = warnings.catch_warnings()
        self._memories: dict[str, HeaderMemory] = {}

    def __enter__(self) -> HeaderTarget:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        self._mode = pydicom_config.settings.reading_validation_mode
        pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
        return self

    def __exit__(self, *_: object) -> None:
        pydicom_config.settings.reading_validation_mode = self._mode
        self._warnings.__exit__(None, None, None)

    def know(self, inputs: Iterable[bytes]) -> None:
        """Run the inputs of the corpus."""
        for data in inputs:
            self.run(data)

    def run(self, data: bytes) -> Any:
        """Run one input; raises Fault, or whatever else the reader should not have raised."""
        return self._run(data, by_pydicom=zlib.crc32(data) % _ONE_BY_PYDICOM_OF == 0)

    def run_thoroughly(self, data: bytes) -> Any:
        """Run one input, and read it by pydicom in any case."""
        return self._run(data, by_pydicom=True)

    def _run(self, data: bytes, *, by_pydicom: bool) -> Any:
        if len(data) <= CHOICE_BYTES:
            return None
        choice = data[0] % len(SYNTAXES)
        syntax, plain = SYNTAXES[choice], data[CHOICE_BYTES:]
        encoded = _deflated(plain) if choice == _DEFLATED_HERE else plain
        start_bytes = None if data[1] == 0 else len(encoded) * data[1] // 255
        fresh = header_reading.read(encoded, syntax, start_bytes, None, LIMITS)
        remembered = header_reading.read(encoded, syntax, start_bytes, self._memory_of(syntax), LIMITS)
        if isinstance(remembered, Header) and remembered.shared is None:
            del self._memories[syntax]  # it has learnt something else
        header_reading.check_same(remembered, fresh, {})
        if isinstance(fresh, tuple):
            if fresh[0] not in (MalformedDataSet, InvalidUid, LimitExceeded):
                raise Fault(f"{fresh} is not the sender's fault")
            return fresh
        self._check_texts(Entry.of(fresh))
        if by_pydicom and choice != 4:
            self._check_by_pydicom(fresh, plain)
        return fresh

    def _memory_of(self, syntax: str) -> HeaderMemory:
        """A memory that has seen the first images of the series, and nothing else."""
        memory = self._memories.get(syntax)
        if memory is None:
            memory = self._memories[syntax] = HeaderMemory()
            for before in _series(syntax):
                header_reading.read(before, syntax, None, memory, LIMITS)
        return memory

    def _check_texts(self, entry: Entry) -> None:
        for keyword, text in entry.values.items():
            if not isinstance(text, str) or len(text) > VALUE_CHARACTERS:
                raise Fault(f"{keyword} is {text!r}")
            text.encode()  # SQLite takes no lone surrogates
        if any(len(text) > HEADER_VALUE_CHARACTERS for text in entry.kept.values()):
            raise Fault("a kept value is too long")

    def _check_by_pydicom(self, header: Header, plain: bytes) -> None:
        try:
            theirs = read_dataset(
                io.BytesIO(plain),
                is_implicit_VR=header.is_implicit,
                is_little_endian=header.is_little_endian,
                stop_when=lambda tag, vr, length: tag in PIXEL_DATA_TAGS,
            )
            elements = {int(element.tag): element for element in theirs.values()}
        except UNDECODABLE_IN_MEMORY:
            return  # what pydicom does not read
        if theirs.original_encoding != (header.is_implicit, header.is_little_endian):
            return  # it goes by the first element, against the transfer syntax
        if header.is_implicit and any(
            vr == "SQ" and vr_of(tag) not in ("SQ", None) for tag, (vr, _, _) in header.elements.items()
        ):
            return  # it looks for the first delimiter in what should be no sequence, nested or not
        entry = Entry.of(header)
        for tag, (vr, value, _) in header.elements.items():
            element = elements.get(tag)
            if not isinstance(element, RawDataElement) or vr == "SQ":
                continue
            if (element.value or b"") != value:
                raise Fault(f"{tag:08X} is {value!r}, and {element.value!r} by pydicom")
        for keyword in _KEYWORDS & entry.values.keys():
            self._check_value(keyword, entry.values[keyword], theirs)

    def _check_value(self, keyword: str, text: str, theirs: Dataset) -> None:
        """Compare the texts that mean themselves; dates and numbers are normalised."""
        try:
            element = theirs[keyword]
        except UNDECODABLE_IN_MEMORY:
            return
        if element.VR not in ("UI", "CS", "AE", "LO", "SH") or not text.isascii() or not text.isprintable():
            return
        value = element.value
        values = [value] if isinstance(value, str) else list(value or [])
        said = "\\".join(str(one).strip(" \0") for one in values)
        if said.isascii() and "\x1b" not in said and said != text:
            raise Fault(f"{keyword} is {text!r}, and {said!r} by pydicom")


def _deflated(plain: bytes) -> bytes:
    deflate = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return deflate.compress(plain) + deflate.flush()


def seeds() -> dict[str, bytes]:
    """Made-up data sets in every transfer syntax, some of them ugly."""
    text = made.instance(
        study_instance_uid="1.2.3", series_instance_uid="1.2.3.5", sop_instance_uid="1.2.3.5.1",
        SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        OtherPatientIDs=["A", "B"], PatientComments="two\nlines", StudyDate="2024.01.01", StudyTime="10:30",
    )  # fmt: skip
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2", "1.3"
    item.ReferencedImageSequence = [Dataset()]
    nested = image(4)
    nested.ReferencedImageSequence = [item, Dataset()]
    nested.add_new(0x00090010, "LO", "SOMEBODY")
    nested.add_new(0x00091001, "DS", "1.5")
    nested.add_new(0x00091002, "UN", b"\1\2\3\4")
    undefined = image(5)
    undefined.ReferencedImageSequence = [item]
    undefined["ReferencedImageSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    colour = made.colour_image(
        pixels=made.np.zeros((2, 2, 3), "u1"),
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.6",
        sop_instance_uid="1.2.3.6.1",
    )
    written = {
        "image": (0, image(3)),
        "text": (255, text),
        "nested": (100, nested),
        "undefined": (0, undefined),
        "colour": (200, colour),
    }
    found = {}
    for choice, syntax in enumerate(SYNTAXES):
        as_written = uid.ExplicitVRLittleEndian if choice == _DEFLATED_HERE else syntax
        for name, (start, data_set) in written.items():
            if "PixelData" in data_set or syntax != uid.RLELossless:
                found[f"made-{choice}-{name}"] = bytes([choice, start]) + made.encoded(data_set, as_written)
    return found
