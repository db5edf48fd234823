"""What `torchward evaluate` says of a reward model: how often it is right about the pairs that its run held out."""

from pathlib import Path
from typing import Any

from torchward.cli import UsageError


def evaluate(path: Path, model: Any, task: Any, manifest: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A line to print, and what evaluation.json is to hold. Raises UsageError for a run of another algorithm."""
    from torchward.algorithms import reward_model
    from torchward.config import from_json

    if manifest.get("algorithm_name") != "reward_model":
        raise UsageError(f"expected a run of reward_model to evaluate a RewardModel by, got {path}")
    config = from_json(reward_model.Config, manifest["config"])
    model.to(config.device)
    data = reward_model.compared(config, task, model)
    said = reward_model.rewards(model, data.validation, data.pad_id, config, config.eval_pairs)
    result, metrics = reward_model.judge(said)
    accuracy, count, held_out = result.returns[0], said.shape[-1], len(data.validation)
    values = {name.removeprefix("eval/"): value for name, value in metrics.items()}
    some = f"{count:,}" if count == held_out else f"the first {count:,} of {held_out:,}"
    line = (
        f"accuracy {accuracy:.3f} on {some} held-out pairs, calibration error {values['calibration_error']:.3f}, "
        f"loss {values['loss']:.3f}"
    )
    return line, {"pairs": count, "accuracy": accuracy, **values}
