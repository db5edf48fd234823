"""Distillation: the loss is that of each token's whole distribution, on whatever was written, and by whomever."""

import copy
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
from tests.language.models import CONTEXT, GPT, LLAMA, WORDS, model
from torchward.algorithms import distill, grpo, sft
from torchward.algorithms.distill import (
    Always,
    AsGood,
    Config,
    Corpus,
    Demonstrations,
    ForwardKL,
    JensenShannon,
    Learner,
    Lessons,
    ReverseKL,
    Rewarded,
    Sequence,
    TeacherSamples,
    WhereBetter,
)
from torchward.config import ConfigError
from torchward.data.lessons import Lesson, pieces, rows_of
from torchward.data.packing import Rows, Whole, gather, plan
from torchward.data.sequences import Sequences, TokenSequence
from torchward.language.text_task import Text
from torchward.language.tokenizer import Bytes
from torchward.metrics import read_metrics
from torchward.nets.language_model import NONE, LanguageModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2

STILL = Config(learning_rate=0.0, max_grad_norm=1e9, lmbda=0.0, model=GPT)
"""A step of size 0, so that its gradient can be looked at."""
OBJECTIVES: dict[str, distill.Objective] = {
    "forward": ForwardKL(), "reverse": ReverseKL(), "between": JensenShannon(0.3),
}  # fmt: skip


def packed(seed: int = 0) -> Rows:
    """Sequences of 2 to 9 tokens, several to a row, of each of which some tokens are learnt; and a row of padding."""
    random = np.random.default_rng(seed)
    made = []
    for size in (5, 2, 9, 3, 7, 8, 4):
        own = random.random(size) < 0.5
        own[0], own[-1] = False, True
        made.append(TokenSequence(random.integers(0, WORDS, size).tolist(), own.tolist()))
    data = Sequences.of(made, WORDS)
    planned = plan(data, 10, Whole(), None)
    return gather(data, planned, np.array([*range(len(planned.rows) - 1), -1]), 10, 0)


def valued(rows: Rows, seed: int = 0) -> Lesson:
    """The rows, each of whose tokens is worth something else; outside the mask it is no number at all."""
    generator = torch.Generator().manual_seed(seed)
    weight, advantage = (torch.randn(rows.tokens.shape, generator=generator) for _ in range(2))
    outside = ~rows.loss_mask
    return Lesson(rows, weight.masked_fill(outside, torch.nan), advantage.masked_fill(outside, torch.nan))


def teacher_of(config: TransformerConfig = GPT, **made: Any) -> LanguageModel:
    """One that is wider, and has read longer texts."""
    return model(replace(config, hidden_size=24, max_position_embeddings=CONTEXT + 8), seed=7, **made).requires_grad_(
        False
    )


def gradient(policy: LanguageModel) -> Tensor:
    """Of the parameters that a text depends on: not those of the value."""
    found = [p.grad for name, p in policy.named_parameters() if "value_head" not in name and p.grad is not None]
    return torch.cat([x.flatten().double() for x in found])


def learnt(
    policy: LanguageModel, lesson: Lesson, teacher: LanguageModel, **changes: Any
) -> tuple[Tensor, dict[str, float]]:
    """The gradient and the metrics of one step."""
    learner = Learner(policy, teacher, replace(STILL, **changes))
    metrics = learner.update(lesson)
    return gradient(policy), {name: float(value) for name, value in metrics.items()}


def by_hand(
    policy: LanguageModel, teacher: LanguageModel, lesson: Lesson, objective: distill.Objective, temperature: float
) -> Tensor:
    """The loss in float64, sequence by sequence, each read alone, token by token, from whole distributions."""
    policy, rows, total = policy.double(), lesson.rows, 0
    teacher = copy.deepcopy(teacher).double()
    cost = torch.zeros((), dtype=torch.float64)
    for row, segment in product(range(len(rows.tokens)), range(4)):
        here = (rows.segments[row] == segment).nonzero().squeeze(1)
        if not len(here):
            continue
        tokens = rows.tokens[row, here][None]
        q, p = ((each.body.logits(each.body.forward(tokens))[0] / temperature).softmax(1) for each in (policy, teacher))
        for i, t in enumerate(here.tolist()):
            if not rows.loss_mask[row, t]:
                continue
            total += 1
            match objective:
                case ForwardKL():
                    apart = (p[i] * (p[i] / q[i]).log()).sum()
                case ReverseKL():
                    apart = (q[i] * (q[i] / p[i]).log()).sum()
                case JensenShannon(beta):
                    m = beta * p[i] + (1 - beta) * q[i]
                    apart = beta * (p[i] * (p[i] / m).log()).sum() + (1 - beta) * (q[i] * (q[i] / m).log()).sum()
                case Sequence():
                    apart = torch.zeros(())
            said = q[i, rows.targets[row, t]].log()
            cost = cost + lesson.weight[row, t] * apart - lesson.advantage[row, t] * said
    return cost / total


