"""Analyses that come ``after`` others: what has to be over first, and whose turn is next.

An analysis is *over* for a revision of a study when it has fired for it, and neither its selection nor one
of its runs waits, is under way or is parked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from node.config.settings import AnalysisConfig


def waits_for(
    analysis: AnalysisConfig, revision: int, fired: Mapping[str, int], unfinished: Collection[str]
) -> list[str]:
    """Those that ``analysis`` comes after and that are not over for ``revision``.

    ``fired`` has the revision for which each has fired last, ``unfinished`` those that have jobs.
    """
    return [one for one in analysis.after if fired.get(one) != revision or one in unfinished]


def next_of(ready: Sequence[AnalysisConfig], analyses: Sequence[AnalysisConfig]) -> list[AnalysisConfig]:
    """Those of ``ready`` that come after no other of them: what does has its turn when that is over."""
    names = {one.name for one in ready}
    return [one for one in ready if not names & _before(one, analyses)]


def _before(analysis: AnalysisConfig, analyses: Sequence[AnalysisConfig]) -> set[str]:
    """All that have to be over before one, those that these wait for included."""
    after = {one.name: one.after for one in analyses}
    found: set[str] = set()
    ahead = [*analysis.after]
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += after.get(one, ())
    return found
