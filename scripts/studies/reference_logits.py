"""Logits and greedy tokens of a model folder by the transformers library, loaded the way its users load it.

    pip install torch==2.13.0 transformers==5.17.0 safetensors
    python3 scripts/studies/reference_logits.py tests/fixtures/hf/llama3-rope-bf16 OUT_DIR

The references that came with tests/fixtures/hf were computed by a model that had been cast with `.to(bfloat16)` in memory, which
rounds the rotary frequencies to bf16 as well; a model loaded with `from_pretrained` keeps them in f32, as training had them. For
llama3-rope-bf16 the two differ by 0.12 in the logits (docs/performance.md, "Agreement").
"""
import json
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def main() -> None:
    folder, out = sys.argv[1], sys.argv[2]
    reference = load_file(f"{folder}/reference.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = reference["input_ids"].long()[None]
    with torch.no_grad():
        logits = model(prompt).logits[0, reference["positions"].long()].float().contiguous()
        ids = prompt
        for _ in range(24):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    save_file({"logits": logits}, f"{out}/from_pretrained.safetensors")
    with open(f"{out}/from_pretrained.json", "w") as file:
        json.dump({"greedy": ids[0, prompt.shape[1]:].tolist()}, file)


if __name__ == "__main__":
    main()
