"""What ``when`` of a later analysis can ask for."""

from __future__ import annotations

from models.types import Code, Findings, Mark, Measurement, Segment
from node.found import FAILED, OF_REASON, OF_REGION, PASSED

#: Of a text, so much can be asked for.
_MOST_CHARACTERS = 200


def facts_of(findings: Findings) -> dict[str, tuple[str, ...]]:
    """What ``when`` of a later analysis can ask for: a name, and the words any of which may match.

    Numbers of the whole series and of each region (``left-lung.Volume``), answers by meaning and by code,
    and checks (``passed`` or ``failed``, and then the reason as ``complete.reason``). What two things are
    called alike has the words of both. What a failed check withholds has no words.
    """
    facts: dict[str, tuple[str, ...]] = {}

    def note(name: str, *words: str) -> None:
        facts[name] = (*facts.get(name, ()), *(word[:_MOST_CHARACTERS] for word in words))

    for one in findings.measurements:
        note(_name(one), f"{one.value:.15g}")
    for answer in findings.evaluations:
        note(answer.name or answer.concept.meaning, *_words(answer.value))
    for check in findings.checks:
        note(check.name, PASSED if check.passed else FAILED)
        if check.reason and not check.passed:
            note(check.name + OF_REASON, check.reason)
    regions: list[Segment | Mark] = [*findings.segments, *findings.marks]
    for region in regions:
        if isinstance(region, Mark) or region.mask.any():
            note(region.name, "found")
        for one in region.measurements:
            note(f"{region.name}.{_name(one)}", f"{one.value:.15g}")
        for answer in region.evaluations:
            note(f"{region.name}.{answer.name or answer.concept.meaning}", *_words(answer.value))
    for check in findings.checks:
        for name in () if check.passed else check.withholds:
            is_region = any(name == region.name for region in regions)
            facts.setdefault(name + OF_REGION if is_region else name, ())
    return facts


def _name(measurement: Measurement) -> str:
    """As a check's ``withholds`` names it."""
    return measurement.name or measurement.concept.meaning


def _words(value: Code | str) -> tuple[str, ...]:
    return (value.meaning, value.value) if isinstance(value, Code) else (value,)
