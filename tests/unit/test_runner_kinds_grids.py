"""What a network says of its array is said of the very voxels of the series, however these lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from models.types import Code, Image, Mark
from node.catalogue.folder_tables import LabelTable, OutputTable, Sliding
from node.results.regions import outlines_of
from node.runners import nifti
from node.runners.failures import FolderFault
from node.runners.marks import marks
from node.runners.placement import Placement, onto, place, rescale, turns
from node.runners.tensors import Answers
from node.runners.windows import slide, windows
from tests.support import made_folders
from tests.support.made_folders import LABEL

SHAPE = (5, 7, 9)


def rotated(degrees: float) -> NDArray[np.float64]:
    """Return an axial grid with steps of 3, 1 and 1.5 mm, turned about two axes."""
    angle = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    axial = np.array([[0, 0, 1.5], [0, 1.0, 0], [3.0, 0, 0]])
    affine[:3, :3] = about_x @ about_z @ axial
    affine[:3, 3] = (-11, 23, -37)
    return affine


def flipped(*axes: int) -> NDArray[np.float64]:
    affine = rotated(0)
    affine[:3, list(axes)] *= -1
    return affine


def tilted() -> NDArray[np.float64]:
    affine = rotated(0)
    affine[:3, 0] = (0, -0.8, 2.9)
    return affine


GRIDS = {
    "axial": rotated(0),
    "oblique": rotated(25),
    "slices flipped": flipped(0),
    "rows flipped": flipped(1),
    "columns flipped": flipped(2),
    "all flipped": flipped(0, 1, 2),
    "gantry tilted": tilted(),
    "sagittal": rotated(0)[:, [2, 0, 1, 3]],
    "coronal": rotated(0)[:, [1, 0, 2, 3]],
}
every_grid = pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS.keys())


def marked() -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return voxels with three marks, none of which another orientation would put on another."""
    mask = np.zeros(SHAPE, bool)
    for at in ((0, 0, 0), (1, 5, 2), (4, 6, 7)):
        mask[at] = True
    return np.where(mask, 1000, 0).astype(np.int16), mask


def folder(path: Path, about_input: str = "", about_output: str = "") -> Path:
    made_folders.identity(path / "model.onnx")
    return made_folders.folder(
        path,
        f'[[input]]\nas = "volume"\nnormalise = {{ window = [0, 1000] }}\n{about_input}\n'
        f'[[output]]\nname = "said"\nas = "segmentation"\n{about_output}\n{LABEL}\n',
    )


@every_grid
@pytest.mark.parametrize("orientation", ["as is", "RAS", "LPS", "SAR", "IPL"])
def test_marked_voxels_come_back_where_they_were(
    tmp_path: Path, affine: NDArray[np.float64], orientation: str
) -> None:
    voxels, mask = marked()
    about = f'orientation = "{orientation}"\nsize = [14, 14, 14]\ndivisible_by = 4'
    found = made_folders.predict(folder(tmp_path, about), made_folders.volume(voxels, affine))
    assert np.array_equal(found.segments[0].mask, mask)


@every_grid
def test_the_array_leads_where_the_orientation_says(affine: NDArray[np.float64]) -> None:
    order, flips = turns(affine, "RAS")
    voxels = np.zeros(SHAPE)
    placed = place(SHAPE, affine, orientation="RAS")
    turned = placed.turned(voxels)
    for axis, (coordinate, sign) in enumerate([(0, -1), (1, -1), (2, 1)]):
        step = np.zeros(4)
        step[order[axis]] = -1 if flips[axis] else 1
        along = affine @ step
        assert along[coordinate] * sign > 0.5 * np.linalg.norm(along)
        assert turned.shape[axis] == SHAPE[order[axis]]


@every_grid
def test_a_point_of_the_array_is_the_same_place_of_the_patient(affine: NDArray[np.float64]) -> None:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    placed = place(
        SHAPE,
        affine,
        orientation="LPS",
        spacing_mm=(2.0, 2.0, 2.0),
        source_spacing_mm=lengths,
        size=(6, 6, 6),
    )
    rng = np.random.default_rng(3)
    smooth = rescale(rng.normal(size=(2, 3, 2)), SHAPE, "linear")
    array = placed.fitted(placed.resampled(placed.turned(smooth), "linear"), 0.0)
    inside = np.argwhere(np.ones(placed.shape))
    back = placed.points_back(inside.astype(np.float64))
    seen = ((back >= 0) & (back <= np.array(SHAPE) - 1)).all(axis=1)
    assert seen.sum() > 50
    from scipy import ndimage

    expected = ndimage.map_coordinates(smooth, back[seen].T, order=1)
    assert np.allclose(array[tuple(inside[seen].T)], expected, atol=1e-4)


