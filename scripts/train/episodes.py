"""Retrieval episodes: prose with planted facts and later questions, and the trials of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# The words and sentences that the default model knows (models/default/README.md).
ADJECTIVES = [
    "amber",
    "brass",
    "copper",
    "dusty",
    "eager",
    "frozen",
    "gentle",
    "hollow",
    "iron",
    "jolly",
    "keen",
    "lonely",
    "misty",
    "noble",
    "olive",
    "proud",
    "quiet",
    "rusty",
    "silver",
    "tender",
    "upper",
    "vivid",
    "white",
    "young",
    "ancient",
    "bitter",
    "clever",
    "distant",
    "early",
    "faint",
    "golden",
    "humble",
]
NOUNS = [
    "falcon",
    "harbor",
    "lantern",
    "meadow",
    "mountain",
    "orchard",
    "palace",
    "river",
    "shepherd",
    "station",
    "temple",
    "village",
    "window",
    "garden",
    "bridge",
    "castle",
    "captain",
    "doctor",
    "farmer",
    "letter",
    "market",
    "miller",
    "parlor",
    "sailor",
    "soldier",
    "stable",
    "teacher",
    "tower",
    "valley",
    "widow",
    "wagon",
    "forest",
]
QUESTION_WEIGHT, ANSWER_WEIGHT = 0.3, 6.0
TRIAL_FACTS, TRIAL_DIGITS = 8, 5


def statement(name: str | None, value: str) -> str:
    return f" The pass key is {value}. Remember it." if name is None else f" The code for the {name} is {value}."


def question(name: str | None) -> str:
    if name is None:
        return "\n\nWhat is the pass key? The pass key is"
    return f"\n\nWhat is the code for the {name}? The code for the {name} is"


def draw_names(rng: np.random.Generator, count: int, pass_key_share: float) -> list[str | None]:
    """Distinct names; None is the pass key."""
    names: list[str | None] = []
    while len(names) < count:
        name = None if rng.random() < pass_key_share else f"{ADJECTIVES[rng.integers(len(ADJECTIVES))]} {NOUNS[rng.integers(len(NOUNS))]}"
        if name not in names:
            names.append(name)
    return names


def draw_value(rng: np.random.Generator, digits: int) -> str:
    return "".join(map(str, rng.integers(0, 10, digits)))


class Sampler:
    """Draws training rows. A row depends only on the seed, the step and its index, not on the worker or the time."""

    def __init__(
        self,
        tokens: np.ndarray,
        tokenizer: Tokenizer,
        seed: int,
        retrieval_share: float,
        answers: Sequence[np.ndarray] = (),
        answers_share: float = 0.0,
    ) -> None:
        self.tokens, self.tokenizer, self.seed, self.retrieval_share = tokens, tokenizer, seed, retrieval_share
        self.answers, self.answers_share = answers, answers_share

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def row(self, step: int, place: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids [length], weights [length] of each id as a target)."""
        rng = np.random.default_rng([self.seed, step, place])
        drawn = rng.random()
        if drawn < self.retrieval_share:
            return self.episode(rng, length)
        ids = self.conversations(rng, length) if drawn < self.retrieval_share + self.answers_share else self.prose(rng, length)
        return ids, np.ones(length, np.float32)

    def prose(self, rng: np.random.Generator, length: int) -> np.ndarray:
        start = rng.integers(0, len(self.tokens) - length + 1)
        return self.tokens[start : start + length].astype(np.int64)

    def conversations(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """Questions and answers one after another, the last one cut off."""
        parts, count = [], 0
        while count < length:
            parts.append(self.answers[rng.integers(len(self.answers))])
            count += len(parts[-1])
        return np.concatenate(parts)[:length].astype(np.int64)

    def episode(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Facts at random positions, each asked once or twice: somewhere after it, or near the end."""
        inserts = []
        for name in draw_names(rng, rng.integers(1, max(2, min(12, length // 256)) + 1), 0.3):
            value, depth = draw_value(rng, rng.integers(4, 7)), rng.random() * 0.95
            inserts.append((depth, 0, *self._weighted((statement(name, value), 1.0))))
            for _ in range(rng.integers(1, 3)):
                asked = depth + (1 - depth) * rng.random() if rng.random() < 0.5 else 0.97 + 0.03 * rng.random()
                parts = (question(name), QUESTION_WEIGHT), (f" {value}.\n\n", ANSWER_WEIGHT)  # the end of a value is part of it
                inserts.append((asked, 1, *self._weighted(*parts)))
        inserts.sort(key=lambda insert: insert[:2])
        free = length - sum(len(ids) for _, _, ids, _ in inserts)
        if free < 64:
            return self.prose(rng, length), np.ones(length, np.float32)
        return plant(self.prose(rng, free), inserts)

    def _weighted(self, *parts: tuple[str, float]) -> tuple[list[int], np.ndarray]:
        encoded = [(self.encode(text), weight) for text, weight in parts]
        return sum((ids for ids, _ in encoded), []), np.concatenate([np.full(len(ids), weight, np.float32) for ids, weight in encoded])


def plant(prose: np.ndarray, inserts: list[tuple[float, int, list[int], np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """inserts [(share of the prose before it, order, ids, weights)] in order -> ids and weights of prose that contains them."""
    ids, weights, done = [], [], 0
    for depth, _, inserted, inserted_weights in inserts:
        place = max(done, int(depth * len(prose)))
        ids += [prose[done:place], np.array(inserted, np.int64)]
        weights += [np.ones(place - done, np.float32), inserted_weights]
        done = place
    return np.concatenate([*ids, prose[done:]]), np.concatenate([*weights, np.ones(len(prose) - done, np.float32)])


@dataclass
class Trial:
    """ids [n]: prose with facts, the question, the answer; the last `answer_tokens` are the expected answer."""

    ids: np.ndarray
    answer_tokens: int
    question_tokens: int


def draw_trial(seed: int, index: int, length: int, prose: np.ndarray, tokenizer: Tokenizer) -> Trial:
    """Trial `index` of a seed: the same for every model and every reader. `length` counts everything but the answer."""
    rng = np.random.default_rng([seed, length, index])
    names = draw_names(rng, TRIAL_FACTS, 0.0)
    values = [draw_value(rng, TRIAL_DIGITS) for _ in names]

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    facts = sorted((rng.random(), 0, encode(statement(name, value)), None) for name, value in zip(names, values, strict=True))
    asked = rng.integers(TRIAL_FACTS)
    tail, answer = encode(question(names[asked])), encode(f" {values[asked]}")
    free = length - len(tail) - sum(len(ids) for _, _, ids, _ in facts)
    start = rng.integers(0, len(prose) - free + 1)
    inserts = [(depth, order, ids, np.ones(len(ids), np.float32)) for depth, order, ids, _ in facts]
    ids, _ = plant(prose[start : start + free].astype(np.int64), inserts)
    return Trial(np.concatenate([ids, tail, answer]), len(answer), len(tail))
