"""What a failed check withholds is taken out of the findings before any result is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from models.types import Check, Evaluation, Findings, Mark, Measurement, Segment
from node.results.withheld_words import without_words

EVERYTHING = "*"
#: What a name stands for that nothing has: more than "*", as it may be that of any answer.
_ALL = "every number and every answer"

Region = TypeVar("Region", Segment, Mark)


@dataclass(frozen=True)
class _Kept(Findings):
    """Findings of which all that is withheld has been taken."""


@dataclass
class _Taken:
    numbers: list[float] = field(default_factory=list)
    answers: int = 0

    def __bool__(self) -> bool:
        return bool(self.numbers or self.answers)


def withheld(findings: Findings) -> Findings:
    """Return ``findings`` without what their failed checks withhold; a second time changes nothing.

    A check names measurements and answers, by their names, or by the meaning or the code value of their
    concepts (``left-lung.Volume`` those of one region alone), or a segment or mark, which then loses its
    numbers and its answers with a probability but stays where it is, or an image, a transform or a picture,
    which goes. With ``*`` every number and every answer with a probability goes. A probability of a mark or
    of the voxels of a segment is a number, and so are the values of a map.

    A name that nothing has may be misspelt, so with it every number and every answer goes, or those of the
    region that it begins with.

    What a model says in words may hold the number, too: wherever one stands in a text, as a whole or
    rounded, it is replaced, also in reasons, names, labels and meanings of codes. A picture that the model
    drew may show what is withheld, so all of them go with a number or an answer, and the summary goes with
    an answer, as that has no figures to be known by; the checks name them.
    """
    if isinstance(findings, _Kept):
        return findings
    checks = tuple(_understood(check, findings) for check in findings.checks)
    names = {name for check in checks if not check.passed for name in check.withholds}
    if not names:
        return findings
    if _ALL in names:
        names.add(EVERYTHING)
    taken = _Taken()
    segments = tuple(_region(one, names, taken) for one in findings.segments)
    marks = tuple(_region(one, names, taken) for one in findings.marks)
    measurements = _kept_measurements(findings.measurements, names, "", taken)
    evaluations = _kept_evaluations(findings.evaluations, names, "", taken)
    lost = tuple(one for one in findings.pictures if taken or one.name in names)
    maps = tuple(one for one in findings.images if one.kind == "map" and EVERYTHING in names)
    has_lost_summary = bool(taken.answers and findings.summary)
    more = [*(one.name for one in lost), *(one.name for one in maps), *["summary"] * has_lost_summary]
    kept = _Kept(
        segments=segments,
        measurements=measurements,
        evaluations=evaluations,
        checks=_naming(checks, more),
        summary="" if has_lost_summary else findings.summary,
        marks=marks,
        images=tuple(
            one
            for one in findings.images
            if one.name not in names and not any(one is other for other in maps)
        ),
        transforms=tuple(one for one in findings.transforms if one.name not in names),
        pictures=tuple(one for one in findings.pictures if not any(one is other for other in lost)),
    )
    return without_words(kept, taken.numbers) if taken.numbers else kept


def reasons(checks: Iterable[Check]) -> list[str]:
    """Return for each thing that failed checks withhold ``NAME withheld: REASON``."""
    return [
        f"{'every number' if name == EVERYTHING else name} withheld: {_reason(check)}"
        for check in checks
        if not check.passed
        for name in check.withholds
    ]


def _reason(check: Check) -> str:
    return check.reason or f"{check.name} failed"


# --- what is meant -----------------------------------------------------------


def _understood(check: Check, findings: Findings) -> Check:
    """Return the check with names that something has; what stands for the others is said in its reason."""
    if check.passed:
        return check
    meant = [_meant(name, findings) for name in check.withholds]
    unknown = [name for name, one in zip(check.withholds, meant, strict=True) if name != one]
    if not unknown:
        return check
    reason = f"{_reason(check)} (nothing is called {', '.join(unknown)})"
    return replace(check, reason=reason, withholds=tuple(dict.fromkeys(meant)))


def _meant(name: str, findings: Findings) -> str:
    regions: tuple[Segment | Mark, ...] = (*findings.segments, *findings.marks)
    things = (*regions, *findings.images, *findings.transforms, *findings.pictures)
    if name == EVERYTHING or any(one.name == name for one in things):
        return name
    said = [
        *findings.measurements,
        *findings.evaluations,
        *(one for region in regions for one in _of(region)),
    ]
    if any(name in _called(one) for one in said):
        return name
    for region in regions:
        if name.startswith(f"{region.name}."):
            own = name.removeprefix(f"{region.name}.")
            return (
                name if not _says(region) or any(own in _called(one) for one in _of(region)) else region.name
            )
    has_something = (
        said or any(_says(one) for one in regions) or any(i.kind == "map" for i in findings.images)
    )
    return _ALL if has_something else name


def _of(region: Segment | Mark) -> Iterator[Measurement | Evaluation]:
    yield from region.measurements
    yield from region.evaluations


def _says(region: Segment | Mark) -> bool:
    return bool(region.measurements or region.evaluations) or region.probability is not None


def _called(one: Measurement | Evaluation) -> set[str]:
    return {one.name, one.concept.meaning, one.concept.value} - {""}


# --- what goes ---------------------------------------------------------------


def _region(region: Region, names: set[str], taken: _Taken) -> Region:
    is_named = region.name in names or EVERYTHING in names
    within = {*names, EVERYTHING} if is_named else names
    kept = replace(
        region,
        measurements=_kept_measurements(region.measurements, within, region.name, taken),
        evaluations=_kept_evaluations(region.evaluations, within, region.name, taken),
    )
    if not is_named or region.probability is None:
        return kept
    if isinstance(region, Mark):
        assert isinstance(region.probability, float | int)
        taken.numbers += [region.probability, region.probability * 100]
    return replace(kept, probability=None)


def _kept_measurements(
    found: Sequence[Measurement], names: set[str], region: str, taken: _Taken
) -> tuple[Measurement, ...]:
    kept = []
    for one in found:
        if EVERYTHING in names or _is_named(one, region, names):
            taken.numbers.append(float(one.value))
        else:
            kept.append(one)
    return tuple(kept)


def _kept_evaluations(
    found: Sequence[Evaluation], names: set[str], region: str, taken: _Taken
) -> tuple[Evaluation, ...]:
    kept = []
    for one in found:
        is_number = EVERYTHING in names and one.probability is not None
        if not (is_number or _ALL in names or _is_named(one, region, names)):
            kept.append(one)
            continue
        taken.answers += 1
        if one.probability is not None:
            taken.numbers += [one.probability, one.probability * 100]
    return tuple(kept)


def _is_named(one: Measurement | Evaluation, region: str, names: set[str]) -> bool:
    called = _called(one)
    return bool(called & names) or any(f"{region}.{name}" in names for name in called if region)


def _naming(checks: Sequence[Check], lost: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks, the first failed one that withholds something with what else is lost beside it."""
    named = list(checks)
    for index, check in enumerate(named):
        if not check.passed and check.withholds:
            more = tuple(name for name in lost if name not in check.withholds)
            named[index] = replace(check, withholds=(*check.withholds, *more))
            break
    return tuple(named)
