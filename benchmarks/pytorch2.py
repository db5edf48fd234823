"""What PyTorch 2 offers, on and off on one small step: the times, and what each gains here.

    python -m benchmarks.pytorch2                     2 rounds, each a process of its own
    python -m benchmarks.pytorch2 --only sdpa gelu    some of them, printed and not kept

Every case is two functions that compute the same, with a feature and without (bfloat16 but nearly, and PyTorch's AdamW
and Adam with their own decays). Blocks of the two take turns, and each
pair begins with the other one: a gain is the median over the pairs of the time without over the time with. Times are
those of the processor, so that what others do on the machine counts little; where the number of threads is what
differs, and for the first call of what is compiled, they are those of the clock. One thread everywhere else. What
`torch.compile` makes is made anew in each round, so that its first call is in no cache.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.common import MISSING, Results, Work, child, measure, parser

if TYPE_CHECKING:
    from torch import Tensor

    from torchward.algorithms import ppo
    from torchward.data.rollout import Batch

NAME = "pytorch2"
SETTING: dict[str, Any] = {"pairs": 25, "block": 0.02, "least": 3, "seconds": 3.0}
"""Pairs of blocks, about how many seconds a block takes, and how few pairs there may be of a step that takes longer,
so that all of its pairs take no more than so many seconds."""
Step = Callable[[], object]


class Case(NamedTuple):
    """Two ways to the same."""

    off: Step
    on: Step
    compiles: bool = False
    """Whether the first call of the second one compiles."""
    threads: bool = False
    """Whether the second one has another number of threads."""


# The cases, as they stand in the table: a key, what is done, without, with


def sdpa() -> Case:
    """attention of 16 x 128 tokens, 4 heads of 32, and its gradient | written out | scaled_dot_product_attention"""
    import torch
    from torch.nn import functional as F

    inputs, forbidden = heads(16, 128)

    def off() -> None:
        query, key, value = (each.detach().requires_grad_() for each in inputs)
        scores = (query @ key.mT) * 32**-0.5
        (scores.masked_fill(forbidden, torch.finfo(torch.float32).min).softmax(-1) @ value).sum().backward()

    def on() -> None:
        query, key, value = (each.detach().requires_grad_() for each in inputs)
        F.scaled_dot_product_attention(query, key, value, is_causal=True).sum().backward()

    return Case(off, on)


def sdpa_causal() -> Case:
    """the same | its mask as a tensor | is_causal=True"""
    import torch
    from torch.nn import functional as F

    inputs, forbidden = heads(16, 128)
    bias = torch.zeros(1, 1, 128, 128).masked_fill(forbidden, torch.finfo(torch.float32).min)

    def with_mask(bias: "Tensor | None") -> None:
        query, key, value = (each.detach().requires_grad_() for each in inputs)
        F.scaled_dot_product_attention(query, key, value, bias, is_causal=bias is None).sum().backward()

    return Case(partial(with_mask, bias), partial(with_mask, None))


def sdpa_decoding() -> Case:
    """one token of 64 rows to a cache of 80, 4 heads of 32 | two products | scaled_dot_product_attention"""
    import torch

    from torchward.nets.attention import attend, attend_once

    keys, values, query = torch.randn(64, 4, 96, 32), torch.randn(64, 4, 96, 32), torch.randn(64, 4, 32)
    bias = torch.zeros(64 * 4, 1, 80)
    wide = bias.view(64, 4, 1, 80)
    key, value = keys[:, :, :80], values[:, :, :80]

    @torch.no_grad()
    def off() -> None:
        attend_once(query, keys, values, bias, 32**-0.5)

    @torch.no_grad()
    def on() -> None:
        attend(query.unsqueeze(2), key, value, wide, False, 32**-0.5)

    return Case(off, on)


def sdpa_products() -> Case:
    """attention of 16 x 128 tokens, and its gradient | scaled_dot_product_attention | products, in blocks"""
    return by_products(16, 128)


def sdpa_products_long() -> Case:
    """the same of 4 x 512 tokens | scaled_dot_product_attention | products, in blocks"""
    return by_products(4, 512)


def sdpa_bf16() -> Case:
    """the same of 16 x 128 tokens in bfloat16 | scaled_dot_product_attention | products, in blocks"""
    return by_products(16, 128, bf16=True)


def sdpa_bf16_long() -> Case:
    """the same of 4 x 512 tokens in bfloat16 | scaled_dot_product_attention | products, in blocks"""
    return by_products(4, 512, bf16=True)


def gelu() -> Case:
    """GELU of 2048 x 512 | PyTorch's own | by a sigmoid, in place"""
    import torch
    from torch.nn import functional as F

    from torchward.nets.gelu import gelu_tanh

    x = torch.randn(2048, 512)
    return Case(lambda: F.gelu(x, approximate="tanh"), lambda: gelu_tanh(x))


