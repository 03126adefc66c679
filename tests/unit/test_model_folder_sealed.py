"""A model folder holds what is pinned and nothing else, when a model is loaded and before each run."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from models import registry
from models.types import Findings, Inputs
from node import __main__ as command_line
from node.catalogue import catalogue, pinned_files
from node.runners import loading
from node.runners.failures import ModelReplaced
from tests.support import made_folders
from tests.support.made_folders import LABEL

INPUT = '[[input]]\nas = "volume"\n'
OUTPUT = f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n'
SAYS = """
import json, os, sys, helper
out = sys.argv[1] + "/out/"
open(out + "part", "w").write(json.dumps({"contract": 1, "summary": helper.WORD}))
os.rename(out + "part", out + "result.json")
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))


def network(path: Path) -> Path:
    made_folders.identity(path / "model.onnx")
    return made_folders.folder(path, INPUT + OUTPUT)


def program(path: Path, stated: str = "") -> Path:
    """Make a folder whose program says the word of a module beside it."""
    (path / "program.py").write_text(SAYS)
    (path / "helper.py").write_text("WORD = 'pinned'\n")
    argv = 'kind = "command"\nargv = ["{python}", "{folder}/program.py", "{job}"]'
    return made_folders.folder(path, INPUT, runner=f"{argv}\n{stated}")


def inputs() -> Inputs:
    return Inputs({"volume": made_folders.volume(np.zeros((2, 3, 4), np.int16))})


def loaded(path: Path) -> Any:
    return loading.load(str(path), device="cpu", threads=1)


def faults(path: Path) -> list[str]:
    return catalogue.faults(catalogue.describe(str(path)))


# --- when it is loaded -------------------------------------------------------


@pytest.mark.parametrize("name", ["w.bin", "tool", "lib.so.1", "a.pl", "deep/w.pth", ".hidden", "beside.py"])
@pytest.mark.parametrize("kind", [network, program])
def test_whatever_is_not_pinned_is_refused_by_name(tmp_path: Path, name: str, kind: Any) -> None:
    path = kind(tmp_path)
    assert faults(path) == []
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(b"x")
    [fault] = faults(path)
    assert fault.startswith(f"{path / name} is not pinned")
    with pytest.raises(registry.UnusableModel, match="is not pinned"):
        loaded(path)


def test_weights_beside_a_network_have_to_be_pinned(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["given", "weight"], ["said"])
    shape = ("n", 1, "d", "h", "w")
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "made",
        [helper.make_tensor_value_info("given", floats, shape)],
        [helper.make_tensor_value_info("said", floats, shape)],
        [onnx.numpy_helper.from_array(np.float32([0.5]), "weight")],
    )
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    path = made_folders.folder(tmp_path, INPUT + OUTPUT)
    assert loaded(path).predict(inputs()).segments[0].mask.all()
    text = (path / "analysis.toml").read_text()
    pin = text[text.index('[[runner.files]]\npath = "w.bin"') :]
    (path / "analysis.toml").write_text(text.replace(pin, ""))
    with pytest.raises(registry.UnusableModel, match=r"w\.bin is not pinned"):
        loaded(path)


def test_a_link_to_a_folder_is_refused_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "model.py").write_text("class Model:\n    def predict(self, inputs): ...\n")
    made_folders.folder(path, INPUT, runner='kind = "python"\nentry = "model.py:Model"')
    (tmp_path / "elsewhere").mkdir()
    (path / "helper").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(registry.UnusableModel, match="helper is a link to a folder"):
        loaded(path)
    assert "helper" not in pinned_files.stanza(path)


def test_a_link_to_nothing_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    path = network(tmp_path)
    (path / "dangling").symlink_to(tmp_path / "absent")
    os.mkfifo(path / "pipe")
    assert [one.split(" is ")[0] for one in faults(path)] == [str(path / "dangling"), str(path / "pipe")]
    (path / "dangling").unlink()
    (path / "pipe").unlink()
    (path / "model.onnx").unlink()
    os.mkfifo(path / "model.onnx")
    # to read it would wait for somebody who writes
    assert faults(path) == [f"{path / 'model.onnx'} is no file"]


def test_what_python_compiled_earlier_is_refused_and_not_pinned(tmp_path: Path) -> None:
    path = program(tmp_path)
    source = path / "helper.py"
    py_compile.compile(str(source), cfile=importlib.util.cache_from_source(str(source)))
    [fault] = faults(path)
    assert "__pycache__ is what Python compiled earlier" in fault
    assert "__pycache__" not in pinned_files.stanza(path)


def test_a_folder_of_many_files_does_not_fill_a_page(tmp_path: Path) -> None:
    path = network(tmp_path)
    for number in range(40):
        (path / f"{number:02}.bin").write_bytes(b"")
    found = faults(path)
    assert len(found) == pinned_files.MOST_TOLD + 1
    assert found[-1] == f"{path}: 30 more are not pinned either"


