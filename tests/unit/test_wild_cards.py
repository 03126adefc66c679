"""Wild cards: what matches, and that it is told at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.index.matching_rules import differs
from node.index.wild_cards import wild_card_expression
from node.query.query_matching import any_value_matches
from tests.support.brute_force import wild_card_matches


@given(st.text("ab*?", max_size=12), st.text("ab\n", max_size=12))
def test_a_pattern_matches_what_an_independent_matcher_says(pattern: str, text: str) -> None:
    assert bool(wild_card_expression(pattern).fullmatch(text)) == wild_card_matches(pattern, text)


@given(st.text(max_size=8))
def test_nothing_but_the_wild_cards_has_a_meaning(text: str) -> None:
    plain = text.replace("*", "+").replace("?", ".")
    assert wild_card_expression(plain).fullmatch(plain)
    assert wild_card_expression(f"*{plain}?").fullmatch(f"({plain})")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["*a" * 30 + "*b", "*?a" * 30 + "b", "*ab*a?" * 20 + "*c"])
def test_many_wild_cards_hold_nobody_up(pattern: str) -> None:
    """Neither the key of a query nor the value of a header can make matching try every combination."""
    text = "a" * 1000
    assert not any_value_matches(text, "LO", pattern)
    assert not any_value_matches(f"{text}^{text}", "PN", pattern)
    assert differs({"Modality": pattern}, {"Modality": text}) is not None
