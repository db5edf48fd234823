"""Seconds and memory of a step of TRL's GRPO; benchmarks/grpo_step.py starts it."""

import tempfile
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from benchmarks.peers.trl_step import Clock, measure, text, tokenizer


def steps(path: str, told: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """The steps."""
    words = tokenizer(told)
    model = AutoModelForCausalLM.from_pretrained(path)

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(len(set(completion.split()))) for completion in completions]

    with tempfile.TemporaryDirectory() as directory:
        config = GRPOConfig(
            output_dir=directory, per_device_train_batch_size=told["completions"], num_generations=told["group"],
            max_completion_length=told["new"], beta=told["beta"], max_steps=told["steps"], learning_rate=1e-4,
            temperature=1.0, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            save_strategy="no", logging_steps=1_000, disable_tqdm=True, seed=0,
        )  # fmt: skip
        prompts = Dataset.from_dict({"prompt": [text(prompt) for prompt in told["prompts"]]})
        trainer = GRPOTrainer(
            model=model, reward_funcs=reward, args=config, train_dataset=prompts, processing_class=words,
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    return {}


if __name__ == "__main__":
    measure(steps)
