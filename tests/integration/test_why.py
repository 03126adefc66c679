"""``anode why`` names the cause, the time, the next try and the command for every fault of the table."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset

from models.series_quality import SeriesQuality
from node.__main__ import main
from node.app import App
from node.config import config_file
from node.config.settings import PeerConfig
from node.sending import dicom_files, recoding
from node.sending.sending import Sender, Sent
from tests.support import made
from tests.support.faults import FAULTS, differences
from tests.support.ports import free_port
from tests.support.waiting import wait_until

SETTINGS = """
[node]
port = 0
[storage]
segment_bytes = 1048576
free_space_reserve_bytes = {reserve}
[study]
quiet_seconds = {quiet}
[jobs]
timeout_seconds = {timeout}
"""
PACS = '[[peers]]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\nconfirm_results = false\n'
FORWARD = '[[routes]]\nsend_to = ["PACS"]\n'
QUALITY = '[[analyses]]\nname = "quality"\nmodel = "series-quality"\nwhen = {{ Modality = "{modality}" }}\n'
LUNGS = '[[analyses]]\nname = "lungs"\nmodel = "lungs"\n'
FAULTY = '[[analyses]]\nname = "faulty"\nmodel = "faulty"\n'


@dataclass
class Bench:
    """A node in a folder, and the study that is sent to it."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    study: str
    app: App | None = None

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @contextmanager
    def node(
        self, rules: str = "", *, reserve: int = 1000, quiet: float = 0.2, timeout: float = 60.0
    ) -> Iterator[None]:
        self.config.write_text(SETTINGS.format(reserve=reserve, quiet=quiet, timeout=timeout) + rules)
        self.app = App(config_file.load(self.config))
        self.app.start()
        try:
            yield
        finally:
            self.app.stop()

    def send(self, *data_sets: Dataset) -> list[Sent]:
        assert self.app is not None
        files = []
        for number, data_set in enumerate(data_sets):
            path = self.folder / f"{number}.dcm"
            path.write_bytes(made.part10(data_set))
            files.append(dicom_files.read(path))
        sender = Sender(
            PeerConfig("ANODE", "127.0.0.1", self.app.server.port),
            calling_ae_title="SCANNER",
            timeout_seconds=10.0,
            max_pdu_bytes=16384,
            recode=recoding.uncompressed,
        )
        sent = list(sender.send(files))
        with self.app.services.database.read():
            return sent  # the rows are committed, so that the command sees them

    def image(self, **attributes: Any) -> Dataset:
        return made.ct_image(study_instance_uid=self.study, **attributes)

    def why(self, study: str = "") -> dict[str, Any]:
        self.capture.readouterr()
        assert main(["why", study or self.study, "--config", str(self.config), "--json"]) == 0
        explained: dict[str, Any] = json.loads(self.capture.readouterr().out)
        return explained

    def expect(self, fault: str) -> dict[str, Any]:
        """Wait until ``why`` says what the table wants; return it."""
        said: list[str] = []

        def is_named() -> bool:
            said[:] = differences(FAULTS[fault], self.why()["rows"], f" --config {self.config}")
            return not said

        try:
            wait_until(is_named, 20.0)
        except AssertionError:
            raise AssertionError("; ".join(said) + f"\n{json.dumps(self.why(), indent=1)}") from None
        return self.why()


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys, uid.generate_uid())