def gelu_gradient() -> Case:
    """the same and its gradient | PyTorch's own | an autograd.Function"""
    import torch
    from torch.nn import functional as F

    from torchward.nets.gelu import gelu_tanh

    x, upstream = torch.randn(2048, 512, requires_grad=True), torch.randn(2048, 512)
    return Case(
        lambda: torch.autograd.grad(F.gelu(x, approximate="tanh"), x, upstream),
        lambda: torch.autograd.grad(gelu_tanh(x), x, upstream),
    )


def scores() -> Case:
    """log-probability and entropy of 2048 tokens among 512, and the gradient | by autograd | an autograd.Function"""
    import torch
    from torch import nn

    from torchward.nets.token_scores import token_scores

    head: Any = nn.Linear(128, 512, bias=False)
    hidden = torch.randn(2048, 128, requires_grad=True)
    target = torch.randint(512, (2048,))

    def off() -> None:
        log_probs = head(hidden).log_softmax(1)
        entropy = -(log_probs.exp() * log_probs).sum(1)
        (log_probs.gather(1, target[:, None]).squeeze(1) + entropy).sum().backward()

    def on() -> None:
        found = token_scores(hidden, head, target)
        (found.log_prob + found.entropy).sum().backward()

    return Case(off, on)


def optimisers(large: bool) -> dict[str, Step]:
    """A step of each optimiser, on the same gradients, on the 4 layers of 128 or on PPO's two networks of 64-64."""
    import torch

    from torchward.nets.adam import Adam
    from torchward.nets.adamw import AdamW, decayed

    if large:
        own = list(transformer(4).parameters())
    else:
        own = list(control().parameters())

    def copied() -> list["Tensor"]:
        made: list[Tensor] = [torch.nn.Parameter(p.detach().clone()) for p in own]
        for p in made:
            p.grad = torch.randn_like(p)
        return made

    mine = copied()
    ours: Step = AdamW(decayed(mine, 0.01), 1e-3).step if large else Adam(mine, 1e-3).step  # type: ignore[arg-type]
    return {
        "loop": torch.optim.AdamW(copied(), 1e-3, foreach=False, fused=False).step,
        "foreach": torch.optim.AdamW(copied(), 1e-3, foreach=True).step,
        "fused": torch.optim.AdamW(copied(), 1e-3, fused=True).step,
        "ours": ours,
    }


def adam_foreach() -> Case:
    """a step of AdamW, two networks of 64-64 (8 tensors) | a loop | foreach=True"""
    made = optimisers(False)
    return Case(made["loop"], made["foreach"])


def adam_fused() -> Case:
    """the same | a loop | fused=True"""
    made = optimisers(False)
    return Case(made["loop"], made["fused"])


def adam_ours() -> Case:
    """the same | fused=True | its kernel, without torch.optim.Optimizer"""
    made = optimisers(False)
    return Case(made["fused"], made["ours"])


