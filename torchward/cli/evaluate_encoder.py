"""What `torchward evaluate` says of an encoder or a classifier: how it does on all texts that its run held out."""

from pathlib import Path
from typing import Any

from torchward.cli import UsageError


def evaluate(path: Path, model: Any, task: Any, manifest: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Lines to print, and what evaluation.json is to hold. Raises UsageError for a run of another algorithm."""
    from torchward.algorithms import classify, masked_lm
    from torchward.config import from_json
    from torchward.nets.text_classifier import TextClassifier

    wanted, module = ("classify", classify) if isinstance(model, TextClassifier) else ("masked_lm", masked_lm)
    if manifest.get("algorithm_name") != wanted:
        raise UsageError(f"expected a run of {wanted} to evaluate a {type(model).__name__} by, got {path}")
    config = from_json(module.Config, manifest["config"])
    model.to(config.device)
    if isinstance(model, TextClassifier):
        texts = task.labelled(config.max_length, model.labels)
        judged = classify.judge(model, classify.validation(config, texts), config)
        lines = f"{classify.summary(judged)}\n\n{classify.table(model.labels, judged)}"
        return lines, {
            "texts": int(judged.confusion.sum()),
            "accuracy": judged.accuracy,
            "majority": judged.majority,
            "f1_macro": judged.f1,
            "loss": judged.loss,
            "labels": list(model.labels),
            "confusion": judged.confusion.tolist(),
        }
    texts = task.masked()
    rows = masked_lm.masked_validation(config, texts, config.masking(texts.mask_id, texts.bytes_of > 0))
    result, accuracy = masked_lm.judge(model, rows, texts.bytes_of.to(config.device), config)
    bits, count, alone = result.returns[0], result.lengths[0], masked_lm.commonest(rows, texts)
    lines = (
        f"accuracy {accuracy:.3f} on {count:,} masked tokens that were held out (the commonest token alone: "
        f"{alone:.3f}), {bits:.3f} bits per masked byte"
    )
    return lines, {"masked": count, "accuracy": accuracy, "commonest": alone, "bits_per_masked_byte": bits}
