"""The worked examples run on a real series, and say of it what is true."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import registry
from models.types import Findings, Image, Inputs, Volume
from node.catalogue import catalogue
from node.processes.agreement import refuse_unsound
from node.runners import loading
from node.series import source_series
from node.series import volume as volumes
from tests.support import example_models
from tests.support.data import require_data

MOST_DIFFERENT = 0.05
#: What docs/models.md says of a GPU.
LEAST_DICE_OF_DEVICES, MOST_DIFFERENT_BETWEEN_DEVICES = 0.999, 0.001


@pytest.fixture(scope="module")
def chest() -> Volume:
    """Return every eighth slice of a real chest CT, every second row and column."""
    folder = require_data("series/CT_chest_LIDC-0314")
    instances = source_series.from_files(sorted(folder.glob("*.dcm")))
    instances.sort(key=lambda one: float(one.header.ImagePositionPatient[2]))
    whole = volumes.build(instances[::8]).volume
    affine = whole.affine.copy()
    affine[:3, 1:3] *= 2
    spacing = (whole.spacing_mm[0], whole.spacing_mm[1] * 2, whole.spacing_mm[2] * 2)
    voxels = np.ascontiguousarray(whole.voxels[:, ::2, ::2])
    return replace(whole, voxels=voxels, affine=affine, spacing_mm=spacing)


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the import path and the environment as they were."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")


def run(reference: str, given: Volume | Image) -> Findings:
    description = catalogue.describe(reference)
    model = loading.load(reference, device="cpu", threads=1)
    inputs = Inputs({description.needs[0].name: given}, catalogue.read_parameters(description, {}))
    findings = model.predict(inputs)
    refuse_unsound(findings, inputs)
    assert_equal(findings, model.predict(inputs))
    return findings


def assert_equal(first: Findings, second: Findings) -> None:
    """Same input, same output."""
    for one, other in zip(first.segments, second.segments, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert one.measurements == other.measurements
    assert (first.measurements, first.evaluations) == (second.measurements, second.evaluations)
    assert (first.checks, first.summary) == (second.checks, second.summary)


def measured(findings: Findings) -> dict[str, float]:
    numbers = [*findings.measurements, *(one for each in findings.segments for one in each.measurements)]
    return {one.name: one.value for one in numbers}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_the_onnx_file_with_external_data_finds_bone(tmp_path: Path, chest: Volume) -> None:
    folder = example_models.made("onnx", tmp_path)
    assert (folder / "bone.onnx.data").stat().st_size > 500
    findings = run(str(folder), chest)
    [bone] = findings.segments
    assert 350 < measured(findings)["bone density"] < 900
    assert 200 < measured(findings)["bone volume"] < 2000
    assert chest.voxels[bone.mask].mean() > 300
    assert np.count_nonzero(bone.mask & (chest.voxels > 500)) > 0.4 * np.count_nonzero(chest.voxels > 500)
    assert [one.passed for one in findings.checks] == [True, True]


def test_the_exported_network_separates_three_tissues(tmp_path: Path, chest: Volume) -> None:
    findings = run(str(example_models.made("torch_export", tmp_path)), chest)
    air, soft, bone = findings.segments
    assert (air.mask.astype(int) + soft.mask + bone.mask == 1).all()
    assert dice(air.mask, chest.voxels < -480) > 0.95
    assert measured(findings)["air density"] < -850
    assert -60 < measured(findings)["soft tissue density"] < 60
    assert air.name == "air"


def test_the_torchscript_file_classifies_an_image(tmp_path: Path, chest: Volume) -> None:
    folder = example_models.made("torchscript", tmp_path)
    image = Image(chest.voxels[len(chest.voxels) // 2][None], (1.5, 1.5), "1", {})
    findings = run(str(folder), image)
    [border] = findings.evaluations
    assert border.value.value == "BORDER-DARK"  # type: ignore[union-attr]
    assert border.probability is not None
    assert border.probability > 0.9
    assert measured(findings)["difference"] < -10
    inverted = run(str(folder), replace(image, pixels=-image.pixels))
    assert inverted.evaluations[0].value.value == "BORDER-BRIGHT"  # type: ignore[union-attr]


def test_the_bundle_finds_what_is_bright_on_the_grid_of_the_series(tmp_path: Path, chest: Volume) -> None:
    findings = run(str(example_models.made("monai_bundle", tmp_path)), chest)
    [bright] = findings.segments
    assert bright.type.scheme == "99ANODE"
    assert bright.mask.shape == chest.voxels.shape
    assert chest.voxels[bright.mask].mean() > 300
    assert measured(findings)["bright volume"] > 100
    assert not list(tmp_path.rglob("*_seg*"))


def test_the_program_in_its_own_environment_finds_the_body(tmp_path: Path, chest: Volume) -> None:
    findings = run(str(example_models.made("command", tmp_path)), chest)
    [body] = findings.segments
    inside = chest.voxels > -300
    assert np.count_nonzero(body.mask & ~inside) == 0
    assert dice(body.mask, inside) > 1 - MOST_DIFFERENT
    assert measured(findings)["body share"] == pytest.approx(100 * inside.mean(), abs=1e-6)
    assert findings.summary.startswith("Denser than -300 HU")


def test_the_python_file_puts_a_box_around_the_body(tmp_path: Path, chest: Volume) -> None:
    findings = run(str(example_models.made("python", tmp_path)), chest)
    [box] = findings.marks
    assert box.shape == "box"
    low, high = box.points
    middle = chest.voxels[:, int(low[1]) + 1 : int(high[1]), int(low[2]) + 1 : int(high[2])]
    assert np.count_nonzero(middle > -300) > 0.98 * np.count_nonzero(chest.voxels > -300)
    assert findings.pictures[0].pixels.shape == (chest.voxels.shape[0], chest.voxels.shape[2], 3)


@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
def test_a_gpu_where_there_is_one_says_the_same_as_the_processor(
    tmp_path: Path, chest: Volume, kind: str
) -> None:
    folder = str(example_models.made(kind, tmp_path))
    inputs = Inputs({"volume": chest}, catalogue.read_parameters(catalogue.describe(folder), {}))
    here, there = (loading.load(folder, device=one, threads=1).predict(inputs) for one in ("cpu", "auto"))
    for one, other in zip(here.segments, there.segments, strict=True):
        assert dice(one.mask, other.mask) >= LEAST_DICE_OF_DEVICES
    numbers = measured(there)
    for name, value in measured(here).items():
        assert numbers[name] == pytest.approx(value, rel=MOST_DIFFERENT_BETWEEN_DEVICES)


def test_the_package_is_found_by_its_entry_point(
    tmp_path: Path, chest: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = example_models.install_package(tmp_path, monkeypatch)
    assert name in catalogue.names()
    assert catalogue.describe(name).kind == "python"
    numbers = measured(run(name, chest))
    assert numbers["air volume"] == pytest.approx(np.count_nonzero(chest.voxels < -950) * chest.voxel_ml)


def test_the_brain_mask_measures_a_head_and_withholds_what_is_none(tmp_path: Path) -> None:
    folder = str(example_models.installed("brain_mask", tmp_path))
    description = catalogue.describe(folder)
    model = loading.load(folder, device="cpu", threads=1)
    failed = {}
    for name in ("MR_T1_brain_HFS", "MR_ADC_followup_1"):
        instances = source_series.from_files(sorted(require_data(f"series/{name}").glob("*.dcm")))
        inputs = Inputs(
            {"volume": volumes.build(instances).volume}, catalogue.read_parameters(description, {})
        )
        findings = model.predict(inputs)
        refuse_unsound(findings, inputs)
        failed[name] = {one.name for one in findings.checks if not one.passed}
        if name == "MR_T1_brain_HFS":
            # as measured with the package itself
            assert measured(findings)["intracranial volume"] == pytest.approx(1543, abs=8)
    assert failed["MR_T1_brain_HFS"] == set()
    assert {"networks agree", "certain"} <= failed["MR_ADC_followup_1"]


@pytest.mark.parametrize("kind", example_models.KINDS)
def test_an_example_with_another_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    folder = example_models.made(kind, tmp_path)
    description = catalogue.describe(str(folder))
    catalogue.verify(description)
    changed = folder / description.files[-1].path
    changed.write_bytes(changed.read_bytes() + b"\n")
    with pytest.raises(registry.UnusableModel, match=f"{changed.name} has the SHA-256"):
        loading.load(str(folder), device="cpu", threads=1)
    changed.unlink()
    with pytest.raises(registry.UnusableModel, match=f"{changed.name} is missing"):
        loading.load(str(folder), device="cpu", threads=1)


@pytest.mark.parametrize("kind", ["onnx", "command", "python"])
def test_an_example_is_made_the_same_way_twice(tmp_path: Path, kind: str) -> None:
    one = catalogue.describe(str(example_models.made(kind, tmp_path / "a")))
    other = catalogue.describe(str(example_models.made(kind, tmp_path / "b")))
    assert one.card == other.card
    assert one.files == other.files
