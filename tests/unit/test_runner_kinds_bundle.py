"""A bundle runs with its own pre- and post-processing, and what it finds lies on the grid of the series."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import registry
from models.types import Code, Findings
from node.catalogue.folder_tables import LabelTable
from node.runners import loading
from node.runners.failures import FolderFault
from node.runners.monai_bundle import _masks
from tests.support import made_folders
from tests.unit.test_runner_kinds_grids import GRIDS, every_grid, marked

torch = pytest.importorskip("torch")
pytest.importorskip("monai")
pytest.importorskip("nibabel")

LOADING = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
]
METADATA: dict[str, Any] = {
    "version": "1",
    "network_data_format": {
        "inputs": {"image": {"channel_def": {"0": "image"}}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "Bright Spot"}}},
    },
}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")


def bundle(
    path: Path,
    *,
    config: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    more: tuple[dict[str, Any], ...] = (),
    stated: str = "",
    runner: str = "",
) -> Path:
    """Make a bundle whose network says what it is given, with the transforms ``more`` before it."""
    (path / "configs").mkdir(parents=True)
    (path / "models").mkdir()
    content = {
        "network_def": {"_target_": "torch.nn.Identity"},
        "preprocessing": {"_target_": "Compose", "transforms": [*LOADING, *more]},
        **(config or {}),
    }
    (path / "configs" / "inference.json").write_text(json.dumps(content))
    (path / "configs" / "metadata.json").write_text(json.dumps(METADATA if metadata is None else metadata))
    torch.save({"model": {}}, path / "models" / "model.pt")
    return made_folders.folder(
        path, f'[[input]]\nas = "volume"\n{stated}', runner=f'kind = "monai_bundle"\n{runner}'
    )


def run(path: Path, affine: Any = None) -> Findings:
    voxels, _ = marked()
    found: Findings = made_folders.predict(path, made_folders.volume((voxels > 0).astype(np.int16), affine))
    return found


@every_grid
def test_marked_voxels_come_back_where_they_were(tmp_path: Path, affine: Any) -> None:
    [segment] = run(bundle(tmp_path / "b"), affine).segments
    assert np.array_equal(segment.mask, marked()[1])
    assert (segment.name, segment.type) == ("Bright-Spot", Code("BRIGHT-SPOT", "99ANODE", "Bright Spot"))


@pytest.mark.parametrize("name", ["axial", "oblique", "all flipped"])
def test_a_prediction_that_is_not_brought_back_is_brought_onto_the_grid(tmp_path: Path, name: str) -> None:
    # this post-processing leaves the prediction turned as the network had it
    config = {"postprocessing": {"_target_": "Compose", "transforms": []}}
    [segment] = run(bundle(tmp_path / "b", config=config), GRIDS[name]).segments
    assert np.array_equal(segment.mask, marked()[1])


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ("b", "'pet' and 'volume' have different frames of reference"),
        (None, "'pet' has no Frame of Reference"),
    ],
)
def test_volumes_of_which_nothing_says_where_one_lies_on_the_other_are_unfit(
    tmp_path: Path, frame: str | None, told: str
) -> None:
    further = '[[input]]\nname = "pet"\nas = "volume"\nfrom = "study"\n'
    path = bundle(tmp_path / "b", stated=further)
    one = made_folders.volume((marked()[0] > 0).astype(np.int16))
    assert made_folders.predict(path, {"volume": one, "pet": one}).segments[0].mask.any()
    other = replace(one, header={"FrameOfReferenceUID": frame})
    with pytest.raises(ValueError, match=told):
        made_folders.predict(path, {"volume": one, "pet": other})


def test_nothing_that_a_bundle_would_save_is_saved(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    steps = [{"_target_": "SaveImaged", "keys": "pred", "output_dir": str(saved)}]
    config = {"postprocessing": {"_target_": "Compose", "transforms": steps}}
    assert run(bundle(tmp_path / "b", config=config)).segments[0].mask.any()
    assert not saved.exists()


def test_labels_of_the_folder_count_before_those_of_the_bundle(tmp_path: Path) -> None:
    stated = (
        '[[output]]\nname = "pred"\nas = "segmentation"\npost = ["largest"]\nlabels = [{ index = 1, '
        'name = "spleen", type = { value = "78961009", scheme = "SCT", meaning = "Spleen" } }]\n'
        '[[measurement]]\nname = "size"\nof = "spleen"\nas = "volume"\n'
    )
    [segment] = run(bundle(tmp_path / "b", stated=stated, metadata={})).segments
    assert segment.type.meaning == "Spleen"
    assert segment.mask.sum() == 1
    assert segment.measurements[0].value == pytest.approx(3 / 1000)


def test_channels_of_probabilities_are_masks_of_their_own(tmp_path: Path) -> None:
    outputs = {"pred": {"channel_def": {"0": "whole", "1": "core"}}}
    double = {
        "_target_": "Lambdad",
        "keys": "pred",
        "func": "$lambda x: __import__('torch').cat([x, x * 0.4])",
    }
    inverse = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
               "nearest_interp": False}  # fmt: skip
    config = {"postprocessing": {"_target_": "Compose", "transforms": [inverse, double]}}
    metadata = {"network_data_format": {"outputs": outputs}}
    whole, core = run(bundle(tmp_path / "b", config=config, metadata=metadata)).segments
    assert np.array_equal(whole.mask, marked()[1])
    assert not core.mask.any()


LABELS = [
    LabelTable(index, f"label-{index}", f"Label {index}", Code(str(index), "99T", "x")) for index in range(3)
]


def test_a_map_of_labels_is_that_label_alone_where_only_one_is_asked_for() -> None:
    scores = np.array([0, 1, 2, 3], np.float32).reshape(1, 1, 1, 4)
    for index in (1, 2):
        assert np.flatnonzero(_masks(scores, (LABELS[index],))[index]).tolist() == [index]
    # as in a patient who has nothing but the first label
    assert not _masks(np.minimum(scores, 1), (LABELS[2],))[2].any()


def test_one_channel_of_probabilities_is_a_mask() -> None:
    scores = np.array([0, 0.4, 0.6, 1.0000001], np.float32).reshape(1, 1, 1, 4)
    for index in (0, 1):
        assert _masks(scores, (LABELS[index],))[index].ravel().tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("values", "labels", "told"),
    [
        ([-4.2, 3.1], [1], "-4.2 to 3.1 with values between whole numbers, so it is no map of labels"),
        ([0.0, 0.7], [2], "0 to 0.7 with values between"),
        ([0.0, 0.7], [1, 2], "0 to 0.7 with values between"),
        ([0.0, 3.0], [0], "0 to 3, so its one channel is no mask"),
    ],
)
def test_values_that_are_neither_labels_nor_probabilities_are_refused(
    values: list[float], labels: list[int], told: str
) -> None:
    scores = np.array(values, np.float32).reshape(1, 1, 1, -1)
    with pytest.raises(FolderFault, match=re.escape(told)):
        _masks(scores, tuple(LABELS[one] for one in labels))


def test_parts_may_have_other_names_and_other_settings(tmp_path: Path) -> None:
    config = {
        "network_def": None,
        "net": {"_target_": "torch.nn.Identity"},
        "factor": 0.0,
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x * @factor"}],
        },
    }
    named = '[runner.bundle]\nnetwork = "net"\n'
    assert not run(bundle(tmp_path / "a", config=config, runner=named)).segments[0].mask.any()
    changed = f"{named}overrides = {{ factor = 1.0 }}\n"
    assert run(bundle(tmp_path / "b", config=config, runner=changed)).segments[0].mask.sum() == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config": {"network_def": None}}, "there is no 'network_def'"),
        ({"config": {"network_def": {"_target_": "nothing.of.the.Kind"}}}, "cannot be loaded"),
        ({"config": {"network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 1,
                                     "kernel_size": 1}}}, "cannot be loaded: Error.s. in loading state_dict"),
        ({"metadata": {}}, "does not say what the channels are"),
        ({"metadata": {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "background"}}}}}},
         "every channel is background"),
    ],
)  # fmt: skip
def test_a_bundle_that_lacks_something_is_refused_when_it_is_loaded(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = bundle(tmp_path / "b", **changes)
    with pytest.raises(registry.UnusableModel, match=told):
        loading.load(str(path), device="cpu", threads=1)


def test_values_that_are_no_numbers_are_never_a_finding(tmp_path: Path) -> None:
    config = {
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x / 0"}],
        }
    }
    with pytest.raises(FolderFault, match="has values that are no numbers"):
        run(bundle(tmp_path / "b", config=config))


def test_a_prediction_that_does_not_say_where_it_lies_is_refused(tmp_path: Path) -> None:
    config = {
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x.as_tensor()"}],
        }
    }
    with pytest.raises(FolderFault, match="does not say where it lies"):
        run(bundle(tmp_path / "b", config=config))


def test_a_network_that_drops_where_its_input_lies_is_helped(tmp_path: Path) -> None:
    (tmp_path / "b" / "scripts").mkdir(parents=True)
    (tmp_path / "b" / "scripts" / "plain_network.py").write_text(
        "import torch\n"
        "class Plain(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.as_tensor()\n"
    )
    config = {"network_def": {"_target_": "scripts.plain_network.Plain"}}
    [segment] = run(bundle(tmp_path / "b", config=config), GRIDS["oblique"]).segments
    assert np.array_equal(segment.mask, marked()[1])
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        del sys.modules[name]
