"""What transformers computes for a GGUF file: logits of a text at some positions and ids, and greedy tokens, as JSON on stdout.

    python real_logits.py FILE.gguf TEXT_FILE TOKENIZER > expected.json

TOKENIZER is a folder with a tokenizer.json, whose ids of some texts are stored too, or - for the tokenizer in the GGUF file, which
transformers converts approximately. Needs torch, transformers, accelerate and gguf. transformers dequantises the file to float32.
tests/real compares with the stored output, so that the gate needs none of these.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

PROMPT_TOKENS = 120
GREEDY_TOKENS = 32
POSITIONS = (0, 1, 30, 60, 90, 118, 119)
SAMPLED_IDS = 64
TOKENIZER_TEXTS = (
    "Hello, world!",
    "  two spaces\n\n\nlines\tand tabs ",
    "I'm sure they'll say 12345 isn't 3.14",
    "日本語 Привет é ½ 😀👍🏽",
    "def f(x):\n    return x ** 2  # comment\n",
    "snake_case camelCase https://example.com/a?b=c",
)


def main() -> None:
    file, text_file, tokenizer_folder = sys.argv[1:4]
    path = Path(file)
    if tokenizer_folder == "-":
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    else:
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{tokenizer_folder}/tokenizer.json")
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    text = Path(text_file).read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=True)["input_ids"][:PROMPT_TOKENS]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
        out = model.generate(torch.tensor([ids]), max_new_tokens=GREEDY_TOKENS, do_sample=False, eos_token_id=None)
    sampled = [index * 7919 % logits.shape[1] for index in range(SAMPLED_IDS)]
    expected = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "prompt_ids": ids,
        "greedy_ids": out[0, len(ids) :].tolist(),
        "sampled_ids": sampled,
        "positions": [
            {
                "position": position,
                "best_id": int(logits[position].argmax()),
                "logits": [round(value, 4) for value in logits[position, sampled].tolist()],
            }
            for position in POSITIONS
        ],
    }
    if tokenizer_folder != "-":
        expected["tokenizer"] = [{"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in TOKENIZER_TEXTS]
    json.dump(expected, sys.stdout, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main()
