"""The doctor: a sound run passes every check, and each planted fault is found by the check that it belongs to."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchward.algorithms.pretrain import bits
from torchward.data.packing import Rows, once
from torchward.data.random import seeded
from torchward.data.rollout import Rollout
from torchward.data.sequences import Sequences
from torchward.language import chat, checks_of_learning, doctor, generate, source
from torchward.language.checks_of_adapters import adapters
from torchward.language.checks_of_learning import Cost, ends
from torchward.language.checks_of_sampling import cached_decode
from torchward.language.documents import Completion, Dialogue, Document, Message, Prompt
from torchward.language.finding import Finding, drawing, gap
from torchward.language.rewards import exact_match
from torchward.language.task import Problems, Reply
from torchward.language.text_task import Text
from torchward.language.tokenizer import Characters
from torchward.nets import kv_cache, language_model
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.language_model import Chosen, LanguageModel
from torchward.nets.lora import AdaptedLinear, LoRA, adapt, merged
from torchward.nets.sampling import Sampling, draw
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2, llama
from torchward.nets.transformer_stack import Stack

GPT = replace(gpt2(1, 16, 1, 2, 48), value_head=True, dropout=0.1, initializer_range=0.3, head_bias=True)
LLAMA = replace(llama(1, 16, 1, 4, 2, 24, 48), value_head=True, initializer_range=0.3, head_bias=True)
PROMPTS = 3


def asked(content: Callable[[str, str], Any]) -> list[Document]:
    """Words of one to three letters, to be written the other way round."""
    words = ["".join(letters) for n in (2, 3, 1) for letters in product("abc", repeat=n)]
    return [Document(content(f"{word}=", word[::-1]), word, {"answer": word[::-1]}) for word in words]


def task(train: list[Document] | None = None, **problems: Any) -> Text:
    train = asked(Completion) if train is None else train
    made = Problems("words", train, train[:3], exact_match, tokenizer=Characters(), corpus=asked(Completion))
    return Text(replace(made, **{"max_completion_length": 9, **problems}))


def model(of: Text, config: TransformerConfig = GPT, lora: LoRA | None = LoRA(r=2)) -> LanguageModel:  # noqa: B008
    with seeded(0, "doctor"):
        made = replace(config, vocab_size=of.tokenizer.vocab_size)
        policy = LanguageModel(Transformer(made), of.tokenizer.description())
        with torch.no_grad():
            policy.get_parameter("body.head_bias")[of.tokenizer.eos_id] += 1.0
        if lora is not None:
            for each in products(adapt(policy, lora)):
                torch.nn.init.normal_(each.lora_b, std=0.2)
    return policy.eval()


def products(policy: LanguageModel) -> Iterator[AdaptedLinear]:
    return (module for module in policy.modules() if isinstance(module, AdaptedLinear))


def cost(policy: LanguageModel, rows: Rows) -> Tensor:
    return bits(policy, rows, torch.ones(policy.config.vocab_size, dtype=torch.int64))[0]


@dataclass
class Case:
    """What is looked at, and may be spoilt."""

    policy: LanguageModel
    task: Text
    cost: Cost = cost
    start: LanguageModel | None = None

    def found(self) -> list[Finding]:
        return list(doctor.examine(self.policy, self.task, self.cost, prompts=PROMPTS, start=self.start))


def case() -> Case:
    of = task()
    policy = model(of)
    start = model(of, lora=None)
    return Case(policy, of, start=start)


def in_turns() -> Text:
    def partner(said: Any, columns: Any) -> Reply:
        return Reply("ab" if len(said) < 2 else None)

    messages = asked(lambda ask, answer: Dialogue((Message("user", ask), Message("assistant", answer))))
    return task(messages, partner=partner, turns=3, max_completion_length=4)


TASKS: dict[str, Callable[[], Text]] = {
    "answers": task,
    "prompts alone": lambda: task(asked(lambda ask, _: Prompt(ask))),
    "turns": in_turns,
    "plain text": lambda: task([Document(f"abc ab a{i % 3}" * (i + 2), str(i)) for i in range(8)], corpus=None),
}
MODELS = {"gpt2": (GPT, None), "gpt2, adapted": (GPT, LoRA(r=2)), "llama, adapted": (LLAMA, LoRA(r=3))}


@pytest.mark.parametrize("name", [*TASKS, *MODELS])
def test_a_sound_run_passes(name: str) -> None:
    of = TASKS.get(name, task)()
    policy = model(of, *MODELS.get(name, MODELS["gpt2, adapted"]))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    generator = torch.get_rng_state()
    found = Case(policy, of).found()
    assert not [finding for finding in found if finding.ok is False]
    left_out = [finding.name for finding in found if finding.ok is None]
    unasked = [] if of.problems.train == asked(Completion) else ["prompt ends"]
    assert left_out == unasked + (["adapters"] if name == "gpt2" else [])
    assert len({finding.name for finding in found}) == 12 and all(finding.words for finding in found)
    assert all(torch.equal(policy.state_dict()[name], tensor) for name, tensor in before.items()), "nothing stays"
    assert torch.equal(torch.get_rng_state(), generator) and not policy.training and policy.sampling == Sampling()
    assert {"choose", "scores", "read"}.isdisjoint(vars(policy))


def test_a_run_is_looked_at_with_its_own_sampling() -> None:
    of = task()
    policy = model(of)
    policy.sampling = Sampling(0.5, top_k=3)
    words = {finding.name: finding.words for finding in Case(policy, of).found() if finding.ok}
    assert len(words) == 12 and "at 0.5" in words["temperature"] and "top_k 3" in words["support"]


def test_what_text_would_change_is_counted() -> None:
    """Half of the vocabulary of this tokenizer are tokens without a text, which an untrained model says too."""
    words = {finding.name: finding.words for finding in case().found()}["sampled tokens"]
    assert "by way of text" in words and "text 0 of" not in words


# Faults: each spoils one thing in a case.

Plant = Callable[[Case, pytest.MonkeyPatch], None]


def company_counts(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(seen: Any, action: Any, state: Any, boundary: Any, honest: Any = case.policy.evaluate_actions) -> Any:
        said = honest(seen, action, state, boundary)
        return said._replace(log_prob=said.log_prob * (1.01 if len(action) > 1 else 1.0))

    monkeypatch.setattr(case.policy, "evaluate_actions", evaluate)


def padding_counts(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(seen: Any, action: Any, state: Any, boundary: Any, honest: Any = case.policy.evaluate_actions) -> Any:
        said = honest(seen, action, state, boundary)
        return said._replace(log_prob=said.log_prob * (1.0 + 0.01 * boundary[:, :-1].float().mean(1, keepdim=True)))

    monkeypatch.setattr(case.policy, "evaluate_actions", evaluate)


def packed_texts_see_each_other(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = case.policy.body.forward
    monkeypatch.setattr(case.policy.body, "forward", lambda tokens, segments=None, positions=None: honest(tokens))


def packed_positions_run_on(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(
        tokens: Any, segments: Any = None, positions: Any = None, honest: Any = case.policy.body.forward
    ) -> Any:
        return honest(tokens, segments, torch.arange(tokens.shape[1]).expand_as(tokens))

    monkeypatch.setattr(case.policy.body, "forward", forward)


def each_piece_has_a_mean(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.cost = lambda policy, rows: cost(policy, rows) / rows.loss_mask.sum().clamp_min(1)


def padding_is_learnt(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.cost = lambda policy, rows: cost(policy, replace(rows, loss_mask=rows.loss_mask | (rows.segments < 0)))


def a_step_stands_one_too_early(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Stack._placed

    def placed(self: Stack, x: Tensor, place: Tensor) -> Tensor:
        return honest(self, x, place - 1 if x.dim() == 2 else place)

    monkeypatch.setattr(Stack, "_placed", placed)


def padding_is_read(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = case.policy.read
    monkeypatch.setattr(case.policy, "read", lambda tokens, mask, size: honest(tokens, None, size))


def rows_do_not_move(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed_up(cache: Any, stay: Tensor, span: int) -> Any:
        lengths = cache.length[stay]
        return kv_cache.first(cache, len(lengths))._replace(length=lengths), stay.nonzero().squeeze(1)

    monkeypatch.setattr(kv_cache, "closed_up", closed_up)


def scores_forget_the_temperature(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(*args: Any, honest: Any = case.policy.scores, **how: Any) -> Any:
        with drawing(case.policy, replace(case.policy.sampling, temperature=1.0)):
            return honest(*args, **how)

    monkeypatch.setattr(case.policy, "scores", scores)


def sampling_stores_without_temperature(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(hidden: Any, noise: Any, honest: Any = case.policy.choose) -> Chosen:
        chosen: Chosen = honest(hidden, noise)
        if not case.policy.sampling.is_whole:
            return chosen
        log_probs = case.policy.body.logits(hidden).log_softmax(1)
        return chosen._replace(log_prob=log_probs.gather(1, chosen.token[:, None]).squeeze(1))

    monkeypatch.setattr(case.policy, "choose", choose)


def tokens_are_drawn_without_temperature(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(hidden: Any, noise: Any, honest: Any = case.policy.choose) -> Chosen:
        chosen: Chosen = honest(hidden, noise)
        degree = case.policy.sampling.temperature
        logits = case.policy.body.logits(hidden)
        token = draw(logits, replace(case.policy.sampling, temperature=1.0), noise).token
        if degree == 1.0:
            return chosen
        return chosen._replace(token=token, log_prob=(logits / degree).log_softmax(1).gather(1, token[:, None])[:, 0])

    monkeypatch.setattr(case.policy, "choose", choose)


def scores_ignore_the_support(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(hidden: Any, action: Any, support: Any = None, honest: Any = case.policy.scores, **how: Any) -> Any:
        if support is None:
            return honest(hidden, action, **how)
        with drawing(case.policy, Sampling()):
            return honest(hidden, action, **how)

    monkeypatch.setattr(case.policy, "scores", scores)


def no_support_is_taken_for_all(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(hidden: Any, action: Any, support: Any = None, honest: Any = case.policy.scores, **how: Any) -> Any:
        everything = torch.full((*action.shape, -(-case.policy.config.vocab_size // 8)), 255, dtype=torch.uint8)
        return honest(hidden, action, everything if support is None else support, **how)

    monkeypatch.setattr(case.policy, "scores", scores)


def rollouts_drop_the_support(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_supports", lambda lines, time: None)


def rollouts_hold_the_next_support(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = source._supports

    def supports(lines: Any, time: int) -> Tensor | None:
        found = honest(lines, time)
        return None if found is None else found.roll(1, 1)

    monkeypatch.setattr(source, "_supports", supports)


def training_drops_in_scores(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "without_dropout", lambda policy: nullcontext())


def training_drops_in_generation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "without_dropout", lambda policy: nullcontext())


def tokens_go_through_text(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without a text become others, and their probabilities are computed anew, as some trainers do it."""
    honest, plain = source.TextSource.collect, case.task.tokenizer.eos_id

    def collect(self: source.TextSource, policy: Any, horizon: int | None) -> Rollout:
        rollout = honest(self, policy, horizon)
        action, seen = rollout.action, rollout.observation
        assert isinstance(action, Tensor)
        if not isinstance(seen, Tensor):
            return rollout
        action = torch.where(rollout.loss_mask & (action > plain), 0, action)
        seen = torch.cat([seen[:, :1], torch.where(action[:, :-1] >= 0, action[:, :-1], seen[:, 1:])], 1)
        with torch.no_grad():
            return replace(rollout, action=action, observation=seen, log_prob=policy.log_probs(seen, action))

    monkeypatch.setattr(source.TextSource, "collect", collect)


