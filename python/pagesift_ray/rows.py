"""Rows of the input: prompts from JSON Lines and Parquet files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pagesift_ray.errors import USAGE, JobError

SETTINGS = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "seed", "stop")
"""Fields that `pagesift generate --jsonl` reads besides the prompt (docs/jsonl.md)."""
ANSWER_FIELDS = ("row", "text", "ids", "finish", "error", "new_tokens", "seconds", "worker", "attempts")
"""Fields of an output row besides those that are copied from the input."""
PREFIX_CHARACTERS = 256
"""Prompts that begin with the same characters are about one document, where no field names it."""
ROWS_PER_BATCH = 64
"""Rows of a Parquet file that are in memory at once."""


@dataclass
class Row:
    """A prompt with its settings. `problem` says why it cannot be asked."""

    key: str
    document: str
    line: dict[str, Any]
    own: dict[str, Any]
    problem: str | None = None
    attempts: int = 0


@dataclass(frozen=True)
class Fields:
    """Names of input fields."""

    prompt: str = "prompt"
    id: str = "id"
    document: str = "document"


def read_rows(files: list[str], fields: Fields, seed: int | None = None) -> Iterator[Row]:
    """All rows of all files, one at a time; row i, counted from 0, uses the seed `seed` + i.

    Raises JobError where a file cannot be read or two rows have one id.
    """
    keys: set[str] = set()
    for file in files:
        for number, value in enumerate(_values(file), start=1):
            row = _make_row(f"{file}:{number}", value, fields, None if seed is None else (seed + len(keys)) % 2**32)
            if row.key in keys:
                raise JobError(f'{file}:{number}: the id "{row.key}" occurs twice; ids must be unique', USAGE)
            keys.add(row.key)
            yield row


def _values(file: str) -> Iterator[Any]:
    """The rows of a file; an error in place of a line that is not JSON."""
    try:
        if file.endswith(".parquet"):
            from pyarrow import parquet

            with parquet.ParquetFile(file) as table:
                for batch in table.iter_batches(batch_size=ROWS_PER_BATCH):
                    yield from batch.to_pylist()
        else:
            with open(file, "rb") as lines:
                yield from (_parse(line) for line in lines if line.strip())
    except ImportError as error:
        raise JobError(f'"{file}" requires pyarrow; install pagesift-ray[parquet]', USAGE) from error
    except (OSError, ValueError) as error:  # pyarrow's errors about a file's contents are ValueErrors
        raise JobError(f'Cannot read "{file}": {error}', USAGE) from error


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        return error


def _make_row(place: str, value: Any, fields: Fields, seed: int | None) -> Row:
    if not isinstance(value, dict):
        problem = f"not JSON: {value}" if isinstance(value, ValueError) else "expected an object"
        return Row(place, "", {}, {}, f"{place}: {problem}")
    own = {name: content for name, content in value.items() if name not in SETTINGS and name != fields.prompt}
    clash = next((name for name in ANSWER_FIELDS if name in own), None)
    if clash is not None:
        raise JobError(f'{place}: the field "{clash}" clashes with a field of the answer; rename it', USAGE)
    key = place if value.get(fields.id) is None else str(value[fields.id])
    prompt = value.get(fields.prompt)
    if not isinstance(prompt, str):
        return Row(key, "", {}, own, f'{place}: "{fields.prompt}" must be a string')
    settings = {name: value[name] for name in SETTINGS if value.get(name) is not None}
    document = prompt[:PREFIX_CHARACTERS] if value.get(fields.document) is None else str(value[fields.document])
    line = {"row": key, "prompt": prompt, **({} if seed is None else {"seed": seed}), **settings}
    return Row(key, document, line, own)
