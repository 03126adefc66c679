"""``python -m tests.soak SECONDS [SEED]``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.soak.soak import Soak

seconds = float(sys.argv[1])
seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
print(f"soaking for {seconds:.0f} s with seed {seed}", flush=True)
with tempfile.TemporaryDirectory(prefix="anode-soak-") as folder:
    report = Soak(Path(folder), seconds, seed).run()
    print(report.text(), flush=True)  # to remove the files takes minutes
sys.exit(1 if report.broken else 0)