def adam_large_foreach() -> Case:
    """a step of AdamW, 4 layers of 128 (54 tensors, 0.9 million numbers) | a loop | foreach=True"""
    made = optimisers(True)
    return Case(made["loop"], made["foreach"])


def adam_large_fused() -> Case:
    """the same | a loop | fused=True"""
    made = optimisers(True)
    return Case(made["loop"], made["fused"])


def adam_large_ours() -> Case:
    """the same | fused=True | its kernel, without torch.optim.Optimizer"""
    made = optimisers(True)
    return Case(made["fused"], made["ours"])


def followers() -> dict[str, Step]:
    """SAC's twin critics of 256-256 followed by their target, in three ways."""
    import torch

    from torchward.nets.flat import Flat
    from torchward.nets.perceptrons import Perceptrons
    from torchward.nets.target import follow

    networks = [Perceptrons(2, 23, (256, 256), 1).requires_grad_(False) for _ in range(4)]
    source, target = ([*network.parameters()] for network in networks[:2])
    one, other = (Flat(network.parameters()).value for network in networks[2:])

    def loop() -> None:
        for each, its in zip(target, source, strict=True):
            each.lerp_(its, 0.005)

    return {
        "loop": torch.no_grad()(loop),
        "foreach": lambda: follow([*target], [*source], 0.005),
        "flat": lambda: follow([other], [one], 0.005),
    }


def follow_foreach() -> Case:
    """a target follows twin critics of 256-256 | a loop | _foreach_lerp_"""
    made = followers()
    return Case(made["loop"], made["foreach"])


def follow_flat() -> Case:
    """the same | _foreach_lerp_ | one vector, of which the parameters are views"""
    made = followers()
    return Case(made["foreach"], made["flat"])


def acting(*modes: Any) -> Case:
    """Acting for 8 rows of 4 numbers in two modes."""
    import torch

    policy, observation = control(), torch.randn(8, 4)
    noise = policy.noise((8,), torch.Generator())

    def act(mode: Any) -> None:
        with mode():
            for _ in range(20):
                policy.act(observation, (), noise)

    return Case(partial(act, modes[0]), partial(act, modes[1]))


def no_grad() -> Case:
    """acting 20 times for 8 x 4 numbers, 64-64 | autograd records | no_grad"""
    import torch

    return acting(torch.enable_grad, torch.no_grad)


def inference_mode() -> Case:
    """the same | no_grad | inference_mode"""
    import torch

    return acting(torch.no_grad, torch.inference_mode)


def threads_small() -> Case:
    """PPO's update on a minibatch of 256, 64-64 | 1 thread | 2 threads"""
    learner, batch = small()
    return in_threads(lambda: learner.step(batch))


def threads_large() -> Case:
    """pretraining's update, 1 layer of 128, 16 x 128 tokens | 1 thread | 2 threads"""
    return in_threads(large())


def checkpointing() -> Case:
    """the same | activations kept | computed again"""
    return Case(large(), large(gradient_checkpointing=True))


def bf16() -> Case:
    """the same | float32 | bfloat16 by autocast"""
    return Case(large(), large(bf16=True))


def compile_small() -> Case:
    """PPO's update on a minibatch of 256, 64-64 | as it stands | its policy by torch.compile"""
    import torch

    (one, batch), (other, _) = small(), small()
    other.policy.evaluate_actions = torch.compile(other.policy.evaluate_actions)  # type: ignore[method-assign]
    return Case(lambda: one.step(batch), lambda: other.step(batch), compiles=True)


def compile_large() -> Case:
    """pretraining's update, 1 layer of 128, 16 x 128 tokens | as it stands | its transformer by torch.compile"""
    return Case(large(), large(compiled=True), compiles=True)


