"""What one value of the configuration may be; each reader returns it or says plainly why not.

A reader takes what ``tomllib`` read and returns what ``node/config/settings.py`` holds. It raises
``ValueError`` whose text ends a sentence that begins with the key.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from node.config.settings import Pattern, SyslogAddress

Reader = Callable[[Any], Any]
_TELLING_LETTERS = 3


def suggestion(wrong: str, right: Iterable[str]) -> str:
    """Return ``"; did you mean 'port'?"`` for the nearest of ``right``, or an empty string."""
    meant = nearest(wrong, right)
    return "" if meant is None else f"; did you mean '{meant}'?"


def nearest(wrong: str, right: Iterable[str]) -> str | None:
    """Return that of ``right`` which may have been meant; None where none is like ``wrong``."""
    by_letters = {_letters(name): name for name in right}
    meant = _letters(wrong)
    # "JPEG2000Lossless" begins with what is meant, though it looks more like "jpeg-lossless"
    begins = [one for one in by_letters if len(one) >= _TELLING_LETTERS and meant.startswith(one)]
    if begins:
        longest = max(begins, key=len)
        alike = [one for one in by_letters if one.startswith(longest)]
        found = difflib.get_close_matches(meant, alike, n=1, cutoff=0.8) or [longest]
    else:
        found = difflib.get_close_matches(meant, by_letters, n=1)
    return by_letters[found[0]] if found else None


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def boolean(value: Any) -> bool:
    """``true`` or ``false``."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, not {shown(value)}")


def whole(minimum: int, maximum: int | None = None) -> Reader:
    """Read a whole number within ``minimum`` and ``maximum``, both allowed."""
    wanted = _range("a whole number", minimum, maximum)

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"expected {wanted}, not {shown(value)}{_unquote(value)}")
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(f"expected {wanted}, not {value}")
        return value

    return read


def number(minimum: float, maximum: float | None = None, *, above: bool = False) -> Reader:
    """Read a number of at least ``minimum`` (with ``above``: greater), at most ``maximum``."""
    wanted = f"a number above {minimum:g}" if above else _range("a number", minimum, maximum)

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"expected {wanted}, not {shown(value)}{_unquote(value)}")
        # written so that "nan", which TOML allows, is refused
        if not (value > minimum if above else value >= minimum) or value == float("inf"):
            raise ValueError(f"expected {wanted}, not {value:g}")
        if maximum is not None and value > maximum:
            raise ValueError(f"expected {wanted}, not {value:g}")
        return float(value)

    return read


def text(value: Any) -> str:
    """Read text that is not empty and has no control characters."""
    if not isinstance(value, str):
        raise ValueError(f"expected text in quotes, not {shown(value)}")
    if not value.strip():
        raise ValueError("must not be empty")
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value.strip()


def name(value: Any) -> str:
    """Read a free name of at most 64 characters: it becomes a DICOM Long String (PS3.5 section 6.2)."""
    read = text(value)
    if len(read) > 64:
        raise ValueError(f"expected at most 64 characters, not {len(read)}")
    if "\\" in read:
        raise ValueError("must not contain a backslash")
    return read


def ae_title(value: Any) -> str:
    """Read an AE title: 1 to 16 characters of ASCII, no backslash, no control characters (PS3.5 6.2).

    Leading and trailing spaces are not significant and are taken off.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected an AE title in quotes, not {shown(value)}")
    read = value.strip(" ")
    if not read:
        raise ValueError("an AE title has at least one character that is not a space")
    if len(read) > 16:
        raise ValueError(f"an AE title has at most 16 characters, '{read}' has {len(read)}")
    if "\\" in read:
        raise ValueError("an AE title has no backslash")
    if not read.isascii() or not read.isprintable():
        raise ValueError("an AE title has only printable ASCII characters")
    return read


def choice(*allowed: str, meant: Mapping[str, str] | None = None) -> Reader:
    """Read one of ``allowed``; ``meant`` says which is meant by a word that is none, whatever its letters."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"expected one of {', '.join(allowed)} in quotes, not {shown(value)}")
        if value not in allowed:
            meaning = (meant or {}).get(value.casefold())
            hint = suggestion(meaning or value, allowed)
            raise ValueError(f"'{value}' is none of {', '.join(allowed)}{hint}")
        return value

    return read


