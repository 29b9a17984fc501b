"""Errors that a user can fix: one line on stderr, exit code 2, 3 or 1, never a traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable


class TrainError(Exception):
    """States what happened, where, and what is expected. `code`: 2 arguments, 3 model or data, 1 output."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def run_main(main: Callable[[], None]) -> None:
    """Calls `main()`; a TrainError, a full disk or an interrupt ends the process with one line."""
    try:
        main()
    except TrainError as error:
        sys.exit(_say(f"Error: {error}", error.code))
    except KeyboardInterrupt:
        sys.exit(_say("Interrupted; the same command continues from the last checkpoint", 130))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        sys.exit(_say(f'Error: Cannot write "{error.filename}": {error.strerror}', 1))


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr, flush=True)
    return code
