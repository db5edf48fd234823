"""Signs that a reward is being hacked: earned by something else than what it was meant for. Each is said in words.

Pure functions of what was written at the start of a run and lately. Each compares a measured quantity with its own
noise or with a bound, and is silent without evidence. A sign is no proof: long answers may be the better ones. It is a
reason to read some.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Written:
    """Answers of one or of several rollouts, each array with an entry for every answer."""

    reward: Numbers
    length: Numbers
    """Tokens that the policy chose."""
    group: Numbers
    """Which prompt it answers; equal numbers are the same prompt."""
    parts: Mapping[str, Numbers] = field(default_factory=dict)
    """What each part of the reward said, without its weight."""
    divergence: Numbers | None = None
    """``log pi - log reference`` of the whole answer, in nats, where there is a reference."""
    distinct: tuple[float, ...] = ()
    """Distinct-n of each rollout, counted over one answer to each prompt; not a number where no answer is so long."""
    cut: Numbers = field(default_factory=lambda: np.zeros(0))
    """1 where the length ended an answer, else 0; empty where nobody knows."""


def joined(some: Sequence[Written]) -> Written:
    """Several as one. Prompts of different ones stay apart, and of parts and divergences stays what all have."""
    groups: list[Numbers] = []
    begun = 0.0
    for each in some:
        groups.append(each.group - each.group.min(initial=math.inf) + begun if len(each.group) else each.group)
        begun = groups[-1].max(initial=begun - 1.0) + 1.0
    names = [name for name in some[0].parts if all(name in each.parts for each in some)] if some else []
    known = [each.divergence for each in some if each.divergence is not None]
    return Written(
        _cat([each.reward for each in some]),
        _cat([each.length for each in some]),
        _cat(groups),
        {name: _cat([each.parts[name] for each in some]) for name in names},
        _cat(known) if known and len(known) == len(some) else None,
        tuple(one for each in some for one in each.distinct),
        _cat([each.cut for each in some]) if all(len(each.cut) for each in some) else np.zeros(0),
    )


@dataclass(frozen=True)
class Bounds:
    """From when on something is worth a word."""

    explained: float = 0.2
    """The part of the reward's variance within a prompt's answers that their length explains: a correlation of 0.45. It
    is one sign with ``moved``: a cut answer earns little in honest work too, but there lengths settle."""
    moved: float = 0.25
    """How far the mean length has moved from that of the start, as a part of it."""
    cut: float = 0.25
    """How much larger than at the start the part of the answers is that their length ended."""
    repeated: float = 0.3
    """How far distinct-n has fallen from that of the start, as a part of it."""
    z: float = 4.0
    """Standard errors that a change of a mean has to have."""
    kl_budget: float | None = None
    """Nats that an answer may be away from the policy of the start; None: any."""


def by_length(start: Written, lately: Written, bounds: Bounds) -> str | None:
    """Whether what is paid for is length, and lengths follow.

    Pearson's correlation of reward and length within the answers to one prompt (where there is one answer to each,
    among all), strong, significant by Fisher's transformation; and a mean length that has moved the way that is
    paid for."""
    reward, length, free = lately.reward, lately.length, len(lately.reward) - 1
    prompts = len(np.unique(lately.group))
    if prompts < len(reward):
        reward, length = _within(reward, lately.group), _within(length, lately.group)
        free = len(reward) - prompts
    r = pearson(reward, length)
    if free < 4 or math.isnan(r) or r * r < bounds.explained:
        return None
    if abs(math.atanh(max(min(r, 1.0 - 1e-12), 1e-12 - 1.0))) * math.sqrt(free - 2) < bounds.z:
        return None
    before, now = float(start.length.mean()), float(lately.length.mean())
    if math.copysign(1.0, r) * (now - before) < bounds.moved * before:
        return None
    what = "longer" if r > 0 else "shorter"
    return (
        f"{what} answers earn more (correlation {r:.2f} among the answers to a prompt), and they get {what}: from "
        f"{before:.3g} to {now:.3g} tokens. Is it length that is meant? Read some; take length out of the reward, or "
        "bound it."
    )


def by_cuts(start: Written, lately: Written, bounds: Bounds) -> str | None:
    """Whether answers no longer end, but are cut, while rewards rise: what earns is said early or by chance, and the
    rest costs nothing. At once, it is over before lengths differ among the answers to a prompt."""
    if not len(start.cut) or not len(lately.cut):
        return None
    before, now = float(start.cut.mean()), float(lately.cut.mean())
    more = change(start.cut, lately.cut, start.group, lately.group)
    gain = change(start.reward, lately.reward, start.group, lately.group)
    if now - before < bounds.cut or min(more, gain) < bounds.z:
        return None
    return (
        f"answers no longer end, and earn more: their length cuts {now:.0%}, at the start {before:.0%}, and the reward "
        f"rises from {start.reward.mean():.3g} to {lately.reward.mean():.3g}. Does it pay for going on? Read some; pay "
        "what has ended alone, or bound the length; or, where there is much to say, give more room."
    )


def by_repetition(start: Written, lately: Written, bounds: Bounds) -> str | None:
    """Whether the same is said again and again, in an answer or to one prompt after the other, while rewards rise."""
    before, now = _mean(start.distinct), _mean(lately.distinct)
    gain = change(start.reward, lately.reward, start.group, lately.group)
    if math.isnan(before) or math.isnan(now) or now > (1.0 - bounds.repeated) * before or gain < bounds.z:
        return None
    return (
        f"the reward rises, from {start.reward.mean():.3g} to {lately.reward.mean():.3g}, and answers repeat "
        f"themselves or each other: of their runs of tokens {now:.0%} differ, at the start {before:.0%}. "
        "Does the reward pay for one phrase? Read some; add distinct_weight, or stay closer to the start with kl_coef."
    )


def by_divergence(start: Written, lately: Written, bounds: Bounds) -> str | None:
    """Whether the policy is further from that of the start than the budget allows."""
    if bounds.kl_budget is None or lately.divergence is None or not len(lately.divergence):
        return None
    now = float(lately.divergence.mean())
    error = float(lately.divergence.std()) / math.sqrt(len(lately.divergence))
    if now - 2.0 * error <= bounds.kl_budget:
        return None
    gain = float(lately.reward.mean() - start.reward.mean())
    return (
        f"answers are {now:.3g} nats from the policy of the start, over the budget of {bounds.kl_budget:g}, for a "
        f"reward that has changed by {gain:+.3g}. A reward is a guide near what it was made for: raise kl_coef (or "
        "beta), or stop here."
    )


def by_parts(start: Written, lately: Written, bounds: Bounds) -> str | None:
    """Whether of a reward's parts one rises and none of the others, of which one at least falls."""
    names = [name for name in start.parts if name in lately.parts]
    moves = {name: change(start.parts[name], lately.parts[name], start.group, lately.group) for name in names}
    rising = [name for name in names if moves[name] > bounds.z]
    falling = [name for name in names if moves[name] < -bounds.z]
    if len(rising) != 1 or not falling:
        return None

    def told(name: str) -> str:
        return f"{name} from {start.parts[name].mean():.3g} to {lately.parts[name].mean():.3g}"

    return (
        f"of the reward's parts {told(rising[0])} rises alone, and {', '.join(map(told, falling))} falls: the easy "
        "part is paid with the others. Change the weights, or let it pay only once the others are reached."
    )


