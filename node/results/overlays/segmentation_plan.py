"""Which Segmentations a run makes, what each holds, and why a segment is in none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.types import Findings, Segment
from node.config.settings import ResultKind
from node.results.given import AllGiven, Given
from node.results.grid import Grid, lie_apart

Form = Literal["BINARY", "FRACTIONAL", "LABELMAP"]
#: As many steps as a fractional Segmentation of eight bits has (PS3.3 section C.8.20.2).
MAXIMUM_FRACTIONAL_VALUE = 255
_MOST_LABELS = 65535


@dataclass(frozen=True)
class Plan:
    """One Segmentation: its segments are numbered from 1 in this order.

    ``number`` is its Instance Number: those on one input lie in one series.
    """

    kind: ResultKind
    form: Form
    given: Given
    grid: Grid
    segments: tuple[Segment, ...]
    number: int

    @property
    def series(self) -> str:
        """Words for its series; inputs may differ in the frame of reference, so each has its own."""
        return self.kind if self.given.index == 0 else f"{self.kind} on {self.given.name}"

    @property
    def what(self) -> str:
        """Words that no other instance of the run has."""
        return self.series if self.form != "FRACTIONAL" else f"{self.series} fractional"

    @property
    def frame_order(self) -> tuple[int, ...]:
        """For each frame of the source the slice that it is."""
        order = sorted(self.grid.slices, key=lambda one: (one.number, one.frame or 0))
        return tuple(one.index for one in order)


@dataclass(frozen=True)
class Outline:
    """All plans of a run; ``reasons`` say why there are masks in none, or not in the form asked for."""

    plans: tuple[Plan, ...] = ()
    reasons: tuple[str, ...] = ()

    def place_of(self, segment: Segment) -> tuple[Plan, int] | None:
        """Return the plan that holds ``segment`` for a report to refer to, with its Segment Number.

        A label map is none: readers of reports that do not know its SOP class refuse the whole report.
        """
        for plan in self.plans:
            if plan.form == "LABELMAP":
                continue
            for number, one in enumerate(plan.segments, 1):
                if one.name == segment.name:
                    return plan, number
        return None

    def of_kind(self, kind: ResultKind) -> tuple[Plan, ...]:
        """Return the plans of one kind of result."""
        return tuple(plan for plan in self.plans if plan.kind == kind)


def outline(findings: Findings, given: AllGiven, kinds: Collection[ResultKind]) -> Outline:
    """Decide what can be laid on the grids of the inputs, checking that a volume *is* that grid.

    On each input there is a fractional Segmentation of the segments with a probability and a binary
    one of the others, and, where ``labelmap`` is among ``kinds``, a label map of all. Segments that
    overlap fit into no label map, so a binary one takes its place, unless there is one already.

    Raises
    ------
    ValueError
        when a mask has not the shape of its input, two segments share a name, or a probability is none
    """
    if len({segment.name for segment in findings.segments}) != len(findings.segments):
        raise ValueError("two segments have the same name")
    plans: list[Plan] = []
    reasons: list[str] = []
    for one in given:
        segments = [segment for segment in findings.segments if given.on(segment.on) is one]
        if not segments:
            continue
        _check_shapes(segments, one)
        filled = tuple(segment for segment in segments if segment.mask.any())
        if not filled:
            continue
        grid, reason = one.grid, _reason(one)
        if grid is None or reason:
            reasons.append(_about(one, f"no Segmentation was made: {reason}"))
            continue
        if "seg" in kinds:
            plans += _each_form(one, grid, filled)
        if "labelmap" in kinds:
            made, reason = _label_map(one, grid, filled, has_other="seg" in kinds)
            plans += made
            reasons += [_about(one, reason)] if reason else []
    return Outline(tuple(plans), tuple(reasons))


def _each_form(given: Given, grid: Grid, filled: Sequence[Segment]) -> list[Plan]:
    without = tuple(segment for segment in filled if segment.probability is None)
    with_one = tuple(segment for segment in filled if segment.probability is not None)
    plans = [Plan("seg", "BINARY", given, grid, without, 1)] if without else []
    return [*plans, Plan("seg", "FRACTIONAL", given, grid, with_one, len(plans) + 1)] if with_one else plans


def _label_map(
    given: Given, grid: Grid, filled: tuple[Segment, ...], *, has_other: bool
) -> tuple[list[Plan], str]:
    if len(filled) > _MOST_LABELS:
        why = f"{len(filled)} segments are more than a label map holds"
    elif (overlap := overlapping(filled)) is not None:
        why = f"{overlap[0].name} and {overlap[1].name} overlap"
    else:
        return [Plan("labelmap", "LABELMAP", given, grid, filled, 1)], ""
    made = [] if has_other else [Plan("labelmap", "BINARY", given, grid, filled, 1)]
    return made, f"no label map was made: {why}"


def overlapping(segments: Iterable[Segment]) -> tuple[Segment, Segment] | None:
    """Return the first two segments that have a voxel in common; None when no two have."""
    seen: list[Segment] = []
    union: np.ndarray | None = None
    for segment in segments:
        if union is None:
            union = segment.mask.copy()
        elif (union & segment.mask).any():
            return next((one, segment) for one in seen if (one.mask & segment.mask).any())
        else:
            union |= segment.mask
        seen.append(segment)
    return None


def _check_shapes(segments: Sequence[Segment], given: Given) -> None:
    grid = given.grid
    where = f"its input {given.name}" if given.index else "the volume"
    for segment in segments:
        if grid is not None and segment.mask.shape != grid.shape:
            raise ValueError(f"mask of {segment.name} is {segment.mask.shape}, {where} is {grid.shape}")
        probability = segment.probability
        if probability is None:
            continue
        if probability.shape != segment.mask.shape:
            raise ValueError(f"the probability of {segment.name} has not the shape of its mask")
        if not (probability.min() >= 0 and probability.max() <= 1):
            raise ValueError(f"the probability of {segment.name} is not within 0 and 1")


def _reason(given: Given) -> str:
    """Why no Segmentation can lie on this input; empty when one can."""
    grid = given.grid
    if grid is None:
        return "the analysis had no volume"
    if given.source.volume is None and grid.positions_mm is None and grid.shape[0] > 1:
        return "the frames of the source do not lie in one stack, or do not say where they lie"
    if grid.is_multi_frame and len({one.number for one in grid.slices}) > 1:
        return "the frames of the source are in several multi-frame images"
    if grid.positions_mm is not None and not lie_apart(grid.positions_mm.tolist()):
        return "several frames of the source lie in one place"
    return grid.reason


def _about(given: Given, text: str) -> str:
    return f"{given.name}: {text}" if given.index else text
