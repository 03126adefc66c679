"""SIGKILL while the receive log is written: what was durable is replayed, and nothing else is kept."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.log_writer import IN_THE_MIDDLE, storage_in

ROOT = Path(__file__).parents[2]


@contextmanager
def killed_afterwards(folder: Path, seed: int, rounds: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.log_writer", str(folder), str(seed), str(rounds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], lines: int) -> list[str]:
    """The next ``lines`` lines of the process."""
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(lines)]


def replayed(folder: Path) -> set[str]:
    storage = storage_in(folder)
    try:
        return {record.data_set_sha256 for record in storage.replay()}
    finally:
        storage.close()


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment_the_log_has_all_that_was_durable(tmp_path: Path, seed: int) -> None:
    durable: set[str] = set()
    chance = random.Random(seed)
    for life in range(3):
        with killed_afterwards(tmp_path, seed * 3 + life, 1000) as process:
            durable.update(said(process, chance.randrange(1, 25)))
            process.kill()
            assert process.stdout is not None
            rest = process.stdout.read()
        # The last line may be cut off; what stands whole was durable.
        durable.update(line for line in rest.splitlines() if len(line) == 64)
        assert "" not in durable, "the process ended by itself"
        assert durable <= replayed(tmp_path)


def test_killed_in_the_middle_of_a_chain_its_segments_become_free(tmp_path: Path) -> None:
    with killed_afterwards(tmp_path, 1, 0) as process:
        assert said(process, 1) == [IN_THE_MIDDLE]
        process.kill()
    assert len(list((tmp_path / "log").glob("*.seg"))) > 15
    storage = storage_in(tmp_path)
    assert list(storage.replay()) == []
    storage.prepare(lambda segment: False)
    storage.close()
    assert len(list((tmp_path / "log").glob("*.seg"))) <= 9


def test_killed_in_the_middle_of_a_chain_no_other_record_is_lost(tmp_path: Path) -> None:
    durable: set[str] = set()
    with killed_afterwards(tmp_path, 2, 6) as process:
        while (line := said(process, 1)[0]) != IN_THE_MIDDLE:
            durable.add(line)
        process.kill()
    assert len(durable) > 5
    assert replayed(tmp_path) == durable
