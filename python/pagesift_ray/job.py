"""The job: passes rows to workers, retries what a dead worker had, and writes answers.

It uses plain actors instead of Ray Data, whose retries and back-pressure are about blocks of rows. Here a process answers single lines,
out of order, and a row belongs to the worker that has read its document.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError

from pagesift_ray.errors import JobError
from pagesift_ray.output import Output
from pagesift_ray.rows import Row
from pagesift_ray.worker import Exchanged, Worker

WINDOW = 32
"""Rows that a worker has at the same time: 16 decode together, as many wait."""
READ_AHEAD = 2 * WINDOW
"""Rows per worker that wait in the driver."""
WAIT_SECONDS = 1.0
REPORT_SECONDS = 10.0
MAX_ATTEMPTS = 2
"""A row is asked again once."""
MAX_DEATHS = 5
"""Deaths of a worker with nothing answered in between, after which the job ends."""


@dataclass
class Settings:
    """How a job runs: the command of a worker's process, and what a worker reserves of the cluster."""

    command: list[str]
    workers: int
    cpus: float = 1
    gpus: float = 0
    report: Callable[[str], None] = print


@dataclass
class Lane:
    """A worker and its rows."""

    name: int
    actor: Any = None
    """Started with its first row."""
    waiting: deque[Row] = field(default_factory=deque)
    suspects: deque[Row] = field(default_factory=deque)
    """Rows of a process that died. They are asked one at a time, so that a row that kills its process takes no other row along."""
    flying: dict[str, tuple[Row, float]] = field(default_factory=dict)
    """Rows that the worker has, and when they were sent."""
    call: Any = None
    called_at: float = 0.0
    deaths: int = 0
    has_answered: bool = False
    tokens: int = 0
    busy_seconds: float = 0.0

    @property
    def load(self) -> int:
        """Rows that are not answered yet."""
        return len(self.waiting) + len(self.suspects) + len(self.flying)

    def take(self) -> list[Row]:
        """The rows to send now."""
        if self.suspects:
            return [] if self.flying else [self.suspects.popleft()]
        if any(row.attempts > 1 for row, _ in self.flying.values()):
            return []
        count = min(WINDOW - len(self.flying), len(self.waiting))
        return [self.waiting.popleft() for _ in range(count)]


