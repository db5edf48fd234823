"""Three rewards for one task, to turn three letters round: what each teaches, and what the run says of it meanwhile.

python docs/examples/reward_watch.py
"""

import contextlib
import io
import itertools
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torchward
from torchward.nets.language_model import LanguageModel
from torchward.run import RunOptions
from torchward.tasks import find, texts
from torchward.tasks.reward_options import RewardOptions

OWN = """def reward(prompts, completions, completion, **columns):
    # The share of the right letters that an answer mentions
    return [len(set(said) & set(right)) / len(set(right)) for said, right in zip(completions, completion)]
"""
REWARDS: dict[str, dict[str, Any]] = {
    "exact": {"exact_weight": 1.0},
    "chrf": {"chrf_weight": 1.0},
    "own": {"reward_function": "mentions.py"},
    "own + length": {"reward_function": "mentions.py", "length_weight": 1.0, "length_most": 3},
}
QUIET = RunOptions(tensorboard=False, progress=False, eval_freq=-1, checkpoint_freq=-1)


def main(place: Path, pretrain: int = 30_000, tokens: int = 15_000) -> dict[str, tuple[dict[str, float], list[str]]]:
    """For each reward what its policy does in the end, and what the run said on its way."""
    file = place / "letters.jsonl"
    (place / "mentions.py").write_text(OWN)
    every = ["".join(word) for word in itertools.product("abcdef", repeat=3)]
    file.write_text("\n".join(json.dumps({"prompt": f"{w}=", "completion": w[::-1]}) for w in every))
    base = torchward.train(
        "pretrain", str(file), path=place / "base", options=QUIET, total_timesteps=pretrain, max_length=32,
        max_position_embeddings=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        tokenizer="characters", learning_rate=3e-3,
    )  # fmt: skip
    found = {"before": (judged(torchward.load(base.path), file), list[str]())}
    for name, settings in REWARDS.items():
        if "reward_function" in settings:
            settings = {**settings, "reward_function": str(place / settings["reward_function"])}
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            run = torchward.train(
                "grpo", str(file), path=place / name.replace(" + ", "-"), init=base.path, total_timesteps=tokens,
                generation_batch_size=64, num_generations=8, learning_rate=2e-3, answer_length=16,
                options=RunOptions(tensorboard=False, eval_freq=-1, checkpoint_freq=-1), **settings,
            )  # fmt: skip
        words = [line for line in said.getvalue().replace("\r", "\n").splitlines() if "a word of warning" in line]
        warnings = [line.partition("warning: ")[2] for line in words]
        found[name] = judged(torchward.load(run.path, which="last"), file), warnings
    return found


def judged(policy: Any, file: Path) -> dict[str, float]:
    """By all measures, over what was held out, each answer drawn as in training."""
    assert isinstance(policy, LanguageModel)
    means = {}
    for name, chosen in (
        ("exact", RewardOptions(exact_weight=1.0)),
        ("own", RewardOptions(str(file.parent / "mentions.py"))),
        ("chrf", RewardOptions(chrf_weight=1.0)),
    ):
        task = find.task(str(file), texts.Options(answer_length=16, rewards=chosen)).task.using(policy)
        result = task.evaluate(policy, 1_000, seed=0, deterministic=False)
        means[name] = sum(result.returns) / len(result.returns)
        means["length"] = sum(result.lengths) / len(result.lengths)
    return means


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = main(Path(place))
    print(f"{'rewarded':18}{'exact':>8}{'own':>8}{'chrf':>8}{'tokens':>8}  warned of")
    for name, (means, words) in found.items():
        figures = f"{means['exact']:8.2f}{means['own']:8.2f}{means['chrf']:8.2f}{means['length']:8.1f}"
        short = dict.fromkeys(re.split("[:(]", word)[0].strip() for word in words)
        print(f"{name:18}{figures}  {'; '.join(short) or 'nothing'}")
    for sentence in dict.fromkeys(word for _, words in found.values() for word in words):
        print(f"\n{sentence}")
