"""What a failed check withholds is taken out of the findings before any result is made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import TypeVar

from models.types import Check, Evaluation, Findings, Mark, Measurement, Segment

EVERYTHING = "*"
_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w|\.\d)")
_INSTEAD = "(withheld)"
# What may be rounded within the 28 digits of a decimal.
_MOST_DECIMALS, _LARGEST = 15, 10**12

Region = TypeVar("Region", Segment, Mark)


def withheld(findings: Findings) -> Findings:
    """Return ``findings`` without what their failed checks withhold; a second time changes nothing.

    A check names measurements and answers (``left-lung.Volume`` those of one region alone), or a
    segment or mark, which then loses its numbers and its answers with a probability but stays where it
    is, or an image, a transform or a picture, which goes. With ``*`` every number and every answer with
    a probability goes. A probability of a mark or of the voxels of a segment is a number, and so are the
    values of a map.

    What a model says in words may hold the number, too: wherever one stands in a text, as a whole or
    rounded, it is replaced, also in the reasons. A picture that the model drew may show it, so when a
    number is withheld the pictures are, and the checks name them.
    """
    names = {name for check in findings.checks if not check.passed for name in check.withholds}
    if not names:
        return findings
    numbers: list[float] = []
    segments = tuple(_region(one, names, numbers) for one in findings.segments)
    marks = tuple(_region(one, names, numbers) for one in findings.marks)
    measurements = _kept_measurements(findings.measurements, names, "", numbers)
    evaluations = _kept_evaluations(findings.evaluations, names, "", numbers)
    lost = tuple(one for one in findings.pictures if numbers or one.name in names)
    maps = tuple(one for one in findings.images if one.kind == "map" and EVERYTHING in names)
    without = replace(
        findings,
        segments=segments,
        marks=marks,
        measurements=measurements,
        evaluations=evaluations,
        checks=_naming(findings.checks, [*(one.name for one in lost), *(one.name for one in maps)]),
        images=tuple(
            one
            for one in findings.images
            if one.name not in names and not any(one is other for other in maps)
        ),
        transforms=tuple(one for one in findings.transforms if one.name not in names),
        pictures=tuple(one for one in findings.pictures if not any(one is other for other in lost)),
    )
    return _without_numbers(without, numbers) if numbers else without


def reasons(checks: Iterable[Check]) -> list[str]:
    """Return for each thing that failed checks withhold ``NAME withheld: REASON``."""
    return [
        f"{'every number' if name == EVERYTHING else name} withheld: {check.reason or check.name + ' failed'}"
        for check in checks
        if not check.passed
        for name in check.withholds
    ]


# --- what goes ---------------------------------------------------------------


def _region(region: Region, names: set[str], numbers: list[float]) -> Region:
    is_named = region.name in names or EVERYTHING in names
    measurements = _kept_measurements(
        region.measurements, {EVERYTHING} if is_named else names, region.name, numbers
    )
    evaluations = _kept_evaluations(
        region.evaluations, {EVERYTHING} if is_named else names, region.name, numbers
    )
    kept = replace(region, measurements=measurements, evaluations=evaluations)
    if not is_named or region.probability is None:
        return kept
    if isinstance(region, Mark):
        assert isinstance(region.probability, float | int)
        numbers += [region.probability, region.probability * 100]
    return replace(kept, probability=None)


def _kept_measurements(
    found: Sequence[Measurement], names: set[str], region: str, numbers: list[float]
) -> tuple[Measurement, ...]:
    kept = []
    for one in found:
        if EVERYTHING in names or _is_named(one.name or one.concept.meaning, region, names):
            numbers.append(float(one.value))
        else:
            kept.append(one)
    return tuple(kept)


def _kept_evaluations(
    found: Sequence[Evaluation], names: set[str], region: str, numbers: list[float]
) -> tuple[Evaluation, ...]:
    kept = []
    for one in found:
        is_all = EVERYTHING in names and one.probability is not None
        if is_all or _is_named(one.name or one.concept.meaning, region, names):
            if one.probability is not None:
                numbers += [one.probability, one.probability * 100]
        else:
            kept.append(one)
    return tuple(kept)


def _is_named(name: str, region: str, names: set[str]) -> bool:
    return name in names or (bool(region) and f"{region}.{name}" in names)


def _naming(checks: Sequence[Check], lost: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks, the first failed one that withholds something with what else is lost beside it."""
    named = list(checks)
    for index, check in enumerate(named):
        if not check.passed and check.withholds:
            more = tuple(name for name in lost if name not in check.withholds)
            named[index] = replace(check, withholds=(*check.withholds, *more))
            break
    return tuple(named)


# --- words -------------------------------------------------------------------


def _without_numbers(findings: Findings, numbers: Sequence[float]) -> Findings:
    """Return the findings with ``numbers`` replaced in all that they say in words."""
    return replace(
        findings,
        summary=_without(findings.summary, numbers),
        evaluations=_told(findings.evaluations, numbers),
        checks=tuple(replace(one, reason=_without(one.reason, numbers)) for one in findings.checks),
        segments=tuple(_silent(one, numbers) for one in findings.segments),
        marks=tuple(_silent(one, numbers) for one in findings.marks),
    )


def _silent(region: Region, numbers: Sequence[float]) -> Region:
    return replace(
        region, label=_without(region.label, numbers), evaluations=_told(region.evaluations, numbers)
    )


def _told(evaluations: Sequence[Evaluation], numbers: Sequence[float]) -> tuple[Evaluation, ...]:
    return tuple(
        replace(one, value=_without(one.value, numbers)) if isinstance(one.value, str) else one
        for one in evaluations
    )


def _without(text: str, numbers: Sequence[float]) -> str:
    """Return ``text`` with each of ``numbers`` replaced, however many decimals of it are written."""

    def replaced(found: re.Match[str]) -> str:
        written = Decimal(found[0].replace("\u2212", "-"))
        return _INSTEAD if any(_is_written(written, one) for one in numbers) else found[0]

    return _NUMBER.sub(replaced, text)


def _is_written(written: Decimal, number: float) -> bool:
    exact = Decimal(repr(float(number)))
    if not exact.is_finite():
        return False
    exponent = written.as_tuple().exponent
    assert isinstance(exponent, int)
    if written == exact:
        return True
    if not written or abs(exact) >= _LARGEST or abs(exponent) > _MOST_DECIMALS:
        return False
    step = Decimal(1).scaleb(exponent)
    # A number is known by its sign or without it: "850 HU below water" tells -850 HU, too.
    return any(
        abs(written) == abs(exact).quantize(step, rounding) for rounding in (ROUND_HALF_EVEN, ROUND_HALF_UP)
    )
