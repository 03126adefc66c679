"""Which keys the tables of ``analysis.toml`` have: each with the field that it fills, and what reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from node.catalogue import folder_values as values
from node.catalogue.folder_tables import Activation, MeasurementKind, OutputKind, Quantity, RunnerKind
from node.config.config_values import Reader, boolean, choice, number, shown, text, whole

Keys = Mapping[str, tuple[str, Reader]]


def _same(**readers: Reader) -> dict[str, tuple[str, Reader]]:
    """Keys that are called like their field."""
    return {key: (key, reader) for key, reader in readers.items()}


def field_of(keys: Keys, key: str) -> str:
    """Return the field that ``key`` fills."""
    return keys[key][0]


def sentence(value: Any) -> str:
    """Read a text of one or several lines, the breaks taken for spaces."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected text in quotes that is not empty, not {shown(value)}")
    return text(" ".join(value.split()))


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(values.list_of(text)(value))


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError('expected a table of texts, such as { OMP_NUM_THREADS = "1" }')
    return dict(value)


def _any_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table, not {shown(value)}")
    return dict(value)


def parameter_value(value: Any) -> Any:
    """Read the value of a parameter: lists become tuples."""
    if isinstance(value, list):
        return tuple(parameter_value(one) for one in value)
    if isinstance(value, dict):
        return {key: parameter_value(one) for key, one in value.items()}
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"{value} is no value that a parameter may have; write it as text")
    return value


def _choices(value: Any) -> tuple[Any, ...]:
    return tuple(values.list_of(parameter_value)(value))


ANALYSIS: Keys = _same(
    name=values.identifier,
    version=values.identifier,
    title=sentence,
    intended_use=sentence,
    limits=sentence,
    evidence=sentence,
    licence=sentence,
    manufacturer=sentence,
    citation=sentence,
    status=choice("research", "validated-locally", "cleared"),
    inputs=sentence,
    outputs=sentence,
    family=values.code,
)
RUNNER: Keys = _same(
    kind=choice(*get_args(RunnerKind)),
    file=values.path_inside,
    entry=text,
    argv=_texts,
    environment=_environment,
    unpinned=values.list_of(values.path_inside),
)
PACKAGE = ("package", "version", "wheel_sha256", "member")
FILE: Keys = _same(
    path=values.path_inside,
    sha256=values.sha256,
    package=text,
    version=text,
    wheel_sha256=values.sha256,
    member=values.path_inside,
)
BUNDLE: Keys = {
    "config": ("config", values.one_or_several(values.path_inside, "file")),
    **_same(
        metadata=values.path_inside,
        weights=values.path_inside,
        overrides=_any_table,
        preprocessing=text,
        postprocessing=text,
        inferer=text,
        network=text,
        image_key=text,
        prediction_key=text,
    ),
}
NEED: Keys = {
    "name": ("name", values.identifier),
    "as": ("kind", choice("volume", "image", "series")),
    "from": ("comes_from", choice("series", "study", "prior")),
    "optional": ("is_optional", boolean),
    "modality": ("modalities", values.one_or_several(text, "modality")),
    "unit": ("unit", text),
    "min_slices": ("min_slices", whole(0)),
}
TENSOR: Keys = _same(
    tensor=text,
    orientation=values.orientation,
    spacing_mm=values.list_of(number(0, above=True), 3),
    interpolation=choice("linear", "nearest"),
    resize=values.list_of(whole(1)),
    size=values.list_of(whole(1)),
    divisible_by=whole(1),
    fill=values.finite,
    layout=values.layout,
    dtype=choice(*values.DTYPES),
    channels=choice("grey", "rgb", "bgr"),
    normalise=values.normalise,
    sliding=values.sliding,
)
PARAMETER: Keys = _same(
    name=values.identifier,
    default=parameter_value,
    meaning=sentence,
    minimum=values.finite,
    maximum=values.finite,
    choices=_choices,
)
OUTPUT: Keys = {
    "name": ("name", values.identifier),
    "as": ("kind", choice(*get_args(OutputKind))),
    **_same(
        label=text,
        tensor=text,
        on=values.identifier,
        activation=choice(*get_args(Activation)),
        threshold=values.setting,
        layout=values.layout,
        post=values.post,
        concept=values.code,
        unit=values.unit,
        element=whole(0),
        scale=values.factor,
        offset=values.finite,
        scores=text,
        classes=text,
        coordinates=text,
        form=choice("corners", "centre_size"),
        origin=choice("centre", "corner"),
        most=whole(1),
    ),
}
LABEL: Keys = _same(
    index=whole(0),
    name=values.identifier,
    label=text,
    type=values.code,
    category=values.code,
    laterality=values.code,
    site=values.code,
    colour=values.colour,
)
MEASUREMENT: Keys = {
    "name": ("name", values.identifier),
    "of": ("of", values.identifier),
    "as": ("kind", choice(*get_args(MeasurementKind))),
    **_same(
        over=values.identifier,
        concept=values.code,
        unit=values.unit,
        percentile=number(0, 100),
        above=values.setting,
        below=values.setting,
    ),
}
CHECK: Keys = {
    "withholds": ("withholds", values.list_of(text)),
    **_same(
        name=values.identifier,
        reason=sentence,
        measurement=text,
        quantity=choice(*get_args(Quantity)),
        of=values.identifier,
        minimum=values.setting,
        maximum=values.setting,
    ),
}
REQUIRED = {
    "analysis": (
        *("name", "version", "title", "manufacturer", "intended_use"),
        *("limits", "licence", "evidence"),
    ),
    "runner": ("kind",),
}
