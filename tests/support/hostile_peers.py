"""What hostile and broken peers send, and what PS3.7 and PS3.8 have a node answer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support import data_sets, scripted_peer
from tests.support.scripted_peer import (
    A_ABORT,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    P_DATA_TF,
    VERIFICATION,
    command_set,
    pdu,
    pdv,
)

FOUR_GIGABYTES = 2**32 - 1
BY_USER = (0, 0)
UNRECOGNISED, UNEXPECTED, UNEXPECTED_PARAMETER, INVALID_VALUE = ((2, reason) for reason in (1, 2, 5, 6))
ASSOCIATE_RQ = scripted_peer.associate_rq(scripted_peer.CONTEXTS)
ECHO = pdu(P_DATA_TF, pdv(1, COMMAND | LAST, scripted_peer.echo_rq()))
STORE = pdu(P_DATA_TF, pdv(3, COMMAND | LAST, scripted_peer.store_rq()))
STORE_WHOLE = STORE + pdu(P_DATA_TF, pdv(3, LAST, b"data"))
FIND = pdu(P_DATA_TF, pdv(5, COMMAND | LAST, scripted_peer.find_rq()))
RELEASE_RQ = pdu(A_RELEASE_RQ, bytes(4))
ABORT = pdu(A_ABORT, bytes(4))
# elements of group 0000 (PS3.7 table E.1-1) that claim more than they have
_LONG_ELEMENT = struct.pack("<HHI", 0, 0x0002, FOUR_GIGABYTES) + b"1.2"


@dataclass(frozen=True)
class Attack:
    """What a peer sends on an established association, and the A-ABORT that it earns.

    ``answer`` is None where no A-ABORT is sent: the connection ends without a word.
    """

    name: str
    sent: bytes
    answer: tuple[int, int] | None


def _of_command(name: str, sent: bytes, answer: tuple[int, int] | None, *, context_id: int = 1) -> Attack:
    return Attack(name, pdu(P_DATA_TF, pdv(context_id, COMMAND | LAST, sent)), answer)


def _claims() -> Iterator[Attack]:
    """Lengths of 2^32-1, wherever there is one."""
    yield Attack("a P-DATA-TF of 4 GB", pdu(P_DATA_TF, b"", FOUR_GIGABYTES), INVALID_VALUE)
    yield Attack("a PDV of 4 GB", pdu(P_DATA_TF, pdv(1, COMMAND, b"ab", FOUR_GIGABYTES)), INVALID_VALUE)
    yield Attack("an A-ASSOCIATE-RQ of 4 GB", pdu(A_ASSOCIATE_RQ, b"", FOUR_GIGABYTES), UNEXPECTED)
    yield Attack("an A-RELEASE-RQ of 4 GB", pdu(A_RELEASE_RQ, bytes(4), FOUR_GIGABYTES), INVALID_VALUE)
    yield Attack("an A-RELEASE-RP of 4 GB", pdu(A_RELEASE_RP, bytes(4), FOUR_GIGABYTES), INVALID_VALUE)
    yield Attack("an A-ABORT of 4 GB", pdu(A_ABORT, bytes(4), FOUR_GIGABYTES), None)
    yield Attack("a PDU of 4 GB of no known type", pdu(0x99, b"", FOUR_GIGABYTES), UNRECOGNISED)
    yield _of_command("an element of a command set of 4 GB", _LONG_ELEMENT, INVALID_VALUE)


def _messages() -> Iterator[Attack]:
    """Messages that are none, or do not follow each other as they should."""
    store, echo = scripted_peer.store_rq(), scripted_peer.echo_rq()
    yield Attack("a fragment for a context not accepted", pdu(P_DATA_TF, pdv(7, 3, echo)), INVALID_VALUE)
    yield Attack(
        "a data set for a context not accepted",
        pdu(P_DATA_TF, pdv(3, 3, store) + pdv(7, LAST, b"data")),
        INVALID_VALUE,
    )
    yield Attack(
        "a command in two contexts",
        pdu(P_DATA_TF, pdv(1, COMMAND, echo[:10]) + pdv(3, 3, echo[10:])),
        UNEXPECTED_PARAMETER,
    )
    yield Attack(
        "a data set in another context",
        pdu(P_DATA_TF, pdv(3, 3, store) + pdv(1, LAST, b"data")),
        UNEXPECTED_PARAMETER,
    )
    yield Attack(
        "a second command before the data set ends",
        pdu(P_DATA_TF, pdv(3, 3, store) + pdv(3, 0, b"half") + pdv(3, 3, store)),
        UNEXPECTED_PARAMETER,
    )
    yield Attack("a second command where a data set was announced", STORE + ECHO, UNEXPECTED_PARAMETER)
    yield Attack(
        "a data set inside a command",
        pdu(P_DATA_TF, pdv(1, COMMAND, echo[:10]) + pdv(1, LAST, b"data")),
        UNEXPECTED_PARAMETER,
    )
    yield Attack("a data set first", pdu(P_DATA_TF, pdv(3, LAST, b"data")), UNEXPECTED_PARAMETER)
    yield Attack("a release inside a command", pdu(P_DATA_TF, pdv(1, COMMAND, echo)) + RELEASE_RQ, BY_USER)
    yield Attack("a release inside a data set", STORE + RELEASE_RQ, BY_USER)
    yield Attack("an empty PDU", pdu(P_DATA_TF, b""), INVALID_VALUE)
    yield Attack("an empty command", pdu(P_DATA_TF, pdv(1, COMMAND | LAST, b"")), INVALID_VALUE)
    yield Attack("a PDV of no length", pdu(P_DATA_TF, pdv(1, 3, echo, 0)), INVALID_VALUE)
    yield Attack("a PDV of one byte", pdu(P_DATA_TF, pdv(1, 3, echo, 1)), INVALID_VALUE)
    yield Attack("a PDV beyond its PDU", pdu(P_DATA_TF, pdv(1, 3, echo, len(echo) + 3)), INVALID_VALUE)
    yield Attack("a PDU that is not filled", pdu(P_DATA_TF, pdv(1, COMMAND, echo) + b"abc"), INVALID_VALUE)


def _commands() -> Iterator[Attack]:
    """Command sets that nobody can answer, for want of what an answer needs."""
    yield _of_command("no command set at all", b"rubbish!", INVALID_VALUE)
    yield _of_command("half an element", scripted_peer.echo_rq()[:-1], INVALID_VALUE)
    yield _of_command("an element of a data set", struct.pack("<HHI", 8, 0x16, 2) + b"1 ", INVALID_VALUE)
    yield _of_command(
        "no Command Field", command_set(e0002=VERIFICATION, e0110=1, e0800=0x0101), INVALID_VALUE
    )
    yield _of_command(
        "no Message ID", command_set(e0002=VERIFICATION, e0100=0x0030, e0800=0x0101), UNEXPECTED_PARAMETER
    )
    yield _of_command("a command that is none", command_set(e0100=0x0999, e0110=1), UNEXPECTED_PARAMETER)
    yield _of_command(
        "a response to nothing",
        command_set(e0002=VERIFICATION, e0100=0x8030, e0120=1, e0800=0x0101, e0900=0),
        UNEXPECTED_PARAMETER,
    )


#: Whatever breaks the rules in data transfer.
VIOLATIONS = [*_claims(), *_messages(), *_commands()]

#: Requests that lack an element that they must have, in the context with the number: PS3.7 9.3 and 10.3.
INCOMPLETE = {
    "C-STORE without SOP Class UID": (3, command_set(e0100=1, e0110=1, e0700=0, e0800=1, e1000="1.2")),
    "C-STORE without SOP Instance UID": (
        3,
        command_set(e0002=CT_IMAGE_STORAGE, e0100=1, e0110=1, e0700=0, e0800=1),
    ),
    "C-FIND without SOP Class UID": (5, command_set(e0100=0x0020, e0110=1, e0700=0, e0800=1)),
}

#: Broken, but not beyond understanding: what counts is what came. Context, command set, data set, status.
TOLERATED = {
    "a group length of 4 GB": (
        1,
        struct.pack("<HHII", 0, 0, 4, FOUR_GIGABYTES) + scripted_peer.echo_rq()[12:],
        None,
    ),
    "a group length of 0": (1, struct.pack("<HHII", 0, 0, 4, 0) + scripted_peer.echo_rq()[12:], None),
    "no group length": (1, scripted_peer.echo_rq()[12:], None),
    "no Command Data Set Type": (1, command_set(e0002=VERIFICATION, e0100=0x0030, e0110=1), None),
    "a C-ECHO with a data set": (
        1,
        command_set(e0002=VERIFICATION, e0100=0x0030, e0110=1, e0800=1),
        b"what no C-ECHO has",
    ),
}

IDENTIFIER = data_sets.study_identifier()
#: An Identifier whose first element claims 4 GB.
LONG_IDENTIFIER = IDENTIFIER[:4] + struct.pack("<I", FOUR_GIGABYTES - 1) + IDENTIFIER[8:]
