"""``anode show``: a frame of an instance as a picture."""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.named import instance_named
from node.cli.opening import configuration, keep_others_out, records
from node.errors import StorageFailure, WrongUsage

if TYPE_CHECKING:
    from node.cli.command import Commands

_MOST_PIXELS = 1 << 16


def register(commands: Commands) -> None:
    """Add the command."""
    show = command.add(
        commands,
        "show",
        _run,
        summary="write a frame of an instance as a PNG picture",
        description="Windowed as the object says; from the least to the largest value where it says nothing. "
        "For a small picture of JPEG 2000 or HTJ2K only those levels of the wavelet that it needs are "
        "decoded. The node may be running. An existing FILE is replaced.",
        examples="anode show 1.2.840.113619.2.55.3.1.7 -o x.png\n"
        "anode show 1.2.840.113619.2.55.3.1.7 -o thumb.png --size 128 --frame 20",
    )
    show.add_argument("instance", metavar="INSTANCE", help="a SOP Instance UID, or its beginning")
    show.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the picture")
    show.add_argument("--frame", metavar="N", default="1", help="which frame, from 1 (default)")
    show.add_argument("--size", metavar="PIXELS", help="the longer side of the picture (default: as it is)")
    show.add_argument("--window", metavar="CENTER,WIDTH", help="in place of what the object says")


def _run(arguments: argparse.Namespace) -> int:
    from node import instance_file
    from node.pictures import reading, rendering, scaling

    if arguments.output.suffix.lower() not in ("", ".png"):
        raise WrongUsage(f"-o: the picture is a PNG, '{arguments.output.name}' says something else")
    number = _whole("--frame", arguments.frame)
    size = None if arguments.size is None else _whole("--size", arguments.size)
    window = None if arguments.window is None else _window(arguments.window)
    keep_others_out()
    config = configuration(arguments)
    with records(config) as opened:
        stored = instance_named(opened, arguments.instance)
        services = opened.services()
        try:
            syntax, data_set = instance_file.data_set_of(
                services.storage, stored, look_up=opened.look_up, as_stored=True
            )
            with io.BytesIO(data_set) if isinstance(data_set, bytes) else data_set as file:
                frame = reading.read_frame(file, syntax, number, config.limits, longest_side=size)
        finally:
            services.storage.close()
    picture = scaling.scaled(rendering.picture(frame, window=window), size)
    try:
        picture.save(arguments.output, format="PNG")
    except OSError as error:
        raise StorageFailure(f"{arguments.output} cannot be written: {error.strerror or error}") from error
    facts = frame.facts
    if arguments.json:
        output.as_json(
            {
                "sop_instance_uid": stored.sop_instance_uid,
                "file": str(arguments.output),
                "frame": number,
                "frames": facts.number_of_frames,
                "columns": picture.width,
                "rows": picture.height,
                "image_columns": facts.columns,
                "image_rows": facts.rows,
            }
        )
    else:
        which = f", frame {number} of {facts.number_of_frames}" if facts.number_of_frames > 1 else ""
        output.line(f"{arguments.output}: {picture.width} x {picture.height}{which}")
    return 0


def _whole(option: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= (_MOST_PIXELS if option == "--size" else 1 << 31):
        raise WrongUsage(f"{option}: expected a whole number from 1 on, not '{text}'")
    return int(text)


def _window(text: str) -> tuple[float, float]:
    center, comma, width = text.partition(",")
    try:
        window = float(center), float(width)
    except ValueError:
        window = 0.0, 0.0
    if not comma or not math.isfinite(window[0]) or not 0 < window[1] < float("inf"):
        raise WrongUsage(f"--window: expected CENTER,WIDTH such as 40,400, not '{text}'")
    return window
