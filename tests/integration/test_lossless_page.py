"""The page on losslessness says what is so: of every kind of pixel, every codec and every real file."""

from __future__ import annotations

import csv
import re

import pytest

from node.transcode.codecs import CODECS
from tests.support import lossless_page
from tests.support.data import require_data
from tests.support.made_pixels import KINDS


def rows_of_matrix() -> dict[str, list[str]]:
    text = lossless_page.PAGE.read_text().split(lossless_page.BEGIN)[1]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows if row[0] in KINDS or row[0] == "pixels"}


def test_the_matrix_is_complete_and_says_who_takes_what() -> None:
    shown = rows_of_matrix()
    assert shown.pop("pixels") == list(CODECS)
    assert list(shown) == list(KINDS)
    found = lossless_page.matrix()
    for kind, row in found.items():
        # the ratios are those of the libraries that were there when the page was written
        refused = [value == lossless_page.REFUSED for value in row.values()]
        assert [value == lossless_page.REFUSED for value in shown[kind]] == refused, kind


@pytest.mark.timeout(600)
def test_nearly_every_real_image_that_some_codec_makes_smaller_is_compressed_and_none_is_altered() -> None:
    require_data()
    found, unread = lossless_page.outcomes()
    assert len(found) > 3000
    assert [one.path for one in found if not one.proven] == []
    small, missed = lossless_page.compressible(found)
    assert len(small) >= 0.99 * (len(small) + len(missed))
    with lossless_page.FILES.open(newline="") as file:
        listed = {row["path"]: (row["codec"], row["kept_reason"]) for row in csv.DictReader(file)}
    assert {one.path: (one.codec, one.kept_reason) for one in (*found, *unread)} == listed
    text = lossless_page.PAGE.read_text()
    (share,) = re.findall(r"compressed and proven: ([0-9.]+) %", text)
    assert float(share) == pytest.approx(100 * len(small) / (len(small) + len(missed)), abs=0.06)
    assert all(one.path in text for one in (*missed, *unread))
