"""What is made ahead of a socket comes in order, within bounds, and leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import pytest

from node.errors import UnsupportedPixelData
from node.sending.memory import Budget
from node.sending.read_ahead import ReadAhead
from node.transcode.side_by_side import side_by_side
from tests.support.waiting import wait_until


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


class Workshop:
    """Makes numbers ready, as slowly as the test wants, and counts."""

    def __init__(self) -> None:
        self.announced: list[int] = []
        self.made: list[int] = []
        self.discarded: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def prepare(self, number: int) -> int:
        assert self.may_go_on.wait(10)
        if number < 0:
            raise UnsupportedPixelData(f"{number}")
        self.made.append(number)
        return number


@contextmanager
def read_ahead(
    workshop: Workshop,
    items: Sequence[int],
    budget: Budget,
    *,
    is_little_work: Callable[[int], bool] = lambda _: False,
) -> Iterator[ReadAhead[int, int]]:
    ahead = ReadAhead(
        items,
        announce=workshop.announced.append,
        prepare=workshop.prepare,
        is_little_work=is_little_work,
        bytes_of=lambda _: 10,
        discard=workshop.discarded.append,
        budget=budget,
    )
    try:
        yield ahead
    finally:
        ahead.close()


@pytest.mark.parametrize("is_little_work", [lambda _: True, lambda _: False, lambda number: number % 3 == 0])
def test_everything_comes_in_order_and_the_budget_is_whole_again(
    is_little_work: Callable[[int], bool],
) -> None:
    """Much and little work may be mixed; each item is made once, and its memory is given back."""
    workshop, budget = Workshop(), Budget(45)
    with read_ahead(workshop, range(100), budget, is_little_work=is_little_work) as ahead:
        taken = []
        for _ in range(100):
            taken.append(ahead.take())
            ahead.use_idle_time()
    assert taken == list(range(100))
    assert sorted(workshop.made) == taken
    assert budget.left_bytes == 45
    wait_until(lambda: not threads("read-ahead"), what="the threads to end")


@pytest.mark.parametrize("is_little_work", [lambda _: True, lambda _: False])
def test_each_item_is_announced_once_and_some_turns_before_its_own(
    is_little_work: Callable[[int], bool],
) -> None:
    """Even where nothing may be made ahead, the disk can begin; it is not asked for all at once."""
    workshop = Workshop()
    with read_ahead(workshop, range(200), Budget(0), is_little_work=is_little_work) as ahead:
        for number in range(150):
            assert ahead.take() == number
            assert workshop.announced[-1] > number + 5
        assert workshop.announced == list(range(len(workshop.announced)))
        assert len(workshop.announced) < 190


def test_no_more_waits_than_the_budget_allows() -> None:
    """While nothing is taken from it, what was made ahead stays within the bytes that it may hold."""
    workshop, budget = Workshop(), Budget(35)
    with read_ahead(workshop, range(100), budget) as ahead:
        assert ahead.take() == 0
        wait_until(lambda: len(workshop.made) == 3, what="as many as fit")
        assert budget.left_bytes >= 5
        assert [ahead.take() for _ in range(99)] == list(range(1, 100))


def test_an_empty_budget_does_not_stop_who_asks() -> None:
    """What is asked for is made even where nothing may be made ahead."""
    workshop, budget = Workshop(), Budget(0)
    with read_ahead(workshop, range(5), budget) as ahead:
        assert [ahead.take() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_failure_is_raised_in_its_turn_alone() -> None:
    """Those before and behind one that cannot be made come as ever, from threads and idle moments."""
    for least_little in (-9, 9):
        with read_ahead(Workshop(), [1, -2, 3], Budget(100), is_little_work=least_little.__lt__) as ahead:
            assert ahead.take() == 1
            ahead.use_idle_time()
            with pytest.raises(UnsupportedPixelData):
                ahead.take()
            assert ahead.take() == 3


def test_without_another_thread_everything_is_made_where_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget that was taken for it is given back, as nothing is made ahead."""

    def submit(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("node.sending.read_ahead.ThreadPoolExecutor.submit", submit)
    budget = Budget(100)
    with read_ahead(Workshop(), range(50), budget) as ahead:
        assert [ahead.take() for _ in range(20)] == list(range(20))
    assert budget.left_bytes == 100


def test_giving_up_discards_what_was_made_and_what_is_being_made() -> None:
    """After ``close`` no thread, no open result and no taken byte is left."""
    workshop, budget = Workshop(), Budget(1000)
    with read_ahead(workshop, range(100), budget) as ahead:
        assert ahead.take() == 0
        wait_until(lambda: len(workshop.made) > 5, what="some to be made")
        workshop.may_go_on.clear()
    assert not ahead.is_wanted
    workshop.may_go_on.set()
    wait_until(lambda: not threads("read-ahead"), what="the threads to end")
    assert sorted(workshop.discarded) == sorted(set(workshop.made) - {0})
    assert budget.left_bytes == 1000


def test_a_single_item_needs_no_thread() -> None:
    """Who asks for one instance gets it made where it is asked for."""
    workshop, before = Workshop(), threads("read-ahead")
    with read_ahead(workshop, [7], Budget(100)) as ahead:
        assert ahead.take() == 7
        assert set(threads("read-ahead")) <= set(before)


# --- frames ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4])
def test_frames_come_in_order_however_many_threads_there_are(count: int) -> None:
    """The results of several threads are those of one."""
    assert list(side_by_side(lambda number: number * number, range(50), threads=count)) == [
        number * number for number in range(50)
    ]


def test_frames_are_not_taken_far_ahead() -> None:
    """At most two for each thread are held, so that memory does not grow with the object."""
    begun: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            begun.append(number)
            yield number

    results = side_by_side(str, items(), threads=2)
    assert next(results) == "0"
    assert len(begun) <= 5
    cast(Generator[str, None, None], results).close()
    assert not threads("frames")


def test_a_frame_that_fails_ends_it_and_leaves_no_thread() -> None:
    """The error of a frame is raised to who takes the frames."""

    def work(number: int) -> int:
        if number == 7:
            raise ValueError("frame 7")
        return number

    with pytest.raises(ValueError, match="frame 7"):
        list(side_by_side(work, range(50), threads=3))
    assert not threads("frames")
