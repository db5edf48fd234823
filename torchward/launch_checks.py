"""What can be wrong with an algorithm, a task, a policy and their settings together, before a run is begun of them.

Each function raises LaunchError, in the words of who asked for the run. `launch` calls them in the order in which they
can be understood.
"""

import inspect
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from torchward.data.hindsight import HER
from torchward.data.preferences import PreferenceTask
from torchward.data.texts import CorpusTask, GroupTask, LabelledTask, MaskedTask, TextTask
from torchward.envs.task import Control
from torchward.language.hacking import Bounds
from torchward.nets import spaces
from torchward.tasks.find import Algorithm, Found, LaunchError

READ_AS_ROWS = (CorpusTask, TextTask, GroupTask, MaskedTask, LabelledTask)
"""The tasks of which an algorithm with a max_length makes rows of so many tokens, each of which the policy has to read
as a whole. Of preferences max_length says what is too long, and rows are as long as they need to be."""


SPACES = "observation_space", "action_space"
CHANGED = "go back to the environment that it began with"
START = "a run can only start from a policy of equal spaces"


def fit(policy: Any, init: str | Path, config: Any, untouched: Any, found: Found) -> Any:
    """The config with the network of the policy that the run starts from. Raises LaunchError where they do not fit."""
    from torchward.nets.text_classifier import TextClassifier

    if isinstance(policy, TextClassifier) and hasattr(found.task, "labelled"):
        return config  # the task is in its words, and labels are no matter of the task's spaces
    for what in SPACES:
        _check_space(what, getattr(policy, what), f"the policy of {init}", found, START)
    network = getattr(policy, "network", None)
    if not hasattr(config, "network") or config.network == network:
        return config
    if config.network != untouched.network:
        own = type(policy).__name__ if network is None else network
        raise LaunchError(f"the policy of {init} brings its own network ({own}); leave the network's settings out")
    return config if network is None else replace(config, network=network)


def check_spaces(policy: Any, whose: str, found: Found) -> None:
    """Raises LaunchError where an environment is no longer the one that a policy has learnt."""
    for what in SPACES if has_worlds(found) else ():
        if hasattr(policy, what):
            _check_space(what, getattr(policy, what), whose, found, CHANGED)


def check_same(path: str | Path, manifest: Mapping[str, Any], found: Found) -> None:
    """Raises LaunchError where an environment is no longer the one that a run began with."""
    for what, data in (manifest.get("spaces") or {}).items():
        _check_space(what, spaces.from_json(data), f"the run in {path}", found, CHANGED)


def spaces_of(found: Found) -> dict[str, Any] | None:
    """What :func:`check_same` wants to know. Of text there is nothing: it is in the words of its policy."""
    return {what: spaces.to_json(getattr(found.task, what)) for what in SPACES} if has_worlds(found) else None


def has_worlds(found: Found) -> bool:
    """Whether a task is an environment."""
    return isinstance(found.task, Control)


def _check_space(what: str, has: Any, whose: str, found: Found, advice: str) -> None:
    needs = getattr(found.task, what)
    if has != needs:
        one, other = spaces.describe(has), spaces.describe(needs)
        bounds = " (their bounds differ)" if one == other else ""
        raise LaunchError(
            f"{whose} has the {what.replace('_', ' ')} {one}, but {found.name} has {other}{bounds}; {advice}"
        )


def in_context(algorithm: Algorithm, policy: Any, config: Any, untouched: Any) -> Any:
    """The config with rows that the policy can read, where nobody has said how long they shall be."""
    context = getattr(getattr(policy, "config", None), "max_position_embeddings", None)
    in_rows = algorithm.learns_from in READ_AS_ROWS and hasattr(config, "max_length")
    if not in_rows or context is None or config.max_length != untouched.max_length:
        return config
    return replace(config, max_length=min(config.max_length, context))


def check_words(algorithm: Algorithm, found: Found, policy: Any) -> None:
    """Raises LaunchError where an algorithm of text is given none, or a task of text nobody who can write."""
    wants = algorithm.learns_from in (*READ_AS_ROWS, PreferenceTask)
    is_text = hasattr(found.task, "max_completion_length")
    if wants and not is_text:
        raise LaunchError(
            f"{algorithm.name} learns from text, and {found.name} has none; `torchward list` shows what has"
        )
    if is_text and not wants and policy is None and algorithm.source == algorithm.name:
        raise LaunchError(
            f"{algorithm.name} on {found.name}, a task of text, improves a model that can write: give the run that has "
            "one, with init"
        )


def check_kind(algorithm: Algorithm, policy: Any) -> None:
    """Raises LaunchError where an algorithm for what writes is given an encoder, or a classifier."""
    from torchward.nets.masked_language_model import MaskedLanguageModel
    from torchward.nets.text_classifier import TextClassifier

    wanted = inspect.signature(algorithm.module.train).parameters.get("policy")
    if wanted is None or wanted.annotation is inspect.Parameter.empty:
        return
    taken = get_args(wanted.annotation) or (wanted.annotation,)
    for kind, does in ((MaskedLanguageModel, "fills gaps"), (TextClassifier, "says which label a text has")):
        if isinstance(policy, kind) and kind not in taken:
            others = "classify takes both, and masked_lm an encoder"
            raise LaunchError(f"{algorithm.name} does not go on with a {kind.__name__}, which {does}: {others}")


