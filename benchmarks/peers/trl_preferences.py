"""Seconds and memory of a step of TRL's DPO, and of its reward models; benchmarks/preference_step.py starts it."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from benchmarks.peers.trl_step import Clock, measure, text, tokenizer


def steps(path: str, told: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """The steps, on the pairs as they come; and the mean of their losses."""
    drawn = told["drawn"]
    columns = {
        "prompt": [text(pair["prompt"]) + " " for pair in drawn],  # so that no word runs into the answer's first
        "chosen": [text(pair["chosen"]) for pair in drawn],
        "rejected": [text(pair["rejected"]) for pair in drawn],
    }
    same: dict[str, Any] = {
        "per_device_train_batch_size": told["batch"], "max_steps": told["steps"],
        "learning_rate": told["learning_rate"], "lr_scheduler_type": "constant", "weight_decay": 0.0,
        "max_grad_norm": told["max_grad_norm"], "train_sampling_strategy": "sequential", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1_000_000,
        "disable_tqdm": True, "seed": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        same["output_dir"] = directory
        given: dict[str, Any] = {
            "train_dataset": Dataset.from_dict(columns), "processing_class": tokenizer(told), "callbacks": [clock],
        }  # fmt: skip
        if told["case"] == "dpo":
            policy = AutoModelForCausalLM.from_pretrained(path)
            trainer = DPOTrainer(model=policy, args=DPOConfig(beta=told["beta"], **same), **given)
        else:
            judge = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
            with torch.no_grad():
                judge.score.weight.copy_(torch.tensor(told["head"]))
            centre = told["center_rewards_coefficient"]
            trainer = RewardTrainer(model=judge, args=RewardConfig(center_rewards_coefficient=centre, **same), **given)
        result = trainer.train()
    return {"loss": result.training_loss}


if __name__ == "__main__":
    measure(steps)
