"""Pretraining and fine-tuning: the loss is that of each text read alone, however it is packed, split and ordered."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from tests.algorithms import tiny_text
from tests.algorithms.training import start
from tests.language.models import CONTEXT, GPT, LLAMA, WORDS, model
from torchward.algorithms import classify, expert_iteration, masked_lm, pretrain, sft
from torchward.algorithms.pretrain import Learner, Patience, some, validate
from torchward.config import ConfigError
from torchward.data.packing import Packing, Rows, Whole, Wrapped, gather, once, plan
from torchward.data.sequences import Sequences, TokenSequence
from torchward.language.documents import Document, Prompt, Split, TextError
from torchward.language.rewards import exact_match
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.language.tokenizer import Characters
from torchward.metrics import read_metrics
from torchward.nets.adamw import decayed
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import LoRA
from torchward.nets.positions import Rotary
from torchward.nets.transformer_config import TransformerConfig

PAD = 12
SIZES = torch.arange(WORDS) % 4  # bytes of each token
STILL = pretrain.Config(learning_rate=0.0, weight_decay=0.0, max_grad_norm=1e9, max_length=10, model=GPT)
"""A step of size 0, so that its gradient can be looked at."""


def sequences() -> Sequences:
    """Of 2 to 11 tokens; of each, some are learnt."""
    generator = np.random.default_rng(0)
    made = []
    for size in (5, 2, 11, 3, 7, 8, 4, 6, 2, 9):
        own = generator.random(size) < 0.5
        own[0], own[-1] = False, True
        made.append(TokenSequence(generator.integers(0, PAD, size).tolist(), own.tolist()))
    return Sequences.of(made, WORDS)


def alone(policy: LanguageModel, pieces: Sequence[TokenSequence]) -> tuple[Tensor, int]:
    """In float64, what the own tokens of each piece cost, and their bytes."""
    cost, size = torch.zeros((), dtype=torch.float64), 0
    for ids, own in pieces:
        log_probs = policy.body.logits(policy.body.forward(torch.tensor([ids[:-1]])))[0].log_softmax(1)
        for t, (token, learnt) in enumerate(zip(ids[1:], own[1:], strict=True)):
            if learnt:
                cost, size = cost - log_probs[t, token], size + int(SIZES[token])
    return cost, size


def wrapped(data: Sequences, length: int) -> list[TokenSequence]:
    """The pieces that wrapping cuts: a new one begins in every row, and what came before it there is not seen."""
    made, place = [], 0
    for i in range(len(data)):
        ids, own = data[i]
        begin = 0
        while begin < len(ids) - 1:
            end = min(len(ids) - 1, begin + length - place)
            made.append(TokenSequence(ids[begin : end + 1], [False, *own[begin + 1 : end + 1]]))
            place = (place + end - begin) % length
            begin = end
    return made


def batches(packing: Packing, size: int, length: int = 10, seed: int | None = None) -> list[Rows]:
    """All of it once; with a seed in a random order, else with rows of padding at the end."""
    data = sequences()
    if seed is None:
        return list(once(data, max_length=length, batch_size=size, pad_id=PAD, packing=packing))
    made = plan(data, length, packing, np.random.default_rng(seed))
    numbers = np.arange(len(made.rows) - 1)
    return [gather(data, made, numbers[i : i + size], length, PAD) for i in range(0, len(numbers), size)]


def gradient(policy: LanguageModel) -> Tensor:
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def learnt(policy: LanguageModel, given: list[Rows], **changes: Any) -> tuple[Tensor, dict[str, float]]:
    """The gradient and the metrics of one step."""
    config = replace(STILL, **changes)
    learner = Learner(policy, config, SIZES, decayed(policy.parameters(), 0.0))
    metrics = learner.update(given)
    return gradient(policy), {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize("config", [GPT, LLAMA])
@pytest.mark.parametrize("packing", [Wrapped(), Whole()])
def test_the_loss_is_that_of_each_text_alone(config: TransformerConfig, packing: Packing) -> None:
    """Of a packed row, each text sees itself alone; prompts and padding cost nothing."""
    policy = model(config)
    data = sequences()
    pieces = wrapped(data, 10) if isinstance(packing, Wrapped) else [data[i] for i in range(len(data))]
    double = copy.deepcopy(policy).double()
    cost, size = alone(double, pieces)
    (cost / data.learnt).backward()
    found, metrics = learnt(policy, batches(packing, 3))
    assert metrics["loss"] == pytest.approx(cost.item() / data.learnt, rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(cost.item() / size / math.log(2.0), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(gradient(double).norm()), rel=1e-4)
    assert (found - gradient(double)).norm() / gradient(double).norm() < 1e-4
    judged = validate(policy, batches(packing, 3), SIZES, STILL)
    assert judged.returns == [pytest.approx(metrics["bits_per_byte"], rel=1e-5)] and judged.lengths == [data.learnt]
    assert not policy.training


@pytest.mark.parametrize("packing", [Wrapped(), Whole()])
def test_batches_and_their_order_change_nothing(packing: Packing) -> None:
    policy = model()
    whole, expected = learnt(policy, batches(packing, 100))
    for given in (batches(packing, 1), batches(packing, 3), batches(packing, 2)[::-1]):
        found, metrics = learnt(policy, given)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
        assert metrics == pytest.approx(expected, rel=1e-4)


def test_whole_texts_may_stand_in_any_rows() -> None:
    policy = model()
    whole, expected = learnt(policy, batches(Whole(), 100, 10))
    for length, seed in ((10, 1), (10, 2), (13, None), (CONTEXT, 3)):
        found, metrics = learnt(policy, batches(Whole(), 2, length, seed))
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
        assert metrics == pytest.approx(expected, rel=1e-4)


def test_prompts_and_padding_never_count() -> None:
    """What would be learnt there may be anything; nor is padding seen by what counts."""
    policy = model()
    given = batches(Whole(), 4, 13)
    expected = learnt(policy, given)
    generator = Generator().manual_seed(0)
    dirty = []
    for rows in given:
        junk = torch.randint(WORDS, rows.tokens.shape, generator=generator)
        padding = rows.segments == -1
        assert padding.any() and not (padding & rows.loss_mask).any()
        dirty.append(
            replace(
                rows,
                tokens=torch.where(padding, junk, rows.tokens),
                targets=torch.where(rows.loss_mask, rows.targets, junk),
            )
        )
    found = learnt(policy, dirty)
    assert torch.equal(found[0], expected[0]) and found[1] == expected[1]


def test_memory_may_be_saved_by_computing_twice() -> None:
    policy = model(LLAMA)
    expected, _ = learnt(policy, batches(Whole(), 4))
    found, _ = learnt(policy, batches(Whole(), 4), gradient_checkpointing=True)
    assert policy.body.checkpointing
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_half_precision_learns_nearly_the_same() -> None:
    policy = model()
    expected, full = learnt(policy, batches(Whole(), 4))
    found, half = learnt(policy, batches(Whole(), 4), bf16=True)
    assert half["loss"] != full["loss"] and half["loss"] == pytest.approx(full["loss"], rel=0.01)
    assert found.dtype == torch.float32 and (found - expected).norm() / expected.norm() < 0.05


def test_in_learning_it_drops_and_in_judging_it_does_not() -> None:
    policy = model(GPT, dropout=0.3)
    given = batches(Whole(), 4)
    first, second = (learnt(policy, given)[1]["loss"] for _ in range(2))
    assert first != second
    judged = [validate(policy, given, SIZES, STILL).returns for _ in range(2)]
    assert judged[0] == judged[1] == validate(model(), given, SIZES, STILL).returns


def test_an_evaluation_looks_at_the_first_texts() -> None:
    """Not at the longest, which packing takes first; of a text that is longer than all of it, at the beginning."""
    data = sequences()
    steps = data.steps.tolist()  # 4, 1, 10, 2, ...
    for tokens, count in ((4, 1), (14, 2), (15, 3), (10**6, len(data))):
        found = list(some(data, replace(STILL, per_device_train_batch_size=2, eval_tokens=tokens), PAD, Whole()))
        assert sum(int((rows.segments >= 0).sum()) for rows in found) == sum(steps[:count])
        assert sum(int(rows.loss_mask.sum()) for rows in found) == sum(sum(data[i].own) for i in range(count))
    found = list(some(data, replace(STILL, eval_tokens=3), PAD, Wrapped()))
    assert found[0].tokens[0, :3].tolist() == data[0].ids[:3] and int((found[0].segments >= 0).sum()) == 3


def test_the_step_size_rises_and_falls() -> None:
    for kind, end in (("cosine", 0.1), ("linear", 0.1), ("constant", 1.0)):
        config = pretrain.Config(lr_scheduler_type=kind, warmup_ratio=0.2)  # type: ignore[arg-type]
        found = [pretrain.schedule(config, progress) for progress in (0.0, 0.1, 0.2, 1.0)]
        assert found == pytest.approx([0.0, 0.5, 1.0, end])


def test_patience_counts_in_a_row() -> None:
    patience = Patience(2)
    for best, lost in ((True, False), (False, False), (True, False), (False, False), (False, True)):
        patience.saw(best)
        assert patience.lost == lost
    again = Patience(2)
    again.load_state_dict(patience.state_dict())
    assert again.lost
    never = Patience(None)
    for _ in range(99):
        never.saw(False)
    assert not never.lost


# Runs


def tuned(path: Path, task: Text, policy: LanguageModel, options: dict[str, Any] | None = None, **changes: Any) -> Any:
    config = sft.Config(
        **{"total_timesteps": 64, "max_length": 16, "per_device_train_batch_size": 2, "learning_rate": 1e-2,
           "warmup_ratio": 0.0, "adam_beta1": 0.0, "adam_beta2": 0.0, **changes}
    )  # fmt: skip
    return sft.train(config, task, start(path, sft, config, task, **(options or {})), policy)


def names(one: LanguageModel, other: LanguageModel) -> set[str]:
    """Of the parameters that differ."""
    both = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return {name for (name, a), (_, b) in both if not torch.equal(a, b)}


def test_frozen_layers_stay_and_the_deep_move_slowly(tmp_path: Path) -> None:
    """With no memory Adam moves each number by its step size, whatever its gradient."""
    task = tiny_text.task()
    before = tiny_text.policy(task)
    after = tuned(tmp_path / "all", task, copy.deepcopy(before), total_timesteps=32, layer_lr_decay=0.5)
    steps = [
        max(float((a - b).detach().abs().max()) for a, b in zip(one, other, strict=True))
        for one, other in zip(after.layers(), before.layers(), strict=True)
    ]
    assert steps == pytest.approx([1e-2 * 0.5**depth for depth in (3, 2, 1, 0)], rel=0.02)
    tuned_names = {
        frozen: names(tuned(tmp_path / f"{frozen}", task, copy.deepcopy(before), freeze_layers=frozen), before)
        for frozen in (0, 1, 2)
    }
    every = {name for name, _ in before.named_parameters()}
    top = {"body.stack.final_norm.weight", "body.stack.final_norm.bias"}
    assert tuned_names[2] == top, "of the value head no loss says anything"
    assert tuned_names[1] == {name for name in every if name.startswith("body.stack.layers.1.")} | top
    assert tuned_names[0] == every - {"body.value_head.weight", "body.value_head.bias"}
    with pytest.raises(ConfigError, match="expected freeze_layers of at most 2, the model's layers, got 3"):
        tuned(tmp_path / "none", task, before, freeze_layers=3)


def test_fine_tuning_cuts_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text in a row begins with the start and ends with the end, and its answer is learnt."""
    task, seen = tiny_text.task(), list[Rows]()
    update = Learner.update

    def watched(learner: Learner, given: list[Rows]) -> Any:
        seen.extend(given)
        return update(learner, given)

    monkeypatch.setattr(Learner, "update", watched)
    tuned(tmp_path / "run", task, tiny_text.policy(task), max_length=10, total_timesteps=200)
    texts = 0
    for rows in seen:
        for row in range(len(rows.tokens)):
            for segment in range(int(rows.segments[row].max()) + 1):
                here = rows.segments[row] == segment
                targets, learnt = rows.targets[row, here].tolist(), rows.loss_mask[row, here].tolist()
                assert rows.tokens[row, here][0] == task.tokenizer.start_id and targets[-1] == task.tokenizer.eos_id
                said = task.tokenizer.decode(targets)
                assert said[:2] == said[:2:-1] and said[2] == "="
                assert learnt == [False] * 3 + [True] * 3
                texts += 1
    assert texts >= 20


