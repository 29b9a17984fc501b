"""The oracle of an evaluation chooses the pages that the one of `pagesift bench` and `inspect-pages` chooses.

`tests/fixtures/oracle.json` has its pages for the cases of `tests/fixtures/unique`; `tests/bench/oracle_pages_test.ts` checks the same
file. This rewrites it, from the root of the checkout: `PYTHONPATH=scripts python tests/train/test_oracle.py --write`.
"""

from __future__ import annotations

import json
import sys
import unittest

import numpy as np
import torch
import unique_reference as numpy_reference
from safetensors.numpy import load_file
from support import ROOT
from train import decode

FIXTURES = ROOT / "tests" / "fixtures"
EXPECTED = FIXTURES / "oracle.json"


def case_of(name: str) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Facts and arrays of a case: q [Hq, d], k and v [n, Hk, d]."""
    facts = json.loads((FIXTURES / "unique" / f"{name}.json").read_text())
    return facts, load_file(FIXTURES / "unique" / f"{name}.safetensors")


def reference_pages(facts: dict[str, int], arrays: dict[str, np.ndarray]) -> list[list[int]]:
    """By the normative reference in float64: masses averaged over the query heads of a KV head, then the selection of all scorers."""
    q, k, v = (arrays[name].astype(np.float64) for name in ("q", "k", "v"))
    _, mass = numpy_reference.attend(q, k, v, facts["page_size"])
    grouped = mass.reshape(facts["num_kv_heads"], -1, mass.shape[-1]).mean(1)
    limits = facts["budget_tokens"], facts["page_size"], facts["sink_pages"], facts["recent_pages"]
    return numpy_reference.select_pages(grouped, *limits)


def decoded_pages(facts: dict[str, int], arrays: dict[str, np.ndarray]) -> list[list[int]]:
    """By the code of `train.evaluate`; the prompt has all tokens but the last page's."""
    size, heads = facts["page_size"], facts["num_kv_heads"]
    k, v = (torch.from_numpy(arrays[name]).transpose(0, 1)[None] for name in ("k", "v"))
    complete = facts["n"] // size
    tail = k[None, :, :, complete * size :], v[None, :, :, complete * size :]
    queries = torch.from_numpy(arrays["q"]).unflatten(0, (heads, -1))[None, None]
    step = decode.LayerStep(queries, (k, v), tail, complete, facts["head_dim"] ** -0.5, size)
    masses = step.masses(step.weights(slice(0, 1)))
    limits = facts["budget_tokens"] // size, facts["sink_pages"], facts["recent_pages"]
    return decode.select(masses, step.pages, *limits)[0, 0].sort(-1).values.tolist()


class Oracle(unittest.TestCase):
    def test_pages_are_those_of_the_shared_file(self) -> None:
        for name, pages in json.loads(EXPECTED.read_text()).items():
            with self.subTest(name):
                facts, arrays = case_of(name)
                self.assertEqual(decoded_pages(facts, arrays), pages)
                self.assertEqual(reference_pages(facts, arrays), pages)


def write() -> None:
    """Cases whose cut lies between two pages of equal mass say nothing about the ranking and are left out."""
    names = sorted(path.stem for path in (FIXTURES / "unique").glob("*.json") if path.stem != "ties")
    EXPECTED.write_text(json.dumps({name: reference_pages(*case_of(name)) for name in names}) + "\n")


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        unittest.main()
