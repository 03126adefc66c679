"""Sending one data set to a node, as a scanner does."""

from __future__ import annotations

from pydicom.dataset import Dataset

from node.wire.association import Answer
from node.wire.scu import ProposedContext, connect
from tests.support import made

EXPLICIT = "1.2.840.10008.1.2.1"


def store(port: int, *data_sets: Dataset) -> list[int]:
    """Status of each C-STORE over one association."""
    return [answer.status for answer in answers(port, *data_sets)]


def answers(port: int, *data_sets: Dataset) -> list[Answer]:
    """As ``store``, with all that the node said."""
    contexts = [ProposedContext(uid, (EXPLICIT,)) for uid in {str(one.SOPClassUID) for one in data_sets}]
    with connect(
        "127.0.0.1",
        port,
        calling_ae_title="CT1",
        called_ae_title="ANODE",
        contexts=contexts,
        timeout_seconds=60,
        max_pdu_bytes=1 << 16,
    ) as association:
        found = []
        for one in data_sets:
            accepted = association.context_for(str(one.SOPClassUID), (EXPLICIT,))
            assert accepted is not None
            found.append(
                association.send_store(
                    accepted,
                    sop_class_uid=str(one.SOPClassUID),
                    sop_instance_uid=str(one.SOPInstanceUID),
                    data_set=made.encoded(one),
                )
            )
        return found
