"""One core: `ppo.py`, unchanged, trains a transformer that writes tokens."""

import copy
from pathlib import Path

import torch

from tests.algorithms.toy_tokens import COMPLETION, LENGTH, PROMPT, Completions, KLToReference, Reverse, TinyGPT
from torchward.algorithms import ppo
from torchward.data.protocols import Policy, Shaping, Source, Task
from torchward.data.random import seeded
from torchward.metrics import read_metrics
from torchward.run import Run, RunOptions

CONFIG = ppo.Config(
    total_timesteps=128 * (LENGTH - 1) * 60,
    n_envs=128,
    n_steps=LENGTH - 1,
    batch_size=64 * (LENGTH - 1),
    n_epochs=4,
    learning_rate=3e-3,
    learning_rate_schedule="linear",
    gamma=1.0,
    gae_lambda=0.9,
    ent_coef=0.05,
)


def tiny() -> TinyGPT:
    with seeded(0, "policy"):
        return TinyGPT()


def test_the_toy_speaks_the_protocols() -> None:
    assert isinstance(tiny(), Policy)
    assert isinstance(Completions(2, 0), Source)
    assert isinstance(Reverse(), Task)
    assert isinstance(KLToReference(tiny(), 0.1), Shaping)


def test_ratio_is_one_with_a_key_value_cache() -> None:
    policy = tiny()
    rollout = Completions(32, 1).collect(policy, None)
    batch = rollout.credited(rollout.reward, rollout.reward)
    for minibatch in batch.minibatches(8 * (LENGTH - 1), torch.Generator().manual_seed(0), policy.history):
        assert minibatch.log_prob.shape == (8, LENGTH - 1)
        evaluated = policy.evaluate_actions(
            minibatch.observation, minibatch.action, minibatch.state, minibatch.boundary
        )
        gap = (evaluated.log_prob - minibatch.log_prob)[minibatch.loss_mask]
        assert gap.abs().max() < 1e-4


def test_prompts_are_never_trained_on_and_long_completions_are_truncated() -> None:
    rollout = Completions(64, 2).collect(tiny(), None)
    assert not rollout.loss_mask[:, : PROMPT - 1].any()
    unended = ~rollout.terminated.any(1)
    assert unended.any() and not unended.all()
    assert rollout.loss_mask[unended].sum(1).eq(COMPLETION).all()
    assert rollout.boundary[unended][:, -1].all()


def test_ppo_learns_to_reverse_with_a_kl_to_its_beginnings(tmp_path: Path) -> None:
    policy, task = tiny(), Reverse()
    before = sum(task.evaluate(policy, 256, 7).returns) / 256
    run = Run(
        tmp_path / "run",
        RunOptions(tensorboard=False, progress=False, n_eval_episodes=64),
        total=CONFIG.total_timesteps,
        manifest={"algorithm": "ppo", "task": task.name, "config": {}},
    )
    ppo.train(CONFIG, task, run, policy=policy, shaping=[KLToReference(copy.deepcopy(policy), 0.01)])
    after = sum(task.evaluate(policy, 256, 7).returns) / 256
    assert before < 0.5 and after > 0.9, (before, after)
    assert any(row.get("kl", 0.0) > 0.1 for row in read_metrics(tmp_path / "run"))
