"""Row of the index: whether the instances that it holds already slow C-STORE down."""

from __future__ import annotations

import hashlib
import math
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import ClassVar

from benchmarks import receiving, sending
from benchmarks.anode import Anode
from benchmarks.figures import Case, Target
from benchmarks.images import Images, Series, fresh_uid
from benchmarks.options import Options
from benchmarks.own_sender import data_set_of
from benchmarks.rounds import come_to_rest, tell
from node.clock import Clock
from node.config.settings import LimitsConfig
from node.index import database, schema
from node.index.database import Database
from node.index.entry import Entry
from node.index.index import Index, StoredInstance
from node.ingest.header import read_header
from node.storage.location import Location

FULL = "anode, full index"
_SERIES_OF_STUDY = 2
_SERIES_OF_PART = 8
_PARTS_AHEAD = 4
_READERS = 2
_OF_EMPTY = 0.9
_COUNTS = (1, 4)


def index(options: Options, images: Images) -> Generator[Case, None, None]:
    """C-STORE of CT images to a node whose index is full, beside one that was empty when it began."""
    folder = options.folder / "index"
    with ExitStack() as running:
        empty, full = Anode(folder / "empty"), Anode(folder / "full", name=FULL)
        running.enter_context(empty)
        running.enter_context(full)
        template = images.ct(1, options.instances)[0]
        receiving.warm_up([empty, full], options, images)
        sending.storescu(full, [template])
        come_to_rest([empty, full])
        full.stop()
        file = full.data_dir / database.FILE_NAME
        how = _filled(file, template, options)
        full.start()
        notes = (
            f"{full.received():,} instances in the full index, {file.stat().st_size / 1e9:.2f} GB; {how}",
        )
        for associations in sorted({*_COUNTS} & {*options.associations}):
            case = receiving.compare(
                options,
                [full, empty],
                images.ct(associations, options.instances),
                row="index",
                title=receiving.associations(associations),
                targets=(Target(FULL, "anode", _OF_EMPTY),),
            )
            yield replace(case, notes=notes)


def _filled(file: Path, series: Series, options: Options) -> str:
    """Fill the index of a stopped node, or take one that was filled before; say how."""
    kept = None if options.index_cache is None else options.index_cache / _cache_name(options.index_rows)
    if kept is not None and kept.exists():
        shutil.copyfile(kept, file)
        return "filled before"
    tell(f"filling an index with {options.index_rows:,} instances")
    start = time.perf_counter()
    index_database = Database(file, clock=Clock(), schema=schema.STATEMENTS)
    try:
        _fill(index_database, series, options.index_rows)
    finally:
        index_database.close()
    seconds = time.perf_counter() - start
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, kept)
    return f"filled in {seconds:.0f} s"


def _cache_name(rows: int) -> str:
    """Name of a filled index; another one when the rooms that write rows have changed."""
    sources = sorted(Path(schema.__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return f"index-{rows}-{digest[:12]}.sqlite"


def _settled(index_database: Database, series: Series) -> list[StoredInstance]:
    """What the node has made of each image of a series that it was sent and has settled."""
    with index_database.read() as connection:
        held = {
            stored.sop_instance_uid: stored
            for stored in Index(Clock()).of_study(connection, series.study_instance_uid)
        }
    return [held[sop_instance_uid] for sop_instance_uid in series.sop_instance_uids]


def _fill(index_database: Database, series: Series, rows: int) -> None:
    """Add ``rows`` instances as the node itself adds them: headers read, rows written.

    Other processes read headers ahead, while the rows of those before are written.
    """
    settled = _settled(index_database, series)
    wanted = math.ceil(rows / len(settled))
    parts = [
        range(start, min(start + _SERIES_OF_PART, wanted)) for start in range(0, wanted, _SERIES_OF_PART)
    ]
    index = Index(Clock())
    with ProcessPoolExecutor(_READERS, initializer=_Reader.begin, initargs=(series,)) as pool:
        ahead = deque(pool.submit(_Reader.read, part) for part in parts[:_PARTS_AHEAD])
        for following in chain(parts[_PARTS_AHEAD:], repeat(None)):
            if not ahead:
                break
            entries = ahead.popleft().result()
            if following is not None:
                ahead.append(pool.submit(_Reader.read, following))
            index_database.write(partial(_add, index=index, entries=entries, settled=settled))


def _add(
    connection: sqlite3.Connection,
    *,
    index: Index,
    entries: Sequence[Entry],
    settled: Sequence[StoredInstance],
) -> None:
    for entry, like in zip(entries, cycle(settled), strict=False):
        digest = hashlib.sha256(entry.values["SOPInstanceUID"].encode()).hexdigest()
        stored = replace(
            like,
            sop_instance_uid=entry.values["SOPInstanceUID"],
            series_instance_uid=entry.values["SeriesInstanceUID"],
            study_instance_uid=entry.values["StudyInstanceUID"],
            data_set_sha256=digest,
            location=Location("archive", f"{digest[:2]}/{digest[2:4]}/{digest}.dcm"),
        )
        # Remembered before the commit, as if each had one of its own: should this one fail, so does the run.
        index.remember(entry, stored, index.add(connection, entry, stored))


class _Reader:
    """Reads headers of series like one that it is given, in a process of its own."""

    _headers: ClassVar[list[bytes]] = []
    _series: ClassVar[Series]

    @classmethod
    def begin(cls, series: Series) -> None:
        """Keep the bytes before the pixels of each image."""
        cls._series = series
        for path in series.paths:
            data_set = data_set_of(path)
            header = read_header(data_set, series.transfer_syntax_uid, LimitsConfig())
            cls._headers.append(data_set[: header.pixel_data_offset])

    @classmethod
    def read(cls, numbers: Sequence[int]) -> list[Entry]:
        """Entries of the series of these numbers; two of each study, and each study of another patient."""
        return [entry for number in numbers for entry in cls._of_series(number)]

    @classmethod
    def _of_series(cls, number: int) -> Iterator[Entry]:
        study_number = number // _SERIES_OF_STUDY
        names = {
            cls._series.study_instance_uid: _uid("3", study_number),
            cls._series.series_instance_uid: _uid("2", number),
            cls._series.patient_id: f"PATIENT-{study_number:08}",
            "Benchmark^Made": f"Made{study_number % 5000:05}^Made",
            "20240229": f"{2010 + study_number % 15}{1 + study_number % 12:02}{1 + study_number % 28:02}",
        }
        for encoded, sop_instance_uid in zip(cls._headers, cls._series.sop_instance_uids, strict=True):
            changed = encoded.replace(sop_instance_uid.encode(), fresh_uid().encode())
            for text, other in names.items():
                changed = changed.replace(text.encode(), other.encode())
            header = read_header(changed, cls._series.transfer_syntax_uid, LimitsConfig())
            yield Entry.of(header)


def _uid(kind: str, number: int) -> str:
    """A UID of 44 characters that does not look like its neighbours."""
    digest = int.from_bytes(hashlib.sha256(f"{kind} {number}".encode()).digest()[:15], "big")
    return f"2.25.{kind}{digest:038}"
