"""Watching a reward, as shaping that changes nothing: the means of its parts, and words where it seems to be hacked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchward.data.rollout import Rollout
from torchward.functional.divergences import k1
from torchward.language.hacking import Bounds, Written, joined, signs
from torchward.language.shingles import distinct_n
from torchward.language.source import EARNED, PARTS


class Watch:
    """Looks at each rollout of text. Metrics gain the mean of each part of the reward, ``reward/NAME``, and the number
    of ``warnings`` that stand.

    ``say`` is told the sentences of :mod:`torchward.language.hacking`, each when it becomes true and not again before
    it has been false for a window. The start is the first ``window`` answers, lately are the last ``window``; both are
    kept, so that a resumed run says what the uninterrupted one would have. What it takes for repetition are runs of
    ``n`` tokens.
    Divergence is known where another shaping before this one has told the reference's log-probabilities."""

    def __init__(self, say: Callable[[str], None], bounds: Bounds | None = None, window: int = 256, n: int = 4) -> None:
        self.say, self.bounds, self.window, self.n = say, bounds or Bounds(), window, n
        self.start: list[Written] = []
        self.lately: list[Written] = []
        self.quiet: dict[str, int] = {}
        """How many answers ago each check that has warned last did."""

    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]:
        """The rollout as it is; and metrics."""
        seen = written(rollout, self.n)
        standing = 0
        if _count(self.start) < self.window:
            self.start.append(seen)
        else:
            self.lately.append(seen)
            while _count(self.lately[1:]) >= self.window:
                del self.lately[0]
        if _count(self.lately) >= self.window:
            found = signs(joined(self.start), joined(self.lately), self.bounds)
            for name, sentence in found.items():
                if self.quiet.get(name, self.window) >= self.window:
                    self.say(f"a word of warning: {sentence}")
            self.quiet = {name: answers + len(seen.reward) for name, answers in self.quiet.items()}
            self.quiet |= dict.fromkeys(found, 0)
            standing = len(found)
        means: dict[str, Tensor | float] = {f"reward/{name}": float(x.mean()) for name, x in seen.parts.items()}
        return rollout, means | {"warnings": float(standing)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "start": [_to_dict(each) for each in self.start],
            "lately": [_to_dict(each) for each in self.lately],
            "quiet": dict(self.quiet),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start, self.lately = ([_from_dict(each) for each in state[name]] for name in ("start", "lately"))
        self.quiet = dict(state["quiet"])


def written(rollout: Rollout, n: int) -> Written:
    """What a rollout of text says of its answers. Each is its row's tokens of the policy."""
    action, group, earned = rollout.action, rollout.context["group"], rollout.context[EARNED]
    assert isinstance(action, Tensor) and isinstance(group, Tensor) and isinstance(earned, Tensor)
    mask = rollout.loss_mask
    divergence = None
    if rollout.reference_log_prob is not None:
        divergence = _numbers(torch.where(mask, k1(rollout.log_prob, rollout.reference_log_prob), 0.0).sum(1))
    parts = rollout.context.get(PARTS, {})
    assert isinstance(parts, dict)
    prompts = _numbers(group)
    _, first = np.unique(prompts, return_index=True)  # one answer to each: those of one prompt may well be alike
    tokens, own = action.cpu(), mask.cpu()
    texts = [tokens[row][own[row]].tolist() for row in first.tolist()]
    return Written(
        _numbers(earned),  # what other shaping has taken from a reward is no part of it
        _numbers(mask.sum(1)),
        prompts,
        {name: _numbers(x) for name, x in parts.items() if isinstance(x, Tensor)},
        divergence,
        (distinct_n(texts, n),),
        1.0 - _numbers(rollout.terminated.any(1)),
    )


def _numbers(x: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return x.detach().double().cpu().numpy()


def _count(some: list[Written]) -> int:
    return sum(len(each.reward) for each in some)


def _to_dict(of: Written) -> dict[str, Any]:
    """Tensors and JSON, as a checkpoint keeps it."""
    return {
        "reward": torch.from_numpy(of.reward),
        "length": torch.from_numpy(of.length),
        "group": torch.from_numpy(of.group),
        "parts": {name: torch.from_numpy(x) for name, x in of.parts.items()},
        "divergence": None if of.divergence is None else torch.from_numpy(of.divergence),
        "distinct": list(of.distinct),
        "cut": torch.from_numpy(of.cut),
    }


def _from_dict(kept: dict[str, Any]) -> Written:
    return Written(
        kept["reward"].numpy(),
        kept["length"].numpy(),
        kept["group"].numpy(),
        {name: x.numpy() for name, x in kept["parts"].items()},
        None if kept["divergence"] is None else kept["divergence"].numpy(),
        tuple(kept["distinct"]),
        kept["cut"].numpy() if "cut" in kept else np.zeros(0),  # once it was not kept
    )