@contextmanager
def pacs(answer: Callable[[Any], Any]) -> Iterator[int]:
    """A PACS of another make; yields its port."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    entity = AE("PACS")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), [uid.ExplicitVRLittleEndian])
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


@contextmanager
def faulty_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, further: str = ""
) -> Iterator[None]:
    """Install a package that brings a model called ``faulty``, whose ``predict`` does ``body``.

    ``further`` are needs beside its series.
    """
    package = folder / "package"
    (package / "faulty-1.dist-info").mkdir(parents=True)
    (package / "faulty-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: faulty\nVersion: 1\n"
    )
    (package / "faulty-1.dist-info" / "entry_points.txt").write_text(
        "[anode.models]\nfaulty = faulty_model:Faulty\n"
    )
    (package / "faulty_model.py").write_text(
        "from models.base import ModelCard, Need\nfrom models.types import Code\n"
        "class Faulty:\n"
        f"    needs = (Need('series', 'series'), {further})\n"
        "    parameters = ()\n"
        "    card = ModelCard('faulty', '1', 'Faulty', 'none', 'none', 'any', 'nothing', 'none', 'none',\n"
        "                     Code('111', '99TEST', 'Faulty'))\n"
        f"    def predict(self, inputs):\n        {body}\n"
    )
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PYTHONPATH", str(package))
    try:
        yield
    finally:
        sys.modules.pop("faulty_model", None)


def test_the_pacs_is_down(bench: Bench) -> None:
    with bench.node(PACS.format(port=free_port()) + FORWARD):
        bench.send(bench.image())
        explained = bench.expect("the PACS is down")
    assert explained["state"] == "complete"


def test_the_pacs_refuses(bench: Bench) -> None:
    def refuse(_: Any) -> Dataset:
        status = Dataset()
        status.Status = 0xC123
        status.ErrorComment = "no such patient here"
        return status

    with pacs(refuse) as port, bench.node(PACS.format(port=port) + FORWARD):
        bench.send(bench.image())
        explained = bench.expect("the PACS refuses")
    assert explained["state"] == "stopped"


def test_no_rule_matches(bench: Bench) -> None:
    with bench.node(QUALITY.format(modality="MR")):
        bench.send(bench.image())
        bench.expect("no rule matches")


def test_the_geometry_is_refused(bench: Bench) -> None:
    series = uid.generate_uid()
    images = [
        bench.image(series_instance_uid=series, ImagePositionPatient=[0, 0, z], InstanceNumber=number)
        for number, z in enumerate((0.0, 1.0, 2.0, 9.5, 10.5), 1)
    ]
    with bench.node(LUNGS):
        bench.send(*images)
        bench.expect("the geometry is refused")


def test_the_model_crashed(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_model(tmp_path, monkeypatch, "raise RuntimeError('for the test')"), bench.node(FAULTY):
        bench.send(bench.image())
        bench.expect("the model crashed")


def test_the_model_timed_out(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        faulty_model(tmp_path, monkeypatch, "import time; time.sleep(600)"),
        bench.node(FAULTY, timeout=2.0),
    ):
        bench.send(bench.image())
        bench.expect("the model timed out")


def test_the_analysis_is_parked(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_model(tmp_path, monkeypatch, "raise RuntimeError('for the test')"), bench.node(FAULTY):
        bench.send(*(bench.image(series_instance_uid=f"1.2.3.{number}") for number in range(4)))
        explained = bench.expect("the analysis is parked")
        assert sorted(row["cause"] for row in explained["rows"]) == [
            "analysis-parked",
            *["model-crashed"] * 3,
        ]
        arguments = ["retry", "--analysis", "faulty", "--config", str(bench.config)]
        assert main(arguments) == 0
        assert "4 jobs will be done now" in bench.capture.readouterr().out


def test_an_input_is_missing(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = "Need('other', comes_from='study')"
    rules = FAULTY + 'when = { Modality = "CT" }\ninputs = { other = { Modality = "PT" } }\n'
    with faulty_model(tmp_path, monkeypatch, "pass", needs), bench.node(rules):
        bench.send(bench.image(), bench.image(Modality="MR"))
        bench.expect("an input is missing")


def test_another_analysis_is_not_over(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = FAULTY + QUALITY.format(modality="CT") + 'after = "faulty"\n'
    with faulty_model(tmp_path, monkeypatch, "import time; time.sleep(600)"), bench.node(rules):
        bench.send(bench.image())
        bench.expect("another analysis is not over")
        wait_until(lambda: bench.why()["state"] == "complete", 20.0, "the other analysis to begin")
        bench.expect("another analysis is not over")


def test_a_result_does_not_match(bench: Bench) -> None:
    rules = QUALITY.format(modality="CT") + (
        '[[analyses]]\nname = "second"\nmodel = "series-quality"\nafter = "quality"\n'
        'when = { "quality.Imaging Series Quality" = "neither" }\n'
    )
    with bench.node(rules):
        bench.send(bench.image())
        bench.expect("a result does not match")


def test_a_failed_check_is_told_first_with_its_reason(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        "from models.types import Check, Findings, Measurement\n"
        "        one = Code('1', 'UCUM', 'no units')\n"
        "        numbers = [Measurement(self.card.family, n, one, name=f'n{n}') for n in range(12)]\n"
        "        check = Check('complete', False, 'the scan cuts the left lung', withholds=('n11',))\n"
        "        return Findings(measurements=tuple(numbers), checks=(check,))"
    )
    with faulty_model(tmp_path, monkeypatch, body), bench.node(FAULTY + 'results = ["sr"]\n'):
        bench.send(bench.image())
        wait_until(lambda: bench.why()["state"] == "analysed", 60.0, "the result")
        [row] = bench.why()["rows"]
    assert (
        "Found: complete failed (the scan cuts the left lung), n11 withheld, n0 0, n1 1" in row["explanation"]
    )
    assert row["found"]["complete.reason"] == ["the scan cuts the left lung"]
    assert row["found"]["n11"] == []


def test_the_picture_of_a_result_is_shown_by_the_command_that_its_row_names(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        "import numpy as np\n"
        "        from models.types import Findings, Picture\n"
        "        pixels = np.full((30, 40, 3), 200, np.uint8)\n"
        "        return Findings(pictures=(Picture('grey', 'Grey', pixels),))"
    )
    with faulty_model(tmp_path, monkeypatch, body), bench.node(FAULTY):
        bench.send(bench.image())
        wait_until(lambda: bench.why()["state"] == "analysed", 60.0, "the result")
        [row] = bench.why()["rows"]
        assert row["model"] == "faulty 1"
        program, *arguments = shlex.split(row["picture"])
        monkeypatch.chdir(tmp_path)
        assert (program, main(arguments)) == ("anode", 0)
        assert arguments[1] in row["results"]
        bench.capture.readouterr()
        assert main(["why", bench.study, "--config", str(bench.config)]) == 0
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width >= 40
    told = bench.capture.readouterr().out.splitlines()
    assert "  model     faulty 1" in told
    assert f"  picture   {row['picture']}" in told


def test_a_node_without_the_analysis_lets_go_what_was_set_aside_of_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_model(tmp_path, monkeypatch, "raise RuntimeError('for the test')"), bench.node(FAULTY):
        bench.send(bench.image())
        bench.expect("the model crashed")
    with bench.node():
        [row] = bench.why()["rows"]
        assert (row["state"], row["cause"]) == ("stopped", "not-configured")
        assert main(shlex.split(row["command"])[1:]) == 0
        wait_until(lambda: bench.why()["rows"] == [], 20.0, "the job to be let go")


def test_waiting_for_quiet(bench: Bench) -> None:
    with bench.node(QUALITY.format(modality="CT"), quiet=1000):
        bench.send(bench.image())
        explained = bench.expect("waiting for quiet")
    assert explained["state"] == "receiving"


def test_the_disk_is_full(bench: Bench) -> None:
    with bench.node():
        assert [one.status for one in bench.send(bench.image())] == [0]
    other = uid.generate_uid()
    with bench.node(reserve=10**15):
        refused = bench.send(made.ct_image(study_instance_uid=other))
        assert [one.status for one in refused] == [0xA700]
        bench.expect("the disk is full")
        bench.capture.readouterr()
        assert main(["why", other, "--config", str(bench.config)]) == 1
        assert "A700" in bench.capture.readouterr().err


def test_two_patients(bench: Bench) -> None:
    with bench.node(QUALITY.format(modality="CT")):
        bench.send(bench.image(), bench.image(PatientID="PHANTOM-2", PatientName="Phantom^Other"))
        bench.expect("two patients")


def test_a_study_that_is_not_here_is_told_so(bench: Bench) -> None:
    with bench.node():
        assert main(["why", "1.2.3.4", "--config", str(bench.config)]) == 1
    assert "there is no study '1.2.3.4' here" in bench.capture.readouterr().err


def test_a_study_whose_results_were_delivered_has_nothing_left_to_do(bench: Bench) -> None:
    series = uid.generate_uid()
    images = [
        bench.image(
            series_instance_uid=series,
            ImagePositionPatient=[0, 0, 1.5 * number],
            InstanceNumber=number,
            pixels=np.full((16, 16), number, "<i2") + np.arange(16, dtype="<i2"),
        )
        for number in range(1, 6)
    ]
    with pacs(lambda _: 0) as port:
        rules = QUALITY.format(modality="CT") + 'results = ["sr"]\nsend_to = ["PACS"]\n'
        with bench.node(PACS.format(port=port) + FORWARD + rules):
            bench.send(*images)
            wait_until(lambda: bench.why()["state"] == "returned", 60.0, "the results to be returned")
            explained = bench.why()
            assert {row["state"] for row in explained["rows"]} == {"done"}
            assert {row["about"] for row in explained["rows"]} == {
                "analysis quality",
                "instances to PACS",
                "results to PACS",
            }
            assert not any(row["command"] or row["next_try"] for row in explained["rows"])
            [made] = [row for row in explained["rows"] if row["about"] == "analysis quality"]
            assert made["model"].split()[:2] == ["series-quality", SeriesQuality.card.version]
            assert re.fullmatch("[0-9a-f]{64}", made["input_digest"])
            [report] = made["results"]
            assert report not in {image.SOPInstanceUID for image in images}
            assert made["picture"] == ""
            assert main(["why", bench.study[:-1], "--config", str(bench.config)]) == 0
    assert "Delivered: 5 instances." in bench.capture.readouterr().out


def test_every_fault_of_the_table_has_its_test() -> None:
    tests = {name.removeprefix("test_").replace("_", " ") for name in globals() if name.startswith("test_")}
    assert {fault.lower() for fault in FAULTS} <= tests


def test_the_table_can_fail() -> None:
    fault = FAULTS["the PACS is down"]
    right = {
        "about": "instances to PACS",
        "state": fault.state,
        "cause": fault.cause,
        "explanation": "No connection; tried again by itself",
        "since": time.time(),
        "next_try": time.time(),
        "command": "anode echo PACS",
    }
    assert differences(fault, [right], "") == []
    for key in right:
        assert differences(fault, [{**right, key: ""}], ""), key
