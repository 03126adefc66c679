"""A storage SCP of pynetdicom as its documentation advises for speed, for ``python -m``.

Arguments: port, AE title, folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification

_MAX_PDU_BYTES = 131072


def main() -> None:
    """Serve until the process is ended."""
    port, ae_title, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    _config.STORE_RECV_CHUNKED_DATASET = True
    tempfile.tempdir = str(folder)  # the data set streams into a file beside its final place

    def store(event: evt.Event) -> int:
        event.dataset_path.replace(folder / f"{event.request.AffectedSOPInstanceUID}.dcm")
        return 0x0000

    application = AE(ae_title=ae_title)
    application.maximum_pdu_size = _MAX_PDU_BYTES
    application.maximum_associations = 64
    application.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        application.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
    application.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
