"""What a network says becomes findings in the codes of its folder; what is unfit never becomes a number."""

from __future__ import annotations

import importlib.util
import os
import pickle
import py_compile
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models import registry
from models.types import Code, Evaluation, Findings, Inputs
from node.catalogue import model_folder, pinned_files
from node.runners import loading
from node.runners.failures import FolderFault
from node.runners.python_file import PythonFileModel
from tests.support import example_models, made_folders
from tests.support.made_folders import LABEL

SHAPE = (4, 6, 8)
QUESTION = 'concept = { value = "Q", scheme = "99T", meaning = "Question" }'
ANSWERS = (
    'labels = [{ index = 0, name = "no", type = { value = "N", scheme = "99T", meaning = "No" } },'
    ' { index = 1, name = "yes", type = { value = "Y", scheme = "99T", meaning = "Yes" } }]'
)
SEGMENTATION = f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n'


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")


def echo(path: Path, outputs: str, *, about_input: str = "", shape: Any = ("n", 1, "d", "h", "w")) -> Path:
    """Make a folder whose network says what it was given."""
    made_folders.identity(path / "model.onnx", shape)
    return made_folders.folder(path, f'[[input]]\nas = "volume"\n{about_input}\n{outputs}')


def saying(path: Path, answer: np.ndarray, outputs: str) -> Path:
    """Make a folder whose network says ``answer`` whatever it is given."""
    nodes = [
        helper.make_node("ReduceMax", ["given"], ["top"], keepdims=0),
        helper.make_node("Sub", ["top", "top"], ["nothing"]),
        helper.make_node("Add", ["nothing", "answer"], ["said"]),
    ]
    made_folders.network(
        path / "model.onnx",
        nodes,
        inputs={"given": ("n", 1, "d", "h", "w")},
        outputs={"said": answer.shape},
        constants={"answer": answer.astype(np.float32)},
    )
    return made_folders.folder(path, f'[[input]]\nas = "volume"\n{outputs}')


def of(voxels: Any) -> Any:
    return made_folders.volume(np.asarray(voxels, np.float32))


def half() -> np.ndarray:
    voxels = np.zeros(SHAPE, np.float32)
    voxels[:, :3] = 0.8
    return voxels


# --- regions -----------------------------------------------------------------


def test_a_threshold_may_be_a_parameter(tmp_path: Path) -> None:
    parameter = '[[parameter]]\nname = "least"\ndefault = 0.5\nmeaning = "x"\n'
    path = echo(tmp_path, f'{SEGMENTATION}threshold = "$least"\n{parameter}')
    assert made_folders.predict(path, of(half())).segments[0].mask.sum() == 4 * 3 * 8
    assert not made_folders.predict(path, of(half()), least=0.9).segments[0].mask.any()


def test_a_fractional_output_keeps_its_probabilities(tmp_path: Path) -> None:
    path = echo(tmp_path, SEGMENTATION.replace("segmentation", "fractional"))
    [segment] = made_folders.predict(path, of(half())).segments
    assert segment.probability is not None
    assert segment.probability.dtype == np.float32
    assert np.array_equal(segment.probability, half())


def test_the_codes_are_those_of_the_folder_or_private_ones(tmp_path: Path) -> None:
    labels = (
        'labels = [{ index = 0, name = "left-lung", label = "Left lung", colour = [1, 2, 3], '
        'type = { value = "39607008", scheme = "SCT", meaning = "Lung" }, '
        'laterality = { value = "7771000", scheme = "SCT", meaning = "Left" } }]'
    )
    [segment] = made_folders.predict(
        echo(tmp_path, f'[[output]]\nname = "said"\nas = "segmentation"\n{labels}\n'), of(half())
    ).segments
    assert (segment.name, segment.label, segment.colour) == ("left-lung", "Left lung", (1, 2, 3))
    assert segment.type == Code("39607008", "SCT", "Lung")
    assert segment.laterality == Code("7771000", "SCT", "Left")
    (tmp_path / "two").mkdir()
    [private] = made_folders.predict(echo(tmp_path / "two", SEGMENTATION), of(half())).segments
    assert (private.type.scheme, private.type.value) == ("99ANODE", "THING")


