"""The plan of a recipe: steps that fit into the time that was measured, and stages in order."""
import argparse
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import support  # noqa: F401  (puts the package on the path)
from train import bench, recipe


def bench_rows(soft_factor):
    return [dict(test="step", mask=mask, context=context, tokens_per_second=speed / (soft_factor if mask == "soft" else 1))
            for context, speed in ((2048, 1e6), (8192, 8e5), (16384, 5e5)) for mask in ("none", "soft")]


def options_in(folder, **more):
    with mock.patch("sys.argv", ["recipe", "--data", "x.txt", "--work", str(folder), "--seed-model", "seed"]):
        options = recipe.parse()
    return argparse.Namespace(**{**vars(options), "stages": ["2048:1", "8192:1"], "contexts": [16384], **more})


class Plan(unittest.TestCase):
    def test_steps_fill_the_time_at_the_measured_speeds(self):
        plan = recipe.plan_of(options_in("w", pretrain_seconds=100, finetune_seconds=50), bench_rows(2))
        seconds = plan["pretrain_steps"] * recipe.PRETRAIN_TOKENS * (0.5 / 1e6 + 0.5 / 8e5)
        self.assertTrue(0.98 * recipe.USED * 100 < seconds <= recipe.USED * 100, seconds)
        self.assertEqual(plan["finetune_steps"], int(recipe.USED * 50 / (recipe.FINETUNE_TOKENS / 2.5e5)))

    def test_given_steps_win_and_need_no_speeds(self):
        self.assertEqual(recipe.plan_of(options_in("w", pretrain_steps=7, finetune_steps=3), []), dict(pretrain_steps=7, finetune_steps=3))


class Checks(unittest.TestCase):
    def test_numbers_that_are_none_do_not_pass(self):
        self.assertTrue(bench.within(dict(out=1e-3, keys=2e-3), 1e-2))
        for wrong in (float("nan"), 0.02):
            self.assertFalse(bench.within(dict(out=1e-3, keys=wrong), 1e-2))


class Stages(unittest.TestCase):
    def test_calls_go_on_where_the_one_before_stopped(self):
        with tempfile.TemporaryDirectory() as folder:
            ran, work = [], Path(folder)

            def act(command, check):
                name = command[2].removeprefix("train.")
                ran.append(name)
                with mock.patch("sys.argv", command[2:]):
                    __import__(command[2], fromlist=["parse"]).parse()
                out = Path(command[command.index("--out") + 1])
                if name == "bench":
                    out.write_text(json.dumps(dict(rows=bench_rows(2))))
                elif name == "evaluate":
                    rows = [dict(model=m, context=c) for m in "abcd" for c in (4096, 16384, 32768)]
                    out.write_text(json.dumps(dict(rows=rows[:5] if ran.count("evaluate") == 1 else rows)))
                elif name != "pretrain" or ran.count("pretrain") == 2:
                    out.mkdir()
                return argparse.Namespace(returncode=0)

            with mock.patch.object(recipe.subprocess, "run", act):
                done = [recipe.Recipe(options_in(folder)).run() for _ in range(4)]
            self.assertEqual(done, [False, False, True, True])
            self.assertEqual(ran, ["bench", "pretrain", "pretrain", "finetune", "finetune", "finetune", "evaluate", "evaluate"])
            recipe.Recipe(options_in(folder)).collect(work / "collected")
            self.assertEqual(sorted(path.name for path in (work / "collected").iterdir()),
                             ["bench.json", "models.tar.0", "plan.json", "results.json"])


if __name__ == "__main__":
    unittest.main()
