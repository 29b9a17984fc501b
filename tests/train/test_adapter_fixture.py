"""The adapter of tests/fixtures/adapter and its logits, which tests/engine/adapter_test.ts compares the engine with.

This rewrites it, from the root of the checkout: `PYTHONPATH=scripts python tests/train/test_adapter_fixture.py --write`.
"""

from __future__ import annotations

import sys
import unittest

import torch
from safetensors.torch import load_file, save_file
from support import ROOT
from train import lora, models

BASE, FIXTURE = ROOT / "tests" / "fixtures" / "hf" / "llama-f32", ROOT / "tests" / "fixtures" / "adapter"
IDS = torch.arange(3, 67).remainder(500)[None]


def logits_with(folder: object = None) -> torch.Tensor:
    """[n, V] in f32, of the model with the adapter merged into it."""
    model = models.load_model(BASE, "cpu")
    if folder is not None:
        lora.merge_adapter(model, folder)
    with torch.no_grad():
        return model.get_output_embeddings()(model.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state)[0]


class Fixture(unittest.TestCase):
    def test_logits_are_those_of_the_merged_model(self) -> None:
        wanted = load_file(FIXTURE / "logits.safetensors")
        self.assertEqual(wanted["ids"].tolist(), IDS[0].tolist())
        torch.testing.assert_close(logits_with(FIXTURE), wanted["logits"], atol=1e-4, rtol=1e-4)
        self.assertGreater((logits_with() - wanted["logits"]).abs().max().item(), 0.1)


def write() -> None:
    model = models.load_model(BASE, "cpu")
    lora.add_lora(model, 3, 1)
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.03)
    FIXTURE.mkdir(exist_ok=True)
    lora.save_adapter(model, FIXTURE, BASE.name)
    save_file(dict(ids=IDS[0].int(), logits=logits_with(FIXTURE)), FIXTURE / "logits.safetensors")


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        unittest.main()
