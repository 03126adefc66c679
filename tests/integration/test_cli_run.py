"""``anode run`` says when it is ready, and stops as it is told."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import made
from tests.support.anode_process import AnodeProcess
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

# A node that takes its time to stop, or cannot start.
STUB = """
import sys, threading, types
from node.errors import PortInUse
class App:
    def __init__(self, config, **_): self.server = types.SimpleNamespace(port=4711, tls_port=None)
    def start(self):
        if {refuses}: raise PortInUse("port 4711 is taken", action="stop what listens there")
    def stop(self):
        print("stopping", flush=True)
        if {hangs}: threading.Event().wait()
sys.modules["node.app"] = types.SimpleNamespace(App=App)
from node.__main__ import main
sys.exit(main(["run"]))
"""


@contextmanager
def stub(folder: Path, *, hangs: bool = False, refuses: bool = False) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", STUB.format(hangs=hangs, refuses=refuses)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("anode ready: "):
            return line
    raise AssertionError("it never became ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_node_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with stub(tmp_path) as process:
        ready = wait_for_ready(process)
        assert ready == f"anode ready: ANODE on 127.0.0.1:4711, data in {tmp_path}/data\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "stopping\n")


def test_a_signal_is_not_lost_whichever_thread_is_interrupted_for_it(tmp_path: Path) -> None:
    """As when a paused container goes on and is told to stop: the main thread is not always the one."""
    with AnodeProcess(tmp_path) as node:
        assert node.process is not None
        main = node.process.pid
        threads = {int(task.name) for task in Path(f"/proc/{main}/task").iterdir()}
        assert ctypes.CDLL(None).tgkill(main, max(threads - {main}), signal.SIGTERM) == 0
        assert node.process.wait(60) == 0
        assert "stopping" in node.log.read_text()


def test_a_second_signal_stops_it_at_once(tmp_path: Path) -> None:
    with stub(tmp_path, hangs=True) as process:
        wait_for_ready(process)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 1


def test_a_node_that_cannot_start_says_what_to_do(tmp_path: Path) -> None:
    with stub(tmp_path, refuses=True) as process:
        _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert error.endswith("anode: port 4711 is taken\nanode: stop what listens there\n")


def test_a_real_node_answers_starts_once_and_stops(tmp_path: Path) -> None:
    node = AnodeProcess(tmp_path / "one")
    node.start()
    try:
        status = node.json("status")
        assert (status["running"], status["problem"]) == (True, "")
        assert node.run("status", check=False).returncode == 0
        second = node.run("run", check=False)
        assert second.returncode == 1
        assert "in use by another anode" in second.stderr
        assert node.json("echo", f"127.0.0.1:{node.port}/ANODE")["answers"] is True
        wrong = node.run("echo", f"127.0.0.1:{node.port}/OTHER", check=False)
        assert wrong.returncode == 1
        assert wrong.stderr.count("OTHER") == 1
        assert "Called AE title not recognised" in wrong.stderr
        wait_until(lambda: node.json("status")["refused"], 30, "the refusal to be told")
        [refused] = node.json("status")["refused"]
        assert (refused["kind"], refused["times"], refused["detail"]) == ("association", 1, "it called OTHER")
        told = node.run("status", check=False).stdout
        assert "1 association from AE ANODE at 127.0.0.1, last 20" in told
        assert "called AE title is not that of this node (it called OTHER); to allow it, have the" in told
        results = {one["what"]: one for one in node.json("check")}
        assert "a node is running" in results["data_dir"]["detail"]
        other = AnodeProcess(tmp_path / "two", port=node.port)
        with pytest.raises(AssertionError, match="port"):
            other.start()
        wait_until(lambda: other.process is not None and other.process.poll() is not None)
        assert other.process is not None
        assert other.process.returncode == 1
    finally:
        assert node.stop() == 0
    assert "Traceback" not in node.log.read_text()
    node.start()
    node.kill()
    stopped = node.run("status", check=False)
    assert stopped.returncode == 1
    assert "not running" in stopped.stdout


def test_folders_are_sent_to_a_node_with_a_summary(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for number in range(3):
        image = made.ct_image(
            study_instance_uid="1.2.3", series_instance_uid="1.2.3.4", InstanceNumber=number
        )
        (folder / f"{number}").write_bytes(made.part10(image))
    (folder / "notes.txt").write_text("not DICOM")
    with AnodeProcess(tmp_path / "node") as node:
        to = f"127.0.0.1:{node.port}/ANODE"
        done = node.run("send", str(folder), "--to", to)
        assert "0000    stored       3" in done.stdout
        assert "1 other file passed over: not DICOM" in done.stdout
        sent = node.json("send", str(folder), "--to", to)
        assert [one["status"] for one in sent] == ["0000"] * 3
        refused = node.run("send", str(folder / "notes.txt"), "--to", to, check=False)
        assert refused.returncode == 1
        assert "not a DICOM file" in refused.stdout
        (study,) = node.json("studies")
        assert (study["study_instance_uid"], study["instances"]) == ("1.2.3", 3)
        peerless = node.run("send", str(folder), "--to", "127.0.0.1:1/X", check=False)
        assert peerless.returncode == 1
        assert "no connection" in peerless.stdout
