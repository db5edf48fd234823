"""KTO (Ethayarajh et al. 2024): a policy learns from answers that were judged alone, as good or as bad.

From top to bottom: the config, the loss, the update, the judgement, the loop. A desirable answer is worth what it
gained over a reference point, on a curve that flattens as people's sense of gains does; so is what an undesirable one
lost. The reference point is how far the policy has moved from where it began, which answers to other prompts tell. The
run's steps are answers; its figure is how often a desirable answer gained more than an undesirable one.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torchward.algorithms.pretrain import Patience, precision, schedule
from torchward.config import ConfigError, verify_training
from torchward.data.preferences import (
    Judgements,
    Numbers,
    PreferenceTask,
    Rated,
    Shuffled,
    answer_log_probs,
    mismatched,
    pieces,
    prepared,
    rows_of,
)
from torchward.data.protocols import Episode, Evaluation, on_device
from torchward.data.random import derive, seeded
from torchward.data.reference import Reference
from torchward.functional.preference_losses import kto
from torchward.nets.adamw import AdamW, decayed
from torchward.nets.body import compile_layers
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import Adaptation, LoRA, NoLoRA, adapt, merged
from torchward.nets.sampling import Sampling
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """KTO's settings, by the names of TRL."""

    total_timesteps: int = 20_000
    """Answers to learn from, over all epochs."""
    beta: float = 0.1
    """Weight of the divergence from the reference in what is solved: the smaller, the further the policy moves."""
    desirable_weight: float = 1.0
    """Weight of a good answer. The paper: so that good and bad ones, by number and weight, stand between 1:1 and
    4:3."""
    undesirable_weight: float = 1.0
    """Weight of a bad answer."""
    max_length: int = 512
    """Tokens that a prompt with its answer may have."""
    skip_too_long: bool = False
    """Leave out longer answers, in place of an error."""
    per_device_train_batch_size: int = 16
    """Answers that are held in memory at a time; the result does not depend on it."""
    gradient_accumulation_steps: int = 1
    """Batches to one step of the optimiser; the reference point is taken over all of them."""
    lora: Adaptation = field(default_factory=NoLoRA)
    """Tune the model itself, or low-rank adapters beside it; the reference is then the model without them."""
    learning_rate: float = 1e-5
    """AdamW's highest step size."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "linear"
    """How it falls behind the warm-up: to a tenth at the last step, or not at all."""
    warmup_ratio: float = 0.1
    """Share of the run over which it rises from 0."""
    weight_decay: float = 0.0
    """Share of each matrix that is taken away at a step, times the step size."""
    adam_beta1: float = 0.9
    """Adam's memory of the gradient."""
    adam_beta2: float = 0.999
    """Adam's memory of the squared gradient."""
    max_grad_norm: float = 1.0
    """Norm to which the gradient of all parameters together is clipped."""
    bf16: bool = False
    """Compute products in bfloat16, where the hardware is made for it; parameters and losses stay in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    torch_compile: bool = False
    """Let PyTorch's compiler join what a layer computes; on a CPU little is gained by it, after half a minute."""
    early_stopping_patience: int | None = None
    """Stop after so many evaluations in a row that are worse than the best before; None: never."""
    eval_answers: int = 512
    """Held-out answers that an evaluation looks at; the same ones each time."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        names = ("total_timesteps", "max_length", "per_device_train_batch_size", "gradient_accumulation_steps")
        for name in (*names, "eval_answers", "early_stopping_patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"expected {name} of at least 1, got {value}")
        if self.per_device_train_batch_size * self.gradient_accumulation_steps < 2:
            raise ConfigError(
                "expected batches of at least 2 answers: the reference point is of answers to other prompts"
            )
        if min(self.desirable_weight, self.undesirable_weight) < 0.0 or not self.beta > 0.0:
            raise ConfigError(
                "expected beta above 0 and weights of at least 0, got "
                f"{self.beta}, {self.desirable_weight} and {self.undesirable_weight}"
            )
        if not 0.0 <= self.warmup_ratio <= 1.0:
            raise ConfigError(f"expected warmup_ratio within [0, 1], got {self.warmup_ratio}")


class Learner:
    """The policy's optimiser, its reference, and the update."""

    def __init__(self, policy: LanguageModel, config: Config) -> None:
        self.policy, self.config = policy, config
        # Of new adapters the base is what the run began with: it needs no copy.
        self.reference = Reference(policy, isinstance(config.lora, LoRA))
        self.optimizer = AdamW(
            decayed(policy.parameters(), config.weight_decay), config.learning_rate,
            (config.adam_beta1, config.adam_beta2),
        )  # fmt: skip
        policy.eval()  # without dropout: a log-ratio is of two policies, not of two draws of one
        policy.body.checkpointing = config.gradient_checkpointing
        if config.torch_compile:
            compile_layers(policy.body, same_shapes=False)

    @torch.no_grad()
    def reference_point(self, rated: Rated, numbers: Numbers, pad_id: int) -> Tensor:
        """How far the policy has moved, of at least 0: the mean log-ratio of answers behind other answers' prompts
        (Ethayarajh et al. 2024, section 4.1)."""
        gained = torch.zeros(())
        order = numbers[np.argsort(-rated.steps[numbers], kind="stable")]
        longest = min(self.config.max_length, self.policy.config.max_position_embeddings)
        answers = mismatched(rated.answers, order, pad_id, longest, self.config.device)
        for rows in torch.arange(len(order)).split(self.config.per_device_train_batch_size):
            some = type(answers)(answers.tokens[rows], answers.targets[rows])
            with precision(self.config):
                gained = gained + (answer_log_probs(self.policy, some) - self.reference.log_probs(some)).sum().cpu()
        return (gained / len(numbers)).clamp_min(0.0)

    def gains(self, rated: Rated, numbers: Numbers, pad_id: int) -> Tensor:
        """``log pi/ref`` of each answer ``[N]``."""
        answers = rows_of(rated.answers, numbers, pad_id, self.config.device)
        with precision(self.config):
            return answer_log_probs(self.policy, answers).float() - self.reference.log_probs(answers)

    def update(self, rated: Rated, numbers: Numbers, pad_id: int) -> dict[str, Tensor | float]:
        """One step of the optimiser on the mean over some answers."""
        config, n = self.config, len(numbers)
        point = self.reference_point(rated, numbers, pad_id)
        self.optimizer.zero_grad()
        cost, gains, desirable = torch.zeros(()), torch.zeros(n), torch.from_numpy(rated.desirable[numbers])
        for places in pieces(numbers, rated.steps, config.per_device_train_batch_size):
            gained = self.gains(rated, numbers[places], pad_id)
            good = desirable[torch.from_numpy(places)].to(config.device)
            each = kto(
                gained, good, point.to(gained.device), config.beta, config.desirable_weight, config.undesirable_weight
            )
            (each.sum() / n).backward()
            cost = cost + each.detach().sum().cpu()
            gains[torch.from_numpy(places)] = gained.detach().cpu()
        norm = self.optimizer.step(config.max_grad_norm)
        sides = {"rewards/desirable": gains[desirable], "rewards/undesirable": gains[~desirable]}
        return {
            "loss": cost / n,
            "kl": point,
            "accuracy": ordered(gains, desirable),
            **{name: config.beta * side.mean() for name, side in sides.items() if len(side)},
            "grad_norm": norm,
            "learning_rate": self.optimizer.lr,
        }

    @torch.no_grad()
    def judge(self, rated: Rated, pad_id: int) -> Evaluation:
        """How often a held-out desirable answer gained more than an undesirable one, over all such pairs; a tie counts
        half. It is the area under the curve of telling them apart."""
        numbers = np.arange(min(self.config.eval_answers, len(rated)))
        gained = torch.zeros(len(numbers))
        for places in pieces(numbers, rated.steps, self.config.per_device_train_batch_size):
            gained[torch.from_numpy(places)] = self.gains(rated, numbers[places], pad_id).cpu()
        return Evaluation([ordered(gained, torch.from_numpy(rated.desirable[numbers]))], [len(numbers)])

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def ordered(gained: Tensor, desirable: Tensor) -> float:
    """The share of all pairs of a desirable and an undesirable answer of which the first gained more; 0.5 without
    any."""
    difference = gained[desirable][:, None] - gained[~desirable]
    if not difference.numel():
        return 0.5
    return float((difference > 0).float().mean() + 0.5 * (difference == 0).float().mean())


