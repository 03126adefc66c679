"""No input of the corpus, nor one like them, makes the node do what it must never do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.ingest.elements import ElementWalk
from node.ingest.header_memory import HeaderMemory
from node.query import query_matching
from node.wire import dimse, pdu
from node.wire.stream import MessageStream
from node.wire.upper_layer import UpperLayer
from tests.fuzz import header_target
from tests.fuzz.memory_connection import Spins
from tests.fuzz.pdu_mutation import change_bytes
from tests.fuzz.targets import NAMES, corpus, evolved, mutator_of, target_of

ROOT = Path(__file__).parents[2]
_CHANGED = 400
_RUNS = 500


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_is_taken(name: str) -> None:
    """Real conversations, made-up data sets, and all that was found once."""
    inputs = corpus(name)
    assert len(inputs) > 20
    with target_of(name) as target:
        for file, data in inputs.items():
            try:
                target.run_thoroughly(data)
            except Exception as error:
                raise AssertionError(file) from error


@pytest.mark.parametrize("name", NAMES)
def test_what_the_fuzzer_has_made_of_it_is_taken(name: str) -> None:
    """The inputs that took branches of their own."""
    inputs = evolved(name)
    assert len(inputs) > 20
    with target_of(name) as target:
        target.know(corpus(name).values())
        for file, data in inputs.items():
            try:
                target.run(data)
            except Exception as error:
                raise AssertionError(file) from error


@pytest.mark.parametrize("name", NAMES)
def test_inputs_like_those_of_the_corpus_are_taken(name: str) -> None:
    """Changed by their structure from a fixed seed, also where there is no atheris."""
    inputs, random = list(corpus(name).values()), Random(1)
    mutate = mutator_of(name, inputs, change_bytes)
    with target_of(name) as target:
        target.know(inputs)
        for _ in range(_CHANGED):
            data = mutate(random.choice(inputs), 1 << 15, random)
            try:
                target.run(data)
            except Exception as error:
                raise AssertionError(data.hex()) from error


@pytest.mark.parametrize("name", NAMES)
def test_the_fuzzer_finds_nothing_in_a_short_run(name: str, tmp_path: Path) -> None:
    """`make fuzz` goes on for as long as it is let."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: it is there for Linux on x86-64 alone")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz",
            name,
            f"--runs={_RUNS}",
            "--seed=1",
            f"--work={tmp_path / name}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"number_of_executed_units: {_RUNS}" in done.stderr
    assert "NEW" in done.stderr, "the fuzzer sees no coverage"


def _spin(self: MessageStream, seconds: float) -> str:
    self._connection.is_readable(seconds)
    return "woken"


def _fail(*_: Any, **__: Any) -> Any:
    raise KeyError("planted")


def _recall_less(self: HeaderMemory, *arguments: Any, recall: Any = HeaderMemory.recall) -> Any:
    recalled = recall(self, *arguments)
    if recalled is not None:
        recalled.own.popitem()
    return recalled


def _change_values(
    self: ElementWalk,
    start: bytes,
    position: int,
    found: dict[int, Any],
    *others: Any,
    read: Any = ElementWalk.plain_elements,
) -> int:
    end = read(self, start, position, found, *others)
    for tag, (vr, value, is_implicit) in found.items():
        found[tag] = vr, value.lower(), is_implicit
    return int(end)


@pytest.mark.parametrize(
    ("name", "file", "place", "attribute", "planted", "found"),
    [
        ("pdu", "recorded-echoscu", dimse, "decode", _fail, KeyError),
        ("pdu", "recorded-echoscu", MessageStream, "wait", _spin, Spins),
        ("pdu", "recorded-echoscu", UpperLayer, "await_close", lambda self: None, AssertionError),
        ("pdu", "recorded-findscu-study", pdu, "p_data_header", lambda *_: b"\4\0\0\0\0\0", AssertionError),
        ("pdu", "recorded-findscu-study", MessageStream, "fragments", lambda self: [], RuntimeError),
        ("header", "made-1-nested", header_target.Entry, "of", _fail, KeyError),
        ("header", "made-1-image", HeaderMemory, "recall", _recall_less, AssertionError),
        ("header", "made-1-image", ElementWalk, "plain_elements", _change_values, AssertionError),
        ("matching", "made-1-study-1", query_matching, "_glob", lambda pattern: pattern, AssertionError),
        ("matching", "made-0-study-0", query_matching, "one_of", _fail, KeyError),
    ],
)
def test_a_planted_fault_is_found(
    name: str,
    file: str,
    place: Any,
    attribute: str,
    planted: Callable[..., Any],
    found: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = corpus(name)[file]
    with target_of(name) as target:
        target.run_thoroughly(data)
        monkeypatch.setattr(place, attribute, planted)
        with pytest.raises(found):
            target.run_thoroughly(data)
