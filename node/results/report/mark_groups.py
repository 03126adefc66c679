"""The measurement groups of marks: TID 1410 in one plane, TID 1411 in several (PS3.16)."""

from __future__ import annotations

from highdicom.sr import (
    ImageRegion,
    ImageRegion3D,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
    VolumeSurface,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.uid import SecondaryCaptureImageStorage

from models.types import Mark
from node.results import concepts
from node.results.facts import RunFacts
from node.results.given import AllGiven
from node.results.regions import OnImage, Region
from node.results.report.answers import text_item
from node.results.report.measurement_groups import (
    Group,
    add_series,
    add_words,
    group_content,
    make_distinct,
    source_series,
)


def mark_group(mark: Mark, region: Region, given: AllGiven, run: RunFacts, *, beside_segments: bool) -> Group:
    """Return the group of a mark.

    A point is TID 1410, but a Volume Surface of TID 1411 beside segments (see ``make_distinct``): the two
    say the same.
    """
    one = given.on(mark.on)
    content = group_content(mark, given, run)
    group: Group
    if region.in_space and (not region.is_planar or (beside_segments and region.graphic_type == "POINT")):
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_volume_surface=VolumeSurface(
                region.graphic_type,
                list(region.in_space),
                one.header.frame_of_reference_uid,
                source_series=source_series(one),
            ),
            **content,
        )
    elif region.in_space:
        group = PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_space_region(region, one.header.frame_of_reference_uid),
            **content,
        )
        add_series(group, one, given)
    elif region.is_planar:
        group = PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_image_region(region, region.on_images[0]), **content
        )
    elif region.on_images:
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_regions=[_image_region(region, shape) for shape in region.on_images], **content
        )
    else:
        group = MeasurementsAndQualitativeEvaluations(**content)
        add_series(group, one, given)
        group[0].ContentSequence.append(
            text_item(concepts.COMMENT, f"where it lies is not said: {region.reason}")
        )
    add_words(group, mark)
    return group


def _space_region(region: Region, frame_of_reference_uid: str) -> ImageRegion3D:
    """Return a SCOORD3D.

    To see that a polygon is flat the library takes memory for the square of its points: ``check`` does not.
    """
    made = ImageRegion3D(
        "POINT" if region.graphic_type == "POINT" else "POLYLINE", region.in_space[0], frame_of_reference_uid
    )
    made.GraphicType = region.graphic_type
    return made


def _image_region(region: Region, shape: OnImage) -> ImageRegion:
    """Return a SCOORD on its image. It knows no polygon: a closed polyline is one (PS3.3 C.18.6.1.2)."""
    instance, frame = shape.image.instance, shape.image.frame
    image = SourceImageForRegion(
        # The library wants to know the class, and knows neither retired nor private ones.
        SecondaryCaptureImageStorage,
        instance.sop_instance_uid,
        [frame] if frame is not None else None,
    )
    made = ImageRegion("POINT" if region.graphic_type == "POINT" else "POLYLINE", shape.points, image)
    image.ReferencedSOPSequence[0].ReferencedSOPClassUID = instance.sop_class_uid
    return made


def set_apart(segments: list[Group], marks: list[tuple[Group, Region]], others: list[Group]) -> None:
    """Give groups a name of their own where the validator would ask them for another kind of region.

    Beside a segment it asks every group for one, for a volume or for several image regions; with exactly
    one region on an image it asks every group for one of that kind.
    """
    without = [*others, *(group for group, region in marks if not (region.in_space or region.on_images))]
    on_images = [(group, region) for group, region in marks if region.on_images]
    in_space = [(group, region) for group, region in marks if region.in_space]
    is_single = sum(len(region.on_images) for _, region in on_images) == 1
    if segments:
        for group in without:
            make_distinct(group, concepts.MEASUREMENTS_WITHOUT_REGION)
        for group, _ in [*in_space, *(on_images if is_single else [])]:
            if not isinstance(group, VolumetricROIMeasurementsAndQualitativeEvaluations):
                make_distinct(group, concepts.MARKS_BESIDE_SEGMENTS)
    elif is_single and in_space:
        make_distinct(on_images[0][0], concepts.MARKS_BESIDE_SEGMENTS)
    elif is_single:
        for group in without:
            make_distinct(group, concepts.MEASUREMENTS_WITHOUT_REGION)