def test_a_policy_comes_back_ready_to_be_used(tmp_path: Path) -> None:
    task = tiny_text.task()
    assert not tuned(tmp_path / "a", task, tiny_text.policy(task)).training
    config = pretrain.Config(total_timesteps=32, max_length=16, per_device_train_batch_size=2, model=replace(GPT))
    made = pretrain.train(config, task, start(tmp_path / "b", pretrain, config, task))
    assert not made.training and made.config.vocab_size == task.tokenizer.vocab_size and made.config.value_head


def test_a_run_that_gets_worse_stops_early(tmp_path: Path) -> None:
    task = tiny_text.task()
    options = {"eval_freq": 32, "checkpoint_freq": 320}
    tuned(
        tmp_path / "run", task, tiny_text.policy(task), options, total_timesteps=6400, learning_rate=3.0,
        early_stopping_patience=2,
    )  # fmt: skip
    judged = [row["eval/bits_per_byte"] for row in read_metrics(tmp_path / "run") if "eval/bits_per_byte" in row]
    best = min(range(len(judged)), key=judged.__getitem__)
    assert len(judged) < 50 and best <= len(judged) - 3


def test_what_does_not_fit_is_refused_before_the_run(tmp_path: Path) -> None:
    task = tiny_text.task()
    with pytest.raises(ConfigError, match=r"expected max_length of at most 32, .* got 64"):
        tuned(tmp_path / "long", task, tiny_text.policy(task), max_length=64)
    other = Text(replace(task.problems), Characters().build(["abcdef=?"]))
    with pytest.raises(ConfigError, match=r"vocabulary, got another: task\.using"):
        tuned(tmp_path / "foreign", other, tiny_text.policy(task))
    asking = Text(Problems("asking", [Document(Prompt("a"), "a")], [], exact_match), task.tokenizer)
    with pytest.raises(TextError, match="expected answers to learn from in asking, got prompts alone"):
        tuned(tmp_path / "asking", asking, tiny_text.policy(task))
    with pytest.raises(ConfigError, match="expected eval_tokens that hold some that are learnt, got 1"):
        tuned(tmp_path / "unseen", task, tiny_text.policy(task), eval_tokens=1)  # a prompt's beginning
    with pytest.raises(ConfigError, match="expected eval_tokens that hold some that are learnt, got 0"):
        tuned(tmp_path / "nothing", task, tiny_text.policy(task), eval_tokens=0)
    with pytest.raises(ConfigError, match="expected freeze_layers to leave an adapter, got 2, all layers, beside lora"):
        tuned(tmp_path / "frozen", task, tiny_text.policy(task), lora=LoRA(r=2), freeze_layers=2)
    with pytest.raises(ConfigError, match="expected a model to tune"):
        tuned(tmp_path / "none", task, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [pretrain, masked_lm, classify])