def test_small_parts_holes_and_all_but_the_largest_are_mended(tmp_path: Path) -> None:
    voxels = np.zeros((5, 9, 9), np.float32)
    voxels[:, 1:6, 1:6] = 1
    voxels[2, 3, 3] = 0
    voxels[2, 8, 8] = 1
    path = echo(tmp_path, f'{SEGMENTATION}post = [{{ min_ml = 0.005 }}, "fill_holes"]\n')
    mask = made_folders.predict(path, of(voxels)).segments[0].mask
    assert mask[2, 3, 3]
    assert not mask[2, 8, 8]
    (tmp_path / "two").mkdir()
    largest = echo(tmp_path / "two", f'{SEGMENTATION}post = ["largest"]\n')
    mask = made_folders.predict(largest, of(voxels)).segments[0].mask
    assert not mask[2, 3, 3]
    assert not mask[2, 8, 8]


def test_numbers_are_taken_in_the_values_of_the_source(tmp_path: Path) -> None:
    voxels = np.full(SHAPE, -1000, np.float32)
    voxels[:2] = np.arange(2 * 6 * 8).reshape(2, 6, 8) + 100
    tables = "".join(
        f'[[measurement]]\nname = "{kind}"\nof = "thing"\nas = "{kind}"\n{more}\n'
        for kind, more in [
            ("volume", ""), ("mean", ""), ("sd", ""), ("minimum", ""), ("maximum", ""), ("median", ""),
            ("percentile", "percentile = 25"), ("share", "below = 124"), ("count", ""),
        ]
    )  # fmt: skip
    path = echo(tmp_path, SEGMENTATION + tables, about_input="normalise = { window = [-1000, 99] }")
    given = of(voxels)
    findings = made_folders.predict(path, given)
    numbers = {one.name: one for one in findings.segments[0].measurements}
    inside = voxels[:2]
    assert numbers["volume"].value == pytest.approx(inside.size * 3 / 1000)
    assert numbers["mean"].value == pytest.approx(inside.mean())
    assert numbers["sd"].value == pytest.approx(inside.std())
    assert (numbers["minimum"].value, numbers["maximum"].value) == (100, 195)
    assert numbers["median"].value == pytest.approx(np.median(inside))
    assert numbers["percentile"].value == pytest.approx(np.percentile(inside, 25))
    assert numbers["share"].value == pytest.approx(25.0)
    assert numbers["count"].value == 1
    assert numbers["mean"].unit.value == "[hnsf'U]"
    assert numbers["mean"].derivation == Code("373098007", "SCT", "Mean")
    assert len({one.concept.value + str(one.derivation) for one in numbers.values()}) == len(numbers)


@pytest.mark.parametrize(
    ("check", "passes"),
    [
        ('measurement = "v"\nminimum = 0.1', True),
        ('measurement = "v"\nmaximum = "$most"', False),
        ('quantity = "volume_ml"\nof = "thing"\nmaximum = 1', True),
        ('quantity = "components"\nof = "thing"\nmaximum = 1', True),
        ('quantity = "edge_share"\nof = "thing"\nmaximum = 0.1', False),
        ('quantity = "mean_probability"\nof = "thing"\nminimum = 0.79', True),
        ('quantity = "mean_probability"\nof = "thing"\nminimum = 0.81', False),
        ('quantity = "uncertain_share"\nof = "thing"\nmaximum = 0.5', False),
    ],
)
def test_a_check_that_fails_withholds_with_its_reason(tmp_path: Path, check: str, passes: bool) -> None:
    tables = (
        f'{SEGMENTATION}[[measurement]]\nname = "v"\nof = "thing"\nas = "volume"\n'
        f'[[parameter]]\nname = "most"\ndefault = 0.1\nmeaning = "x"\n'
        f'[[check]]\nname = "c"\nreason = "it is not so"\n{check}\n'
    )
    [found] = made_folders.predict(echo(tmp_path, tables), of(half())).checks
    assert found.passed is passes
    assert found.withholds == (() if passes else ("*",))
    assert found.reason.startswith("" if passes else "it is not so: ")


