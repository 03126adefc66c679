"""Makes the figures of ``docs/lossless.md`` and ``docs/lossless-files.csv``: ``make lossless``.

What is measured is measured by the code that settles: made images of every kind of pixel with every codec,
and every real file with the default configuration.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from pydicom.uid import UID

from node.config.settings import TranscodeConfig
from node.errors import MalformedDataSet
from node.sending import dicom_files
from node.transcode import choosing, lossless
from node.transcode.codecs import CODECS
from tests.support import made
from tests.support.data import SHARED
from tests.support.made_pixels import KINDS

ROOT = Path(__file__).parents[2]
PAGE, FILES = ROOT / "docs" / "lossless.md", ROOT / "docs" / "lossless-files.csv"
BEGIN, END = "<!-- figures: begin; written by `make lossless` -->", "<!-- figures: end -->"
EXPLICIT = "1.2.840.10008.1.2.1"
REFUSED = "–"


@dataclass(frozen=True)
class Outcome:
    """What became of one real file: ``codec`` is empty where it was kept; ``others`` would do better.

    Of a file from which no instance can be read ``ratio`` and ``proven`` are None.
    """

    path: str
    received: str
    codec: str
    ratio: float | None
    proven: bool | None
    kept_reason: str
    others: str = ""


def settled(
    encoded: bytes, transfer_syntax_uid: str, choices: Sequence[str]
) -> tuple[lossless.Settlement, bool]:
    """Settle a data set; and whether what is stored gives it back byte for byte."""
    digest = hashlib.sha256(encoded).hexdigest()
    with lossless.settle(
        io.BytesIO(encoded), transfer_syntax_uid, choices, data_set_sha256=digest
    ) as settlement:
        stored = b"".join(settlement.chunks())
    private = json.loads(json.dumps(settlement.private))
    return settlement, b"".join(lossless.restore(io.BytesIO(stored), private)) == encoded


# --- the matrix ------------------------------------------------------------------


def matrix() -> dict[str, dict[str, str]]:
    """By kind of pixel and codec: the ratio of a made image, or that the codec does not take it."""
    found: dict[str, dict[str, str]] = {}
    for kind, make in KINDS.items():
        encoded = made.encoded(make())
        found[kind] = {}
        for name in CODECS:
            settlement, is_exact = settled(encoded, EXPLICIT, [name])
            assert is_exact, (kind, name)
            found[kind][name] = REFUSED if settlement.kept_reason else f"{_ratio(settlement):.1f}"
    return found


def _ratio(settlement: lossless.Settlement) -> float:
    return float(settlement.private["stored"].get("ratio", 1.0))


# --- the real files --------------------------------------------------------------


def files() -> tuple[list[Path], list[Outcome]]:
    """Every real file that can be read as DICOM, and what is in the way of the others."""
    readable, others = [], []
    for path in dicom_files.find([SHARED]):
        try:
            dicom_files.read(path)
        except dicom_files.NotDicom:
            continue
        except MalformedDataSet as error:
            others.append(Outcome(_name(path), "", "", None, None, f"not read: {error}"))
        else:
            readable.append(path)
    return readable, others


def _name(path: Path) -> str:
    return path.relative_to(SHARED).as_posix()


def outcome(path: Path) -> Outcome:
    """Settle one file as a node does by default."""
    warnings.simplefilter("ignore")
    file = dicom_files.read(path)
    with dicom_files.open_data_set(file) as data_set:
        encoded = data_set.read()
    choices = choosing.named(TranscodeConfig().to)
    settlement, is_exact = settled(encoded, file.transfer_syntax_uid, choices)
    others = []
    if settlement.kept_reason not in ("", "no pixels", "already compressed", "the data set is deflated"):
        for name in CODECS:
            other, _ = settled(encoded, file.transfer_syntax_uid, [name])
            if not other.kept_reason:
                others.append(f"{name} {_ratio(other):.2f}")
    return Outcome(
        _name(path),
        UID(file.transfer_syntax_uid).name,
        str(settlement.private["stored"].get("codec", "")),
        _ratio(settlement),
        is_exact,
        settlement.kept_reason,
        ", ".join(others),
    )


def outcomes() -> tuple[list[Outcome], list[Outcome]]:
    """What became of every file, and of those that are no instance."""
    readable, others = files()
    with ProcessPoolExecutor() as pool:
        return list(pool.map(outcome, readable, chunksize=25)), others


# --- the page --------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def matrix_lines(found: dict[str, dict[str, str]]) -> Iterator[str]:
    names = list(CODECS)
    yield from table(
        ["pixels", *names], [[kind, *(row[name] for name in names)] for kind, row in found.items()]
    )


def compressible(found: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Those that some codec makes smaller: stored so, and not."""
    return [one for one in found if one.codec], [one for one in found if one.others]


def file_lines(found: Sequence[Outcome], unread: Sequence[Outcome]) -> Iterator[str]:
    small, missed = compressible(found)
    share = 100 * len(small) / (len(small) + len(missed))
    all_of_them = len(small) + len(missed)
    yield f"Of {len(found)} files, {len(small)} of those {all_of_them} with uncompressed pixels that"
    yield f"some codec makes smaller are stored compressed and proven: {share:.1f} %. Not one is altered:"
    yield f"{sum(one.proven for one in found)} of {len(found)} are given back byte for byte."
    if unread:
        said = "; ".join(f"`{one.path}`: {one.kept_reason.partition(': ')[2]}" for one in unread)
        yield f"No instance can be read from {len(unread)} files more ({said})."
    yield ""
    counts = Counter(one.codec or f"kept: {one.kept_reason}" for one in found)
    ratios = defaultdict(list)
    for one in found:
        ratios[one.codec or f"kept: {one.kept_reason}"].append(one.ratio)
    yield from table(
        ["stored as", "files", "ratio, from", "to"],
        [
            [what, str(count), f"{min(ratios[what]):.2f}", f"{max(ratios[what]):.2f}"]
            for what, count in counts.most_common()
        ],
    )
    yield ""
    yield "Kept, though a codec that is not tried by default would make them smaller:"
    yield ""
    yield from table(
        ["file", "why", "what would"], [[one.path, one.kept_reason, one.others] for one in missed]
    )


def write(found: Sequence[Outcome], unread: Sequence[Outcome]) -> None:
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    body = [
        "### Every kind of pixel with every codec",
        "",
        "The ratio of a made image whose data set came back byte for byte; – where a codec does not take it.",
        "",
        *matrix_lines(matrix()),
        "",
        "### Every real file",
        "",
        *file_lines(found, unread),
    ]
    PAGE.write_text("\n".join([head + BEGIN, *body, END + tail]))
    with FILES.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(found[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in (*found, *unread))


def main() -> int:
    if not SHARED.exists():
        print(f"there are no real images at {SHARED} (set ANODE_TEST_DATA)", file=sys.stderr)
        return 2
    found, unread = outcomes()
    write(found, unread)
    print(f"{PAGE.relative_to(ROOT)} and {FILES.relative_to(ROOT)}: {len(found)} files")
    return 0 if all(one.proven for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