def several(one: Reader, what: str, *, may_be_empty: bool = False) -> Reader:
    """Read a list whose elements ``one`` reads, none twice; ``what`` names an element."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            brackets = f"; write [{shown(value)}]" if isinstance(value, str) else ""
            raise ValueError(f"expected a list in square brackets, not {shown(value)}{brackets}")
        read_values: list[Any] = []
        for element in value:
            read_value = one(element)
            if read_value in read_values:
                raise ValueError(f"{what} '{read_value}' is listed twice")
            read_values.append(read_value)
        if not read_values and not may_be_empty:
            raise ValueError(f"expected at least one {what}")
        return tuple(read_values)

    return read


def one_or_several(one: Reader, what: str) -> Reader:
    """Read what ``one`` reads, or a list of it, as a tuple; ``what`` names an element."""
    read_list = several(one, what, may_be_empty=True)

    def read(value: Any) -> tuple[Any, ...]:
        return (one(value),) if isinstance(value, str) else read_list(value)

    return read


def matchable_keyword(keyword: str) -> str:
    """Read a DICOM keyword (PS3.6) whose value can be compared with a pattern."""
    # loaded here, as it takes a moment that commands without patterns need not wait
    from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"not a DICOM keyword{suggestion(keyword, keyword_dict)}")
    value_representation = dictionary_VR(tag)
    if value_representation == "SQ" or value_representation.startswith("O"):
        raise ValueError("only attributes with a plain value can be matched, not sequences or binary ones")
    return keyword


def pattern_text(value: Any) -> Pattern:
    """Read a pattern for the value of an attribute: text in which ``*`` and ``?`` stand for others.

    Of a list, any pattern may match.
    """
    if isinstance(value, list):
        return tuple(several(_one_pattern, "pattern")(value))
    return _one_pattern(value)


def _one_pattern(value: Any) -> str:
    if not isinstance(value, str):
        written = isinstance(value, int | float) and not isinstance(value, bool)
        hint = f'; write "{value}"' if written else ""
        raise ValueError(f"expected a pattern in quotes, not {shown(value)}{hint}")
    return value


_SYSLOG_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}


def syslog_address(value: Any) -> SyslogAddress:
    """Read ``udp://host:514``, ``tcp://host:601`` or ``tls://host:6514``; those ports are the defaults."""
    written = text(value)
    transport, separator, _ = written.partition("://")
    if not separator or transport not in _SYSLOG_PORTS:
        raise ValueError(f"expected udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT, not {shown(value)}")
    parts = urlsplit(written)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if not parts.hostname or port == 0 or parts.path or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{shown(value)} is no address: expected {transport}://HOST:PORT")
    return SyslogAddress(transport, parts.hostname, port or _SYSLOG_PORTS[transport])  # type: ignore[arg-type]


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be reached from this machine."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown(value: Any) -> str:
    """Return ``value`` as one would recognise it in the file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return str(value)


def _range(what: str, minimum: float, maximum: float | None) -> str:
    if maximum is None:
        return f"{what} of at least {minimum:g}" if minimum < 1e6 else f"{what} of at least {minimum}"
    return f"{what} from {minimum} to {maximum}"


def _unquote(value: Any) -> str:
    """Say so where only the quotes are wrong."""
    if isinstance(value, str) and value.strip().replace(".", "", 1).isdigit():
        return f"; write {value.strip()} without quotes"
    return ""


def listed(values: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(values[:-1]), values[-1]]) if len(values) > 1 else "".join(values)
