"""A classifier: the loss of plain cross-entropy however it is split, what it learns, and what it cannot learn from."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import torchward
from tests.algorithms import tiny_text
from tests.algorithms.training import start
from torchward.algorithms import classify
from torchward.algorithms.sft import groups
from torchward.config import ConfigError
from torchward.data.labelled import Batch, in_order
from torchward.data.sequences import Sequences, TokenSequence
from torchward.language.corpus import JSONLines
from torchward.language.documents import Document, Prompt, Split, TextError
from torchward.language.rewards import exact_match
from torchward.language.similarity import BodyEncoder
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.language.tokenizer import Characters
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.masked_language_model import MaskedLanguageModel
from torchward.nets.pooling import Pooling, pool
from torchward.nets.text_classifier import TextClassifier
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, bert, gpt2, t5
from torchward.run import RunOptions

PAD = 13
STILL = classify.Config(learning_rate=0.0, weight_decay=0.0, max_grad_norm=1e9)
QUIET = RunOptions(tensorboard=False, progress=False)
ENCODER, DECODER = bert(16, 16, 2, 2, 24), gpt2(16, 16, 2, 2, 24)


def model(config: TransformerConfig = ENCODER, pooling: Pooling = "mean") -> TextClassifier:
    """One whose every weight matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = TextClassifier(Transformer(config), {"tokenizer": "none"}, ("a", "b", "c"), pooling)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return made.eval()


def batches(size: int) -> list[Batch]:
    """Twelve texts of 3 to 14 tokens."""
    random = Random(0)
    made = [[12, *(random.randrange(12) for _ in range(length)), 12] for length in range(1, 13)]
    random.shuffle(made)
    every = Sequences.of((TokenSequence(ids, [False, *[True] * (len(ids) - 1)]) for ids in made), 16)
    labels = torch.tensor([random.randrange(3) for _ in made]).numpy()
    return list(in_order(every, labels, batch_size=size, pad_id=PAD))


def learnt(policy: TextClassifier, given: list[Batch]) -> tuple[Tensor, dict[str, float]]:
    metrics = classify.Learner(policy, STILL, groups(policy, STILL)).update(given)
    found = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    return found, {name: float(value) for name, value in metrics.items()}


def test_what_knows_nothing_of_a_text_does_not_classify_it() -> None:
    """A decoder's first token has seen nothing, and of an encoder-decoder's source nothing is known."""
    with pytest.raises(ConfigError, match=r"a pooling of mean or last for a decoder, .* got 'first'"):
        model(DECODER, "first")
    both = EncoderDecoder(Transformer(t5(8, 8, 1, 2, 4, 16, 32)), 0, 1)
    with pytest.raises(ConfigError, match="expected an encoder or a decoder to classify with"):
        TextClassifier(both, {}, ("a", "b"))
    with pytest.raises(ConfigError, match="expected an encoder or a decoder to compare texts by"):
        BodyEncoder(both, Characters().build(["ab"]))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_scores_are_not_rounded_under_autocast(kind: torch.dtype) -> None:
    policy = model(ENCODER, "mean")
    (batch,) = batches(100)
    with torch.autocast("cpu", kind, enabled=kind is torch.bfloat16):
        logits = policy(batch.tokens, batch.mask)
    assert logits.dtype == torch.float32
    assert kind is torch.float32 or not torch.equal(logits, logits.bfloat16().float())


@pytest.mark.parametrize(
    ("config", "pooling"),
    [(ENCODER, "mean"), (ENCODER, "first"), (ENCODER, "last"), (DECODER, "mean"), (DECODER, "last")],
)
def test_the_loss_is_that_of_each_text_alone_however_they_are_split(
    config: TransformerConfig, pooling: Pooling
) -> None:
    """Padding is never seen: alone, a text has none."""
    policy = model(config, pooling)
    expected = torch.zeros(())
    for batch in batches(1):
        (hidden,) = policy.body.forward(batch.tokens)
        vector = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}[pooling]
        expected = expected + F.cross_entropy(policy.score(vector), batch.label[0]) / 12
    whole, metrics = learnt(policy, batches(100))
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)
    for given in (batches(1), batches(5)[::-1]):
        found, others = learnt(policy, given)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
        assert others == pytest.approx(metrics, rel=1e-4)


