"""The inputs of a run with what their headers say: results are made on each, and lie in the first's study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from node.results.facts import Source
from node.results.grid import Grid, grid_of
from node.results.header_values import text
from node.results.source_header import SourceHeader


@dataclass(frozen=True)
class Given:
    """One input; ``index`` is its place among them, 0 that of the one that the analysis was started for."""

    index: int
    source: Source
    header: SourceHeader

    @property
    def name(self) -> str:
        """By which findings call it; may be empty for the first."""
        return self.source.name

    @cached_property
    def grid(self) -> Grid | None:
        """Where its slices lie; None for a series that was given as its instances."""
        return grid_of(self.source, self.header)

    @property
    def has_frame_of_reference(self) -> bool:
        """Whether the source itself says in which frame of reference it lies."""
        return bool(text(self.header.first, "FrameOfReferenceUID"))


@dataclass(frozen=True)
class AllGiven:
    """All inputs of a run, the primary one first."""

    first: Given
    others: tuple[Given, ...] = field(default=())

    @classmethod
    def of(cls, source: Source, header: SourceHeader) -> AllGiven:
        """Read the headers of the further inputs; ``header`` is that of ``source``."""
        others = (
            Given(index, other, SourceHeader.of(other))
            for index, other in enumerate(source.others.values(), 1)
            if other.data_sets
        )
        return cls(Given(0, source, header), tuple(others))

    def __iter__(self) -> Iterator[Given]:
        """Yield each, the primary one first."""
        yield self.first
        yield from self.others

    @property
    def compared(self) -> list[str]:
        """With which earlier studies the series is compared, or that it is with none, a sentence for each."""
        dates = dict.fromkeys(
            text(one.header.first, "StudyDate") for one in self.others if one.source.is_prior
        )
        told = [f"Compared with the study of {_day(date)}." for date in dates]
        return ["Compared with no earlier study."] if self.first.source.lacks_prior else told

    def on(self, name: str) -> Given:
        """Return the input that findings call ``name``, the first for the empty name.

        Raises
        ------
        ValueError
            when the model was given no such input
        """
        wanted = self.first.source.of(name)
        return next(one for one in self if one.source is wanted)


def _day(date: str) -> str:
    """A DICOM date (PS3.5 section 6.2) as ISO 8601, and anything else as it is written."""
    if len(date) == 8 and date.isdecimal():
        return f"{date[:4]}-{date[4:6]}-{date[6:]}"
    return date or "an unknown date"