@pytest.mark.parametrize("config", [GPT, LLAMA])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("objective", [*OBJECTIVES.values(), Sequence()], ids=[*OBJECTIVES, "sequence"])
def test_the_loss_is_that_of_each_token_read_alone(
    config: TransformerConfig, temperature: float, objective: distill.Objective
) -> None:
    """Of sequences in one row each sees itself alone; prompts and padding neither cost nor teach, whatever is there."""
    policy, teacher, lesson = model(config), teacher_of(config), valued(packed())
    policy.sampling = replace(policy.sampling, temperature=temperature)
    double = copy.deepcopy(policy)
    expected = by_hand(double, teacher, lesson, objective, temperature)
    expected.backward()
    found, metrics = learnt(policy, lesson, teacher, objective=objective, temperature=temperature)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert (found - gradient(double)).norm() / gradient(double).norm() < 1e-4


def test_what_stands_outside_the_mask_changes_nothing() -> None:
    policy, teacher, lesson = model(), teacher_of(), valued(packed())
    before, _ = learnt(policy, lesson, teacher)
    other = lesson.rows.targets.where(lesson.rows.loss_mask, (lesson.rows.targets + 1) % WORDS)
    after, _ = learnt(policy, replace(lesson, rows=replace(lesson.rows, targets=other)), teacher)
    assert torch.equal(before, after) and torch.isfinite(before).all()


@pytest.mark.parametrize("objective", [JensenShannon(0.3), ReverseKL(1.0)])
def test_however_the_rows_are_split_the_step_is_one(objective: distill.Objective) -> None:
    policy, teacher, rows = model(), teacher_of(), packed()
    group = torch.arange(len(rows.tokens)) // 2
    lesson = replace(valued(rows), group=group)
    whole, expected = learnt(policy, lesson, teacher, objective=objective, per_device_train_batch_size=100)
    for size in (1, 2, 3):
        found, metrics = learnt(policy, lesson, teacher, objective=objective, per_device_train_batch_size=size)
        assert (found - whole).norm() < 1e-5 * whole.norm()
        assert metrics == pytest.approx(expected, rel=1e-4)


def test_pieces_hold_what_teaches_once() -> None:
    lesson = valued(packed())
    lesson = replace(lesson, weight=torch.zeros_like(lesson.weight), advantage=lesson.advantage.clone())
    lesson.advantage[1] = 0.0
    found = list(pieces(lesson, 2))
    assert sorted(int(i) for _, index in found for i in index) == [0, *range(2, len(lesson.weight) - 1)]
    assert sum(int(piece.taught.sum()) for piece, _ in found) == int(lesson.taught.sum())
    assert all(bool(piece.taught[:, -1].any()) for piece, _ in found), "each is cut to its longest"


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_student_that_is_its_teacher_learns_nothing(objective: distill.Objective) -> None:
    policy, rows = model(), packed()
    lesson = Lesson(rows, torch.ones(rows.tokens.shape), torch.zeros(rows.tokens.shape))
    found, metrics = learnt(policy, lesson, copy.deepcopy(policy).requires_grad_(False), objective=objective)
    assert metrics["loss"] == metrics["divergence"] == metrics["grad_norm"] == 0.0 and not found.any()


# The student's own answers, all of which can be counted: five words, answers of at most three

FEW = replace(GPT, vocab_size=5, hidden_size=8)
END, PROMPT, LONGEST = 4, [1, 2], 3


def few(seed: int, width: int = 8) -> LanguageModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = LanguageModel(Transformer(replace(FEW, hidden_size=width)), {"tokenizer": "none"}).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.4)
    return made


