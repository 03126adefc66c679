"""How long the certificates and lists that the configuration names are valid."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from node.config.settings import Config
from node.wire import tls, x509

SOON_SECONDS = 30 * 86400.0
#: Lists of revoked certificates are renewed every few days or hours.
_LIST_SOON_SECONDS = 86400.0


def warnings(config: Config, now: float) -> list[str]:
    """Say what is not valid at ``now`` (seconds since the epoch, UTC), or will not be in 30 days.

    Files that cannot be read are ``tls.problems``'s.
    """
    files = {path: (field, title) for side in tls.sides(config) for field, title, path in side.files}
    found: list[str] = []
    for path, (field, title) in files.items():
        if field in ("certificate", "ca"):
            for one in x509.of_file(path):
                found += [f"{title}: {path} ({one.subject}) {wrong}" for wrong in _wrong(one, now)]
        elif field == "crl":
            due = x509.next_update_of(path)
            if due is not None and due <= now:
                found.append(f"{title}: {path} is out of date since {day(due)}: every peer is refused")
            elif due is not None and due <= now + _LIST_SOON_SECONDS:
                found.append(f"{title}: {path} is out of date on {day(due)}")
    return found


def _wrong(one: x509.Certificate, now: float) -> Iterator[str]:
    if one.not_after <= now:
        yield f"has expired on {day(one.not_after)}: get a new one"
    elif one.not_after <= now + SOON_SECONDS:
        yield f"expires on {day(one.not_after)}, in {(one.not_after - now) / 86400:.0f} days"
    if one.not_before > now:
        yield f"is not valid before {day(one.not_before)}; is the clock right?"


def day(moment: float) -> str:
    """``2026-03-01 12:00 UTC``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