CASES: tuple[Callable[[], Case], ...] = (
    sdpa, sdpa_causal, sdpa_decoding, sdpa_products, sdpa_products_long, sdpa_bf16, sdpa_bf16_long, gelu, gelu_gradient,
    scores, adam_foreach, adam_fused, adam_ours,
    adam_large_foreach, adam_large_fused, adam_large_ours, follow_foreach, follow_flat, no_grad, inference_mode,
    threads_small, threads_large, checkpointing, bf16, compile_small, compile_large,
)  # fmt: skip


# What they are made of


def by_products(batch: int, length: int, bf16: bool = False) -> Case:
    """Attention in which nobody looks ahead, and its gradient: PyTorch's, and ours. Heads lie as they come out
    of a layer's one product, and the gradient as it comes back."""
    import torch
    from torch.nn import functional as F

    from torchward.nets.product_attention import attend_by_products

    dtype = torch.bfloat16 if bf16 else torch.float32
    mixed = torch.randn(batch, length, 3, 4, 32, dtype=dtype).permute(2, 0, 3, 1, 4)
    upstream = torch.randn(batch, length, 4, 32, dtype=dtype).transpose(1, 2)

    def work(mixture: "Callable[..., Tensor]") -> None:
        leaves = [each.detach().requires_grad_() for each in mixed]
        torch.autograd.grad(mixture(*leaves), leaves, upstream)

    def off(query: "Tensor", key: "Tensor", value: "Tensor") -> "Tensor":
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    def on(query: "Tensor", key: "Tensor", value: "Tensor") -> "Tensor":
        return attend_by_products(query, key, value, None, True, 32**-0.5)

    return Case(partial(work, off), partial(work, on))


def heads(batch: int, length: int) -> "tuple[list[Tensor], Tensor]":
    """Queries, keys and values of 4 heads of 32; and where it is forbidden to look."""
    import torch

    forbidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    return [torch.randn(batch, 4, length, 32) for _ in range(3)], forbidden


def control() -> Any:
    """PPO's policy for CartPole: two networks of 64-64."""
    from torchward.nets.actor_critic import ActorCritic, Network
    from torchward.nets.spaces import Box, Discrete

    return ActorCritic(Box((4,)), Discrete(2), Network())


def small() -> "tuple[ppo.Learner, Batch]":
    """PPO's learner, and a minibatch of 256 steps."""
    import torch

    from torchward.algorithms import ppo
    from torchward.data.rollout import Batch

    torch.manual_seed(0)
    one, no = torch.randn(256, 1), torch.zeros(256, 1, dtype=torch.bool)
    action = torch.randint(2, (256, 1))
    batch = Batch(torch.randn(256, 1, 4), action, one * 0.0 - 0.7, one, one, no, ~no, one)
    return ppo.Learner(control(), ppo.Config()), batch


def transformer(layers: int) -> Any:
    """A GPT of 128 units and 512 words."""
    from dataclasses import replace

    from torchward.nets.transformer import Transformer
    from torchward.nets.transformer_config import gpt2

    return Transformer(replace(gpt2(512, 128, layers, 4, 256), value_head=True))


def large(layers: int = 1, compiled: bool = False, **changes: Any) -> Step:
    """An update of pretraining on 16 x 128 tokens."""
    import torch

    from torchward.algorithms import pretrain
    from torchward.data.packing import Rows
    from torchward.nets.adamw import decayed
    from torchward.nets.language_model import LanguageModel

    torch.manual_seed(0)
    policy, config = LanguageModel(transformer(layers), {}), pretrain.Config(**changes)
    groups = decayed(policy.parameters(), config.weight_decay)
    learner = pretrain.Learner(policy, config, torch.ones(512, dtype=torch.int64), groups)
    if compiled:
        policy.body.forward = torch.compile(policy.body.forward)  # type: ignore[method-assign]
    tokens = torch.randint(512, (16, 129))
    places, mask = torch.arange(128).expand(16, 128), torch.ones(16, 128, dtype=torch.bool)
    rows = Rows(tokens[:, :-1], tokens[:, 1:], mask, places, torch.zeros(16, 128, dtype=torch.int64))
    return lambda: learner.update([rows])


