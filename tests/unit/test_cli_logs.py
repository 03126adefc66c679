"""What the node logs is one line per event, also when the values are strange."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node import logs
from node.config.settings import LogConfig


@contextmanager
def logged(**settings: str) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with logs.configured(LogConfig(**settings), stream):  # type: ignore[arg-type]
        yield stream


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no")


LOOP: list[object] = []
LOOP.append(LOOP)


def test_text_shows_event_and_values() -> None:
    with logged() as stream:
        logging.getLogger("node.ingest").info("instance stored", extra={"association": 3, "peer": "A B"})
    time, _, rest = stream.getvalue().partition(" ")
    assert time.endswith("Z")
    assert rest == 'INFO node.ingest: instance stored association=3 peer="A B"\n'


def test_json_is_one_object_per_line() -> None:
    with logged(format="json") as stream:
        logging.getLogger("node.x").warning("job failed", extra={"job": 7, "event": "mine", "seen": {1, 2}})
    event = json.loads(stream.getvalue())
    assert event["level"] == "WARNING"
    assert event["logger"] == "node.x"
    assert event["event"] == "job failed"
    assert event["event_"] == "mine"
    assert event["job"] == 7
    assert event["seen"] == "{1, 2}"


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()])
@pytest.mark.parametrize(
    ("message", "arguments", "value"),
    [
        ("seen", (), Unprintable()),
        ("seen", (), LOOP),
        ("seen", (), b"\xff"),
        ("seen", (), float("nan")),
        ("seen", (), {(1, 2): 3}),
        ("seen %s %s", (1,), 0),
        (Unprintable(), (), 0),
    ],
)
def test_nothing_that_is_logged_raises(
    formatter: logging.Formatter, message: object, arguments: tuple[object, ...], value: object
) -> None:
    record = logging.makeLogRecord({"msg": message, "args": arguments, "name": "node.x", "value": value})
    line = formatter.format(record)
    assert "value" in line
    assert len(line.splitlines()) == 1


def test_a_value_cannot_forge_a_line() -> None:
    with logged() as stream:
        logging.getLogger("node.x").info("seen", extra={"peer": "A\n2026-01-01T00:00:00Z INFO node: forged"})
        logging.getLogger("node.x").info("seen\nforged")
    assert len(stream.getvalue().splitlines()) == 2


def test_a_traceback_follows_its_event() -> None:
    with logged() as text, logged(format="json") as as_json:
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            logging.getLogger("node.x").exception("task failed")
    assert "RuntimeError: broken" in text.getvalue()
    assert "RuntimeError: broken" in json.loads(as_json.getvalue())["exception"]


def test_libraries_that_repeat_data_sets_are_heard_at_debug_alone() -> None:
    def speak() -> None:
        for name in ("pydicom", "pynetdicom.acse", "highdicom"):
            logging.getLogger(name).error("Invalid value for VR PN: 'DOE^JOHN'")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("DOE^JOHN is no UID", stacklevel=1)

    with logged() as stream:
        speak()
    assert stream.getvalue() == ""
    with logged(level="DEBUG") as stream:
        speak()
    assert stream.getvalue().count("DOE^JOHN") >= 4


def test_what_a_library_sets_for_itself_later_does_not_bring_its_warnings_back() -> None:
    with logged() as stream:
        # What pydicom does when it is imported, which may be after logging was configured.
        for name in ("pydicom", "highdicom.sr.coding", "py.warnings"):
            logging.getLogger(name).setLevel(logging.WARNING)
            logging.getLogger(name).warning("Invalid value for VR UI: 'DOE^JOHN'")
        logging.getLogger("pydicomlike").warning("heard")
    assert "DOE" not in stream.getvalue()
    assert "heard" in stream.getvalue()


def test_logging_is_as_before_when_the_context_is_left() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("pydicom").level, warnings.showwarning)
    with logged(level="ERROR"):
        assert root.level == logging.ERROR
    assert before == (root.level, root.handlers, logging.getLogger("pydicom").level, warnings.showwarning)
