"""The model ``lungs``: what it measures, and what it refuses to measure."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.lungs import ATTENUATION, LOW_ATTENUATION, VOLUME, Lungs
from models.types import Findings, Inputs, Segment, Volume
from tests.support.made_chest import SIZE, Chest, ball, chest, coordinates, ellipsoid


@cache
def plain() -> Chest:
    return chest()


def predict(volume: Volume) -> Findings:
    return Lungs().predict(Inputs({"volume": volume}))


@cache
def usual() -> Findings:
    return predict(plain().volume())


def side(findings: Findings, name: str) -> Segment:
    return next(one for one in findings.segments if one.name == f"{name}-lung")


def value(segment: Segment, concept: object) -> float:
    return next(one.value for one in segment.measurements if one.concept == concept)


def withheld(findings: Findings, name: str = "") -> list[str]:
    return [check.reason for check in findings.checks if not check.passed and name in check.reason]


def test_volumes_are_within_one_percent() -> None:
    findings = usual()
    for name, truth in (("left", plain().left), ("right", plain().right)):
        assert value(side(findings, name), VOLUME) == pytest.approx(plain().ml(truth), rel=0.01)
    assert not withheld(findings)


def test_masks_agree_with_the_truth_voxel_by_voxel() -> None:
    findings = usual()
    for name, truth in (("left", plain().left), ("right", plain().right)):
        mask = side(findings, name).mask
        assert 2 * np.count_nonzero(mask & truth) / (mask.sum() + truth.sum()) > 0.99


def test_codes_and_units_are_those_of_the_standard() -> None:
    left, right = usual().segments
    assert (left.type.value, left.type.scheme) == ("39607008", "SCT")
    assert left.laterality is not None
    assert right.laterality is not None
    assert (left.laterality.value, right.laterality.value) == ("7771000", "24028007")
    assert [one.unit.value for one in left.measurements] == ["ml", "[hnsf'U]", "%"]
    assert [one.concept for one in left.measurements] == [VOLUME, ATTENUATION, LOW_ATTENUATION]


def test_mean_density_is_that_of_the_lung() -> None:
    findings = usual()
    assert value(side(findings, "left"), ATTENUATION) == pytest.approx(-860, abs=4)


def test_low_attenuation_is_the_share_of_emphysema() -> None:
    made = chest()
    hole = ball((0, 0, 90), 25) & made.left
    made.voxels[hole] -= 140
    left = side(predict(made.volume()), "left")
    assert value(left, LOW_ATTENUATION) == pytest.approx(100 * hole.sum() / made.left.sum(), abs=0.3)
    assert value(left, VOLUME) == pytest.approx(made.ml(made.left), rel=0.01)


def test_trachea_and_main_bronchi_do_not_count() -> None:
    findings = usual()
    both = side(findings, "left").mask | side(findings, "right").mask
    assert np.count_nonzero(both & plain().airways) < 0.02 * np.count_nonzero(plain().airways)


def test_sides_follow_the_patient_not_the_array() -> None:
    made = plain()
    mirrored = made.affine.copy()
    mirrored[:3, 3] += made.affine[:3, 2] * (SIZE[2] - 1)
    mirrored[:3, 2] *= -1
    turned = predict(made.volume(voxels=np.ascontiguousarray(made.voxels[:, :, ::-1]), affine=mirrored))
    for name in ("left", "right"):
        assert value(side(turned, name), VOLUME) == pytest.approx(
            value(side(usual(), name), VOLUME), rel=0.002
        )
        assert (side(turned, name).mask[:, :, ::-1] & side(usual(), name).mask).sum() > 0


def test_slices_from_head_to_feet_give_the_same() -> None:
    made = plain()
    turned = made.affine.copy()
    turned[:3, 3] += made.affine[:3, 0] * (SIZE[0] - 1)
    turned[:3, 0] *= -1
    findings = predict(made.volume(voxels=np.ascontiguousarray(made.voxels[::-1]), affine=turned))
    assert not withheld(findings)
    assert value(side(findings, "left"), VOLUME) == pytest.approx(made.ml(made.left), rel=0.01)


def test_rows_that_run_across_the_body_give_the_same() -> None:
    made = plain()
    findings = predict(
        made.volume(
            voxels=np.ascontiguousarray(made.voxels.transpose(0, 2, 1)),
            affine=made.affine[:, [0, 2, 1, 3]],
            spacing_mm=(4.0, 2.6, 2.6),
        )
    )
    assert side(findings, "left").mask.shape == (SIZE[0], SIZE[2], SIZE[1])
    assert value(side(findings, "left"), VOLUME) == pytest.approx(made.ml(made.left), rel=0.01)


def test_lungs_that_touch_are_parted() -> None:
    made = chest(touching=True)
    findings = predict(made.volume())
    for name, truth in (("left", made.left), ("right", made.right)):
        assert value(side(findings, name), VOLUME) == pytest.approx(made.ml(truth), rel=0.02)
    assert not (side(findings, "left").mask & side(findings, "right").mask).any()
    assert any("touch" in check.reason for check in findings.checks)


def test_nodules_and_vessels_inside_count_as_lung() -> None:
    made = chest()
    z, y, x = coordinates()
    made.voxels[ball((-20, 0, 90), 12)] = 40
    made.voxels[np.broadcast_to((np.hypot(z + 30, y - 20) <= 3) & (x > 20) & (x < 120), SIZE)] = 40
    assert value(side(predict(made.volume()), "left"), VOLUME) == pytest.approx(made.ml(made.left), rel=0.01)


def test_a_mass_is_not_lung() -> None:
    made = chest()
    mass = ball((-20, 0, 85), 28)
    made.voxels[mass] = 40
    expected = made.ml(made.left & ~mass)
    assert value(side(predict(made.volume()), "left"), VOLUME) == pytest.approx(expected, rel=0.01)


def test_gas_in_the_bowel_is_not_lung() -> None:
    made = chest()
    made.voxels[ellipsoid((-125, 0, 60), (18, 40, 45))] = -1000
    findings = predict(made.volume())
    assert value(side(findings, "left"), VOLUME) == pytest.approx(made.ml(made.left), rel=0.01)


def test_the_table_below_the_patient_is_not_lung() -> None:
    made = chest()
    made.voxels[:, 108:115, 16:130] = 0
    made.voxels[:, 110:113, 18:128] = -900
    findings = predict(made.volume())
    assert value(side(findings, "right"), VOLUME) == pytest.approx(made.ml(made.right), rel=0.01)


def test_a_scan_that_cuts_the_lungs_gives_no_numbers_but_the_reason() -> None:
    made = plain()
    findings = predict(made.volume(voxels=np.ascontiguousarray(made.voxels[:38])))
    assert [one.measurements for one in findings.segments] == [(), ()]
    assert "the scan cuts the left lung" in withheld(findings)[0]
    assert "upper end slice" in withheld(findings)[0]
    assert findings.summary == "Left lung: withheld. Right lung: withheld."


def test_a_lung_that_runs_out_of_the_image_gives_no_numbers() -> None:
    made = plain()
    cropped = np.ascontiguousarray(made.voxels[:, :, 23:])
    findings = predict(made.volume(voxels=cropped))
    assert not side(findings, "right").measurements
    assert any("run out of the side" in reason or "no right lung" in reason for reason in withheld(findings))


def test_a_missing_lung_is_said_and_the_other_measured() -> None:
    made = chest()
    made.voxels[made.right] = 30
    findings = predict(made.volume())
    assert not side(findings, "right").mask.any()
    assert withheld(findings) == ["no right lung was found: no numbers for it"]
    assert value(side(findings, "left"), VOLUME) == pytest.approx(made.ml(made.left), rel=0.01)


def test_a_wrong_scale_withholds_the_densities_alone() -> None:
    made = chest()
    findings = predict(made.volume(voxels=made.voxels + np.int16(100)))
    assert [one.concept for one in side(findings, "left").measurements] == [VOLUME]
    assert "air around the body is -900 HU" in withheld(findings)[0]


def test_thick_gaps_between_slices_give_no_numbers() -> None:
    made = plain()
    affine = made.affine.copy()
    affine[:, 0] *= 3
    findings = predict(
        made.volume(voxels=np.ascontiguousarray(made.voxels[::3]), affine=affine, spacing_mm=(12.0, 2.6, 2.6))
    )
    assert not side(findings, "left").measurements
    assert "slices are 12.0 mm apart" in withheld(findings)[0]


def test_a_chest_without_a_trachea_is_still_measured_and_says_so() -> None:
    made = chest(airways=False)
    findings = predict(made.volume())
    assert value(side(findings, "left"), VOLUME) == pytest.approx(made.ml(made.left), rel=0.01)
    assert any("no trachea" in check.reason for check in findings.checks)


def test_floats_give_the_same_as_whole_numbers() -> None:
    whole, floats = usual(), predict(plain().volume(voxels=plain().voxels.astype(np.float32)))
    assert [one.measurements for one in whole.segments] == [one.measurements for one in floats.segments]


def test_the_same_input_gives_the_same_output() -> None:
    one, two = usual(), predict(plain().volume())
    assert one.summary == two.summary
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(one.segments, two.segments, strict=True))


def test_the_input_is_not_changed() -> None:
    made = chest()
    before = made.voxels.copy()
    made.voxels.flags.writeable = False
    predict(made.volume())
    assert np.array_equal(before, made.voxels)


def test_an_abdomen_or_a_head_is_refused() -> None:
    voxels = np.full(SIZE, -1000, np.int16)
    voxels[ellipsoid((0, 0, 0), (140, 90, 80))] = 40
    voxels[ball((0, 0, 20), 20)] = -1000
    with pytest.raises(ValueError, match="size, density and place of a lung"):
        predict(replace(plain().volume(), voxels=voxels))


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="no body"):
        predict(replace(plain().volume(), voxels=np.full(SIZE, -1000, np.int16)))


def test_what_is_no_axial_ct_in_hounsfield_units_is_refused() -> None:
    made = plain()
    with pytest.raises(ValueError, match="the modality is PT"):
        predict(made.volume(header={"Modality": "PT"}))
    with pytest.raises(ValueError, match="not in Hounsfield units"):
        predict(made.volume(unit="1"))
    with pytest.raises(ValueError, match="not axial"):
        predict(made.volume(affine=made.affine[[0, 2, 1, 3]]))
    with pytest.raises(ValueError, match="no input was given"):
        Lungs().predict(Inputs({}))
