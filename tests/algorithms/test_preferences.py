"""Learning from preferences: steps do not depend on how a batch is split, and what people like is learnt."""

import random
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.algorithms import tiny_text
from tests.algorithms.training import start
from tests.language.models import GPT, LLAMA, WORDS, model
from torchward.algorithms import dpo, kto, reward_model
from torchward.algorithms.dpo import DPO, IPO, ORPO, Loss, Offline, Online, SimPO
from torchward.config import ConfigError
from torchward.data.preferences import Pairs, Rated, both
from torchward.data.random import seeded
from torchward.data.sequences import Sequences, TokenSequence
from torchward.language.documents import Completion, Document, Preference, TextError
from torchward.language.rewards import exact_match
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.language.tokenizer import Characters
from torchward.metrics import read_metrics
from torchward.nets import saving
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import LoRA
from torchward.nets.reward_model import RewardModel, adapted
from torchward.nets.transformer import Transformer

PAD, LETTERS = 12, "abcdef"
STILL: dict[str, Any] = {"learning_rate": 0.0, "max_grad_norm": 1e9, "max_length": 32}
"""A step of size 0, so that its gradient can be looked at."""


def pairs(count: int = 7) -> Pairs:
    generator = np.random.default_rng(0)

    def side() -> Sequences:
        made = []
        for _ in range(count):
            size, asked = int(generator.integers(4, 12)), int(generator.integers(1, 3))
            made.append(
                TokenSequence(generator.integers(0, PAD, size).tolist(), [False] * asked + [True] * (size - asked))
            )
        return Sequences.of(made, WORDS)

    return Pairs(side(), side(), generator.random(count).astype(np.float32))


