"""What holds for every algorithm file: its config survives JSON, and a run that was stopped goes on bit for bit."""

import importlib
import math
import signal
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchward.algorithms
from tests.algorithms import tiny_text
from tests.algorithms.training import start
from tests.algorithms.worlds import Aim, Corridor, Railing, Recall, Serve
from torchward.algorithms import (
    a2c,
    classify,
    distill,
    dpo,
    dqn,
    dynamic_programming,
    expert_iteration,
    grpo,
    kto,
    masked_lm,
    ppo,
    pretrain,
    q_learning,
    rainbow,
    reinforce,
    reward_model,
    sac,
    sft,
    soft_q,
    td3,
)
from torchward.config import ConfigError, from_json, to_json
from torchward.data.counts import Counts
from torchward.data.curiosity import Curiosity
from torchward.data.exploration import Boltzmann, EpsilonGreedy
from torchward.data.kl import KLToReference, frozen
from torchward.data.protocols import Task
from torchward.data.random_distillation import RandomDistillation
from torchward.data.replay import Prioritised
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.language.text_task import Text
from torchward.metrics import read_metrics
from torchward.nets.actor_body import ActorNet
from torchward.nets.actor_critic import Network
from torchward.nets.lora import LoRA
from torchward.nets.q_network import C51, QR, QNet
from torchward.nets.transformer_config import bert, gpt2

FILES = sorted(path.stem for path in Path(torchward.algorithms.__file__).parent.glob("[a-z]*.py"))
TABLES = ("dynamic_programming", "q_learning")
"""Those that have no optimiser."""
CLOCKS = ("time", "steps_per_second")
REPLAY: dict[str, Any] = {"total_timesteps": 1200, "learning_starts": 100, "buffer_size": 300, "learning_rate": 1e-3}
"""Of an off-policy run: the replay has wrapped around when it is stopped."""
SHORT = REPLAY | {"total_timesteps": 600, "buffer_size": 150}
LSTM = Network(recurrent="lstm", net_arch=(16,), lstm_hidden_size=8)


@pytest.mark.parametrize("name", FILES)
def test_an_algorithm_file_is_complete(name: str) -> None:
    module = importlib.import_module(f"torchward.algorithms.{name}")
    assert module.__doc__ and callable(module.train)
    config = module.Config()
    assert from_json(module.Config, to_json(config)) == config
    changed = replace(config, seed=5, total_timesteps=77)
    assert from_json(module.Config, to_json(changed)) == changed != config
    assert {"total_timesteps", "seed"} <= {field.name for field in fields(module.Config)}


@pytest.mark.parametrize("name", FILES)
def test_numbers_with_which_nothing_can_be_trained_are_refused(name: str) -> None:
    module = importlib.import_module(f"torchward.algorithms.{name}")
    names = {field.name for field in fields(module.Config)}
    assert {"seed"} | ({"learning_rate"} if name not in TABLES else set()) <= names
    wrong: dict[str, tuple[float, ...]] = {"seed": (-1,)}
    if name not in TABLES:
        wrong["learning_rate"] = (math.nan, math.inf, -1e-3)
        assert module.Config(learning_rate=0.0).learning_rate == 0.0
    for above in names & {"max_grad_norm", "adam_eps", "rms_prop_eps"}:
        wrong[above] = (math.nan, 0.0, -1.0)
    for field, values in wrong.items():
        for value in values:
            with pytest.raises(ConfigError, match=f"expected {field} .*got {value}"):
                module.Config(**{field: value})
    if "max_grad_norm" in names:
        assert module.Config(max_grad_norm=math.inf).max_grad_norm == math.inf
    if "cuda_graphs" in names:
        assert module.Config(device="cuda:1", cuda_graphs=True).cuda_graphs
        with pytest.raises(ConfigError, match="expected device cuda for cuda_graphs, got cpu"):
            module.Config(cuda_graphs=True)


@pytest.mark.parametrize("bonus", [Curiosity, RandomDistillation])
@pytest.mark.parametrize("rate", [math.nan, -1.0, math.inf])
def test_a_bonus_learns_at_a_rate(bonus: Any, rate: float) -> None:
    with pytest.raises(ConfigError, match=f"expected learning_rate of {bonus.__name__} of at least 0, and finite"):
        bonus(learning_rate=rate)


@pytest.mark.parametrize("network", [Network, ActorNet, QNet])
def test_layers_have_units(network: Any) -> None:
    assert network(net_arch=()).net_arch == ()
    with pytest.raises(ConfigError, match="expected widths of at least 1 as net_arch, got 64 0"):
        network(net_arch=(64, 0))
    if network is not ActorNet:
        with pytest.raises(ConfigError, match="expected widths of at least 1 as lstm_hidden_size, got -8"):
            network(lstm_hidden_size=-8)


