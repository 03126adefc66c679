"""Parametric Maps hold the very numbers that a model found, of a quantity with a unit, in their place."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.types import Code, DerivedImage
from node.errors import ResultImpossible
from node.results.build import Source
from tests.support.made_findings import (
    image_source,
    made_source,
    of_kind,
    source_of,
)
from tests.support.made_series import LYING, numbered, places_mm
from tests.support.result_places import planes, real_values, values_and_places

ADC = Code("113041", "DCM", "Apparent Diffusion Coefficient")
MM2_PER_S = Code("mm2/s", "UCUM", "square millimeter per second")


def image(voxels: NDArray[Any], **changes: Any) -> DerivedImage:
    facts: dict[str, Any] = {
        "name": "adc", "label": "ADC", "voxels": voxels, "unit": MM2_PER_S, "kind": "map", "quantity": ADC,
    }  # fmt: skip
    return DerivedImage(**(facts | changes))


maps = partial(of_kind, "pm")


def numbered_source(name: str) -> tuple[Any, Source, NDArray[Any]]:
    instances = numbered(LYING[name]())
    source = source_of(instances)
    assert source.volume is not None
    return instances, source, source.volume.voxels


@pytest.mark.parametrize("name", LYING)
@pytest.mark.checklist("M2")
def test_values_lie_where_their_images_have_them(name: str) -> None:
    instances, source, voxels = numbered_source(name)
    [made] = maps(source, image(voxels.astype(np.float32)))
    found, expected = values_and_places([made]), places_mm(instances)
    assert found.keys() == {float(value) for value in expected}
    assert max(np.abs(found[float(value)] - place).max() for value, place in expected.items()) < 1e-6
    assert made.FrameOfReferenceUID == instances[0].header.FrameOfReferenceUID


@pytest.mark.parametrize("name", LYING)
@pytest.mark.checklist("M1")
def test_each_frame_names_the_very_image_that_it_was_made_of(name: str) -> None:
    instances, source, voxels = numbered_source(name)
    [made] = maps(source, image(voxels.astype(np.float32)))
    by_uid = {one.header.SOPInstanceUID: list(one.frames()) for one in instances}
    intercept = 1000 if len(by_uid) == 1 else 1024
    for values, (*_, item) in zip(real_values(made), planes(made), strict=True):
        [named] = item.DerivationImageSequence[0].SourceImageSequence
        frame = by_uid[named.ReferencedSOPInstanceUID][int(named.get("ReferencedFrameNumber", 1)) - 1]
        assert np.array_equal(frame.astype(int) - intercept, values)
    [series] = made.ReferencedSeriesSequence
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == set(by_uid)


@pytest.mark.checklist("M2")
def test_a_map_on_a_grid_of_its_own_lies_where_its_affine_says() -> None:
    _, source, _ = numbered_source("oblique")
    assert source.volume is not None
    affine = source.volume.affine.copy()
    affine[:3, 1:3] *= 2
    affine[:3, 3] += (3.0, -1.0, 0.5)
    voxels = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    found = values_and_places(maps(source, image(voxels, affine=affine)))
    for index in np.ndindex(voxels.shape):
        assert np.abs(found[float(voxels[index])] - (affine @ (*index, 1))[:3]).max() < 1e-6


@pytest.mark.parametrize(
    ("dtype", "element"),
    [(np.float32, "FloatPixelData"), (np.float64, "DoubleFloatPixelData"), (np.int16, "FloatPixelData")],
)
@pytest.mark.checklist("M1")
def test_numbers_are_stored_as_they_are(dtype: Any, element: str) -> None:
    source = made_source(2)
    voxels = (np.random.default_rng(5).normal(size=(2, 4, 6)) * 1000).astype(dtype)
    [made] = maps(source, image(voxels))
    assert element in made
    assert "PixelData" not in made
    by_height = np.argsort([position[2] for position, *_ in planes(made)])
    assert np.array_equal(real_values(made)[by_height], voxels)


@pytest.mark.checklist("M1")
def test_the_quantity_and_the_unit_are_coded_and_the_whole_range_is_mapped_to_itself() -> None:
    voxels = np.linspace(1e-6, 3e-3, 48, dtype=np.float32).reshape(2, 4, 6)
    [made] = maps(made_source(2), image(voxels))
    [mapping] = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    [unit] = mapping.MeasurementUnitsCodeSequence
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("mm2/s", "UCUM")
    [quantity] = mapping.QuantityDefinitionSequence
    assert quantity.ConceptCodeSequence[0].CodeValue == "113041"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    low = mapping.DoubleFloatRealWorldValueFirstValueMapped
    high = mapping.DoubleFloatRealWorldValueLastValueMapped
    assert (low, high) == (float(voxels.min()), float(voxels.max()))


def test_several_maps_are_instances_of_one_series() -> None:
    source = made_source(2)
    voxels = np.ones((2, 4, 6), np.float32)
    made = maps(source, image(voxels), image(voxels, name="other"))
    assert [one.InstanceNumber for one in made] == [1, 2]
    assert len({one.SeriesInstanceUID for one in made}) == 1
    assert len({one.SOPInstanceUID for one in made}) == 2


def test_a_map_of_an_earlier_study_names_it_among_other_studies() -> None:
    prior = made_source(2, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.4")
    source = replace(made_source(3), name="now", others={"before": replace(prior, is_prior=True)})
    [made] = maps(source, image(np.ones((2, 4, 6), np.float32), on="before"))
    assert made.StudyInstanceUID == "1.2.3"
    assert "ReferencedSeriesSequence" not in made
    [study] = made.StudiesContainingOtherReferencedInstancesSequence
    assert (study.StudyInstanceUID, study.ReferencedSeriesSequence[0].SeriesInstanceUID) == (
        "1.2.9",
        "1.2.9.4",
    )


def test_a_map_on_an_image_without_a_place_is_refused_with_what_to_do() -> None:
    with pytest.raises(ResultImpossible, match="give it as an image or as a picture"):
        maps(image_source(), image(np.ones((1, 4, 6), np.float32)))