def test_a_check_on_what_is_not_there_fails(tmp_path: Path) -> None:
    tables = (
        f'{SEGMENTATION}[[measurement]]\nname = "m"\nof = "thing"\nas = "mean"\n'
        '[[check]]\nname = "c"\nreason = "nothing"\nmeasurement = "m"\nminimum = 0\nwithholds = ["m"]\n'
    )
    findings = made_folders.predict(echo(tmp_path, tables), of(np.zeros(SHAPE)))
    assert findings.checks[0].reason == "nothing: m could not be taken"
    # A name that nothing has would withhold everything.
    assert findings.checks[0].withholds == ()
    assert findings.segments[0].measurements == ()


def test_a_map_is_a_derived_image_on_the_grid_of_the_source(tmp_path: Path) -> None:
    output = '[[output]]\nname = "said"\nas = "map"\nscale = 2.0\noffset = 1.0\nunit = "mm2/s"\n' + QUESTION
    [image] = made_folders.predict(echo(tmp_path, output), of(half())).images
    assert (image.kind, image.affine, image.unit.value) == ("map", None, "mm2/s")
    assert np.allclose(image.voxels, half() * 2 + 1)


# --- answers -----------------------------------------------------------------


def test_the_most_probable_class_is_the_answer(tmp_path: Path) -> None:
    output = f'[[output]]\nname = "q"\nas = "classification"\nactivation = "softmax"\n{QUESTION}\n{ANSWERS}\n'
    path = saying(tmp_path, np.array([[0.0, np.log(3.0)]]), output)
    [answer] = made_folders.predict(path, of(half())).evaluations
    assert answer.value == Code("Y", "99T", "Yes")
    assert answer.probability == pytest.approx(0.75)
    assert answer.name == "q"


def test_each_label_of_a_sigmoid_is_present_or_absent(tmp_path: Path) -> None:
    output = f'[[output]]\nname = "q"\nas = "classification"\nactivation = "sigmoid"\n{QUESTION}\n{ANSWERS}\n'
    path = saying(tmp_path, np.array([[-2.0, 3.0]]), output)
    no, yes = made_folders.predict(path, of(half())).evaluations
    assert (no.value.meaning, yes.value.meaning) == ("Absent", "Present")
    assert (no.name, yes.name) == ("q.no", "q.yes")
    assert no.probability == pytest.approx(1 / (1 + np.exp(-2.0)))


@pytest.mark.parametrize(
    ("threshold", "said", "value", "probability"),
    [(0.3, 0.4, "Present", 0.4), (0.9, 0.7, "Absent", 0.3), (0.5, 0.8, "Present", 0.8)],
)
def test_the_probability_is_that_of_what_is_said_whatever_the_threshold(
    tmp_path: Path, threshold: float, said: float, value: str, probability: float
) -> None:
    output = (
        f'[[output]]\nname = "q"\nas = "classification"\nactivation = "sigmoid"\nthreshold = {threshold}\n'
        f'{QUESTION}\nlabels = [{{ index = 0, name = "bleed" }}]\n'
    )
    path = saying(tmp_path, np.array([[np.log(said / (1 - said))]]), output)
    [answer] = made_folders.predict(path, of(half())).evaluations
    assert isinstance(answer.value, Code)
    assert answer.value.meaning == value
    assert answer.probability == pytest.approx(probability, abs=1e-6)