RUNS: dict[str, tuple[ModuleType, Any, Any]] = {
    "ppo": (
        ppo,
        ppo.Config(total_timesteps=1280, n_envs=4, n_steps=32, batch_size=64, n_epochs=2, normalize_reward=True,
                   network=Network(normalize_observation=True)),
        lambda: Control(Corridor),
    ),
    "ppo, native": (
        ppo,
        ppo.Config(total_timesteps=1280, n_envs=4, n_steps=32, batch_size=64, n_epochs=2),
        lambda: Control("CartPole-v1"),
    ),
    "ppo, continuous": (
        ppo,
        ppo.Config(total_timesteps=1280, n_envs=4, n_steps=32, batch_size=64, n_epochs=2),
        lambda: Control(Aim),
    ),
    "ppo, lstm": (
        ppo,
        ppo.Config(total_timesteps=1280, n_envs=4, n_steps=32, batch_size=64, n_epochs=2, network=LSTM),
        lambda: Control(Recall),
    ),
    "ppo, processes": (
        ppo,
        ppo.Config(total_timesteps=640, n_envs=2, n_steps=32, batch_size=32, n_epochs=2),
        lambda: Control(Corridor, EnvOptions(vectorization="async")),
    ),
    "a2c": (a2c, a2c.Config(total_timesteps=640, n_envs=4, n_steps=8), lambda: Control(Corridor)),
    "reinforce": (reinforce, reinforce.Config(total_timesteps=2000, n_envs=4), lambda: Control(Corridor)),
    "dqn": (dqn, dqn.Config(**REPLAY, target_update_interval=50), lambda: Control(Corridor)),
    "dqn, native": (
        dqn,
        dqn.Config(**REPLAY, n_envs=4, gradient_steps=-1, n_steps=3, tau=0.1, target_update_interval=1, double_q=True,
                   replay=Prioritised(), network=QNet(dueling=True, normalize_observation=True),
                   exploration=Boltzmann(2.0, 0.5)),
        lambda: Control("CartPole-v1"),
    ),
    "dqn, processes, on the disk": (
        dqn,
        dqn.Config(**REPLAY, n_envs=2, buffer_on_disk=True, target_update_interval=50),
        lambda: Control(Corridor, EnvOptions(vectorization="async")),
    ),
    "dqn, lstm": (
        dqn,
        dqn.Config(**REPLAY, n_envs=2, burn_in=2, sequence_length=6, replay=Prioritised(), target_update_interval=50,
                   network=QNet(recurrent="lstm", net_arch=(16,), lstm_hidden_size=8),
                   exploration=EpsilonGreedy(1.0, 0.1, 0.5)),
        lambda: Control(Recall),
    ),
    "rainbow": (rainbow, rainbow.Config(**REPLAY, distribution=C51(11, -2.0, 1.0)), lambda: Control(Corridor)),
    "rainbow, quantiles": (
        rainbow, rainbow.Config(**REPLAY, n_envs=4, distribution=QR(8)), lambda: Control("CartPole-v1")
    ),
    "sac": (
        sac,
        sac.Config(**SHORT, n_envs=2, policy_delay=2, n_steps=3, batch_size=32,
                   network=ActorNet(net_arch=(16,), normalize_observation=True)),
        lambda: Control(Aim),
    ),
    "sac, hybrid, on the disk": (
        sac,
        sac.Config(**SHORT, batch_size=32, buffer_on_disk=True, learning_rate_schedule="linear",
                   network=ActorNet(net_arch=(16,))),
        lambda: Control(Serve),
    ),
    "sac, masks, processes": (
        sac,
        sac.Config(**SHORT, n_envs=2, gradient_steps=-1, batch_size=32, ent_coef=sac.Fixed(0.1),
                   network=ActorNet(net_arch=(16,))),
        lambda: Control(Railing, EnvOptions(vectorization="async", action_mask=True)),
    ),
    "td3": (
        td3, td3.Config(**SHORT, n_envs=2, batch_size=32, network=ActorNet(net_arch=(16,))), lambda: Control(Aim)
    ),
    "soft_q, random distillation": (
        soft_q,
        soft_q.Config(**SHORT, target_update_interval=50, temperature=0.5, temperature_end=0.1,
                      exploration_bonus=RandomDistillation(batch_size=50, warm_up=100)),
        lambda: Control(Corridor),
    ),
    "ppo, curiosity": (
        ppo,
        ppo.Config(total_timesteps=640, n_envs=4, n_steps=32, batch_size=64, n_epochs=2,
                   exploration_bonus=Curiosity(batch_size=50, warm_up=100, episodic=False)),
        lambda: Control(Corridor),
    ),
    "sac, counts": (
        sac,
        sac.Config(**SHORT, batch_size=32, network=ActorNet(net_arch=(16,)), exploration_bonus=Counts(of="pairs")),
        lambda: Control(Serve),
    ),
    "pretrain": (
        pretrain,
        pretrain.Config(total_timesteps=640, max_length=16, per_device_train_batch_size=2,
                        gradient_accumulation_steps=2, early_stopping_patience=9, model=gpt2(8, 16, 1, 2, 16)),
        tiny_text.task,
    ),
    "masked_lm": (
        masked_lm,
        masked_lm.Config(total_timesteps=640, max_length=16, per_device_train_batch_size=2,
                         gradient_accumulation_steps=2, early_stopping_patience=9,
                         model=replace(bert(8, 16, 1, 2, 16), dropout=0.1)),
        tiny_text.task,
    ),
    "classify": (
        classify,
        classify.Config(total_timesteps=96, max_length=16, per_device_train_batch_size=4,
                        gradient_accumulation_steps=2, model=bert(8, 16, 1, 2, 16)),
        tiny_text.labelled,
    ),
    "classify, tuned": (
        classify,
        classify.Config(total_timesteps=96, max_length=16, per_device_train_batch_size=8, freeze_layers=1,
                        layer_lr_decay=0.9, pooling="last"),
        tiny_text.labelled,
    ),
    "sft": (
        sft,
        sft.Config(total_timesteps=640, max_length=16, per_device_train_batch_size=4, freeze_layers=1,
                   layer_lr_decay=0.9),
        tiny_text.task,
    ),
    "sft, lora": (
        sft,
        sft.Config(total_timesteps=640, max_length=16, per_device_train_batch_size=4, learning_rate=1e-2,
                   lora=LoRA(r=2, lora_dropout=0.2)),
        tiny_text.task,
    ),
    "grpo": (
        grpo,
        grpo.Config(total_timesteps=600, num_generations=4, generation_batch_size=16, steps_per_generation=2,
                    num_iterations=2, per_device_train_batch_size=3, top_k=5, beta=0.1, learning_rate=1e-2),
        tiny_text.task,
    ),
    "grpo, lora": (
        grpo,
        grpo.Config(total_timesteps=600, num_generations=4, generation_batch_size=16, beta=0.1, learning_rate=1e-2,
                    lora=LoRA(r=2, target_modules=("query_key_value", "up"))),
        lambda: tiny_text.task(graded=True),
    ),
    "expert_iteration": (
        expert_iteration,
        expert_iteration.Config(total_timesteps=600, num_generations=4, generation_batch_size=32, max_length=16,
                                reward_threshold=0.0, learning_rate=1e-2, start_over=True),
        tiny_text.task,
    ),
    "distill": (
        distill,
        distill.Config(total_timesteps=600, generation_batch_size=16, learning_rate=1e-2, model=gpt2(8, 16, 1, 2, 32)),
        tiny_text.task,
    ),
    "distill, on data, rewarded": (
        distill,
        distill.Config(total_timesteps=600, generation_batch_size=16, max_length=16, per_device_train_batch_size=3,
                       learning_rate=1e-2, objective=distill.ReverseKL(0.9), data=distill.Demonstrations(),
                       reward=distill.Rewarded(follow=distill.WhereBetter()), model=gpt2(8, 16, 1, 2, 32)),
        lambda: tiny_text.task(graded=True),
    ),
    "grpo, in turns": (
        grpo,
        grpo.Config(total_timesteps=600, num_generations=4, generation_batch_size=16, learning_rate=1e-2),
        lambda: tiny_text.task(in_turns=True),
    ),
    "ppo, on text": (
        ppo,
        ppo.Config(total_timesteps=480, n_envs=16, n_steps=3, batch_size=24, n_epochs=2, learning_rate=1e-2),
        tiny_text.task,
    ),
    "reward_model": (
        reward_model,
        reward_model.Config(total_timesteps=300, per_device_train_batch_size=8, num_members=2, learning_rate=1e-2,
                            max_length=16),
        tiny_text.preferred,
    ),
    "reward_model, lora": (
        reward_model,
        reward_model.Config(total_timesteps=300, per_device_train_batch_size=4, gradient_accumulation_steps=2,
                            learning_rate=1e-2, max_length=16, lora=LoRA(r=2)),
        tiny_text.preferred,
    ),
    "dpo": (
        dpo,
        dpo.Config(total_timesteps=300, per_device_train_batch_size=4, gradient_accumulation_steps=2,
                   learning_rate=1e-2, max_length=16, precompute_ref_log_probs=True, early_stopping_patience=9),
        tiny_text.preferred,
    ),
    "dpo, lora": (
        dpo,
        dpo.Config(total_timesteps=300, per_device_train_batch_size=8, learning_rate=1e-2, max_length=16,
                   loss=dpo.IPO(), lora=LoRA(r=2)),
        tiny_text.preferred,
    ),
    "dpo, online": (
        dpo,
        dpo.Config(total_timesteps=120, learning_rate=1e-2, data=dpo.Online(generation_batch_size=16)),
        lambda: tiny_text.task(graded=True),
    ),
    "kto": (
        kto,
        kto.Config(total_timesteps=300, per_device_train_batch_size=8, learning_rate=1e-2, max_length=16),
        tiny_text.preferred,
    ),
    "q_learning": (q_learning, q_learning.Config(total_timesteps=12_000), lambda: Control("FrozenLake-v1")),
    "value iteration": (
        dynamic_programming,
        dynamic_programming.Config(total_timesteps=40, tolerance=1e-300),
        lambda: Control("FrozenLake-v1"),
    ),
}  # fmt: skip

