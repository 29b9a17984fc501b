"""The error that ends a job."""

USAGE = 2
"""Exit code of arguments or input that cannot be used, as in pagesift."""


class JobError(Exception):
    """One line that says what happened, where, and what to do. `code` is the exit code of the program."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
