"""Reward models: what people prefer, learnt from pairs of answers (Bradley and Terry 1952; Ouyang et al. 2022).

From top to bottom: the config, the loss, the update, the judgement, the loop. A model that can write becomes one that
judges: its head over the vocabulary is replaced by one number, read at the end of an answer. The run's steps are pairs;
its figure is the share of held-out pairs that it orders as people did.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from torchward.algorithms.pretrain import Patience, precision, schedule
from torchward.config import ConfigError, verify_training
from torchward.data.preferences import (
    Answers,
    Pairs,
    Preferences,
    PreferenceTask,
    Shuffled,
    both,
    by_length,
    pieces,
    prepared,
)
from torchward.data.protocols import Episode, Evaluation
from torchward.data.random import derive, seeded
from torchward.functional.calibration import Reliability, reliability
from torchward.functional.preference_losses import bradley_terry, centring
from torchward.nets.adamw import AdamW, decayed
from torchward.nets.body import compile_layers
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import Adaptation, LoRA, NoLoRA, merged
from torchward.nets.masked_language_model import MaskedLanguageModel
from torchward.nets.reward_model import RewardModel, adapted
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """Reward modelling's settings, by the names of TRL."""

    total_timesteps: int = 20_000
    """Pairs to compare, over all epochs."""
    max_length: int = 512
    """Tokens that a prompt with its answer may have."""
    skip_too_long: bool = False
    """Leave out pairs with a longer answer, in place of an error."""
    per_device_train_batch_size: int = 16
    """Pairs that are held in memory at a time."""
    gradient_accumulation_steps: int = 1
    """Batches to one step of the optimiser; the result is that of one large batch."""
    center_rewards_coefficient: float = 0.01
    """Weight of the squared sum of a pair's rewards, which holds them about 0; 0: none."""
    num_members: int = 1
    """Networks that are trained beside each other, each on pairs in an order of its own; what they disagree about can
    be judged with caution."""
    learning_rate: float = 1e-4
    """AdamW's highest step size."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "linear"
    """How it falls behind the warm-up: to a tenth at the last step, or not at all."""
    warmup_ratio: float = 0.05
    """Share of the run over which it rises from 0."""
    weight_decay: float = 0.0
    """Share of each matrix that is taken away at a step, times the step size."""
    adam_beta1: float = 0.9
    """Adam's memory of the gradient."""
    adam_beta2: float = 0.999
    """Adam's memory of the squared gradient."""
    max_grad_norm: float = 1.0
    """Norm to which a member's gradient of all parameters together is clipped."""
    lora: Adaptation = field(default_factory=NoLoRA)
    """Tune the model itself, or low-rank adapters beside it; the head is always tuned."""
    bf16: bool = False
    """Compute products in bfloat16, where the hardware is made for it; parameters and losses stay in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    torch_compile: bool = False
    """Let PyTorch's compiler join what a layer computes; on a CPU little is gained by it, after half a minute."""
    early_stopping_patience: int | None = None
    """Stop after so many evaluations in a row that are worse than the best before; None: never."""
    eval_pairs: int = 512
    """Held-out pairs that an evaluation looks at; the same ones each time."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        names = ("total_timesteps", "max_length", "per_device_train_batch_size", "gradient_accumulation_steps")
        for name in (*names, "num_members", "eval_pairs", "early_stopping_patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"expected {name} of at least 1, got {value}")
        if not 0.0 <= self.warmup_ratio <= 1.0 or self.center_rewards_coefficient < 0.0:
            raise ConfigError(
                "expected warmup_ratio within [0, 1] and center_rewards_coefficient of at least 0, got "
                f"{self.warmup_ratio} and {self.center_rewards_coefficient}"
            )


def loss(model: RewardModel, member: int, answers: Answers, margin: Tensor, centre: float) -> tuple[Tensor, Tensor]:
    """What each pair costs a member, ``[P]``, and by how much it finds the chosen answer better. ``answers`` are the
    chosen ones, and below them the rejected ones."""
    chosen, rejected = said(model, member, answers).chunk(2)
    cost = bradley_terry(chosen, rejected, margin)
    if centre:
        cost = cost + centre * centring(chosen, rejected)
    return cost, (chosen - rejected).detach()


def said(model: RewardModel, member: int, answers: Answers) -> Tensor:
    """What a member says of each answer ``[N]``: of the text with the last token that the answer has."""

    def of(some: Answers) -> Tensor:
        steps = (some.targets >= 0) * torch.arange(1, some.targets.shape[1] + 1, device=some.targets.device)
        length = steps.amax(1) + 1
        tokens = torch.nn.functional.pad(some.tokens, (0, 1))
        last = some.targets.gather(1, (length - 2)[:, None])
        return model.raw(tokens.scatter(1, (length - 1)[:, None], last), length, member)

    return by_length(answers, of)


class Learner:
    """The members' optimisers, and the update."""

    def __init__(self, model: RewardModel, config: Config) -> None:
        self.model, self.config = model, config
        self.optimizers = [
            AdamW(
                decayed([*model.bodies[i].parameters(), *model.heads[i].parameters()], config.weight_decay),
                config.learning_rate,
                (config.adam_beta1, config.adam_beta2),
            )
            for i in range(model.members)
        ]
        body: Any
        for body in model.bodies:
            body.checkpointing = config.gradient_checkpointing
            if config.torch_compile:
                compile_layers(body, same_shapes=False)

    def update(self, member: int, pairs: Pairs, numbers: Any, pad_id: int) -> dict[str, Tensor | float]:
        """One step of a member's optimiser on the mean over some pairs."""
        config, optimizer = self.config, self.optimizers[member]
        cost, right, margin = torch.zeros(()), torch.zeros(()), torch.zeros(())
        optimizer.zero_grad()
        for places in pieces(numbers, pairs.steps, config.per_device_train_batch_size):
            some = numbers[places]
            with precision(config):
                each, better = loss(
                    self.model, member, both(pairs, some, pad_id, config.device),
                    torch.from_numpy(pairs.margin[some]).to(config.device), config.center_rewards_coefficient,
                )  # fmt: skip
            (each.sum() / len(numbers)).backward()
            cost, right = cost + each.detach().sum().cpu(), right + (better > 0).sum().cpu()
            margin = margin + better.sum().cpu()
        norm, n = optimizer.step(config.max_grad_norm), len(numbers)
        return {"loss": cost / n, "accuracy": right / n, "margin": margin / n, "grad_norm": norm}

    def anneal(self, progress: float) -> float:
        """Set the learning rate, and return it."""
        for optimizer in self.optimizers:
            optimizer.lr = self.config.learning_rate * schedule(self.config, progress)
        return self.optimizers[0].lr

    def state_dict(self) -> dict[str, Any]:
        return {f"optimizer{i}": optimizer.state_dict() for i, optimizer in enumerate(self.optimizers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state[f"optimizer{i}"])


@torch.no_grad()
def rewards(model: RewardModel, pairs: Pairs, pad_id: int, config: Config, count: int) -> Tensor:
    """``[members, 2, P]`` What members say of the chosen and of the rejected answers of the first ``count`` pairs,
    without their offsets."""
    import numpy as np

    model.eval()
    numbers = np.arange(min(count, len(pairs)))
    found = torch.zeros(model.members, 2, len(numbers))
    for places in pieces(numbers, pairs.steps, config.per_device_train_batch_size):
        answers = both(pairs, numbers[places], pad_id, config.device)
        for member in range(model.members):
            with precision(config):
                found[member, :, torch.from_numpy(places)] = said(model, member, answers).view(2, -1).cpu()
    return found


def judge(said: Tensor) -> tuple[Evaluation, dict[str, float]]:
    """The share of pairs that the members' mean orders as people did, a tie counting half; and how that spreads."""
    better = (said[:, 0] - said[:, 1]).mean(0)
    right = (better > 0).float() + 0.5 * (better == 0).float()
    metrics = {
        "eval/loss": float(bradley_terry(*said.mean(0)).mean()),
        "eval/margin": float(better.mean()),
        "eval/calibration_error": calibration(said).error,
    }
    if len(said) > 1:
        metrics["eval/disagreement"] = float((said[:, 0] - said[:, 1]).std(0, correction=0).mean())
    return Evaluation([float(right.mean())], [2 * len(better)]), metrics


def calibration(said: Tensor) -> Reliability:
    """How often people picked an answer to which the model gave a probability. Each pair counts from both sides: the
    one says p of its answer, the other 1 - p of its own."""
    better = (said[:, 0] - said[:, 1]).mean(0)
    picked = torch.ones_like(better, dtype=torch.bool)
    return reliability(torch.cat([better, -better]).sigmoid(), torch.cat([picked, ~picked]))


def compared(
    config: Config, task: PreferenceTask, model: LanguageModel | MaskedLanguageModel | RewardModel
) -> Preferences:
    """The pairs that a model learns from and is judged by. Raises ConfigError where their words are not the model's, or
    answers are too long for it."""
    found: Preferences = prepared(
        task.preferences(), model.vocabulary, config.max_length, model.config.max_position_embeddings,
        config.skip_too_long,
    )  # fmt: skip
    return found


def train(
    config: Config, task: PreferenceTask, run: Run, policy: LanguageModel | MaskedLanguageModel | None = None
) -> RewardModel:
    """Learn the preferences of ``task``, beginning from what ``policy``, which writes or fills gaps, knows of its
    language; return the model."""
    if policy is None:
        raise ConfigError("expected a model that knows the language, to judge it: give a pretrained run's, with init")
    keep_freed()
    data = compared(config, task, policy)
    with seeded(config.seed, "reward model"):
        model = RewardModel.of(merged(policy).body, policy.vocabulary, config.num_members)
        if isinstance(config.lora, LoRA):
            adapted(model, config.lora)
    model = model.to(config.device)
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    cursors = {
        f"cursor{i}": Shuffled(len(data.train), size, derive(config.seed, f"pairs {i}"), data.train.fingerprint)
        for i in range(model.members)
    }
    learner, patience = Learner(model, config), Patience(config.early_stopping_patience)
    run.judge_by("accuracy", lower_is_better=False)
    run.say(data.left_out)
    with run:
        run.track(policy=model, learner=learner, patience=patience, **cursors)
        while not run.done and not patience.lost:
            rate = learner.anneal(run.step / run.total)
            model.train()
            each = [
                learner.update(member, data.train, cursor.next(), data.pad_id)
                for member, cursor in enumerate(cursors.values())
            ]
            metrics = {name: sum(float(one[name]) for one in each) / len(each) for name in each[0]}
            run.advance(size, [Episode(float(metrics["accuracy"]), 2 * size)])
            run.log({**metrics, "learning_rate": rate, "epochs": cursors["cursor0"].epochs})
            if run.due("evaluate"):
                centre(model, data, config)
                held_out, more = judge(rewards(model, data.validation, data.pad_id, config, config.eval_pairs))
                patience.saw(run.evaluation(held_out, model, more))
            if run.due("checkpoint"):
                run.save()
        centre(model, data, config)
        kept = calibration(rewards(model, data.validation, data.pad_id, config, config.eval_pairs))
        run.calibration(kept.said.tolist(), kept.came.tolist(), kept.size.tolist(), kept.error)
        run.finish(model.eval())
    return model


def centre(model: RewardModel, data: Preferences, config: Config) -> None:
    """Let what each member says of the pairs that it learnt from be 0 on average."""
    model.offset.copy_(rewards(model, data.train, data.pad_id, config, config.eval_pairs).mean((1, 2)))
