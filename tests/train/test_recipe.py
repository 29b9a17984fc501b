"""The plan of a recipe: steps that fit into the time that was measured, and stages in order."""

from __future__ import annotations

import argparse
import json
import tempfile
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import support  # noqa: F401  (puts the package on the path)
from train import bench, jobs, recipe
from train.errors import TrainError

if TYPE_CHECKING:
    from train.jobs import Job


def bench_rows(soft_factor: int) -> list[dict[str, Any]]:
    return [
        dict(test="step", mask=mask, context=context, tokens_per_second=speed / (soft_factor if mask == "soft" else 1))
        for context, speed in ((2048, 1e6), (8192, 8e5), (16384, 5e5))
        for mask in ("none", "soft")
    ]


def options_in(folder: str | Path, **more: Any) -> argparse.Namespace:
    with mock.patch("sys.argv", ["recipe", "--data", "x.txt", "--work", str(folder), "--seed-model", "seed"]):
        options = recipe.parse()
    return argparse.Namespace(**{**vars(options), "stages": ["2048:1", "8192:1"], "contexts": ["16384"], **more})


class Plan(unittest.TestCase):
    def test_steps_fill_the_time_at_the_measured_speeds(self) -> None:
        options, rows = options_in("w", pretrain_seconds=100, finetune_seconds=50), bench_rows(2)
        seconds = recipe.pretrain_steps(options, rows) * recipe.PRETRAIN_TOKENS * (0.5 / 1e6 + 0.5 / 8e5)
        self.assertTrue(0.98 * recipe.USED * 100 < seconds <= recipe.USED * 100, seconds)
        self.assertEqual(recipe.finetune_steps(options, rows), int(recipe.USED * 50 / (recipe.FINETUNE_TOKENS / 2.5e5)))

    def test_given_steps_win_and_need_no_speeds(self) -> None:
        options = options_in("w", pretrain_steps=7, finetune_steps=3)
        self.assertEqual((recipe.pretrain_steps(options, []), recipe.finetune_steps(options, [])), (7, 3))

    def test_given_steps_of_pretraining_let_it_begin_beside_the_bench(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            first, second, *_ = recipe.Recipe(options_in(folder, pretrain_steps=7)).jobs()
            self.assertEqual([(job.name, job.needs) for job in (first, second)], [("base", []), ("bench", [])])


class Checks(unittest.TestCase):
    def test_numbers_that_are_none_do_not_pass(self) -> None:
        self.assertTrue(bench.within(dict(out=1e-3, keys=2e-3), 1e-2))
        for wrong in (float("nan"), 0.02):
            self.assertFalse(bench.within(dict(out=1e-3, keys=wrong), 1e-2))


class Stages(unittest.TestCase):
    def run_pretended(self, folder: str | Path, calls: list[list[str]], **more: Any) -> tuple[list[bool], list[list | list[str]]]:
        """Stages that ran in each call; pretraining and one evaluation are cut off once."""
        ran = []

        def pretend(job: Job, gpu: str | None, log_folder: Path) -> argparse.Namespace:
            command = job.command()
            log_folder.mkdir(exist_ok=True)
            with mock.patch("sys.argv", command):
                __import__(command[0], fromlist=["parse"]).parse()
            ran[-1].append(job.name)
            out = Path(command[command.index("--out") + 1])
            cut_off = job.name in ("base", "results-soft") and sum(job.name in call for call in ran) == 1
            out.parent.mkdir(exist_ok=True)
            if job.name == "bench":
                out.write_text(json.dumps(dict(rows=bench_rows(2))))
            elif job.name.startswith("results-"):
                out.write_text(json.dumps(dict(rows=[dict(model=job.name)])))
            elif not cut_off:
                out.mkdir()
            if not cut_off and job.out != out:
                job.out.touch()
            return argparse.Namespace(poll=lambda: 0)

        with mock.patch.object(jobs, "start", pretend), mock.patch.object(jobs, "POLL_SECONDS", 0):
            done = []
            for _ in range(calls):
                ran.append([])
                done.append(recipe.Recipe(options_in(folder, seed_model=folder, gpus=["0", "1"], **more)).run())
        return done, ran

    def test_calls_go_on_where_the_one_before_stopped(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done, ran = self.run_pretended(folder, 4)
            self.assertEqual(done, [False, False, True, True])
            self.assertEqual(ran[0], ["bench", "base", "results-seed-model"])
            self.assertEqual(ran[1][:4], ["base", "soft", "hard", "none"])
            self.assertEqual((ran[2], ran[3]), (["results-soft"], []))

    def test_collects_results_of_all_models_and_the_models_in_parts(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            collected = Path(folder) / "collected"
            self.run_pretended(folder, 3, collect=str(collected))
            names = sorted(path.name for path in collected.iterdir())
            self.assertEqual(names, ["bench.json", "logs.tar.xz", "models.tar.0", "results.json"])
            rows = json.loads((collected / "results.json").read_text())["rows"]
            self.assertIn("results-soft-2", [row["model"] for row in rows])

    def test_collects_also_where_nothing_is_left_to_do(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.run_pretended(folder, 4)
            collected = Path(folder) / "collected"
            self.assertEqual(self.run_pretended(folder, 1, collect=str(collected)), ([True], [[]]))
            self.assertTrue((collected / "results.json").exists())


class Jobs(unittest.TestCase):
    def run_commands(self, folder: str | Path, **scripts: dict[str, Any]) -> bool:
        """Runs `name: (needs, Python code)`, on two GPUs."""
        place = Path(folder)
        for name, (_, code) in scripts.items():
            (place / f"{name}.py").write_text(code)
        made = [
            jobs.Job(name, place / name, lambda name=name: [name], [place / need for need in needs], 0)
            for name, (needs, _) in scripts.items()
        ]
        with mock.patch.dict("os.environ", PYTHONPATH=folder):
            return jobs.run_jobs(made, ["0", "1"], lambda: 60.0, place / "logs")

    def test_two_run_side_by_side_each_with_its_gpu(self) -> None:
        meet = (
            "import os, time, pathlib as p\np.Path(os.environ['PYTHONPATH'], '{0}').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
            "while not p.Path(os.environ['PYTHONPATH'], '{1}').exists(): time.sleep(0.01)"
        )
        with tempfile.TemporaryDirectory() as folder:
            self.assertTrue(self.run_commands(folder, one=([], meet.format("one", "two")), two=([], meet.format("two", "one"))))
            self.assertEqual({(Path(folder) / name).read_text() for name in ("one", "two")}, {"0", "1"})

    def test_a_failure_holds_back_only_what_needs_it(self) -> None:
        write = "import os, pathlib as p\np.Path(os.environ['PYTHONPATH'], '{0}').touch()"
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(TrainError, "stage broken ended with code 7"):
                self.run_commands(
                    folder, broken=([], "raise SystemExit(7)"), after=(["broken"], write.format("after")), other=([], write.format("other"))
                )
            self.assertEqual([(Path(folder) / name).exists() for name in ("after", "other")], [False, True])


if __name__ == "__main__":
    unittest.main()
