"""`torchward export`: a run's policy as one ONNX file, which runs without torchward; a language model's as a directory
that transformers loads.

The file takes the raw observation and gives the environment's action: preprocessing, normaliser, network and action
scaling are in it. Its actions are the most likely ones.
"""

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torchward.cli import UsageError, arguments, positional

TOLERANCE = 1e-4
ROWS = 64


@dataclass(frozen=True)
class Export:
    """Write the policy of a run as one ONNX file: observation (and recurrent state) in, action (and state) out. A
    language model's becomes a directory that transformers loads, its adapters merged into it."""

    out: str | None = None
    """The file, or the directory; without it, policy.onnx or transformers in the run."""
    which: Literal["best", "last"] = "best"
    """The policy of the best evaluation in training (where there was none: of the end), or that of the end."""


class ExportError(RuntimeError):
    """The file does not act as the policy does."""


def run(args: Sequence[str]) -> int:
    """The command."""
    words, rest = positional(args, ("RUN",), "export")
    options: Export = arguments.read_one(Export(), rest, "torchward export RUN")
    from torchward.nets import saving
    from torchward.nets.language_model import LanguageModel
    from torchward.nets.masked_language_model import MaskedLanguageModel
    from torchward.nets.reward_model import RewardModel
    from torchward.nets.text_classifier import TextClassifier

    path = Path(words[0])
    policy: Any = saving.load(path, which="last" if options.which == "last" else None)
    if isinstance(policy, TextClassifier):
        raise UsageError(f"{path} has a classifier of texts: torchward.language.classifying predicts by it, in Python")
    if isinstance(policy, MaskedLanguageModel):
        raise UsageError(
            f"{path} has an encoder: torchward.language.hub.save writes it for transformers, export does not"
        )
    if isinstance(policy, RewardModel):
        raise UsageError(
            f"{path} has a reward model, which export does not write: torchward.load reads it, in Python, and "
            f"`torchward train ... --reward-model {path}` learns from it"
        )
    if isinstance(policy, LanguageModel):
        from torchward.language import pretrained
        from torchward.language.hub_tokenizer import HubTokenizer
        from torchward.language.tokenizer import described

        place = Path(options.out) if options.out is not None else path / "transformers"
        pretrained.save(policy, place)
        written = isinstance(described(policy.vocabulary, str(path)), HubTokenizer)
        more = "" if written else f"; its tokenizer is torchward's own, which transformers has not: {path} keeps it"
        print(f"{place}: a {type(policy.body).__name__} as transformers loads it, without its value head{more}")
        return 0
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"an export needs {' and '.join(missing)}: pip install 'torchward[export]'")
    out = Path(options.out) if options.out is not None else path / "policy.onnx"
    if out.is_dir():
        raise UsageError(f"expected a file to write at {out}, got a directory: give {out / 'policy.onnx'}")
    beside = out.with_name(f"{out.stem}.tmp{out.suffix}")
    try:
        inputs, outputs = export(policy, beside)
        if importlib.util.find_spec("onnxruntime") is None:
            checked = "not checked, because onnxruntime is not installed"
        else:
            checked = f"checked against the policy on {compare(policy, beside)} observations"
        os.replace(beside, out)
    except ExportError as error:
        raise ExportError(f"{error}: nothing is written to {out}") from error
    finally:
        beside.unlink(missing_ok=True)
    print(f"{out}: {', '.join(inputs)} -> {', '.join(outputs)} ({checked})")
    return 0


def export(policy: Any, out: Path) -> tuple[list[str], list[str]]:
    """Write `policy` to `out`; return the names of what goes in and of what comes out.

    An entry `x` of a Dict observation is called `observation.x`, the first part of a Tuple `observation.0`, and so with
    actions. The parts of a recurrent state are `state.0`, ...; they are zero before the first step of an episode, and
    after each step what `next_state.0`, ... say. The first axis of all is the batch, of any size."""
    import torch

    policy = policy.cpu().eval()
    module, observation, state = _module(policy), sample(policy.observation_space, 2, 0), policy.initial_state(2)
    given = [*leaves("observation", observation), *leaves("state", state)]
    with torch.no_grad():
        answer = module(*(tensor for _, tensor in given))
    inputs = [name for name, _ in given]
    outputs = [name for name, _ in leaves("action", module.action)] + [f"next_{n}" for n, _ in leaves("state", state)]
    assert len(answer) == len(outputs)
    out.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch is going to change within itself
            program = torch.onnx.export(
                module,
                tuple(tensor for _, tensor in given),
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in given),),
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(before)
    assert program is not None
    program.model.metadata_props.update(_description(policy))
    program.save(str(out), external_data=False)
    return inputs, outputs


