"""Two letters to be written the other way round, learnt by reward in three ways from one start; and what it buys to pay
for the distance from there. Rewards are exact: the probability of the right answer, over all prompts.

python docs/figures/language.py   (about a minute and a half)
"""

import argparse
import copy
import json
import statistics
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from torchward.algorithms import expert_iteration, grpo, ppo, sft
from torchward.data.kl import KLToReference, frozen
from torchward.data.protocols import Evaluation, Policy
from torchward.data.random import seeded
from torchward.data.rollout import Rollout
from torchward.functional.divergences import categorical_kl
from torchward.language.chat import encode
from torchward.language.documents import Completion, Document
from torchward.language.generate import SLOTS
from torchward.language.rewards import exact_match
from torchward.language.source import TextSource
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.language.tokenizer import Characters
from torchward.metrics import read_metrics
from torchward.nets.language_model import NONE, LanguageModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig
from torchward.run import Run, RunOptions

DOCS = Path(__file__).resolve().parents[1]
SEEDS = 3
TOKENS, EVERY = 15_360, 768
"""Of a run, and between two looks at it."""
BETAS = (0.1, 0.3, 1.0)
SFT = sft.Config(total_timesteps=5_120, max_length=8, per_device_train_batch_size=8, learning_rate=3e-3)
PPO = ppo.Config(
    total_timesteps=TOKENS, n_envs=64, n_steps=3, batch_size=96, n_epochs=2, learning_rate=2e-3, gamma=1.0, vf_coef=0.1,
    learning_rate_schedule="linear",
)  # fmt: skip
GRPO = grpo.Config(
    total_timesteps=TOKENS, steps_per_generation=4, num_iterations=2, learning_rate=2e-3, lr_scheduler_type="linear"
)
"""As many completions a rollout as PPO's, and as many steps of the optimiser."""
EXPERT = expert_iteration.Config(
    total_timesteps=TOKENS, generation_batch_size=256, num_generations=8, max_length=8, learning_rate=2e-3
)


class Ended(TextSource):
    """Pays for answers that end alone. A special token stands for no letter, so that one in the place of end-of-text
    would be right too, to who reads the text."""

    def collect(self, policy: Policy, horizon: int | None) -> Rollout:
        """Completions, without what those earned that were cut."""
        rollout = super().collect(policy, horizon)
        return replace(rollout, reward=torch.where(rollout.terminated.any(1, keepdim=True), rollout.reward, 0.0))


class Pairs(Text):
    """All pairs of six letters, to be learnt and to be judged by: what is shown is that it learns."""

    def __init__(self) -> None:
        documents = [
            Document(Completion(f"{a}{b}=", f"{b}{a}"), f"{a}{b}", {"answer": f"{b}{a}"})
            for a, b in product("abcdef", repeat=2)
        ]
        made = Problems("pairs", documents, documents, exact_match, tokenizer=Characters(), max_completion_length=3)
        super().__init__(made)

    def source(
        self, n_envs: int, seed: int, device: str = "cpu", *, num_generations: int = 1, slots: int = SLOTS
    ) -> TextSource:
        """Completions."""
        return Ended(self.problems, self.tokenizer, n_envs, seed, device, num_generations=num_generations, slots=slots)

    @torch.no_grad()
    def right(self, policy: LanguageModel) -> torch.Tensor:
        """The probability ``[36]`` of the right answer to each pair, its end-of-text included."""
        sequences = [encode(document, self.tokenizer)[0] for document in self.problems.train]
        rows = [(each.ids, each.own) for each in sequences if each is not None]
        tokens = torch.tensor([ids[:-1] for ids, _ in rows])
        action = torch.tensor(
            [[id_ if own else NONE for id_, own in zip(ids[1:], owns[1:], strict=True)] for ids, owns in rows]
        )
        return policy.log_probs(tokens, action).double().sum(1).exp()

    def evaluate(self, policy: Policy, episodes: int, seed: int, deterministic: bool = True) -> Evaluation:
        """Those probabilities."""
        assert isinstance(policy, LanguageModel)
        return Evaluation(self.right(policy).tolist(), [3] * len(self.problems.train))


def begun() -> LanguageModel:
    """A transformer that has been shown the answers for a while: it knows the form, and half of the content."""
    task = Pairs()
    config = TransformerConfig(
        vocab_size=task.tokenizer.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, value_head=True, initializer_range=0.2,
    )  # fmt: skip
    with seeded(0, "start"):
        policy = LanguageModel(Transformer(config), task.tokenizer.description())
    return learn(sft, SFT, task, policy)[0]


def learn(
    module: ModuleType, config: Any, task: Pairs, policy: LanguageModel, **given: Any
) -> tuple[LanguageModel, dict[str, Any]]:
    """A run from ``policy``, which is left as it is; and its rewards over tokens."""
    options = RunOptions(
        eval_freq=-1 if module is sft else EVERY, n_eval_episodes=36, checkpoint_freq=-1, tensorboard=False,
        progress=False,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=config.total_timesteps, manifest={"figure": "language"})
        made = module.train(config, task, run, copy.deepcopy(policy), **given)
        rows = [row for row in read_metrics(run.path) if "eval/return" in row]
    return made, {"tokens": [row["step"] for row in rows], "reward": [round(row["eval/return"], 4) for row in rows]}


