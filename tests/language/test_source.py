"""Completions as rollouts: what is masked, what is told of ends, what each word earned; and that nothing is lost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.language.letters import LETTERS, TEXTS, partner, policy, problems, source, talking
from tests.language.models import LLAMA, model, read
from torchward.config import ConfigError
from torchward.data.protocols import Source
from torchward.data.rollout import Rollout
from torchward.language.chat import Template
from torchward.language.documents import Completion, Content, Dialogue, Document, Message, Preference, Prompt, TextError
from torchward.language.generate import generate
from torchward.language.play import Line, gathered, question, spoken
from torchward.language.source import TextSource
from torchward.language.task import Reply
from torchward.language.tokenizer import Bytes, Tokenizer
from torchward.nets.language_model import LanguageModel, parts
from torchward.nets.sampling import Sampling

SAMPLINGS = [Sampling(0.8), Sampling(1.3, top_k=5), Sampling(1.0, 9, 0.8)]


def only(tensor: Any) -> Tensor:
    assert isinstance(tensor, Tensor)
    return tensor


def agrees(of: LanguageModel, rollout: Rollout) -> None:
    """What was stored while it wrote is what it says of the whole rows: before the first step the ratio is 1."""
    found = of.evaluate_actions(rollout.observation, rollout.action, (), rollout.boundary)
    mask = rollout.loss_mask
    assert rollout.value is not None and found.value is not None
    assert (found.log_prob - rollout.log_prob)[mask].abs().max() < 1e-4
    assert (found.value - rollout.value)[mask].abs().max() < 1e-4


@pytest.mark.parametrize(("sampling", "bootstrap"), [*zip(SAMPLINGS, (True, False, True), strict=True)])
def test_a_row_is_a_prompt_and_its_completion(sampling: Sampling, bootstrap: bool) -> None:
    of, made = policy(sampling), source(problems(bootstrap_cut=bootstrap), n=24)
    assert isinstance(made, Source)
    rollout = made.collect(of, None)
    agrees(of, rollout)
    tokens, support = parts(rollout.observation)
    action, mask, rows, time = only(rollout.action), rollout.loss_mask, 24, rollout.reward.shape[1]
    assert (support is None) == sampling.is_whole
    assert rollout.value is not None and rollout.next_value is not None
    assert time == max(len(line.ids) for line in made.lines) - 1
    ends = set()
    for row in range(rows):
        (own,) = torch.where(mask[row])
        first, last = int(own[0]), int(own[-1])
        assert own.tolist() == list(range(first, last + 1)), "one answer without a gap"
        prompt, answer = tokens[row, : first + 1].tolist(), action[row, own].tolist()
        assert prompt == [LETTERS.start_id, *LETTERS.encode(TEXTS[int(made.lines[row].document.origin[5:])])]
        assert answer[:-1] == tokens[row, first + 1 : last + 1].tolist(), "what was chosen is seen next"
        assert (tokens[row, last + 1 :] == LETTERS.pad_id).all() and (action[row][~mask[row]] == -1).all()
        ended = answer[-1] == LETTERS.eos_id
        assert ended or len(answer) == 6, "a length ends it only where there is no more"
        assert rollout.terminated[row].nonzero().flatten().tolist() == ([last] if ended else [])
        assert rollout.boundary[row].tolist() == [t >= last for t in range(time)]
        earned = len(spoken(LETTERS, answer)) + made.lines[row].document.columns["weight"]
        assert rollout.reward[row].tolist() == [earned * (t == last) for t in range(time)]
        for outside in (rollout.log_prob, rollout.reward):
            assert not outside[row][~mask[row]].any()
        following = rollout.value[row, first + 1 : last + 1].tolist()
        assert rollout.next_value[row, first:last].tolist() == following
        behind = float(read(of, [*prompt, *answer]).values[-1])
        expected = behind if bootstrap and not ended else 0.0
        assert float(rollout.next_value[row, last]) == pytest.approx(expected, abs=1e-4)
        ends.add(ended)
    assert ends == {True, False}
    assert only(rollout.context["group"]).tolist() == [row // 3 for row in range(rows)]
    for row in range(rows):
        assert made.lines[row].document is made.lines[row - row % 3].document
    episodes = made.episodes()
    assert [e.return_ for e in episodes] == rollout.reward.sum(1).tolist()
    assert [e.length for e in episodes] == mask.sum(1).tolist() and not made.episodes()
    assert rollout.steps == int(mask.sum()) and not made.cut()


def test_what_was_sampled_is_what_is_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token for token, also where their text would be cut into others."""
    tokenizer: Tokenizer = Bytes().build(())
    of = model(LLAMA, vocab_size=tokenizer.vocab_size, max_position_embeddings=40)
    drawn: list[list[int]] = []

    def watched(*given: Any, **named: Any) -> Any:
        done = generate(*given, **named)
        drawn.extend(row[:n].tolist() for row, n in zip(done.tokens, done.lengths.tolist(), strict=True))
        return done

    monkeypatch.setattr("torchward.language.play.generate", watched)
    made = TextSource(problems(max_completion_length=20), tokenizer, 8, 0, num_generations=2)
    rollout = made.collect(of, None)
    learnt = [only(rollout.action)[row][rollout.loss_mask[row]].tolist() for row in range(8)]
    assert learnt == drawn
    ends = [ids[-1:] * (ids[-1] == tokenizer.eos_id) for ids in learnt]
    assert any(
        [*tokenizer.encode(line.said[0]), *end] != ids for line, ids, end in zip(made.lines, learnt, ends, strict=True)
    )


