"""``anode models check`` loads a model as it is to run, and says what keeps it from that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node import __main__ as command_line
from tests.support import made_folders
from tests.support.made_folders import LABEL

INPUT = '[[input]]\nas = "volume"\n'
OUTPUT = f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n'
PYTHON = 'kind = "python"\nentry = "model.py:Model"'


def checked(capsys: pytest.CaptureFixture[str], name: object, *options: str) -> tuple[int, str]:
    status = command_line.main(["models", "check", str(name), *options])
    return status, capsys.readouterr().out


def test_a_network_is_loaded_and_what_is_wrong_with_it_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_folders.identity(tmp_path / "model.onnx")
    path = made_folders.folder(tmp_path, INPUT + OUTPUT)
    assert checked(capsys, path) == (0, f"{path}: made 1, 1 file as pinned, can be loaded\n")
    (path / "analysis.toml").unlink()
    path = made_folders.folder(tmp_path, f'{INPUT}{OUTPUT}tensor = "logit"\n')
    status, told = checked(capsys, path)
    assert status == 1
    assert f"model made cannot be loaded: {path}: [[output]] said: the network has no tensor 'logit'" in told
    (path / "analysis.toml").unlink()
    (path / "model.onnx").write_bytes(b"garbage")
    path = made_folders.folder(tmp_path, INPUT + OUTPUT)
    status, told = checked(capsys, path, "--json")
    assert status == 1
    assert json.loads(told)["model"] == str(path)
    [problem] = json.loads(told)["problems"]
    assert problem.startswith(f"model made cannot be loaded: {path}/model.onnx cannot be loaded: ")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("class Other: ...", "model.py has no Model"),
        ("import absent_package", "ModuleNotFoundError: No module named 'absent_package'"),
        ("class Model", "SyntaxError: expected ':' (model.py, line 1)"),
        ("import os\nos._exit(3)", "model made ended by exit status 3: it said nothing"),
    ],
)
def test_a_file_of_python_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, told: str
) -> None:
    (tmp_path / "model.py").write_text(source)
    path = made_folders.folder(tmp_path, INPUT, runner=PYTHON)
    status, said = checked(capsys, path)
    assert (status, len(said.splitlines())) == (1, 1)
    assert told in said


def test_the_program_of_a_command_is_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    path = made_folders.folder(tmp_path, INPUT, runner='kind = "command"\nargv = ["{folder}/run.sh"]')
    status, told = checked(capsys, path)
    assert status == 1
    assert f"the program {path}/run.sh may not be run: its file is not executable (chmod +x)" in told


def test_a_model_is_checked_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = checked(capsys, "series-quality")
    assert (status, told.startswith("series-quality "), told.endswith(", can be loaded\n")) == (0, True, True)
    status, told = checked(capsys, "series-qualty")
    assert status == 1
    assert told == "there is no model 'series-qualty'; did you mean 'series-quality'?\n"


def test_the_network_is_allowed_to_what_is_checked_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, "series-quality", "--allow-network")[0] == 0
    assert command_line.main(["models", "--allow-network"]) == 2
