"""``anode …`` and ``python -m node …``."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from node.cli.parser import parser
from node.errors import AnodeError, ConfigurationError, WrongUsage

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
#: What anode writes holds names and images: it is for its user, whose group may read it, and nobody else.
_PATIENTS_ARE_NOBODY_ELSES = 0o027


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: done. 1: it failed. 2: wrong usage or configuration. 130: interrupted, as a shell has it. Whatever
    happens is said in plain words on standard error; only a fault of anode itself shows a traceback.
    """
    parsed = parser().parse_args(arguments)
    # who asks for more privacy than that keeps it
    os.umask(os.umask(0o077) | _PATIENTS_ARE_NOBODY_ELSES)
    try:
        status = int(parsed.run(parsed))
        sys.stdout.flush()
    except ConfigurationError as error:
        for problem in error.problems:
            _say(problem)
        return WRONG
    except AnodeError as error:
        _say(f"anode: {error}")
        if error.action:
            _say(f"anode: {error.action}")
        return WRONG if isinstance(error, WrongUsage) else FAILED
    except BrokenPipeError:
        # The reader has seen enough ("anode studies | head"). Python flushes standard output once
        # more at exit, so it must lead somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        _say("anode: interrupted")
        return INTERRUPTED
    except Exception:
        _say("anode: this is a fault in anode itself:")
        traceback.print_exc()
        return FAILED
    return status


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
