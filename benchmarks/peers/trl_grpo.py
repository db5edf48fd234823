"""Seconds and memory of a step of TRL's GRPO; benchmarks/grpo_step.py starts it."""

import argparse
import importlib.metadata
import json
import resource
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.moments = [time.perf_counter()]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.moments = [time.perf_counter()]

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.moments.append(time.perf_counter())


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--told", type=Path, required=True)
    options.add_argument("--threads", type=int, required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    before = peak()
    told = json.loads(given.told.read_text())
    words = {f"t{i}": i for i in range(told["vocab_size"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="t0"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end, pad = f"t{told['eos_id']}", f"t{told['pad_id']}"
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=plain, eos_token=end, pad_token=pad, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(given.model)
    prompts = [" ".join(f"t{token}" for token in prompt) for prompt in told["prompts"]]

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(len(set(completion.split()))) for completion in completions]

    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        config = GRPOConfig(
            output_dir=directory, per_device_train_batch_size=told["completions"], num_generations=told["group"],
            max_completion_length=told["new"], beta=told["beta"], max_steps=told["steps"], learning_rate=1e-4,
            temperature=1.0, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            save_strategy="no", logging_steps=1_000, disable_tqdm=True, seed=0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model, reward_funcs=reward, args=config, train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer, callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    seconds = [b - a for a, b in pairwise(clock.moments)]
    answer = {
        "seconds": round(statistics.median(seconds[told["warm"] :]), 4),
        "peak_mb": round(peak() - before, 1),
        "steps": len(seconds),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