def answers(longest: int = LONGEST) -> list[list[int]]:
    """All of them: END closes an answer, the length any other."""
    found: list[list[int]] = []
    for length in range(1, longest + 1):
        for words in product(range(5), repeat=length):
            ends = words[-1] == END or length == longest
            if ends and END not in words[:-1]:
                found.append(list(words))
    return found


def log_probs(policy: LanguageModel, answer: list[int]) -> Tensor:
    hidden = policy.body.forward(torch.tensor([PROMPT + answer[:-1]]))
    said = policy.body.logits(hidden)[0].log_softmax(1)[len(PROMPT) - 1 :]
    return said[torch.arange(len(answer)), torch.tensor(answer)]


def answered(found: list[list[int]]) -> Rows:
    time = len(PROMPT) + LONGEST - 1
    tokens, targets = torch.zeros(len(found), time, dtype=torch.int64), torch.zeros(len(found), time, dtype=torch.int64)
    mask = torch.zeros(len(found), time, dtype=torch.bool)
    for row, answer in enumerate(found):
        whole = PROMPT + answer
        tokens[row, : len(whole) - 1], targets[row, : len(whole) - 1] = (
            torch.tensor(whole[:-1]),
            torch.tensor(whole[1:]),
        )
        mask[row, len(PROMPT) - 1 : len(whole) - 1] = True
    return Rows(tokens, targets, mask, torch.arange(time).expand_as(tokens), torch.zeros_like(tokens))


@pytest.fixture(scope="module")
def enumerated() -> tuple[LanguageModel, LanguageModel, list[list[int]], Tensor]:
    """Student, teacher, every answer, and how likely the student is to give it."""
    student, teacher = few(1), few(2, 12).requires_grad_(False)
    every = answers()
    with torch.no_grad():
        likely = torch.stack([log_probs(student, answer).sum() for answer in every]).exp()
    assert len(every) == 85 and float(likely.sum()) == pytest.approx(1.0, abs=1e-5)
    return student, teacher, every, likely


def of_whole_answers(student: LanguageModel, teacher: LanguageModel, every: list[list[int]], which: str) -> Tensor:
    """The gradient in float64 of what is expected of whole answers, by autograd through every one's probability:
    ``kl``, sum_y q(y) log(q(y) / p(y)); ``tokens``, the same of each token, q's choice of what stands before it held
    as it is."""
    double, known = copy.deepcopy(student).double(), copy.deepcopy(teacher).double()
    loss = torch.zeros((), dtype=torch.float64)
    for answer in every:
        q, p = log_probs(double, answer), log_probs(known, answer)
        if which == "kl":
            loss = loss + q.sum().exp() * (q - p).sum()
            continue
        for t in range(len(answer)):  # q(y_<=t) = q(y_<t), held, times q(y_t | y_<t); what follows is summed out
            loss = loss + q[:t].sum().detach().exp() * q[t].exp() * (q[t] - p[t]) * q[t + 1 :].sum().detach().exp()
    loss.backward()
    return gradient(double)


@pytest.mark.parametrize(("gamma", "which"), [(0.0, "tokens"), (1.0, "kl")])
def test_on_its_own_answers_the_expected_gradient_is_that_of_the_reverse_kl(
    enumerated: tuple[LanguageModel, LanguageModel, list[list[int]], Tensor], gamma: float, which: str
) -> None:
    """Of each token, as in GKD; with the whole future counted, of whole answers, as in MiniLLM."""
    student, teacher, every, likely = enumerated
    rows = answered(every)
    weight = (likely * rows.loss_mask.sum())[:, None].expand(rows.tokens.shape)
    lesson = Lesson(rows, weight, torch.zeros_like(weight), torch.arange(len(every)))
    found, _ = learnt(student, lesson, teacher, objective=ReverseKL(gamma))
    expected = of_whole_answers(student, teacher, every, which)
    other = of_whole_answers(student, teacher, every, "kl" if which == "tokens" else "tokens")
    assert (found - expected).norm() < 1e-4 * expected.norm() < 1e-2 * (other - expected).norm()


