"""Which presentation contexts have to be proposed to send instances, stored ones or files alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from node.config.settings import PeerConfig
from node.wire.contexts import ProposedContext
from node.wire.sop_classes import UNCOMPRESSED

#: PS3.8 section 9.3.2.2: context IDs are the odd numbers from 1 to 255.
MOST_CONTEXTS = 128

_Instance = TypeVar("_Instance")


@dataclass(frozen=True)
class Part(Generic[_Instance]):
    """Instances that fit one association, and the presentation contexts to propose for them."""

    instances: tuple[_Instance, ...]
    contexts: tuple[ProposedContext, ...]


def parts(
    instances: Iterable[_Instance], needs: Callable[[_Instance], tuple[str, tuple[str, ...]]]
) -> Iterator[Part[_Instance]]:
    """Divide ``instances``, in their order, so that each part needs at most 128 presentation contexts.

    Parameters
    ----------
    needs
        Gives the SOP class of an instance, and the transfer syntaxes in which it can be sent, best
        first.
    """
    part: list[_Instance] = []
    needed: dict[ProposedContext, None] = {}
    of_kind: dict[tuple[str, tuple[str, ...]], tuple[ProposedContext, ...]] = {}
    for instance in instances:
        kind = needs(instance)
        wanted = of_kind.get(kind)
        if wanted is None:
            wanted = of_kind[kind] = tuple(_proposals(*kind))
        if part and len(needed.keys() | set(wanted)) > MOST_CONTEXTS:
            yield Part(tuple(part), tuple(needed))
            part, needed = [], {}
        part.append(instance)
        needed.update(dict.fromkeys(wanted))
    if part:
        yield Part(tuple(part), tuple(needed))


def sent_to(peer: PeerConfig, transfer_syntax_uids: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``transfer_syntax_uids`` that are sent to ``peer``.

    Where there are none, what the peer may be sent at all: what it accepts of that fits no instance, and so
    each of them is known by its own failure.
    """
    wanted = peer.send_transfer_syntaxes
    if not wanted:
        return transfer_syntax_uids
    return tuple(uid for uid in transfer_syntax_uids if uid in wanted) or wanted


def _proposals(sop_class_uid: str, transfer_syntax_uids: tuple[str, ...]) -> Iterator[ProposedContext]:
    """A context for each form, so that the peer cannot prefer another, and one for those every peer reads.

    Of the uncompressed ones the first alone has its own: it may be the exact form.
    """
    uncompressed = tuple(uid for uid in UNCOMPRESSED if uid in transfer_syntax_uids)
    first = next((uid for uid in transfer_syntax_uids if uid in UNCOMPRESSED), None)
    for transfer_syntax_uid in transfer_syntax_uids:
        if transfer_syntax_uid == first or transfer_syntax_uid not in UNCOMPRESSED:
            yield ProposedContext(sop_class_uid, (transfer_syntax_uid,))
    if uncompressed and uncompressed != (first,):
        yield ProposedContext(sop_class_uid, uncompressed)