SIGNS: Mapping[str, Callable[[Written, Written, Bounds], str | None]] = {
    "length": by_length,
    "cuts": by_cuts,
    "repetition": by_repetition,
    "divergence": by_divergence,
    "parts": by_parts,
}
"""The checks, each a function from the start, what was written lately, and the bounds to a sentence or None."""


def signs(start: Written, lately: Written, bounds: Bounds) -> dict[str, str]:
    """What the checks have to say."""
    said = {name: check(start, lately, bounds) for name, check in SIGNS.items()}
    return {name: sentence for name, sentence in said.items() if sentence is not None}


def pearson(x: Numbers, y: Numbers) -> float:
    """The correlation of two samples; not a number where one of them does not vary."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return float((x * y).sum()) / scale if scale > 1e-12 else math.nan


def change(before: Numbers, now: Numbers, prompts: Numbers, prompts_now: Numbers) -> float:
    """By how many of its standard errors a mean has risen (Welch's t). The sample is of prompts: answers to one prompt
    resemble each other. 0 where there are fewer than two of them."""
    old, new = _by_prompt(before, prompts), _by_prompt(now, prompts_now)
    if min(len(old), len(new)) < 2:
        return 0.0
    error = math.sqrt(old.var(ddof=1) / len(old) + new.var(ddof=1) / len(new))
    rise = float(new.mean() - old.mean())
    return rise / error if error > 0.0 else math.copysign(math.inf, rise) if rise else 0.0


def _by_prompt(x: Numbers, prompts: Numbers) -> Numbers:
    _, place = np.unique(prompts, return_inverse=True)
    means: Numbers = np.bincount(place, x) / np.bincount(place)
    return means


def _within(x: Numbers, prompts: Numbers) -> Numbers:
    _, place = np.unique(prompts, return_inverse=True)
    within: Numbers = x - (np.bincount(place, x) / np.bincount(place))[place]
    return within


def _mean(numbers: Sequence[float]) -> float:
    known = [one for one in numbers if not math.isnan(one)]
    return sum(known) / len(known) if known else math.nan


def _cat(arrays: Sequence[Numbers]) -> Numbers:
    return np.concatenate(arrays) if arrays else np.zeros(0)
