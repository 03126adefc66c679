"""Which series an analysis is given: the one that it was started for, others of the study, and priors."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.base import Need
from node import analysis_runs
from node.analysis_runs import COMPLETED, INCOMPLETE
from node.config.settings import AnalysisConfig, Patterns
from node.errors import UnfitInput
from node.index import priors
from node.index.index import Index, StoredInstance
from node.index.matching_rules import attributes_of
from node.series.matching import why_no_input

Chosen = Mapping[str, Sequence[StoredInstance]]
"""For each input, by the name of the need, its instances; the primary one first."""

_MOST_REASONS = 3
_MOST_CANDIDATES = 6


@dataclass(frozen=True)
class Selected:
    """What an analysis is given, and in words with which earlier studies that compares the series."""

    inputs: Chosen
    compared: str = ""


def choose(
    index: Index,
    connection: sqlite3.Connection,
    analysis: AnalysisConfig,
    needs: Sequence[Need],
    study_instance_uid: str,
    series_instance_uid: str,
) -> Selected:
    """Find the inputs of an analysis of a series, as they are now.

    Of several series of the study that match, the one in the Frame of Reference of the primary is
    taken; of several of an earlier study, the one with its Series Description. A prior is of the latest
    earlier study of the same patient that has a series which matches; without patterns for it, those of
    the analysis count. A result of this node is taken where it is of the primary series, or of one of the
    earlier study, and its analysis has not been repeated since. An optional input that is not there is
    left out.

    Parameters
    ----------
    index, connection
        where the series are looked for
    analysis
        its ``when``, ``inputs`` and ``priors``
    needs
        of the model, the primary first
    study_instance_uid, series_instance_uid
        of the primary

    Raises
    ------
    UnfitInput
        the series is empty, or an input cannot be told or is missing
    """
    finder = _Finder(index, connection, study_instance_uid, series_instance_uid)
    primary = finder.primary_instances()
    chosen = {needs[0].name if needs else "": primary}
    for need in needs[1:]:
        is_prior = need.comes_from == "prior"
        patterns: Patterns | None = (analysis.priors if is_prior else analysis.inputs).get(need.name)
        if is_prior and patterns is None:
            patterns = attributes_of(analysis.when)
        if patterns is None:
            if need.is_optional:
                continue
            raise UnfitInput(f"the configuration does not say which series the input '{need.name}' is")
        found = finder.prior(need, patterns) if is_prior else finder.other(need, patterns)
        if found:
            chosen[need.name] = found
    return Selected(chosen, finder.compared(sum(need.comes_from == "prior" for need in needs)))


class _Finder:
    """Looks for further series beside a primary one."""

    def __init__(
        self, index: Index, connection: sqlite3.Connection, study_instance_uid: str, series_instance_uid: str
    ) -> None:
        self._index = index
        self._connection = connection
        self._study = study_instance_uid
        self._series = series_instance_uid
        self._compared: dict[str, str] = {}

    def compared(self, priors_needed: int) -> str:
        """With which earlier studies the series is compared, or why with none; empty without such inputs."""
        named = priors_needed > 1
        return "; ".join(f"{name}: {told}" if named else told for name, told in self._compared.items())

    def primary_instances(self) -> list[StoredInstance]:
        """Instances of the primary series that came from outside."""
        found = [one for one in self._instances(self._study, self._series) if not one.is_own]
        if not found:
            raise UnfitInput("the series holds no instances that came from outside")
        return found

    def other(self, need: Need, patterns: Patterns) -> list[StoredInstance]:
        """Instances of the one series of the study that matches; none where an optional one is missing."""
        headers = self._headers(self._study)
        others = [one for one in headers if one["SeriesInstanceUID"] != self._series]
        matching, reasons = self._matching(self._study, patterns, others)
        matching = self._like_primary(matching, "FrameOfReferenceUID")
        if len(matching) > 1:
            raise UnfitInput(f"{len(matching)} series match the input '{need.name}': {_candidates(matching)}")
        if matching:
            return self._of(self._study, matching[0])
        if need.is_optional:
            return []
        told = "; ".join(reasons[:_MOST_REASONS]) or "there is no other series"
        raise UnfitInput(f"no series of the study matches the input '{need.name}': {told}")

    def prior(self, need: Need, patterns: Patterns) -> list[StoredInstance]:
        """As ``other``, of the latest earlier study of the patient that has a series which matches."""
        earlier = priors.earlier_studies(self._connection, self._study)
        reasons: list[str] = []
        for study_instance_uid in earlier:
            matching, why = self._matching(study_instance_uid, patterns, self._headers(study_instance_uid))
            reasons += [one for one in why if one not in reasons]
            matching = self._like_primary(matching, "SeriesDescription")
            if len(matching) > 1:
                raise UnfitInput(
                    f"{len(matching)} series of one earlier study match the input '{need.name}': "
                    f"{_candidates(matching)}"
                )
            if matching:
                date = priors.date_of(self._connection, study_instance_uid)
                self._compared[need.name] = f"compared with the study of {date}"
                return self._of(study_instance_uid, matching[0])
        told = "no earlier study that is known to be of the same patient is here"
        if earlier:
            which = "the earlier study" if len(earlier) == 1 else f"none of {len(earlier)} earlier studies"
            has_none = "has no series" if len(earlier) == 1 else "has a series"
            told = f"{which} of the patient {has_none} that matches: {'; '.join(reasons[:_MOST_REASONS])}"
        if need.is_optional:
            self._compared[need.name] = f"no prior: {told}"
            return []
        raise UnfitInput(f"the input '{need.name}' is missing: {told}")

    def _headers(self, study_instance_uid: str) -> list[dict[str, str]]:
        return self._index.series_headers(self._connection, study_instance_uid)

    def _matching(
        self, study_instance_uid: str, patterns: Patterns, headers: Sequence[dict[str, str]]
    ) -> tuple[list[dict[str, str]], list[str]]:
        """Headers that match, and why the others do not; of this node's results those that still hold."""
        matching: list[dict[str, str]] = []
        reasons = []
        for header in headers:
            reason = why_no_input(patterns, header)
            if not reason and header.get("is_own"):
                reason = self._why_no_result(study_instance_uid, header)
            if reason:
                reasons.append(reason)
            else:
                matching.append(header)
        return matching, list(dict.fromkeys(reasons))

    def _why_no_result(self, study_instance_uid: str, header: Mapping[str, str]) -> str:
        """Why what this node made says nothing of the primary, or of its series as that is now."""
        run = self._instances(study_instance_uid, header["SeriesInstanceUID"])[0].provenance.run
        if run is None:
            return "it is not known of which series this node made it"
        if study_instance_uid == self._study and run.series_instance_uid != self._series:
            return f"the result of {run.analysis} is of another series"
        standing = analysis_runs.standing(
            self._connection, study_instance_uid, run.series_instance_uid, run.analysis
        )
        if standing is None or standing["state"] not in (COMPLETED, INCOMPLETE):
            return f"{run.analysis} has no result for the series as it is now"
        return "" if standing["revision"] == run.revision else f"a later result of {run.analysis} replaces it"

    def _like_primary(self, headers: list[dict[str, str]], keyword: str) -> list[dict[str, str]]:
        """Of several headers those in which an attribute is as in the primary, or all when none is."""
        if len(headers) < 2:
            return headers
        primary = next(one for one in self._headers(self._study) if one["SeriesInstanceUID"] == self._series)
        wanted = primary.get(keyword, "")
        return [one for one in headers if wanted and one.get(keyword, "") == wanted] or headers

    def _of(self, study_instance_uid: str, header: Mapping[str, str]) -> list[StoredInstance]:
        found = self._instances(study_instance_uid, header["SeriesInstanceUID"])
        # In a series from outside, what this node made counts not.
        return [one for one in found if header.get("is_own") or not one.is_own]

    def _instances(self, study_instance_uid: str, series_instance_uid: str) -> list[StoredInstance]:
        found = self._index.of_series(self._connection, series_instance_uid)
        return [one for one in found if one.study_instance_uid == study_instance_uid]


def _candidates(headers: Sequence[Mapping[str, str]]) -> str:
    """Series by what a person knows them by: their numbers and modalities."""
    told = [
        f"number {one.get('SeriesNumber') or '(none)'} ({one.get('Modality') or 'no modality'})"
        for one in headers[:_MOST_CANDIDATES]
    ]
    return ", ".join([*told, "…"] if len(headers) > _MOST_CANDIDATES else told)