def test_a_number_is_scaled_and_coded(tmp_path: Path) -> None:
    scaled = 'element = 1\nscale = 100\noffset = 5\nunit = "a"'
    output = f'[[output]]\nname = "age"\nas = "regression"\n{scaled}\n{QUESTION}\n'
    path = saying(tmp_path, np.array([[0.0, 0.25]]), output)
    [number] = made_folders.predict(path, of(half())).measurements
    assert (number.value, number.unit.value, number.name) == (30.0, "a", "age")


@pytest.mark.parametrize(
    ("output", "answer", "told"),
    [
        (f'as = "classification"\n{QUESTION}\n{ANSWERS}', [[0.5, 2.5]], "is no probability; an activation"),
        (f'as = "classification"\n{QUESTION}\n{ANSWERS}', [[1.0]],
         "label yes has index 1, 'said' has the classes 0"),
        (f'as = "regression"\nelement = 3\nunit = "a"\n{QUESTION}', [[1.0]], "there is no element 3"),
        (f'as = "regression"\nunit = "a"\n{QUESTION}', [[np.nan]], "has values that are no numbers"),
        (f'as = "segmentation"\n{LABEL}', np.zeros((1, 1, 2, 2, 2)), "the tensor 'said' is"),
        (f'as = "segmentation"\n{LABEL}', [[1.0, 2.0]], "has 2 axes, and its layout is NCDHW"),
        (f'as = "segmentation"\n{LABEL.replace("0", "1")}', np.zeros((1, 1, *SHAPE)),
         "label thing has index 1, 'said' has one channel: index 0"),
        (f'as = "segmentation"\n{LABEL.replace("0", "4")}', np.zeros((1, 3, *SHAPE)),
         "label thing has index 4, 'said' has 3 channels: index 0 to 2"),
        (f'as = "map"\nelement = 1\nunit = "1"\n{QUESTION}', np.zeros((1, 1, *SHAPE)),
         "element is 1, 'said' has one channel: index 0"),
        (f'as = "segmentation"\n{LABEL}', np.full((1, 1, *SHAPE), 7.0), "is no probability"),
        (f'as = "segmentation"\n{LABEL}', np.full((1, 1, *SHAPE), np.inf), "has values that are no numbers"),
        (f'as = "points"\n{LABEL}', [[1.0, 2.0]], "expected (n, 3) or one more"),
        (f'as = "points"\n{LABEL}', [[1.0, 2.0, 3.0, 3.2]], "the score 3.2 is no probability; an activation"),
        (f'as = "points"\n{LABEL}', [[1.0, 2.0, 3.0, -0.5]], "the score -0.5 is no probability"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_never_becomes_a_finding(
    tmp_path: Path, output: str, answer: Any, told: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        path = saying(tmp_path, np.array(answer), f'[[output]]\nname = "said"\n{output}\n')
    with pytest.raises(FolderFault, match=re.escape(told)):
        made_folders.predict(path, of(half()))


def test_a_table_of_a_classifier_is_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["given"], ["top"], keepdims=0),
        helper.make_node("Sub", ["top", "top"], ["nothing"]),
        helper.make_node("Add", ["nothing", "answer"], ["scores"]),
        helper.make_node(
            "ZipMap", ["scores"], ["said"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"]
        ),
    ]
    of_map = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, ("n", 1, "d", "h", "w"))],
        [helper.make_value_info("said", of_map)],
        [helper.make_tensor("answer", TensorProto.FLOAT, (1, 2), [0.3, 0.7])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    output = (
        f'[[input]]\nas = "volume"\n[[output]]\nname = "said"\nas = "classification"\n{QUESTION}\n{ANSWERS}\n'
    )
    [answer] = made_folders.predict(made_folders.folder(tmp_path, output), of(half())).evaluations
    assert answer == Evaluation(
        Code("Q", "99T", "Question"), Code("Y", "99T", "Yes"), pytest.approx(0.7), "said"
    )


# --- loading -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("about_input", "output", "told"),
    [
        ('tensor = "givn"', SEGMENTATION, "the network has no tensor 'givn'; did you mean 'given'"),
        ('layout = "NCHW"', SEGMENTATION, "the tensor 'given' has 5 axes, and its layout is NCHW"),
        ("", SEGMENTATION + 'tensor = "sad"\n', "the network has no tensor 'sad'; did you mean 'said'"),
        ("", SEGMENTATION + 'scores = "x"\n', "the network has no tensor 'x'; there are said"),
    ],
)
def test_a_tensor_that_is_not_there_is_told_when_it_is_loaded(
    tmp_path: Path, about_input: str, output: str, told: str
) -> None:
    path = echo(tmp_path, output, about_input=about_input)
    with pytest.raises(registry.UnusableModel, match=told):
        loading.load(str(path), device="cpu", threads=1)


def test_what_windows_cannot_be_joined_from_is_refused(tmp_path: Path) -> None:
    regression = f'[[output]]\nname = "said"\nas = "regression"\nunit = "1"\n{QUESTION}\n'
    labels = SEGMENTATION + 'activation = "labels"\n'
    for number, (output, told) in enumerate([(regression, "a regression"), (labels, "a map of labels")]):
        (tmp_path / str(number)).mkdir()
        path = echo(tmp_path / str(number), output, about_input="sliding = { roi = [4, 4, 4] }")
        with pytest.raises(registry.UnusableModel, match=f"{told} cannot be joined from windows"):
            loading.load(str(path), device="cpu", threads=1)


def test_what_a_network_of_torch_does_not_return_is_told(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 1, *SHAPE),))
    torch.export.save(program, tmp_path / "model.pt2")
    stated = f'[[input]]\nas = "volume"\n{SEGMENTATION}tensor = "1"\n'
    path = made_folders.folder(tmp_path, stated, runner='kind = "torch"')
    with pytest.raises(FolderFault, match="the network returned no '1'; it returned 0"):
        made_folders.predict(path, of(half()))
    path = made_folders.folder(tmp_path, stated.replace('tensor = "1"', ""), runner='kind = "torch"')
    assert made_folders.predict(path, of(half())).segments[0].mask.sum() == 4 * 3 * 8


