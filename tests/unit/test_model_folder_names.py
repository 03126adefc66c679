"""What a model folder names is held against what it says of it, and is told to who asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from node import __main__ as command_line
from node.analysis.facts import facts_of
from node.catalogue import catalogue, model_folder
from tests.support import made_folders
from tests.support.made_folders import LABEL
from tests.unit.test_model_folder import MEASURED, SHARE, WHOLE, problems, stated


def test_what_can_be_told_apart_and_withheld_is_accepted(tmp_path: Path) -> None:
    text = (
        f'{WHOLE}{MEASURED}{SHARE}name = "a"\nabove = 3\n{SHARE}name = "b"\nabove = 4\n'
        f'[[output]]\nname = "quality"\nas = "classification"\nactivation = "sigmoid"\n{LABEL}\n'
        'concept = { value = "Q", scheme = "99T", meaning = "Question" }\n'
        '[[output]]\nname = "spot"\nas = "points"\nlabels = [{ index = 0, name = "spot" }]\n'
        '[[check]]\nname = "c"\nreason = "r"\nmeasurement = "size"\nminimum = 1\n'
        'withholds = ["*", "thing", "size", "thing.a", "quality.thing", "quality", "Question", "spot-12"]\n'
    )
    [table] = model_folder.read(stated(tmp_path, text)).checks
    assert len(table.withholds) == 8


def test_what_a_program_may_find_itself_can_be_withheld_by_any_name(tmp_path: Path) -> None:
    text = (
        '[[input]]\n[[check]]\nname = "c"\nreason = "r"\nmeasurement = "fat"\nminimum = 1\n'
        'withholds = ["fat"]\n'
    )
    path = stated(tmp_path, text, runner='kind = "command"\nargv = ["true"]')
    assert catalogue.describe(str(path)).askable == (("c", "passed or failed"),)


def test_faults_of_the_tables_and_of_the_files_are_told_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stated(tmp_path, f"{WHOLE}thresold = 0.5\n")
    (path / "more.bin").write_bytes(b"more")
    text = (path / "analysis.toml").read_text()
    with (path / "analysis.toml").open("a") as file:
        file.write('[[runner.files]]\npath = "weights.bin"\nsha256 = "12"\n')
    (path / "weights.bin").write_bytes(b"weights")
    (path / "model.onnx").write_bytes(b"other")
    assert command_line.main(["models", "check", str(path)]) == 1
    lines = [line.removeprefix(f"{path}/") for line in capsys.readouterr().out.splitlines()]
    for line, told in zip(
        lines,
        (
            f"analysis.toml:{line_of(text, 'thresold')}: [[output]] thresold: unknown key; did you mean",
            f"analysis.toml:{len(text.splitlines()) + 3}: [[runner.files]] sha256: expected a SHA-256",
            "model.onnx has the SHA-256 ",
            "more.bin is not pinned; add its path and sha256 to analysis.toml",
        ),
        strict=True,
    ):
        assert line.startswith(told)


def line_of(text: str, word: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if word in line)


def test_a_file_that_a_runner_wants_and_nobody_pinned_says_how_to_pin_it(tmp_path: Path) -> None:
    found = problems(stated(tmp_path, WHOLE, runner='kind = "onnx"\nfile = "other.onnx"'))
    assert any("('anode models pin' prints the table)" in one for one in found)


def test_a_model_is_shown_with_what_later_analyses_can_ask_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = 'unit = "1"\nconcept = { value = "Q", scheme = "99T", meaning = "Question" }\n'
    path = stated(
        tmp_path,
        f'{WHOLE}{MEASURED}[[output]]\nname = "age"\nas = "regression"\n{number}'
        '[[check]]\nname = "whole"\nreason = "r"\nmeasurement = "size"\nminimum = 0\n',
    )
    assert command_line.main(["models", str(path)]) == 0
    shown = capsys.readouterr().out
    told = [line.split(None, 1)[1] for line in shown.splitlines() if line.startswith("when")]
    assert told == [
        "ANALYSIS.age: a number",
        "ANALYSIS.thing: found",
        "ANALYSIS.thing.size: a number",
        "ANALYSIS.whole: passed or failed",
    ]
    findings = made_folders.predict(path, made_folders.volume(np.full((2, 3, 4), 1, np.float32)))
    assert set(facts_of(findings)) == {line.removeprefix("ANALYSIS.").partition(":")[0] for line in told}
