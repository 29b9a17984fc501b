"""A model of two layers and a book, small enough to train within a second."""
import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

from support import ROOT

MODEL = ROOT / "tests/fixtures/hf/qwen3-qknorm-f32"
ARGUMENTS = ["--budget", "32", "--context", "64", "128", "--tokens-per-step", "128", "--device", "cpu", "--log-steps", "1", "--warmup", "2"]


def write_book(folder):
    """A text of some thousand tokens, the same every time."""
    sentences = [f"The {size} ship number {count} lay in the harbour for {count + 2} days.\n\n"
                 for count in range(120) for size in ("small", "large", "old")]
    file = Path(folder) / "harbour.txt"
    file.write_text("".join(sentences))
    return file


def run(command, *arguments):
    """Runs a command of the package in this process; returns what it wrote to stderr. A TrainError passes through."""
    module = __import__(f"train.{command}", fromlist=["main"])
    told = io.StringIO()
    with mock.patch.object(sys, "argv", [command, *map(str, arguments)]), contextlib.redirect_stderr(told):
        module.main()
    return told.getvalue()


def finetune(folder, out, *more, steps=4):
    return run("finetune", "--model", MODEL, "--data", write_book(folder), "--out", Path(folder) / out, "--steps", steps, *ARGUMENTS, *more)


def losses(told):
    """Losses of the steps that a run told about."""
    return [line.split("loss ")[1].split()[0] for line in told.splitlines() if line.startswith("step ")]


def weights_of(folder):
    return {file.name: file.read_bytes() for file in Path(folder).glob("*.safetensors")}


def read_json(*parts):
    return json.loads(Path(*parts).read_text())


def run_deno(arguments):
    """A child process of Deno, or None where there is none."""
    try:
        return subprocess.run(["npx", "--yes", "deno@2.9.6", "run", "-A", str(ROOT / "cli/main.ts"), *arguments], capture_output=True,
                              text=True, timeout=120)
    except FileNotFoundError:
        return None
