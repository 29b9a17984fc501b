"""Averages of models: the mean of their weights, and what has none."""

from __future__ import annotations

import json
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file
from support import ROOT
from train.errors import TrainError


def all_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in Path(folder).glob("*.safetensors") for name, tensor in load_file(file).items()}


class Averages(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)
        for seed in (1, 2):
            tiny.finetune(self.folder, f"s{seed}", "--seed", seed, "--rate", "0.01", steps=2)

    def average(self, *models: str, out: str | Path = "out", more: Any = ()) -> str:
        return tiny.run("average", "--model", *(self.folder / model for model in models), "--out", self.folder / out, *more)

    def test_weights_are_the_means(self) -> None:
        self.assertIn("the average of 3 models", self.average("s1", "s2", "s2"))
        first, second, found = (all_weights(self.folder / name) for name in ("s1", "s2", "out"))
        self.assertEqual(first.keys(), found.keys())
        self.assertTrue(any(not torch.equal(first[name], second[name]) for name in first))
        for name, tensor in found.items():
            wanted = (first[name].float() + second[name].float() + second[name].float()) / 3
            self.assertTrue(torch.equal(tensor, wanted.bfloat16()), name)

    def test_a_model_is_its_own_average(self) -> None:
        self.average("s1", "s1")
        self.assertEqual(tiny.weights_of(self.folder / "out"), tiny.weights_of(self.folder / "s1"))

    def test_the_engine_loads_an_average_and_says_what_it_is(self) -> None:
        self.average("s1", "s2", more=("--read-budget", "48"))
        sparsity = tiny.read_json(self.folder, "out", "sparsity.json")
        self.assertEqual((sparsity["budget_tokens"], [each["seed"] for each in sparsity["trained"]["models"]]), (48, [1, 2]))
        arguments = ["generate", "-m", str(self.folder / "out"), "--device", "cpu", "--sparse", "on", "-v", "-n", "2"]
        done = tiny.run_deno([*arguments, "The small ship lay " * 20])
        if done is None:
            self.skipTest("npx is not installed")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "budget 48.*unique 0.5; average of 2: fine-tuned, mask soft")
        self.assertIn("selected in 1 of 1 step,", done.stderr)

    def test_what_has_no_average_is_one_line_and_leaves_nothing(self) -> None:
        shutil.copytree(self.folder / "s1", self.folder / "paged")
        sparsity = tiny.read_json(self.folder, "s1", "sparsity.json")
        (self.folder / "paged/sparsity.json").write_text(json.dumps({**sparsity, "lambda": 1}))
        shutil.copytree(ROOT / "tests/fixtures/hf/qwen3-qknorm-f32", self.folder / "untrained")
        shutil.copytree(ROOT / "tests/fixtures/hf/llama-f32", self.folder / "shaped")
        (self.folder / "shaped/sparsity.json").write_text(json.dumps(sparsity))
        shutil.copytree(self.folder / "s1", self.folder / "bare")
        (self.folder / "bare/sparsity.json").write_text("{}")
        shutil.copytree(self.folder / "s1", self.folder / "mistaken")
        (self.folder / "mistaken/sparsity.json").write_text(json.dumps({**sparsity, "budget_tokens": "32"}))
        for code, part, models, more in (
            (3, "lambda of sparsity.json differ", ("s1", "paged"), ()),
            (3, "lacks budget_tokens", ("s1", "bare"), ()),
            (3, "mistaken/sparsity.json. lacks budget_tokens", ("mistaken",), ()),
            (3, "Cannot read .*absent/config.json.*model folder", ("s1", "absent"), ()),
            (2, "none of the models has", ("untrained",), ("--read-budget", "64")),
            (2, "at least 32", ("s1",), ("--read-budget", "24")),
            (3, "is not read like", ("s1", "untrained"), ()),
            (3, "another shape", ("s1", "shaped"), ()),
            (2, "multiple of the page size", ("s1",), ("--read-budget", "44")),
            (3, "Cannot read .*config.json", ("absent", "absent"), ()),
        ):
            with self.subTest(part), self.assertRaisesRegex(TrainError, part) as caught:
                self.average(*models, more=more)
            self.assertEqual(caught.exception.code, code)
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(TrainError, "exists already"):
            self.average("s1", out="s2")
        self.assertFalse((self.folder / "out").exists())


if __name__ == "__main__":
    unittest.main()
