"""A language of six tokens, a transformer of one layer with a key-value cache, and a source of completions.

Nothing here inherits from torchward or is known to it: the toy shows that the nouns are wide enough for language.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from torchward.data.protocols import Episode, Evaluation, Policy
from torchward.data.random import generator
from torchward.data.rollout import Rollout
from torchward.data.tree import Tree, stack, unbind
from torchward.nets.heads import gumbel
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.spaces import Discrete

SYMBOLS, BEGIN, END = 4, 4, 5
VOCABULARY = 6
PROMPT, COMPLETION = 3, 4  # BEGIN a b | b a END, and one token more than is needed
LENGTH = PROMPT + COMPLETION


class TinyGPT(nn.Module):
    """One block of causal attention over at most ``LENGTH`` tokens; its state is the cache of keys and values."""

    history = True

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.token = nn.Embedding(VOCABULARY, width)
        self.place = nn.Embedding(LENGTH, width)
        self.attention = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, VOCABULARY)
        self.critic = nn.Linear(width, 1)

    def initial_state(self, batch: int) -> Tree:
        cache = torch.zeros(batch, LENGTH, self.width)
        return {"keys": cache, "values": cache, "length": torch.zeros(batch, dtype=torch.int64)}

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tensor:
        return gumbel((*batch, VOCABULARY), generator)

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        assert isinstance(state, dict) and isinstance(observation, Tensor)
        length = state["length"]
        assert isinstance(length, Tensor)
        x = self.token(observation) + self.place(length)
        query, key, value = self.attention(x).chunk(3, -1)
        rows = torch.arange(len(x))
        keys = state["keys"].index_put((rows, length), key)  # type: ignore[union-attr]
        values = state["values"].index_put((rows, length), value)  # type: ignore[union-attr]
        scores = torch.einsum("bd,bld->bl", query, keys) / self.width**0.5
        weights = scores.masked_fill(torch.arange(LENGTH) > length[:, None], -torch.inf).softmax(-1)
        logits, worth = self._top(x, torch.einsum("bl,bld->bd", weights, values))
        action = (logits if noise is None else logits + noise).argmax(-1)  # type: ignore[operator]
        following: Tree = {"keys": keys, "values": values, "length": length + 1}
        return Acted(action, logits.gather(-1, action[:, None]).squeeze(-1), worth, following)

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        return self.act(observation, state, None).value

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        assert isinstance(observation, Tensor) and isinstance(action, Tensor)
        x = self.token(observation) + self.place.weight[: observation.shape[1]]
        query, key, value = self.attention(x).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        logits, worth = self._top(x, mixed)
        entropy = -(logits.exp() * logits).sum(-1)
        return Evaluated(logits.gather(-1, action.unsqueeze(-1)).squeeze(-1), entropy, worth)

    def _top(self, x: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.merge(mixed)
        x = x + self.feed(x)
        logits: Tensor = self.head(x).log_softmax(-1)
        return logits, self.critic(x).squeeze(-1)


class Completions:
    """A source that samples completions: prompts are fed in, their rows are not the policy's choice."""

    resumable = True

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.generator = generator(seed, "completions")
        self.finished: list[Episode] = []

    def collect(self, policy: Policy, horizon: int | None) -> Rollout:
        with torch.no_grad():
            return self._collect(policy, policy.noise((LENGTH, self.n), self.generator))

    def _collect(self, policy: Policy, noise: Tree | None) -> Rollout:
        symbols = torch.randint(SYMBOLS, (self.n, 2), generator=self.generator)
        prompt = torch.cat([torch.full((self.n, 1), BEGIN), symbols], 1)
        wanted = torch.cat([symbols.flip(1), torch.full((self.n, 1), END)], 1)
        state: Tree = policy.initial_state(self.n)
        token: Tree = prompt[:, 0]
        acts: list[Tree] = []
        running = torch.ones(self.n, dtype=torch.bool)
        for t in range(LENGTH - 1):
            acted = policy.act(token, state, None if noise is None else unbind(noise)[t])
            assert isinstance(acted.action, Tensor) and acted.value is not None
            forced = t + 1 < PROMPT
            action = prompt[:, t + 1] if forced else acted.action
            chosen = running & (not forced)
            end = chosen & (action == END)
            right = chosen & (t + 1 - PROMPT < 3)
            right = right & (action == wanted[:, min(max(t + 1 - PROMPT, 0), 2)])
            acts.append(
                {
                    "observation": token,
                    "action": action,
                    "log_prob": acted.log_prob,
                    "value": acted.value,
                    "reward": right.float() / 3.0,
                    "terminated": end,
                    "loss_mask": chosen,
                }
            )
            state, token, running = acted.state, action, running & ~end
        last = policy.value(token, state)
        rows = stack(acts, 1)
        assert isinstance(rows, dict) and last is not None
        value, mask = rows.pop("value"), rows["loss_mask"]
        assert isinstance(value, Tensor) and isinstance(mask, Tensor)
        cut = torch.zeros_like(mask)
        cut[:, -1] = True  # a completion that its length ends is truncated, not terminated
        boundary = rows["terminated"] | cut  # type: ignore[operator]
        next_value = torch.cat([value[:, 1:], last[:, None]], 1)
        rollout = Rollout(**rows, boundary=boundary, value=value, next_value=next_value)  # type: ignore[arg-type]
        lengths = mask.sum(1).tolist()
        self.finished += [Episode(r, n) for r, n in zip(rollout.reward.sum(1).tolist(), lengths, strict=True)]
        group = torch.arange(self.n) // 4
        return replace(rollout, context={"state": policy.initial_state(self.n), "prompt": prompt, "group": group})

    def episodes(self) -> list[Episode]:
        finished, self.finished = self.finished, []
        return finished

    def cut(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])

    def close(self) -> None:
        pass


class Reverse:
    """The task: write the prompt's two symbols the other way round, and end."""

    name = "reverse"
    observation_space = Discrete(VOCABULARY)
    action_space = Discrete(VOCABULARY)

    def source(self, n_envs: int, seed: int, device: str = "cpu") -> Completions:
        return Completions(n_envs, seed)

    def evaluate(self, policy: Policy, episodes: int, seed: int) -> Evaluation:
        source = Completions(episodes, seed)
        with torch.no_grad():
            source._collect(policy, None)
        finished = source.episodes()
        return Evaluation([e.return_ for e in finished], [e.length for e in finished])


class KLToReference:
    """Shaping: every chosen token pays for how far it has moved from a reference policy, beta (log pi - log ref)."""

    def __init__(self, reference: Policy, beta: float) -> None:
        self.reference, self.beta = reference, beta

    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]:
        with torch.no_grad():
            state = rollout.context["state"]
            log_prob = self.reference.evaluate_actions(
                rollout.observation, rollout.action, state, rollout.boundary
            ).log_prob
        gap = torch.where(rollout.loss_mask, rollout.log_prob - log_prob, 0.0)
        shaped = replace(rollout, reward=rollout.reward - self.beta * gap, reference_log_prob=log_prob)
        return shaped, {"kl": gap.sum() / rollout.loss_mask.sum()}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
