"""A short soak in the suite; `make soak` soaks for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import Report, Soak
from tests.support.waiting import ANALYSES_SECONDS


@pytest.mark.timeout(4 * ANALYSES_SECONDS)
def test_peers_and_workers_may_be_killed_while_the_node_works(tmp_path: Path) -> None:
    report = Soak(tmp_path, 10.0, seed=20240229).run()
    print(report.text())
    assert report.broken == []
    assert report.acknowledged > 0
    assert sum(report.kills.values()) >= 2
    assert report.results > 0


def test_growth_is_what_memory_gained_after_the_first_third() -> None:
    warm_up = list(range(0, 300, 10))
    flat = Report(memory_bytes=[*warm_up, *([300] * 60)])
    growing = Report(memory_bytes=[*warm_up, *range(300, 900, 10)])
    assert flat.growth_bytes == 0
    assert growing.growth_bytes > 500


def test_pages_of_the_index_may_fill_their_cache_and_no_more() -> None:
    filling = Report(index_bytes=[number << 20 for number in range(120)])
    full = Report(index_bytes=[number << 20 for number in range(200, 320)])
    assert 0 < filling.cache_growth_bytes < 64 << 20
    assert full.cache_growth_bytes == 0