def gradient(network: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def moved() -> LanguageModel:
    """A policy that is no longer where it began."""
    return model(seed=1)


def learner_of(loss: Loss, size: int, **changes: Any) -> dpo.Learner:
    learner = dpo.Learner(model(), dpo.Config(loss=loss, per_device_train_batch_size=size, **STILL, **changes))
    with torch.no_grad():
        for own, other in zip(learner.policy.parameters(), moved().parameters(), strict=True):
            own.copy_(other)
    return learner


@pytest.mark.parametrize("loss", [DPO(), DPO(0.3, 0.1), IPO(), ORPO(), SimPO()])
def test_a_step_is_the_same_however_it_is_split(loss: Loss) -> None:
    data, numbers = pairs(), np.array([6, 0, 3, 5, 1])
    found = []
    for size, order in ((5, numbers), (2, numbers), (1, numbers[::-1].copy())):
        learner = learner_of(loss, size)
        metrics = {name: float(x) for name, x in learner.update(data, order, PAD, None).items()}
        found.append((gradient(learner.policy), metrics))
    for other, metrics in found[1:]:
        assert (other - found[0][0]).norm() / found[0][0].norm() < 1e-5
        assert metrics == pytest.approx(found[0][1], rel=1e-4, abs=1e-6)


def test_a_policy_that_has_not_moved_has_gained_nothing() -> None:
    """DPO begins at log 2 with rewards of 0; and what the reference thought before is what it thinks when it is
    asked."""
    learner = dpo.Learner(model(), dpo.Config(**STILL))
    metrics = learner.update(pairs(), np.arange(7), PAD, None)
    assert float(metrics["loss"]) == pytest.approx(np.log(2.0), abs=1e-5)
    assert float(metrics["rewards/chosen"]) == pytest.approx(0.0, abs=1e-5)
    learner = learner_of(DPO(), 3)
    live = learner.update(pairs(), np.arange(7), PAD, None)
    kept = learner.update(pairs(), np.arange(7), PAD, learner.precompute(pairs(), PAD))
    assert float(kept["loss"]) == pytest.approx(float(live["loss"]), abs=1e-5)
    assert abs(float(live["loss"]) - np.log(2.0)) > 1e-3


def test_longer_answers_are_not_likelier_by_their_length_alone() -> None:
    """The losses that take means do not change where every token of an answer is said twice as often."""
    once, lengths = torch.tensor([-6.0, -8.0]), torch.tensor([3.0, 5.0])
    for loss in (IPO(), ORPO(), SimPO()):
        one, _ = dpo.losses(loss, once, 0.5 * once, lengths)
        two, _ = dpo.losses(loss, 2 * once, once, 2 * lengths)
        torch.testing.assert_close(one, two)
    one, _ = dpo.losses(DPO(), once, 0.5 * once, lengths)
    two, _ = dpo.losses(DPO(), 2 * once, once, 2 * lengths)
    assert abs(float(one - two)) > 1e-3


def test_ktos_step_is_the_same_however_it_is_split() -> None:
    data = pairs()
    rated = Rated(data.chosen, np.array([True, False, True, True, False, False, True]))
    found = []
    for size in (7, 2):
        learner = kto.Learner(
            model(), kto.Config(per_device_train_batch_size=size, gradient_accumulation_steps=4, **STILL)
        )
        with torch.no_grad():
            for own, other in zip(learner.policy.parameters(), moved().parameters(), strict=True):
                own.copy_(other)
        metrics = learner.update(rated, np.arange(7), PAD)
        found.append((gradient(learner.policy), float(metrics["loss"]), float(metrics["kl"])))
    assert found[0][1:] == pytest.approx(found[1][1:], rel=1e-4)
    assert (found[0][0] - found[1][0]).norm() / found[0][0].norm() < 1e-4


def test_ordering_is_the_area_under_the_curve() -> None:
    gained = torch.tensor([3.0, 1.0, 2.0, 1.0])
    good = torch.tensor([True, True, False, False])
    assert kto.ordered(gained, good) == pytest.approx((2 + 0.5) / 4)
    assert kto.ordered(gained, torch.ones(4, dtype=torch.bool)) == 0.5


# Reward models


def judge(config: Any = GPT, members: int = 1, kind: str = "decoder") -> RewardModel:
    with seeded(0, "judge"):
        body = Transformer(replace(config, kind=kind, value_head=False))
        return RewardModel.of(body, {"tokenizer": "none"}, members)


def test_a_reward_models_step_is_the_same_however_it_is_split() -> None:
    found = []
    for size in (5, 2):
        net = judge()
        learner = reward_model.Learner(net, reward_model.Config(per_device_train_batch_size=size, **STILL))
        metrics = learner.update(0, pairs(), np.array([6, 0, 3, 5, 1]), PAD)
        found.append((gradient(net), float(metrics["loss"])))
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    assert (found[0][0] - found[1][0]).norm() / found[0][0].norm() < 1e-5


@pytest.mark.parametrize("config", [GPT, LLAMA])
def test_a_text_is_worth_the_same_in_a_batch_as_alone(config: Any) -> None:
    """It is read at its last token, end-of-text included, whatever padding stands behind it."""
    net, data = judge(config).eval().requires_grad_(False), pairs()
    together = reward_model.said(net, 0, both(data, np.arange(7), PAD))
    body: Any = net.bodies[0]
    for row in range(7):
        for half, side in ((0, data.chosen), (7, data.rejected)):
            ids = torch.tensor([list(side[row].ids)])
            alone = net.heads[0](body.forward(ids)[:, -1])
            torch.testing.assert_close(together[half + row], alone[0, 0], atol=1e-5, rtol=1e-4)


def test_an_encoder_reads_both_ways_and_is_asked_at_the_first_token() -> None:
    net = judge(kind="encoder").eval().requires_grad_(False)
    texts = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 6, 0, 0]])
    said = net(texts, torch.tensor([5, 3]))
    torch.testing.assert_close(said[:, 1], net(texts[1:, :3], torch.tensor([3]))[:, 0], atol=1e-5, rtol=1e-4)
    other = net(torch.tensor([[1, 2, 3, 4, 7]]), torch.tensor([5]))
    assert abs(float(other[0, 0] - said[0, 0])) > 1e-5  # what comes last is seen from the first


