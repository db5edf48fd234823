"""Tokens a second of transformers' generate; benchmarks/generation.py starts it."""

import argparse
import importlib.metadata
import json
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
    options.add_argument("--repetitions", type=int, required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    told = json.loads(given.told.read_text())
    lengths = told["lengths"]
    model: Any = AutoModelForCausalLM.from_pretrained(given.model)
    model.eval()
    prompts = torch.tensor(told["prompts"])
    ends = torch.tensor(lengths) + prompts.shape[1]
    seconds = []
    for _ in range(1 + given.repetitions):
        start = time.perf_counter()
        for some, until in zip(prompts.split(told["batch"]), ends.split(told["batch"]), strict=True):
            made = model.generate(
                some, attention_mask=torch.ones_like(some), max_new_tokens=int(until.max()) - prompts.shape[1],
                do_sample=True, top_k=0, pad_token_id=0, eos_token_id=None,
                stopping_criteria=StoppingCriteriaList([AtLengths(until)]),
            )  # fmt: skip
            assert made.shape[1] == int(until.max())
        seconds.append(time.perf_counter() - start)
    answer = {
        "tokens_per_second": round(sum(lengths) / min(seconds[1:]), 1),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
