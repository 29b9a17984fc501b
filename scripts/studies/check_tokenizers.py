"""Ids, text and chats of tokenizers from the Python libraries: the other half of check_tokenizers.ts.

Reads {"folders": [...], "texts": [...], "chats": [...]} from stdin, and writes a JSON object with the results of each folder to stdout.
"""

import json
import pathlib
import sys
from typing import Any

from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

Chat = list[dict[str, str]]


def render(folder: pathlib.Path, chats: list[Chat]) -> list[str | None] | None:
    """The chats in the folder's template, None for those that it refuses; None without a template."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = config.get("chat_template")
    if not isinstance(template, str):
        return None
    tokens = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token") and isinstance(value, (str, dict))
    }
    rendered: list[str | None] = []
    for chat in chats:
        try:
            rendered.append(render_jinja_template([chat], chat_template=template, add_generation_prompt=True, **tokens)[0][0])
        except Exception:  # noqa: BLE001 - any exception means that the template refuses the chat
            rendered.append(None)
    return rendered


def results(folder: str, texts: list[str], chats: list[Chat]) -> dict[str, Any]:
    """The results of the libraries for all texts and chats with one tokenizer."""
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    return {
        "ids": ids,
        "decoded": [tokenizer.decode(one, skip_special_tokens=False) for one in ids],
        "chats": render(pathlib.Path(folder), chats),
    }


def main() -> None:
    request = json.load(sys.stdin)
    found = {folder: results(folder, request["texts"], request["chats"]) for folder in request["folders"]}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
