"""A reward model as a reward: tokens as they were sampled, and text as it is read."""

from typing import Any

import pytest
import torch

from tests.algorithms import tiny_text
from torchward.data.random import seeded
from torchward.language.chat import encode
from torchward.language.documents import Completion, Document
from torchward.language.model_judge import Judge
from torchward.language.play import judged
from torchward.language.task import ReadsTokens
from torchward.nets.reward_model import RewardModel


def model(members: int = 1) -> RewardModel:
    policy = tiny_text.policy(tiny_text.task())
    with seeded(0, "judge"):
        return RewardModel.of(policy.body, policy.vocabulary, members).eval()


def test_tokens_and_their_text_are_worth_the_same() -> None:
    on = tiny_text.task()
    judge = Judge(model(), 0.0, on.tokenizer.description())
    texts = [("ab=", "ba"), ("cd=", "c"), ("ef=", "feef")]
    ids = [[on.tokenizer.start_id, *on.tokenizer.encode(p + c), on.tokenizer.eos_id] for p, c in texts]
    by_tokens = judge.of_tokens(ids)
    by_text = judge([p for p, _ in texts], [c for _, c in texts], answer=["", "", ""])
    assert by_text == pytest.approx(by_tokens, abs=1e-5) and len(set(by_tokens)) == 3
    alone = judge.model(torch.tensor([ids[2]]), torch.tensor([len(ids[2])]))
    assert by_tokens[2] == pytest.approx(float(alone[0, 0]), abs=1e-5)


def test_many_texts_are_worth_what_each_is_worth_alone() -> None:
    judge, generator = Judge(model(2), 0.5), torch.Generator().manual_seed(0)
    ids = [torch.randint(0, 6, (int(n),), generator=generator).tolist() for n in torch.arange(2, 12).repeat(9)]
    together = judge.of_tokens(ids)
    assert together[17] == pytest.approx(judge.of_tokens([ids[17]])[0], abs=1e-5)
    assert together[80] == pytest.approx(judge.of_tokens([ids[80]])[0], abs=1e-5)


def test_what_was_sampled_is_judged_and_an_answer_that_was_cut_has_no_end() -> None:
    """A task that is judged by a model hands it the tokens of its lines, and the words of another policy as text."""
    on = tiny_text.task()
    policy, net = tiny_text.policy(on), model()
    by_model = on.using(policy).judged_by(net)
    source = by_model.source(16, seed=0)
    rollout = source.collect(policy, None)
    lines = source.lines
    earned = torch.where(rollout.loss_mask, rollout.reward, 0.0).sum(1)
    for line, reward in zip(lines, earned.tolist(), strict=True):
        text = torch.tensor([line.ids])
        assert reward == pytest.approx(float(net(text, torch.tensor([len(line.ids)]))[0, 0]), abs=1e-5)
        assert line.ended == (line.ids[-1] == on.tokenizer.eos_id)
    foreign = Judge(net, 0.0, {"tokenizer": "another"})
    assert isinstance(foreign, ReadsTokens) and not foreign.reads_tokens
    plain = [line for line in lines if "\ufffd" not in line.said[0]]
    asked = [line.document.text[:3] for line in plain]
    assert judged(plain, foreign) == foreign(asked, [line.said[0] for line in plain])


def test_a_task_is_still_evaluated_by_what_it_is_about() -> None:
    on = tiny_text.task()
    by_model = on.judged_by(model())
    policy = tiny_text.policy(on)
    assert by_model.evaluate(policy, 9, 0).returns == on.evaluate(policy, 9, 0).returns
    assert by_model.problems.reward is not on.problems.reward


def test_a_character_that_the_judge_does_not_know_is_not_there() -> None:
    """A policy may write what the judge's alphabet has not, and a prompt may be of an alphabet of its own."""
    judge = Judge(model())
    strange = judge(["ab=", "ab=", "a\u00e9b="], ["b\ufffda", "\ud800\u65e5", "ba!"])
    assert strange == judge(["ab="] * 3, ["ba", "", "ba"])


def test_of_a_text_that_is_too_long_the_begin_is_judged() -> None:
    judge: Any = Judge(model())
    whole, _ = encode(Document(Completion("ab=", "a" * 60), "long"), judge.tokenizer, judge.template)
    assert whole is not None
    tokens = whole.ids[: judge.model.config.max_position_embeddings]
    assert judge.of_tokens([whole.ids]) == judge.of_tokens([tokens])
    assert judge(["ab=", "ab="], ["a" * 60, "b"]) == pytest.approx([*judge.of_tokens([tokens]), *judge(["ab="], ["b"])])
    assert judge(["ab=" + "a" * 60], ["b"]) == pytest.approx(judge.of_tokens([tokens])), "of a long prompt too"