def test_caution_takes_away_what_members_disagree_about() -> None:
    net = judge(members=3).eval().requires_grad_(False)
    tokens, length = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    each = net(tokens, length)[:, 0]
    expected = float(each.mean()) - 2.0 * float(each.std(correction=0))
    assert float(net.score(tokens, length, 2.0)[0]) == pytest.approx(expected, rel=1e-5)
    assert float(judge().score(tokens, length, 2.0)[0]) == pytest.approx(judge()(tokens, length)[0, 0].item())


@pytest.mark.parametrize("lora", [False, True])
def test_a_reward_model_is_saved_and_read(lora: bool, tmp_path: Path) -> None:
    net = judge(members=2)
    if lora:
        adapted(net, LoRA(r=2))
        assert net.heads[0].weight.requires_grad
    with torch.no_grad():
        net.offset.copy_(torch.tensor([0.5, -1.0]))
        for parameter in net.parameters():
            parameter.add_(0.1)
    net.eval().save(tmp_path)
    again: Any = saving.load(tmp_path)
    tokens, length = torch.tensor([[1, 2, 3, 4]]), torch.tensor([4])
    assert torch.equal(again(tokens, length), net(tokens, length)) and again.members == 2


# What people like is learnt


def liked(prompt: str, answer: str) -> bool:
    """Whether the letters stand as they were asked for."""
    return answer == prompt[:2]


def task(judged: bool = False) -> Text:
    """Two letters: people like them as they are, and not the other way round. A few prompts are held out."""
    every = [(f"{a}{b}=", f"{a}{b}", f"{b}{a}") for a, b in product(LETTERS, repeat=2) if a != b]
    random.Random(0).shuffle(every)
    documents = [
        Document(Preference(prompt, good, bad), prompt, {"answer": good})
        if not judged
        else Document(Completion(prompt, good if i % 2 else bad), prompt, {"answer": good, "label": bool(i % 2)})
        for i, (prompt, good, bad) in enumerate(every)
    ]
    return Text(
        Problems("likes", documents[8:], documents[:8], exact_match, tokenizer=Characters(), max_completion_length=3)
    )


def run_of(path: Path, module: Any, config: Any, on: Text) -> Any:
    return module.train(config, on, start(path, module, config, on, eval_freq=1_000), tiny_text.policy(on))


def figures(path: Path, name: str) -> list[float]:
    return [row[name] for row in read_metrics(path) if name in row]


FAST: dict[str, Any] = {"per_device_train_batch_size": 14, "learning_rate": 1e-2, "max_length": 16}


def test_a_reward_model_learns_what_is_liked_and_says_how_sure_it_may_be(tmp_path: Path) -> None:
    on = task()
    config = reward_model.Config(total_timesteps=1_500, num_members=2, **FAST)
    net = run_of(tmp_path, reward_model, config, on)
    assert figures(tmp_path, "eval/accuracy")[-1] >= 7 / 8
    assert figures(tmp_path, "eval/calibration_error")[-1] < 0.2
    assert (tmp_path / "calibration.json").exists() and (tmp_path / "calibration.png").exists()
    one, other = (p.flatten()[:5].tolist() for p in (net.heads[0].weight, net.heads[1].weight))
    assert one != other
    said = reward_model.rewards(net, on.preferences().train, 0, config, 100)
    assert (said.mean((1, 2)) - net.offset).abs().max() < 1e-5  # an average answer is worth 0
    assert on.evaluate(net, 8, 0).returns.count(1.0) >= 7


@pytest.mark.parametrize("loss", [DPO(0.3), IPO(0.3), ORPO(1.0), SimPO(2.0, 0.5)])
def test_a_policy_learns_what_is_liked(loss: Loss, tmp_path: Path) -> None:
    changes = FAST | {"learning_rate": 3e-3}
    run_of(tmp_path, dpo, dpo.Config(total_timesteps=1_500, loss=loss, **changes), task())
    assert figures(tmp_path, "accuracy")[0] < 0.75 and min(figures(tmp_path, "accuracy")[-5:]) >= 0.95


