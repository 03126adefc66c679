"""Fuzz a target: ``python -m tests.fuzz pdu --runs 100000`` (docs/fuzzing.md).

Needs atheris, which is there for Linux on x86-64. Ends with status 0 when nothing was found; what was
found is a file ``build/fuzz/<target>-crash-...``, -timeout-... or -oom-... Other options are libFuzzer's.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from random import Random

import atheris

FOLDER = Path(__file__).parent
WORK = Path("build") / "fuzz"
#: target -> which modules tell the fuzzer what they have come through
INSTRUMENTED = {
    "pdu": ["node.wire", "handlers.boundary", "pynetdicom.pdu", "pynetdicom.pdu_items"],
    "header": ["node.ingest", "node.index"],
    "matching": ["node.query", "node.index", "node.wire.data_sets"],
}
_MOST_BYTES = {"pdu": 18000, "header": 4096, "matching": 1024}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(INSTRUMENTED))
    parser.add_argument("--runs", type=int, default=100_000, help="how many inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer; 0 is another one each time")
    parser.add_argument("--work", type=Path, help="where to keep new inputs (build/fuzz/TARGET)")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="run one input that was found, and no other"
    )
    parser.add_argument(
        "--keep", action="store_true", help="run nothing; take the new inputs over into the repository"
    )
    arguments, more = parser.parse_known_args()
    name = arguments.target
    work = arguments.work or WORK / name
    if arguments.keep:
        from tests.fuzz.targets import keep_evolved

        keep_evolved(name, {path.name: path.read_bytes() for path in work.iterdir()})
        return
    if arguments.again is not None:
        run_again(name, arguments.again)
        return
    work.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=INSTRUMENTED[name]):
        from tests.fuzz.targets import corpus, evolved, mutator_of, target_of
    if arguments.work is None:  # elsewhere it begins anew
        for file, data in evolved(name).items():
            (work / file).write_bytes(data)
    seeds = corpus(name)
    target = target_of(name)
    mutate = mutator_of(name, seeds.values(), lambda data, random: atheris.Mutate(data, len(data) + 64))

    def custom_mutator(data: bytes, max_bytes: int, seed: int) -> bytes:
        return mutate(data, max_bytes, Random(seed))

    options = [
        sys.argv[0],
        f"-runs={arguments.runs}",
        f"-seed={arguments.seed}",
        f"-max_len={_MOST_BYTES[name]}",
        "-timeout=20",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        f"-artifact_prefix={work.parent / name}-",
        *more,
        str(work),
        str(FOLDER / "corpus" / name),
    ]
    with target:
        target.know([*seeds.values(), *(path.read_bytes() for path in work.iterdir())])
        gc.collect()
        gc.freeze()
        atheris.Setup(options, target.run, custom_mutator=custom_mutator)
        atheris.Fuzz()


def run_again(name: str, file: Path) -> None:
    """Run one input without the fuzzer, so that its traceback is all that is seen."""
    from tests.fuzz.targets import corpus, target_of

    with target_of(name) as target:
        target.know(corpus(name).values())
        print(target.run_thoroughly(file.read_bytes()))


main()
