"""Adapters: what they train, the files they become, and the model that they merge to; and the loss against the base model."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

import tiny
import torch
from safetensors.torch import load_file
from train import data, lora, models
from train.attention.policy import PagePolicy
from train.attention.transformers_attention import StepPages
from train.errors import TrainError
from train.loop import Teacher, weighted_loss

IDS = torch.arange(3, 163).remainder(500)[None]


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.get_output_embeddings()(model.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state)


class Adapters(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)

    def adapted(self) -> torch.nn.Module:
        """A model whose adapters differ from 0 and are numbers of bf16, as in the files."""
        model = models.load_model(tiny.MODEL, "cpu")
        lora.add_lora(model, 4, 1)
        for module in lora.adapters(model).values():
            torch.nn.init.normal_(module.lora_B, std=0.02)
            for tensor in (module.lora_A, module.lora_B):
                tensor.data = tensor.data.bfloat16().float()
        return model

    def test_new_adapters_change_nothing_and_are_all_that_trains(self) -> None:
        model = models.load_model(tiny.MODEL, "cpu")
        before = logits_of(model)
        lora.add_lora(model, 4, 1)
        torch.testing.assert_close(logits_of(model), before)
        trained = [name for name, tensor in model.named_parameters() if tensor.requires_grad]
        self.assertEqual(len(trained), 2 * len(lora.adapters(model)))
        self.assertTrue(all(".lora_" in name for name in trained))

    def test_a_merged_adapter_is_the_model_with_the_adapter_beside_it(self) -> None:
        model = self.adapted()
        lora.save_adapter(model, self.folder, "base")
        merged = models.load_model(tiny.MODEL, "cpu")
        before = logits_of(merged)
        lora.merge_adapter(merged, self.folder)
        torch.testing.assert_close(logits_of(merged), logits_of(model), atol=1e-4, rtol=1e-4)
        self.assertGreater((logits_of(merged) - before).abs().max().item(), 0.02)

    def test_files_have_the_names_and_shapes_of_the_peft_library(self) -> None:
        lora.save_adapter(self.adapted(), self.folder, "base")
        tensors, config = load_file(self.folder / "adapter_model.safetensors"), tiny.read_json(self.folder, "adapter_config.json")
        name = "base_model.model.model.layers.1.self_attn.k_proj.lora_{}.weight"
        model = models.load_model(tiny.MODEL, "cpu")
        rows, columns = model.get_decoder().layers[1].self_attn.k_proj.weight.shape
        self.assertEqual([tuple(tensors[name.format(part)].shape) for part in "AB"], [(4, columns), (rows, 4)])
        self.assertEqual((config["peft_type"], config["r"], config["lora_alpha"], config["bias"]), ("LORA", 4, 8, "none"))

    def test_an_adapter_of_another_model_is_refused(self) -> None:
        lora.save_adapter(self.adapted(), self.folder, "base")
        model = models.load_model(tiny.MODEL, "cpu")
        model.get_decoder().layers[0].mlp.up_proj = torch.nn.Linear(3, 3)
        with self.assertRaisesRegex(TrainError, "up_proj"):
            lora.merge_adapter(model, self.folder)

    def test_a_run_writes_the_adapter_with_its_sparsity_and_merge_writes_the_model(self) -> None:
        tiny.finetune(self.folder, "adapter", "--lora", "2", "--scorer", "diag", "--distill", "0.5", steps=2)
        files = ["adapter_config.json", "adapter_model.safetensors", "progress.jsonl", "sparsity.json"]
        self.assertEqual(sorted(path.name for path in (self.folder / "adapter").iterdir()), files)
        sparsity = tiny.read_json(self.folder, "adapter", "sparsity.json")
        self.assertEqual((sparsity["scorer"], sparsity["lambda"], sparsity["trained"]["lora"]), ("diag", 2.0, 2))
        arguments = ("--model", tiny.MODEL, "--adapter", self.folder / "adapter", "--out", self.folder / "merged")
        tiny.run("merge", *arguments)
        self.assertEqual(tiny.read_json(self.folder, "merged", "sparsity.json"), sparsity)
        self.assertTrue(tiny.weights_of(self.folder / "merged"))

    def test_slices_of_a_run_give_the_bytes_of_a_run_in_one_go(self) -> None:
        more = ("--lora", "2", "--distill", "1")
        tiny.finetune(self.folder, "whole", *more, steps=2)
        for _ in range(2):
            tiny.finetune(self.folder, "sliced", *more, "--slice-seconds", "0.001", steps=2)
        self.assertEqual(tiny.weights_of(self.folder / "whole"), tiny.weights_of(self.folder / "sliced"))


class AgainstTheBase(unittest.TestCase):
    def loss(self, share: float, pages: StepPages | None = None) -> float:
        model = models.load_model(tiny.MODEL, "cpu")
        ids, targets, weights = IDS[:, :-1], IDS[:, 1:], torch.ones_like(IDS[:, 1:], dtype=torch.float32)
        teacher = Teacher(models.load_model(tiny.MODEL, "cpu").eval(), share) if share else None
        return weighted_loss(model, ids, targets, weights, pages, teacher).item()

    def test_the_base_read_densely_is_at_no_distance_from_itself(self) -> None:
        self.assertLess(abs(self.loss(1)), 1e-6)

    def test_the_base_read_sparsely_is_at_a_distance(self) -> None:
        self.assertGreater(self.loss(1, StepPages(PagePolicy("hard", 32, 8), False)), 1e-4)

    def test_shares_mix_the_distance_with_the_loss_of_the_text(self) -> None:
        self.assertAlmostEqual(self.loss(0.25), 0.75 * self.loss(0), places=4)


class Answers(unittest.TestCase):
    def tokens(self, **more: str) -> list[str]:
        """Text of a conversation in ChatML."""
        with tempfile.TemporaryDirectory() as folder:
            file, config = Path(folder) / "answers.jsonl", dict(tokenizer_class="PreTrainedTokenizerFast")
            file.write_text(json.dumps(dict(question="How many?", text="The ship lay", **more)) + "\n")
            tokenizer = (tiny.MODEL / "tokenizer.json").read_text()
            (Path(folder) / "tokenizer.json").write_text(tokenizer)
            config["chat_template"] = "{% for m in messages %}[{{ m.role }}] {{ m.content }}[end]{% endfor %}"
            (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
            tokenizer = models.load_tokenizer(folder)
            return tokenizer.decode(data.load_answers(file, folder, tokenizer)[0].tolist())

    def test_answers_get_the_chat_template(self) -> None:
        self.assertIn("[user] How many?[end][assistant] The ship lay[end]", self.tokens())

    def test_an_answer_that_was_cut_off_has_no_end(self) -> None:
        self.assertTrue(self.tokens(finish="length").endswith("The ship lay"))


if __name__ == "__main__":
    unittest.main()