def compare(policy: Any, path: Path) -> int:
    """Hold the file against the policy, on batches of one and of many random observations, over several steps where
    there is a state; return the number of observations.

    Raises ExportError where an action differs. Of choices one in a hundred may: two that are equally good to within
    rounding."""
    import numpy as np
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    count, wrong, choices = 0, 0, 0
    for rows, seed in ((1, 1), (ROWS, 2)):
        state = policy.initial_state(rows)
        for step in range(3 if policy.history else 1):
            observation = sample(policy.observation_space, rows, 10 * seed + step)
            given = dict([*leaves("observation", observation), *leaves("state", state)])
            with torch.no_grad():
                *_, state = answer = _act(policy, observation, state)
            expected = [tensor for _, tensor in (*leaves("action", answer[0]), *leaves("state", state))]
            got = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
            for ours, theirs in zip(expected, got, strict=True):
                if ours.dtype.is_floating_point:
                    if not np.allclose(ours.numpy(), theirs, rtol=TOLERANCE, atol=TOLERANCE):
                        most = np.abs(ours.numpy() - theirs).max()
                        raise ExportError(f"what was exported differs from the policy by {most:g}")
                else:
                    wrong += int((ours.numpy() != theirs).sum())
                    choices += ours.numel()
            count += rows
    if wrong > 0.01 * choices:
        raise ExportError(f"what was exported chooses otherwise than the policy in {wrong} of {choices} choices")
    return count


def _act(policy: Any, observation: Any, state: Any) -> tuple[Any, Any]:
    """The environment's action, and the next state."""
    from torchward.nets import spaces

    acted = policy.act(observation, state, None)
    return spaces.env_action(policy.action_space, acted.action), acted.state


def _module(policy: Any) -> Any:
    """The policy as a module from flat tensors to flat tensors, as exporters want it."""
    from torch import Tensor, nn

    observation, state = sample(policy.observation_space, 2, 0), policy.initial_state(2)

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
            rest = list(flat)
            self.action, after = _act(policy, _fill(observation, rest), _fill(state, rest))
            return tuple(tensor for _, tensor in (*leaves("", self.action), *leaves("", after)))

    return Exported()


def leaves(name: str, tree: Any) -> list[tuple[str, Any]]:
    """The tensors of a tree, each named by the way to it: `observation.camera`, `observation.0`."""
    if isinstance(tree, dict):
        return [leaf for key, branch in tree.items() for leaf in leaves(f"{name}.{key}", branch)]
    if isinstance(tree, tuple):
        return [leaf for i, branch in enumerate(tree) for leaf in leaves(f"{name}.{i}", branch)]
    return [(name, tree)]


def _fill(tree: Any, flat: list[Any]) -> Any:
    """A tree of the structure of `tree`, with the next of the tensors in `flat`, which are taken out of it."""
    if isinstance(tree, dict):
        return {key: _fill(branch, flat) for key, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_fill(branch, flat) for branch in tree)
    return flat.pop(0)


def sample(space: Any, rows: int, seed: int) -> Any:
    """Random observations [rows, ...] of a space, of the types that an environment gives."""
    import torch

    from torchward.nets import spaces

    generator = torch.Generator().manual_seed(seed)

    def draw(inner: Any) -> Any:
        match inner:
            case spaces.Dict():
                return {name: draw(part) for name, part in inner.spaces.items()}
            case spaces.Tuple():
                return tuple(draw(part) for part in inner.spaces)
            case spaces.Discrete():
                return inner.start + torch.randint(inner.n, (rows,), generator=generator)
            case spaces.MultiDiscrete():
                return torch.stack([torch.randint(n, (rows,), generator=generator) for n in inner.nvec], -1)
            case spaces.MultiBinary():
                return torch.randint(2, (rows, inner.n), generator=generator)
            case spaces.Box(dtype="uint8"):
                return torch.randint(256, (rows, *inner.shape), generator=generator, dtype=torch.uint8)
        low, high = inner.bounds()
        return torch.randn((rows, *inner.shape), generator=generator).clamp(low, high)

    return draw(space)


def _description(policy: Any) -> dict[str, str]:
    from torchward import __version__
    from torchward.nets import spaces

    return {
        "torchward": __version__,
        "observation_space": json.dumps(spaces.to_json(policy.observation_space)),
        "action_space": json.dumps(spaces.to_json(policy.action_space)),
    }
