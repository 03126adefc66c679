"""Numbers that must not be told, found in words however they are written there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

INSTEAD = "(withheld)"
_SPACES = " \u00a0\u2009\u202f"
_MINUS = "\u2212"
# Groups of digits with what may stand between them; a space joins only what can be thousands.
_RUN = re.compile(
    rf"(?P<sign>(?<!\w)[-+{_MINUS}])?"
    rf"(?P<run>(?:(?<!\w)\.)?\d+(?:[.,'’]\d+|[{_SPACES}]\d{{3}}(?!\d))*)"
    rf"(?P<power>(?:[eE]|\s?[x×*·]\s?10\^)[-+{_MINUS}]?\d{{1,3}})?"
)
_JOINTS = re.compile(rf"([,'’{_SPACES}])")
_SEPARATORS = re.compile(rf"[.,'’{_SPACES}]")
#: So many groups of digits may be one number: 1 234 567 890.123
_MOST_GROUPS = 5
_LONGEST = 40
# What may be rounded within the 28 digits of a decimal.
_MOST_DECIMALS, _LARGEST = 15, 10**12
#: A whole number below this that hangs on a letter, with none behind it, is part of a name: v12, T8.
_SMALL = 25
# What is not seen between two digits, and what is: digits one by one, and groups of them with spaces.
_UNSEEN = "\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
_ONE_BY_ONE = re.compile(r"(?<!\d)\d(?:(?:_|[^\w\n]){1,3}\d(?!\d))+")
_SPACED = re.compile(rf"\d+(?:[_\s{_UNSEEN}]{{1,3}}\d+)+")
_DIGITS = re.compile(r"\d+")
#: Groups of digits that are fewer together say too little to be one number, but for a whole run of them.
_FEWEST_JOINED, _MOST_JOINED = 3, 17


class WrittenNumbers:
    """Numbers that are withheld, and how they may be written: rounded or cut, in groups, with a comma.

    A number is known without its sign, too: "850 HU below water" tells -850 HU. What only may be one of them
    is taken for it: a text that says too little does no harm.
    """

    def __init__(self, numbers: Iterable[float]) -> None:
        exact = {abs(Decimal(repr(float(number)))) for number in numbers}
        self._exact = {one for one in exact if one.is_finite()}
        self._rounded_to: dict[int, set[Decimal]] = {}
        self._beginnings: dict[int, set[int]] = {}

    def without(self, text: str, *, ordinals: int = -1) -> str:
        """Return ``text`` with each number replaced, but whole numbers up to ``ordinals``, which count."""
        if not self._exact:
            return text
        text = _RUN.sub(lambda found: self._instead(found, text, ordinals), text)
        for apart in (_ONE_BY_ONE, _SPACED):
            text = apart.sub(lambda found: self._joined(found[0]), text)
        return text

    def _joined(self, run: str) -> str:
        """Return groups of digits with something between them, without what is a number when nothing is.

        A decimal point may be among what is between them.
        """
        groups = list(_DIGITS.finditer(run))
        written, end, first = "", 0, 0
        while first < len(groups):
            for last in range(min(len(groups), first + _MOST_JOINED) - 1, first, -1):
                digits = "".join(one[0] for one in groups[first : last + 1])
                is_long = len(digits) >= _FEWEST_JOINED or last - first == len(groups) - 1
                if is_long and self._begins_with(digits):
                    written, end = written + run[end : groups[first].start()] + INSTEAD, groups[last].end()
                    first = last
                    break
            first += 1
        return written + run[end:]

    def _begins_with(self, digits: str) -> bool:
        """Whether these are the first digits of a number, or all of them, rounded or cut."""
        digits = digits.lstrip("0")
        count = len(digits)
        if not digits or count > _MOST_JOINED:
            return False
        if count not in self._beginnings:
            self._beginnings[count] = {
                int(one.scaleb(count - 1 - one.adjusted()).to_integral_value(rounding))
                for one in self._exact
                if one
                for rounding in (ROUND_HALF_UP, ROUND_DOWN)
            }
        return int(digits) in self._beginnings[count]

    def _instead(self, found: re.Match[str], text: str, ordinals: int) -> str:
        before, behind = text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
        # In 12x34 the letter is no part of a name, and what has a unit behind it is a number.
        is_name = (
            before.isalpha()
            and not behind.isalpha()
            and not (before in "xX" and text[found.start() - 2 : found.start() - 1].isdigit())
        )
        parts = _JOINTS.split(found["run"])
        power = found["power"] or ""
        written, first, count = "", 0, len(parts)
        while first < count:
            for last in range(min(count, first + 2 * _MOST_GROUPS) - 1, first - 1, -1):
                # Between two parts stands what joins them.
                if (last - first) % 2 == 0 and self._is_said(
                    "".join(parts[first : last + 1]), power if last == count - 1 else "", is_name, ordinals
                ):
                    written, first = written + INSTEAD, last + 1
                    break
            else:
                written, first = written + parts[first], first + 1
            if first < count:
                written, first = written + parts[first], first + 1
        is_whole = written == INSTEAD
        return written if is_whole else (found["sign"] or "") + written + power

    def _is_said(self, run: str, power: str, is_name: bool, ordinals: int) -> bool:
        for written in _readings(run):
            exponent = re.sub(r".*(?:[eE]|\^)", "", power).replace(_MINUS, "-")
            for value in (Decimal(written), *([Decimal(f"{written}e{exponent}")] if power else ())):
                is_whole = value == value.to_integral_value()
                if (is_whole and is_name and value < _SMALL) or (is_whole and value <= ordinals):
                    continue
                if self._holds(value):
                    return True
        return False

    def _holds(self, value: Decimal) -> bool:
        if value in self._exact:
            return True
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int)
        if abs(exponent) > _MOST_DECIMALS:
            return False
        if not value:
            # What is only cut to 0 is not told by it.
            step = Decimal(1).scaleb(exponent)
            return any(not one.quantize(step, ROUND_HALF_DOWN) for one in self._exact if one < _LARGEST)
        digits = "".join(map(str, value.as_tuple().digits))
        # In 1200 the last figures may be rounded, too, as long as there are two others.
        loose = len(digits) - max(len(digits.rstrip("0")), 2) if exponent == 0 else 0
        return any(value in self._rounded(exponent + more) for more in range(max(loose, 0) + 1))

    def _rounded(self, exponent: int) -> set[Decimal]:
        if exponent not in self._rounded_to:
            step = Decimal(1).scaleb(exponent)
            self._rounded_to[exponent] = {
                one.quantize(step, rounding)
                for one in self._exact
                if one < _LARGEST
                for rounding in (ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_DOWN)
            }
        return self._rounded_to[exponent]


def _readings(run: str) -> Iterator[str]:
    """Yield what digits with separators may mean: 1,234 is 1234 or 1.234, and 12.3.1 is no number."""
    if len(run) > _LONGEST:
        return
    if run.startswith("."):
        run = f"0{run}"
    separators, groups = _SEPARATORS.findall(run), _SEPARATORS.split(run)
    if not separators:
        yield run
        return
    if len(set(separators)) == 1 and _are_thousands(groups):
        yield "".join(groups)
    *others, last = separators
    if last in ".," and (not others or ({*others} == {others[0]} != {last} and _are_thousands(groups[:-1]))):
        yield f"{''.join(groups[:-1])}.{groups[-1]}"


def _are_thousands(groups: list[str]) -> bool:
    return len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])
