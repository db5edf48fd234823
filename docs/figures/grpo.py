"""What each term of GRPO does, measured by leaving it out: words of three to six letters are written the other way
round, by a small model that was shown some answers. The reward is exact: the probability of the right answer to each
word that was held out.

python docs/figures/grpo.py   (about seven minutes of one slow core)
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from torchward.algorithms import grpo, sft
from torchward.algorithms.grpo import (
    Config,
    ConstantMean,
    GroupRelative,
    LeaveOneOut,
    SequenceClip,
    TokenClip,
    TokenMean,
    WholeBatch,
)
from torchward.data.protocols import Evaluation, Policy
from torchward.data.random import seeded
from torchward.language.chat import encode
from torchward.language.documents import Completion, Document, Prompt
from torchward.language.text_task import Text
from torchward.metrics import read_metrics
from torchward.nets.language_model import NONE, LanguageModel, parts
from torchward.nets.sampling import Sampling
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import gpt2
from torchward.run import Run, RunOptions
from torchward.tasks import reversal

DOCS = Path(__file__).resolve().parents[1]
SEEDS, TOKENS, LOOKS = 3, 36_000, 12
ASKED = 512
"""Answers by which a policy is looked at in the end, eight to a word."""
SFT = sft.Config(total_timesteps=84_000, max_length=24, per_device_train_batch_size=16, learning_rate=3e-3)
GRPO = Config(total_timesteps=TOKENS, generation_batch_size=64, learning_rate=1e-3)
FREE = TokenClip(epsilon=1.0, epsilon_high=1e6)
"""A clip that never binds."""
AGAIN: dict[str, Any] = {"num_iterations": 4}
FAST: dict[str, Any] = {"learning_rate": 1e-2}
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "credit": {
        "as it is": {},
        "unscaled": {"credit": GroupRelative(scale_rewards=False)},
        "leave one out": {"credit": LeaveOneOut()},
        "whole batch": {"credit": WholeBatch()},
    },
    "normalisation": {
        "as it is": {},
        "token mean": {"normalisation": TokenMean()},
        "constant mean": {"normalisation": ConstantMean()},
        "cut answers masked": {"mask_truncated_completions": True},
    },
    "clip": {
        "as it is": {},
        "without clip": {"clip": FREE},
        "4 times": AGAIN,
        "4 times, without clip": {**AGAIN, "clip": FREE},
        "4 times, clip higher": {**AGAIN, "clip": TokenClip(0.2, 0.28)},
        "4 times, sequences clipped": {**AGAIN, "clip": SequenceClip()},
    },
    "groups of": {"8": {}, **{str(n): {"num_generations": n} for n in (2, 4, 16)}},
    "distance and temperature": {
        "as it is": {}, "beta 0.05": {"beta": 0.05}, "temperature 0.7": {"temperature": 0.7},
    },
    "step size": {
        "as it is": {}, "with warm-up": {"warmup_ratio": 0.2},
        "3 times larger": {"learning_rate": 3e-3},
        "3 times larger, with warm-up": {"learning_rate": 3e-3, "warmup_ratio": 0.2},
        "10 times larger": FAST, "10 times larger, with warm-up": {**FAST, "warmup_ratio": 0.2},
    },
}  # fmt: skip
"""What is varied, and how; the first line of each is the same run."""


class Words(Text):
    """Words to be turned round, judged by the probability of each right answer, as the policy samples."""

    def __init__(self) -> None:
        options = reversal.Options(letters=8, shortest=3, longest=6, demonstrations=1000, problems=1500, test=300)
        super().__init__(replace(reversal.make(options), max_completion_length=12))

    @torch.no_grad()
    def right(self, policy: LanguageModel) -> list[float]:
        """The probability of the right answer to each word that was held out, its end-of-text included."""
        found = []
        for document in self.problems.test:
            assert isinstance(document.content, Prompt)
            words = Completion(document.content.prompt, document.columns["answer"])
            sequence, _ = encode(Document(words, document.origin), self.tokenizer)
            assert sequence is not None
            found.append((sequence.ids, sequence.own))
        longest = max(len(ids) for ids, _ in found) - 1
        tokens = torch.full((len(found), longest), self.tokenizer.pad_id)
        action = torch.full((len(found), longest), NONE)
        for row, (ids, own) in enumerate(found):
            tokens[row, : len(ids) - 1] = torch.tensor(ids[:-1])
            chosen = torch.tensor([id_ if mine else NONE for id_, mine in zip(ids[1:], own[1:], strict=True)])
            action[row, : len(ids) - 1] = chosen
        likely: list[float] = policy.log_probs(tokens, action).double().sum(1).exp().tolist()
        return likely

    def evaluate(self, policy: Policy, episodes: int, seed: int, deterministic: bool = True) -> Evaluation:
        """Those probabilities."""
        assert isinstance(policy, LanguageModel)
        return Evaluation(self.right(policy), [1] * len(self.problems.test))

    def greedy(self, policy: LanguageModel) -> float:
        """The share of held-out words whose likeliest answer, token by token, is right."""
        return statistics.fmean(super().evaluate(policy, 300, 0).returns)


def learn(
    module: ModuleType, config: Any, task: Words, policy: LanguageModel
) -> tuple[LanguageModel, list[dict[str, Any]]]:
    """A run from ``policy``, which is left as it is; and its metrics."""
    options = RunOptions(
        eval_freq=-1 if module is sft else TOKENS // LOOKS, checkpoint_freq=-1, tensorboard=False, progress=False
    )
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=config.total_timesteps, manifest={"figure": "grpo"})
        made = module.train(config, task, run, copy.deepcopy(policy))
        return made, list(read_metrics(run.path))


def begun(task: Words) -> LanguageModel:
    """A model that was shown answers for a while."""
    config = replace(gpt2(task.tokenizer.vocab_size, 32, layers=2, heads=2, length=24), value_head=True)
    with seeded(0, "start"):
        policy = LanguageModel(Transformer(config), task.tokenizer.description())
    return learn(sft, SFT, task, policy)[0]


@torch.no_grad()
def looked_at(policy: LanguageModel, start: LanguageModel, task: Words) -> dict[str, float]:
    """What a policy is like on words that were held out."""
    held_out = Text(replace(task.problems, train=task.problems.test), task.tokenizer)
    source = held_out.source(ASKED, 0, num_generations=8)
    rollout = source.collect(policy, None)
    source.close()
    log_prob, entropy, _ = policy.evaluate_actions(rollout.observation, rollout.action, (), rollout.boundary)
    tokens, action = parts(rollout.observation)[0], rollout.action
    assert isinstance(action, Tensor)
    mask = rollout.loss_mask
    likely = task.right(policy)
    plain = copy.deepcopy(policy)
    plain.sampling = Sampling()
    differs = torch.where(mask, log_prob - start.log_probs(tokens, action), 0.0).sum(1).mean()
    facts = grpo.rewards(rollout)
    return {
        "right": statistics.fmean(likely), "plain": statistics.fmean(task.right(plain)), "greedy": task.greedy(policy),
        "entropy": float(entropy[mask].mean()), "length": float(mask.sum(1).float().mean()), "distance": float(differs),
        "uniform": float(facts["uniform_groups"]), "truncated": float(facts["truncated"]),
    }  # fmt: skip


def one(start: LanguageModel, task: Words, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """A run, and what came of it."""
    made, logged = learn(grpo, replace(GRPO, seed=seed, **changes), task, start)
    rows = [row for row in logged if "uniform_groups" in row]
    taught = [row for row in rows if "clip_fraction" in row]
    of_run = {
        f"run_{name}": statistics.fmean(row[name] for row in some)
        for some, names in ((rows, ("uniform_groups", "truncated")), (taught, ("clip_fraction", "approx_kl")))
        for name in names
    }
    found = {**looked_at(made, start, task), **of_run, "mismatch": max(row["mismatch"] for row in taught)}
    curve = [row["eval/return"] for row in logged if "eval/return" in row]
    uniform = [row["uniform_groups"] for row in rows]
    fifths = [statistics.fmean(uniform[i * len(uniform) // 5 : (i + 1) * len(uniform) // 5]) for i in range(5)]
    return {
        **{name: round(value, 7) for name, value in found.items()},
        "rollouts": len(uniform), "steps": [row["step"] for row in logged if "eval/return" in row],
        "curve": [round(value, 4) for value in curve], "fifths": [round(value, 3) for value in fifths],
    }  # fmt: skip


def measure() -> dict[str, Any]:
    """All runs, from one start."""
    task = Words()
    start = begun(task)
    cooler = copy.deepcopy(start)
    cooler.sampling = Sampling(0.7)
    runs: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, Any] = {
        "start": looked_at(start, start, task),
        "cooler": looked_at(cooler, start, task),
        "runs": runs,
    }
    print(found, flush=True)
    for table in TABLES.values():
        for changes in table.values():
            if (name := str(changes)) not in runs:
                began = time.process_time()
                runs[name] = [one(start, task, seed, changes) for seed in range(SEEDS)]
                took = time.process_time() - began
                print(name, [each["right"] for each in runs[name]], f"{took:.1f} s", flush=True)
    return found


def interval(cell: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    """The difference of the means, in points, with its 95 % interval: Student's t, four degrees of freedom."""
    one, other = ([100.0 * run["right"] for run in runs] for runs in (cell, base))
    half = 2.776 * ((statistics.variance(one) + statistics.variance(other)) / SEEDS) ** 0.5
    return f"{statistics.fmean(one) - statistics.fmean(other):+.1f} ± {half:.1f}"


