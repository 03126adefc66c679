"""What is more than results can be made of is refused by name, before anything is made."""

from __future__ import annotations

import numpy as np
import pytest

from models.types import Code, Findings, Mark
from node.processes.agreement import (
    MOST_MARKS,
    MOST_OUTLINES,
    MOST_POINTS,
    MOST_POINTS_OF_ALL,
    refuse_unsound,
)
from tests.support.model_runs import volume

CODE = Code("1", "99TEST", "Test")


def mark(shape: str, points: object, name: str = "m") -> Mark:
    return Mark(name, "M", shape, np.array(points, float), CODE, CODE)  # type: ignore[arg-type]


def line(count: int, name: str = "m") -> Mark:
    return mark("polyline", np.ones((count, 3)), name)


def test_as_much_as_results_can_be_made_of_is_taken() -> None:
    refuse_unsound(Findings(marks=(line(MOST_POINTS),)), volume())


def test_a_mark_of_more_points_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="longest is a polyline of 65,536 points; 65,535 is the most"):
        refuse_unsound(Findings(marks=(line(MOST_POINTS + 1, "longest"),)), volume())


def test_marks_of_too_many_points_together_are_refused() -> None:
    count = MOST_POINTS_OF_ALL // MOST_POINTS + 1
    marks = tuple(line(MOST_POINTS, f"m-{number}") for number in range(count))
    with pytest.raises(ValueError, match="points together; 1,000,000 is the most"):
        refuse_unsound(Findings(marks=marks), volume())


def test_more_marks_are_refused() -> None:
    marks = tuple(mark("point", [(1, 1, 1)], f"m-{number}") for number in range(MOST_MARKS + 1))
    with pytest.raises(ValueError, match="5,001 marks were found; 5,000 is the most"):
        refuse_unsound(Findings(marks=marks), volume())


def test_boxes_through_too_many_slices_are_refused() -> None:
    last = volume().volume.voxels.shape[0] - 1
    count = MOST_OUTLINES // (last + 1) + 1
    marks = tuple(mark("box", [(0, 1, 1), (last, 2, 2)], f"m-{number}") for number in range(count))
    with pytest.raises(ValueError, match="slices, counted for each box; 10,000 is the most"):
        refuse_unsound(Findings(marks=marks), volume())