def entropy_counts_everywhere(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*args: Any, honest: Any = case.policy.evaluate_actions) -> Any:
        said = honest(*args)
        return said._replace(entropy=said.entropy.clamp_min(0.5))

    monkeypatch.setattr(case.policy, "evaluate_actions", evaluate)


def masks_are_multiplied(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_of_learning, "masked_mean", lambda x, mask: (x * mask).sum() / mask.sum())


def padding_is_end_of_text(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case.task.tokenizer, "pad_id", case.task.tokenizer.eos_id)


def encoded(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[int], list[bool]], tuple[list[int], list[bool]]]
) -> None:
    honest = chat._parts

    def parts_(*args: Any) -> Any:
        made = honest(*args)
        ids, own = change(made.ids, made.own)
        return made._replace(ids=ids, own=own)

    monkeypatch.setattr(chat, "_parts", parts_)


def end_of_text_is_masked(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded(monkeypatch, lambda ids, own: (ids, [*own[:-1], False]))


def end_of_text_is_missing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded(monkeypatch, lambda ids, own: (ids[:-1], own[:-1]))


def nothing_is_learnt(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded(monkeypatch, lambda ids, own: (ids, [False] * len(own)))


def rollouts_leave_out_end_of_text(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = source.rollout

    def rollout(*args: Any) -> Rollout:
        made = honest(*args)
        assert isinstance(made.action, Tensor)
        return replace(
            made, loss_mask=made.loss_mask & ~made.terminated, action=made.action.masked_fill(made.terminated, -1)
        )

    monkeypatch.setattr(source, "rollout", rollout)


def the_sampler_keeps_what_was_merged(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    old = merged(case.policy)
    monkeypatch.setattr(case.policy, "read", old.read)
    monkeypatch.setattr(case.policy.body, "step", old.body.step)


def merging_forgets_the_adapter(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = AdaptedLinear.merged

    def without(self: AdaptedLinear) -> Any:
        plain = honest(self)
        plain.weight = self.weight
        return plain

    monkeypatch.setattr(AdaptedLinear, "merged", without)


def the_reference_has_adapters(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.start = None
    for each in products(case.policy):
        monkeypatch.setattr(type(each), "is_on", property(lambda self: True, lambda self, on: None), raising=False)


def adapters_begin_as_something(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = AdaptedLinear.forward

    def forward(self: AdaptedLinear, x: Tensor) -> Tensor:
        return honest(self, x) + (0.05 if self.is_on else 0.0)

    def with_it(self: AdaptedLinear, plain: Any = AdaptedLinear.merged) -> Any:
        made = plain(self)
        made.bias = torch.nn.Parameter(made.bias + 0.05)
        return made

    monkeypatch.setattr(AdaptedLinear, "forward", forward)
    monkeypatch.setattr(AdaptedLinear, "merged", with_it)


def the_base_has_moved(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        next(products(case.policy)).weight.mul_(1.3)


def the_base_learns(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    next(products(case.policy)).weight.requires_grad_(True)


FAULTS: list[tuple[Plant, str, str]] = [
    (company_counts, "first ratio", "with all rows at once"),
    (padding_counts, "first ratio", "neither padding"),
    (packed_texts_see_each_other, "same loss", "packed into rows with others"),
    (packed_positions_run_on, "same loss", "positions count from each one's beginning"),
    (each_piece_has_a_mean, "same loss", "one mean"),
    (padding_is_learnt, "same loss", "with padding behind them"),
    (a_step_stands_one_too_early, "cached decode", "already of a prompt alone"),
    (padding_is_read, "cached decode", "how padding is read"),
    (rows_do_not_move, "cached decode", "how rows move"),
    (scores_forget_the_temperature, "temperature", "scores are computed"),
    (sampling_stores_without_temperature, "temperature", "what sampling stores"),
    (tokens_are_drawn_without_temperature, "temperature", "tokens are drawn"),
    (scores_ignore_the_support, "support", "that training computes"),
    (no_support_is_taken_for_all, "support", "in place of an error"),
    (rollouts_drop_the_support, "support", "rollouts do not hold"),
    (rollouts_hold_the_next_support, "support", "of another one"),
    (training_drops_in_scores, "dropout", "evaluate_actions drops"),
    (training_drops_in_generation, "dropout", "generation drops"),
    (tokens_go_through_text, "sampled tokens", "never drawn"),
    (entropy_counts_everywhere, "masked steps", "the entropy 0.5"),
    (masks_are_multiplied, "masked steps", "inf"),
    (padding_is_end_of_text, "ends", "are one token"),
    (end_of_text_is_masked, "ends", "the mask leaves out"),
    (end_of_text_is_missing, "ends", "do not end with end-of-text"),
    (nothing_is_learnt, "ends", "cannot be learnt from"),
    (rollouts_leave_out_end_of_text, "ends", "that ended them"),
    (the_sampler_keeps_what_was_merged, "adapters", "still written with the old ones"),
    (merging_forgets_the_adapter, "adapters", "Merged"),
    (the_reference_has_adapters, "adapters", "leaves it out"),
    (adapters_begin_as_something, "adapters", "is not its base"),
    (the_base_has_moved, "adapters", "not what the run began with"),
    (the_base_learns, "adapters", "would learn"),
]


@pytest.mark.parametrize(("plant", "name", "words"), FAULTS, ids=[plant.__name__ for plant, _, _ in FAULTS])
def test_a_fault_is_found_by_its_check_and_by_no_other(
    plant: Plant, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = case()
    plant(spoilt, monkeypatch)
    found = spoilt.found()
    assert [finding.name for finding in found if finding.ok is False] == [name]
    assert words in next(finding.words for finding in found if finding.name == name)
    left_out = [finding.name for finding in found if finding.ok is None]
    assert left_out == (["first ratio"] if name == "cached decode" else [])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_found_before_anything_is_drawn(value: float) -> None:
    spoilt = case()
    with torch.no_grad():
        spoilt.policy.get_parameter("body.head_bias")[0] = value
    (found,) = spoilt.found()
    assert found.name == "weights" and found.ok is False
    assert "parameters hold NaN or infinity, body.head_bias for one" in found.words


def test_a_check_that_fails_by_an_error_has_found_something(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(policy: LanguageModel, rows: Rows) -> Tensor:
        raise IndexError("too far")

    spoilt = case()
    spoilt.cost = broken
    (found,) = [finding for finding in spoilt.found() if finding.ok is False]
    assert found.name == "same loss" and "IndexError: too far" in found.words


def test_packing_that_learns_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = doctor.demonstrations(task(), 9)
    assert shown is not None and ends(shown, None, 5, 6).ok is False

    def all_learnt(*args: Any, **how: Any) -> Iterator[Rows]:
        return (replace(rows, loss_mask=torch.ones_like(rows.loss_mask)) for rows in once(*args, **how))

    tokenizer = task().tokenizer
    assert ends(shown, None, tokenizer.eos_id, tokenizer.pad_id).ok
    monkeypatch.setattr(checks_of_learning, "once", all_learnt)
    assert "from their padding" in ends(shown, None, tokenizer.eos_id, tokenizer.pad_id).words


def test_a_mask_that_is_false_throughout() -> None:
    """Data that did not come by way of this project's encoding."""
    some = Sequences(
        np.array([0, 1, 5, 0, 2, 5]), np.array([False, True, True, False, False, False]), np.array([0, 3, 6])
    )
    found = ends(some, None, 5, 6)
    assert found.ok is False and "1 of 2 sequences, first number 2, teach nothing" in found.words


def test_a_policy_without_adapters_has_none_to_look_at() -> None:
    of = task()
    assert adapters(model(of, lora=None), [[0, 1, 2]]).ok is None


def test_half_precision_is_judged_by_the_mean() -> None:
    of = task()
    policy = model(of, lora=None)
    known, off = torch.zeros(100), torch.zeros(100)
    off[7] = 0.5
    assert gap(off, known, policy) == (0.5, 7)
    policy.bfloat16()
    assert gap(off, known, policy) == (0.5, None)
    assert gap(off + 0.05, known, policy).place == 7
    for wrong in (torch.nan, torch.inf):
        assert gap(off.masked_fill(off > 0, wrong), known, policy) == (torch.inf, 7)


def test_a_chat_may_close_with_words_of_the_user() -> None:
    """What stands behind the last words that are learnt is nobody's end: those end as they should."""
    ids = [0, 1, 5, 0, 1, 5, 2, 3]
    own = [False, True, True, False, True, True, False, False]
    some = Sequences(np.array(ids), np.array(own), np.array([0, 3, 8]))
    assert ends(some, None, 5, 6).ok
    masked = Sequences(np.array(ids), np.array([*own[:5], False, False, False]), np.array([0, 3, 8]))
    found = ends(masked, None, 5, 6)
    assert (
        found.ok is False and "1 of 2 sequences, first number 2, end with an end-of-text that the mask" in found.words
    )


def test_the_cache_of_an_encoder_decoder_is_sound() -> None:
    """Its prompts end with the token that its decoder begins with."""
    of = task()
    pad, eos = of.tokenizer.pad_id, of.tokenizer.eos_id
    config = TransformerConfig(
        vocab_size=of.tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=48, kind="encoder-decoder", value_head=True, initializer_range=0.3,
    )  # fmt: skip
    with seeded(0, "doctor"):
        policy = LanguageModel(EncoderDecoder(Transformer(config), pad, eos), of.tokenizer.description()).eval()
    found = cached_decode(policy, [[*of.tokenizer.encode(word), pad] for word in ("ab=", "c=", "abc=")])
    assert found.ok, found.words