@torch.no_grad()
def distance(policy: LanguageModel, start: LanguageModel) -> float:
    """KL(policy || start) of a whole answer, in nats and exact: the divergences of its three choices, each weighed with
    the probability of the letters before it, over all that can stand there."""
    task, vocab = Pairs(), policy.config.vocab_size
    asked = [encode(document, task.tokenizer)[0] for document in task.problems.train]
    prompts = [list(each.ids[: each.own.index(True)]) for each in asked if each is not None]
    tokens = torch.tensor([[*prompt, *pair] for prompt in prompts for pair in product(range(vocab), repeat=2)])
    one, other = (model.body.logits(model.body.forward(tokens)[:, -3:]).double() for model in (policy, start))
    # The first choice stands in vocab^2 of the rows, the second in vocab of them.
    chosen = one.log_softmax(2)[:, :2].gather(2, tokens[:, -2:, None]).squeeze(2).exp()
    chosen = chosen.masked_fill(tokens[:, -2:] == task.tokenizer.eos_id, 0.0) * vocab
    weight = torch.cat([torch.ones(len(tokens), 1), chosen.cumprod(1)], 1)
    return float((weight * categorical_kl(one, other)).sum(1).mean())


def best(right: torch.Tensor, beta: float) -> tuple[float, float]:
    """Reward and KL of the best policy at that price, of answers whose reward is 0 or 1: it makes the right one
    e^(1 / beta) times as likely as it was, beside the wrong ones."""
    odds = (right.log() - (1.0 - right).log()) + 1.0 / beta
    there = odds.sigmoid()
    divergence = there * (there.log() - right.log()) + (1.0 - there) * ((1.0 - there).log() - (1.0 - right).log())
    return float(there.mean()), float(divergence.nan_to_num().mean())


def measure() -> dict[str, Any]:
    """All runs, from one start."""
    start, task = begun(), Pairs()
    right = task.right(start)
    found: dict[str, Any] = {"start": float(right.mean()), "curves": {}, "ends": {}, "best": {}}
    cases: list[tuple[str, ModuleType, Any, float]] = [
        ("ppo", ppo, PPO, 0.0), ("grpo", grpo, GRPO, 0.0), ("expert_iteration", expert_iteration, EXPERT, 0.0),
        *((f"ppo, beta {beta:g}", ppo, PPO, beta) for beta in BETAS),
    ]  # fmt: skip
    for name, module, config, beta in cases:
        curves, ends = [], []
        for seed in range(SEEDS):
            given = {"shaping": [KLToReference(frozen(start), beta)]} if beta else {}
            policy, curve = learn(module, replace(config, seed=seed), task, start, **given)
            curves.append(curve)
            ends.append([float(task.right(policy).mean()), distance(policy, start)])
        found["curves"][name], found["ends"][name] = curves, ends
    prices = [10.0 ** (i / 20.0) for i in range(-30, 41)]
    found["best"] = {f"{beta:.4g}": best(right, beta) for beta in [*BETAS, *prices]}
    return found


def draw(found: dict[str, Any], out: Path) -> None:
    """Rewards over tokens; and over the distance from the start."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    for colour, name in enumerate(("ppo", "grpo", "expert_iteration")):
        runs = found["curves"][name]
        for i, run in enumerate(runs):
            tokens, rewards = [0, *run["tokens"]], [found["start"], *run["reward"]]
            label = name if i == 0 else None
            left.plot(tokens, rewards, color=f"C{colour}", linewidth=1.2, alpha=0.8, label=label)
    left.set(xlabel="tokens written", ylabel="reward: probability of the right answer", ylim=(0.0, 1.02))
    left.legend(loc="lower right")
    frontier = sorted((kl, reward) for reward, kl in found["best"].values())
    right.plot(*zip(*frontier, strict=True), color="0.5", label="the best for its distance")
    for colour, name in enumerate(found["ends"]):
        ends = found["ends"][name]
        right.plot([kl for _, kl in ends], [reward for reward, _ in ends], "o", color=f"C{colour}", label=name)
    right.set(xlabel="KL to the start, nats an answer")
    right.legend(loc="lower right")
    figure.savefig(out, metadata={"Software": None})


def show(found: dict[str, Any]) -> None:
    """What the chapter quotes."""
    shown = (0, *(i for i in range(3, len(found["curves"]["ppo"][0]["tokens"]), 4)))
    print(f"{'reward after about so many tokens':34}" + f"{0:8,}" + "".join(f"{(i + 1) * EVERY:8,}" for i in shown))
    for name in ("ppo", "grpo", "expert_iteration"):
        rows = [[run["reward"][min(i, len(run["reward"]) - 1)] for i in shown] for run in found["curves"][name]]
        means = [found["start"], *(statistics.fmean(column) for column in zip(*rows, strict=True))]
        print(f"{name:34}" + "".join(f"{mean:8.2f}" for mean in means))
    print(f"\n{'at the end':24}{'reward':>8}{'KL':>8}   {'the best at this price':>22}{'KL':>8}")
    for name, ends in found["ends"].items():
        reward, kl = (statistics.fmean(column) for column in zip(*ends, strict=True))
        line = f"{name:24}{reward:8.2f}{kl:8.2f}"
        if "beta" in name:
            limit, price = found["best"][name.removeprefix("ppo, beta ")]
            line += f"   {limit:22.2f}{price:8.2f}"
        print(line)


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "language.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "language.json")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    found = measure()
    show(found)
    options.data.write_text(json.dumps(found) + "\n")
    draw(found, options.out)


if __name__ == "__main__":
    main()
