"""Runs commands that depend on each other's outputs, one at a time per GPU, until a time limit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import TrainError
from .loop import say

POLL_SECONDS = 0.2


@dataclass
class Job:
    """A command that is done once `out` exists. `command` is called late, because it may need the output of `needs`.

    A job that ends with code 0 without its output was interrupted, and continues with the next call.
    """

    name: str
    out: Path
    command: Callable[[], list[str]]
    needs: list[Path] = field(default_factory=list)
    fewest_seconds: float = 30.0

    def done(self) -> bool:
        return self.out.exists()

    def ready(self) -> bool:
        return not self.done() and all(file.exists() for file in self.needs)


def start(job: Job, gpu: str | None, log_folder: Path) -> subprocess.Popen[bytes]:
    """A child process that sees one GPU, or the CPU if `gpu` is None. Its output goes to a separate file."""
    log_folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ) if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    with open(log_folder / f"{job.name}.log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", *job.command()], env=environment, stdout=log, stderr=log)


def run_jobs(
    jobs: list[Job], gpus: list[str], seconds_left: Callable[[], float], log_folder: Path, after_each: Callable[[], None] = lambda: None
) -> bool:
    """True once every job is done. Earlier jobs come first; `gpus` are names for CUDA_VISIBLE_DEVICES, or [None].

    `after_each` is called when a job has ended. A job does not start with less time than its `fewest_seconds`. A failed job blocks only
    the jobs that need it, and a TrainError reports it at the end.
    """
    running, tried, failed = {}, set(), []
    while True:
        for gpu, (job, process) in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[gpu]
            say(f"== {job.name} {'done' if job.done() else 'paused' if code == 0 else 'failed'}, {seconds_left():.0f} s left")
            if code != 0 and not job.done():
                failed.append(f'stage {job.name} ended with code {code}, see "{log_folder / job.name}.log"')
            after_each()
        for gpu in [gpu for gpu in gpus if gpu not in running]:
            job = next((job for job in jobs if job.name not in tried and job.ready() and seconds_left() >= job.fewest_seconds), None)
            if job is not None:
                tried.add(job.name)
                say(f"== {job.name} on GPU {gpu}, {seconds_left():.0f} s left" if gpu is not None else f"== {job.name}")
                running[gpu] = job, start(job, gpu, log_folder)
        if not running:
            break
        time.sleep(POLL_SECONDS)
    if failed:
        raise TrainError("; ".join(failed), 1)
    return all(job.done() for job in jobs)
