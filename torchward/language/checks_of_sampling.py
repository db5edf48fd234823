"""Checks of what a language model writes: are its tokens drawn, and their log-probabilities stored, as they should be?

Each check gives one finding and leaves the model as it was. It judges one thing alone: a fault of the cache, say, is
not counted against the temperature.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchward.data.protocols import Source
from torchward.data.rollout import Rollout
from torchward.language.documents import TextError
from torchward.language.finding import WHOLE, Finding, Texts, device_of, drawing, gap, plain
from torchward.language.generate import generate
from torchward.language.tokenizer import Tokenizer
from torchward.nets.dropout import without_dropout
from torchward.nets.language_model import NONE, Chosen, LanguageModel, parts
from torchward.nets.sampling import Sampling, among, unpacked


class Written(NamedTuple):
    """A completion."""

    prompt: int
    """The number of its prompt."""
    stored: Tensor
    """``[N]`` The log-probability of each token, as it was written."""
    known: Tensor
    """``[N]`` The same, of one plain pass."""


@torch.no_grad()
def written(policy: LanguageModel, prompts: Texts, slots: int, longest: int, copies: int = 2) -> Iterator[Written]:
    """Completions of prompts at temperature 1, with ``slots`` of them at a time. Lengths end them, which differ."""
    limits = [max(1, longest - 3 * (i % 3)) for i in range(len(prompts))]
    generator = torch.Generator(device_of(policy)).manual_seed(0)
    with drawing(policy, WHOLE):
        noise = policy.noise((max(limits), copies * len(prompts)), generator)
        done = generate(
            policy, prompts, eos_id=NONE, max_new_tokens=limits, num_generations=copies, noise=noise, slots=slots
        )
    for row, count in enumerate(done.lengths.tolist()):
        prompt, said = prompts[row // copies], done.tokens[row, :count]
        with without_dropout(policy):
            logits = plain(policy, [*prompt, *said.tolist()]).logits[len(prompt) - 1 :]
        known = logits.log_softmax(1).gather(1, said[:, None]).squeeze(1)
        yield Written(row // copies, done.log_probs[row, :count], known)


@torch.no_grad()
def weights(policy: LanguageModel) -> Finding:
    """Whether all that the model has learnt are finite numbers."""
    held = dict(policy.named_parameters())
    lost = [name for name, tensor in held.items() if not bool(tensor.isfinite().all())]
    if lost:
        return Finding(
            "weights",
            False,
            f"{len(lost)} of {len(held)} parameters hold NaN or infinity, {lost[0]} for one: learning has diverged, "
            "and nothing can be drawn from what is left. Look where metrics first have no loss, go back to a policy "
            "from before, and take a smaller learning_rate.",
        )
    return Finding("weights", True, f"{sum(tensor.numel() for tensor in held.values()):,} finite numbers")


def cached_decode(policy: LanguageModel, prompts: Texts, longest: int = 16) -> Finding:
    """Whether tokens that are written one by one, with a cache, have the probabilities of one pass over the whole text:
    of each prompt alone, of prompts of different lengths together, and where rows leave and others enter."""
    # Of different lengths. They lose their beginning: at its end a prompt has the token by which a decoder is begun.
    prompts = [prompt[min(i % 3, max(0, len(prompt) - 2)) :] for i, prompt in enumerate(prompts)]
    alone = [[prompt] for prompt in prompts]
    worst, tokens = 0.0, 0
    for way, batches, slots, most, cause in (
        ("already of a prompt alone", alone, 2, longest, "a step's positions, what it writes, and what it sees"),
        ("already at first where prompts are read together", [prompts], 2 * len(prompts), 1, "how padding is read"),
        ("where rows leave and others enter", [prompts], 4, longest, "how rows move within the cache"),
    ):
        for number, batch in enumerate(batches):
            for row in written(policy, batch, slots, most):
                size, place = gap(row.stored, row.known, policy)
                worst, tokens = max(worst, size), tokens + len(row.known)
                if place is not None:
                    return Finding(
                        "cached decode",
                        False,
                        "A token that is written with the cache has another probability than in one pass over its "
                        f"text, {way}: token {place + 1} behind prompt {number + row.prompt + 1} has the "
                        f"log-probability {float(row.stored[place]):.4f}, and should have {float(row.known[place]):.4f}"
                        f". Look at {cause} (extend and step of the model, torchward.nets.kv_cache).",
                    )
    return Finding("cached decode", True, f"{tokens} tokens, alone, padded, leaving, entering: {worst:.0g} off at most")


@torch.no_grad()
def temperature(policy: LanguageModel, texts: Texts, seed: int = 0) -> Finding:
    """Whether logits are divided by the temperature in drawing, in what is stored, and in what training computes."""
    degree = policy.sampling.temperature if policy.sampling.temperature != 1.0 else 0.7
    generator, worst = torch.Generator(device_of(policy)).manual_seed(seed), 0.0
    with drawing(policy, Sampling(degree)), without_dropout(policy):
        for text in texts:
            tokens, action, hidden, logits = plain(policy, text)
            known = (logits / degree).log_softmax(1)
            noise = policy.noise((len(action),), generator)
            drawn = policy.choose(hidden, noise)
            upper = _at(known.exp().cumsum(1), drawn.token)
            beyond = torch.maximum(noise - upper, upper - _at(known.exp(), drawn.token) - noise).clamp_min(0.0)
            scores = policy.scores(hidden[None], action[None])
            nothing = torch.zeros_like(tokens, dtype=torch.bool)[None]
            judged = policy.evaluate_actions(tokens[None], action[None], (), nothing).log_prob
            for where, found, right in (
                ("tokens are drawn", beyond, torch.zeros_like(beyond)),
                ("what sampling stores is computed", drawn.log_prob, _at(known, drawn.token)),
                ("scores are computed", scores.log_prob[0], _at(known, action)),
                ("an entropy is computed", scores.entropy[0], -(known.exp() * known).sum(1)),
                ("evaluate_actions judges", judged[0], _at(known, action)),
            ):
                size, place = gap(found, right, policy)
                worst = max(worst, size)
                if place is not None:
                    return Finding(
                        "temperature",
                        False,
                        f"At temperature {degree:g} it is not by logits / {degree:g} that {where}: {size:.3g} off. "
                        "Divide the logits wherever a probability is taken: in drawing, in what is stored beside a "
                        "token, and in what training computes.",
                    )
    return Finding("temperature", True, f"drawn, stored and judged at {degree:g}: {worst:.0g} off at most")


@torch.no_grad()
def support(policy: LanguageModel, texts: Texts, source: Source, seed: int = 0) -> Finding:
    """Whether with top-k and top-p a token is judged among those that it was drawn among, and rollouts hold these."""
    own = policy.sampling
    some = Sampling(1.0, min(5, policy.config.vocab_size), 0.9) if own.is_whole else Sampling(1.0, own.top_k, own.top_p)
    generator, worst = torch.Generator(device_of(policy)).manual_seed(seed), 0.0
    with drawing(policy, some), without_dropout(policy):
        for text in texts:
            _, action, hidden, logits = plain(policy, text)
            seen = among(logits, some)
            drawn = policy.choose(hidden, policy.noise((len(action),), generator))
            if drawn.support is None or not torch.equal(unpacked(drawn.support, logits.shape[1]), seen):
                return _unsupported("what a choice says that it was made among is not what top_k and top_p leave")
            known = _at(logits.masked_fill(~seen, -torch.inf).log_softmax(1), drawn.token)
            scores = policy.scores(hidden[None], drawn.token[None], drawn.support[None]).log_prob[0]
            for where, found in (("sampling stores", drawn.log_prob), ("training computes", scores)):
                size, place = gap(found, known, policy)
                worst = max(worst, size)
                if place is not None:
                    return _unsupported(f"the log-probability that {where} is {size:.3g} off from that among them")
        if not _refuses(policy, hidden, action):
            return _unsupported("where nothing says among which, tokens are judged among all, in place of an error")
        rollout = source.collect(policy, None)
    _, bits = parts(rollout.observation)
    if bits is None:
        return _unsupported("rollouts do not hold what their tokens were drawn among")
    assert isinstance(rollout.action, Tensor)
    seen, action = unpacked(bits[rollout.loss_mask], policy.config.vocab_size), rollout.action[rollout.loss_mask]
    if not bool(_at(seen, action).all()) or int(seen.sum(1).max()) > (some.top_k or seen.shape[1]):
        return _unsupported("what rollouts hold beside a token is the support of another one")
    how = f"top_k {some.top_k}, top_p {some.top_p}"
    return Finding("support", True, f"{len(action)} tokens drawn and judged by {how}: {worst:.0g} off at most")


def dropout(policy: LanguageModel, rollout: Rollout, prompts: Texts) -> Finding:
    """Whether nothing is dropped where log-probabilities are sampled or compared, also while the model is in training.
    The rollout is drawn at temperature 1, among all tokens."""
    was = policy.training
    asked: dict[str, list[Tensor]] = {"evaluate_actions": [], "log_probs": [], "generation": []}
    with torch.no_grad(), torch.random.fork_rng(devices=[]), drawing(policy, WHOLE):
        try:
            for mode in (False, True):
                policy.train(mode)
                seen, done = rollout.observation, rollout.action
                asked["evaluate_actions"].append(policy.evaluate_actions(seen, done, (), rollout.boundary).log_prob)
                asked["log_probs"].append(policy.log_probs(seen, done))
                rows = written(policy, prompts, 4, 6)
                asked["generation"].append(torch.cat([row.stored for row in rows]))
            tokens, _ = parts(rollout.observation)
            drops = not torch.equal(policy.body.forward(tokens), policy.body.forward(tokens))
        finally:
            policy.train(was)
    for where, (quiet, loud) in asked.items():
        if quiet.shape != loud.shape or gap(loud, quiet, policy).place is not None:
            return Finding(
                "dropout",
                False,
                f"While the model is in training, {where} drops activations: what is compared then comes from two "
                "different networks. Compute it within torchward.nets.dropout.without_dropout.",
            )
    return Finding("dropout", True, "off where log-probabilities are compared" if drops else "the model has none")


def sampled_tokens(policy: LanguageModel, source: Source, tokenizer: Tokenizer) -> Finding:
    """Whether rollouts hold the tokens that were drawn, with what was said of them then. Its words tell how many
    completions would have become other tokens by way of their text."""
    with _watched(policy) as drawn:
        rollout = source.collect(policy, None)
    assert isinstance(rollout.action, Tensor)
    mask, changed, count = rollout.loss_mask, 0, 0
    if not drawn:
        return Finding("sampled tokens", None, "not looked at: completions are not drawn by the policy itself")
    for row in range(len(mask)):
        own = mask[row].nonzero().squeeze(1)
        ids = rollout.action[row, own].tolist()
        for step, pair in zip(own.tolist(), zip(ids, rollout.log_prob[row, own].tolist(), strict=True), strict=True):
            if drawn[pair] < 1:
                return Finding(
                    "sampled tokens",
                    False,
                    f"Step {step + 1} of row {row + 1} of a rollout is token {pair[0]} with the log-probability "
                    f"{pair[1]:.4f}, which was never drawn. Train on the tokens that were sampled, with what was "
                    "stored beside them: never decode them, and encode the text again.",
                )
            drawn[pair] -= 1
        ids = [token for token in ids if token not in tokenizer.end_ids]
        count, changed = count + 1, changed + (ids != _again(ids, tokenizer))
    words = f"{int(mask.sum())}, all as they were drawn; by way of text {changed} of {count} completions would change"
    return Finding("sampled tokens", True, words)


def _again(ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """Tokens, decoded and encoded again; none where that is no text."""
    try:
        return tokenizer.encode(tokenizer.decode(ids))
    except TextError:
        return []


@contextmanager
def _watched(policy: LanguageModel) -> Iterator[Counter[tuple[int, float]]]:
    """Within it, counts the tokens that the policy draws, with their log-probabilities."""
    drawn: Counter[tuple[int, float]] = Counter()
    choose, own = policy.choose, vars(policy)
    before = {name: own[name] for name in ("choose",) if name in own}

    def watching(hidden: Tensor, noise: Tensor | None) -> Chosen:
        chosen = choose(hidden, noise)
        drawn.update(zip(chosen.token.tolist(), chosen.log_prob.tolist(), strict=True))
        return chosen

    own["choose"] = watching
    try:
        yield drawn
    finally:
        del own["choose"]
        own.update(before)


def _refuses(policy: LanguageModel, hidden: Tensor, action: Tensor) -> bool:
    try:
        policy.scores(hidden[None], action[None])
    except ValueError:
        return True
    return False


def _unsupported(what: str) -> Finding:
    return Finding(
        "support",
        False,
        f"With top_k and top_p {what}. A token is judged among those that the sampler chose among, which are stored "
        "beside it (support, in the observation); or such settings are refused.",
    )


def _at(table: Any, column: Tensor) -> Tensor:
    """Of each row the entry in this column."""
    entries: Tensor = table.gather(1, column[:, None]).squeeze(1)
    return entries
