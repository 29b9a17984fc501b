"""Books to tokens: reads text files and archives, holds books out, encodes once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import TrainError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


CHUNK_CHARS = 200_000
# The last books of the archive. The seed model did not see its last 400,000 tokens either, so losses on them are comparable.
HELD_OUT_TOKENS = 400_000
HELD_OUT = ("963_little-dorrit", "98_a-tale-of-two-cities")


def read_texts(paths: Iterable[str | Path]) -> list[tuple[str, str]]:
    """[(name, text)] of text files, folders of them and tar archives, in the given order; folders and archives in their own."""
    texts = []
    for path in map(Path, paths):
        if not path.exists():
            raise TrainError(f'No data file "{path}"', 3)
        if path.is_dir():
            texts += [(file.stem, _decode(file.read_bytes(), file)) for file in sorted(path.glob("**/*.txt"))]
        elif ".tar" in path.suffixes or path.suffix == ".tgz":
            texts += _read_archive(path)
        else:
            texts.append((path.stem, _decode(path.read_bytes(), path)))
    texts = [(name, join_wrapped_lines(text)) for name, text in texts if text.strip()]
    if not texts:
        raise TrainError(f"No text in {', '.join(map(str, paths))}; expected text files, folders or tar archives of .txt files", 3)
    return texts


def _read_archive(path: Path) -> list[tuple[str, str]]:
    try:
        with tarfile.open(path) as archive:
            return [
                (Path(member.name).stem, _decode(archive.extractfile(member).read(), member.name))
                for member in archive
                if member.isfile() and member.name.endswith(".txt")
            ]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TrainError(f'Cannot read "{path}": {error}', 3) from error


def _decode(content: bytes, file: str | Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TrainError(f'"{file}" is no UTF-8 text', 3) from error


def join_wrapped_lines(text: str) -> str:
    """Lines of a paragraph become one; blank lines stay."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def encode(tokenizer: Tokenizer, texts: list[tuple[str, str]]) -> np.ndarray:
    """Token ids of all texts, one after another: uint16 if the vocabulary allows, otherwise uint32."""
    chunks = [text[i : i + CHUNK_CHARS] for _, text in texts for i in range(0, len(text), CHUNK_CHARS)]
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    return np.concatenate([np.array(each.ids, dtype) for each in tokenizer.encode_batch(chunks, add_special_tokens=False)])


def load_tokens(
    paths: list[str], tokenizer: Tokenizer, held_out: Sequence[str] = HELD_OUT, cache: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens to train on, held-out tokens). Encoded once: `cache` is a folder that stores the ids under a hash of texts and tokenizer."""
    texts = read_texts(paths)
    kept_out = [(name, text) for name, text in texts if any(part in name for part in held_out)]
    training = [pair for pair in texts if pair not in kept_out]
    if not training:
        raise TrainError(f"All of the data is held out ({', '.join(held_out)})", 3)
    held = _encode_cached(tokenizer, kept_out, cache) if kept_out else np.zeros(0, np.uint16)
    return _encode_cached(tokenizer, training, cache), held


def load_answers(path: str | Path, folder: str | Path, tokenizer: Tokenizer) -> list[np.ndarray]:
    """Token ids of each question and answer in a file of `pagesift generate --jsonl`, in the chat template of the model in `folder`."""
    from transformers import AutoTokenizer

    try:
        lines = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
        answers = [(line["question"], line["text"], line.get("finish") == "length") for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError(f'Cannot read "{path}": {error}; expected one line {{"question", "text"}} per answer', 3) from error
    chat = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not answers or not chat.chat_template:
        raise TrainError(f'No answers in "{path}"' if not answers else f'"{folder}" has no chat template, which --answers requires', 3)

    def conversation(asked: str, answer: str, cut: bool) -> str:
        """An answer that was cut off has no end of its turn."""
        text = chat.apply_chat_template([dict(role="user", content=asked), dict(role="assistant", content=answer)], tokenize=False)
        return text[: text.rindex(answer) + len(answer)] if cut else text

    texts = [conversation(*each) for each in answers]
    return [np.array(each.ids) for each in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _encode_cached(tokenizer: Tokenizer, texts: list[tuple[str, str]], cache: str | None) -> np.ndarray:
    if cache is None:
        return encode(tokenizer, texts)
    digest = hashlib.sha256(tokenizer.to_str().encode())
    for name, text in texts:
        digest.update(f"\0{name}\0{text}".encode())
    file = Path(cache) / f"tokens-{digest.hexdigest()[:20]}.npy"
    if not file.exists():
        tokens = encode(tokenizer, texts)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.tmp")
        with open(partial, "wb") as stream:
            np.save(stream, tokens)
        os.replace(partial, file)
    return np.load(file)
