"""How fast instances come, and when a burst of them is over."""

from __future__ import annotations

import pytest

from node.ingest.pace import Pace
from tests.support.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def burst(pace: Pace, clock: ManualClock, seconds: float) -> None:
    for _ in range(round(seconds / 0.01)):
        clock.advance(0.01)
        pace.count()


def test_the_rate_is_that_of_the_last_half_second(clock):
    pace = Pace(clock)
    burst(pace, clock, 2.0)
    assert pace.per_second() == pytest.approx(100.0, rel=0.1)


def test_a_few_instances_are_no_burst(clock):
    pace = Pace(clock)
    clock.advance(10.0)
    burst(pace, clock, 0.03)
    assert pace.per_second() < 50.0


@pytest.mark.parametrize(("is_connected", "quiet_seconds"), [(True, 0.1), (False, 0.02)])
def test_a_burst_is_over_when_nothing_comes_sooner_once_its_sender_has_gone(
    clock, is_connected, quiet_seconds
):
    pace = Pace(clock)
    burst(pace, clock, 1.0)
    clock.advance(quiet_seconds - 0.01)
    assert pace.per_second(is_anyone_connected=is_connected) > 50.0
    clock.advance(0.011)
    assert pace.per_second(is_anyone_connected=is_connected) == 0.0