@pytest.mark.parametrize("slots", [1, 4, 128])
def test_slots_change_nothing(slots: int) -> None:
    whole, part = (source(slots=count).collect(policy(), None) for count in (12, slots))
    assert torch.equal(only(whole.action), only(part.action)) and torch.equal(whole.reward, part.reward)
    torch.testing.assert_close(whole.log_prob, part.log_prob, atol=1e-5, rtol=0.0)


def test_a_turn_is_no_longer_than_the_horizon_and_the_task_allow() -> None:
    for horizon, longest in ((None, 6), (2, 2), (50, 6)):
        rollout = source(n=30).collect(policy(), horizon)
        assert int(rollout.loss_mask.sum(1).max()) == longest


def test_stop_sequences_end_an_answer() -> None:
    of = policy()
    rollout = source(n=30, stop=("a", "bc")).collect(of, None)
    agrees(of, rollout)
    for row in range(30):
        said = spoken(LETTERS, only(rollout.action)[row][rollout.loss_mask[row]].tolist())
        hit = said.endswith(("a", "bc"))
        assert not any(word in said[:-1] for word in ("a", "bc"))
        last = int(rollout.loss_mask[row].nonzero().max())
        ended = bool(rollout.terminated[row, last])
        assert ended == (hit or int(only(rollout.action)[row, last]) == LETTERS.eos_id)
    whole = source(n=30).collect(of, None)
    assert rollout.steps < whole.steps


# In turns


