"""Masked-language pretraining: the loss is that of transformers, pieces change nothing, gaps get filled."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import torchward
from tests.algorithms import tiny_text
from tests.algorithms.training import start
from torchward.algorithms import masked_lm
from torchward.algorithms.pretrain import Learner
from torchward.config import ConfigError
from torchward.data.masking import Masking
from torchward.data.packing import Rows, once
from torchward.data.sequences import Sequences, TokenSequence
from torchward.language.documents import Document, Split
from torchward.language.rewards import exact_match
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.language.tokenizer import Characters
from torchward.metrics import read_metrics
from torchward.nets.adamw import decayed
from torchward.nets.masked_language_model import MaskedLanguageModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import bert, gpt2

WORDS, START, PAD, MASK = 16, 12, 13, 15
SIZES = torch.where(torch.arange(WORDS) < 12, torch.arange(WORDS) % 3 + 1, 0)  # bytes of each token
STILL = masked_lm.Config(learning_rate=0.0, weight_decay=0.0, max_grad_norm=1e9, max_length=10)
"""A step of size 0, so that its gradient can be looked at."""


def model() -> MaskedLanguageModel:
    """One whose every weight matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MaskedLanguageModel(Transformer(bert(WORDS, 16, 2, 2, 20)), {"tokenizer": "none"})
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return made.eval()


def batches(size: int, length: int = 10) -> list[Rows]:
    """The same masked rows, cut into batches of a size."""
    generator = Random(0)
    made = [[START, *(generator.randrange(12) for _ in range(generator.randrange(2, 9))), START] for _ in range(16)]
    every = Sequences.of((TokenSequence(ids, [False, *[True] * (len(ids) - 1)]) for ids in made), WORDS).closed(PAD)
    (whole,) = once(every, max_length=length, batch_size=100, pad_id=PAD)
    masked = Masking(MASK, SIZES > 0, mlm_probability=0.4)(whole, Generator().manual_seed(0))
    parts = [tensor.split(size) for tensor in vars(masked).values()]
    return [Rows(*part) for part in zip(*parts, strict=True)]


def learnt(policy: MaskedLanguageModel, given: list[Rows]) -> tuple[Tensor, dict[str, float]]:
    """The gradient and the metrics of one step."""
    metrics = Learner(policy, STILL, SIZES, decayed(policy.parameters(), 0.0)).update(given)
    found = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    return found, {name: float(value) for name, value in metrics.items()}


def test_the_loss_is_that_of_transformers_on_the_same_masked_rows() -> None:
    """By BertForMaskedLM with the same weights, each text alone: of a packed row, each sees itself alone."""
    pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")
    from torchward.language import hub

    policy = model()
    theirs = hub.to_transformers(policy.body)  # type: ignore[arg-type]
    cost, count, size = 0.0, 0, 0
    for rows in batches(3):
        for tokens, targets, chosen, segments in zip(
            rows.tokens, rows.targets, rows.loss_mask, rows.segments, strict=True
        ):
            for segment in set(segments.tolist()) - {-1}:
                part = segments == segment
                labels = torch.where(chosen, targets, -100)[part]
                if (learns := int((labels != -100).sum())) == 0:
                    continue
                with torch.no_grad():
                    loss = theirs(input_ids=tokens[part][None], labels=labels[None]).loss
                cost, count = cost + float(loss) * learns, count + learns
                size += int(SIZES[targets[chosen & part]].sum())
    assert count > 30
    _, metrics = learnt(policy, batches(3))
    assert metrics["loss"] == pytest.approx(cost / count, rel=1e-4)
    judged, _ = masked_lm.judge(policy, batches(3), SIZES, STILL)
    assert judged.returns == [pytest.approx(cost / size / 0.6931471805599453, rel=1e-4)] and judged.lengths == [count]


def test_batches_and_their_order_change_nothing() -> None:
    policy = model()
    whole, expected = learnt(policy, batches(100))
    for given in (batches(1), batches(3), batches(2)[::-1]):
        found, metrics = learnt(policy, given)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
        assert metrics == pytest.approx(expected, rel=1e-4)


