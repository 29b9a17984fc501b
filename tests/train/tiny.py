"""A model of two layers and a book, small enough to train within a second."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from support import ROOT

MODEL = ROOT / "tests/fixtures/hf/qwen3-qknorm-f32"
ARGUMENTS = ["--budget", "32", "--context", "64", "128", "--tokens-per-step", "128", "--device", "cpu", "--log-steps", "1", "--warmup", "2"]


def write_book(folder: str | Path) -> Path:
    """A text of some thousand tokens, the same every time."""
    sentences = [
        f"The {size} ship number {count} lay in the harbour for {count + 2} days.\n\n"
        for count in range(120)
        for size in ("small", "large", "old")
    ]
    file = Path(folder) / "harbour.txt"
    file.write_text("".join(sentences))
    return file


def run(command: str, *arguments: object) -> str:
    """Runs a command of the package in this process; returns what it wrote to stderr. A TrainError passes through."""
    module = __import__(f"train.{command}", fromlist=["main"])
    output = io.StringIO()
    with mock.patch.object(sys, "argv", [command, *map(str, arguments)]), contextlib.redirect_stderr(output):
        module.main()
    return output.getvalue()


def finetune(folder: str | Path, out: str | Path, *more: Any, steps: int = 4) -> str:
    return run("finetune", "--model", MODEL, "--data", write_book(folder), "--out", Path(folder) / out, "--steps", steps, *ARGUMENTS, *more)


def losses(output: str) -> list[str]:
    """Losses of the steps that a run printed."""
    return [line.split("loss ")[1].split()[0] for line in output.splitlines() if line.startswith("step ")]


def weights_of(folder: str | Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).glob("*.safetensors")}


def read_json(*parts: object) -> Any:
    return json.loads(Path(*parts).read_text())


def run_deno(arguments: list[str]) -> subprocess.CompletedProcess[str] | None:
    """A child process of Deno, or None where there is none."""
    try:
        return subprocess.run(
            ["npx", "--yes", "deno@2.9.6", "run", "-A", str(ROOT / "cli/main.ts"), *arguments], capture_output=True, text=True, timeout=120
        )
    except FileNotFoundError:
        return None
