"""The scanner says on which line each key of a TOML document stands."""

from __future__ import annotations

import tomllib

import pytest

from node.config.config_lines import lines_of

DOCUMENT = '''\
# a comment with [brackets] and key = "value"
top = 1

[node]  # the node
ae_title = "A # no comment"   # a comment
"quoted key" = 'it\\'
dotted.inner . deep = 3
text = """
port = 11112
[[peers]]
"""
date = 1979-05-27 07:32:00

[[peers]]
host = "a"
allow = [
  "store",   # one
  "query",
  { a = 1, b = [1, 2] },
]

[[peers]]
host = \'\'\'x\'\'\'

[peers.extra]
key = true
[[peers.more]]
key = 1
[[peers.more]]
key = 2
[a.b.c]
last = {}'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("node",), 4),
        (("node", "ae_title"), 5),
        (("node", "quoted key"), 6),
        (("node", "dotted", "inner", "deep"), 7),
        (("node", "text"), 8),
        (("node", "date"), 12),
        (("peers",), 14),
        (("peers", 0), 14),
        (("peers", 0, "host"), 15),
        (("peers", 0, "allow", 1), 18),
        (("peers", 0, "allow", 2, "b"), 19),
        (("peers", 1), 22),
        (("peers", 1, "host"), 23),
        (("peers", 1, "extra", "key"), 26),
        (("peers", 1, "more", 0, "key"), 28),
        (("peers", 1, "more", 1, "key"), 30),
        (("a", "b", "c", "last"), 32),
    ],
)
def test_every_key_is_found_on_its_line(path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(DOCUMENT)
    assert lines_of(DOCUMENT)[path] == line


def test_no_key_is_invented() -> None:
    def paths(value: object, path: tuple[str | int, ...]) -> set[tuple[str | int, ...]]:
        inner = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        return {path}.union(*(paths(element, (*path, key)) for key, element in inner))

    assert set(lines_of(DOCUMENT)) == paths(tomllib.loads(DOCUMENT), ()) - {()}


def test_windows_line_ends_count_once() -> None:
    assert lines_of("[node]\r\nport = 1\r\nhost = 'x'\r\n")["node", "host"] == 3


@pytest.mark.parametrize("text", ["", "# only a comment", "\n\n", 'a = ""', "a = ''''b'''", 'a = """"b"""""'])
def test_short_documents_are_read_to_their_end(text: str) -> None:
    tomllib.loads(text)
    assert set(lines_of(text)) == {(key,) for key in tomllib.loads(text)}
