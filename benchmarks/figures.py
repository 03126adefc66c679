"""Figures and how they are judged: one case of a row, its contestants, its targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Target:
    """What a figure, or its ratio to another figure of the same case, has to be.

    ``of`` and ``to`` name contestants; without ``to`` the figure itself counts. ``limit`` is the
    least that is allowed, or the most where ``is_most``. Without a limit nothing is promised and
    the ratio is only shown.
    """

    of: str
    to: str = ""
    limit: float | None = None
    is_most: bool = False


@dataclass(frozen=True)
class Verdict:
    """A target held against the figures.

    ``value`` is that of the medians; ``lowest`` and ``highest`` are those of the single rounds.
    ``holds`` is None where nothing was promised.
    """

    target: Target
    value: float
    lowest: float
    highest: float

    @property
    def holds(self) -> bool | None:
        """Whether the medians keep the target."""
        if self.target.limit is None:
            return None
        return self.value <= self.target.limit if self.target.is_most else self.value >= self.target.limit


@dataclass(frozen=True)
class Case:
    """The figures of one case: each contestant's, in the order of the rounds, in one unit."""

    row: str
    title: str
    unit: str
    figures: dict[str, list[float]]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def verdicts(self) -> list[Verdict]:
        """Every target of which both sides were measured."""
        return [self._verdict(target) for target in self.targets if self._is_measured(target)]

    def _is_measured(self, target: Target) -> bool:
        return bool(self.figures.get(target.of)) and (not target.to or bool(self.figures.get(target.to)))

    def _verdict(self, target: Target) -> Verdict:
        ours = self.figures[target.of]
        if not target.to:
            return Verdict(target, median(ours), min(ours), max(ours))
        theirs = self.figures[target.to]
        if len(ours) == len(theirs):
            singles = [one / other for one, other in zip(ours, theirs, strict=True)]
        else:
            singles = [one / median(theirs) for one in ours]
        return Verdict(target, median(ours) / median(theirs), min(singles), max(singles))

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON types."""
        verdicts = [
            {
                **asdict(verdict.target),
                "value": verdict.value,
                "lowest": verdict.lowest,
                "highest": verdict.highest,
                "holds": verdict.holds,
            }
            for verdict in self.verdicts()
        ]
        return {
            "row": self.row,
            "title": self.title,
            "unit": self.unit,
            "figures": self.figures,
            "medians": {name: median(values) for name, values in self.figures.items() if values},
            "verdicts": verdicts,
            "notes": list(self.notes),
        }