OVERLAPPED = (
    "dqn, native", "dqn, processes, on the disk", "dqn, lstm", "rainbow, quantiles", "sac", "td3",
    "soft_q, random distillation",
)  # fmt: skip
"""The runs that are also made with acting and learning at the same time."""
for _name in OVERLAPPED:
    _module, _config, _task = RUNS[_name]
    RUNS[f"{_name}, overlapped"] = _module, replace(_config, overlap=True), _task


def given(name: str, task: Any) -> dict[str, Any]:
    """What a run starts from beside its config and its task."""
    if not isinstance(task, Text) or name in ("pretrain", "masked_lm", "classify"):
        return {}
    policy = tiny_text.policy(task)
    if "distill" in name:  # the student begins from nothing
        return {"teacher": tiny_text.policy(task, 3)}
    return {"policy": policy} | ({"shaping": [KLToReference(frozen(policy), 0.1, 1.0)]} if "ppo" in name else {})


def learn_named(
    path: Path, name: str, stop: int | None = None, resume: bool = False, **changes: Any
) -> dict[str, Tensor]:
    """One of the ``RUNS``."""
    module, config, make = RUNS[name]
    task = make()
    if name in (
        "sft, lora",
        "masked_lm",
    ):  # what is dropped follows from the generator that all share, which launch seeds
        torch.manual_seed(0)
    return learn(path, module, replace(config, **changes), task, stop, resume, **given(name, task))


