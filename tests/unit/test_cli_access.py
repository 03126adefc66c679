"""`anode check` says what other users of the machine can read or change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node import __main__ as command_line
from node.cli import access
from node.errors import WrongUsage
from tests.support.certificates import Authority

CONFIGURATION = """
[node]
data_dir = "data"
[node.tls]
certificate = "ca/node.crt"
key = "ca/node.key"
ca = "ca/ca.crt"
"""


def test_check_says_what_others_can_read_or_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, data_dir = tmp_path / "config.toml", tmp_path / "data"
    key = Authority(tmp_path / "ca").issue("node").key
    config.write_text(CONFIGURATION)
    data_dir.mkdir()

    def said(data_dir_mode: int, key_mode: int, config_mode: int) -> str:
        for path, mode in ((data_dir, data_dir_mode), (key, key_mode), (config, config_mode)):
            path.chmod(mode)
        command_line.main(["check", "--no-peers", "--config", str(config)])
        return capsys.readouterr().out

    found = said(0o755, 0o644, 0o666)
    assert f"{data_dir} can be looked into by every user of this machine: chmod o-rwx {data_dir}" in found
    assert f"the key {key} can be read by every user" in found
    assert f"{config} can be changed by every user" in found
    assert "every user" not in said(0o750, 0o640, 0o644)
    assert f"{data_dir} can be changed by every user" in said(0o777, 0o640, 0o644)


def test_root_does_not_write_in_the_directory_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's user could not read what root made."""
    data_dir = tmp_path / "data"
    access.refuse_root(data_dir)
    data_dir.mkdir()
    if os.getuid() == 0:
        os.chown(data_dir, 65534, 65534)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(WrongUsage, match="could not read what root writes") as refused:
        access.refuse_root(data_dir)
    assert "sudo -u" in refused.value.action
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    access.refuse_root(data_dir)
