"""What the panel of a picture says: numbers, checks and answers, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from models.types import Code, Evaluation, Findings, Mark, Measurement, Segment
from node.results.concepts import CERTAINTY, unit_symbol
from node.results.facts import RunFacts
from node.results.pictures.anatomy import Anatomy
from node.results.pictures.picture import MORE, CheckRow, NumberRow, Words, shortened
from node.results.provenance import NOT_FOR_DIAGNOSIS
from node.results.report.answers import percent
from node.results.source_header import SourceHeader
from node.results.withholding import reasons

# More than this nobody reads in a picture, and the Structured Report has it all.
_MAX_NUMBERS, _MAX_ROWS = 24, 14
_LARGEST_WRITTEN_OUT = 1e12


def words(
    findings: Findings,
    header: SourceHeader,
    run: RunFacts,
    shown: Anatomy | None,
    compared: Sequence[str] = (),
) -> Words:
    """Return all that the panel says; ``compared`` is with which earlier studies the series is compared."""
    card = run.card
    checks = _checks(findings)
    # A summary is worth its place where it says more than the rows.
    regions: tuple[Segment | Mark, ...] = (*findings.segments, *findings.marks)
    has_rows = bool(findings.evaluations or any(one.measurements or one.evaluations for one in regions))
    remarks = [shortened(findings.summary)] if findings.summary and not has_rows else []
    if not (regions or findings.measurements or checks or remarks):
        remarks.append("Nothing was found.")
    footer = [*compared, f"model {card.name}, version {card.version}, {card.manufacturer}"]
    footer.append(header.local(run).strftime("%Y-%m-%d %H:%M") + _slice_text(shown))
    numbers = list(_number_rows(findings))
    if len(numbers) > _MAX_NUMBERS:
        more = MORE.format(len(numbers) - _MAX_NUMBERS + 1)
        numbers = [*numbers[: _MAX_NUMBERS - 1], NumberRow("", more, "", "")]
    return Words(
        title=card.title or card.name,
        numbers=numbers,
        checks=checks,
        remarks=remarks,
        warning=NOT_FOR_DIAGNOSIS.capitalize(),
        footer=footer,
    )


def _checks(findings: Findings) -> list[CheckRow]:
    checks = []
    for check in findings.checks:
        # Beside what was found only what went wrong is of interest.
        if check.passed and (findings.segments or findings.marks):
            continue
        said = reasons([check]) or [f"{check.name}: {check.reason}" if check.reason else check.name]
        checks += [CheckRow(text, check.passed) for text in said]
    told = {check.reason for check in findings.checks}
    for evaluation in findings.evaluations:
        if _value(evaluation) not in told:
            checks.append(CheckRow(_answer(evaluation)))
    named = [(_region(segment), segment.evaluations) for segment in findings.segments]
    named += [(_tagged(number, mark), mark.evaluations) for number, mark in enumerate(findings.marks, 1)]
    checks += [
        CheckRow(f"{region}: {_answer(evaluation)}") for region, answers in named for evaluation in answers
    ]
    if len(checks) > _MAX_ROWS:
        checks = [*checks[: _MAX_ROWS - 1], CheckRow(MORE.format(len(checks) - _MAX_ROWS + 1))]
    return checks


def _value(evaluation: Evaluation) -> str:
    return evaluation.value.meaning if isinstance(evaluation.value, Code) else evaluation.value


def _answer(evaluation: Evaluation) -> str:
    certainty = "" if evaluation.probability is None else f" ({percent(evaluation.probability):.0f} %)"
    return f"{evaluation.concept.meaning}: {_value(evaluation)}{certainty}"


# --- numbers -----------------------------------------------------------------


def _number_rows(findings: Findings) -> Iterator[NumberRow]:
    for segment in findings.segments:
        region = _region(segment)
        if not segment.measurements:
            text = "outlined" if segment.mask.any() else "not found"
            yield NumberRow(region, text, "", "", segment.colour)
        yield from _rows(region, segment.measurements, segment.colour)
    for number, mark in enumerate(findings.marks, 1):
        region = _tagged(number, mark)
        if mark.probability is not None:
            said = f"{percent(mark.probability):.0f}"
            yield NumberRow(region, CERTAINTY.meaning, said, "%", mark.colour)
            yield from _rows(region, mark.measurements, None)
            continue
        if not mark.measurements:
            yield NumberRow(region, "marked", "", "", mark.colour)
        yield from _rows(region, mark.measurements, mark.colour)
    yield from _rows("", findings.measurements, None)


def _rows(
    region: str, measurements: tuple[Measurement, ...], colour: tuple[int, int, int] | None
) -> Iterator[NumberRow]:
    for position, measurement in enumerate(measurements):
        first = position == 0
        yield NumberRow(
            region,
            _name(measurement),
            _number(measurement),
            unit_symbol(measurement.unit),
            colour if first else None,
        )


def _region(found: Segment | Mark) -> str:
    """Return the label with its side, named once."""
    label = found.label or found.name
    if found.laterality is None or found.laterality.meaning.casefold() in label.casefold():
        return label
    return f"{label}, {found.laterality.meaning.lower()}"


def _tagged(number: int, mark: Mark) -> str:
    return f"{number} {_region(mark)}"


def _name(measurement: Measurement) -> str:
    parts = [measurement.derivation.meaning] if measurement.derivation else []
    return " ".join([*parts, measurement.concept.meaning])


def _number(measurement: Measurement) -> str:
    value = float(measurement.value)
    magnitude = abs(value)
    if magnitude >= _LARGEST_WRITTEN_OUT:
        return f"{value:.6g}"
    # A count has no decimals.
    if magnitude >= 10000 or (measurement.unit.value == "1" and value.is_integer()):
        return f"{value:.0f}"
    return f"{value:.1f}" if magnitude >= 1 or value == 0 else f"{value:.3g}"


def _slice_text(shown: Anatomy | None) -> str:
    if shown is None or shown.given is None:
        return ""
    header = shown.given.header
    series = f", series {header.series_number}" if header.series_number else ""
    earlier = " of an earlier study" if shown.given.source.is_prior else ""
    why = f" ({shown.why})" if shown.why else ""
    return f"{series}{earlier}, slice {shown.index + 1} of {shown.count}{why}"