def test_what_is_not_masked_is_not_learnt() -> None:
    """Targets elsewhere may be anything."""
    policy, given = model(), batches(100)
    expected, _ = learnt(policy, given)
    given[0].targets[~given[0].loss_mask] = 3
    found, _ = learnt(policy, given)
    assert torch.equal(found, expected)


def test_accuracy_is_the_share_of_right_guesses() -> None:
    """Every third target is made the model's own guess, and none of the others."""
    policy, (rows,) = model(), batches(100)
    with torch.no_grad():
        hidden = policy.body.forward(rows.tokens, rows.segments, rows.positions)
        guesses = policy.body.logits(hidden).argmax(-1)[rows.loss_mask]
    other = torch.arange(len(guesses)) % 3 > 0
    rows.targets[rows.loss_mask] = (guesses + other.long()) % WORDS
    _, accuracy = masked_lm.judge(policy, [rows], SIZES, STILL)
    assert accuracy == pytest.approx(1.0 - float(other.float().mean()))


def pairs() -> Text:
    """A word and its plural, in sentences: what stands in a gap follows from both sides."""
    random, names = Random(0), ["cat", "dog", "cow", "hen", "pig"]
    lines = [f"one {name} and two {name}s" for name in (random.choice(names) for _ in range(400))]
    documents = [Document(f"{line} {i % 7}", f"line {i}") for i, line in enumerate(lines)]
    return Text(Problems("plurals", documents, [], exact_match, tokenizer=Characters(), split=Split(0.3)))


def test_gaps_are_learnt_to_be_filled(tmp_path: Path) -> None:
    """Nearly all letters follow from those around them; how often each occurs, says one in six."""
    task = pairs()
    config = masked_lm.Config(
        total_timesteps=120_000, max_length=32, per_device_train_batch_size=32, learning_rate=5e-3,
        model=bert(8, 32, 2, 2, 32),
    )  # fmt: skip
    trained = masked_lm.train(config, task, start(tmp_path / "run", masked_lm, config, task, eval_freq=0))
    texts = task.masked()
    rows = masked_lm.masked_validation(config, texts, config.masking(texts.mask_id or 0, texts.bytes_of > 0))
    _, accuracy = masked_lm.judge(trained, rows, texts.bytes_of, config)
    assert masked_lm.commonest(rows, texts) < 0.3
    assert accuracy > 0.6
    figures = [row["eval/masked_accuracy"] for row in read_metrics(tmp_path / "run") if "eval/masked_accuracy" in row]
    assert figures[-1] == pytest.approx(accuracy) and figures[0] < figures[-1]


def test_what_was_learnt_is_saved_and_loaded(tmp_path: Path) -> None:
    policy, (rows,) = model(), batches(100)
    policy.save(tmp_path / "policy")
    loaded: Any = torchward.load(tmp_path / "policy")
    assert isinstance(loaded, MaskedLanguageModel) and loaded.vocabulary == policy.vocabulary
    assert masked_lm.judge(loaded, [rows], SIZES, STILL) == masked_lm.judge(policy, [rows], SIZES, STILL)


def test_only_an_encoder_with_a_mask_is_trained(tmp_path: Path) -> None:
    task = tiny_text.task()
    run = start(tmp_path / "run", masked_lm, STILL, task)
    with pytest.raises(ConfigError, match=r"expected an encoder that fills gaps to go on with, got a LanguageModel"):
        masked_lm.train(STILL, task, run, tiny_text.policy(task))  # type: ignore[arg-type]
    bare = MaskedLanguageModel(Transformer(bert(task.tokenizer.vocab_size, 16, 1, 2, 16)), task.tokenizer.description())
    with pytest.raises(ConfigError, match="another"):  # the texts have a mask, and it has none
        masked_lm.train(STILL, task, run, bare)
    with pytest.raises(ConfigError, match="kind 'encoder'"):
        masked_lm.Config(model=gpt2(8, 16, 1, 2, 16))
    with pytest.raises(ValueError, match="expected an encoder"):
        MaskedLanguageModel(Transformer(gpt2(8, 16, 1, 2, 16)), {})
