"""Fine-tuning from end to end: resuming, what is written, what is refused."""

from __future__ import annotations

import json
import resource
import signal
import tempfile
import unittest
from collections import Counter
from pathlib import Path

import tiny
import torch
from support import random_heads
from train import models, regularize
from train.attention.policy import PagePolicy
from train.checkpoint import write_file
from train.errors import TrainError
from train.mask_plan import MaskPlan


class Runs(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)

    def test_a_run_in_slices_gives_the_bytes_of_a_run_in_one_go(self) -> None:
        whole = tiny.finetune(self.folder, "whole", "--dropout", "0.2")
        sliced = [tiny.finetune(self.folder, "sliced", "--dropout", "0.2", "--slice-seconds", "0.001") for _ in range(4)]
        self.assertEqual([len(tiny.losses(result)) for result in sliced], [1, 1, 1, 1])
        self.assertIn("after step 3 of 4", sliced[3])
        self.assertEqual(tiny.losses(whole), tiny.losses("".join(sliced)))
        wanted, found = tiny.weights_of(self.folder / "whole"), tiny.weights_of(self.folder / "sliced")
        self.assertTrue(wanted)
        self.assertEqual(wanted, found)
        self.assertNotEqual(tiny.weights_of(tiny.MODEL), wanted)

    def test_the_engine_loads_the_export_and_takes_its_defaults(self) -> None:
        tiny.finetune(self.folder, "out", steps=1)
        result = tiny.read_json(self.folder, "out", "sparsity.json")
        self.assertEqual([result[name] for name in ("budget_tokens", "page_size", "scorer", "lambda")], [32, 8, "unique", 0.5])
        self.assertEqual(result["trained"]["temperature"]["last"], 0.1)
        self.assertEqual(tiny.read_json(self.folder, "out", "config.json")["dtype"], "bfloat16")
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["harbour.txt", "out"])
        arguments = ["generate", "-m", str(self.folder / "out"), "--device", "cpu", "--sparse", "on", "-v", "-n", "4"]
        arguments.append("The small ship lay " * 20)
        done = tiny.run_deno(arguments)
        if done is None:
            self.skipTest("npx is not installed")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "budget 32.*unique 0.5; fine-tuned, mask soft")
        self.assertIn("selected in 3 of 3 steps", done.stderr)

    def test_sparsity_json_names_the_budget_to_read_with_beside_that_of_training(self) -> None:
        tiny.finetune(self.folder, "out", "--read-budget", "48", steps=1)
        result = tiny.read_json(self.folder, "out", "sparsity.json")
        self.assertEqual((result["budget_tokens"], result["trained"]["budget_tokens"]), (48, 32))

    def test_of_several_budgets_each_step_takes_one(self) -> None:
        mixed = tiny.losses(tiny.finetune(self.folder, "mixed", "--budget", "32", "48"))
        alone = [tiny.losses(tiny.finetune(self.folder, f"b{budget}", "--budget", budget)) for budget in (32, 48)]
        self.assertIn(mixed[0], [losses[0] for losses in alone])
        self.assertNotIn(mixed, alone)
        result = tiny.read_json(self.folder, "mixed", "sparsity.json")
        self.assertEqual((result["budget_tokens"], result["trained"]["budget_tokens"]), (48, [32, 48]))

    def test_steps_are_shared_among_budgets_and_dense_ones(self) -> None:
        plan = MaskPlan([PagePolicy(budget_tokens=budget) for budget in (64, 256)], False, 1, 1000, dense_share=0.2)
        drawn = [plan.pages(step) for step in range(1000)]
        counts = Counter(pages and pages.policy.budget_tokens for pages in drawn)
        for budget, wanted in ((None, 200), (64, 400), (256, 400)):
            self.assertAlmostEqual(counts[budget], wanted, delta=60)
        self.assertEqual([plan.pages(step) for step in (7, 500)], [drawn[7], drawn[500]])

    def test_dropout_trains_differently_and_is_gone_afterwards(self) -> None:
        plain, dropped = (tiny.losses(tiny.finetune(self.folder, f"d{share}", "--dropout", share, steps=1)) for share in (0, 0.3))
        self.assertNotEqual(plain, dropped)
        model = models.load_model(tiny.MODEL, "cpu")
        ids = torch.arange(3, 60)[None]
        before = model(input_ids=ids).logits
        handles = regularize.add_dropout(model, 0.3)
        self.assertFalse(torch.equal(before, model(input_ids=ids).logits))
        for handle in handles:
            handle.remove()
        self.assertTrue(torch.equal(before, model(input_ids=ids).logits))

    def test_held_out_books_are_measured_at_the_end(self) -> None:
        book = self.folder / "kept-out.txt"
        book.write_text("\n\n".join(f"Numbers {count} and {count + 1} are kept out of this book." for count in range(400)))
        result = tiny.finetune(self.folder, "out", "--data", self.folder / "harbour.txt", book, "--held-out", "kept-out", steps=1)
        loss = float(result.split("Held-out loss, read densely: ")[1].split()[0])
        self.assertTrue(4 < loss < 12, loss)
        last = json.loads((self.folder / "out/progress.jsonl").read_text().splitlines()[-1])
        self.assertAlmostEqual(last["held_out_loss"], loss, delta=1e-3)

    def test_masks_train_differently_from_the_same_rows(self) -> None:
        first = {mask: tiny.losses(tiny.finetune(self.folder, mask, "--mask", mask, steps=1))[0] for mask in ("soft", "hard", "none")}
        self.assertEqual(len(set(first.values())), 3, first)

    def test_dense_steps_have_no_mask(self) -> None:
        result = {share: tiny.losses(tiny.finetune(self.folder, f"s{share}", "--dense-share", share)) for share in (0, 0.5, 1)}
        none = tiny.losses(tiny.finetune(self.folder, "none", "--mask", "none"))
        self.assertEqual(result[1], none)
        self.assertEqual(len({result[0][3], result[0.5][3], none[3]}), 3, result)

    def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(self) -> None:
        empty = self.folder / "empty.txt"
        empty.write_text(" \n")
        strange = self.folder / "strange"
        strange.mkdir()
        (strange / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
        for code, part, more in (
            (2, "^--budget is 30 .* multiple of", ["--budget", "30"]),
            (2, "^--read-budget is 44", ["--read-budget", "44"]),
            (2, "^--read-budget is 0", ["--read-budget", "0"]),
            (2, "dense-share", ["--dense-share", "2"]),
            (2, "more than the budget", ["--context", "32"]),
            (2, "dropout", ["--dropout", "1"]),
            (2, "to the model's 4096", ["--context", "8192"]),
            (3, "No text in", ["--data", empty]),
            (3, "MambaForCausalLM.* is not supported", ["--model", strange]),
            (2, "exists already", ["--out", strange]),
            (3, "No data file", ["--data", "absent"]),
            (3, "held out", ["--held-out", "harbour"]),
        ):
            with self.subTest(part), self.assertRaisesRegex(TrainError, part) as caught:
                tiny.finetune(self.folder, "out", *more)
            self.assertEqual(caught.exception.code, code)
            self.assertNotIn("\n", str(caught.exception))
        self.assertFalse(list(self.folder.glob("out*")))

    def test_a_run_with_other_settings_is_refused(self) -> None:
        tiny.finetune(self.folder, "out", "--slice-seconds", "0.001")
        with self.assertRaisesRegex(TrainError, "rate was 0.0003, now 0.001"):
            tiny.finetune(self.folder, "out", "--rate", "0.001")

    def test_a_full_disk_leaves_the_checkpoint_before_it(self) -> None:
        file = self.folder / "checkpoint.pt"
        write_file(file, lambda stream: torch.save({"step": 1}, stream))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
            with self.assertRaisesRegex(TrainError, "Cannot write .*checkpoint.pt") as caught:
                write_file(file, lambda stream: torch.save({"keys": random_heads(1, tokens=4096)[1]}, stream))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        self.assertEqual((caught.exception.code, torch.load(file)), (1, {"step": 1}))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["checkpoint.pt"])


if __name__ == "__main__":
    unittest.main()
