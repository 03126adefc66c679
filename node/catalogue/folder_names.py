"""The names that a model folder gives to what its model finds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from node.catalogue.folder_tables import ModelFolder

REGIONS = ("segmentation", "fractional")
MARKS = ("points", "boxes")
EVERYTHING = "*"


def finds_more(folder: ModelFolder) -> bool:
    """Whether the model may find what no table names."""
    kind = folder.runner.kind
    return kind in ("python", "command") or (kind == "monai_bundle" and not region_names(folder))


def region_names(folder: ModelFolder) -> list[str]:
    """Names of the segments."""
    return [label.name for one in folder.outputs if one.kind in REGIONS for label in one.labels]


def askable(folder: ModelFolder) -> Iterator[tuple[str, str]]:
    """Yield what ``when`` of a later analysis can ask for behind the name of this one, and what it is."""
    for output in folder.outputs:
        if output.kind == "regression":
            yield output.name, "a number"
        elif output.kind == "classification":
            names = [output.name]
            if output.activation == "sigmoid":
                names = [f"{output.name}.{label.name}" for label in output.labels]
            yield from ((name, "an answer") for name in names)
    for name in region_names(folder):
        yield name, "found"
        yield from ((f"{name}.{one.name}", "a number") for one in folder.measurements if one.of == name)
    # segments that no table names
    of_others = [one for one in folder.measurements if one.of not in region_names(folder)]
    yield from ((f"{one.of}.{one.name}", "a number") for one in of_others)
    yield from ((one.name, "passed or failed") for one in folder.checks)


def is_withholdable(folder: ModelFolder, name: str) -> bool:
    """Whether a check can mean something by ``name``, where the model finds what is named alone."""
    if name in withholdable(folder):
        return True
    labels = [label.name for one in folder.outputs if one.kind in MARKS for label in one.labels]
    return any(re.fullmatch(rf"{re.escape(label)}-[1-9]\d*", name) for label in labels)


def withholdable(folder: ModelFolder) -> list[str]:
    """Names by which a check withholds: numbers and answers, those of a region, images, or everything."""
    checks = {one.name for one in folder.checks}
    names = [one.name for one in folder.measurements]
    names += [name for name, _ in askable(folder) if name not in checks]
    names += [one.name for one in folder.outputs if one.kind not in (*REGIONS, *MARKS)]
    concepts = [one.concept for one in folder.measurements] + [one.concept for one in folder.outputs]
    for concept in filter(None, concepts):
        names += [concept.meaning, concept.value]
    return [*dict.fromkeys(names), EVERYTHING]
