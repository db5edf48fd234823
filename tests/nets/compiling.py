"""What the compiler makes of layers, as JSON: run by itself, for it cannot look into functions that are checked.

What compiles takes the captured operations as they are, and counts the graphs: their code is not what is tested here.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch._dynamo.backends.common import aot_autograd

from tests.language.models import GPT, LLAMA, WORDS, model
from torchward.algorithms.pretrain import Config, Learner
from torchward.data.packing import Rows
from torchward.nets.adamw import decayed
from torchward.nets.body import compile_layers
from torchward.nets.language_model import LanguageModel
from torchward.nets.transformer_config import TransformerConfig

LENGTHS = (5, 9, 12)


class Graphs:
    """Counts what it is given, and computes it as it is."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


def text(length: int, rows: int = 4) -> Tensor:
    return torch.randint(WORDS, (rows, length), generator=Generator().manual_seed(length))


def learnt(policy: LanguageModel, tokens: Tensor) -> Tensor:
    """Hidden states, and the gradients of all parameters."""
    policy.zero_grad()
    hidden = policy.body.forward(tokens)
    hidden.square().sum().backward()
    parts = [hidden.detach(), *(x.grad for x in policy.parameters() if x.grad is not None)]
    return torch.cat([part.flatten() for part in parts])


def updated(compiled: bool) -> Tensor:
    """The parameters behind a step of pretraining."""
    policy = model(LLAMA)
    tokens = text(13)
    rows = Rows(
        tokens[:, :-1], tokens[:, 1:], torch.ones(4, 12, dtype=torch.bool), torch.arange(12).expand(4, -1),
        torch.zeros(4, 12, dtype=torch.int64),
    )  # fmt: skip
    config = Config(learning_rate=1e-2, torch_compile=compiled)
    Learner(policy, config, torch.ones(WORDS), decayed(policy.parameters(), 0.0)).update([rows])
    return torch.cat([x.detach().flatten() for x in policy.parameters()])


def compared(config: TransformerConfig, same_shapes: bool, graphs: Graphs) -> dict[str, Any]:
    torch.compiler.reset()
    graphs.count = 0
    policy = model(config)
    plain = deepcopy(policy)
    compile_layers(policy.body, same_shapes)
    worst = 0.0
    for length in LENGTHS:
        wanted, found = (learnt(each, text(length)) for each in (plain, policy))
        worst = max(worst, float((found - wanted).abs().max() / wanted.abs().max()))
    return {"worst": worst, "graphs": graphs.count}


def main() -> None:
    graphs = Graphs()
    backend = aot_autograd(fw_compiler=graphs, bw_compiler=lambda graph, _: graph.forward)
    torch.compile = partial(torch.compile, backend=backend, fullgraph=True)
    found: dict[str, Any] = {
        f"{name} {same}": compared(config, same, graphs)
        for name, config in (("gpt", GPT), ("llama", LLAMA))
        for same in (False, True)
    }
    # What is written is not compiled; nor is a copy, such as a reference.
    torch.compiler.reset()
    graphs.count = 0
    policy = model()
    compile_layers(policy.body, same_shapes=False)
    with torch.no_grad():
        _, cache = policy.read(text(3), None, 8)
        policy.body.step(text(3)[:, 0], cache)
        deepcopy(policy).body.forward(text(3))
        found["written"] = graphs.count
        policy.body.forward(text(3))
        found["read"] = graphs.count
    torch.compiler.reset()
    graphs.count = 0
    wanted = updated(False)
    found["plain"] = graphs.count
    found["update"] = {"worst": float((updated(True) - wanted).abs().max()), "graphs": graphs.count}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