def in_threads(step: Step) -> Case:
    """With one thread and with two."""
    import torch

    def work(threads: int) -> None:
        torch.set_num_threads(threads)
        step()
        torch.set_num_threads(1)

    return Case(partial(work, 1), partial(work, 2), threads=True)


# Measuring


def timed(step: Step, times: int, clock: Callable[[], float]) -> float:
    """Seconds of one, on the average of so many."""
    start = clock()
    for _ in range(times):
        step()
    return (clock() - start) / times


def compared(case: Case, setting: dict[str, Any]) -> dict[str, Any]:
    """Medians of the seconds with and without, and of the ratio of neighbours with its quartiles."""
    clock = time.perf_counter if case.threads else time.process_time
    first = timed(case.on, 1, time.perf_counter)
    timed(case.off, 1, clock)
    once = [timed(case.off, 1, clock), timed(case.on, 1, clock)]
    times = max(1, round(setting["block"] / max(once)))
    count = min(setting["pairs"], max(setting["least"], int(setting["seconds"] / (times * sum(once)))))
    pairs = []
    for number in range(count):
        order = (case.off, case.on) if number % 2 == 0 else (case.on, case.off)
        took = [timed(step, times, clock) for step in order]
        pairs.append(took if number % 2 == 0 else took[::-1])
    low, middle, high = statistics.quantiles([off / on for off, on in pairs], n=4)
    return {
        "off": round(statistics.median(off for off, _ in pairs), 7),
        "on": round(statistics.median(on for _, on in pairs), 7),
        "gain": round(middle, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "pairs": count,
        **({"first": round(first, 2)} if case.compiles else {}),
    }


def one_round(names: list[str], setting: dict[str, Any]) -> dict[str, Any]:
    """The cases of these names, or all, in this process."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = place  # what was compiled before does not count
        import torch

        torch.set_num_threads(1)
        found = {}
        for make in CASES:
            if not names or make.__name__ in names:
                torch.manual_seed(0)
                found[make.__name__] = compared(make(), setting)
        return {"cases": found}


def lines(directory: Path | None = None) -> Iterator[str]:
    """The chapter's table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    there = [one for number in range(10) if (one := results.read(key(number), SETTING)) is not None]
    yield "| what | without | with | ms | ms | gain |"
    yield "|---|---|---|---:|---:|---|"
    for make in CASES:
        what, off, on = (part.strip() for part in (make.__doc__ or "").split("|"))
        if not there:
            yield f"| {what} | {off} | {on} | | | {MISSING} |"
            continue
        mine = [one["cases"][make.__name__] for one in there]
        times = (milliseconds(statistics.median(one[side] for one in mine)) for side in ("off", "on"))
        gain = "; ".join(f"{one['gain']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for one in mine)
        first = f"; first call {statistics.median(one['first'] for one in mine):.0f} s" if "first" in mine[0] else ""
        yield f"| {what} | {off} | {on} | {' | '.join(times)} | {gain}{first} |"


def milliseconds(seconds: float) -> str:
    """Three digits of them, or all before the point."""
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def key(number: int) -> str:
    return f"round-{number}"


def summary(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {one['gain']:.2f}" for name, one in result["cases"].items())


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--only", nargs="*", choices=[make.__name__ for make in CASES], default=[])
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one or given.only:
        print(json.dumps(one_round(given.only, SETTING), indent=None if given.one else 1))
        return
    if not given.table:
        results = Results(NAME, given.results)
        if given.fresh:
            results.clear()
        command = [sys.executable, "-m", f"benchmarks.{NAME}", "--one"]
        works = [
            Work(key(number), copy.copy(SETTING), partial(child, command, 2), summary) for number in range(given.rounds)
        ]
        measure(results, works)
    print("\n".join(lines(given.results)))


if __name__ == "__main__":
    main()
