"""The policies beside an algorithm and a task: the one that a run starts from, its teacher, its reward model.

Where each is found, what of it a run keeps, how it is brought back as it was, and what it changes about the task.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchward import checkpoint
from torchward.nets import saving
from torchward.tasks.find import Found, LaunchError

INITIAL = "initial"
"""The directory within a run of the policy that it started from."""
TEACHER = "teacher"
"""The directory within a run of the policy that it learns from."""
JUDGE = "reward_model"
"""The directory within a run of the reward model that judged its answers."""


def policy_of(place: str | Path) -> Any:
    """What a run can start from: the policy of a run or of a policy directory, or a pretrained model in a local
    directory of transformers, or one that is to be downloaded, ``hub:owner/name``. Raises PolicyError, ConfigError or
    LaunchError where there is none."""
    from torchward.language import hub, pretrained, pretrained_encoder

    try:
        found = hub.local(place)
        if pretrained_encoder.is_encoder(found):
            return pretrained_encoder.load(found)
        if pretrained.lies_in(found):
            return pretrained.load(found).policy
        return saving.load(found)
    except ImportError as error:
        raise LaunchError(str(error)) from error


def told_of(place: str | Path) -> str:
    """What a run's manifest says of a place: where it is, wherever the run is resumed from."""
    from torchward.language import hub

    return str(place if hub.is_remote(place) else Path(place).resolve())


def judge_of(place: str | Path) -> Any:
    """The reward model of a run or of a directory. Raises PolicyError where there is none that can be read, and
    LaunchError for a policy of another kind."""
    from torchward.nets.reward_model import RewardModel

    model: Any = saving.load(place)
    if not isinstance(model, RewardModel):
        raise LaunchError(
            f"expected the run of a reward model at {place}, got a {type(model).__name__}: `torchward train "
            "reward_model` makes one"
        )
    return model


def keep(path: Path, policy: Any, teacher: Any, judge: Any) -> None:
    """Put into the run in ``path`` what it is begun with, so that resuming needs nothing else. A policy of the user's
    own that cannot be saved is not kept."""
    if policy is not None and hasattr(policy, "save"):
        checkpoint.publish(path / INITIAL, policy.save)
    if teacher is not None:
        checkpoint.publish(path / TEACHER, teacher.save)
    if judge is not None:
        checkpoint.publish(path / JUDGE, judge.save)


def begun_with(path: Path, manifest: Mapping[str, Any], given: Any) -> Any:
    """The policy that a run started from, as it was then: references and divergences are told by it. ``given`` is one
    of its architecture, which is needed where a policy of the user's own cannot be read from what the run keeps.

    Raises LaunchError where it is needed and missing, or of another architecture."""
    kept, init, named = path / INITIAL, manifest.get("init"), manifest.get("policy")
    if given is not None:
        return _as_it_was(given, kept)
    if init is None and named is None:
        return None
    try:
        return policy_of(kept if kept.exists() or init is None else init)
    except saving.PolicyError as error:
        if init is not None:
            raise
        raise LaunchError(
            f"{path} was started with a policy of its own ({named}): go on from Python, "
            f"torchward.resume({str(path)!r}, policy=...), with one of the same architecture"
        ) from error


def _as_it_was(given: Any, kept: Path) -> Any:
    """A policy with the weights that a run began with, where it keeps them."""
    try:
        if not hasattr(given, "load_state_dict") or not kept.exists():
            return given
        try:
            given.load_state_dict(policy_of(kept).state_dict())
        except saving.PolicyError:  # it has an encoder of the user's own, or is a class of theirs
            saving.put_weights(given, kept)
    except (RuntimeError, saving.PolicyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LaunchError(
            f"expected a policy of the architecture that the run began with, got a {type(given).__name__}: {reason}"
        ) from error
    return given


def taught_by(path: Path, manifest: Mapping[str, Any]) -> Any:
    """The teacher of a run, if it has one."""
    return policy_of(path / TEACHER) if manifest.get("teacher") is not None else None


def in_words_of(found: Found, policy: Any) -> Found:
    """The task in the words of the policy that is to do it, where it is one of text: the task alone would build its own
    tokenizer."""
    if policy is None or not hasattr(found.task, "using"):
        return found
    return found._replace(task=found.task.using(policy))


def as_judged(found: Found, path: str | Path, manifest: Mapping[str, Any]) -> tuple[Found, Any]:
    """The task of the run in ``path``, its answers judged as they were there; and the reward model, if it has one."""
    judge = None
    if manifest.get("reward_model") is not None:
        kept = Path(path) / JUDGE
        judge = judge_of(kept if kept.exists() else manifest["reward_model"])
    return judged_by(found, judge, manifest.get("pessimism", 0.0)), judge


def judged_by(found: Found, judge: Any, pessimism: float) -> Found:
    """The task, whose answers earn what a reward model says of them, if there is one. Raises LaunchError for a task
    without answers."""
    if judge is None:
        if pessimism:
            raise LaunchError("pessimism needs a reward model whose members may disagree: give reward_model, its run")
        return found
    if not hasattr(found.task, "judged_by"):
        raise LaunchError(f"a reward model judges answers in text, and {found.name} has none")
    return found._replace(task=found.task.judged_by(judge, pessimism))


def told_of_teacher(teacher: Any) -> dict[str, str]:
    """What a run's manifest says of its teacher: where it was found, or what it is."""
    if teacher is None:
        return {}
    return {"teacher": told_of(teacher) if isinstance(teacher, str | Path) else type(teacher).__name__}
