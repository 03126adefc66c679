"""The pages say what is true."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from models import registry, types
from models.types import Findings, Inputs, Volume
from node.config import config_file

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:node|handlers|models|tests)/[\w/]+\.py)`", page.read_text())
    made_by_the_reader = {"models/air.py"}
    assert [name for name in named if not (ROOT / name).exists() and name not in made_by_the_reader] == []


def test_every_room_is_in_the_picture_of_the_house() -> None:
    drawn = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [path.name for path in (ROOT / "node").iterdir() if path.is_dir() and path.name != "__pycache__"]
    modules = [path.stem for path in (ROOT / "node").glob("*.py") if path.stem != "__init__"]
    assert [name for name in [*rooms, *modules] if name not in drawn] == []


def test_the_model_of_the_authors_page_runs_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "new-model.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "class Air" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    monkeypatch.setattr(registry, "_factory", lambda name: namespace["Air"])
    model = registry.load("air")
    voxels = np.full((2, 10, 10), -1000, np.int16)
    volume = Volume(voxels, np.diag([5.0, 1.0, 1.0, 1.0]), (5.0, 1.0, 1.0), "[hnsf'U]")
    [below] = model.parameters
    given = Inputs({"volume": volume}, {below.name: below.default})
    [measurement] = model.predict(given).measurements
    assert measurement.value == pytest.approx(1.0)


def test_the_smallest_useful_configuration_of_the_readme_is_accepted(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    file = tmp_path / "config.toml"
    file.write_text(next(re.finditer(r"```toml\n(.*?)```", text, re.S))[1])
    config = config_file.load(file)
    assert config.analyses[0].send_to == ("PACS",)


def test_the_table_of_findings_has_every_argument_of_their_classes() -> None:
    page = (ROOT / "docs" / "new-model.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| (`.*`) \|$", page, re.M))
    for name, arguments in told.items():
        own = [
            f"{one.name}: {one.type}{'' if one.default is MISSING else f' = {one.default!r}'}"
            for one in fields(getattr(types, name))
        ]
        written = ", ".join(f"`{one}`" for one in own).replace(" | ", " or ").replace("'", '"')
        assert arguments == written
    found = {get_args(one)[0].__name__ for one in get_type_hints(Findings).values() if get_args(one)}
    assert {"Findings", "Code", *found} == set(told)