@pytest.mark.parametrize("sampling", SAMPLINGS[:2])
def test_in_turns_the_partners_words_are_masked(sampling: Sampling) -> None:
    of = policy(sampling, ends=2.0)
    made = source(talking(max_completion_length=5), n=21, template=Template("cab"))
    rollout = made.collect(of, None)
    agrees(of, rollout)
    assert rollout.value is not None and rollout.next_value is not None
    tokens, _ = parts(rollout.observation)
    action, mask = only(rollout.action), rollout.loss_mask
    system, user, assistant = (LETTERS.role_id(role) for role in ("system", "user", "assistant"))
    eos = LETTERS.eos_id
    ends, turns = set(), set()
    for row, line in enumerate(made.lines):
        number = int(line.document.columns["weight"]) // 100
        own = mask[row].tolist()
        # The row again, out of what was said.
        expected = [LETTERS.start_id, system, *LETTERS.encode("cab"), eos, user, *LETTERS.encode(TEXTS[number]), eos]
        expected += [assistant]
        masks, rewards, last = [False] * (len(expected) - 1), [0.0] * (len(expected) - 1), 0
        t, finished = len(expected) - 1, False
        for turn in range(3):
            answer: list[int] = []
            while t < len(own) and own[t] and (not answer or answer[-1] != eos):
                answer.append(int(action[row, t]))
                t += 1
            said = spoken(LETTERS, answer)
            assert said == line.said[turn]
            reply = partner(line.said[: turn + 1], line.document.columns)
            expected += answer
            masks += [True] * len(answer)
            rewards += [0.0] * (len(answer) - 1) + [reply.reward]
            last = t - 1
            if reply.text is None or answer[-1] != eos or turn == 2:
                finished = reply.text is None or answer[-1] == eos
                break
            heard = [user, *LETTERS.encode(reply.text), eos, assistant]
            expected += heard
            masks += [False] * len(heard)
            rewards += [0.0] * len(heard)
            t += len(heard)
        rewards[last] += len("\n".join(line.said)) + 100.0 * number
        assert line.ids == expected
        assert tokens[row, : len(expected) - 1].tolist() == expected[:-1]
        assert own == masks + [False] * (len(own) - len(masks))
        torch.testing.assert_close(rollout.reward[row, : len(rewards)], torch.tensor(rewards))
        assert not rollout.reward[row, len(rewards) :].any()
        assert bool(rollout.terminated[row, last]) == finished and int(rollout.terminated[row].sum()) == finished
        assert rollout.boundary[row].tolist() == [t >= last for t in range(len(own))]
        # Where nothing was chosen, the value is that of the next choice.
        for t in range(last):
            following = next(u for u in range(t + 1, last + 1) if own[u])
            assert rollout.next_value[row, t] == rollout.value[row, following]
        ends.add(finished)
        turns.add(len(line.said))
    assert ends == {True, False} and turns == {1, 2, 3}


def test_a_conversation_that_fills_the_context_is_cut() -> None:
    """It is neither terminated nor worth anything beyond."""

    def long(said: Sequence[str], columns: Mapping[str, Any]) -> Reply:
        return Reply("a" * 30, 0.0)

    of = policy(context=40)
    made = source(talking(long, max_completion_length=4, bootstrap_cut=True), n=30)
    rollout = made.collect(of, None)
    assert all(len(line.said) == 1 for line in made.lines)
    assert not rollout.terminated.any()
    assert rollout.next_value is not None and rollout.value is not None
    for row, line in enumerate(made.lines):
        last = int(rollout.loss_mask[row].nonzero().max())
        assert (float(rollout.next_value[row, last]) == 0.0) == (line.ids[-1] == LETTERS.eos_id)


@pytest.mark.parametrize("side", ["train", "test"])
def test_a_prompt_that_fills_the_context_is_told_before_the_first_rollout(side: str) -> None:
    """Not when its turn comes, in the midst of a run."""
    given = problems()
    long = Document(Prompt("a" * 200), "line 77")
    more: dict[str, Any] = {side: [*getattr(given, side), long]}
    spoilt = replace(given, **more)
    with pytest.raises(TextError, match=r"expected prompts of at most .* got 201 in line 77"):
        source(spoilt).collect(policy(), None)


# What a reward may say


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "expected a list of numbers from <lambda>, one for each completion, got None"),
        (["right"] * 12, r"expected finite numbers from <lambda>, got 'right' for '.*' of line \d"),
        ([1.0] * 11, "expected one reward for each of 12 completions from <lambda>, got 11"),
        ([1.0] * 13, "got 13"),
        ([1e39] * 12, r"expected finite numbers from <lambda>, got 1e\+39 for '.*' of line \d"),
        ([1.0] * 11 + [math.nan], r"expected finite numbers from <lambda>, got nan for '.*' of line \d"),
        ([-math.inf] + [1.0] * 11, "got -inf"),
        ([None] + [1.0] * 11, "got None"),
    ],
)
def test_rewards_are_finite_numbers(given: Any, sentence: str) -> None:
    made = source(problems(reward=lambda prompts, completions, **columns: given))
    with pytest.raises(TextError, match=sentence):
        made.collect(policy(), None)


def test_a_partners_rewards_are_finite_numbers() -> None:
    with pytest.raises(TextError, match=r"expected finite rewards, got nan for '.*' of line \d"):
        source(talking(lambda said, columns: Reply(None, math.nan))).collect(policy(), None)