def test_a_new_model_reads_as_far_as_it_has_learnt(module: Any) -> None:
    """By default there is no place in the model's context that no row reaches: it would keep what it began with."""
    config = module.Config()
    assert config.max_length == config.model.max_position_embeddings


def test_places_of_which_nothing_is_learnt_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [Document("abc" * 10 + letter, letter) for letter in "abcdef"]
    task = Text(replace(tiny_text.task().problems, corpus=texts, split=Split(0.5)))
    shape = replace(GPT, max_position_embeddings=24)
    told = "nothing is learnt of longer texts"
    for length, net in ((16, shape), (24, shape), (16, replace(shape, positions=Rotary()))):
        config = pretrain.Config(total_timesteps=96, max_length=length, per_device_train_batch_size=2, model=net)
        name = f"{length}-{type(net.positions).__name__}"
        before = {key: value.clone() for key, value in made(config, task, tmp_path / f"{name}-0", 0.0).items()}
        capsys.readouterr()
        after = made(config, task, tmp_path / name, config.learning_rate)
        assert (told in capsys.readouterr().err) == (name == "16-Learned"), name
        if name == "16-Learned":
            moved = (after["body.stack.place.weight"] != before["body.stack.place.weight"]).any(1)
            assert moved[:16].all() and not moved[16:].any()


