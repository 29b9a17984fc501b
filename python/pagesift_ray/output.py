"""The output folder: files of answered rows, a file of failed rows, and which rows are done."""

import json
import os
import time
from pathlib import Path
from typing import Any

from pagesift_ray.errors import USAGE, JobError

PARQUET_ROWS = 1000
"""Rows of a Parquet file."""
PARQUET_SECONDS = 60
"""After this long, a smaller file is written, so that an interrupted job keeps its answers."""


class Output:
    """Writes rows to new files of a folder. What earlier runs of the job wrote stays.

    Answered rows go to `part-RUN.jsonl`, or to `part-RUN-NUMBER.parquet`. Failed rows go to `failed-RUN.jsonl`; the next run removes that
    file and asks them again.
    """

    def __init__(self, folder: str, format: str) -> None:
        self._folder = Path(folder)
        self._run = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}"
        self._parquet = format == "parquet"
        self._pending: list[dict[str, Any]] = []
        self._written_at = time.monotonic()
        self._files = 0
        self.done: set[str] = set()
        """Keys of the rows that earlier runs answered."""
        self.num_written = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for failed in self._folder.glob("failed-*.jsonl"):
                failed.unlink()
            self._read_done()
        except OSError as error:
            raise JobError(f'Cannot use "{folder}" for the output: {error}', USAGE) from error

    def _read_done(self) -> None:
        for file in sorted(self._folder.glob("part-*.jsonl")):
            self.done.update(row["row"] for row in _whole_rows(file))
        files = sorted(self._folder.glob("part-*.parquet"))
        if files or self._parquet:
            parquet = _parquet_library()
            for file in files:
                self.done.update(parquet.read_table(file, columns=["row"]).column("row").to_pylist())

    def write(self, row: dict[str, Any]) -> None:
        """Adds an answered row. Raises JobError where it cannot be written."""
        self._pending.append(row)
        if not self._parquet or len(self._pending) >= PARQUET_ROWS or time.monotonic() - self._written_at >= PARQUET_SECONDS:
            self.flush()

    def write_failed(self, row: dict[str, Any]) -> None:
        """Adds a row that got no answer."""
        self._append(f"failed-{self._run}.jsonl", [row])

    def flush(self) -> None:
        """Writes the rows that are still in memory."""
        rows, self._pending = self._pending, []
        self._written_at = time.monotonic()
        if not rows:
            return
        if self._parquet:
            self._write_parquet(rows)
        else:
            self._append(f"part-{self._run}.jsonl", rows)
        self.num_written += len(rows)

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        try:
            with open(self._folder / name, "ab") as file:
                file.write(b"".join(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n" for row in rows))
        except OSError as error:
            raise self._cannot_write(error) from error

    def _write_parquet(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow

        self._files += 1
        file = self._folder / f"part-{self._run}-{self._files:05}.parquet"
        partial = file.with_suffix(".tmp")
        try:
            _parquet_library().write_table(pyarrow.Table.from_pylist(rows), partial)
            partial.rename(file)
        except pyarrow.ArrowInvalid as error:
            raise JobError(f"Cannot store the rows as Parquet: {error}; give each field one type, or use --format jsonl", USAGE) from error
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> JobError:
        return JobError(f'Cannot write to "{self._folder}" after {self.num_written} rows: {error}; run the same command again to continue')


def _whole_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a file; a run that ended while it wrote leaves a line without its end, which does not count."""
    return [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _parquet_library() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise JobError("Parquet requires pyarrow; install pagesift-ray[parquet]", USAGE) from error
    return parquet
