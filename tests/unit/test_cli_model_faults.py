"""A node does not start with a model that cannot run as configured, and ``anode check`` says so before."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest

from node.__main__ import main
from node.cli import model_faults
from node.config import config_file
from node.processes import confinement
from tests.unit.test_config_analyses import MODEL, PET

CODE = "class Nothing:\n    pass\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with one model folder, on a system that can confine it."""
    monkeypatch.setattr(confinement, "why_unconfinable", lambda: "")
    # What 'anode run' does to its process stays out of this one.
    monkeypatch.setattr("node.cli.run._watch_signals", threading.Event)
    monkeypatch.setattr("sys.setswitchinterval", lambda seconds: None)
    monkeypatch.setattr("node.allocation.keep_freed_memory", lambda: None)
    folder = tmp_path / "models" / "two"
    folder.mkdir(parents=True)
    digest = hashlib.sha256(CODE.encode()).hexdigest()
    before = MODEL[MODEL.index('sha256 = "') :].split('"')[1]
    (folder / "analysis.toml").write_text(MODEL.replace(before, digest))
    (folder / "model.py").write_text(CODE)
    path = tmp_path / "config.toml"
    path.write_text(
        "[node]\nport = 0\n[storage]\nfree_space_reserve_bytes = 1000\n"
        f'[[analyses]]\nname = "two"\nmodel = "models/two"\n{PET}\n'
    )
    return path


def faults(config: Path) -> list[str]:
    return model_faults.problems(config_file.load(config))


def checked(config: Path, capsys: pytest.CaptureFixture[str], status: int) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["check", "--no-peers", "--json", "--config", str(config)]) == status
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return [one for one in found if one["what"] == "analysis two" and one["state"] != "warning"]


def refuses_to_run(config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["run", "--config", str(config)]) == 2
    assert not (config.parent / "data").exists()
    return capsys.readouterr().err


def test_a_model_whose_files_are_there_is_fine(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(config) == []
    (one,) = checked(config, capsys, 0)
    assert (one["state"], one["detail"]) == ("ok", "model two-inputs 1")


def test_a_file_that_is_missing_is_named_and_nothing_starts(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "models" / "two" / "model.py").unlink()
    (one,) = checked(config, capsys, 1)
    assert one["state"] == "problem"
    assert "model.py" in one["detail"]
    told = refuses_to_run(config, capsys)
    assert f"{config}: [[analyses]] two: " in told
    assert "model.py" in told


def test_a_file_with_another_digest_is_named_and_nothing_starts(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "models" / "two" / "model.py").write_text(CODE + "# changed\n")
    (one,) = checked(config, capsys, 1)
    assert "model.py" in one["detail"]
    assert "model.py" in refuses_to_run(config, capsys)


def test_a_system_without_namespaces_is_told_and_warned_of_if_the_network_is_allowed(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confinement, "why_unconfinable", lambda: "refused")
    (one,) = checked(config, capsys, 1)
    assert "permits not the namespaces" in one["detail"]
    assert "allow_network = true" in refuses_to_run(config, capsys)
    config.write_text(f"{config.read_text()}allow_network = true\n")
    assert faults(config) == []
    ((analysis, exposure),) = model_faults.exposures(config_file.load(config))
    assert analysis.name == "two"
    assert "all rights of the node's user" in exposure
    capsys.readouterr()
    main(["check", "--no-peers", "--config", str(config)])
    assert exposure in capsys.readouterr().out


def test_a_model_by_name_is_held_from_the_network_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confinement, "why_unconfinable", lambda: "refused")
    path = tmp_path / "config.toml"
    path.write_text('[[analyses]]\nname = "q"\nmodel = "series-quality"\n')
    (fault,) = faults(path)
    assert fault.startswith(f"{path}: [[analyses]] q: this system permits not the namespaces")
