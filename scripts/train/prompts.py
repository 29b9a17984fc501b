"""Writes prompts for a chat model, whose answers keep its abilities while it is tuned on books (--answers of train.finetune).

    python -m train.prompts --data FILE... --out prompts.jsonl
    pagesift generate -m MODEL --chat --jsonl prompts.jsonl -n 160 --temp 0.7 --top-p 0.95 --seed 1 > answers.jsonl

Each line has the prompt twice: as "prompt", and as "question", which `pagesift generate` copies beside the answer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .arguments import make_parser
from .checkpoint import write_file
from .data import HELD_OUT, read_texts
from .errors import run_main
from .loop import say

if TYPE_CHECKING:
    from collections.abc import Sequence


TOPICS = (
    *("the water cycle", "how bread rises", "the French Revolution", "photosynthesis", "learning to play chess", "the moon"),
    *("saving money", "healthy breakfasts", "the printing press", "how vaccines work", "growing tomatoes", "public libraries"),
    *("earthquakes", "writing a good letter", "bees", "the Roman Empire", "friendship", "how a bicycle stays upright"),
    *("electric cars", "sleep", "the alphabet", "ocean currents", "job interviews", "composting", "the violin", "prime numbers"),
    *("volcanoes", "time zones", "recycling", "the human heart", "first aid", "gravity", "maps", "the Silk Road", "penguins"),
    *("insulation of houses", "regular exercise", "how airplanes fly", "rainbows", "the Industrial Revolution"),
)
TASKS = (
    "Explain {} to a ten-year-old.",
    "Write a short paragraph about {}.",
    "Give me five useful facts about {}.",
    "Why does {} matter? Answer in two sentences.",
    "Write a short story in which {} plays a part.",
    "What is a common mistake that people make about {}?",
    "Write a polite email to a teacher asking for advice about {}.",
    "List three questions that a beginner asks about {}, with answers.",
)
READING_TASKS = (
    "Summarise this text in three sentences.",
    "Who appears in this text? Answer with a short list.",
    "What happens first in this text, and what happens last?",
    "What is the mood of this text? Quote a few words that show it.",
    "Suggest a title for this text and explain it in one sentence.",
)
PASSAGE_CHARACTERS = (3_000, 12_000)


def parse() -> argparse.Namespace:
    parser = make_parser("prompts", __doc__)
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="books from which passages are taken")
    parser.add_argument("--held-out", nargs="*", default=list(HELD_OUT), metavar="NAME")
    parser.add_argument("--passages", type=int, default=80, help="prompts about a passage of a book, default 80")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True, metavar="FILE")
    return parser.parse_args()


def prompts(texts: Sequence[str], passages: int, seed: int) -> Iterator[str]:
    """Every task about every topic, then questions about passages of the books."""
    for task in TASKS:
        yield from (task.format(topic) for topic in TOPICS)
    rng = np.random.default_rng(seed)
    for index in range(passages):
        text = texts[rng.integers(len(texts))]
        size = min(int(rng.integers(*PASSAGE_CHARACTERS)), len(text))
        start = rng.integers(0, len(text) - size + 1)
        yield f"{text[start : start + size].strip()}\n\n{READING_TASKS[index % len(READING_TASKS)]}"


def main() -> None:
    options = parse()
    texts = [text for name, text in read_texts(options.data) if not any(part in name for part in options.held_out)]
    lines = [json.dumps(dict(prompt=text, question=text)) + "\n" for text in prompts(texts, options.passages, options.seed)]
    write_file(options.out, lambda stream: stream.writelines(lines), binary=False)
    say(f'Wrote "{options.out}", {len(lines)} prompts')


if __name__ == "__main__":
    run_main(main)