def check_settings(algorithm: Algorithm, config: Any, found: Found, policy: Any) -> None:
    """Let the algorithm refuse what it cannot learn, where it has a `check`. One that takes no policy would try a new
    network, which the one that is given may not need."""
    check = getattr(algorithm.module, "check", None)
    if check is None:
        return
    if policy is None:
        check(config, found.task)
    elif "policy" in inspect.signature(check).parameters:
        check(config, found.task, policy)


def check_kl(algorithm: Algorithm, config: Any, policy: Any, setting: str) -> None:
    """Raises LaunchError where there is no policy to stay close to, or one that only ever takes its best action, from
    which all others are infinitely far away; where there is nothing that could be paid for it; and where hindsight
    would lose the price."""
    from torchward.nets.deterministic_actor import DeterministicActor
    from torchward.nets.q_policy import QPolicy

    if policy is None:
        raise LaunchError(f"{setting} needs a policy to stay close to: give init, the run that has it")
    if not _takes_shaping(algorithm):
        raise LaunchError(f"{algorithm.name} takes no {setting}: its train takes no argument `shaping`")
    if isinstance(getattr(config, "replay", None), HER):
        raise LaunchError(
            f"expected no {setting} with hindsight, whose other goals pay what the environment says alone, got "
            "replay=HER; leave one out"
        )
    explores = "exploration_end above 0, or boltzmann exploration"
    if isinstance(policy, QPolicy) and not policy.epsilon and not policy.temperature:
        kind = "a greedy QPolicy (epsilon 0, temperature 0)"
    elif isinstance(policy, DeterministicActor) and not policy.noise_std:
        kind, explores = "a DeterministicActor without noise", "noise_std above 0"
    else:
        return
    raise LaunchError(
        f"expected for {setting} a policy that gives each action some probability, got {kind}; begin from a run with "
        f"{explores}"
    )


def check_kl_target(kl_coef: float, kl_target: float | None) -> None:
    """Raises LaunchError for a target where there is no weight that could follow it."""
    if kl_target is not None and not kl_coef:
        raise LaunchError(
            f"expected with kl_target a kl_coef above 0, which it raises and lowers by factors, got kl_target "
            f"{kl_target} and kl_coef {kl_coef}; give kl_coef, the weight to begin with"
        )


def watched(algorithm: Algorithm, found: Found, kl_budget: float | None) -> Bounds | None:
    """What a run that learns text by reward is watched for. Raises LaunchError for a budget where nobody watches, or
    that is none."""
    watches = hasattr(found.task, "problems") and _takes_shaping(algorithm)
    if kl_budget is not None and (not watches or not kl_budget > 0.0):
        raise LaunchError(
            f"expected kl_budget above 0, in nats a text, for a run that learns text by reward, got {kl_budget} for "
            f"{algorithm.name} on {found.name}"
        )
    return Bounds(kl_budget=kl_budget) if watches else None


def _takes_shaping(algorithm: Algorithm) -> bool:
    return "shaping" in inspect.signature(algorithm.module.train).parameters


def check_teacher(algorithm: Algorithm, teacher: Any) -> None:
    """Raises LaunchError where an algorithm that needs a teacher has none, or one that has no use for it has one."""
    takes = "teacher" in inspect.signature(algorithm.module.train).parameters
    if takes and teacher is None:
        raise LaunchError(f"{algorithm.name} learns from a teacher: give the run that has it, with teacher")
    if teacher is not None and not takes:
        raise LaunchError(f"{algorithm.name} learns from no teacher: its train takes no argument `teacher`")


def check_device(device: str) -> None:
    """Raises LaunchError where there is no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LaunchError(f"there is no device {device!r} here ({reason}); `--device cpu` is always there") from error


def told_of_bf16(config: Any) -> str | None:
    """A sentence, where products are wanted in bfloat16 of a processor that takes longer for them: without instructions
    for it, it takes ten times as long (docs/pytorch-2.md)."""
    if not getattr(config, "bf16", False) or torch.device(config.device).type != "cpu":
        return None
    times = _seconds_of_a_product(torch.bfloat16) / _seconds_of_a_product(torch.float32)
    if times < 1.5:
        return None
    return f"bf16: products in bfloat16 take {times:.1f} times as long here as in float32; this run is quicker without"


def _seconds_of_a_product(dtype: torch.dtype) -> float:
    """The quickest of some, so that what else the machine does counts little."""
    matrix, found = torch.ones(256, 256, dtype=dtype), []
    for _ in range(6):
        start = time.perf_counter()
        matrix @ matrix
        found.append(time.perf_counter() - start)
    return min(found)
