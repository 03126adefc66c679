"""An index filled from data sets, without storage or network."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.clock import Clock
from node.config.settings import LimitsConfig
from node.index import schema
from node.index.database import Database
from node.index.entry import Entry
from node.index.index import Index, Provenance, StoredInstance
from node.ingest.header import Header, read_header
from node.query import query
from node.query.answers import Answers
from node.storage import archive
from node.storage.location import Location
from tests.support import made

_offsets = itertools.count(4096)


def header_of(data_set: Dataset, transfer_syntax_uid: str = uid.ExplicitVRLittleEndian) -> Header:
    """The header as ingest reads it from the wire."""
    return read_header(made.encoded(data_set, transfer_syntax_uid), transfer_syntax_uid, LimitsConfig())


def header_of_file(path: Path) -> Header:
    """The header of a Part 10 file."""
    content = path.read_bytes()
    file = BytesIO(content)
    data_set = content[archive.data_set_offset(file) :]
    return read_header(data_set, archive.transfer_syntax_uid(file), LimitsConfig())


def stored_of(
    header: Header, *, segment: str = "00000001", is_own: bool = False, received_at: float = 1000.0
) -> StoredInstance:
    """A row for it that says it lies in the receive log."""
    return StoredInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        series_instance_uid=header.series_instance_uid,
        study_instance_uid=header.study_instance_uid,
        received_transfer_syntax_uid=header.transfer_syntax_uid,
        stored_transfer_syntax_uid=header.transfer_syntax_uid,
        data_set_sha256=hashlib.sha256(header.sop_instance_uid.encode()).hexdigest(),
        data_set_bytes=1000,
        location=Location("log", segment, next(_offsets), 1000),
        is_settled=False,
        kept_reason="",
        proof=None,
        is_own=is_own,
        provenance=Provenance("SCANNER", "ANODE", "127.0.0.1", 7, received_at, is_own),
    )


class Indexed:
    """A database with an index; ``add`` takes data sets or headers."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "index.sqlite", clock=Clock(), schema=schema.STATEMENTS)
        self.index = Index(Clock())

    def add(self, *instances: Dataset | Header, is_own: bool = False) -> list[StoredInstance]:
        added = []
        for instance in instances:
            header = header_of(instance) if isinstance(instance, Dataset) else instance
            stored = stored_of(header, is_own=is_own)
            self.database.write(
                lambda connection, header=header, stored=stored: self.index.add(
                    connection, Entry.of(header), stored
                )
            )
            added.append(stored)
        return added

    def find(self, identifier: Dataset, model: query.Model = "study") -> list[Dataset]:
        parsed = query.parse_identifier(identifier, model)
        return list(Answers(self.database, parsed, ae_title="ANODE").data_sets())

    def rows(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(statement, values)]


@contextmanager
def indexed(folder: Path, instances: Iterable[Dataset | Header] = ()) -> Iterator[Indexed]:
    """An index that holds ``instances``."""
    filled = Indexed(folder)
    try:
        filled.add(*instances)
        yield filled
    finally:
        filled.database.close()


def identifier(level: str, *, charset: str = "ISO_IR 192", **keys: str | bytes) -> Dataset:
    """An Identifier as it comes from the wire; values are not looked at, text is written as UTF-8."""
    elements = {}
    for keyword, value in {"SpecificCharacterSet": charset, "QueryRetrieveLevel": level, **keys}.items():
        tag = Tag(tag_for_keyword(keyword))
        raw = value.encode() if isinstance(value, str) else value
        elements[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, False, True)
    data_set = Dataset(elements)
    data_set.set_original_encoding(False, True, "utf8")
    return data_set
