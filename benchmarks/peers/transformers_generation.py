"""A generation by transformers for each line that is read; benchmarks/generation.py starts it."""

import argparse
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList


class AtLengths(StoppingCriteria):
    """Each completion ends at its own length."""

    def __init__(self, ends: torch.Tensor) -> None:
        self.ends = ends

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return input_ids.shape[1] >= self.ends


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--told", type=Path, required=True)
    options.add_argument("--threads", type=int, required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    told = json.loads(given.told.read_text())
    lengths = told["lengths"]
    model: Any = AutoModelForCausalLM.from_pretrained(given.model)
    model.eval()
    prompts = torch.tensor(told["prompts"])
    ends = torch.tensor(lengths) + prompts.shape[1]

    def once() -> float:
        start = time.perf_counter()
        for some, until in zip(prompts.split(told["batch"]), ends.split(told["batch"]), strict=True):
            made = model.generate(
                some, attention_mask=torch.ones_like(some), max_new_tokens=int(until.max()) - prompts.shape[1],
                do_sample=True, top_k=0, pad_token_id=0, eos_token_id=None,
                stopping_criteria=StoppingCriteriaList([AtLengths(until)]),
            )  # fmt: skip
            assert made.shape[1] == int(until.max())
        return time.perf_counter() - start

    once()
    answer = {
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        print(once(), flush=True)


if __name__ == "__main__":
    main()
