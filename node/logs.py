"""How the node speaks: one line per event, as text or JSON, on standard error.

Code logs a short event name and puts the values in ``extra``. Libraries that repeat values of
data sets in their warnings (pydicom, pynetdicom, highdicom ...) are heard at DEBUG only, because no
patient data is logged above it; whatever levels they set for themselves, nothing of theirs is written.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from node.config.settings import LogConfig

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TALKATIVE = ("pydicom", "pynetdicom", "highdicom", "pylibjpeg", "openjpeg", "jpeg_ls", "py.warnings")
_CHATTY = ("apscheduler", "PIL", "imagecodecs", "concurrent", "asyncio")
_SILENT = logging.CRITICAL + 1


@contextmanager
def configured(config: LogConfig, stream: TextIO | None = None) -> Iterator[None]:
    """Log as ``[log]`` says, to ``stream`` (standard error), until the context is left.

    Python's warnings become events too, so that a warning about one ugly value in one data set
    does not write to the operator's screen.
    """
    level = logging.getLevelName(config.level)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    if level > logging.DEBUG:
        # The levels below spare the work; pydicom sets its own anew when it is imported, and on request.
        handler.addFilter(_repeats_no_data_set)
    levels = {"": level}
    levels |= dict.fromkeys(_TALKATIVE, level if level <= logging.DEBUG else _SILENT)
    levels |= dict.fromkeys(_CHATTY, max(level, logging.WARNING))
    before = {name: logging.getLogger(name or None).level for name in levels}
    root = logging.getLogger()
    root.addHandler(handler)
    for name, its_level in levels.items():
        logging.getLogger(name or None).setLevel(its_level)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for name, its_level in before.items():
            logging.getLogger(name or None).setLevel(its_level)
        root.removeHandler(handler)
        handler.close()


def frames(error: BaseException) -> str:
    """Where ``error`` arose, the innermost last: ``file:line function``, and no values."""
    found = traceback.extract_tb(error.__traceback__)
    return " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in found)


class TextFormatter(logging.Formatter):
    """``2026-03-01T12:00:00.123Z INFO node.ingest: instance stored association=3 bytes=52``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback follows on lines of its own."""
        values = "".join(f" {name}={_word(value)}" for name, value in _extra(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {_one_line(_message(record))}{values}"
        trace = self._trace(record)
        return f"{line}\n{trace}" if trace else line

    def _trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``event`` and the values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "event": _message(record),
        }
        for name, value in _extra(record).items():
            line[f"{name}_" if name in line else name] = value
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return json.dumps(line, default=_text, ensure_ascii=False, skipkeys=True)
        except ValueError:  # a value that holds itself
            return json.dumps({name: _text(value) for name, value in line.items()}, ensure_ascii=False)


def _repeats_no_data_set(record: logging.LogRecord) -> bool:
    return not any(record.name == name or record.name.startswith(f"{name}.") for name in _TALKATIVE)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # arguments that do not fit the message must not silence the event
        return _text(record.msg)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: Any) -> str:
    """Return ``value`` without spaces around it, quoted where it would not stay one word."""
    text = _text(value)
    plain = text and text.isprintable() and not any(character in text for character in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Return ``text`` so that nothing in it can pass for a line of its own."""
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)[1:-1]


def _text(value: object) -> str:
    try:
        return str(value)
    except (TypeError, ValueError, AttributeError, LookupError, RecursionError):
        return f"<{type(value).__name__}>"
