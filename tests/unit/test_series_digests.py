"""A digest tells whether a model would be given the same, and find the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

from node.index.index import StoredInstance
from node.series import digests
from tests.support import made
from tests.support.indexed import header_of, stored_of


def series_of(count: int) -> list[StoredInstance]:
    return [stored_of(header_of(made.ct_image())) for _ in range(count)]


def test_a_digest_depends_on_what_is_in_a_series_and_not_on_its_order() -> None:
    pairs = [("1.2", "aa"), ("1.10", "bb")]
    assert digests.of_series(pairs) == digests.of_series(reversed(pairs))
    assert len(digests.of_series(pairs)) == 64
    assert len({digests.of_series(x) for x in (pairs, pairs[:1], [("1.2", "bb"), ("1.10", "aa")])}) == 3


def test_the_digest_of_files_is_that_of_what_would_be_stored(tmp_path: Path) -> None:
    first, second = made.ct_image(), made.ct_image()
    paths = []
    for number, data_set in enumerate((first, second)):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(made.part10(data_set))
    expected = digests.of_series(
        (str(one.SOPInstanceUID), hashlib.sha256(made.encoded(one)).hexdigest()) for one in (first, second)
    )
    assert digests.of_files(paths) == digests.of_files(paths[::-1]) == expected


def test_a_digest_covers_all_inputs_parameters_and_facts() -> None:
    ct, pet = series_of(2), series_of(1)
    both = {"ct": ct, "pet": pet}
    plain = digests.of_series((one.sop_instance_uid, one.data_set_sha256) for one in ct)
    assert digests.of_inputs({"ct": ct}) == digests.of_selection({"ct": ct}, {}, {}) == plain
    found = [
        plain,
        digests.of_inputs(both),
        digests.of_inputs({"ct": ct, "other": pet}),
        digests.of_selection(both, {"a": (1, 2)}, {}),
        digests.of_selection(both, {"a": (1, 3)}, {}),
        digests.of_selection(both, {}, {"q.x": ("1", "one")}),
        digests.of_selection(both, {}, {"q.x": ("2", "two")}),
    ]
    assert len(set(found)) == len(found)
    assert all(len(one) == 64 for one in found)
