"""What the steps of TRL's trainers share: a tokenizer whose word t5 is token 5, a clock, the answer."""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, TrainerCallback

from benchmarks.steps import measured, peak


class Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.moments = [time.perf_counter()]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.moments = [time.perf_counter()]

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.moments.append(time.perf_counter())


def tokenizer(told: dict[str, Any]) -> Any:
    """One whose words are numbers."""
    words = {f"t{i}": i for i in range(told["vocab_size"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="t0"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end, pad = f"t{told['eos_id']}", f"t{told['pad_id']}"
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=plain, eos_token=end, pad_token=pad, padding_side="left")


def text(ids: list[int]) -> str:
    """The tokens as words."""
    return " ".join(f"t{token}" for token in ids)


def measure(steps: Callable[[str, dict[str, Any], Clock], dict[str, Any]]) -> None:
    """Do the steps that the options ask for, and print what they took. Whoever calls it has imported all.

    ``steps`` is given the model's directory, what is told, and a clock; what it returns is printed too."""
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--told", type=Path, required=True)
    options.add_argument("--threads", type=int, required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    before, clock = peak(), Clock()
    more = steps(given.model, json.loads(given.told.read_text()), clock)
    answer = {
        **measured(clock.moments, len(clock.moments) - 1, before, torch.get_num_threads()),
        **more,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")},
    }
    print(json.dumps(answer))
