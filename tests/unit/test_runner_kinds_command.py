"""A program is given a job folder, and what it leaves is taken only when it is as agreed."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models import registry
from models.types import Code, Findings, Image, InstanceView, Series
from node.errors import ModelCrashed, ModelUnusable
from node.runners import loading, nifti
from node.runners.command import LAST_BYTES
from node.runners.command_result import BrokenResult
from tests.support import made_folders
from tests.support.model_runs import ModelRuns

SHAPE = (3, 4, 5)
LABELS = (
    'labels = [{ index = 1, name = "liver", '
    'type = { value = "10200004", scheme = "SCT", meaning = "Liver" } },'
    ' { index = 2, name = "spleen", type = { value = "78961009", scheme = "SCT", meaning = "Spleen" } }]'
)
OUTPUTS = f'[[output]]\nname = "organs"\nas = "segmentation"\n{LABELS}\n'
START = """
import json, os, sys, gzip
from pathlib import Path
job = Path(sys.argv[1])
order = json.loads((job / "job.json").read_text())
out = job / order["out"]
def done(**result):
    (out / "result.json").write_text(json.dumps({"contract": 1, **result}))
"""


def program(path: Path, source: str, stated: str = "", runner: str = "") -> Path:
    """Make a folder whose program is Python; it has read its order when ``source`` begins."""
    (path / "program.py").write_text(START + textwrap.dedent(source))
    argv = 'kind = "command"\nargv = ["{python}", "-I", "{folder}/program.py", "{job}"]'
    return made_folders.folder(path, f'[[input]]\nas = "volume"\n{stated}', runner=f"{argv}\n{runner}")


def run(path: Path, **parameters: Any) -> Findings:
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    found: Findings = made_folders.predict(path, made_folders.volume(voxels), **parameters)
    return found


def told(path: Path) -> Any:
    """Run a program that gives its findings as the summary, in JSON."""
    return json.loads(run(path).summary)


def test_the_job_folder_holds_what_the_program_needs(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        files = sorted(str(one.relative_to(job)) for one in job.rglob("*") if one.is_file())
        meta = json.loads((job / order["inputs"][0]["meta"]).read_text())
        facts = {"files": files, "order": order, "meta": meta, "here": os.getcwd(), "out": str(out),
                 "environment": dict(os.environ)}
        done(summary=json.dumps(facts))
        """,
        '[[parameter]]\nname = "alpha"\ndefault = [0.5]\nmeaning = "x"\n',
        'environment = { WEIGHTS = "{folder}/weights", THREADS = "{threads}" }',
    )
    facts = told(path)
    assert facts["files"] == ["in/volume/meta.json", "in/volume/volume.nii.gz", "job.json", "said.txt"]
    assert facts["order"]["inputs"] == [
        {"name": "volume", "meta": "in/volume/meta.json", "volume": "in/volume/volume.nii.gz"}
    ]
    assert facts["order"]["parameters"] == {"alpha": [0.5]}
    assert (facts["order"]["threads"], facts["order"]["device"]) == (1, "cpu")
    assert facts["meta"]["shape"] == list(SHAPE)
    assert facts["meta"]["header"]["Modality"] == "CT"
    assert facts["here"] == facts["out"]
    environment = facts["environment"]
    assert environment["WEIGHTS"] == f"{tmp_path}/weights"
    assert environment["THREADS"] == environment["OMP_NUM_THREADS"] == "1"
    assert environment["HOME"].startswith(str(Path(facts["out"]).parent))
    assert "PYTEST_CURRENT_TEST" not in environment
    assert not Path(facts["out"]).exists()


