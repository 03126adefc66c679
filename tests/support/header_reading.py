"""Reading a header as it comes in, and holding two readings of it against each other."""

from __future__ import annotations

import io
from dataclasses import replace

from node.config.settings import LimitsConfig
from node.errors import ObjectError
from node.index.entry import Entry
from node.ingest.header import Header, HeaderReader
from node.ingest.header_memory import HeaderMemory


def read(
    encoded: bytes, syntax: str, start_bytes: int | None, memory: HeaderMemory | None, limits: LimitsConfig
) -> Header | tuple[type, str]:
    reader = HeaderReader(syntax, limits, memory)
    try:
        if start_bytes is not None:
            reader.read_start(encoded[:start_bytes])
        reader.check_rest(io.BytesIO(encoded))
        return reader.header
    except ObjectError as error:
        return type(error), str(error)


def check_same(remembered: Header | tuple, fresh: Header | tuple, series_header: dict[str, str]) -> None:
    """Compare outcomes, and what the index makes of them; the series header becomes that of the first."""
    if isinstance(remembered, tuple) or isinstance(fresh, tuple):
        assert remembered == fresh
        return
    assert replace(remembered, own=remembered.elements, shared=None, places=()) == fresh
    assert list(remembered.elements) == list(fresh.elements)
    assert all(remembered.value(tag) == fresh.value(tag) for tag in fresh.elements)
    one, other = Entry.of(remembered), Entry.of(fresh)
    assert one.values == other.values
    assert one.kept == other.kept
    assert one.of_study == other.of_study
    assert one.of_series == other.of_series
    assert one.of_image == other.of_image
    if not series_header:
        series_header.update(other.kept)
    difference = one.difference(series_header)
    assert difference == other.difference(series_header)
    laid_over = {**series_header, **difference}
    assert {keyword: text for keyword, text in laid_over.items() if text} == other.kept
