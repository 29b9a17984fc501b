"""Trains the base model and the ablation in time-limited calls. Repeat the same command until it prints "Recipe done".

    python -m train.recipe --data FILE... --work DIR --seed-model models/default [--slice-seconds 540] [--collect DIR]

Stages: bench (checks the kernels and measures speeds, which determine the numbers of steps), base (pretrain), soft, hard, none (fine-tune
from base: same rows, same steps; again for every further seed), results (evaluate all of them, base and the seed model). Independent
stages run in parallel, one per GPU. A stage whose output exists is done; an interrupted stage continues. Numbers of steps depend only on
options and DIR/bench.json, so a run in slices equals one without.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from .arguments import make_parser, stages_of
from .errors import run_main
from .evaluate import read_results
from .jobs import Job, run_jobs
from .loop import say
from .pretrain import STAGES

PRETRAIN_TOKENS, FINETUNE_TOKENS = 131072, 32768
# Share of a stage's time for steps; the rest is startup, compilation, reading data and checkpoints.
USED = 0.85
MASKS = ("soft", "hard", "none")
PART_BYTES, MOST_FILES = 15 << 20, 8


def parse() -> argparse.Namespace:
    parser = make_parser("recipe", __doc__)
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--work", required=True, metavar="DIR", help="where everything is written")
    parser.add_argument("--seed-model", required=True, metavar="DIR", help="tokenizer, and with --warm-start the initial weights")
    parser.add_argument("--warm-start", action="store_true", help="start pretraining from the seed model's weights")
    parser.add_argument("--slice-seconds", type=float, default=540, help="time of one call, default 540")
    parser.add_argument("--pretrain-seconds", type=float, default=480, help="time of the whole stage, default 480")
    parser.add_argument(
        "--finetune-seconds", type=float, default=170, help="time of the slowest mask, default 170; all masks take the same steps"
    )
    parser.add_argument("--pretrain-steps", type=int, help="instead of the time")
    parser.add_argument("--finetune-steps", type=int, help="instead of the time")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), metavar="CONTEXT:SHARE", help="contexts of pretraining")
    parser.add_argument("--pretrain-rate", type=float, default=1.5e-3)
    parser.add_argument("--dropout", type=float, default=0.1, help="dropout of all training, default 0.1")
    parser.add_argument("--dense-share", type=float, default=0.15, help="share of fine-tuning steps without a mask, default 0.15")
    parser.add_argument("--decay", type=float, default=0.1, help="weight decay of all training, default 0.1")
    parser.add_argument("--finetune-rate", type=float, default=8e-4)
    parser.add_argument(
        "--contexts", nargs="+", default=["4096:0.3", "16384:0.35", "32768:0.35"], metavar="CONTEXT:SHARE", help="contexts of fine-tuning"
    )
    parser.add_argument(
        "--budget", type=int, nargs="+", default=[64, 256], metavar="TOKENS", help="budgets of fine-tuning, default 64 and 256"
    )
    parser.add_argument("--read-budget", type=int, default=128, help="budget in sparsity.json, default 128 tokens")
    parser.add_argument("--temperature", type=float, nargs=2, default=[1.0, 0.1])
    parser.add_argument("--eval-contexts", type=int, nargs="+", default=[4096, 16384, 32768])
    parser.add_argument("--eval-budgets", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--eval-batch", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="seeds of fine-tuning; everything else uses the first one")
    parser.add_argument("--gpus", nargs="*", default=None, metavar="INDEX", help="GPUs to run on, default all; none for the CPU")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--collect", metavar="DIR", help="copy results here after every stage, models in parts of 15 MiB")
    options = parser.parse_args()
    if options.gpus is None:
        options.gpus = [str(index) for index in range(torch.cuda.device_count())] if options.device != "cpu" else []
    return options


def steps_for(seconds: float, speeds: dict[int, float], shares: dict[int, float], tokens_per_step: int) -> int:
    """Steps that fit: shares of the steps at the speeds of their contexts {context: tokens per second}."""
    a_step = sum(share / sum(shares.values()) * tokens_per_step / speeds[context] for context, share in shares.items())
    return max(1, int(USED * seconds / a_step))


def speeds_of(rows: list[dict[str, Any]], mask: str) -> dict[int, float]:
    return {row["context"]: row["tokens_per_second"] for row in rows if row.get("test") == "step" and row["mask"] == mask}


def pretrain_steps(options: argparse.Namespace, rows: list[dict[str, Any]]) -> int:
    """Steps that fit at the measured speeds, unless given."""
    if options.pretrain_steps is not None:
        return options.pretrain_steps
    return steps_for(options.pretrain_seconds, speeds_of(rows, "none"), dict(zip(*stages_of(options.stages), strict=True)), PRETRAIN_TOKENS)


def finetune_steps(options: argparse.Namespace, rows: list[dict[str, Any]]) -> int:
    if options.finetune_steps is not None:
        return options.finetune_steps
    return steps_for(
        options.finetune_seconds, speeds_of(rows, "soft"), dict(zip(*stages_of(options.contexts), strict=True)), FINETUNE_TOKENS
    )


class Recipe:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.work, self.started = options, Path(options.work), time.monotonic()

    def left(self) -> float:
        return self.options.slice_seconds - (time.monotonic() - self.started)

    def place(self, name: str) -> Path:
        return self.work / name

    def run(self) -> bool:
        """True once every stage is done."""
        self.collect()  # results of earlier calls, in case no stage ends in this one
        done = run_jobs(self.jobs(), self.options.gpus or [None], self.left, self.place("logs"), self.collect)
        if not done:
            say("Paused; repeat the same command")
        return done

    def arms(self) -> list[tuple[str, str, int]]:
        """[(folder, mask, seed)], the first seed's first."""
        first, *others = self.options.seeds
        return [(mask, mask, first) for mask in MASKS] + [(f"{mask}-{seed}", mask, seed) for seed in others for mask in MASKS]

    def jobs(self) -> list[Job]:
        """In order of importance: if time runs out, the least important is missing."""
        options, base, bench = self.options, self.place("base"), self.place("bench.json")
        before_base, before_arms = ([] if steps is not None else [bench] for steps in (options.pretrain_steps, options.finetune_steps))
        jobs = [Job("bench", bench, self.bench, fewest_seconds=150)] if before_base or before_arms else []
        jobs.insert(0 if options.pretrain_steps is not None else 1, Job("base", base, self.pretrain, before_base))
        named = [(name, self.place(name)) for name, _, _ in self.arms()]
        tuned = [
            Job(name, self.place(name), lambda mask=mask, name=name, seed=seed: self.finetune(name, mask, seed), [base, *before_arms])
            for name, mask, seed in self.arms()
        ]
        full = [*named[:3], ("training-free", base), ("seed-model", options.seed_model)]
        measured = [self.measured(name, folder) for name, folder in full]
        others = [self.measured(name, folder, readers=["dense", "unique"]) for name, folder in named[3:]]
        return [*jobs, *tuned[:3], *measured, *tuned[3:], *others]

    def measured(self, name: str, folder: Path, **more: Any) -> Job:
        """The evaluation of one model: done with its last context, when a marker is written."""
        out = self.place(f"results/{name}.json")
        return Job(
            f"results-{name}", out.with_suffix(".done"), lambda: self.evaluate(name, folder, out, **more), [Path(folder)], fewest_seconds=60
        )

    def speeds(self) -> list[dict[str, Any]]:
        return read_results(self.place("bench.json"))

    def common(self, seed: int, spare: int = 30) -> list[object]:
        """Arguments of every command; `spare` seconds are for the work after the last step."""
        options = self.options
        return [
            "--data",
            *options.data,
            "--seed",
            seed,
            "--device",
            options.device,
            "--cache",
            self.place("cache"),
            "--slice-seconds",
            max(1, self.left() - spare),
        ]

    def against_learning_by_heart(self) -> list[object]:
        return ["--dropout", self.options.dropout, "--decay", self.options.decay]

    def bench(self) -> list[str]:
        contexts = sorted({*stages_of(self.options.stages)[0], *stages_of(self.options.contexts)[0]})
        return texts(
            [
                "train.bench",
                "--model",
                self.options.seed_model,
                "--out",
                self.place("bench.json"),
                "--contexts",
                *contexts,
                "--budget",
                self.options.read_budget,
                "--repeats",
                3,
            ]
        )

    def pretrain(self) -> list[str]:
        options = self.options
        start = ["--init", options.seed_model] if options.warm_start else []
        return texts(
            [
                "train.pretrain",
                "--tokenizer",
                options.seed_model,
                *start,
                "--stages",
                *options.stages,
                "--rate",
                options.pretrain_rate,
                "--steps",
                pretrain_steps(options, self.speeds()),
                "--tokens-per-step",
                PRETRAIN_TOKENS,
                "--warmup",
                200,
                "--nondeterministic",
                "--shard-size",
                "8MB",
                "--out",
                self.place("base"),
                *self.against_learning_by_heart(),
                *self.common(options.seeds[0]),
            ]
        )

    def finetune(self, name: str, mask: str, seed: int) -> list[str]:
        options = self.options
        return texts(
            [
                "train.finetune",
                "--model",
                self.place("base"),
                "--mask",
                mask,
                "--budget",
                *options.budget,
                "--read-budget",
                options.read_budget,
                "--context",
                *options.contexts,
                "--temperature",
                *options.temperature,
                "--dense-share",
                options.dense_share,
                "--rate",
                options.finetune_rate,
                "--steps",
                finetune_steps(options, self.speeds()),
                "--tokens-per-step",
                FINETUNE_TOKENS,
                "--shard-size",
                "8MB",
                "--out",
                self.place(name),
                *self.against_learning_by_heart(),
                *self.common(seed),
            ]
        )

    def evaluate(self, name: str, folder: Path, out: Path, readers: Iterable[str] = ()) -> list[str]:
        options = self.options
        more = ["--readers", *readers] if readers else []
        return texts(
            [
                "train.evaluate",
                "--model",
                f"{name}={folder}",
                "--contexts",
                *options.eval_contexts,
                "--budgets",
                *options.eval_budgets,
                "--trials",
                options.trials,
                "--batch",
                options.eval_batch,
                "--out",
                out,
                "--done",
                out.with_suffix(".done"),
                *more,
                *self.common(options.seeds[0], spare=45),
            ]
        )

    def results(self) -> list[dict[str, Any]]:
        """Rows of all evaluations so far."""
        return [row for file in sorted(self.place("results").glob("*.json")) for row in read_results(file)]

    def collect(self) -> None:
        """Copies results and finished models to --collect, the models as one archive in parts: at most MOST_FILES files."""
        if self.options.collect is None:
            return
        folder = Path(self.options.collect)
        folder.mkdir(parents=True, exist_ok=True)
        for file in [*self.work.glob("*.json")]:
            shutil.copyfile(file, folder / file.name)
        (folder / "results.json").write_text(json.dumps(dict(rows=self.results()), indent=1))
        self.place("logs").mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / "logs.tar.xz", "w:xz") as tar:
            tar.add(self.place("logs"), "logs")
        archive = self.work / "models.tar"
        with tarfile.open(archive, "w") as tar:
            for name in ("soft", "base", "hard"):
                if self.place(name).exists():
                    tar.add(self.place(name), name)
        for part in folder.glob("models.tar.*"):
            part.unlink()
        content, room = archive.read_bytes(), MOST_FILES - len(list(folder.iterdir()))
        for part in range(min(room, -(-len(content) // PART_BYTES))):
            (folder / f"models.tar.{part}").write_bytes(content[part * PART_BYTES : (part + 1) * PART_BYTES])


def texts(words: Iterable[object]) -> list[str]:
    return [str(word) for word in words]


def main() -> None:
    if Recipe(parse()).run():
        say("Recipe done")


if __name__ == "__main__":
    run_main(main)