def test_a_map_of_labels_becomes_segments_with_their_codes(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        with gzip.open(job / "in/volume/volume.nii.gz") as file:
            content = bytearray(file.read())
        for at, label in ((0, 1), (59, 2), (7, 2)):
            content[352 + 2 * at] = 0
        voxels = bytearray(2 * 60)
        for at, label in ((0, 1), (59, 2), (7, 2)):
            voxels[2 * at] = label
        (out / "map.nii").write_bytes(bytes(content[:352]) + voxels)
        done(segmentations=[{"file": "map.nii", "output": "organs"}],
             measurements=[{"name": "fat", "value": 3.5, "unit": "%", "of": "liver"},
                           {"name": "age", "value": 60}],
             classes=[{"name": "quality", "value": "good", "probability": 0.8}],
             points=[{"points": [1, 2, 3], "probability": 0.9, "label": "calcification"}],
             checks=[{"name": "fit", "passed": False, "reason": "too thin"}])
        """,
        OUTPUTS + '[[output]]\nname = "age"\nas = "regression"\nunit = "a"\n'
        'concept = { value = "397669002", scheme = "SCT", meaning = "Age" }\n'
        '[[measurement]]\nname = "size"\nof = "spleen"\nas = "volume"\n',
    )
    findings = run(path)
    liver, spleen = findings.segments
    assert np.argwhere(liver.mask).tolist() == [[0, 0, 0]]
    assert np.argwhere(spleen.mask).tolist() == [[0, 1, 2], [2, 3, 4]]
    assert liver.type == Code("10200004", "SCT", "Liver")
    assert [(one.name, one.value, one.unit.value) for one in liver.measurements] == [("fat", 3.5, "%")]
    assert spleen.measurements[0].value == pytest.approx(2 * 3 / 1000)
    assert findings.measurements[0].concept == Code("397669002", "SCT", "Age")
    assert findings.evaluations[0].value == "good"
    assert findings.marks[0].points.tolist() == [[1, 2, 3]]
    assert findings.checks[0].withholds == ("*",)


def test_a_map_on_another_grid_is_brought_onto_that_of_the_series(tmp_path: Path) -> None:
    source = (
        "sys.path.insert(0, order['parameters']['packages'])\n"
        "import numpy as np\n"
        "array = np.zeros((5, 4, 3), np.uint8)\narray[1, 2, 0] = 1\n"
        "meta = json.loads((job / order['inputs'][0]['meta']).read_text())\n"
        "affine = np.array(meta['affine_lps'])[:, [2, 1, 0, 3]]\n"
        "sys.path.insert(0, order['parameters']['root'])\n"
        "from node.runners import nifti\n"
        "nifti.write(out / 'map.nii.gz', array, affine)\n"
        "done(segmentations=[{'file': 'map.nii.gz', 'labels': {'1': 'Dark spot'}}])\n"
    )
    root = Path(__file__).parents[2]
    packages = Path(np.__file__).parents[1]
    given = "".join(
        f'[[parameter]]\nname = "{name}"\ndefault = "{value}"\nmeaning = "x"\n'
        for name, value in (("packages", packages), ("root", root))
    )
    [segment] = run(program(tmp_path, source, given)).segments
    assert np.argwhere(segment.mask).tolist() == [[0, 2, 1]]
    assert (segment.name, segment.label, segment.type.scheme) == ("Dark-spot", "Dark spot", "99ANODE")


def test_where_a_program_says_nothing_an_image_has_the_lowest_value_of_its_source(tmp_path: Path) -> None:
    source = """
        import struct
        with gzip.open(job / "in/volume/volume.nii.gz") as file:
            header = bytearray(file.read(352))
            voxels = file.read()
        # the first slice alone
        struct.pack_into("<h", header, 46, 1)
        (out / "part.nii").write_bytes(bytes(header) + voxels[: 2 * 4 * 5])
        done(maps=[{"file": "part.nii", "output": "same"}, {"file": "part.nii", "output": "map"}])
        """
    outputs = (
        '[[output]]\nname = "same"\nas = "image"\n[[output]]\nname = "map"\nas = "map"\nunit = "1"\n'
        'concept = { value = "Q", scheme = "99T", meaning = "Quantity" }\n'
    )
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 1024
    image, of_numbers = made_folders.predict(
        program(tmp_path, source, outputs), made_folders.volume(voxels)
    ).images
    assert np.array_equal(image.voxels[0], voxels[0])
    assert (image.voxels[1:] == -1024).all()
    assert (of_numbers.voxels[1:] == 0).all()


def test_the_program_refuses_an_input_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few slices") as caught:
        run(program(tmp_path, 'done(status="refused", reason="too few slices")'))
    assert not isinstance(caught.value, BrokenResult)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("print('first'); sys.exit('last words')", "ended with status 1: first | last words"),
        ("print('nothing to say')", "left no result.json: nothing to say"),
        ("os.kill(os.getpid(), 9)", "was ended by signal 9 (Killed): it said nothing"),
        ("done(status='failed', reason='no memory of it')", "says that it failed: no memory of it"),
        ("(out / 'result.json').write_text('{')", "cannot be read"),
        ("(out / 'result.json').write_text('{}')", 'does not say "contract": 1'),
        ("done(mesurements=[])", "unknown key 'mesurements'; did you mean 'measurements'?"),
        ("done(measurements=[{'name': 'x', 'value': 1}])", "measurement 'x' has no unit"),
        ("done(measurements=[{'value': 1}])", "'name' is missing"),
        ("done(measurements=[{'name': 'x', 'value': 1, 'unit': '1', 'of': 'y'}])", "is of 'y', which is no"),
        ("done(segmentations=[{'file': '../../job.json'}])", "is no name of a .nii"),
        ("done(segmentations=[{'file': '../in/volume/volume.nii.gz', 'output': 'organs'}])", "leads out of"),
        ("os.symlink('/etc/fstab', out / 'a.nii'); done(segmentations=[{'file': 'a.nii'}])", "leads out of"),
        ("os.symlink('/etc', out / 'd'); done(segmentations=[{'file': 'd/a.nii'}])", "leads out of"),
        ("done(segmentations=[{'file': 'absent.nii'}])", "there is no file 'absent.nii'"),
        ("done(segmentations=[{'file': 'absent.nii', 'output': 'organ'}])", "no [[output]] 'organ'; did you"),
        ("(out / 'a.nii').write_text('x'); done(segmentations=[{'file': 'a.nii'}])", "a.nii is no NIfTI-1"),
        ("done(maps=[{'file': 'a.nii'}])", "a map needs an [[output]]"),
        ("done(checks=[{'name': 'x', 'passed': 'no'}])", "is true or false"),
    ],
)  # fmt: skip
def test_a_result_that_is_not_as_agreed_is_a_failure(tmp_path: Path, source: str, told: str) -> None:
    with pytest.raises(BrokenResult) as caught:
        run(program(tmp_path, source, OUTPUTS))
    assert told in str(caught.value)


def leaves(path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None, output: str) -> Path:
    """Make a folder whose program leaves an array as a file."""
    if affine is None:
        np.save(path / "left.npy", array)
    else:
        nifti.write(path / "left.nii", array, affine)
    name = "left.npy" if affine is None else "left.nii"
    source = f"""
        import shutil
        shutil.copy(Path(__file__).parent / "{name}", out)
        done({output}=[{{"file": "{name}"}}])
        """
    table = OUTPUTS if output == "segmentations" else '[[output]]\nname = "same"\nas = "image"\n'
    return program(path, source, table)


HERE = made_folders.volume(np.zeros(SHAPE)).affine
ONES = np.ones(SHAPE, np.uint8)
#: What nibabel writes without an affine, and what it reads where a file has none.
BARE = nifti.lps_of(np.eye(4))


def moved(*by: float) -> NDArray[np.float64]:
    affine = HERE.copy()
    affine[:3, 3] += by
    return affine


@pytest.mark.parametrize(
    ("array", "affine", "told"),
    [
        (ONES * 255, HERE, "is a mask of 0 and 255, and no label has the index 255"),
        (ONES * 255, None, "is a mask of 0 and 255, and no label has the index 255"),
        (ONES * np.float32(0.4), HERE, "is 0.4 to 0.4 with values between whole numbers, so it is no map"),
        (np.linspace(0, 2, 60, dtype=np.float32).reshape(SHAPE), None, "is 0 to 2 with values between"),
        (ONES * np.float32(np.inf), HERE, "has values that are no numbers"),
        (ONES * 1j, None, "has values of the type complex128, which are no numbers"),
        (np.ones((0, 4, 5)), None, "has no voxels"),
        (ONES, BARE, "its affine has the lengths of voxels alone, and has to be that of the volume"),
        (ONES, BARE * [2, 0.5, 0.5, 1], "its affine has the lengths of voxels alone"),
        (ONES, HERE * [1, 1, 0, 1], "does not say where it lies: its affine is no grid"),
        (ONES, HERE * [np.nan, 1, 1, 1], "does not say where it lies: its affine is no grid"),
        (ONES, moved(5000, 0, 0), "lies wholly beyond the series"),
        (np.eye(3, 5, dtype=np.uint8)[:, None].repeat(4, 1), moved(-4, 0, 0), "all that 'left.nii' marks"),
    ],
)  # fmt: skip
def test_a_map_that_only_seems_to_find_nothing_is_a_failure(
    tmp_path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None, told: str
) -> None:
    with pytest.raises(BrokenResult) as caught:
        run(leaves(tmp_path, array, affine, "segmentations"))
    assert told in str(caught.value)


def test_a_map_may_find_nothing_and_mark_more_than_the_series_shows(tmp_path: Path) -> None:
    for name, array, affine in (
        ("none", ONES * 0, HERE),
        ("another label", ONES * 7, HERE),
        ("outside, too", np.pad(ONES, 3) * 7, moved(-3, -3, -9)),
    ):
        (tmp_path / name).mkdir()
        liver, spleen = run(leaves(tmp_path / name, array, affine, "segmentations")).segments
        assert not liver.mask.any()
        assert not spleen.mask.any()
    (tmp_path / "rounded").mkdir()
    rounded = ONES * np.float32(1.0001)
    assert run(leaves(tmp_path / "rounded", rounded, HERE, "segmentations")).segments[0].mask.all()
    # a voxel of a finer grid that lies between those of the series
    fine = np.zeros((30, 40, 50), np.uint8)
    fine[4, 4, 4] = 1
    (tmp_path / "fine").mkdir()
    between = leaves(tmp_path / "fine", fine, HERE * [0.1, 0.1, 0.1, 1], "segmentations")
    assert not run(between).segments[0].mask.any()


def test_an_image_that_does_not_lie_on_the_series_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(BrokenResult, match="lies wholly beyond the series"):
        run(leaves(tmp_path, ONES, moved(0, 0, 5000), "maps"))


def test_the_last_lines_of_a_program_are_the_reason_and_the_end_of_what_it_said_is_said_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "print('x' * 100_000); print('one\\ntwo\\n\\nthree\\nfour'); sys.exit('the end')"
    with pytest.raises(BrokenResult) as caught:
        run(program(tmp_path, source))
    assert str(caught.value) == "the program ended with status 1: two | three | four | the end"
    said = capfd.readouterr().err
    assert len(said) == LAST_BYTES
    assert said.startswith("xxxx")
    assert said.endswith("four\nthe end\n")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("print('no licence'); sys.exit(7)", "the program ended with status 7: no licence"),
        (
            "done(status='failed', reason='no memory of it')",
            "the program says that it failed: no memory of it",
        ),
        ("done(mesurements=[])", "result.json: unknown key 'mesurements'; did you mean 'measurements'?"),
        (
            "done(measurements=[])",
            "measurement size: nothing called 'liverr' was found",
        ),
    ],
)
def test_the_node_tells_what_the_program_did_and_nothing_of_its_own(
    tmp_path: Path, source: str, told: str
) -> None:
    (tmp_path / "model").mkdir()
    size = '[[measurement]]\nname = "size"\nof = "liverr"\nas = "volume"\n'
    path = program(tmp_path / "model", source, size)
    runs = ModelRuns(tmp_path)
    with pytest.raises(ModelCrashed) as caught:
        runs.run(str(path), folder=path, device="cpu")
    assert str(caught.value) == f"model made failed: {told}"
    assert runs.left() == []


def test_the_page_shows_the_job_and_the_meta_data_as_they_are(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    job, meta, _ = (json.loads(one) for one in re.findall(r"```json\n(.*?)```", page, re.S))
    path = program(
        tmp_path,
        """
        meta = json.loads((job / order["inputs"][0]["meta"]).read_text())
        with gzip.open(job / order["inputs"][0]["volume"]) as file:
            header = file.read(352)
        lengths = struct.unpack_from("<8h", header, 40)
        kind = struct.unpack_from("<h", header, 70)[0]
        sform = struct.unpack_from("<12f", header, 280)
        done(summary=json.dumps([order, meta, lengths, kind, sform]))
        """.replace("meta =", "import struct; meta =", 1),
        '[[parameter]]\nname = "certainty"\ndefault = 0.5\nmeaning = "x"\n',
    )
    text = (path / "analysis.toml").read_text()
    for before, after in (('"made"', '"bone"'), ('version = "1"', 'version = "1.0.0"')):
        text = text.replace(before, after, 1)
    (path / "analysis.toml").write_text(text.replace('as = "volume"', 'name = "ct"\nas = "volume"', 1))
    affine = np.array(meta["affine_lps"], np.float64)
    given = made_folders.volume(np.zeros((3, 4, 5), np.int16), affine)
    given = replace(
        given, header={"Modality": "CT", "KVP": 120.0, "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL")}
    )
    order, told, lengths, kind, sform = json.loads(made_folders.predict(path, given).summary)
    assert order | {"threads": 4} == job
    assert told | {"shape": [120, 512, 512]} == meta
    assert (lengths[:4], kind) == ([3, 5, 4, 3], 4)
    # (column, row, slice) to RAS
    ras = np.array(sform).reshape(3, 4)
    assert ras.tolist() == [[-0.75, 0, 0, 190], [0, -0.75, 0, 190], [0, 0, 2.5, -310]]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("/nowhere/absent", "is not there"),
        ("{folder}", "is a folder"),
        ("{folder}/plain", "may not be run: its file is not executable (chmod +x)"),
        ("{folder}/script", "begins with #!/nowhere/python, which is not there"),
        ("no-such-program", "is on no folder of PATH (/usr/bin)"),
        ("/tmp/elsewhere/python", "is not there for a model, which sees nothing of /run, /tmp and /var/tmp: "
         "put it elsewhere"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_be_run_is_told_when_it_is_loaded(
    tmp_path: Path, program: str, told: str
) -> None:
    for name in ("plain", "script"):
        (tmp_path / name).write_text("#!/nowhere/python\n")
    (tmp_path / "script").chmod(0o755)
    runner = f'kind = "command"\nargv = ["{program}", "{{job}}"]\nenvironment = {{ PATH = "/usr/bin" }}'
    path = made_folders.folder(tmp_path, '[[input]]\nas = "volume"', runner=runner)
    where = program.replace("{folder}", str(path))
    with pytest.raises(registry.UnusableModel) as caught:
        loading.load(str(path), device="cpu", threads=1)
    assert str(caught.value) == f"{path}: the program {where} {told}"


def test_a_program_that_is_hidden_from_models_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with tempfile.TemporaryDirectory(dir="/tmp") as environment:
        python = Path(environment) / "python"
        python.symlink_to(sys.executable)
        runner = f'kind = "command"\nargv = ["{python}", "{{job}}"]'
        path = made_folders.folder(tmp_path / "model", '[[input]]\nas = "volume"', runner=runner)
        loading.load(str(path), device="cpu", threads=1)
        with pytest.raises(ModelUnusable, match=f"{python} is not there for a model, which sees nothing of"):
            ModelRuns(tmp_path / "data").run(str(path), folder=path)


def test_images_and_series_are_arrays_of_their_own(tmp_path: Path) -> None:
    source = """

        told = {}
        for one in order["inputs"]:
            meta = json.loads((job / one["meta"]).read_text())
            files = sorted(path.name for path in (job / one["meta"]).parent.iterdir())
            told[one["name"]] = [meta["kind"], files, one]
        done(summary=json.dumps(told))
        """
    (tmp_path / "program.py").write_text(START + textwrap.dedent(source))
    path = made_folders.folder(
        tmp_path,
        '[[input]]\nas = "image"\n[[input]]\nas = "series"\nfrom = "study"\n',
        runner='kind = "command"\nargv = ["{python}", "{folder}/program.py", "{job}"]',
    )
    image = Image(np.zeros((1, 4, 5, 3), np.uint8), None, "1")
    views = (
        InstanceView(1, {"Modality": "CT", "Rows": 4}, np.zeros((1, 4, 5))),
        InstanceView(2, {}, None, "damaged"),
    )
    found = json.loads(made_folders.predict(path, {"image": image, "series": Series(views)}).summary)
    assert found["image"][:2] == ["image", ["image.png", "meta.json", "pixels.npy"]]
    assert found["image"][2]["image"] == "in/image/image.png"
    assert found["series"][:2] == ["series", ["00001.npy", "meta.json"]]


def test_a_picture_is_written_as_it_is(tmp_path: Path) -> None:
    source = """
        import base64
        done(summary=json.dumps(base64.b64encode((job / "in/image/image.png").read_bytes()).decode()))
        """
    (tmp_path / "program.py").write_text(START + textwrap.dedent(source))
    path = made_folders.folder(
        tmp_path,
        '[[input]]\nas = "image"\n',
        runner='kind = "command"\nargv = ["{python}", "{folder}/program.py", "{job}"]',
    )
    pixels = np.random.default_rng(1).integers(0, 256, (1, 4, 5, 3)).astype(np.uint8)
    import base64
    import io

    from PIL import Image as Picture

    png = base64.b64decode(json.loads(made_folders.predict(path, Image(pixels, None, "1")).summary))
    assert np.array_equal(np.asarray(Picture.open(io.BytesIO(png))), pixels[0])
