"""The demo goes the whole way, and would notice if it did not."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from node.demo import demo
from node.demo.phantom import ChestPhantom, Lung
from tests.support.data import require_data


def run(output: Path, path: Path | None = None) -> int:
    return demo.main(argparse.Namespace(path=path and str(path), output=str(output)))


@pytest.mark.timeout(300)
def test_the_demo_ends_with_known_volumes_beside_measured_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ChestPhantom(size=(100, 256, 256), spacing_mm=(3.0, 1.5, 1.5))
    monkeypatch.setattr(demo, "ChestPhantom", lambda: small)
    assert run(tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "left lung, volume" in said
    assert "100 of 100 instances restore" in said
    assert said.count("Structured") + said.count("Comprehensive 3D SR Storage") == 2
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.timeout(300)
def test_the_demo_fails_when_a_volume_is_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        demo, "ChestPhantom", lambda: ChestPhantom(size=(100, 256, 256), spacing_mm=(3.0, 1.5, 1.5))
    )
    true_volume_ml = Lung.volume_ml.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Lung, "volume_ml", property(lambda self: 1.05 * true_volume_ml(self)))
    assert run(tmp_path / "out") == 1
    assert "FAILED: a volume is more than 3 % off" in capsys.readouterr().out


def test_the_demo_takes_the_folder_of_its_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = require_data("series/MR_ADC_followup_1")
    assert run(tmp_path / "out", series) == 0
    assert "45 DICOM files" in capsys.readouterr().out


def test_the_volume_of_a_lung_is_that_of_its_pixels() -> None:
    phantom = ChestPhantom(size=(120, 128, 128), spacing_mm=(2.5, 3.0, 3.0))
    voxel_ml = 2.5 * 3.0 * 3.0 / 1000
    air = np.stack(list(phantom.slices())) < -400
    labels, _ = ndimage.label(air)
    largest = np.argsort(np.bincount(labels.ravel())[1:])[::-1][:3] + 1
    outside = labels[0, 0, 0]
    lungs = [label for label in largest if label != outside]
    assert len(lungs) == 2
    for label in lungs:
        region = labels == label
        side = "left" if ndimage.center_of_mass(region)[2] > 64 else "right"
        # vessels and nodules are part of the lung, and not below the threshold
        assert region.sum() * voxel_ml == pytest.approx(phantom.volume_ml(side), rel=0.02)
