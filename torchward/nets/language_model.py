"""A language model as a policy: what it has read is its observation, the next token its action, its state the cache.

A row of a rollout is a prompt and its completion. At each step the policy sees one token more and chooses the next;
where the next one was not its own choice, in a prompt, in padding, in what a tool answered, the action is -1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor, nn

from torchward.config import ConfigError, from_json, to_json
from torchward.nets import body_description, saving
from torchward.nets.body import Body, BodyConfig, layers_of, scores_at
from torchward.nets.dropout import without_dropout
from torchward.nets.hub_model import HubModel
from torchward.nets.kv_cache import Cache
from torchward.nets.lora import LoRA, adapt, adaptation
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.sampling import Sampling, draw
from torchward.nets.spaces import Discrete, Space, Tree
from torchward.nets.token_scores import TokenScores
from torchward.nets.transformer import Transformer

NONE = -1
"""The action where the policy chose nothing."""


class Chosen(NamedTuple):
    """The next token of each row."""

    token: Int64[Tensor, " rows"]
    log_prob: Float[Tensor, " rows"]
    value: Float[Tensor, " rows"]
    support: Tensor | None


class LanguageModel(nn.Module):
    """A :class:`~torchward.data.protocols.Policy` of a transformer, or another decoder, that has a value head.

    ``vocabulary`` is what its tokenizer is made of, as JSON: it is kept and saved, so that a policy is never without
    its tokenizer, and read by ``torchward.language`` alone. ``sampling`` is the distribution that is drawn from, and
    judged by. A state is a :class:`~torchward.nets.kv_cache.Cache`, or ``()`` for one that has read nothing."""

    history = True

    def __init__(self, body: Body, vocabulary: Mapping[str, Any], sampling: Sampling | None = None) -> None:
        super().__init__()
        if body.config.kind != "decoder" or not body.config.value_head:
            raise ValueError(
                "expected a decoder with value_head to make a policy of, got "
                f"kind={body.config.kind!r}, value_head={body.config.value_head}"
            )
        self.body = body
        self.vocabulary = vocabulary
        self.sampling = sampling or Sampling()
        self.cuda_graphs = False
        """Whether steps are replayed where many texts are written at once: see :meth:`replay_steps`."""

    def replay_steps(self, on: bool) -> None:
        """Write texts by recorded steps (:mod:`torchward.nets.replayed`), or no more. Raises ConfigError for a model
        that is not on a GPU, or that transformers computes."""
        if on and not isinstance(self.body, Transformer):
            raise ConfigError(
                f"expected a transformer of torchward's own for cuda_graphs, got a {type(self.body).__name__}: leave "
                "cuda_graphs out"
            )
        if on and (kind := self.body.token.weight.device.type) != "cuda":
            raise ConfigError(f"expected device cuda for cuda_graphs, got {kind}: leave cuda_graphs out")
        self.cuda_graphs = on

    @property
    def config(self) -> BodyConfig:
        """What its body is."""
        return self.body.config

    @property
    def observation_space(self) -> Space:
        """A token."""
        return Discrete(self.config.vocab_size)

    @property
    def action_space(self) -> Space:
        """A token."""
        return Discrete(self.config.vocab_size)

    # What a Policy does

    def initial_state(self, batch: int) -> Tree:
        """An empty cache."""
        return self.body.cache(batch)

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tensor:
        """A uniform number for each token that will be drawn."""
        return torch.rand(batch, generator=generator, device=generator.device)

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        """Read one token ``[B]`` behind what the state has read, and choose the next."""
        assert isinstance(observation, Tensor) and (noise is None or isinstance(noise, Tensor))
        cache = Cache(*state) if state else self.body.cache(len(observation))
        with without_dropout(self):
            hidden, cache = self.body.step(observation, cache)
        chosen = self.choose(hidden, noise)
        return Acted(chosen.token, chosen.log_prob, chosen.value, cache)

    def value(self, observation: Tree, state: Tree) -> Tensor:
        """What it is worth to stand behind one more token ``[B]``."""
        assert isinstance(observation, Tensor)
        cache = Cache(*state) if state else self.body.cache(len(observation))
        with without_dropout(self):
            return self.body.value(self.body.step(observation, cache)[0]).float()

    def evaluate_actions(
        self, observation: Tree, action: Tree, state: Tree, boundary: Bool[Tensor, "batch time"]
    ) -> Evaluated:
        """Log-probability, entropy and value of ``[B, T]`` steps, without dropout; 0 where nothing was chosen. A row is
        one text, read from its beginning: behind its boundary there is padding alone. ``observation`` are tokens, or a
        dict of ``token`` and, where a sampler chose among some, ``support``. Raises ValueError where the row has a
        past, and as :meth:`scores`."""
        assert isinstance(action, Tensor)
        if state:
            raise ValueError("expected rows that begin with their text, got a state that has read some of it")
        tokens, support = parts(observation)
        with without_dropout(self):
            hidden = self.body.forward(tokens)
        log_prob, entropy = self.scores(hidden, action, support)
        return Evaluated(log_prob, entropy, self.body.value(hidden).float())

    # What generation needs beside

    @torch.no_grad()
    def read(
        self, tokens: Int64[Tensor, "batch time"], mask: Bool[Tensor, "batch time"] | None, size: int
    ) -> tuple[Float[Tensor, "batch width"], Cache]:
        """Prompts ``[B, T]``, padded at the left where ``mask`` is False, into a new cache of ``size`` slots; and the
        hidden state behind each one's last token."""
        hidden, cache = self.body.extend(tokens, self.body.cache(len(tokens), size), mask, tokens.shape[1])
        return hidden[:, -1], cache

    def choose(self, hidden: Float[Tensor, "batch width"], noise: Float[Tensor, " batch"] | None) -> Chosen:
        """The next tokens, by their probabilities or, without noise, the likeliest."""
        drawn = draw(self.body.logits(hidden), self.sampling, noise)
        return Chosen(drawn.token, drawn.log_prob, self.body.value(hidden).float(), drawn.support)

    def scores(
        self,
        hidden: Float[Tensor, "batch time width"],
        action: Int64[Tensor, "batch time"],
        support: Tensor | None = None,
        with_entropy: bool = True,
    ) -> TokenScores:
        """Log-probability and entropy ``[B, T]`` of tokens behind hidden states; 0 where the action is -1: those cost
        nothing. Raises ValueError where they were drawn among some tokens, and nothing says among which."""
        if support is None and not self.sampling.is_whole:
            raise ValueError(
                f"expected the tokens that each one was drawn among, for the policy's sampling is {self.sampling}; "
                "rollouts that generation makes hold them as support, and without top_k and top_p there is no need"
            )
        return scores_at(self.body, hidden, action != NONE, action, self.sampling.temperature, support, with_entropy)

    def log_probs(self, observation: Tree, action: Tree) -> Float[Tensor, "batch time"]:
        """The log-probabilities of :meth:`evaluate_actions` alone."""
        assert isinstance(action, Tensor)
        tokens, support = parts(observation)
        with without_dropout(self):
            hidden = self.body.forward(tokens)
        return self.scores(hidden, action, support, with_entropy=False).log_prob

    def layers(self) -> list[list[nn.Parameter]]:
        """Its parameters from below: the embeddings, each layer, and what stands above them."""
        return layers_of(self, self.body)

    # What is saved

    def description(self) -> dict[str, Any]:
        """What it was made from. A body that transformers computes lies in a directory of its own, and is named alone;
        one of the user's own goes as ``encoder``, by its name."""
        assert isinstance(self.body, nn.Module)
        made = body_description.of(self.body)
        adapters = {"lora": to_json(lora)} if isinstance(lora := adaptation(self), LoRA) else {}
        return {**made, **adapters, "vocabulary": dict(self.vocabulary), "sampling": to_json(self.sampling)}

    @classmethod
    def described(
        cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None
    ) -> "LanguageModel":
        """One as ``data`` says, with any parameters; ``encoder`` is the body that is no transformer of this package:
        one that transformers computes, or of the user's own."""
        body: Any = body_description.made(data) if encoder is None else encoder
        policy = cls(body, data["vocabulary"], from_json(Sampling, data["sampling"]))
        return adapt(policy, from_json(LoRA, data["lora"])) if "lora" in data else policy

    def save(self, directory: Path) -> None:
        """Write it into ``directory``, for :func:`torchward.load`."""
        hub = isinstance(self.body, HubModel)
        saving.save(self, directory, saving.HUB if hub else None)
        if isinstance(self.body, HubModel):
            self.body.save(directory)


def parts(observation: Tree) -> tuple[Tensor, Tensor | None]:
    """Tokens, and what a sampler chose among, where that is told."""
    if isinstance(observation, Tensor):
        return observation, None
    assert isinstance(observation, dict)
    tokens, support = observation["token"], observation.get("support")
    assert isinstance(tokens, Tensor) and (support is None or isinstance(support, Tensor))
    return tokens, support