def learn(
    path: Path, module: ModuleType, config: Any, task: Task, stop: int | None, resume: bool, **given: Any
) -> dict[str, Tensor]:
    run = start(path, module, config, task, resume, eval_freq=config.total_timesteps // 3)
    if stop is not None:
        log = run.log

        def log_then_stop(metrics: Any) -> None:
            log(metrics)
            if run.step >= stop:
                signal.raise_signal(signal.SIGTERM)

        run.log = log_then_stop  # type: ignore[method-assign]
    policy = module.train(config, task, run, **given)
    assert isinstance(policy, nn.Module)
    return {name: tensor.clone() for name, tensor in policy.state_dict().items()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [{name: x for name, x in row.items() if name not in CLOCKS} for row in read_metrics(path)]


@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = learn_named(tmp_path / "whole", name)
    half = learn_named(tmp_path / "halved", name, stop=RUNS[name][1].total_timesteps // 2)
    assert any(not torch.equal(half[key], whole[key]) for key in whole)
    again = learn_named(tmp_path / "halved", name, resume=True)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[key], whole[key]) for key in whole)
    assert lines(tmp_path / "halved") == lines(tmp_path / "whole")


@pytest.mark.parametrize("name", ["ppo", "reinforce", "q_learning", "sac, overlapped", "pretrain", "masked_lm", "grpo"])
def test_a_seed_is_a_run_and_another_is_not(name: str, tmp_path: Path) -> None:
    first, same = learn_named(tmp_path / "a", name), learn_named(tmp_path / "b", name)
    other = learn_named(tmp_path / "c", name, seed=1)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
