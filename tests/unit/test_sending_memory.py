"""What sending keeps in memory is exact and bounded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from node.errors import UnsupportedPixelData
from node.sending.memory import Budget, Made, MadeDataSets
from tests.support.waiting import wait_until


def key(number: int, to: str = "1.2") -> Made:
    return Made(f"{number:064x}", "1.1", to)


def never() -> bytes:
    raise AssertionError("it was made already")


def test_what_was_made_is_not_made_again() -> None:
    """The same digest in the same transfer syntax is made once; in another it is another."""
    made = MadeDataSets(100)
    assert made.get(key(1), lambda: b"one") == b"one"
    assert made.get(key(1), never) == b"one"
    assert made.get(key(1, "1.3"), lambda: b"two") == b"two"


def test_the_bound_holds_and_what_is_unused_longest_goes() -> None:
    """All together are never longer than the limit, and who was asked for lately stays."""
    made = MadeDataSets(100)
    for number in range(10):
        made.get(key(number), lambda: bytes(30))
        assert made.held_bytes <= 100
        made.get(key(0), never)
    assert made.held_bytes == 90
    assert made.get(key(5), lambda: b"again") == b"again"


def test_what_is_longer_than_the_bound_is_given_and_not_kept() -> None:
    """One that does not fit pushes no other out."""
    made = MadeDataSets(100)
    made.get(key(1), lambda: bytes(60))
    assert len(made.get(key(2), lambda: bytes(101))) == 101
    assert made.held_bytes == 60
    made.get(key(1), never)


def test_what_is_no_bytes_is_given_to_the_one_who_made_it_alone() -> None:
    """A file has one reader, so it is never kept."""
    made = MadeDataSets(100)
    file = object()
    assert made.get(key(1), lambda: file) is file
    assert made.get(key(1), lambda: b"own") == b"own"


def test_a_failure_is_raised_and_the_next_one_tries() -> None:
    """What could not be made is not held for impossible."""
    made = MadeDataSets(100)

    def fail() -> bytes:
        raise UnsupportedPixelData("broken")

    with pytest.raises(UnsupportedPixelData):
        made.get(key(1), fail)
    assert made.get(key(1), lambda: b"good") == b"good"


def test_several_that_want_the_same_at_once_make_it_once() -> None:
    """While one makes it the others wait, and all get the same bytes."""
    made = MadeDataSets(100)
    begun, go_on = threading.Event(), threading.Event()
    count = 0

    def make() -> bytes:
        nonlocal count
        count += 1
        begun.set()
        assert go_on.wait(10)
        return b"made"

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(made.get, key(1), make)
        assert begun.wait(10)
        others = [pool.submit(made.get, key(1), make) for _ in range(3)]
        wait_until(lambda: all(other.running() for other in others), what="the others to ask")
        go_on.set()
        assert {one.result(10) for one in [first, *others]} == {b"made"}
    assert count == 1


def test_a_budget_gives_no_more_than_it_has() -> None:
    """What is taken is missing until it is given back."""
    budget = Budget(10)
    assert budget.take(7)
    assert not budget.take(4)
    assert budget.take(3)
    budget.give_back(7)
    assert budget.left_bytes == 7
