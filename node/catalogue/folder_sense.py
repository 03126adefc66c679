"""Do the tables of ``analysis.toml`` fit each other?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from node.catalogue.folder_names import REGIONS, finds_more, is_withholdable, region_names, withholdable
from node.catalogue.folder_tables import (
    DERIVED_KINDS,
    UNITS_OF_A_VOLUME,
    CheckTable,
    InputTable,
    MeasurementTable,
    ModelFolder,
    OutputTable,
    Setting,
)
from node.catalogue.pinned_files import PIN_IT
from node.config.config_lines import Path as Place
from node.config.config_values import suggestion

Fault = tuple[Place, str]
_NETWORKS = ("onnx", "torch")
#: These share the grid of the first volume.
_ON_ONE_GRID = (*_NETWORKS, "monai_bundle")
_SUFFIXES = {"onnx": (".onnx",), "torch": (".pt2", ".pt", ".ts")}
_KEYS_OF_A_KIND = {"argv": "command", "environment": "command", "unpinned": "command", "entry": "python"}


def faults(folder: ModelFolder) -> Iterator[Fault]:
    """Say what does not fit, each with the place of it and the words that follow the title of its table."""
    yield from _runner(folder)
    yield from _names(folder)
    yield from _needs(folder)
    for number, one in enumerate(folder.inputs):
        yield from _input(folder, ("input", number), one)
    for number, output in enumerate(folder.outputs):
        yield from _output(folder, ("output", number), output)
    yield from _measurements(folder)
    for number, check in enumerate(folder.checks):
        yield from _check(folder, ("check", number), check)


def main_file(folder: ModelFolder) -> str:
    """Return the file that a network is loaded from: the one that is named, else the only one that can be."""
    if folder.runner.file:
        return folder.runner.file
    suffixes = _SUFFIXES.get(folder.runner.kind, ())
    fit = [one.path for one in folder.runner.files if one.path.endswith(suffixes)]
    return fit[0] if len(fit) == 1 else ""


def _runner(folder: ModelFolder) -> Iterator[Fault]:
    runner = folder.runner
    place: Place = ("runner",)
    pinned = {one.path for one in runner.files}
    if len(pinned) < len(runner.files):
        yield (*place, "files"), "files: a path is pinned twice"
    wanted: list[str] = []
    if runner.kind in _NETWORKS:
        suffixes = _SUFFIXES[runner.kind]
        file = main_file(folder)
        if not file:
            yield (
                (*place, "file"),
                f"'file' is missing: which of files is the network ({', '.join(suffixes)})?",
            )
        elif not file.endswith(suffixes):
            ends = " or ".join(suffixes)
            yield (*place, "file"), f"file: '{file}' is nothing that {runner.kind} loads; it ends in {ends}"
        wanted += [file] if file else []
    if runner.kind == "python":
        module, _, attribute = runner.entry.partition(":")
        if not module.endswith(".py") or not attribute.isidentifier():
            yield (*place, "entry"), 'entry: expected "FILE.py:CLASS", a class in a file of the folder'
        else:
            wanted.append(module)
    if runner.kind == "command" and not runner.argv:
        yield place, "'argv' is missing: the program and its arguments"
    if runner.kind == "monai_bundle":
        wanted += [*runner.bundle.config, runner.bundle.metadata, runner.bundle.weights]
    if runner.kind in _NETWORKS and not folder.outputs:
        yield place, f"the runner {runner.kind} needs an [[output]]: nothing says what its tensors mean"
    for path in wanted:
        if path not in pinned:
            yield (*place, "files"), f"files: '{path}' {PIN_IT}"
    for key, kind in _KEYS_OF_A_KIND.items():
        if getattr(runner, key) and runner.kind != kind:
            yield (*place, key), f"{key}: counts for the runner {kind} alone"


def _names(folder: ModelFolder) -> Iterator[Fault]:
    for array, names in {
        "input": [one.need.name for one in folder.inputs],
        "parameter": [one.name for one in folder.parameters],
        "output": [one.name for one in folder.outputs],
        "measurement": [one.name for one in folder.measurements],
        "check": [one.name for one in folder.checks],
    }.items():
        seen: set[str] = set()
        for number, name in enumerate(names):
            if name in seen:
                yield (array, number, "name"), f"name: '{name}' is the name of another {array} already"
            seen.add(name)
    for name, count in Counter(region_names(folder)).items():
        if count > 1:
            yield (
                ("output",),
                f"labels: '{name}' is the name of {count} labels; findings need names of their own",
            )


def _needs(folder: ModelFolder) -> Iterator[Fault]:
    if not folder.inputs:
        yield (), "[[input]]: this table is missing: what the model is given"
        return
    for number, one in enumerate(folder.inputs):
        is_first = number == 0
        if is_first != (one.need.comes_from == "series"):
            wrong = (
                "the first input comes from the series" if is_first else 'further inputs come from "study" or'
            )
            more = "" if is_first else ' "prior"'
            yield ("input", number, "from"), f"from: {wrong}{more}"
        if is_first and one.need.is_optional:
            yield ("input", number, "optional"), "optional: the first input cannot be"


def _input(folder: ModelFolder, place: Place, one: InputTable) -> Iterator[Fault]:
    if folder.runner.kind in _ON_ONE_GRID and (one.need.comes_from, one.need.kind) == ("prior", "volume"):
        yield (
            (*place, "from"),
            f"from: {folder.runner.kind} is given volumes on the grid of the first, and nothing says where "
            "one of an earlier study lies on it",
        )
    if folder.runner.kind not in _NETWORKS:
        return
    if one.need.kind == "series":
        yield (*place, "as"), 'as: a network is given arrays; write "volume" or "image"'
    rank = 2 if one.layout and "D" not in one.layout else 3
    for key in ("size", "resize"):
        given = getattr(one, key)
        if given and len(given) not in (rank, 3):
            yield (*place, key), f"{key}: expected {rank} numbers for the layout {one.layout or 'NCDHW'}"
    if one.sliding is not None and place[1] != 0:
        yield (*place, "sliding"), "sliding: belongs to the first input, and counts for all"
    if one.sliding is not None and len(one.sliding.roi) != rank:
        yield (*place, "sliding"), f"sliding: roi needs {rank} numbers for the layout {one.layout or 'NCDHW'}"
    if one.need.kind == "image" and (one.orientation or one.spacing_mm):
        yield (*place, "orientation"), "orientation and spacing_mm: an image has no place in the patient"
    if one.channels != "grey" and one.need.kind != "image":
        yield (*place, "channels"), f"channels: a volume is grey, not {one.channels}"


def _output(folder: ModelFolder, place: Place, one: OutputTable) -> Iterator[Fault]:
    if one.on and one.on not in {each.need.name for each in folder.inputs}:
        names = [each.need.name for each in folder.inputs]
        yield (*place, "on"), f"on: there is no input '{one.on}'{suggestion(one.on, names)}"
    if one.kind in REGIONS and not one.labels:
        yield place, "'labels' are missing: what the output is a mask of"
    if one.kind == "fractional" and one.activation in ("argmax", "labels"):
        yield (*place, "activation"), f"activation: {one.activation} leaves no probabilities"
    if one.kind == "classification" and (one.concept is None or not one.labels):
        yield place, "a classification needs 'concept', the question, and 'labels', the answers"
    if one.kind == "regression" and (one.concept is None or one.unit is None):
        yield place, "a regression needs 'concept' and 'unit'"
    if one.kind == "map" and (one.concept is None or one.unit is None):
        yield place, "a map needs 'concept', the quantity, and 'unit'"
    if one.kind in ("points", "boxes"):
        if not one.labels:
            yield place, "'labels' are missing: what is found"
        if one.activation not in ("none", "sigmoid"):
            yield (
                (*place, "activation"),
                f"activation: {one.activation} makes no probability of a score; write sigmoid or none",
            )
        if sorted(one.coordinates.upper()) not in (sorted("DHW"), sorted("HW"), []):
            yield (
                (*place, "coordinates"),
                'coordinates: expected the order of the axes, such as "DHW" or "WH"',
            )
    indices = Counter(label.index for label in one.labels)
    twice = [str(index) for index, count in indices.items() if count > 1]
    if twice:
        yield (*place, "labels"), f"labels: two have the index {', '.join(twice)}"
    yield from _setting(folder, (*place, "threshold"), "threshold", one.threshold)
    for step in one.post:
        yield from _setting(folder, (*place, "post"), "post", step.value)


def _measurements(folder: ModelFolder) -> Iterator[Fault]:
    seen: dict[tuple[object, ...], str] = {}
    for number, one in enumerate(folder.measurements):
        place: Place = ("measurement", number)
        yield from _segment(folder, (*place, "of"), one.of)
        yield from _over(folder, (*place, "over"), one)
        yield from _unit(folder, (*place, "unit"), one)
        what = _what_is_measured(folder, one)
        if what in seen:
            yield place, f"name: {one.name} and {seen[what]} are the same number, or have the same codes"
        seen.setdefault(what, one.name)
        if one.kind == "share" and (one.above is None) == (one.below is None):
            yield place, "a share needs either 'above' or 'below'"
        for key in ("above", "below"):
            yield from _setting(folder, (*place, key), key, getattr(one, key))


def _unit(folder: ModelFolder, place: Place, one: MeasurementTable) -> Iterator[Fault]:
    if one.unit is None or one.kind not in ("volume", "share"):
        return
    if one.kind == "share":
        what, allowed = "a share", ["%"]
    else:
        on = _lies_on(folder, one.of)
        kinds = {each.need.kind for each in folder.inputs if on in (None, each.need.name)}
        what = "the area of what lies on an image" if kinds == {"image"} else "a volume"
        allowed = [unit for kind, units in UNITS_OF_A_VOLUME.items() if kind in kinds for unit in units]
    if allowed and one.unit.value not in allowed:
        yield place, f"unit: {what} is taken in {' or '.join(allowed)}, not {one.unit.value}"


def _over(folder: ModelFolder, place: Place, one: MeasurementTable) -> Iterator[Fault]:
    needs = {each.need.name: each.need for each in folder.inputs}
    if not one.over:
        return
    need = needs.get(one.over)
    if need is None or need.kind == "series":
        yield place, f"over: there is no volume or image '{one.over}'{suggestion(one.over, needs)}"
        return
    own = needs.get(_lies_on(folder, one.of) or "", need)
    if own is need:
        return
    if own.kind != need.kind:
        yield place, f"over: '{one.over}' is no {own.kind}, as '{own.name}' is, on which {one.of} lies"
    elif need.kind == "volume" and "prior" in (need.comes_from, own.comes_from):
        yield (
            place,
            f"over: '{one.over}' and '{own.name}', on which {one.of} lies, are of different studies: nothing "
            "says where one lies on the other",
        )


def _lies_on(folder: ModelFolder, label: str) -> str | None:
    """Return the input that a label lies on; None where a program may say which."""
    for one in folder.outputs:
        if one.kind in REGIONS and any(each.name == label for each in one.labels):
            first = folder.inputs[0].need.name if folder.inputs else None
            return one.on or (None if finds_more(folder) else first)
    return None


def _what_is_measured(folder: ModelFolder, one: MeasurementTable) -> tuple[object, ...]:
    """Return what sets a measurement apart from others in a result."""
    over = "" if one.kind in ("volume", "count") or one.over == _lies_on(folder, one.of) else one.over
    if one.concept is not None:
        return one.of, over, one.concept.value, one.concept.scheme, one.kind in DERIVED_KINDS and one.kind
    details = {"percentile": (one.percentile,), "share": (one.above, one.below)}
    return one.of, over, one.kind, *details.get(one.kind, ())


def _check(folder: ModelFolder, place: Place, one: CheckTable) -> Iterator[Fault]:
    if bool(one.measurement) == (one.quantity is not None):
        yield place, "a check needs either 'measurement' or 'quantity'"
    if one.minimum is None and one.maximum is None:
        yield place, "a check needs 'minimum', 'maximum' or both"
    low, high = one.minimum, one.maximum
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        yield (*place, "minimum"), f"minimum: {low:g} is above the maximum, {high:g}: no value passes"
    for key in ("minimum", "maximum"):
        yield from _setting(folder, (*place, key), key, getattr(one, key))
    numbers = [each.name for each in folder.measurements]
    numbers += [each.name for each in folder.outputs if each.kind == "regression"]
    is_free = folder.runner.kind in ("python", "command")
    for name in one.withholds:
        if not finds_more(folder) and not is_withholdable(folder, name):
            hint = suggestion(name, withholdable(folder)) or ", and it is no name of a measurement or a label"
            yield (*place, "withholds"), f"withholds: nothing is called '{name}'{hint}"
    if one.measurement and one.measurement not in numbers and not is_free:
        hint = suggestion(one.measurement, numbers)
        yield (*place, "measurement"), f"measurement: there is no measurement '{one.measurement}'{hint}"
    if one.quantity == "probability":
        outputs = [each.name for each in folder.outputs if each.kind == "classification"]
        if one.of not in outputs and not is_free:
            yield (*place, "of"), f"of: there is no classification '{one.of}'{suggestion(one.of, outputs)}"
    elif one.quantity is not None:
        yield from _segment(folder, (*place, "of"), one.of)


def _segment(folder: ModelFolder, place: Place, name: str) -> Iterator[Fault]:
    known = region_names(folder)
    # what a program or a bundle finds may be told by itself alone
    if name not in known and not finds_more(folder):
        yield place, f"of: there is no label '{name}'{suggestion(name, known)}"


def _setting(folder: ModelFolder, place: Place, key: str, value: Setting | None) -> Iterator[Fault]:
    if not isinstance(value, str):
        return
    numbers = {
        one.name: not isinstance(one.default, bool) and isinstance(one.default, int | float)
        for one in folder.parameters
    }
    name = value.removeprefix("$")
    if name not in numbers:
        yield place, f"{key}: there is no parameter '{name}'{suggestion(name, numbers)}"
    elif not numbers[name]:
        yield place, f"{key}: parameter '{name}' is no number"
