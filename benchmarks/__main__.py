"""``python -m benchmarks``: every row of ``docs/performance.md``, beside the peers, in one run."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import FrameType

from benchmarks import (
    analysing,
    codec,
    disk,
    latency,
    machine,
    memory,
    receiving,
    report,
    retrieving,
    scale,
    settling,
)
from benchmarks.anode import Anode
from benchmarks.figures import Case
from benchmarks.images import Images
from benchmarks.options import Options
from benchmarks.processes import BenchmarkFailure

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
ROWS: Mapping[str, Callable[[Options, Images], Generator[Case, None, None]]] = {
    "store": receiving.store,
    "nagle": receiving.nagle,
    "small": receiving.small,
    "index": scale.index,
    "get": retrieving.get,
    "decode": retrieving.decode,
    "latency": latency.latency,
    "memory": memory.memory,
    "idle": memory.idle,
    "lossless": settling.lossless,
    "backlog": settling.backlog,
    "models": analysing.models,
    "disk": disk.disk,
    "codec": codec.codec,
}
_IN_MEMORY = Path("/dev/shm")
_IN_MEMORY_BYTES = 4 * 1024**3
_FAILED, _WRONG_USAGE = 1, 2


def main() -> int:
    """Run the rows that were asked for; return 0 when all of them gave figures, whatever these say."""
    arguments = _parser().parse_args()
    unknown = set(arguments.rows) - set(ROWS)
    if unknown or not arguments.rows:
        print(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}", file=sys.stderr)
        return _WRONG_USAGE
    signal.signal(signal.SIGTERM, _interrupt)
    Anode.segments_ahead = arguments.segments_ahead
    with ExitStack() as exits:
        options = _options(arguments, exits)
        images = Images(options.images_folder, options.pixel_source, options.mr_source)
        cases: list[Case] = []
        try:
            facts = {**machine.facts(options.folder), "rounds": str(options.rounds)}
            for row in arguments.rows:
                with closing(ROWS[row](options, images)) as found:
                    for case in found:
                        cases.append(case)
                        print("\n".join(report.lines(case)), flush=True)
            print(report.summary(cases))
            if arguments.json is not None:
                written = {"facts": facts, "cases": [case.to_json() for case in cases]}
                arguments.json.write_text(json.dumps(written, indent=1) + "\n")
            if arguments.page is not None:
                report.write_page(arguments.page, facts, cases)
        except BenchmarkFailure as failure:
            print(f"no figures: {failure}", file=sys.stderr)
            return _FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = Options(Path(), Path())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    rows = f"which rows, in this order; there are {', '.join(ROWS)}"
    parser.add_argument("--rows", type=_words, default=",".join(ROWS), help=rows)
    parser.add_argument("--runs", type=_number, default=defaults.rounds, help="rounds of each comparison")
    parser.add_argument("--folder", type=_folder, help="where all receivers keep their data (default: /tmp)")
    parser.add_argument("--images", type=_folder, help="a folder with one real CT series to take pixels from")
    parser.add_argument("--mr-images", type=_folder, help="a folder with one real MR series, for settling")
    parser.add_argument("--index-cache", type=Path, help="a folder that keeps a full index")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument(
        "--page", type=Path, nargs="?", const=PAGE, help="rewrite the figures in docs/performance.md, or here"
    )
    sizes = parser.add_argument_group("sizes, for a short run")
    sizes.add_argument(
        "--associations",
        type=_numbers,
        default=",".join(map(str, defaults.associations)),
        metavar="N,N",
        help="at the same time",
    )
    for name in (
        "instances",
        "small-instances",
        "index-rows",
        "large-object-bytes",
        "idle-associations",
        "backlog-instances",
    ):
        sizes.add_argument(
            f"--{name}", type=_number, default=getattr(defaults, name.replace("-", "_")), help="how many"
        )
    sizes.add_argument(
        "--segments-ahead",
        type=_number,
        default=Anode.segments_ahead,
        help="so many segments of its log anode has written before anything is timed",
    )
    sizes.add_argument(
        "--latency-seconds", type=float, default=defaults.latency_seconds, help="of one turn of that row"
    )
    return parser


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{folder} is no folder")
    return folder


def _options(arguments: argparse.Namespace, exits: ExitStack) -> Options:
    """Make the folders of this run, which are gone when it ends."""
    has_room = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > _IN_MEMORY_BYTES
    folder = _temporary(arguments.folder, exits)
    return Options(
        folder=folder,
        images_folder=_temporary(_IN_MEMORY if has_room else arguments.folder, exits),
        rounds=arguments.runs,
        instances=arguments.instances,
        small_instances=arguments.small_instances,
        associations=arguments.associations,
        pixel_source=arguments.images,
        mr_source=arguments.mr_images,
        index_rows=arguments.index_rows,
        index_cache=arguments.index_cache,
        large_object_bytes=arguments.large_object_bytes,
        idle_associations=arguments.idle_associations,
        latency_seconds=arguments.latency_seconds,
        backlog_instances=arguments.backlog_instances,
    )


def _temporary(parent: Path | None, exits: ExitStack) -> Path:
    made = Path(tempfile.mkdtemp(prefix="anode-benchmarks-", dir=parent))
    exits.callback(shutil.rmtree, made, ignore_errors=True)
    return made


def _words(text: str) -> list[str]:
    return [word for word in text.replace(" ", "").split(",") if word]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in _words(text))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that everything that was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