@every_grid
def test_a_large_region_survives_resampling(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    shape = (20, 36, 30)
    at = np.stack(np.meshgrid(*(np.arange(one) for one in shape), indexing="ij"), axis=-1)
    mask = (((at - (9, 20, 12)) / (6, 11, 8)) ** 2).sum(axis=-1) <= 1
    voxels = np.where(mask, 1000, 0).astype(np.int16)
    about = 'orientation = "RAS"\nspacing_mm = [2.0, 2.0, 2.0]\nsliding = { roi = [16, 16, 16] }'
    found = made_folders.predict(folder(tmp_path, about), made_folders.volume(voxels, affine))
    got = found.segments[0].mask
    assert 2 * np.count_nonzero(got & mask) / (got.sum() + mask.sum()) > 0.93
    centre = np.argwhere(got).mean(axis=0) - np.argwhere(mask).mean(axis=0)
    assert np.abs(centre).max() < 0.2


def test_what_was_cropped_away_belongs_to_no_segment(tmp_path: Path) -> None:
    voxels = np.full(SHAPE, 1000, np.int16)
    found = made_folders.predict(folder(tmp_path, "size = [3, 3, 3]"), made_folders.volume(voxels))
    mask = found.segments[0].mask
    assert mask.sum() == 27
    assert mask[1:4, 2:5, 3:6].all()


def test_slices_are_given_one_by_one_to_a_network_of_images(tmp_path: Path) -> None:
    made_folders.identity(tmp_path / "model.onnx", (1, "h", "w", 1))
    made_folders.folder(
        tmp_path,
        '[[input]]\nas = "volume"\nlayout = "NHWC"\nresize = [7, 9]\nnormalise = { window = [0, 1000] }\n'
        f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n',
    )
    voxels, mask = marked()
    assert np.array_equal(made_folders.predict(tmp_path, made_folders.volume(voxels)).segments[0].mask, mask)


def test_points_and_boxes_come_back_to_their_voxels(tmp_path: Path) -> None:
    boxes = np.float32([[1, 2, 3, 4, 5, 6], [0, 0, 0, 2, 2, 2]])
    scores = np.float32([0.9, 0.2])
    made_folders.network(
        tmp_path / "model.onnx",
        [
            helper.make_node("ReduceMax", ["given"], ["top"], keepdims=0),
            helper.make_node("Mul", ["top", "places"], ["boxes"]),
            helper.make_node("Identity", ["certain"], ["scores"]),
        ],
        inputs={"given": ("n", 1, "d", "h", "w")},
        outputs={"boxes": (2, 6), "scores": (2,)},
        constants={"places": boxes, "certain": scores},
    )
    made_folders.folder(
        tmp_path,
        '[[input]]\nas = "volume"\norientation = "RAS"\nnormalise = { window = [0, 1000] }\n'
        '[[output]]\nname = "found"\ntensor = "boxes"\nscores = "scores"\nas = "boxes"\n'
        f'coordinates = "DHW"\norigin = "corner"\nthreshold = 0.5\n{LABEL}\n',
    )
    voxels, _ = marked()
    [mark] = made_folders.predict(tmp_path, made_folders.volume(voxels)).marks
    assert mark.probability == pytest.approx(0.9)
    # the array runs to the right, to the front and up: columns and rows of an axial series backwards
    # and the edges 1 and 4, 2 and 5 are those of three voxels; 3 and 6 go beyond the last slice
    low, high = mark.points
    assert low.tolist() == [3, 6 - 4, 8 - 3]
    assert high.tolist() == [4, 6 - 2, 8 - 1]


CODE = Code("T", "99T", "Thing")
BOXES: dict[str, dict[str, Any]] = {
    "edges": {"origin": "corner"},
    "centres": {"origin": "centre"},
    "size about a centre": {"origin": "centre", "form": "centre_size"},
    "size about an edge": {"origin": "corner", "form": "centre_size"},
    "logits": {"origin": "corner", "activation": "sigmoid"},
}


def boxes_of(
    table: str, given: list[list[float]], placement: Placement, scores: list[float] | None = None
) -> list[Mark]:
    """Return what becomes of boxes that a network says."""
    labels = (LabelTable(0, "thing", "Thing", CODE),)
    stated = OutputTable("found", "boxes", tensor="boxes", coordinates="DHW", labels=labels, **BOXES[table])
    tensors = {"boxes": np.float32(given)}
    if scores is not None:
        stated, tensors["scores"] = replace(stated, scores="scores"), np.float32(scores)
    return marks(Answers([tensors], False), stated, placement, {})


@pytest.mark.parametrize(
    ("table", "given"),
    [
        ("edges", [3, 10, 20, 5, 12, 22]),
        ("edges", [5, 12, 22, 3, 10, 20]),
        ("centres", [3, 10, 20, 4, 11, 21]),
        ("size about a centre", [3.5, 10.5, 20.5, 2, 2, 2]),
        ("size about an edge", [4, 11, 21, 2, 2, 2]),
    ],
)
def test_a_box_is_drawn_around_the_voxels_that_the_network_means(table: str, given: list[float]) -> None:
    shape = (10, 64, 64)
    [box] = boxes_of(table, [given], place(shape, None))
    assert box.points.tolist() == [[3, 10, 20], [4, 11, 21]]
    outlines = outlines_of(box, shape)
    assert [int(one[0, 0]) for one in outlines] == [3, 4]
    # in the edges of pixels, as the network said them
    assert (outlines[0][:, 1:].min(axis=0) + 0.5).tolist() == [10, 20]
    assert (outlines[0][:, 1:].max(axis=0) + 0.5).tolist() == [12, 22]


def test_a_box_of_a_resampled_array_keeps_its_outer_edges() -> None:
    [box] = boxes_of("edges", [[3, 5, 10, 5, 6, 11]], place((10, 64, 64), None, resize=(10, 32, 32)))
    assert box.points.tolist() == [[3, 10, 20], [4, 11, 21]]
    [thin] = boxes_of("edges", [[3, 40, 80, 5, 42, 96]], place((10, 64, 64), None, resize=(10, 256, 256)))
    # a side of half a voxel has both corners in its middle
    assert thin.points.tolist() == [[3, 9.75, 20], [4, 9.75, 23]]


def test_a_box_in_the_padding_is_no_finding_and_one_at_the_border_is_cut() -> None:
    placement = place((10, 64, 64), None, size=(10, 96, 96))
    padding, within = [1, 2, 2, 3, 9, 9], [1, 10, 10, 3, 20, 20]
    [cut] = boxes_of("edges", [padding, within], placement, [0.95, 0.9])
    assert (cut.name, cut.probability) == ("thing-1", pytest.approx(0.9))
    assert cut.points.tolist() == [[1, 0, 0], [2, 3, 3]]


def test_scores_are_taken_as_probabilities_only_when_they_are_some() -> None:
    placement = place((10, 64, 64), None)
    box = [1, 10, 10, 3, 20, 20]
    for score in (3.2, 1.1, -0.2):
        with pytest.raises(FolderFault, match="is no probability; an activation is missing"):
            boxes_of("edges", [box], placement, [score])
    first, second = boxes_of("logits", [box, box, box], placement, [1.1, 3.2, -3])
    assert first.probability == pytest.approx(1 / (1 + np.exp(-3.2)))
    assert second.probability == pytest.approx(1 / (1 + np.exp(-1.1)))


def test_an_image_in_colour_keeps_the_order_of_its_samples(tmp_path: Path) -> None:
    made_folders.network(
        tmp_path / "model.onnx",
        [helper.make_node("ReduceMean", ["given"], ["mean"], axes=[2, 3], keepdims=0)],
        inputs={"given": (1, 3, "h", "w")},
        outputs={"mean": (1, 3)},
    )
    outputs = "".join(
        f'[[output]]\nname = "{name}"\nas = "regression"\nelement = {number}\nunit = "1"\n'
        f'concept = {{ value = "{name}", scheme = "99T", meaning = "{name}" }}\n'
        for number, name in enumerate(("blue", "green", "red"))
    )
    made_folders.folder(tmp_path, f'[[input]]\nas = "image"\nchannels = "bgr"\n{outputs}')
    pixels = np.zeros((1, 4, 6, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 200, 100, 50
    numbers = made_folders.predict(tmp_path, Image(pixels, None, "1")).measurements
    assert {one.name: one.value for one in numbers} == {"red": 200, "green": 100, "blue": 50}


def test_a_further_volume_is_put_on_the_grid_of_the_first(tmp_path: Path) -> None:
    made_folders.network(
        tmp_path / "model.onnx",
        [
            helper.make_node("Slice", ["given", "one", "two", "axis"], ["said"]),
        ],
        inputs={"given": ("n", 2, "d", "h", "w")},
        outputs={"said": None},
        constants={"one": np.int64([1]), "two": np.int64([2]), "axis": np.int64([1])},
    )
    made_folders.folder(
        tmp_path,
        '[[input]]\nname = "ct"\ntensor = "given"\n'
        '[[input]]\nname = "pet"\ntensor = "given"\nfrom = "study"\noptional = true\n'
        f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n',
    )
    voxels, mask = marked()
    other = made_folders.volume((voxels[::-1, :, ::-1] > 0).astype(np.float32), _backwards())
    given = {"ct": made_folders.volume(np.zeros(SHAPE, np.int16)), "pet": other}
    assert np.array_equal(made_folders.predict(tmp_path, given).segments[0].mask, mask)
    del given["pet"]
    assert not made_folders.predict(tmp_path, given).segments[0].mask.any()


@pytest.mark.parametrize(
    ("frame", "told"),
    [("b", "'pet' and 'ct' have different frames of reference"), (None, "'pet' has no Frame of Reference")],
)
def test_a_further_volume_of_which_nothing_says_where_it_lies_is_unfit(
    tmp_path: Path, frame: str | None, told: str
) -> None:
    shape = ("n", 1, "d", "h", "w")
    made_folders.network(
        tmp_path / "model.onnx",
        [helper.make_node("Add", ["one", "other"], ["said"])],
        inputs={"one": shape, "other": shape},
        outputs={"said": shape},
    )
    made_folders.folder(
        tmp_path,
        '[[input]]\nname = "ct"\ntensor = "one"\n[[input]]\nname = "pet"\ntensor = "other"\nfrom = "study"\n'
        f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n',
    )
    ct = made_folders.volume(np.zeros(SHAPE, np.int16))
    assert made_folders.predict(tmp_path, {"ct": ct, "pet": replace(ct)}).segments
    pet = replace(ct, header={"FrameOfReferenceUID": frame})
    with pytest.raises(ValueError, match=told):
        made_folders.predict(tmp_path, {"ct": ct, "pet": pet})


def _backwards() -> NDArray[np.float64]:
    """Return the grid of ``made_folders.volume``, seen from its last slice and column."""
    affine = made_folders.volume(np.zeros(SHAPE)).affine.copy()
    last = affine @ [SHAPE[0] - 1, 0, SHAPE[2] - 1, 1]
    affine[:3, [0, 2]] *= -1
    affine[:3, 3] = last[:3]
    return affine


# --- the parts ---------------------------------------------------------------


def test_windows_cover_all_and_join_without_a_seam() -> None:
    sliding = Sliding((4, 5, 3), 0.25)
    covered = np.zeros((9, 11, 3), int)
    for corner in windows(covered.shape, sliding):
        covered[tuple(slice(a, a + b) for a, b in zip(corner, sliding.roi, strict=True))] += 1
    assert covered.min() >= 1
    array = np.random.default_rng(1).normal(size=(1, 1, 9, 11, 3)).astype(np.float32)
    joined = slide({"x": array}, (2, 3, 4), sliding, lambda parts: {"y": parts["x"]})
    assert np.allclose(joined["y"], array, atol=1e-6)


@every_grid
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_volume_comes_back_from_nifti_as_it_was(
    tmp_path: Path, affine: NDArray[np.float64], name: str
) -> None:
    voxels = np.random.default_rng(2).integers(-1000, 3000, SHAPE).astype(np.int16)
    nifti.write(tmp_path / name, voxels, affine)
    read, there = nifti.read(tmp_path / name)
    assert np.array_equal(read, voxels)
    assert np.allclose(there, affine, atol=1e-4)


def test_other_software_reads_our_nifti_and_we_read_theirs(tmp_path: Path) -> None:
    import SimpleITK

    voxels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    affine = GRIDS["oblique"]
    nifti.write(tmp_path / "ours.nii.gz", voxels, affine)
    image = SimpleITK.ReadImage(str(tmp_path / "ours.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), voxels)
    there = image.TransformIndexToPhysicalPoint((8, 1, 3))
    assert np.allclose(there, (affine @ [3, 1, 8, 1])[:3], atol=1e-3)
    SimpleITK.WriteImage(image, str(tmp_path / "theirs.nii.gz"))
    read, grid = nifti.read(tmp_path / "theirs.nii.gz")
    assert np.array_equal(read, voxels)
    assert np.allclose(grid, affine, atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_what_is_no_nifti_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        nifti.read(tmp_path / name)


def test_a_nifti_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    nifti.write(tmp_path / "v.nii", np.zeros(SHAPE, np.int16), GRIDS["axial"])
    whole = (tmp_path / "v.nii").read_bytes()
    (tmp_path / "v.nii").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="cut short"):
        nifti.read(tmp_path / "v.nii")


@every_grid
def test_a_map_on_a_turned_grid_is_taken_without_interpolation(affine: NDArray[np.float64]) -> None:
    voxels, mask = marked()
    turned = np.flip(voxels.transpose(2, 0, 1), 0)
    there = affine[:, [2, 0, 1, 3]].copy()
    there[:3, 3] += there[:3, 0] * (SHAPE[2] - 1)
    there[:3, 0] *= -1
    assert np.array_equal(onto(turned, there, SHAPE, affine, "nearest") != 0, mask)


def steps(slice_mm: float, mm: float, first: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return an axial grid; ``first`` is the centre of the first voxel, (x, y, z) in mm."""
    affine = np.array([[0, 0, mm, 0], [0, mm, 0, 0], [slice_mm, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    affine[:3, 3] = first
    return affine


def test_a_mask_of_larger_voxels_with_the_same_outer_faces_loses_none_of_the_smaller_ones() -> None:
    there, here = steps(3, 3, (1, 1, 1)), steps(1, 1, (0, 0, 0))
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[0, 0], mask[3, 4, 5] = 1, 1
    brought = onto(mask, there, (12, 15, 18), here, "nearest")
    assert np.array_equal(brought, mask.repeat(3, 0).repeat(3, 1).repeat(3, 2))


def test_oblique_grids_of_the_same_slices_lose_nothing_by_rounding() -> None:
    generator = np.random.default_rng(5)
    for degrees in (3, 12, 25, 41, 77):
        turn = rotated(degrees)[:3, :3] / np.linalg.norm(rotated(degrees)[:3, :3], axis=0)
        there, here = np.eye(4), np.eye(4)
        there[:3, :3], here[:3, :3] = turn * (3, 1.5, 1.5), turn * (3, 0.75, 0.75)
        there[:3, 3] = here[:3, 3] = generator.uniform(-300, 300, 3)
        mask = (generator.random((6, 20, 20)) < 0.5).astype(np.uint8)
        # half-way between two voxels the lower one counts, so every second voxel is one of the source
        lower = mask.repeat(2, 1).repeat(2, 2)[:, :39, :39]
        assert np.array_equal(onto(mask, there, (6, 39, 39), here, "nearest"), lower)
        values = onto(np.full((6, 20, 20), 500, np.int16), there, (6, 39, 39), here, "linear")
        assert np.allclose(values, 500)


def test_beyond_the_outer_faces_of_a_grid_nothing_is_said() -> None:
    there, here = steps(3, 2, (0, 0, 0)), steps(3, 1, (-4, -2.5, 0))
    brought = onto(np.full((2, 3, 4), 7, np.int16), there, (2, 12, 16), here, "linear", -1000)
    inside = np.zeros((2, 12, 16), bool)
    # the faces are at -1 and 5 in y, at -1 and 7 in x
    inside[:, 2:8, 3:12] = True
    assert np.array_equal(brought, np.where(inside, 7, -1000))


def test_where_a_further_volume_ends_there_is_its_lowest_value_and_no_water(tmp_path: Path) -> None:
    made_folders.network(
        tmp_path / "model.onnx",
        [helper.make_node("Slice", ["given", "one", "two", "axis"], ["said"])],
        inputs={"given": ("n", 2, "d", "h", "w")},
        outputs={"said": None},
        constants={"one": np.int64([1]), "two": np.int64([2]), "axis": np.int64([1])},
    )
    made_folders.folder(
        tmp_path,
        '[[input]]\nname = "ct"\ntensor = "given"\n'
        '[[input]]\nname = "other"\ntensor = "given"\nfrom = "study"\n'
        '[[output]]\nname = "said"\nas = "image"\n',
    )
    voxels = np.full((2, 4, 4), 40, np.int16)
    voxels[0, 0, 0] = -1024
    given = {
        "ct": made_folders.volume(np.zeros((2, 4, 4), np.int16), steps(3, 1, (0, 0, 0))),
        "other": made_folders.volume(voxels, steps(3, 1, (2, 0, 0))),
    }
    [image] = made_folders.predict(tmp_path, given).images
    assert (image.voxels[:, :, :2] == -1024).all()
    assert (image.voxels[1, :, 2:] == 40).all()
