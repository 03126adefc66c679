"""The system's clock is set while a whole node runs (libfaketime shows it another time of day)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support import made
from tests.support.anode_process import AnodeProcess
from tests.support.waiting import wait_until

CONFIGURATION = """
[study]
quiet_seconds = 3
[[analyses]]
name = "quality"
model = "series-quality"
when = { Modality = "CT" }
results = ["sr"]
"""
HOUR = 3600


def libfaketime() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (Debian: faketime)")
    return found[0]


class SetClock:
    """What the node takes for the time of day: ours, and so many seconds more."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set_by(0)

    def set_by(self, seconds: int) -> None:
        other = self._file.with_suffix(".new")
        other.write_text(f"{seconds:+d}\n")
        other.rename(self._file)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(libfaketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_study_is_analysed_after_its_quiet_period_whichever_way_the_clock_is_set(
    tmp_path: Path, step: int
) -> None:
    clock = SetClock(tmp_path / "time")
    node = AnodeProcess(tmp_path / "node", CONFIGURATION)
    folder = tmp_path / "study"
    folder.mkdir()
    image = made.ct_image(study_instance_uid="1.2.3", series_instance_uid="1.2.3.4")
    (folder / "1").write_bytes(made.part10(image))

    def selected() -> bool:
        return any(job["state"] == "done" for job in node.json("jobs", "--kind", "select"))

    node.start(**clock.environment())
    try:
        clock.set_by(step)
        wait_until(lambda: "clock was set" in node.log.read_text(), 30, "the node to notice")
        node.run("send", str(folder), "--to", f"127.0.0.1:{node.port}/ANODE")
        (study,) = node.json("studies")
        ahead = study["last_received_at"] - datetime.now(UTC).timestamp()
        assert abs(ahead - step) < HOUR / 2, "the node took over the time of day"
        clock.set_by(0)
        wait_until(selected, 60, "the study to be complete")
        assert node.log.read_text().count("clock was set") == 2
    finally:
        node.stop()
    assert "Traceback" not in node.log.read_text()
