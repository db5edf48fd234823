"""Rewards in parts from a document to a run's metrics, and words of warning while a policy learns to hack one."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import torchward
from tests.algorithms import tiny_text
from tests.language.letters import LETTERS, policy, problems, source
from torchward.algorithms import grpo, ppo
from torchward.data.kl import KLToReference, frozen
from torchward.language.documents import Completion, Document, Prompt
from torchward.language.hacking import Bounds
from torchward.language.play import shown
from torchward.language.reward_sum import Sum, Weighted
from torchward.language.rewards import exact_match
from torchward.language.source import TextSource
from torchward.language.text_task import Text
from torchward.language.watch import Watch, written
from torchward.run import Run, RunOptions

QUIET = RunOptions(tensorboard=False, progress=False, eval_freq=-1, checkpoint_freq=-1)


def letters(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(len(said)) for said in completions]


def vowels(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(said.count("a") + said.count("e")) for said in completions]


PARTS = Sum((Weighted("letters", letters, 0.5), Weighted("vowels", vowels, -2.0)))


def test_the_parts_of_a_reward_come_with_the_rollout() -> None:
    made = source(problems(reward=PARTS), n=24)
    rollout = made.collect(policy(), None)
    parts, earned = rollout.context["parts"], rollout.context["earned"]
    assert isinstance(parts, dict) and isinstance(earned, Tensor)
    said = ["".join(line.said) for line in made.lines]
    assert parts["letters"].tolist() == letters([], said) and parts["vowels"].tolist() == vowels([], said)  # type: ignore[union-attr]
    weighted = [0.5 * a - 2.0 * b for a, b in zip(letters([], said), vowels([], said), strict=True)]
    assert earned.tolist() == pytest.approx(weighted) == rollout.reward.sum(1).tolist()
    assert "parts" not in source(n=12).collect(policy(), None).context


def test_a_reward_is_told_the_completion_of_its_document() -> None:
    document = Document(Completion("1+1=", "2"), "line 1", {"answer": "two"})
    assert shown(document) == {"completion": "2", "answer": "two"}
    assert shown(replace(document, columns={"completion": "own"})) == {"completion": "own"}
    assert shown(Document(Prompt("1+1="), "line 2", {"a": 1})) == {"a": 1}


def test_what_a_rollout_says_of_its_answers() -> None:
    of = policy()
    made = source(problems(reward=PARTS), n=12)
    rollout, _ = KLToReference(frozen(policy(ends=-1.0)), 0.25).shape(made.collect(of, None))
    seen = written(rollout, 2)
    said = ["".join(line.said) for line in made.lines]
    assert seen.reward.tolist() == pytest.approx([sum(line.rewards) for line in made.lines]), "before what KL takes"
    assert seen.length.tolist() == [sum(line.own) for line in made.lines]
    assert seen.group.tolist() == [0.0] * 3 + [1.0] * 3 + [2.0] * 3 + [3.0] * 3
    assert seen.parts["letters"].tolist() == letters([], said)
    assert seen.cut.tolist() == [float(not line.ended) for line in made.lines] and 0.0 < seen.cut.mean() < 1.0
    firsts = [[token for token, own in zip(line.ids, line.own, strict=True) if own] for line in made.lines[::3]]
    pairs = [pair for ids in firsts for pair in pairwise(ids)]
    assert list(seen.distinct) == pytest.approx([len(set(pairs)) / len(pairs)])
    assert seen.divergence is not None and rollout.reference_log_prob is not None
    row = [float(a - b) for a, b, own in zip(rollout.log_prob[5], rollout.reference_log_prob[5],
                                             rollout.loss_mask[5], strict=True) if own]  # fmt: skip
    assert seen.divergence[5] == pytest.approx(sum(row), abs=1e-5)


def learn(module: ModuleType, config: Any, task: Text, path: Path, watch: Watch, total: int | None = None) -> None:
    run = Run(path, QUIET, total=total or config.total_timesteps, manifest={})
    module.train(config, task, run, tiny_text.policy(task), shaping=[watch])


def hackable() -> Text:
    """Pairs of letters to be turned round, paid by the letter: what is long earns most, whatever it says."""
    task = tiny_text.task()
    return Text(replace(task.problems, reward=letters, max_completion_length=20), task.tokenizer)


GRPO = grpo.Config(
    total_timesteps=3_000, num_generations=4, generation_batch_size=32, learning_rate=1e-2, seed=0,
    per_device_train_batch_size=32,
)  # fmt: skip
PPO = ppo.Config(
    total_timesteps=5_120, n_envs=32, n_steps=20, batch_size=640, n_epochs=2, learning_rate=1e-2, gamma=1.0,
)  # fmt: skip


@pytest.mark.parametrize(("module", "config"), [(grpo, GRPO), (ppo, PPO)], ids=["grpo", "ppo"])
def test_a_policy_that_learns_to_be_long_is_caught(module: ModuleType, config: Any, tmp_path: Path) -> None:
    said: list[str] = []
    learn(module, config, hackable(), tmp_path / "run", Watch(said.append, window=64))
    assert any("longer answers earn more" in each for each in said), said
    assert len(said) < 4, "a warning is not repeated while it stands"


def test_a_policy_that_learns_what_is_meant_is_not_accused(tmp_path: Path) -> None:
    said: list[str] = []
    task = tiny_text.task(graded=True)
    config = replace(GRPO, total_timesteps=2_000)
    learn(grpo, config, task, tmp_path / "run", Watch(said.append, window=64))
    assert said == []


def test_parts_and_warnings_stand_in_the_metrics(tmp_path: Path) -> None:
    task = tiny_text.task()
    both = Sum((Weighted("right", exact_match), Weighted("letters", letters, 0.1)))
    task = Text(replace(task.problems, reward=both), task.tokenizer)
    run = torchward.train(
        "grpo", task, path=tmp_path / "run", policy=tiny_text.policy(task), options=QUIET, kl_budget=1e-9,
        total_timesteps=400, generation_batch_size=32, num_generations=4, learning_rate=1e-2,
    )  # fmt: skip
    rows = [row for row in run.rows() if "reward" in row]
    for row in rows:
        assert row["reward"] == pytest.approx(row["reward/right"] + 0.1 * row["reward/letters"], abs=1e-5)
        assert row["beta"] == 0.0 and "kl_row" in row
    assert rows[0]["kl_row"] == pytest.approx(0.0, abs=1e-4) and rows[-1]["kl_row"] > 0.01


def test_a_watch_goes_on_where_it_stopped() -> None:
    made = source(problems(reward=letters), n=12)
    rollouts = [made.collect(policy(ends=1.0 - i / 4), None) for i in range(12)]
    said: list[str] = []
    whole = Watch(said.append, Bounds(moved=0.0, explained=0.1, z=1.0), window=24, n=2)
    metrics = [whole.shape(each)[1] for each in rollouts]
    assert any(row["warnings"] for row in metrics)
    for cut in (0, 1, 3, 7):
        again: list[str] = []
        one = Watch(again.append, whole.bounds, window=24, n=2)
        seen = [one.shape(each)[1] for each in rollouts[:cut]]
        other = Watch(again.append, whole.bounds, window=24, n=2)
        other.load_state_dict(one.state_dict())
        seen += [other.shape(each)[1] for each in rollouts[cut:]]
        assert seen == metrics and again == said
        assert sum(len(each.reward) for each in other.lately) in range(24, 36), "no more is kept than is looked at"


def test_a_rollout_is_left_as_it_is() -> None:
    made: TextSource = source(n=12)
    rollout = made.collect(policy(), None)
    same, _ = Watch(print).shape(rollout)
    assert same is rollout and LETTERS.vocab_size and torch.isfinite(rollout.reward).all()
