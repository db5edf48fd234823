"""A language model as a policy: what it acts on is what it is judged by, and what it did not choose costs nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from tests.language.models import CONTEXT, EOS, GPT, LLAMA, WORDS, model, read, within
from torchward.data.protocols import Policy
from torchward.nets import saving
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.kv_cache import Cache
from torchward.nets.language_model import LanguageModel
from torchward.nets.sampling import Sampling, among, packed
from torchward.nets.spaces import Discrete, Tree
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, bert, t5

SAMPLING = Sampling(1.3)
NEVER = torch.zeros(4, 12, dtype=torch.bool)


def texts(rows: int = 4, time: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, what came next where that was chosen (-1 elsewhere), and what it was drawn among."""
    generator = Generator().manual_seed(0)
    ids = torch.randint(WORDS, (rows, time + 1), generator=generator)
    chosen = torch.rand(rows, time, generator=generator) < 0.6
    support = torch.rand(rows, time, WORDS, generator=generator) < 0.5
    support.scatter_(2, ids[:, 1:, None], True)
    return ids[:, :-1], torch.where(chosen, ids[:, 1:], -1), packed(support)


@pytest.mark.parametrize("config", [GPT, LLAMA])
@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(0.8, top_k=5)])
def test_acting_step_by_step_is_judged_alike(config: TransformerConfig, sampling: Sampling) -> None:
    policy = model(config, sampling)
    assert isinstance(policy, Policy)
    rows, time = 3, 9
    noise = policy.noise((time, rows), Generator().manual_seed(1))
    state, token = policy.initial_state(rows), torch.tensor([1, 2, 3])
    tokens: list[list[int]] = []
    actions, log_probs, values, supports = [], [], [], []
    for t in range(time):
        if t == 5:
            assert isinstance(state, Cache) and state.length.tolist() == [5, 5, 5]
            torch.testing.assert_close(policy.value(token, state), policy.act(token, state, noise[t]).value)
        seen = [[*(ids[row] for ids in tokens), int(token[row])] for row in range(rows)]
        logits = torch.stack([read(policy, ids).log_probs[-1] for ids in seen])
        supports.append(packed(among(logits.float(), sampling)))
        acted = policy.act(token, state, noise[t])
        tokens.append(token.tolist())
        assert isinstance(acted.action, Tensor) and acted.value is not None
        actions.append(acted.action)
        log_probs.append(acted.log_prob)
        values.append(acted.value)
        state, token = acted.state, acted.action
    observation: Tree = torch.tensor(tokens).T
    if not sampling.is_whole:
        observation = {"token": observation, "support": torch.stack(supports, 1)}
    boundary = torch.zeros(rows, time, dtype=torch.bool)
    found = policy.evaluate_actions(observation, torch.stack(actions, 1), (), boundary)
    assert (found.log_prob - torch.stack(log_probs, 1)).abs().max() < 1e-4
    assert found.value is not None and (found.value - torch.stack(values, 1)).abs().max() < 1e-4
    first = policy.act(torch.tensor([1, 2, 3]), (), noise[0])
    assert isinstance(first.action, Tensor)
    assert torch.equal(first.action, actions[0]), "() is a state that has read nothing"
    likeliest = policy.act(torch.tensor([1]), (), None).action
    assert likeliest == read(policy, [1]).log_probs[0].argmax()


def test_a_judgement_is_that_of_each_text_alone() -> None:
    policy = model(LLAMA, SAMPLING)
    tokens, action, support = texts()
    cases: list[tuple[Tree, Tensor | None]] = [(tokens, None), ({"token": tokens, "support": support}, support)]
    for observation, bits in cases:
        found = policy.evaluate_actions(observation, action, (), NEVER)
        assert torch.equal(found.log_prob, policy.log_probs(observation, action))
        for row in range(4):
            alone = read(policy, tokens[row].tolist())
            log_probs = within(alone.log_probs, None if bits is None else bits[row])
            chosen = action[row] >= 0
            expected = log_probs.gather(1, action[row].clamp_min(0)[:, None]).squeeze(1)
            entropy = torch.special.entr(log_probs.exp()).sum(1)
            for one, other in ((found.log_prob, expected), (found.entropy, entropy)):
                torch.testing.assert_close(one[row][chosen].double(), other[chosen], atol=1e-5, rtol=0.0)
                assert not one[row][~chosen].any(), "what was not chosen is neither likely nor uncertain"
            assert found.value is not None
            torch.testing.assert_close(found.value[row], alone.values, atol=1e-5, rtol=0.0)


def test_padding_behind_a_text_changes_nothing() -> None:
    policy = model(GPT, SAMPLING)
    tokens, action, _ = texts()
    action[:, 7:] = -1
    padded = torch.cat([tokens[:, :7], torch.full((4, 5), 12)], 1)
    one, other = (policy.evaluate_actions(x, action, (), NEVER) for x in (tokens, padded))
    assert torch.equal(one.log_prob, other.log_prob) and torch.equal(one.entropy, other.entropy)
    assert one.value is not None and other.value is not None and torch.equal(one.value[:, :7], other.value[:, :7])


