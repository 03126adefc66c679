"""C-STORE answers Success once the instance is held, and a kill at any moment loses nothing acknowledged."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from handlers.c_store import c_store
from node import alarms, status
from node.audit.trail import AuditTrail
from node.clock import Clock
from node.errors import CommandMismatch, OutOfSpace
from tests.support import made
from tests.support.ingest_bench import EXPLICIT, Bench, ingest_bench


@pytest.fixture
def bench(tmp_path: Path):
    with ingest_bench(tmp_path / "data") as one:
        yield one


def handle(bench: Bench, encoded: bytes, command: dict[str, str]) -> list[int]:
    request = SimpleNamespace(
        association=SimpleNamespace(
            number=3, calling_ae_title="CT1", called_ae_title="ANODE", peer_address="192.0.2.1"
        ),
        context=SimpleNamespace(transfer_syntax_uid=EXPLICIT),
        command=command,
        fragments=lambda: iter([[memoryview(encoded)]]),
    )
    config = SimpleNamespace(node=SimpleNamespace(data_dir=bench.data_dir))
    services = SimpleNamespace(ingest=bench.ingest, clock=Clock(), config=config, audit=AuditTrail.off())
    return [response.status for response in c_store(services, request)]


def test_success_is_answered_when_the_instance_is_held(bench):
    image = made.ct_image()
    command = {"AffectedSOPClassUID": image.SOPClassUID, "AffectedSOPInstanceUID": image.SOPInstanceUID}
    assert handle(bench, made.encoded(image), command) == [status.SUCCESS]
    provenance = bench.held(image.SOPInstanceUID).provenance
    assert (provenance.association, provenance.peer_address) == (3, "192.0.2.1")


def test_a_command_without_uids_matches_no_data_set(bench):
    with pytest.raises(CommandMismatch):
        handle(bench, made.encoded(made.ct_image()), {})


def test_a_full_disk_raises_an_alarm_and_the_next_success_clears_it(bench, monkeypatch):
    image, later = made.ct_image(), made.ct_image()

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def store(one):
        uids = {"AffectedSOPClassUID": one.SOPClassUID, "AffectedSOPInstanceUID": one.SOPInstanceUID}
        return handle(bench, made.encoded(one), uids)

    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", full)
        for _ in range(2):
            with pytest.raises(OutOfSpace):
                store(image)
    (alarm,) = alarms.standing(bench.data_dir)
    assert (alarm.name, alarm.times) == (alarms.DISK_FULL, 2)
    assert "no space left" in alarm.message
    assert store(later) == [status.SUCCESS]
    assert alarms.standing(bench.data_dir) == []


SENDER = """
import hashlib, sys, threading
from pathlib import Path
from tests.support import made
from tests.support.ingest_bench import ingest_bench

lock = threading.Lock()

def send(bench):
    while True:
        image = made.ct_image()
        encoded = made.encoded(image)
        bench.receive(encoded, sop_class_uid=image.SOPClassUID, sop_instance_uid=image.SOPInstanceUID)
        with lock:
            print(image.SOPInstanceUID, hashlib.sha256(encoded).hexdigest(), flush=True)

with ingest_bench(Path(sys.argv[1])) as bench:
    for _ in range(3):
        threading.Thread(target=send, args=(bench,), daemon=True).start()
    threading.Event().wait()
"""


@pytest.mark.parametrize("acknowledged", [1, 25, 60])
def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path, acknowledged):
    process = subprocess.Popen(
        [sys.executable, "-c", SENDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        lines = [process.stdout.readline() for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        lines += [line for line in process.stdout if line.endswith("\n")]
    with ingest_bench(tmp_path) as bench:
        bench.ingest.replay()
        for line in lines:
            sop_instance_uid, digest = line.split()
            stored = bench.held(sop_instance_uid)
            assert stored.data_set_sha256 == digest
            assert hashlib.sha256(bench.bytes_of(stored)).hexdigest() == digest
        with bench.database.read() as connection:
            held = list(bench.index.instances(connection))
        assert len(bench.jobs("settle")) == len(held) >= len(lines)