def show(found: dict[str, Any]) -> None:
    """What the chapter quotes."""
    head = f"{'right, %':>11}{'difference':>14}{'greedy':>8}{'entropy':>9}{'length':>8}{'KL':>7}{'uniform, %':>15}"
    for name, key in (("start", "start"), ("start at a temperature of 0.7", "cooler")):
        row = found[key]
        line = f"{100 * row['right']:.1f} % right, {100 * row['greedy']:.1f} % greedily, entropy {row['entropy']:.2f}"
        print(f"{name}: {line}, {row['length']:.2f} tokens, uniform groups {100 * row['uniform']:.0f} %")
    print()
    base = found["runs"][str({})]
    for title, table in TABLES.items():
        print(f"{title:32}{head}")
        for name, changes in table.items():
            cell = found["runs"][str(changes)]
            values = [100.0 * run["right"] for run in cell]
            mean = {key: statistics.fmean(run[key] for run in cell) for key in cell[0] if key not in LISTS}
            line = f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"
            difference = "" if cell is base else interval(cell, base)
            rest = f"{mean['entropy']:9.2f}{mean['length']:8.2f}{mean['distance']:7.2f}"
            uniform = f"{100 * mean['run_uniform_groups']:.0f}, {100 * mean['uniform']:.0f}"
            print(f"{name:32}{line:>11}{difference:>14}{100 * mean['greedy']:8.1f}{rest}{uniform:>15}")
        print()
    head = f"{'rollouts':>9}{'clip_fraction':>15}{'approx_kl':>11}{'mismatch':>11}{'truncated':>11}"
    print(f"{'in the mean over a run':32}{head}")
    for name in ("as it is", "4 times", "4 times, without clip", "4 times, sequences clipped"):
        cell = found["runs"][str(TABLES["clip"][name])]
        mean = {key: statistics.fmean(run[key] for run in cell) for key in cell[0] if key not in LISTS}
        line = f"{mean['rollouts']:9.0f}{mean['run_clip_fraction']:15.4f}{mean['run_approx_kl']:11.5f}"
        print(f"{name:32}{line}{max(run['mismatch'] for run in cell):11.1e}{mean['run_truncated']:11.4f}")
    cooler = found["runs"][str({"temperature": 0.7})]
    plain = [100 * statistics.fmean(run["plain"] for run in cell) for cell in (base, cooler)]
    print(f"\nat a temperature of 1: as it is {plain[0]:.1f} % right, temperature 0.7 {plain[1]:.1f} %")
    print(f"\n{'uniform groups, fifths of a run':32}" + "".join(f"{i}/5".rjust(8) for i in range(1, 6)))
    for name, changes in TABLES["groups of"].items():
        columns = zip(*(run["fifths"] for run in found["runs"][str(changes)]), strict=True)
        print(f"groups of {name:22}" + "".join(f"{100 * statistics.fmean(column):6.0f} %" for column in columns))