def made(config: pretrain.Config, task: Text, path: Path, rate: float) -> dict[str, Tensor]:
    """The weights behind a short run at a step size."""
    config = replace(config, learning_rate=rate, weight_decay=0.0)
    return pretrain.train(config, task, start(path, pretrain, config, task, progress=True)).state_dict()


@pytest.mark.parametrize("module", [pretrain, sft])
@pytest.mark.parametrize(
    "wrong",
    [{"total_timesteps": 0}, {"max_length": 0}, {"per_device_train_batch_size": 0}, {"gradient_accumulation_steps": 0},
     {"warmup_ratio": 1.5}, {"early_stopping_patience": 0}],
)  # fmt: skip
def test_wrong_settings_are_refused(module: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        module.Config(**wrong)


def test_wrong_settings_of_one_of_them_are_refused() -> None:
    for wrong in ({"freeze_layers": -1}, {"layer_lr_decay": 0.0}, {"layer_lr_decay": 1.1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            sft.Config(**wrong)
    with pytest.raises(ConfigError, match="max_length of at most the model's max_position_embeddings=20, got 21"):
        pretrain.Config(max_length=21, model=GPT)


# The verdict

FALLING = [3.0, 2.0, 1.5, 1.2, 1.1, 1.05]


@pytest.mark.parametrize(
    ("seen", "held_out", "word", "said"),
    [
        (FALLING, [3.0, 2.0, 1.8, 1.9, 2.0, 2.2], "over-fitted", "best (1.800 bits per byte) at evaluation 3 of 6"),
        (FALLING, [3.0, 2.4, 2.0, 1.6, 1.3, 1.0], "under-fitted", "still falling"),
        (FALLING, [3.0, 2.0, 1.8, 1.71, 1.7, 1.69], "fitted", "and level"),
        (FALLING, [3.0, 2.0, 1.8, 1.7, 1.71, 1.72], "fitted", "1.050 on what it was shown, 1.720 on what was held out"),
        ([3.0, 2.0, 1.5, 1.2, 4.0, 9.0], [3.0, 2.0, 1.8, 1.7, 5.0, 9.0], "unstable", "smaller step size"),
        ([3.0, 2.0, math.inf], [3.0, 2.1, math.inf], "unstable", "inf"),
        ([2.0, 1.9, 1.8], [2.0, 1.9, 1.8], "under-fitted", "Train for longer"),
    ],
)
def test_two_curves_are_put_into_words(seen: list[float], held_out: list[float], word: str, said: str) -> None:
    verdict = sft.verdict(seen, held_out)
    assert verdict.startswith(f"{word}: ") and said in verdict


def test_a_run_says_at_its_end_how_it_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = tiny_text.task()
    options = {"eval_freq": 64, "progress": True}
    tuned(tmp_path / "run", task, tiny_text.policy(task), options, total_timesteps=256)
    rows = [row for row in read_metrics(tmp_path / "run") if "eval/seen_bits_per_byte" in row]
    assert len(rows) == 4
    said = sft.verdict([row["eval/seen_bits_per_byte"] for row in rows], [row["eval/bits_per_byte"] for row in rows])
    assert said in capsys.readouterr().err
    tuned(tmp_path / "short", task, tiny_text.policy(task), {"eval_freq": 32, "progress": True}, total_timesteps=64)
    assert "fitted" not in capsys.readouterr().err, "two evaluations are no curve"


def test_expert_iteration_keeps_what_its_rows_hold(tmp_path: Path) -> None:
    """Rows longer than the context are refused at once; an answer that is longer than a row is not kept."""
    task = tiny_text.task(graded=True)
    small = expert_iteration.Config(
        total_timesteps=60, num_generations=2, generation_batch_size=8, reward_threshold=0.0, max_length=33
    )
    with pytest.raises(ConfigError, match="expected max_length of at most 32, the model's context, got 33"):
        run = start(tmp_path / "run", expert_iteration, small, task)
        expert_iteration.train(small, task, run, tiny_text.policy(task))
    with pytest.raises(ConfigError, match="expected max_completion_length of at least 1, got 0"):
        replace(small, max_completion_length=0)
    of = tiny_text.policy(task)
    rollout = task.source(96, 0, num_generations=2).collect(of, None)
    lengths = [len(each.ids) - 1 for each in expert_iteration.kept(rollout, small)]
    shortest = min(lengths)
    assert shortest < max(lengths)
    few = expert_iteration.kept(rollout, replace(small, max_length=shortest))
    assert [len(each.ids) - 1 for each in few] == [shortest] * lengths.count(shortest)
