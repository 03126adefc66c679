"""The process of one run of one model: ``python -m node.runners.child FOLDER PARENT_PID MEMORY_MB``.

Exit status: 0 a result was written (findings, or a refusal); 3 out of memory; anything else is a
crash, with a traceback on standard error.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from node import subordinate

OUT_OF_MEMORY = 3
NICENESS = 10


def main(arguments: list[str]) -> int:
    """Run one job."""
    folder, parent, memory_mb = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    subordinate.end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before the line above.
        return 1
    subordinate.stand_back(NICENESS)
    from models import registry
    from node.runners.job_folder import JobFolder

    try:
        job = JobFolder(folder)
        name, inputs = job.read_job()
        model = registry.load(name)
        if memory_mb:
            _limit_memory(memory_mb)
        try:
            findings = model.predict(inputs)
        except ValueError as error:
            # A refusal by the contract; one that numpy raised deep inside looks the same, so the
            # traceback goes with it.
            _say_traceback(error)
            job.write_refusal(" ".join(str(error).split()) or "the model refuses the input without a reason")
            return 0
        job.write_findings(findings, inputs)
    except MemoryError as error:
        print(f"out of memory: {error}", file=sys.stderr)
        return OUT_OF_MEMORY
    except RuntimeError as error:
        # ITK reports a failed allocation so.
        if not any(word in str(error) for word in ("bad_alloc", "allocate memory", "allocation")):
            raise
        print(f"out of memory: {error}", file=sys.stderr)
        return OUT_OF_MEMORY
    return 0


def _limit_memory(memory_mb: int) -> None:
    """Allow so much address space beyond what the interpreter and its libraries have mapped already."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        pages = 0
    limit = pages * resource.getpagesize() + memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _say_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
