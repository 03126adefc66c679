"""Whether coordinates of two volumes can be compared: those of one study and one Frame of Reference can."""

from __future__ import annotations

from models.types import Volume


def refuse_apart(what: str, one: tuple[str, Volume], other: tuple[str, Volume]) -> None:
    """Refuse two volumes, each with its name, of which nothing says where one lies on the other.

    ``what`` is for which purpose, and begins the reason.

    Raises
    ------
    ValueError
    """
    # digests, of the study and the UID together
    frames = [volume.header.get("FrameOfReferenceUID") for _, volume in (one, other)]
    for (name, _), frame in zip((one, other), frames, strict=True):
        if not frame:
            raise ValueError(
                f"{what}: '{name}' has no Frame of Reference, or one for each image, so nothing says where "
                "it lies on others"
            )
    if frames[0] != frames[1]:
        raise ValueError(
            f"{what}: '{one[0]}' and '{other[0]}' have different frames of reference, so nothing says where "
            "one lies on the other"
        )