@pytest.mark.parametrize("answer", ["no 12", None, 3])
def test_a_partner_answers_with_a_reply(answer: Any) -> None:
    with pytest.raises(TextError, match=r"expected the partner of talk to answer with a Reply\(text, reward\), got"):
        source(talking(lambda said, columns: answer)).collect(policy(), None)


def test_a_reward_is_given_what_was_asked_and_said() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        seen.update(prompts=prompts, completions=completions, **columns)
        return [0.0] * len(prompts)

    made = source(problems(reward=reward), n=6)
    made.collect(policy(), None)
    numbers = [int(line.document.origin[5:]) for line in made.lines]
    assert seen["prompts"] == [TEXTS[i] for i in numbers] and seen["weight"] == [100.0 * i for i in numbers]
    assert seen["completions"] == [line.said[0] for line in made.lines]
    assert gathered([{"a": 1}, {"b": 2}, {"a": 3}]) == {"a": [1, None, 3], "b": [None, 2, None]}


# Prompts


def test_each_prompt_comes_once_in_an_epoch() -> None:
    made, of = source(n=4, num_generations=1), policy()
    origins = [line.document.origin for _ in range(7) if made.collect(of, 1) for line in made.lines]
    epochs = [origins[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(epoch) == sorted(d.origin for d in problems().train) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4, "each in an order of its own"
    larger = source(n=28, num_generations=1)
    larger.collect(of, 1)
    assert [line.document.origin for line in larger.lines] == origins, "however many come at a time"
    other = source(n=28, seed=1, num_generations=1)
    other.collect(of, 1)
    assert [line.document.origin for line in other.lines] != origins


def test_a_source_goes_on_where_it_stood() -> None:
    of = policy()
    short = talking(max_completion_length=3, turns=2)
    whole, first, second = source(short, 6), source(short, 6), source(short, 6, seed=9)
    rollouts = [whole.collect(of, None) for _ in range(5)]
    for _ in range(3):
        first.collect(of, None)
    second.seed = 0
    second.load_state_dict(first.state_dict())
    for expected in rollouts[3:]:
        found = second.collect(of, None)
        assert torch.equal(only(found.action), only(expected.action))
        assert torch.equal(found.log_prob, expected.log_prob) and torch.equal(found.reward, expected.reward)


def test_what_is_asked() -> None:
    said = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    contents: list[tuple[Content, Any]] = [
        (Prompt("a"), "a"),
        (Completion("a", "b"), "a"),
        (Dialogue(said), said[:1]),
        (Completion(said[:3], said[3:]), said[:3]),
        (Preference("a", "b", "c"), "a"),
        (Preference("", said[:2], (*said[:1], said[3])), said[:1]),
    ]
    for content, expected in contents:
        assert question(Document(content, "here")) == expected
    wrongs: list[tuple[Content, str]] = [("a text", "a text"), (Preference("", "ab", "ac"), "a preference")]
    for wrong, kind in wrongs:
        with pytest.raises(TextError, match=f"expected a prompt to answer in here, got {kind}"):
            question(Document(wrong, "here"))


def test_what_cannot_be_a_source_is_refused() -> None:
    for n in (0, -3, 7):
        with pytest.raises(ConfigError, match=f"multiple of num_generations=3, got {n}"):
            source(n=n)
    with pytest.raises(ConfigError, match="num_generations=0"):
        source(num_generations=0)
    with pytest.raises(TextError, match="expected prompts to answer in letters, got none"):
        source(problems([]))
    with pytest.raises(TypeError, match="expected a LanguageModel to write completions, got Other"):
        source().collect(Other(), None)  # type: ignore[arg-type]
    with pytest.raises(TextError, match=r"expected prompts of at most 9 tokens, .* got 10 in line 3"):
        source(n=21).collect(policy(context=10), None)


class Other:
    """No language model."""


def test_a_line_without_a_word_of_the_policy_is_refused() -> None:
    from torchward.language.source import rollout

    with pytest.raises(TextError, match="expected at least one token of the policy behind the prompt of here"):
        rollout([Line.begun(Document(Prompt("a"), "here"), [1, 2])], 1, torch.device("cpu"), 0)
