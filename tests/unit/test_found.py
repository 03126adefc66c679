"""What was found is told by name and value, in few words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.types import Check, Code, Findings, Mark, Measurement, Segment
from node.analysis.facts import facts_of
from node.found import is_withheld, listed_facts, shown_word
from node.results.withholding import withheld

MM3 = Code("mm3", "UCUM", "cubic millimetre")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("2341.71234567891", "2341.71"),
        ("-0.000123456789", "-0.000123457"),
        ("2341712.49", "2341712"),
        ("1.23456789012345e-07", "1.23457e-07"),
        ("1.23456789012345e+20", "1.23457e+20"),
        ("42", "42"),
        ("123456789", "123456789"),
        ("-123456789", "-123456789"),
        ("0.5", "0.5"),
        ("QC-PASS", "QC-PASS"),
        ("1.2.840.10008", "1.2.840.10008"),
        ("20240229.101500 or so", "20240229.101500 or so"),
    ],
)
def test_a_number_is_shown_with_six_digits_and_a_word_as_it_is(word: str, shown: str) -> None:
    assert shown_word(word) == shown


def test_a_list_of_what_was_found_is_bounded() -> None:
    facts = {f"number {number}": (f"{number}.123456789",) for number in range(300)} | {"text": ("x" * 500,)}
    told = listed_facts(facts, most=2)
    assert told == "number 0 0.123457, number 1 1.12346, and 299 more"
    assert len(listed_facts({"text": ("x" * 500,)})) < 100


def measured(name: str) -> Measurement:
    return Measurement(Code("118565006", "SCT", "Volume"), 2341.5, MM3, name=name)


SPOT = Code("52988006", "SCT", "Lesion")
MARK = Mark("spot", "Spot", "point", np.zeros((1, 3)), SPOT, SPOT, measurements=(measured("size"),))


@pytest.mark.parametrize(
    ("names", "gone", "kept"),
    [
        (("total",), ["total"], ["spot.size", "other"]),
        (("spot",), ["spot.size"], ["total", "spot"]),
        (("size",), ["spot.size"], ["total"]),
        (("*",), ["total", "spot.size", "anything"], ["spot"]),
    ],
)
def test_what_a_failed_check_withholds_is_known_by_its_name(
    names: tuple[str, ...], gone: list[str], kept: list[str]
) -> None:
    findings = Findings(
        measurements=(measured("total"),),
        marks=(MARK,),
        checks=(Check("fits", False, "it does not fit", withholds=names),),
    )
    facts = facts_of(withheld(findings))
    for name in gone:
        assert not facts.get(name)
        assert is_withheld(facts, name)
    for name in kept:
        assert facts.get(name) or not is_withheld(facts, name)
    assert facts["spot"] == ("found",)
    passed = replace(findings, checks=(Check("fits", True, withholds=names),))
    assert not any(is_withheld(facts_of(withheld(passed)), name) for name in gone)


def test_failed_checks_come_first_with_their_reason_then_what_they_withhold() -> None:
    findings = Findings(
        measurements=tuple(measured(f"number {number}") for number in range(20)),
        checks=(
            Check("whole", True, "not told of what is as it should be"),
            Check("complete", False, "the scan cuts the left lung", withholds=("number 3",)),
            Check("calm", False),
        ),
    )
    facts = facts_of(withheld(findings))
    assert facts["complete"] == ("failed",)
    assert facts["complete.reason"] == ("the scan cuts the left lung",)
    assert facts.keys() & {"whole.reason", "calm.reason"} == set()
    assert listed_facts(facts, most=4) == (
        "complete failed (the scan cuts the left lung), calm failed, number 3 withheld, number 0 2341.5, "
        "and 19 more"
    )


def test_an_answer_that_is_called_reason_is_told_by_its_name() -> None:
    facts = {"motion": ("found",), "motion.reason": ("cough",)}
    assert listed_facts(facts) == "motion found, motion.reason cough"


def test_of_two_checks_that_are_called_alike_the_one_that_failed_is_told() -> None:
    checks = Check("whole", True), Check("whole", False, "slice 7 is missing"), Check("whole", False)
    assert listed_facts(facts_of(Findings(checks=checks))) == "whole failed (slice 7 is missing)"
    # an index that is made again has no reasons
    assert listed_facts({"whole": ("passed", "failed")}) == "whole failed"


def test_a_region_without_a_voxel_is_not_found() -> None:
    mask = np.zeros((2, 3, 4), np.bool_)
    empty = Segment("dense", "Dense", mask, MM3, MM3, measurements=(measured("size"),))
    facts = facts_of(Findings(segments=(empty,)))
    assert "dense" not in facts
    assert facts["dense.size"]
    mask[1, 1, 1] = True
    assert facts_of(Findings(segments=(empty,)))["dense"] == ("found",)
