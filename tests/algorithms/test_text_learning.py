"""The whole way on two letters: a transformer learns to write, to answer, and by reward to answer rightly."""

import copy
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.algorithms import tiny_text
from tests.algorithms.training import start
from torchward.algorithms import grpo, ppo, pretrain, sft
from torchward.language.documents import Document
from torchward.language.text_task import Text
from torchward.metrics import read_metrics
from torchward.nets.language_model import LanguageModel
from torchward.nets.transformer_config import gpt2

PRETRAIN = pretrain.Config(
    total_timesteps=20_000,
    max_length=8,
    learning_rate=1e-2,
    weight_decay=0.0,
    model=replace(gpt2(8, 32, 2, 2, 32), initializer_range=0.02),
)
SFT = sft.Config(total_timesteps=5_000, max_length=8, per_device_train_batch_size=8, learning_rate=3e-3)
RL: dict[str, tuple[ModuleType, Any]] = {
    "grpo": (grpo, grpo.Config(total_timesteps=12_000, learning_rate=2e-3)),
    "ppo": (
        ppo,
        ppo.Config(total_timesteps=10_000, n_envs=64, n_steps=3, batch_size=96, n_epochs=2, learning_rate=2e-3,
                   learning_rate_schedule="linear", gamma=1.0, vf_coef=0.1),
    ),
}  # fmt: skip


def task() -> Text:
    """All pairs are asked in an evaluation: what is shown here is that it learns, on so few not that it generalises."""
    made = tiny_text.task().problems
    read = [Document(each.text, each.origin) for each in made.train]
    return Text(replace(made, test=[*made.train, *made.test], corpus=read))


def score(policy: LanguageModel) -> float:
    returns = task().evaluate(policy, 100, 0).returns
    return sum(returns) / len(returns)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """One that answers a good half of the pairs."""
    path = tmp_path_factory.mktemp("runs")
    policy = pretrain.train(PRETRAIN, task(), start(path / "pretrain", pretrain, PRETRAIN, task()))
    bits = [row["bits_per_byte"] for row in read_metrics(path / "pretrain")]
    assert bits[0] > 3.0 and bits[-1] < 2.5
    assert score(policy) < 0.3, "it can write, and has not been told what for"
    return sft.train(SFT, task(), start(path / "sft", sft, SFT, task()), policy)


def test_fine_tuning_teaches_to_answer(tuned: LanguageModel) -> None:
    assert 0.4 < score(tuned) < 0.85


@pytest.mark.parametrize("name", RL)
def test_reward_teaches_to_answer_rightly(name: str, tuned: LanguageModel, tmp_path: Path) -> None:
    module, config = RL[name]
    policy = module.train(config, task(), start(tmp_path / name, module, config, task()), copy.deepcopy(tuned))
    assert score(policy) > 0.92 > score(tuned)
    rows = read_metrics(tmp_path / name)
    assert rows[-1]["return"] > rows[0]["return"] + 0.3
