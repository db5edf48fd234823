"""Steps that are recorded once. What records here is a trace of PyTorch's operations: like a CUDA graph it keeps their
shapes, the memory that they read and whatever Python decided, and does the same again."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.language.models import CONTEXT, EOS, GPT, LLAMA, model
from torchward.config import ConfigError
from torchward.language import generate as generation
from torchward.language.generate import Completions, generate
from torchward.nets import kv_cache, replayed
from torchward.nets.body import Body
from torchward.nets.kv_cache import Cache
from torchward.nets.positions import Relative
from torchward.nets.replayed import ReplayedSteps, Work
from torchward.nets.sampling import Sampling
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig

CONFIGS = [GPT, LLAMA, replace(GPT, positions=Relative(4, 8))]
ROWS = 6


class AsOnAGpu(Transformer):
    """Its steps take the way that they take on a GPU."""

    def step(self, tokens: Tensor, cache: Cache, span: int | None = None) -> tuple[Tensor, Cache]:
        hidden, cache = self.extend(tokens[:, None], cache, None, span)
        return hidden[:, 0], cache


class Traces:
    """What records, and counts."""

    def __init__(self) -> None:
        self.recorded, self.replayed = 0, 0

    def __call__(self, work: Work) -> tuple[Tensor, Callable[[], object]]:
        trace = make_fx(work)()
        self.recorded += 1
        made = torch.full_like(work(), torch.nan)

        def replay() -> None:
            self.replayed += 1
            made.copy_(trace())

        return made, replay


def body(config: TransformerConfig) -> AsOnAGpu:
    made = AsOnAGpu(config).eval()
    made.load_state_dict(model(config).body.state_dict())  # type: ignore[attr-defined]
    return made


def read(made: Body, lengths: Sequence[int]) -> Cache:
    """A cache whose rows have read texts of these lengths."""
    tokens = torch.randint(10, (len(lengths), max(lengths)), generator=Generator().manual_seed(0))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    _, cache = made.extend(tokens, made.cache(len(lengths)), mask, max(lengths))
    return cache


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_a_replayed_step_is_a_step(config: TransformerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many rows as there are and of fewer, over more slots than are filled; five steps by two recordings."""
    monkeypatch.setattr(replayed, "SLOTS", 8)
    made, traces = body(config), Traces()
    lengths = [3, 1, 6, 2, 4, 5]
    plain, recorded = read(made, lengths), read(made, lengths)
    steps = ReplayedSteps(made, recorded, traces)
    span = max(lengths)
    tokens = torch.randint(10, (5, ROWS), generator=Generator().manual_seed(1))
    for each in tokens:
        span += 1
        expected, plain = made.step(each, plain, span)
        found, recorded = steps(each, recorded, span)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(recorded.length, plain.length)
    assert (traces.recorded, traces.replayed) == (2, 5)
    few = [kv_cache.first(cache, 3) for cache in (plain, recorded)]
    expected, found = made.step(tokens[0, :3], few[0], span + 1)[0], steps(tokens[0, :3], few[1], span + 1)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert traces.recorded == 3


@torch.no_grad()
def test_what_is_learnt_behind_the_recording_counts() -> None:
    """The parameters are read where they lie."""
    made, lengths = body(GPT), [2, 3]
    recorded = read(made, lengths)
    steps = ReplayedSteps(made, recorded, Traces())
    token = torch.tensor([1, 2])
    before = steps(token, recorded, 4)[0].clone()
    for parameter in made.parameters():
        parameter.mul_(1.1)
    expected, _ = made.step(token, read(body(GPT), lengths), 4)
    found, _ = steps(token, recorded, 4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert (found - before).abs().max() > 1e-3


@pytest.mark.parametrize("sampling", [Sampling(0.8), Sampling(1.2, 6, 0.7)])
@pytest.mark.parametrize(("copies", "slots"), [(1, 128), (1, 3), (3, 7)])
def test_texts_are_the_same(sampling: Sampling, copies: int, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of several lengths, rows that leave and enter, texts that end and that are cut."""
    made: list[Traces] = []

    def records(device: torch.device) -> Traces:
        made.append(Traces())
        return made[-1]

    monkeypatch.setattr(generation, "cuda_graphs", records)
    monkeypatch.setattr(replayed, "SLOTS", 8)
    policy = model(LLAMA, sampling)
    policy.body = body(LLAMA)
    prompts = [[1], [2, 3, 4, 5, 6, 7, 8], [9, 1, 4], [3] * (CONTEXT - 2), [5, 6], [7, 7, 2, 1, 9], [8, 2]]

    def written() -> Completions:
        noise = policy.noise((8, len(prompts) * copies), Generator().manual_seed(0))
        return generate(policy, prompts, eos_id=EOS, max_new_tokens=8, num_generations=copies, noise=noise, slots=slots)

    expected = written()
    policy.cuda_graphs = True
    found = written()
    assert len(made) == 1 and made[0].replayed > made[0].recorded
    for name in ("tokens", "lengths", "ended"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(found.values, expected.values, rtol=0.0, atol=1e-5)


class OneDevice(TorchDispatchMode):
    """Fails where an operation reads or gives a tensor of another device: on a GPU such a copy waits, and no graph can
    hold it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)]
        assert all(x.device.type == "meta" for x in tensors), f"{func} of {[x.device for x in tensors]}"
        return made


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_a_step_never_waits_for_the_device(config: TransformerConfig) -> None:
    """Of tensors on a device without memory nobody can read a number, and there the way of a GPU is taken."""
    made = Transformer(config).to("meta").eval()
    tokens, cache = torch.zeros(ROWS, dtype=torch.int64, device="meta"), made.cache(ROWS)
    one_device: Any = OneDevice
    with one_device():
        hidden, after = made.step(tokens, cache, 5)
    assert hidden.shape == (ROWS, config.hidden_size) and after.length.device.type == "meta"
    with one_device(), pytest.raises((AssertionError, NotImplementedError, RuntimeError)):
        hidden.cpu()


def test_without_a_gpu_there_is_nothing_to_replay() -> None:
    policy = model()
    policy.replay_steps(False)
    with pytest.raises(ConfigError, match="expected device cuda for cuda_graphs, got cpu: leave cuda_graphs out"):
        policy.replay_steps(True)
    assert not policy.cuda_graphs