@dataclass
class Result:
    """What a run of a job did: rows, new tokens, seconds."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    skipped: int = 0
    tokens: int = 0
    seconds: float = 0.0
    lanes: list[Lane] = field(default_factory=list)


class Job:
    """One run over the rows that are not done."""

    def __init__(self, settings: Settings, rows: Iterator[Row], output: Output) -> None:
        self._settings = settings
        self._rows = rows
        self._output = output
        self._has_more = True
        self._lane_of: dict[int, Lane] = {}
        self._started = self._reported = time.monotonic()
        self.result = Result()

    def run(self) -> Result:
        """Answers all rows. Raises JobError where the job cannot go on; what is written stays."""
        result = self.result
        result.lanes = [Lane(number) for number in range(self._settings.workers)]
        try:
            while self._step():
                self._report_sometimes()
        finally:
            for lane in result.lanes:
                if lane.actor is not None:
                    ray.kill(lane.actor)
            self._output.flush()
        result.seconds = time.monotonic() - self._started
        return result

    def _make_actor(self) -> Any:
        actor = ray.remote(Worker).options(num_cpus=self._settings.cpus, num_gpus=self._settings.gpus)
        return actor.remote(self._settings.command)

    def _step(self) -> bool:
        """Sends what there is room for and receives what came back. False once nothing is left."""
        self._fill()
        for lane in self.result.lanes:
            if lane.call is None:
                self._send(lane)
        calls = {lane.call: lane for lane in self.result.lanes if lane.call is not None}
        if not calls:
            return False
        for call in ray.wait(list(calls), timeout=WAIT_SECONDS)[0]:
            self._receive(calls[call])
        return True

    def _fill(self) -> None:
        """Reads rows until enough wait."""
        limit = READ_AHEAD * len(self.result.lanes)
        while self._has_more and sum(len(lane.waiting) for lane in self.result.lanes) < limit:
            row = next(self._rows, None)
            if row is None:
                self._has_more = False
            elif row.key in self._output.done:
                self.result.skipped += 1
            elif row.problem is not None:
                self._write(row, {"text": "", "ids": [], "finish": "refused", "error": row.problem}, None, 0.0)
            else:
                self._lane_for(row).waiting.append(row)

    def _lane_for(self, row: Row) -> Lane:
        """The worker that got other rows of the document, else the one with the fewest rows."""
        document = hash(row.document)
        if document not in self._lane_of:
            self._lane_of[document] = min(self.result.lanes, key=lambda lane: lane.load)
        return self._lane_of[document]

    def _send(self, lane: Lane) -> None:
        rows = lane.take()
        now = time.monotonic()
        for row in rows:
            row.attempts += 1
            lane.flying[row.key] = (row, now)
        if lane.flying:
            lane.actor = lane.actor or self._make_actor()
            lane.called_at = now
            lane.call = lane.actor.exchange.remote([row.line for row in rows], WAIT_SECONDS)

    def _receive(self, lane: Lane) -> None:
        call, lane.call = lane.call, None
        now = time.monotonic()
        lane.busy_seconds += now - lane.called_at
        try:
            exchanged = ray.get(call)
        except RayActorError as error:
            exchanged = Exchanged(died=f"lost its actor: {str(error).splitlines()[0]}", code=-9)
            lane.actor = None
        for answer in exchanged.answers:
            row, sent_at = lane.flying.pop(answer.pop("row"))
            self._write(row, answer, lane, now - sent_at)
        if exchanged.died is not None:
            self._bury(lane, exchanged)

    def _bury(self, lane: Lane, exchanged: Exchanged) -> None:
        """Arranges that the rows of a dead process are asked again, or gives them up."""
        if not lane.has_answered and exchanged.code > 1:  # usage, model, device or memory: it will not start the next time either
            raise JobError(f"Worker {lane.name} could not start ({exchanged.died})", exchanged.code)
        lane.deaths += 1
        self._settings.report(f"Worker {lane.name} died ({exchanged.died}) with {len(lane.flying)} rows")
        lost = [row for row, _ in lane.flying.values()]
        lane.flying.clear()
        lane.suspects.extend(row for row in lost if row.attempts < MAX_ATTEMPTS)
        for row in lost:
            if row.attempts >= MAX_ATTEMPTS:
                self._fail(row, lane, f"Its worker died twice, the last time with {exchanged.died}")
        if lane.deaths >= MAX_DEATHS:
            raise JobError(f"Worker {lane.name} died {lane.deaths} times in a row, the last time with {exchanged.died}")

    def _fail(self, row: Row, lane: Lane, error: str) -> None:
        lane.deaths = 0  # the row explains them
        self.result.failed += 1
        self._output.write_failed({**row.own, "row": row.key, "finish": "failed", "error": error})

    def _write(self, row: Row, answer: dict[str, Any], lane: Lane | None, seconds: float) -> None:
        count = len(answer["ids"])
        if lane is not None:
            lane.deaths, lane.has_answered = 0, True
            lane.tokens += count
        self.result.tokens += count
        if answer["finish"] == "refused":
            self.result.refused += 1
        else:
            self.result.answered += 1
        if answer.get("error"):  # the place of the row in the worker's input means nothing to people
            answer = {**answer, "error": re.sub(r"\bstdin:\d+", lambda _: row.key, answer["error"], count=1)}
        facts = {"new_tokens": count, "seconds": round(seconds, 3), "worker": None if lane is None else lane.name}
        self._output.write({**row.own, "row": row.key, "error": None, **answer, **facts, "attempts": row.attempts})

    def _report_sometimes(self) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._settings.report(summary(self.result, now - self._started))


def summary(result: Result, seconds: float) -> str:
    """One line: rows, and tokens per second of all workers and of each."""
    rates = ", ".join(f"{lane.tokens / max(lane.busy_seconds, 1e-9):.1f}" for lane in result.lanes)
    counts = f"{result.answered} rows answered, {result.refused} refused, {result.failed} failed, {result.skipped} skipped"
    return f"{counts}; {result.tokens / max(seconds, 1e-9):.1f} tokens/s in {seconds:.1f} s, by worker: {rates}"