def test_adapters_alone_learn_it_from_their_base(tmp_path: Path) -> None:
    policy = run_of(tmp_path, dpo, dpo.Config(total_timesteps=2_500, loss=DPO(0.3), lora=LoRA(r=4), **FAST), task())
    assert figures(tmp_path, "eval/accuracy")[-1] >= 7 / 8
    assert sum(p.requires_grad for p in policy.parameters()) < sum(1 for _ in policy.parameters())


@pytest.mark.parametrize("judged", [False, True])
def test_kto_learns_from_answers_judged_alone(judged: bool, tmp_path: Path) -> None:
    config = kto.Config(total_timesteps=4_000, beta=0.3, **FAST)
    run_of(tmp_path, kto, config, task(judged))
    assert figures(tmp_path, "eval/accuracy")[-1] >= 0.85


def test_pairs_of_its_own_answers_teach_a_policy_what_earns(tmp_path: Path) -> None:
    on = tiny_text.task(graded=True)
    config = dpo.Config(
        total_timesteps=2_500, data=Online(64, num_generations=4), loss=DPO(0.5), learning_rate=1e-2,
        per_device_train_batch_size=16, lr_scheduler_type="constant",
    )  # fmt: skip
    dpo.train(config, on, start(tmp_path, dpo, config, on, eval_freq=500), tiny_text.policy(on))
    earned = figures(tmp_path, "eval/return")
    assert earned[0] < 0.7 and earned[-1] > 0.85


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("module", [dpo, kto])
def test_layers_may_be_computed_twice_where_there_is_dropout(module: Any, adapters: bool, tmp_path: Path) -> None:
    """Without and with it the run is the same: a log-ratio is of two policies without dropout."""
    on, found = task(), []
    for twice in (False, True):
        policy = tiny_text.policy(on, dropout=0.0 if adapters else 0.5)
        lora = {"lora": LoRA(lora_dropout=0.5)} if adapters else {}
        config = module.Config(total_timesteps=42, gradient_checkpointing=twice, **FAST, **lora)
        path = tmp_path / str(twice)
        made = module.train(config, on, start(path, module, config, on), policy)
        found.append((figures(path, "loss"), torch.cat([p.flatten() for p in made.parameters()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)


# What cannot be


def test_data_that_are_not_there_are_told() -> None:
    with pytest.raises(TextError, match="expected pairs of answers in pairs, got none"):
        tiny_text.task().preferences()
    with pytest.raises(TextError, match="that were judged good in pairs, got none"):
        tiny_text.task().judgements()


def test_a_label_is_true_or_false() -> None:
    documents = [Document(Completion("a=", "b"), "line 3", {"label": "yes"})]
    text = Text(Problems("likes", documents, documents, exact_match, tokenizer=Characters()))
    with pytest.raises(TextError, match="label true or false in line 3, got 'yes'"):
        text.judgements()


def test_settings_that_cannot_be_are_told() -> None:
    for make, message in (
        (lambda: dpo.Config(loss=DPO(beta=0.0)), "beta above 0"),
        (lambda: dpo.Config(loss=DPO(label_smoothing=0.5)), "label_smoothing within"),
        (lambda: dpo.Config(data=Online(num_generations=1)), "num_generations of at least 2"),
        (
            lambda: dpo.Config(data=Offline(), per_device_train_batch_size=0),
            "train_batch_size of at least 1",
        ),
        (lambda: kto.Config(per_device_train_batch_size=1), "at least 2 answers"),
        (lambda: kto.Config(desirable_weight=-1.0), "weights of at least 0"),
        (lambda: reward_model.Config(num_members=0), "num_members of at least 1"),
        (lambda: reward_model.Config(center_rewards_coefficient=-1.0), "center_rewards_coefficient of at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


@pytest.mark.parametrize("module", [dpo, kto, reward_model])
def test_it_begins_from_a_model(module: Any, tmp_path: Path) -> None:
    config = module.Config()
    with pytest.raises(ConfigError, match="init"):
        module.train(config, task(), start(tmp_path, module, config, task()))
