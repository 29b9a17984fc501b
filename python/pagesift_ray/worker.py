"""One `pagesift generate --jsonl -` process, as the actor of a worker runs it."""

import contextlib
import json
import queue
import subprocess
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pagesift_ray.errors import USAGE

STDERR_LINES = 20
END_SECONDS = 10
"""How long a process may take to end once its output has ended."""

Line = dict[str, Any]


@dataclass
class Exchanged:
    """What came back: answers, and why the process ended if it did. `code` is its exit code then, negative for a signal."""

    answers: list[Line] = field(default_factory=list)
    died: str | None = None
    code: int = 0


class Worker:
    """Passes lines to a process and its answers back. The next exchange starts a process that has ended again."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen | None = None
        self._lines: queue.Queue[list[Line]] = queue.Queue()
        self._answers: queue.Queue[Line | None] = queue.Queue()
        self._stderr: deque[str] = deque()

    def _start(self) -> subprocess.Popen:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._lines, self._answers, self._stderr = queue.Queue(), queue.Queue(), deque(maxlen=STDERR_LINES)
        # Threads, because pipes block: the process reads a line when it has room for it.
        for work, *parts in (
            (_write, process.stdin, self._lines),
            (_read, process.stdout, self._answers),
            (_keep, process.stderr, self._stderr),
        ):
            threading.Thread(target=work, args=parts, daemon=True).start()
        return process

    def exchange(self, lines: list[Line], wait_seconds: float) -> Exchanged:
        """Sends lines, then returns the answers so far: at least one, unless the wait or the process ends first."""
        if self._process is None:
            try:
                self._process = self._start()
            except OSError as error:
                return Exchanged(died=f"{self._command[0]} cannot be started: {error}", code=USAGE)
        self._lines.put(lines)
        result = Exchanged()
        with contextlib.suppress(queue.Empty):
            answer = self._answers.get(timeout=wait_seconds)
            while answer is not None:
                result.answers.append(answer)
                answer = self._answers.get_nowait()
            self._describe_end(result, self._process)
            self._process = None
        return result

    def _describe_end(self, result: Exchanged, process: subprocess.Popen) -> None:
        self._lines.put([])  # the writing thread notices that the pipe is closed
        try:
            result.code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            result.code = process.wait()
        how = f"signal {-result.code}" if result.code < 0 else f"exit code {result.code}"
        result.died = f"{how}: {self._stderr[-1]}" if self._stderr else how

    def process_id(self) -> int | None:
        """Of the process that runs."""
        return None if self._process is None else self._process.pid


def _write(stdin: BinaryIO, lines: "queue.Queue[list[Line]]") -> None:
    with contextlib.suppress(OSError):  # the process has ended, which its output shows as well
        while True:
            for line in lines.get():
                stdin.write(json.dumps(line).encode() + b"\n")
            stdin.flush()


def _read(stdout: BinaryIO, answers: "queue.Queue[Line | None]") -> None:
    for line in stdout:
        with contextlib.suppress(ValueError):  # cut off, because the process died while it wrote
            answers.put(json.loads(line))
    answers.put(None)


def _keep(stderr: BinaryIO, lines: "deque[str]") -> None:
    lines.extend(line.decode(errors="replace").rstrip() for line in stderr)
