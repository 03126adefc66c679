"""Failed work is tried a few times within an hour, deliveries for days."""

from __future__ import annotations

import pytest

from node.config.settings import JobsConfig
from node.jobs.policy import JITTER, RetryPolicy, WorkPolicy


def test_five_tries_of_work_fit_into_an_hour_and_use_most_of_it() -> None:
    policy = RetryPolicy.for_work(JobsConfig())
    for _ in range(50):
        pauses = [policy.pause_seconds(failures) for failures in range(1, 5)]
        assert 2700 < sum(pauses) <= 3600
        assert pauses == sorted(pauses)


@pytest.mark.parametrize(("tries", "attempts", "expected"), [(5, 4, False), (5, 5, True), (1, 1, True)])
def test_work_is_set_aside_after_its_tries_whatever_its_age(
    tries: int, attempts: int, expected: bool
) -> None:
    policy = WorkPolicy(tries=tries, window_seconds=3600)
    assert policy.is_exhausted(attempts=attempts, age_seconds=1e9) is expected
    assert policy.pause_seconds(1) > 0


def test_delivery_pauses_double_from_the_first_up_to_a_quarter_of_an_hour() -> None:
    policy = RetryPolicy.for_delivery(JobsConfig())
    first = policy.pause_seconds(1)
    assert 5 * (1 - JITTER) <= first <= 5 * (1 + JITTER)
    assert policy.pause_seconds(4) == pytest.approx(40, rel=JITTER)
    for failures in (9, 100, 100_000):
        assert 900 * (1 - JITTER) <= policy.pause_seconds(failures) <= 900


def test_delivery_goes_on_for_seven_days_whatever_the_number_of_tries() -> None:
    policy = RetryPolicy.for_delivery(JobsConfig())
    assert not policy.is_exhausted(attempts=5000, age_seconds=7 * 86400 - 1)
    assert policy.is_exhausted(attempts=1, age_seconds=7 * 86400)