def test_the_other_answers_of_a_group_shift_no_gradient(
    enumerated: tuple[LanguageModel, LanguageModel, list[list[int]], Tensor],
) -> None:
    """Over all pairs of answers of at most two words, each pair a group as likely as its two are."""
    student, teacher, every = *enumerated[:2], answers(2)
    with torch.no_grad():
        likely = torch.stack([log_probs(student, answer).sum() for answer in every]).exp()
    pairs = list(product(range(len(every)), repeat=2))
    first, second = (torch.tensor([pair[i] for pair in pairs]) for i in range(2))
    rows = answered([every[i] for pair in pairs for i in pair])
    weight = (0.5 * likely[first] * likely[second]).repeat_interleave(2) * rows.loss_mask.sum()
    weight = weight[:, None].expand(rows.tokens.shape)
    group = torch.arange(len(pairs)).repeat_interleave(2)
    lesson = Lesson(rows, weight, torch.zeros_like(weight), group)
    found, _ = learnt(student, lesson, teacher, objective=ReverseKL(1.0), per_device_train_batch_size=20_000)
    expected = of_whole_answers(student, teacher, every, "kl")
    assert (found - expected).norm() < 1e-3 * expected.norm()


# What a step learns from


def lessons(task: Text, policy: LanguageModel, teacher: LanguageModel, **changes: Any) -> Lessons:
    config = Config(model=gpt2(8, 16, 1, 2, 32), generation_batch_size=24, **changes)
    return Lessons(config, task, policy, teacher, None)


@pytest.mark.parametrize("follow", [Always(), AsGood(), WhereBetter()])
def test_the_teacher_is_followed_as_far_as_its_own_answers_earn(follow: Any) -> None:
    task = tiny_text.task(graded=True)
    policy, teacher = tiny_text.policy(task), tiny_text.policy(task, 3)
    made = lessons(task, policy, teacher, lmbda=1.0, reward=Rewarded(2.0, False, follow))
    lesson, episodes, metrics = made.next()
    means: dict[str, dict[str, list[float]]] = {"student": {}, "asked": {}}
    for name, found in means.items():
        if name in made.sources:
            for line in made.sources[name].lines:  # type: ignore[attr-defined]
                found.setdefault(line.document.origin, []).append(sum(line.rewards))
    assert isinstance(follow, Always) or means["student"].keys() == means["asked"].keys(), "asked the same"
    assert sum(map(len, means["student"].values())) == 24 == len(episodes)
    weights = []
    for row, line in enumerate(made.sources["student"].lines):  # type: ignore[attr-defined]
        own = means["student"][line.document.origin]
        mean, earns = sum(own) / len(own), sum(line.rewards)
        other = sum(means["asked"].get(line.document.origin, [])) / len(own)
        weight = {"Always": 1.0, "AsGood": other, "WhereBetter": float(other > mean)}[type(follow).__name__]
        weights.append(weight)
        assert lesson.weight[row].tolist() == pytest.approx([weight] * lesson.weight.shape[1])
        assert lesson.advantage[row].tolist() == pytest.approx(
            [2.0 * (earns - mean)] * lesson.weight.shape[1], abs=1e-6
        )
    assert isinstance(follow, Always) or (
        len(set(weights)) > 1 and metrics["followed"] == pytest.approx(np.mean(weights))
    )


def test_by_reward_alone_the_step_is_that_of_grpo() -> None:
    """Where the teacher earns nothing: the clip does nothing in the first step, and both count tokens alike."""
    task = tiny_text.task(graded=True)
    policy = tiny_text.policy(task)
    rollout = task.source(24, 0, num_generations=4).collect(policy, None)
    told = grpo.Config(learning_rate=0.0, max_grad_norm=1e9, normalisation=grpo.TokenMean(), generation_batch_size=24)
    advantage = grpo.advantages(rollout, told.credit)
    assert float(advantage.abs().max()) > 0.5
    grpo.Learner(policy, told).update(rollout, advantage, 3)
    expected = gradient(policy)
    rows = rows_of(rollout)
    lesson = Lesson(rows, torch.zeros_like(rollout.reward), advantage[:, None].expand_as(rollout.reward))
    found, _ = learnt(policy, lesson, tiny_text.policy(task, 3))
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_where_nothing_teaches_there_is_no_step() -> None:
    policy, rows = model(), packed()
    nothing = torch.zeros(rows.tokens.shape)
    learner = Learner(policy, teacher_of(), replace(STILL, learning_rate=1.0))
    before = copy.deepcopy(policy.state_dict())
    assert learner.update(Lesson(rows, nothing, nothing)) == {}
    assert all(torch.equal(x, before[name]) for name, x in policy.state_dict().items())