def test_a_new_layer_holds_all_labels_equally_likely() -> None:
    made = TextClassifier(Transformer(ENCODER), {}, ("a", "b", "c"))
    (batch,) = batches(100)
    torch.testing.assert_close(made.probabilities(batch.tokens, batch.mask), torch.full((12, 3), 1 / 3))


def test_pooling_of_padding_alone_is_finite() -> None:
    hidden, mask = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [False, False, False]])
    torch.testing.assert_close(pool(hidden, mask, "mean")[0], hidden[0, :2].mean(0))
    assert pool(hidden, mask, "mean")[1].eq(0.0).all() and pool(hidden, mask, "last").isfinite().all()


def test_a_verdict_counts_what_was_taken_for_what() -> None:
    """By hand: 4 of 6 are right; of a: 2 right of 3 and 3 taken for it; of b: 2 of 2 and 3; of c: 0 of 1 and 0."""
    verdict = classify.Verdict(torch.tensor([[2, 1, 0], [0, 2, 0], [1, 0, 0]]), 0.5)
    assert verdict.accuracy == pytest.approx(4 / 6) and verdict.majority == pytest.approx(3 / 6)
    assert verdict.f1 == pytest.approx((4 / 6 + 4 / 5 + 0.0) / 3)
    rows = [line.split() for line in classify.table(("a", "b", "a very long label of text"), verdict).splitlines()]
    assert rows[0][:3] == ["label", "a", "b"] and rows[1] == ["a", "2", "1", "0"] and rows[2] == ["b", "0", "2", "0"]


def test_judging_is_counting() -> None:
    policy = model()
    predicted = [int(policy.probabilities(batch.tokens, batch.mask).argmax()) for batch in batches(1)]
    labels = [int(batch.label) for batch in batches(1)]
    verdict = classify.judge(policy, batches(5), STILL)
    for one in range(3):
        for other in range(3):
            pairs = list(zip(labels, predicted, strict=True))
            assert verdict.confusion[one, other] == pairs.count((one, other))


def reviews(path: Path, count: int = 240) -> Path:
    """Where the last word decides: separable, but not by how often a letter occurs."""
    random = Random(0)
    lines = []
    for i in range(count):
        good = random.random() < 0.5
        last = random.choice(["fine", "good", "nice"] if good else ["dull", "poor", "flat"])
        lines.append({"text": f"{random.choice(['film', 'book'])} {i}: {last}", "label": "good" if good else "bad"})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_from_labelled_lines_to_a_classifier(tmp_path: Path) -> None:
    """Pretrained on gaps, tuned on labels, loaded, and continued."""
    data = str(reviews(tmp_path / "reviews.jsonl"))
    small: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_length": 32}
    encoder = torchward.train(
        "masked_lm", data, path=tmp_path / "encoder", options=QUIET, total_timesteps=8_000, learning_rate=3e-3, **small
    )
    tuned = torchward.train(
        "classify", data, path=tmp_path / "tuned", init=encoder.path, options=QUIET, total_timesteps=2_000,
        learning_rate=3e-3, max_length=32,
    )  # fmt: skip
    policy: Any = torchward.load(tuned.path)
    assert isinstance(torchward.load(encoder.path), MaskedLanguageModel) and isinstance(policy, TextClassifier)
    assert policy.labels == ("bad", "good")
    assert tuned.best_return is not None and tuned.best_return > 0.95
    more = torchward.train(
        "classify", data, path=tmp_path / "more", init=tuned.path, options=QUIET, total_timesteps=64, max_length=32,
        learning_rate=1e-5,
    )  # fmt: skip
    assert more.best_return is not None and more.best_return > 0.95


def labelled(rows: list[dict[str, Any]]) -> Text:
    documents = [Document(Prompt(row["text"]), f"line {i}", row.get("columns", {})) for i, row in enumerate(rows)]
    return Text(
        Problems("rows", documents, [], exact_match, tokenizer=Characters(), split=Split(0.3), corpus=documents)
    )


