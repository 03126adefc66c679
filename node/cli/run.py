"""``anode run``: the node itself."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

from node import allocation, logs
from node.cli import command, output
from node.cli.opening import configuration
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from node.cli.command import Commands

logger = logging.getLogger(__name__)

_STOPPED_AT_ONCE = 1
_STOPPING = (signal.SIGTERM, signal.SIGINT)
#: How long a thread may hold the interpreter while another wants it: with Python's 5 ms, one of many
#: associations would now and then wait for all others in turn.
_SWITCH_SECONDS = 0.0005


def register(commands: Commands) -> None:
    """Add the command."""
    command.add(
        commands,
        "run",
        _run,
        summary="run the node until it is told to stop",
        description="One line on standard error says when it is ready. SIGINT (Ctrl-C) and SIGTERM stop it "
        "cleanly, a second signal stops it at once; nothing that was acknowledged is lost either way.",
        examples="anode run\nanode run --config /etc/anode/config.toml",
        json=False,
        logs_itself=True,
    )


def _run(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    told_to_stop = _watch_signals()
    sys.setswitchinterval(_SWITCH_SECONDS)
    allocation.keep_freed_memory()
    with logs.configured(config.log):
        from node.app import App  # after the signals: loading the libraries takes a moment
        from node.cli import model_faults

        if found := model_faults.problems(config):
            raise ConfigurationError(found)
        for analysis, exposure in model_faults.exposures(config):
            logger.warning("model not shut in", extra={"analysis": analysis.name, "why": exposure})
        app = App(config, owns_process=True)
        app.start()
        # What is here now stays. Looked through for garbage it would stop all threads for 0.1 s at a time.
        gc.freeze()
        try:
            where = f"{config.node.ae_title} on {_address(config.node.host, app.server.port)}"
            if app.server.tls_port is not None:
                where += f" and with TLS on {_address(config.node.tls_host, app.server.tls_port)}"
            output.note_ready(f"{where}, data in {config.node.data_dir}")
            told_to_stop.wait()
            output.note("stopping; a second signal stops at once")
        finally:
            app.stop()
    return 0


def _watch_signals() -> threading.Event:
    """Return the event that the first SIGTERM or SIGINT sets; the second ends the process.

    The system may interrupt any thread for a signal, and Python runs handlers in the main thread alone,
    which does not wake up for what another was interrupted for. So a thread waits for what the
    interrupted one writes (signal.set_wakeup_fd).
    """
    told_to_stop = threading.Event()
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(write, False)

    def watch() -> None:
        while True:
            if os.read(read, 1)[0] not in _STOPPING:
                continue
            if told_to_stop.is_set():
                os._exit(_STOPPED_AT_ONCE)
            told_to_stop.set()

    threading.Thread(target=watch, name="signals", daemon=True).start()
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in _STOPPING:
        signal.signal(number, _nothing_more)
    return told_to_stop


def _nothing_more(_number: int, _frame: FrameType | None) -> None:
    """Be the handler without which Python would not write to the pipe."""


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