def test_whose_answers_a_step_is_made_of() -> None:
    """A share of about lmbda is the student's; of the rest, the teacher's are of its own distribution."""
    task = tiny_text.task()
    policy, teacher = tiny_text.policy(task), tiny_text.policy(task, 3)
    made = lessons(task, policy, teacher, lmbda=0.3, data=TeacherSamples(0.01))
    found = [made.next()[0] for _ in range(60)]
    assert 8 <= sum(each.group is not None for each in found) <= 28
    for lesson in (each for each in found[:10] if each.group is None):
        rows, mask = lesson.rows, lesson.rows.loss_mask
        likeliest = teacher.body.logits(teacher.body.forward(rows.tokens)).argmax(2)
        assert (likeliest == rows.targets)[mask].float().mean() > 0.95, "nearly cold, it writes the likeliest"
        assert rows.targets[mask].min() > NONE
    assert teacher.sampling.temperature == 1.0


def test_hard_and_soft_targets_of_data() -> None:
    task = tiny_text.task()
    rows = packed()
    for objective, ce_coef, weight, advantage in (
        (ForwardKL(), 0.0, 1.0, 0.0), (ForwardKL(), 0.5, 1.0, 0.5), (Sequence(), 0.0, 0.0, 1.0),
    ):  # fmt: skip
        made = lessons(task, model(), model(), lmbda=0.0, objective=objective, ce_coef=ce_coef).of_data(rows)
        assert set(made.weight.unique().tolist()) == {weight} and set(made.advantage.unique().tolist()) == {advantage}
        assert made.group is None


# Whole runs


def task() -> Text:
    """All pairs are asked in an evaluation."""
    made = tiny_text.task().problems
    return Text(replace(made, test=[*made.train, *made.test]))