def test_prompts_have_labels_too_and_numbers_are_sorted_as_such() -> None:
    task = labelled([{"text": f"{i} {i * i}", "columns": {"label": i % 12}} for i in range(60)])
    found = task.labelled(6)
    assert found.labels == tuple(map(str, range(12)))
    assert len(found.train) == len(found.train_labels) and found.cut > 0
    assert np_max(found.train) <= 6
    for i in range(len(found.train)):
        text = task.tokenizer.decode(found.train[i].ids)
        assert int(text.split()[0]) % 12 == found.train_labels[i]


def np_max(sequences: Sequences) -> int:
    return int((sequences.starts[1:] - sequences.starts[:-1]).max())


def test_what_cannot_be_learnt_from_is_said(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "columns": {"label": "a"}} for i in range(20)]
    with pytest.raises(TextError, match="at least two labels to tell apart, got only 'a'"):
        labelled(rows).labelled(16)
    with pytest.raises(TextError, match=r"column 'label' of line 3, got none \(no column beside the text\)"):
        labelled([*rows[:3], {"text": "no label"}, *rows[4:]]).labelled(16)
    with pytest.raises(TextError, match=r"got 0\.5 \(columns label\)"):
        labelled([*rows[:3], {"text": "half", "columns": {"label": 0.5}}, *rows[4:]]).labelled(16)
    with pytest.raises(TextError, match="expected a label of x, y in line"):
        labelled(rows).labelled(16, ("x", "y"))
    two = [{"text": f"text {i}", "columns": {"label": "ab"[i % 2]}} for i in range(20)]
    whole = labelled(two)
    with pytest.raises(TextError, match="others that are held out, got 20 and 0"):
        Text(replace(whole.problems, split=Split(0.0))).labelled(16)
    with pytest.raises(ValueError, match="two labels or more"):
        TextClassifier(Transformer(ENCODER), {}, ("a",))
    with pytest.raises(ConfigError, match="got a str"):
        classify.classifier(STILL, whole.labelled(16), "x")


def test_a_model_that_writes_can_be_tuned_to_classify(tmp_path: Path) -> None:
    task = Text(replace(tiny_text.task().problems, corpus=None))
    documents = [
        Document(each.content, each.origin, {"label": each.text[0]})
        for each in (*task.problems.train, *task.problems.test)
    ]
    task = Text(replace(task.problems, train=documents[::2], test=documents[1::2]))
    config = classify.Config(total_timesteps=1_600, max_length=16, learning_rate=1e-2, pooling="last", freeze_layers=0)
    run = start(tmp_path / "run", classify, config, task)
    made = classify.train(config, task, run, tiny_text.policy(task))
    held_out = classify.validation(config, task.labelled(16))
    assert made.config.kind == "decoder" and classify.judge(made, held_out, config).accuracy > 0.8


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    policy, (batch,) = model(DECODER, "last"), batches(100)
    policy.save(tmp_path / "policy")
    loaded: Any = torchward.load(tmp_path / "policy")
    assert (loaded.labels, loaded.pooling) == (policy.labels, policy.pooling)
    assert torch.equal(loaded.probabilities(batch.tokens, batch.mask), policy.probabilities(batch.tokens, batch.mask))


def test_what_writes_does_not_begin_from_what_reads(tmp_path: Path) -> None:
    data = reviews(tmp_path / "reviews.jsonl", 40)
    task = Text(Problems("r", list(JSONLines(data).documents()), [], exact_match, tokenizer=Characters()))
    policy = TextClassifier(
        Transformer(replace(ENCODER, vocab_size=task.tokenizer.vocab_size)),
        task.tokenizer.description(),
        ("bad", "good"),
    )
    policy.save(tmp_path / "policy")
    with pytest.raises(ValueError, match="sft does not go on with a TextClassifier, which says which label"):
        torchward.train("sft", str(data), path=tmp_path / "run", init=tmp_path / "policy", options=QUIET)
