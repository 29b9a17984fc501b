"""Jobs over a local Ray, with the real engine or one that dies on demand."""

import json
import shlex
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import ray
from pagesift_ray.__main__ import engine_command, main, parse
from pagesift_ray.job import Job, Settings
from pagesift_ray.output import Output
from pagesift_ray.rows import Fields, read_rows

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "default"
PAGESIFT = f"deno run --no-check --allow-all {shlex.quote(str(ROOT / 'cli' / 'main.ts'))}"
DYING_ENGINE = f"{sys.executable} {shlex.quote(str(ROOT / 'tests' / 'ray' / 'dying_engine.py'))}"


def start_ray() -> None:
    """Starts a Ray of two CPUs, whatever the machine has."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", address="local")


class JobTest(unittest.TestCase):
    """A test with an input file and an output folder of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.output = self.folder / "out"

    def write(self, rows: list[Any]) -> Path:
        """Writes rows as JSON Lines; text stays as it is."""
        file = self.folder / "in.jsonl"
        file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return file

    def words(self, file: Path, *more: str, engine: str) -> list[str]:
        """The arguments of a job with two workers."""
        places = ["--input", str(file), "--output", str(self.output), "--model", str(MODEL)]
        return [*places, "--workers", "2", "--command", engine, *more]

    def run_job(self, file: Path, *more: str, engine: str = DYING_ENGINE) -> int:
        """Runs the program in this process. Returns its exit code."""
        return main(self.words(file, *more, engine=engine))

    def make_job(self, file: Path, engine: str) -> Job:
        """A job that has not run yet."""
        options, extra = parse(self.words(file, engine=engine))
        settings = Settings(engine_command(options, extra), 2, report=lambda _: None)
        return Job(settings, read_rows([str(file)], Fields()), Output(str(self.output), "jsonl"))

    def answers(self, pattern: str = "part-*.jsonl") -> list[dict[str, Any]]:
        """All rows of the output."""
        return [json.loads(line) for file in sorted(self.output.glob(pattern)) for line in file.read_text().splitlines()]

    def assert_once(self, keys: list[str]) -> None:
        """Every row has one answer."""
        self.assertEqual(sorted(answer["row"] for answer in self.answers()), sorted(keys))