LISTS = ("steps", "curve", "fifths")


def draw(found: dict[str, Any], out: Path) -> None:
    """The probability of the right answer over tokens, for each way; a line is the mean of the seeds, a band all of
    them."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 6.0), sharex=True, sharey=True)
    for axis, (title, table) in zip(axes.flat, TABLES.items(), strict=True):
        for colour, (name, changes) in enumerate(table.items()):
            cell = found["runs"][str(changes)]
            shortest = min(len(run["curve"]) for run in cell)
            columns = list(zip(*(run["curve"][:shortest] for run in cell), strict=True))
            steps = [0.0, *(step / 1000 for step in cell[0]["steps"][:shortest])]
            first = found["cooler" if "temperature" in changes else "start"]["right"]
            axis.plot(steps, [first, *map(statistics.fmean, columns)], color=f"C{colour}", linewidth=1.4, label=name)
            axis.fill_between(
                steps, [first, *map(min, columns)], [first, *map(max, columns)], color=f"C{colour}", alpha=0.15,
                linewidth=0,
            )  # fmt: skip
        axis.set(title=title, ylim=(0.0, 1.0))
        axis.legend(fontsize=6.5, ncols=2, loc="upper left")
    for axis in axes[1]:
        axis.set(xlabel="thousand tokens written")
    for axis in axes[:, 0]:
        axis.set(ylabel="probability of the right answer")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "grpo.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "grpo.json")
    parser.add_argument("--drawn", action="store_true", help="draw and print what the data hold, and measure nothing")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    found = json.loads(options.data.read_text()) if options.drawn else measure()
    show(found)
    if not options.drawn:
        options.data.write_text(json.dumps(found, indent=1) + "\n")
    draw(found, options.out)


if __name__ == "__main__":
    main()
