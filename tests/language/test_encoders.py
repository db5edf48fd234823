"""What encoders need of language: a token for gaps, gaps that are filled, labels as rewards, models of transformers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import torchward
from tests.language.test_hub_tokenizer import byte_level
from torchward import checkpoint, launch_policies
from torchward.config import ConfigError
from torchward.language import encoder_texts, hub, pretrained_encoder
from torchward.language.bpe import BPE
from torchward.language.classifying import LabelReward, predict, probabilities
from torchward.language.documents import Document, Prompt, TextError
from torchward.language.filling import brings_space, fill, tokens
from torchward.language.hub_tokenizer import HubTokenizer
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.language.tokenizer import Bytes, Characters, Tokenizer, described, mask_id_of, with_mask
from torchward.nets.language_model import LanguageModel
from torchward.nets.masked_language_model import MaskedLanguageModel
from torchward.nets.text_classifier import TextClassifier
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import bert, gpt2
from torchward.run import RunOptions
from torchward.tasks.reward_options import RewardOptions

QUIET = RunOptions(tensorboard=False, progress=False)
WORDS = ["one two three", "two three four, and five"]


def made() -> list[Tokenizer]:
    return [choice.build(WORDS) for choice in (Bytes(), Characters(), BPE(vocab_size=280))]


def test_a_mask_is_one_token_more_and_changes_no_other() -> None:
    for plain in made():
        masked = with_mask(plain)
        assert masked.vocab_size == plain.vocab_size + 1 and mask_id_of(masked) == plain.vocab_size
        assert masked.encode(WORDS[0]) == plain.encode(WORDS[0])
        assert (masked.start_id, masked.eos_id, masked.pad_id) == (plain.start_id, plain.eos_id, plain.pad_id)
        assert masked.role_id("tool") == plain.role_id("tool") and masked.bytes_of(plain.vocab_size) == b""
        assert with_mask(masked) is masked
        again = described(json.loads(json.dumps(masked.description())))
        assert mask_id_of(again) == plain.vocab_size and again.description() == masked.description()
        assert "mask" not in plain.description(), "what is saved of others is what it was"
        with pytest.raises(TextError, match="without"):
            mask_id_of(described(plain.description()))


def test_every_token_of_a_masked_text_is_seen() -> None:
    documents = [Document(text, text) for text in WORDS]
    texts = encoder_texts.masked(documents[:1], documents[1:], Characters().build(WORDS))
    words = described(texts.vocabulary)
    (row,) = torch.tensor([texts.train[0].ids])
    assert row.tolist() == [words.start_id, *words.encode(WORDS[0]), words.eos_id, words.pad_id]
    assert texts.mask_id == texts.vocab_size - 1 == mask_id_of(words)
    assert [int(size) for size in texts.bytes_of[row]] == [0, *[1] * len(WORDS[0]), 0, 0]
    with pytest.raises(TextError, match="held out"):
        encoder_texts.masked(documents, [], Characters().build(WORDS))


def encoder(words: Tokenizer) -> MaskedLanguageModel:
    torch.manual_seed(0)
    return MaskedLanguageModel(Transformer(bert(words.vocab_size, 16, 1, 2, 24)), words.description()).eval()


def test_gaps_get_the_likeliest_tokens() -> None:
    """What the head says of the place, looked at by hand."""
    words = with_mask(Characters().build(WORDS))
    model = encoder(words)
    ids = [
        words.start_id,
        *words.encode("one"),
        mask_id_of(words),
        *words.encode("wo"),
        mask_id_of(words),
        words.eos_id,
    ]
    assert tokens("one[MASK]wo[MASK]", words) == ids
    with torch.no_grad():
        said = model.body.logits(model.body.forward(torch.tensor([ids])))[0].softmax(-1)
    guesses = fill(model, "one[MASK]wo[MASK]", top_k=4)
    for gap, place in zip(guesses, (4, 7), strict=True):
        best = said[place].topk(4)
        assert [each.token for each in gap] == [words.decode([int(i)]) for i in best.indices]
        assert [each.probability for each in gap] == pytest.approx(best.values.tolist())
    with pytest.raises(TextError, match=r"expected a text with \[MASK\]"):
        fill(model, "one")
    with pytest.raises(TextError, match="at most 24 tokens"):
        fill(model, "one[MASK]" * 9)


def test_the_space_before_a_gap_is_the_words_own() -> None:
    pairs = with_mask(BPE(vocab_size=280).build(WORDS * 5))
    letters = with_mask(Characters().build(WORDS))
    assert brings_space(pairs) and not brings_space(letters)
    gap = mask_id_of(pairs)
    middle = [gap, *pairs.encode(" three"), gap]
    assert tokens("one [MASK] three [MASK]", pairs) == [pairs.start_id, *pairs.encode("one"), *middle, pairs.eos_id]
    assert tokens("one [MASK]", letters)[1:-2] == letters.encode("one ")


def test_an_embedding_does_not_see_padding() -> None:
    model = encoder(with_mask(Characters().build(WORDS)))
    one, rows = torch.tensor([[3, 4, 5]]), torch.tensor([[3, 4, 5, 9, 9], [1, 2, 3, 4, 5]])
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    torch.testing.assert_close(model.train().embed(rows, mask)[0], model.embed(one)[0])
    assert model.training


def classifier(words: Tokenizer) -> TextClassifier:
    torch.manual_seed(0)
    made = TextClassifier(Transformer(bert(words.vocab_size, 16, 1, 2, 24)), words.description(), ("bad", "good"))
    torch.nn.init.normal_(made.score.weight)
    return made.eval()


def test_predictions_are_those_of_each_text_alone() -> None:
    model, texts = classifier(Characters().build(WORDS)), ["one", "two three four", "", "three", "e" * 40]
    together = probabilities(model, texts, batch_size=3)
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(row, probabilities(model, [text])[0])
    for row, found in zip(together.tolist(), predict(model, texts), strict=True):
        assert found.probabilities == pytest.approx(dict(zip(("bad", "good"), row, strict=True)))
        assert found.label == ("good" if row[1] > row[0] else "bad")
    torch.testing.assert_close(together[4], probabilities(model, ["e" * 23])[0])  # and the start: 24 are read


def test_a_label_is_a_reward() -> None:
    """The probability of it, of the answer alone or behind its prompt; and rollouts are paid by it."""
    words = Characters(replace_unknown=True).build(WORDS)  # a reward must read whatever is written
    model, prompts, completions = classifier(words), ["one", "two"], [" two", "three"]
    expected = probabilities(model, completions)[:, 1]
    assert LabelReward(model, "good")(prompts, completions, other=[1, 2]) == pytest.approx(expected.tolist())
    both = LabelReward(model, "good", "both")(prompts, completions)
    assert both == pytest.approx(probabilities(model, ["one two", "twothree"])[:, 1].tolist())
    with pytest.raises(ConfigError, match="expected a label of bad, good, which the classifier knows, got 'goood'"):
        LabelReward(model, "goood")

    documents = [Document(Prompt(text), text) for text in WORDS]
    task = Text(Problems("rewarded", documents, documents, LabelReward(model, "good"), max_completion_length=4), words)
    made = replace(gpt2(words.vocab_size, 16, 1, 2, 32), value_head=True)
    writer = LanguageModel(Transformer(made), words.description())
    source = task.source(4, 0)
    rollout = source.collect(writer, None)
    assert rollout.observation is not None
    own = rollout.loss_mask
    assert rollout.reward[own].sum() == pytest.approx(sum(each.return_ for each in source.episodes()), rel=1e-5)
    assert all(0.0 < float(row.sum()) < 1.0 for row in rollout.reward)


def directory(place: Path, **special: str) -> Path:
    """A BERT of transformers with a tokenizer of bytes."""
    transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", **special}
    backend = byte_level(list(named.values()))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    theirs.save_pretrained(place)
    config = transformers.BertConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).eval().save_pretrained(place)
    return place


def test_a_bert_of_transformers_is_gone_on_with(tmp_path: Path) -> None:
    """Read, filled as transformers fills, trained from, tuned, and written back."""
    place = directory(tmp_path / "bert", mask_token="<mask>")
    import transformers

    assert pretrained_encoder.is_encoder(place) and not pretrained_encoder.is_encoder(tmp_path)
    model = pretrained_encoder.load(place)
    words = described(model.vocabulary)
    assert isinstance(words, HubTokenizer) and words.mask_id == words._id("<mask>")
    theirs = transformers.BertForMaskedLM.from_pretrained(place)
    ids = tokens("hello [MASK], the user", words)
    at = ids.index(mask_id_of(words))
    with torch.no_grad():
        said = theirs(torch.tensor([ids])).logits[0, at].softmax(-1)
    given = torch.tensor([ids])
    ours = model.fill(given, given == mask_id_of(words))[0, : len(said)]
    torch.testing.assert_close(ours / ours.sum(), said, rtol=1e-4, atol=1e-7)  # of the tokens that both have
    (guesses,) = fill(model, "hello [MASK], the user", top_k=3)
    assert [each.probability for each in guesses] == pytest.approx(ours.topk(3).values.tolist())
    data = tmp_path / "rows.jsonl"
    rows = [{"text": f"the user said {i}", "label": i % 2} for i in range(40)]
    data.write_text("\n".join(map(json.dumps, rows)))
    run = torchward.train("masked_lm", str(data), init=place, path=tmp_path / "run", options=QUIET, total_timesteps=512)
    assert run.manifest["config"]["max_length"] == 64, "as many as it reads, where nobody asks for another number"
    with pytest.raises(ConfigError, match=r"expected max_length of at most 64, .* got 100"):
        torchward.train("masked_lm", str(data), init=place, path=tmp_path / "no", options=QUIET, max_length=100)
    trained: Any = torchward.load(run.path)
    assert trained.vocabulary == model.vocabulary
    tuned: Any = torchward.load(
        torchward.train(
            "classify", str(data), init=place, path=tmp_path / "tuned", options=QUIET, total_timesteps=64, max_length=32
        ).path
    )
    assert tuned.labels == ("0", "1")
    hub.save(trained.body, tmp_path / "back")
    again = hub.load(tmp_path / "back")
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), trained.body.parameters(), strict=True))
    with pytest.raises(ValueError, match="sft does not go on with a MaskedLanguageModel"):
        torchward.train("sft", str(data), init=place, path=tmp_path / "no", options=QUIET)


def test_an_encoder_without_a_mask_is_refused(tmp_path: Path) -> None:
    place = directory(tmp_path / "bert")
    with pytest.raises(TextError, match="expected a tokenizer with a mask_token in"):
        pretrained_encoder.load(place)
    plain = described(_hub(place))
    with pytest.raises(TextError, match="take an encoder's own"):
        with_mask(plain)


@pytest.mark.parametrize("own", [False, True])
def test_an_encoder_tells_how_alike_texts_are(tmp_path: Path, own: bool) -> None:
    if own:
        words = with_mask(Characters().build(WORDS))
        place = tmp_path / "gaps"
        checkpoint.publish(
            place, MaskedLanguageModel(Transformer(bert(words.vocab_size, 16, 1, 2, 24)), words.description()).save
        )
    else:
        place = directory(tmp_path / "bert")
    reward = RewardOptions(similarity_weight=1.0, similarity_model=str(place)).build()
    same, other = reward(["", ""], ["one two", "one two"], answer=["one two", "five"])
    assert same == pytest.approx(1.0, abs=1e-5) and other < 0.999


def test_an_encoder_is_downloaded_where_its_name_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To begin from, and to tell how alike texts are; what is kept of it is its name."""
    place, name = directory(tmp_path / "bert", mask_token="<mask>"), "hub:google-bert/bert"
    import huggingface_hub

    asked: list[str] = []

    def snapshot(named: str, **_: Any) -> str:
        asked.append(named)
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"the user said {i}"}) for i in range(40)))
    run = torchward.train("masked_lm", data, init=name, path=tmp_path / "run", options=QUIET, total_timesteps=128)
    assert isinstance(torchward.load(run.path), MaskedLanguageModel) and run.manifest["init"] == name
    begun: Any = launch_policies.policy_of(name)
    expected = pretrained_encoder.load(place).state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in begun.state_dict().items())
    options = RewardOptions(similarity_weight=1.0, similarity_model=name)
    assert options.lasting() == options
    rewards = [each.build() for each in (options, replace(options, similarity_model=str(place)))]
    one, other = (reward(["", ""], ["one two", "two"], answer=["one two", "five"]) for reward in rewards)
    assert one == other and set(asked) == {"google-bert/bert"}
    assert launch_policies.told_of_teacher(name) == {"teacher": name}


def _hub(place: Path) -> Any:
    from torchward.language import hub_tokenizer

    return hub_tokenizer.load(place).description()
