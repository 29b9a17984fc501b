"""Errors that a user can do something about: one line on stderr, exit code 2, 3 or 1, never a traceback."""
import errno
import sys


class TrainError(Exception):
    """Says what happened, where, and what is wanted. `code`: 2 arguments, 3 model or data, 1 output."""

    def __init__(self, message, code=2):
        super().__init__(message)
        self.code = code


def run_main(main):
    """Calls `main()`; a TrainError, a full disk or an interrupt ends the process with one line."""
    try:
        main()
    except TrainError as error:
        sys.exit(_say(f"Error: {error}", error.code))
    except KeyboardInterrupt:
        sys.exit(_say("Interrupted; the same command goes on from the last checkpoint", 130))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        sys.exit(_say(f'Error: Cannot write "{error.filename}": {error.strerror}', 1))


def _say(line, code):
    print(line, file=sys.stderr, flush=True)
    return code