def score(policy: LanguageModel) -> float:
    returns = task().evaluate(policy, 100, 0).returns
    return sum(returns) / len(returns)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A teacher that answers every pair."""
    config = sft.Config(total_timesteps=12_000, max_length=8, per_device_train_batch_size=8, learning_rate=1e-2)
    path = tmp_path_factory.mktemp("runs") / "teacher"
    made = sft.train(config, task(), start(path, sft, config, task()), tiny_text.policy(task()))
    assert score(made) > 0.95
    return made


SMALL = Config(
    total_timesteps=20_000, max_length=8, per_device_train_batch_size=64, generation_batch_size=64, num_generations=2,
    learning_rate=1e-2, model=gpt2(8, 12, 1, 2, 32),
)  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "on its own and on the teacher's answers": {},
    "on the teacher's words": {"objective": Sequence(), "lmbda": 0.0, "data": TeacherSamples(0.5)},
    "on its distributions": {"objective": ForwardKL(), "lmbda": 0.0},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_student_comes_to_its_teacher(name: str, taught: LanguageModel, tmp_path: Path) -> None:
    """From nothing; no answer is shown to it but those that models wrote, and nothing is rewarded."""
    config, before = replace(SMALL, **RUNS[name]), copy.deepcopy(taught.state_dict())
    policy = distill.train(config, task(), start(tmp_path / "run", distill, config, task()), teacher=taught)
    assert sum(p.numel() for p in policy.parameters()) < 0.5 * sum(p.numel() for p in taught.parameters())
    assert score(policy) > score(taught) - 0.1
    assert all(torch.equal(x, before[key]) for key, x in taught.state_dict().items()), "the teacher stays as it is"
    if name == "on the teacher's words":
        return
    rows = [row["divergence"] for row in read_metrics(tmp_path / "run") if "divergence" in row]
    assert rows[-1] < 0.25 * rows[0]


def test_whole_answers_of_its_own_lead_it_the_rest_of_the_way(taught: LanguageModel, tmp_path: Path) -> None:
    """From a student that is half-taught: from nothing, what comes later says too little of a first word."""
    config = replace(SMALL, total_timesteps=8_000, objective=ForwardKL(), lmbda=0.0)
    begun = distill.train(config, task(), start(tmp_path / "begun", distill, config, task()), teacher=taught)
    before, config = score(begun), replace(SMALL, total_timesteps=8_000, objective=ReverseKL(1.0), lmbda=0.5)
    policy = distill.train(config, task(), start(tmp_path / "run", distill, config, task()), begun, taught)
    assert score(policy) > 0.9 > before + 0.2


def test_reward_leads_beyond_a_teacher(tmp_path: Path) -> None:
    """Of one that is right on a good half of the pairs its student keeps that, and earns the rest; the teacher alone
    leads no further than it is."""
    tuned = sft.Config(total_timesteps=2_000, max_length=8, per_device_train_batch_size=8, learning_rate=1e-2)
    half = sft.train(tuned, task(), start(tmp_path / "half", sft, tuned, task()), tiny_text.policy(task()))
    assert 0.4 < score(half) < 0.75
    told = Config(total_timesteps=12_000, lmbda=1.0, objective=ReverseKL(), learning_rate=3e-3,
                  per_device_train_batch_size=64)  # fmt: skip
    found = {}
    for name, reward in (("alone", distill.Unrewarded()), ("rewarded", Rewarded())):
        config = replace(told, reward=reward)
        run = start(tmp_path / name, distill, config, task())
        found[name] = score(distill.train(config, task(), run, copy.deepcopy(half), half))
    assert abs(found["alone"] - score(half)) < 0.1 and found["rewarded"] > score(half) + 0.2


def test_on_data_a_run_is_judged_by_bits_per_byte(taught: LanguageModel, tmp_path: Path) -> None:
    for data in (Corpus(), Demonstrations()):
        config = replace(SMALL, total_timesteps=400, lmbda=0.0, data=data, temperature=2.0)
        run = start(tmp_path / type(data).__name__, distill, config, task(), eval_freq=400)
        distill.train(config, task(), run, teacher=taught)
        (judged,) = [row["eval/bits_per_byte"] for row in run.rows() if "eval/bits_per_byte" in row]
        assert judged > 0.0 and run.lower_is_better


def test_what_cannot_be_is_said(taught: LanguageModel, tmp_path: Path) -> None:
    def fails(message: str, config: Config = SMALL, **given: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            distill.train(config, task(), start(tmp_path / message[:30], distill, config, task()), **given)

    fails("expected a teacher to learn from: give a run's, with teacher")
    fails("expected a language model for a teacher, got Linear", teacher=torch.nn.Linear(1, 1), policy=taught)
    bytes_ = LanguageModel(taught.body, Bytes().build([]).description())
    fails("expected a teacher with the student's tokenizer", policy=taught, teacher=bytes_)
    longer = LanguageModel(Transformer(replace(gpt2(taught.config.vocab_size, 8, 1, 2, 64), value_head=True)),
                           taught.vocabulary)  # fmt: skip
    fails("reads as long texts as the student, 64 tokens, got one of 32", policy=longer, teacher=taught)
    rows = replace(SMALL, lmbda=0.0, data=Corpus(), max_length=64)
    fails("expected max_length of at most 32", rows, teacher=taught)
    for wrong, message in (
        ({"num_generations": 5}, "a multiple of num_generations=5"),
        ({"lmbda": 1.5}, r"expected lmbda within \[0, 1\], got 1.5"),
        ({"max_length": 0}, "expected max_length of at least 1"),
        ({"ce_coef": -1.0}, "expected ce_coef of at least 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            replace(Config(), **wrong)
    for make in (
        lambda: JensenShannon(1.5),
        lambda: ReverseKL(-0.1),
        lambda: TeacherSamples(0.0),
        lambda: Rewarded(0.0),
    ):
        with pytest.raises(ConfigError, match="expected"):
            make()


def test_a_student_that_cannot_read_the_prompts_is_told(taught: LanguageModel, tmp_path: Path) -> None:
    """And does not wait for ever for an answer that has room."""
    config = replace(SMALL, lmbda=0.0, model=gpt2(8, 12, 1, 2, 2))
    with pytest.raises(ConfigError, match="leave room for an answer in the 2 tokens that the student reads"):
        distill.train(config, task(), start(tmp_path / "run", distill, config, task()), teacher=taught)


@pytest.mark.parametrize("changes", [{"lmbda": 0.0}, {"num_generations": 1}])
def test_a_reward_that_nothing_would_earn_is_told(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected lmbda above 0 and num_generations of at least 2"):
        distill.check_together(distill.Config(reward=Rewarded(), **changes))


def test_an_objective_without_a_word_on_the_students_answers_is_told() -> None:
    with pytest.raises(ConfigError, match=r"expected lmbda=0 with the objective Sequence, got 0\.25"):
        distill.check_together(distill.Config(objective=Sequence(), lmbda=0.25))
    distill.check_together(distill.Config(objective=Sequence(), lmbda=0.0))