def test_an_environment_that_the_folder_names_is_not_looked_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "lib64").symlink_to(tmp_path)
    (tmp_path / "environment" / "big.so").write_bytes(b"x")
    path = program(tmp_path, 'unpinned = ["environment"]')
    stated = (path / "analysis.toml").read_text().partition("[[runner.files]]")[0]
    (path / "analysis.toml").write_text(stated)
    assert command_line.main(["models", "pin", str(path)]) == 0
    pins = capsys.readouterr().out
    assert "helper.py" in pins
    assert "environment" not in pins
    (path / "analysis.toml").write_text(f"{stated}\n{pins}")
    assert faults(path) == []
    (path / "beside").write_bytes(b"x")
    assert len(faults(path)) == 1


def test_what_is_stated_has_to_be_what_was_read(tmp_path: Path) -> None:
    described = catalogue.describe(str(network(tmp_path)))
    catalogue.verify(described)
    with (tmp_path / "analysis.toml").open("a") as file:
        file.write("# another one\n")
    with pytest.raises(registry.UnusableModel, match=r"analysis\.toml is another one than was read"):
        catalogue.verify(described)


# --- while it is loaded ------------------------------------------------------

SWAPPING = """
from pathlib import Path
folder = Path(__file__).parent
{swap}
class Model:
    def predict(self, inputs): ...
"""


@pytest.mark.parametrize(
    "swap",
    [
        "(folder / 'weights').rename(folder / 'kept'); (folder / 'kept').rename(folder / 'weights')",
        "was = (folder / 'weights').read_bytes()\n"
        "(folder / 'weights').write_bytes(b'forged')\n(folder / 'weights').write_bytes(was)",
        "(folder / 'json.py').touch(); (folder / 'json.py').unlink()",
        "(folder / 'deep' / 'json.py').touch(); (folder / 'deep' / 'json.py').unlink()",
        "(folder / 'weights').unlink()",
    ],
    ids=["another-file", "other-content", "one-more", "one-more-below", "gone"],
)
def test_what_was_swapped_while_it_was_loaded_and_put_back_is_not_overlooked(
    tmp_path: Path, swap: str
) -> None:
    (tmp_path / "weights").write_bytes(b"meant")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights").write_bytes(b"meant")
    (tmp_path / "model.py").write_text(SWAPPING.format(swap=swap))
    path = made_folders.folder(tmp_path, INPUT, runner='kind = "python"\nentry = "model.py:Model"')
    with pytest.raises(ModelReplaced, match="was touched while the model was loaded"):
        loaded(path)


# --- before each run ---------------------------------------------------------


def test_a_program_that_was_changed_after_a_run_is_not_run_again(tmp_path: Path) -> None:
    path = program(tmp_path)
    model = loaded(path)
    first: Findings = model.predict(inputs())
    assert first.summary == "pinned"
    times = (path / "helper.py").stat()
    (path / "helper.py").write_text("WORD = 'forged'\n")
    os.utime(path / "helper.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ModelReplaced, match=r"helper\.py has the SHA-256") as caught:
        model.predict(inputs())
    # which would be a refusal of the input
    assert not isinstance(caught.value, ValueError)
    (path / "helper.py").write_text("WORD = 'pinned'\n")
    assert model.predict(inputs()).summary == "pinned"


def restated(path: Path) -> None:
    text = (path / "analysis.toml").read_text()
    (path / "analysis.toml").write_text(text.replace('version = "1"', 'version = "2"'))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: (path / "json.py").write_text("raise SystemExit"), r"json\.py is not pinned"),
        (lambda path: (path / "helper.py").unlink(), r"helper\.py is missing"),
        (lambda path: (path / "__pycache__").mkdir(), "__pycache__ is what Python compiled"),
        (restated, r"analysis\.toml is another one"),
    ],
)
def test_nothing_is_run_from_a_folder_that_became_another_one(tmp_path: Path, change: Any, told: str) -> None:
    path = program(tmp_path)
    model = loaded(path)
    model.predict(inputs())
    change(path)
    with pytest.raises(ModelReplaced, match=told):
        model.predict(inputs())


def test_digests_are_taken_again_only_of_what_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path)
    model = loaded(path)
    taken: list[Path] = []
    digest_of = pinned_files.digest_of

    def noted(one: Path) -> str:
        taken.append(one)
        return digest_of(one)

    monkeypatch.setattr(pinned_files, "digest_of", noted)
    model.predict(inputs())
    assert taken == []
    os.utime(path / "helper.py")
    model.predict(inputs())
    assert path / "helper.py" in taken
    taken.clear()
    model.predict(inputs())
    assert taken == []


def test_a_compiled_form_beside_a_program_is_not_what_runs(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    path = program(tmp_path, 'unpinned = ["__pycache__"]')
    forged = tmp_path / "__pycache__" / "forged.py"
    forged.write_text("WORD = 'forged'\n")
    py_compile.compile(
        str(forged),
        cfile=importlib.util.cache_from_source(str(path / "helper.py")),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    assert loaded(path).predict(inputs()).summary == "pinned"
