"""What the index will say of an instance, worked out before the transaction that says it."""

from __future__ import annotations

from functools import cached_property
from operator import itemgetter

from node.index import character_set
from node.index.attributes import COLUMNS, IDENTITY_KEYWORDS, QueryLevel
from node.index.index_values import (
    SPECIFIC_CHARACTER_SET,
    header_values,
    is_kept,
    kept_header,
    keyword_and_vr,
    raw_text,
)
from node.ingest.header import Header, identifying_uids
from node.ingest.header_memory import Shared

_STUDY_KEYWORDS = (*COLUMNS[QueryLevel.STUDY], *IDENTITY_KEYWORDS)
_SERIES_KEYWORDS = COLUMNS[QueryLevel.SERIES]
_IMAGE_KEYWORDS = COLUMNS[QueryLevel.IMAGE]
_ABOVE_KEYWORDS = frozenset({*_STUDY_KEYWORDS, *_SERIES_KEYWORDS})
_of_image = itemgetter(*_IMAGE_KEYWORDS)


class _Texts:
    """Texts by keyword, and what follows from them alone; never changed."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.kept = kept_header(values)
        self.of_study = tuple(map(values.get, _STUDY_KEYWORDS))
        self.of_series = tuple(map(values.get, _SERIES_KEYWORDS))
        self.of_image = {keyword: values.get(keyword, "") for keyword in _IMAGE_KEYWORDS}
        self._compared: tuple[dict[str, str], dict[str, str], frozenset[str]] | None = None

    def compare(self, series_header: dict[str, str]) -> tuple[dict[str, str], frozenset[str]]:
        """The kept texts that are not those of a series, and the keywords that only the series has."""
        compared = self._compared
        if compared is None or compared[0] is not series_header:
            changed = {word: text for word, text in self.kept.items() if series_header.get(word) != text}
            compared = series_header, changed, frozenset(series_header.keys() - self.kept.keys())
            self._compared = compared
        return compared[1:]


class _Common:
    """Texts of the elements that headers have in common, and how to read their other elements."""

    def __init__(self, shared: Shared) -> None:
        elements, uids = shared.elements, shared.made(identifying_uids)
        character_set_element = elements.get(SPECIFIC_CHARACTER_SET)
        self.charset = character_set.character_set(character_set_element[1] if character_set_element else b"")
        self.order = "<" if shared.is_little_endian else ">"
        self.texts = _Texts({**header_values(elements, self.charset, self.order), **uids})
        self.has_uids_above = {"SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"} <= uids.keys()


class Entry:
    """The text of an instance's header, by keyword.

    What headers of a series have in common is worked out once for all of them.

    Attributes
    ----------
    study_instance_uid, series_instance_uid : str
        To which it belongs.
    of_study, of_series : tuple of str
        What it says of its study with its patient, and of its series; in a fixed order, to be compared
        with what other instances say.
    of_image : tuple of str
        The columns of its own level.
    """

    def __init__(self, header: Header, common: _Texts, own: dict[str, str]) -> None:
        self._common = common
        self._own = own
        self.study_instance_uid = header.study_instance_uid
        self.series_instance_uid = header.series_instance_uid
        self.of_image: tuple[str, ...] = _of_image(common.of_image | own)
        if own.keys().isdisjoint(_ABOVE_KEYWORDS):
            self.of_study, self.of_series = common.of_study, common.of_series
        else:
            self.of_study = tuple(map(self.values.get, _STUDY_KEYWORDS))
            self.of_series = tuple(map(self.values.get, _SERIES_KEYWORDS))

    @classmethod
    def of(cls, header: Header) -> Entry:
        """Read it from a header."""
        return cls._of_shared(header, header.shared) or cls._of_all(header)

    @classmethod
    def _of_shared(cls, header: Header, shared: Shared | None) -> Entry | None:
        """Read only what the header does not share; None where that says how the rest is to be read."""
        if shared is None or SPECIFIC_CHARACTER_SET in header.own:
            return None
        common = shared.made(_Common)
        charset, order = common.charset, common.order
        own: dict[str, str] = {}
        for tag, (vr, raw, _) in header.own.items():
            keyword, dictionary_vr = keyword_and_vr(tag)
            if keyword:
                text = raw_text(raw, vr or dictionary_vr, charset, order)
                if text is not None:
                    own[keyword] = text
        own["SOPInstanceUID"] = header.sop_instance_uid
        # Repeating groups have one keyword for several tags, of which the last counts.
        is_apart = common.has_uids_above and own.keys().isdisjoint(common.texts.values)
        return cls(header, common.texts, own) if is_apart else None

    @classmethod
    def _of_all(cls, header: Header) -> Entry:
        charset = character_set.character_set(header.value(SPECIFIC_CHARACTER_SET))
        values = header_values(header.elements, charset, "<" if header.is_little_endian else ">")
        values["SOPInstanceUID"] = header.sop_instance_uid
        values["SOPClassUID"] = header.sop_class_uid
        values["SeriesInstanceUID"] = header.series_instance_uid
        values["StudyInstanceUID"] = header.study_instance_uid
        return cls(header, _Texts(values), {})

    @cached_property
    def values(self) -> dict[str, str]:
        """All of it, as ``header_values`` gives it."""
        return self._common.values | self._own

    @cached_property
    def kept(self) -> dict[str, str]:
        """The values that are kept for each instance."""
        return kept_header(self.values)

    def difference(self, series_header: dict[str, str]) -> dict[str, str]:
        """Return what has to be laid over the header of the series to give ``kept``."""
        own = self._own
        changed, missing = self._common.compare(series_header)
        difference = changed.copy()
        for keyword, text in own.items():
            if is_kept(text) and series_header.get(keyword) != text:
                difference[keyword] = text
        for keyword in missing:
            if not is_kept(own.get(keyword, "")):
                difference[keyword] = ""
        return difference
