"""Tuning by adapters: they alone move, the sampler has them, and the reference is the base that the run began with."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import torchward
from tests.algorithms import tiny_text
from tests.algorithms.training import start
from torchward.algorithms import grpo, sft
from torchward.data.kl import frozen
from torchward.data.rollout import Rollout
from torchward.language.generate import Completions, generate
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import LoRA, NoLoRA, adapt, merged, without_adapters

SMALL = LoRA(r=2, lora_alpha=8.0)
SFT = sft.Config(
    total_timesteps=320, max_length=16, per_device_train_batch_size=4, learning_rate=3e-2, lora=SMALL, weight_decay=0.1
)
GRPO = grpo.Config(
    total_timesteps=120, num_generations=4, generation_batch_size=16, steps_per_generation=2, learning_rate=3e-2,
    beta=0.1, lora=SMALL,
)  # fmt: skip
EACH = pytest.mark.parametrize(("module", "config"), [(sft, SFT), (grpo, GRPO)], ids=["sft", "grpo"])

ANY = torch.randn(16, generator=torch.Generator().manual_seed(3))
"""Advantages that teach something."""


def begun() -> LanguageModel:
    return tiny_text.policy(tiny_text.task())


def trained(path: Path, module: ModuleType, config: Any, policy: LanguageModel) -> LanguageModel:
    task = tiny_text.task(graded=True)
    made = module.train(config, task, start(path, module, config, task), policy)
    assert isinstance(made, LanguageModel)
    return made


def base(policy: LanguageModel) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in policy.state_dict().items() if "lora_" not in name}


def rollout(policy: LanguageModel) -> Rollout:
    return tiny_text.task().source(16, 0, num_generations=4).collect(policy, None)


@EACH
def test_adapters_alone_move(module: ModuleType, config: Any, tmp_path: Path) -> None:
    policy = trained(tmp_path / "run", module, config, begun())
    kept, was = base(policy), base(begun())
    assert kept.keys() == was.keys() and all(torch.equal(kept[name], was[name]) for name in was)
    moved = [tensor for name, tensor in policy.state_dict().items() if "lora_b" in name]
    assert moved and all(bool(tensor.any()) for tensor in moved)
    again = torchward.load(tmp_path / "run", which="last")
    assert isinstance(again, LanguageModel)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in policy.state_dict().items())


@EACH
def test_a_run_begins_with_its_base_whatever_that_was_made_of(module: ModuleType, config: Any, tmp_path: Path) -> None:
    """New adapters on a model that has some: those become part of the base."""
    first = trained(tmp_path / "first", module, config, begun())
    second = trained(tmp_path / "second", module, config, frozen(first))
    kept, was = base(second), merged(first).state_dict()
    assert kept.keys() == was.keys() and all(torch.equal(kept[name], was[name]) for name in was)


@EACH
def test_without_new_ones_the_adapters_of_a_model_go_on(module: ModuleType, config: Any, tmp_path: Path) -> None:
    first = trained(tmp_path / "first", module, config, begun())
    plain = type(config)(**{**vars(config), "lora": NoLoRA()})
    loaded = torchward.load(tmp_path / "first", which="last")
    assert isinstance(loaded, LanguageModel)
    second = trained(tmp_path / "second", module, plain, loaded)
    assert all(torch.equal(tensor, base(second)[name]) for name, tensor in base(first).items())
    one, two = ({n: x for n, x in each.state_dict().items() if "lora_" in n} for each in (first, second))
    assert one.keys() == two.keys() != set() and not any(torch.equal(one[name], two[name]) for name in one)


def test_the_reference_is_the_base_after_updates_too() -> None:
    policy = adapt(begun(), SMALL).eval()
    learner = grpo.Learner(policy, GRPO)
    assert learner.reference is None, "no copy"
    said = rollout(policy)
    for _ in range(3):
        metrics = learner.update(said, ANY, 3)
    batch = said.credited(said.reward, said.reward)
    found = learner.references(batch)
    assert found is not None and float(metrics["kl"]) > 1e-3
    torch.testing.assert_close(found, begun().log_probs(said.observation, said.action).detach(), atol=1e-5, rtol=0.0)
    assert not torch.allclose(found, policy.log_probs(said.observation, said.action), atol=1e-2)


def test_the_reference_of_adapters_that_go_on_is_what_they_were() -> None:
    torch.manual_seed(1)
    policy = adapt(begun(), SMALL).eval()
    for name, parameter in policy.named_parameters():
        if "lora_b" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    for parameter in policy.parameters():
        parameter.requires_grad_(True)
    was = frozen(policy)
    learner = grpo.Learner(policy, grpo.Config(**{**vars(GRPO), "lora": NoLoRA()}))
    said = rollout(policy)
    learner.update(said, ANY, 3)
    found = learner.references(said.credited(said.reward, said.reward))
    assert found is not None
    torch.testing.assert_close(found, was.log_probs(said.observation, said.action), atol=1e-5, rtol=0.0)


def write(policy: LanguageModel) -> Completions:
    noise = policy.noise((6, 8), torch.Generator().manual_seed(0))
    prompts = [[2, 3, 4], [5, 1], [3, 3, 0, 1], [4]]
    return generate(policy, prompts, eos_id=7, max_new_tokens=6, num_generations=2, noise=noise, slots=4)


def test_what_is_written_after_an_update_is_written_with_it() -> None:
    policy = adapt(begun(), SMALL).eval()
    before = write(policy)
    learner = grpo.Learner(policy, GRPO)
    said = rollout(policy)
    learner.update(said, ANY, 3)
    after, plain = write(policy), write(merged(policy))
    assert torch.equal(after.tokens, plain.tokens)
    torch.testing.assert_close(after.log_probs, plain.log_probs, atol=1e-5, rtol=0.0)
    shape = min(before.log_probs.shape, after.log_probs.shape)
    assert not torch.allclose(before.log_probs[: shape[0], : shape[1]], after.log_probs[: shape[0], : shape[1]])
    with without_adapters(policy):
        assert torch.equal(write(policy).tokens, before.tokens)


def test_the_ratio_is_1_before_the_first_step() -> None:
    policy = adapt(begun(), SMALL).eval()
    learner = grpo.Learner(policy, GRPO)
    for _ in range(2):
        said = rollout(policy)
        metrics = learner.update(said, ANY, 3)
        assert float(metrics["mismatch"]) < 1e-4
