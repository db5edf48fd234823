"""A student that keeps what its teacher does well, and earns the rest: words of two letters, written backwards. The
teacher was shown a third of them; its student begins where the teacher began, and is shown none but the teacher.

python docs/figures/distillation_reward.py   (about a minute of one core)
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

import torchward
from torchward.algorithms.distill import Always, AsGood, Rewarded, Unrewarded, WhereBetter
from torchward.nets import saving
from torchward.run import RunOptions
from torchward.tasks import find, reversal

DOCS = Path(__file__).resolve().parents[1]
SEEDS = 5
WORDS = reversal.Options(letters=12, shortest=2, longest=2, demonstrations=20, problems=60, test=18)
QUIET = RunOptions(tensorboard=False, progress=False, eval_freq=-1, checkpoint_freq=-1)
REWARDS: dict[str, Any] = {
    "the teacher alone": Unrewarded(), "always, and reward": Rewarded(follow=Always()),
    "as good as it is": Rewarded(follow=AsGood()), "where it is better": Rewarded(follow=WhereBetter()),
}  # fmt: skip
ALONE = "reward alone (GRPO)"
TOLD: dict[str, Any] = {
    "total_timesteps": 12_000, "lmbda": 1.0, "objective": "reversekl", "learning_rate": 2e-3,
    "per_device_train_batch_size": 64,
}  # fmt: skip
PAID: dict[str, Any] = {
    "total_timesteps": 12_000, "num_generations": 4, "learning_rate": 2e-3, "lr_scheduler_type": "linear",
    "warmup_ratio": 0.05, "normalisation": "token_mean", "per_device_train_batch_size": 64,
}  # fmt: skip
"""The same steps of GRPO."""


def right(path: Path) -> dict[str, bool]:
    """Of each word that is learnt by reward, whether a run's last policy answers it rightly."""
    from dataclasses import replace

    from torchward.language.play import play

    policy: Any = saving.load(path, which="last")
    task: Any = find.task("reversal", WORDS).task.using(policy)
    problems = replace(task.problems, test=task.problems.train)
    lines = play(policy, problems, problems.test, task.tokenizer, task.template, max_completion_length=3)
    return {line.document.origin: sum(line.rewards) == 1.0 for line in lines}


def measure(home: Path) -> dict[str, list[dict[str, float]]]:
    """Of each seed: the share that is right, of all, of what the teacher had right, and of the rest."""
    found: dict[str, list[dict[str, float]]] = {"the teacher": [], **{name: [] for name in REWARDS}, ALONE: []}
    for seed in range(SEEDS):
        given: dict[str, Any] = {"options": QUIET, "env": WORDS, "seed": seed, "threads": 1}
        first = torchward.train(
            "pretrain", "reversal", path=home / f"first-{seed}", total_timesteps=4_000, max_length=16, hidden_size=32,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16, learning_rate=3e-3, **given,
        )  # fmt: skip
        teacher = torchward.train(
            "sft", "reversal", path=home / f"teacher-{seed}", init=first.path, total_timesteps=5_000, max_length=16,
            learning_rate=3e-3, per_device_train_batch_size=8, **given,
        )  # fmt: skip
        before = right(teacher.path)
        for name, seeds in found.items():
            run = teacher
            if name == ALONE:
                run = torchward.train(
                    "grpo", "reversal", path=home / f"{name}-{seed}", init=first.path, **PAID, **given
                )
            elif name in REWARDS:
                run = torchward.train(
                    "distill", "reversal", path=home / f"{name}-{seed}", init=first.path, teacher=teacher.path,
                    reward=REWARDS[name], **TOLD, **given,
                )  # fmt: skip
            now = right(run.path)
            kept, earned = ([now[word] for word in before if before[word] is was] for was in (True, False))
            shares = {"right": list(now.values()), "kept": kept, "earned": earned}
            seeds.append({key: statistics.fmean(each) for key, each in shares.items() if each})
    return found


def show(found: dict[str, list[dict[str, float]]]) -> None:
    """The means over seeds."""
    print(f"{'followed':<22}{'right':>8}{'kept':>8}{'earned':>8}")
    for name, seeds in found.items():
        means = [statistics.fmean(each[key] for each in seeds if key in each) for key in ("right", "kept", "earned")]
        print(f"{name:<22}" + "".join(f"{mean:8.1%}" for mean in means))


def main(args: list[str] | None = None) -> None:
    """Train, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "distillation_reward.json")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        found = measure(Path(home))
    options.data.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


if __name__ == "__main__":
    main()