def train(config: Config, task: PreferenceTask, run: Run, policy: LanguageModel | None = None) -> LanguageModel:
    """Tune ``policy`` to what was judged well, and return it."""
    if policy is None:
        raise ConfigError("expected a model to tune: give a fine-tuned run's, with init")
    keep_freed()
    policy = on_device(policy, config.device)
    if isinstance(config.lora, LoRA):
        with seeded(config.seed, "adapters"):
            policy = adapt(merged(policy), config.lora)
    policy.sampling = Sampling()  # an answer's probability is that at temperature 1
    data: Judgements = prepared(
        task.judgements(), policy.vocabulary, config.max_length, policy.config.max_position_embeddings,
        config.skip_too_long,
    )  # fmt: skip
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    cursor = Shuffled(len(data.train), size, derive(config.seed, "answers"), data.train.fingerprint)
    learner, patience = Learner(policy, config), Patience(config.early_stopping_patience)
    run.judge_by("accuracy", lower_is_better=False)
    run.say(data.left_out)
    with run:
        run.track(policy=policy, learner=learner, cursor=cursor, patience=patience)
        while not run.done and not patience.lost:
            learner.optimizer.lr = config.learning_rate * schedule(config, run.step / run.total)
            metrics = learner.update(data.train, cursor.next(), data.pad_id)
            run.advance(size, [Episode(float(metrics["accuracy"]), size)])
            run.log({**metrics, "epochs": cursor.epochs})
            if run.due("evaluate"):
                patience.saw(run.evaluation(learner.judge(data.validation, data.pad_id), policy))
            if run.due("checkpoint"):
                run.save()
        run.finish(policy)
    return policy
