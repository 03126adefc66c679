"""The command line: help for everything, and an exit status that can be relied on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node import __main__ as command_line
from node.cli import output
from node.cli.opening import configuration, is_running, peer_named
from node.cli.parser import parser
from node.config.settings import Config, PeerConfig
from node.errors import PeerUnreachable, WrongUsage

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "run", "demo", "check", "status", "studies", "jobs", "why", "retry", "verify", "echo", "send", "models",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"  anode {command}" in text.split("example")[1]
    assert max(map(len, text.splitlines())) <= 100


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["why"],
        ["jobs", "--state", "odd"],
        ["jobs", "--limit", "0"],
        ["retry"],
        ["retry", "1", "--all"],
        ["retry", "1", "--kind", "deliver"],
        ["retry", "--all", "--again"],
        ["echo", "NOBODY"],
        ["echo", "host:0/PACS"],
        ["echo", "host:104/FAR TOO LONG A TITLE"],
        ["send", "."],
        ["send", "absent", "--to", "127.0.0.1:104/PACS"],
        ["send", ".", "--to", "PACS", "--host", "h"],
        ["echo", "host:104/PACS", "--timeout", "0"],
        ["echo", "host:104/PACS", "--timeout", "-1"],
        ["echo", "host:104/PACS", "--timeout", "nan"],
        ["check", "--timeout", "inf"],
        ["check", "--timeout", "soon"],
        ["models", "lung"],
        ["status", "--config", "absent.toml"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = command_line.main(arguments)
    except SystemExit as end:  # argparse's own way
        status = int(end.code or 0)
    said = capsys.readouterr()
    assert status == 2
    assert said.err
    assert not said.out
    assert "Traceback" not in said.err


def test_all_problems_of_the_configuration_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[node]\nprot = 1\nae_title = 3\n")
    for command in (["check"], ["run"], ["status"]):
        assert command_line.main([*command, "--config", str(file)]) == 2
        problems = capsys.readouterr().err.splitlines()
        assert problems[0] == f"{file}:2: [node] prot: unknown key; did you mean 'port'?"
        assert len(problems) == 2
    assert command_line.main(["check", "--config", str(file), "--json"]) == 2
    assert [one["state"] for one in json.loads(capsys.readouterr().out)] == ["problem", "problem"]


def test_the_defaults_count_where_there_is_no_file_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = configuration(parser().parse_args(["status"]))
    assert config.node.data_dir == tmp_path.resolve() / "data"
    assert "no config.toml here" in capsys.readouterr().err
    (tmp_path / "config.toml").write_text("[node]\nport = 5\n")
    assert configuration(parser().parse_args(["status"])).node.port == 5
    assert not capsys.readouterr().err


def test_a_data_directory_without_records_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.toml").write_text("")
    assert command_line.main(["studies", "--config", str(tmp_path / "config.toml")]) == 1
    error = capsys.readouterr().err
    assert f"no node has run on {tmp_path}/data yet" in error
    assert f"anode run --config {tmp_path}/config.toml" in error


def test_a_fault_of_anode_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> list[str]:
        raise ZeroDivisionError("for the test")

    monkeypatch.setattr("models.registry.names", broken)
    assert command_line.main(["models"]) == 1
    error = capsys.readouterr().err
    assert "a fault in anode itself" in error
    assert "ZeroDivisionError: for the test" in error


def test_an_interrupt_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("models.registry.names", interrupted)
    assert command_line.main(["models"]) == command_line.INTERRUPTED == 130
    assert capsys.readouterr().err == "anode: interrupted\n"


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "node", "models", "--json"],
            cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 1


def test_peers_are_named_by_title_or_by_address() -> None:
    config = Config(peers=(PeerConfig("PACS", "10.0.0.7", 104),))
    assert peer_named(config, " PACS ") is config.peers[0]
    other = peer_named(config, "192.0.2.7:11112/MY PACS")
    assert (other.host, other.port, other.ae_title) == ("192.0.2.7", 11112, "MY PACS")
    assert peer_named(config, "[2001:db8::7]:104/X").host == "2001:db8::7"
    with pytest.raises(WrongUsage, match="did you mean 'PACS'"):
        peer_named(config, "PAC")


def test_an_echo_without_an_answer_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise PeerUnreachable("no connection: refused")

    monkeypatch.setattr("node.wire.scu.connect", unreachable)
    (tmp_path / "c.toml").write_text("")
    arguments = ["echo", "127.0.0.1:104/PACS", "--config", str(tmp_path / "c.toml")]
    assert command_line.main(arguments) == 1
    assert "PACS at 127.0.0.1:104: no connection: refused" in capsys.readouterr().err
    assert command_line.main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["answers"] is False


def test_models_shows_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["models", "--json"]) == 0
    assert {"lungs", "series-quality"} <= {card["name"] for card in json.loads(capsys.readouterr().out)}
    assert command_line.main(["models", "lungs"]) == 0
    assert "intended use" in capsys.readouterr().out


def test_nothing_runs_where_nobody_holds_the_lock(tmp_path: Path) -> None:
    config = configuration_in(tmp_path)
    assert not is_running(config)
    for content in ("", "nonsense", f"{os.getpid()}\n", "999999999\n"):
        (tmp_path / "lock").write_text(content)
        assert not is_running(config)


def configuration_in(data_dir: Path) -> Config:
    from dataclasses import replace

    return replace(Config(), node=replace(Config().node, data_dir=data_dir))


def test_tables_are_aligned_and_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["NAME", "COUNT", "NOTE"], [["a", 5, "x\x1b[2J"], ["longer", 1234, None]])
    assert capsys.readouterr().out.splitlines() == [
        "NAME    COUNT  NOTE",
        "------  -----  -----",
        "a           5  x?[2J",
        "longer   1234",
    ]
    output.table(["NAME"], [])
    assert capsys.readouterr().out.splitlines() == ["NAME", "----"]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (3.2e15, "3200.0 TB")]
)
def test_sizes_are_in_powers_of_1000(number: float, text: str) -> None:
    assert output.size(number) == text


def test_the_commands_start_without_the_heavy_libraries() -> None:
    code = (
        "import sys, node.__main__; print([m for m in ('numpy', 'highdicom', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