def test_a_network_of_fixed_size_says_what_it_takes(tmp_path: Path) -> None:
    path = echo(tmp_path, SEGMENTATION, shape=(1, 1, 8, 8, 8))
    with pytest.raises(
        FolderFault, match=r"takes 'given' as \(1, 1, 8, 8, 8\), and this input makes \(1, 1, 4, 6, 8\)"
    ):
        made_folders.predict(path, of(half()))
    (tmp_path / "two").mkdir()
    fitted = echo(tmp_path / "two", SEGMENTATION, shape=(1, 1, 8, 8, 8), about_input="size = [8, 8, 8]")
    assert made_folders.predict(fitted, of(half())).segments[0].mask.sum() == 4 * 3 * 8


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    path = made_folders.folder(tmp_path, f'[[input]]\nas = "volume"\n{SEGMENTATION}')
    with pytest.raises(registry.UnusableModel, match=r"model\.onnx cannot be loaded"):
        loading.load(str(path), device="cpu", threads=1)


def test_a_gpu_that_is_not_there_is_refused_where_it_is_demanded(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return
    path = echo(tmp_path, SEGMENTATION)
    with pytest.raises(registry.UnusableModel, match="device is cuda"):
        loading.load(str(path), device="cuda", threads=1)


# --- types and chance --------------------------------------------------------


def whole_numbers(path: Path, kind: int, about_input: str = "") -> Path:
    """Make a folder whose network takes tensors of a type and says what it was given."""
    shape = ("n", 1, "d", "h", "w")
    graph = helper.make_graph(
        [helper.make_node("Cast", ["given"], ["said"], to=TensorProto.FLOAT)],
        "made",
        [helper.make_tensor_value_info("given", kind, shape)],
        [helper.make_tensor_value_info("said", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, path / "model.onnx")
    output = '[[output]]\nname = "said"\nas = "image"\nunit = "1"\n'
    return made_folders.folder(path, f'[[input]]\nas = "volume"\n{about_input}\n{output}')


@pytest.mark.parametrize(
    ("kind", "dtype", "value"),
    [
        (TensorProto.UINT8, "", -24.0),
        (TensorProto.UINT8, "", 300.0),
        (TensorProto.INT16, 'dtype = "int16"', 40000.0),
        (TensorProto.INT16, 'dtype = "int16"', -40000.0),
        (TensorProto.FLOAT16, "", 70000.0),
    ],
)
def test_a_value_that_the_type_of_a_tensor_cannot_hold_is_refused(
    tmp_path: Path, kind: int, dtype: str, value: float
) -> None:
    path = whole_numbers(tmp_path, kind, dtype)
    with pytest.raises(FolderFault, match="cannot hold values of"):
        made_folders.predict(path, of(np.full(SHAPE, value)))


@pytest.mark.parametrize("dtype", ["", 'dtype = "int16"'])
def test_whole_numbers_are_rounded_not_cut(tmp_path: Path, dtype: str) -> None:
    path = whole_numbers(tmp_path, TensorProto.INT16, dtype)
    for value, seen in ((99.9999, 100), (-99.9999, -100), (-32768.0, -32768)):
        [image] = made_folders.predict(path, of(np.full(SHAPE, value))).images
        assert (image.voxels == seen).all()


def test_a_network_that_draws_lots_says_the_same_of_the_same_input(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Random(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, given: Any) -> Any:
            return given + torch.rand_like(given)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Random(), torch.zeros(1, 1, *SHAPE), check_trace=False)
        traced.save(str(tmp_path / "m.ts"))
    output = '[[output]]\nname = "said"\nas = "image"\nunit = "1"\n'
    made_folders.folder(tmp_path, f'[[input]]\nas = "volume"\n{output}', runner='kind = "torch"')
    model = loading.load(str(tmp_path), device="cpu", threads=1)
    first, second = (model.predict(Inputs({"volume": of(half())})).images[0].voxels for _ in range(2))
    assert len(np.unique(first)) > 2
    assert np.array_equal(first, second)


# --- files that are refused --------------------------------------------------


class Evil:
    """What a pickle can do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def torch_folder(path: Path, name: str) -> Path:
    return made_folders.folder(
        path, f'[[input]]\nas = "volume"\n{SEGMENTATION}', runner=f'kind = "torch"\nfile = "{name}"'
    )


@pytest.mark.parametrize("name", ["model.pt", "model.pt2"])
def test_a_pickle_is_never_loaded(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    touched = tmp_path.parent / f"{tmp_path.name}-touched"
    (tmp_path / name).write_bytes(pickle.dumps(Evil(touched)))
    with pytest.raises(registry.UnusableModel):
        loading.load(str(torch_folder(tmp_path, name)), device="cpu", threads=1)
    assert not touched.exists()


def test_a_pickle_within_an_exported_network_is_never_loaded(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    touched = tmp_path.parent / f"{tmp_path.name}-touched"
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 1, *SHAPE),))
    torch.export.save(program, tmp_path / "good.pt2")
    torch.save(Evil(touched), tmp_path / "evil.pt")
    evil = (tmp_path / "evil.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "model.pt2", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, evil if "sample_inputs" in name else good.read(name))
    for name in ("good.pt2", "evil.pt"):
        (tmp_path / name).unlink()
    with pytest.raises(registry.UnusableModel):
        loading.load(str(torch_folder(tmp_path, "model.pt2")), device="cpu", threads=1)
    assert not touched.exists()


def test_a_state_dictionary_is_no_network(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(registry.UnusableModel, match=r"model\.pt is no TorchScript"):
        loading.load(str(torch_folder(tmp_path, "model.pt")), device="cpu", threads=1)


def test_weights_of_a_bundle_are_tensors_alone(tmp_path: Path) -> None:
    folder = example_models.made("monai_bundle", tmp_path)
    touched = tmp_path / "touched"
    torch = pytest.importorskip("torch")
    torch.save(Evil(touched), folder / "models" / "model.pt")
    text = (folder / "analysis.toml").read_text()
    (folder / "analysis.toml").write_text(text.partition("[[runner.files]]")[0])
    pins = pinned_files.stanza(folder)
    (folder / "analysis.toml").write_text(text.partition("[[runner.files]]")[0] + pins)
    with pytest.raises(registry.UnusableModel, match="holds more than tensors"):
        loading.load(str(folder), device="cpu", threads=1)
    assert not touched.exists()


# --- a file in the folder ----------------------------------------------------


def python_folder(path: Path, source: str) -> Path:
    (path / "model.py").write_text(source)
    return made_folders.folder(
        path, '[[input]]\nas = "volume"\n', runner='kind = "python"\nentry = "model.py:Model"'
    )


def test_a_class_is_given_what_it_asks_for(tmp_path: Path) -> None:
    source = (
        "from models.types import Findings\n"
        "class Model:\n"
        "    def __init__(self, folder, threads):\n        self.told = f'{folder.name} {threads}'\n"
        "    def predict(self, inputs):\n        return Findings(summary=self.told)\n"
    )
    path = python_folder(tmp_path, source)
    findings: Findings = made_folders.predict(path, of(half()))
    assert findings.summary == f"{tmp_path.name} 1"
    assert not list(tmp_path.rglob("*.pyc"))


def test_what_python_compiled_earlier_is_not_run(tmp_path: Path) -> None:
    source = "from models.types import Findings\nimport beside\nclass Model:\n" \
             "    def predict(self, inputs):\n        return Findings(summary=beside.TOLD)\n"  # fmt: skip
    (tmp_path / "beside.py").write_text("TOLD = 'evil'\n")
    stale = importlib.util.cache_from_source(str(tmp_path / "beside.py"))
    py_compile.compile(str(tmp_path / "beside.py"), cfile=stale)
    times = (tmp_path / "beside.py").stat()
    (tmp_path / "beside.py").write_text("TOLD = 'good'\n")
    os.utime(tmp_path / "beside.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    path = python_folder(tmp_path, source)
    # no such folder is ever loaded from, and the imports of a model do not rely on that
    model = PythonFileModel(model_folder.read(path), device="cpu", threads=1)
    assert model.predict(Inputs({"volume": of(half())})).summary == "good"
    sys.modules.pop("beside", None)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("class Other: ...\n", r"model\.py has no Model"),
        ("class Model: ...\n", r"Model has no predict\(inputs\)"),
        ("import nothing_called_so\n", "No module named 'nothing_called_so'"),
        ("class Model:\n", "IndentationError"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, source: str, told: str) -> None:
    with pytest.raises(registry.UnusableModel, match=told):
        loading.load(str(python_folder(tmp_path, source)), device="cpu", threads=1)


def test_the_highest_channel_wins_with_and_without_its_probability(tmp_path: Path) -> None:
    scores = np.random.default_rng(5).normal(size=(1, 3, *SHAPE))
    labels = ", ".join(f'{{ index = {number}, name = "l{number}" }}' for number in range(3))
    exponents = np.exp(scores[0])
    expected = exponents / exponents.sum(axis=0)
    for kind in ("segmentation", "fractional"):
        (tmp_path / kind).mkdir()
        output = f'[[output]]\nname = "said"\nas = "{kind}"\nactivation = "softmax"\nlabels = [{labels}]\n'
        found = made_folders.predict(saying(tmp_path / kind, scores, output), of(half())).segments
        for number, segment in enumerate(found):
            assert np.array_equal(segment.mask, scores[0].argmax(axis=0) == number)
            if kind == "fractional":
                assert np.allclose(segment.probability, expected[number], atol=1e-6)