def test_nothing_chosen_is_nothing_learnt() -> None:
    policy = model()
    found = policy.evaluate_actions(texts()[0], torch.full((4, 12), -1), (), NEVER)
    (found.log_prob.sum() + found.entropy.sum()).backward()
    assert not any(p.grad.any() for p in policy.parameters() if p.grad is not None)


def test_nothing_is_dropped_where_a_log_probability_is_compared() -> None:
    plain, policy = model(GPT, SAMPLING), model(GPT, SAMPLING, dropout=0.5)
    policy.train()
    tokens, action, _ = texts()
    expected = plain.evaluate_actions(tokens, action, (), NEVER)
    found = policy.evaluate_actions(tokens, action, (), NEVER)
    assert torch.equal(found.log_prob, expected.log_prob) and torch.equal(
        policy.log_probs(tokens, action), found.log_prob
    )
    noise = torch.full((4,), 0.4)
    first = tokens[:, 0]
    assert torch.equal(policy.act(first, (), noise).log_prob, plain.act(first, (), noise).log_prob)
    assert torch.equal(policy.value(first, ()), plain.value(first, ()))
    assert all(module.training for module in policy.modules()), "imitation goes on dropping"
    assert not torch.equal(policy.body.forward(tokens), plain.body.forward(tokens))


def test_what_was_drawn_among_some_is_judged_among_them_or_not_at_all() -> None:
    policy = model(GPT, Sampling(top_k=3))
    tokens, action, support = texts()
    for judged in (policy.log_probs, lambda x, a: policy.evaluate_actions(x, a, (), NEVER)):
        with pytest.raises(ValueError, match=r"drawn among, for the policy's sampling is .*top_k=3"):
            judged(tokens, action)
        judged({"token": tokens, "support": support}, action)
    policy.sampling = Sampling(top_p=1.0)
    policy.log_probs(tokens, action)


def test_a_row_begins_with_its_text() -> None:
    policy = model()
    tokens, action, _ = texts()
    with pytest.raises(ValueError, match="expected rows that begin with their text"):
        policy.evaluate_actions(tokens, action, policy.initial_state(4), NEVER)


@pytest.mark.parametrize("config", [GPT, replace(LLAMA, tie_word_embeddings=False)])
def test_layers_are_all_parameters_once_from_below(config: TransformerConfig) -> None:
    policy = model(config)
    layers = policy.layers()
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    found = [[names[id(parameter)] for parameter in layer] for layer in layers]
    assert sorted(name for layer in found for name in layer) == sorted(names.values())
    assert len(found) == 2 + config.num_hidden_layers
    assert "body.token.weight" in found[0] and ("body.stack.place.weight" in found[0]) == (
        config.positions == GPT.positions
    )
    assert all(name.startswith(f"body.stack.layers.{i}.") for i in range(2) for name in found[1 + i])
    assert {"body.value_head.weight", "body.stack.final_norm.weight"} <= set(found[-1])
    assert ("body.head.weight" in found[-1]) != config.tie_word_embeddings


def test_a_saved_one_is_the_same_policy(tmp_path: Path) -> None:
    policy = LanguageModel(model(LLAMA).body, {"tokenizer": "words", "words": ["a", "b"]}, Sampling(0.7, 4, 0.9))
    policy.save(tmp_path)
    again = saving.load(tmp_path)
    assert isinstance(again, LanguageModel) and not again.training
    assert (again.vocabulary, again.sampling, again.config) == (policy.vocabulary, policy.sampling, policy.config)
    assert again.observation_space == again.action_space == Discrete(WORDS)
    tokens, action, support = texts()
    observation = {"token": tokens, "support": support}
    assert torch.equal(again.log_probs(observation, action), policy.log_probs(observation, action))


@torch.no_grad()
def test_to_ask_for_a_value_leaves_the_state_of_an_encoder_decoder_as_it_was() -> None:
    """Whatever is asked about: the token that comes, another one, or the one at which the decoder begins."""
    torch.manual_seed(0)
    body = EncoderDecoder(Transformer(replace(t5(WORDS, 16, 2, 2, 8, 24, CONTEXT), value_head=True)), 0, EOS)
    for parameter in body.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.25)
    policy = LanguageModel(body, {}).eval()
    text = torch.tensor([[5, 6, 7, 0, 8, 9], [4, 0, 3, 2, 8, 1]])
    expected, state = body.value(body.forward(text)), policy.initial_state(2)
    for time, token in enumerate(text.T):
        for other in (token, torch.tensor([0, 0]), torch.tensor([12, 0]), token):
            was = policy.value(other, state)
            torch.testing.assert_close(policy.value(other, state), was)
        torch.testing.assert_close(was, expected[:, time])
        acted = policy.act(token, state, None)
        torch.testing.assert_close(acted.value, expected[:, time])
        state = acted.state
    assert expected[:, 3:].std() > 0.1


def test_a_policy_is_a_decoder_with_a_value() -> None:
    for config in (replace(GPT, value_head=False), replace(bert(WORDS, 16, 1, 2, CONTEXT), value_head=True)):
        with pytest.raises(ValueError, match="expected a decoder with value_head"):
            LanguageModel(Transformer(config), {})
