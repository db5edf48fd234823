"""Direct preference optimisation (Rafailov et al. 2023) and its kin: a policy learns from pairs, without a reward
model.

From top to bottom: the config with its kin, the loss, the update, the judgement, the loop. What maximises reward less
beta times the divergence from a reference is ``pi(y) = ref(y) exp(r(y) / beta) / Z``. Solved for the reward, that is
``beta log pi(y)/ref(y)`` and something that a pair's two answers share: so the policy is its own reward model. IPO,
ORPO and SimPO are other losses of the same log-probabilities, chosen by type. The run's steps are pairs; its figure is
the share of held-out pairs whose chosen answer gained more.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from torchward.algorithms.pretrain import Patience, precision, schedule
from torchward.config import ConfigError, verify_training
from torchward.data.preferences import (
    Answers,
    Numbers,
    Pairs,
    Preferences,
    PreferenceTask,
    Shuffled,
    answer_log_probs,
    both,
    pieces,
    prepared,
)
from torchward.data.protocols import Episode, Evaluation, Source, on_device
from torchward.data.random import derive, seeded
from torchward.data.reference import Reference
from torchward.data.rollout import Rollout
from torchward.data.sequences import Sequences, TokenSequence
from torchward.functional import preference_losses
from torchward.nets.adamw import AdamW, decayed
from torchward.nets.body import compile_layers
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import LanguageModel, parts
from torchward.nets.lora import Adaptation, LoRA, NoLoRA, adapt, merged
from torchward.nets.sampling import Sampling
from torchward.run import Run


@dataclass(frozen=True)
class DPO:
    """The logistic loss of what the chosen answer gained over the rejected one (Rafailov et al. 2023)."""

    beta: float = 0.1
    """Weight of the divergence from the reference in what is solved: the smaller, the further the policy moves."""
    label_smoothing: float = 0.0
    """The probability that a label is the wrong way round."""


@dataclass(frozen=True)
class IPO:
    """The squared distance of what it gained, per token, from 1 / (2 beta), which certain labels cannot push to
    infinity (Azar et al. 2024)."""

    beta: float = 0.1
    """Half of the inverse of what the chosen answer is to gain."""


@dataclass(frozen=True)
class ORPO:
    """Imitation of the chosen answer, and the logistic loss of the two answers' odds; no reference (Hong et al.
    2024)."""

    beta: float = 0.1
    """Weight of the odds beside imitation: the paper's lambda."""


@dataclass(frozen=True)
class SimPO:
    """The logistic loss of the two answers' mean log-probabilities, less a margin; no reference (Meng et al. 2024)."""

    beta: float = 2.0
    """What the difference is multiplied by."""
    gamma: float = 1.0
    """The margin."""


Loss: TypeAlias = DPO | IPO | ORPO | SimPO


@dataclass(frozen=True)
class Offline:
    """Pairs that the task has."""


@dataclass(frozen=True)
class Online:
    """Pairs of the policy's own answers, of which the one that earns more is chosen (Guo et al. 2024)."""

    generation_batch_size: int = 64
    """Answers of a round."""
    num_generations: int = 2
    """Answers to each prompt: the best and the worst make a pair, if they earned differently."""
    max_completion_length: int | None = None
    """Tokens that an answer may have; None: as many as the task allows."""
    temperature: float = 1.0
    """What logits are divided by in sampling; learning is at temperature 1."""

    def __post_init__(self) -> None:
        if self.num_generations < 2 or self.generation_batch_size % self.num_generations:
            raise ConfigError(
                "expected num_generations of at least 2 that divides generation_batch_size, got "
                f"{self.num_generations} and {self.generation_batch_size}"
            )
        Sampling(self.temperature)  # raises where it cannot be


Data: TypeAlias = Offline | Online


@dataclass(frozen=True)
class Config:
    """DPO's settings, by the names of TRL."""

    total_timesteps: int = 20_000
    """Pairs to learn from, over all epochs."""
    loss: Loss = field(default_factory=DPO)
    """What is minimised."""
    data: Data = field(default_factory=Offline)
    """Where pairs come from."""
    max_length: int = 512
    """Tokens that a prompt with its answer may have."""
    skip_too_long: bool = False
    """Leave out pairs with a longer answer, in place of an error."""
    per_device_train_batch_size: int = 16
    """Pairs that are held in memory at a time; the result does not depend on it."""
    gradient_accumulation_steps: int = 1
    """Batches to one step of the optimiser; the result is that of one large batch."""
    precompute_ref_log_probs: bool = False
    """Ask the reference about every pair once, before the first step, and forget it: less memory, and from the second
    epoch on less time. Nothing changes for a loss without a reference, nor with --data online."""
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
    eval_pairs: int = 512
    """Held-out pairs that an evaluation looks at; the same ones each time."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        names = ("total_timesteps", "max_length", "per_device_train_batch_size", "gradient_accumulation_steps")
        for name in (*names, "eval_pairs", "early_stopping_patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"expected {name} of at least 1, got {value}")
        if not 0.0 <= self.warmup_ratio <= 1.0 or not self.loss.beta > 0.0:
            raise ConfigError(
                f"expected warmup_ratio within [0, 1] and beta above 0, got {self.warmup_ratio} and {self.loss.beta}"
            )
        if isinstance(self.loss, DPO) and not 0.0 <= self.loss.label_smoothing < 0.5:
            raise ConfigError(f"expected label_smoothing within [0, 0.5), got {self.loss.label_smoothing}")

    @property
    def has_reference(self) -> bool:
        """Whether answers are compared with what a reference thinks of them."""
        return isinstance(self.loss, DPO | IPO)


def losses(loss: Loss, log_prob: Tensor, reference: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """What each pair costs, ``[P]``, and the rewards of its two answers, ``[2, P]``, as the loss means them.

    ``log_prob``, ``reference`` and ``count`` are of ``2 P`` answers, the chosen ones before the rejected ones: sums
    over their tokens, and how many they have."""
    mean = log_prob / count
    chosen, rejected = (log_prob - reference).chunk(2)
    match loss:
        case DPO(beta, smoothing):
            return preference_losses.dpo(chosen, rejected, beta, smoothing), beta * torch.stack([chosen, rejected])
        case IPO(beta):
            chosen, rejected = ((log_prob - reference) / count).chunk(2)
            return preference_losses.ipo(chosen, rejected, beta), beta * torch.stack([chosen, rejected])
        case ORPO(beta):
            chosen, rejected = mean.chunk(2)
            cost = -chosen + beta * preference_losses.odds_ratio(chosen, rejected)
            return cost, beta * torch.stack([chosen, rejected])
        case SimPO(beta, gamma):
            chosen, rejected = mean.chunk(2)
            return preference_losses.simpo(chosen, rejected, beta, gamma), beta * torch.stack([chosen, rejected])


class Learner:
    """The policy's optimiser, its reference, and the update."""

    def __init__(self, policy: LanguageModel, config: Config) -> None:
        self.policy, self.config = policy, config
        # Of new adapters the base is what the run began with: it needs no copy.
        self.reference = Reference(policy, isinstance(config.lora, LoRA)) if config.has_reference else None
        self.optimizer = AdamW(
            decayed(policy.parameters(), config.weight_decay), config.learning_rate,
            (config.adam_beta1, config.adam_beta2),
        )  # fmt: skip
        policy.eval()  # without dropout: a log-ratio is of two policies, not of two draws of one
        policy.body.checkpointing = config.gradient_checkpointing
        if config.torch_compile:
            compile_layers(policy.body, same_shapes=False)

    def precompute(self, pairs: Pairs, pad_id: int) -> Tensor:
        """What the reference thinks of the chosen and rejected answers of all pairs, ``[2, P]``."""
        numbers, found = np.arange(len(pairs)), torch.zeros(2, len(pairs))
        assert self.reference is not None
        for places in pieces(numbers, pairs.steps, self.config.per_device_train_batch_size):
            answers = both(pairs, numbers[places], pad_id, self.config.device)
            with precision(self.config):
                found[:, torch.from_numpy(places)] = self.reference.log_probs(answers).view(2, -1).cpu()
        return found

    def costs(self, answers: Answers, known: Tensor | None) -> tuple[Tensor, Tensor]:
        """:func:`losses` of some pairs; ``known`` is what the reference thinks of them, where that was computed
        before."""
        config = self.config
        with precision(config):
            log_prob = answer_log_probs(self.policy, answers)
            if known is not None:
                reference = known.to(log_prob.device)
            elif self.reference is not None:
                reference = self.reference.log_probs(answers)
            else:
                reference = torch.zeros_like(log_prob)
        return losses(config.loss, log_prob.float(), reference, answers.lengths)

    def update(self, pairs: Pairs, numbers: Numbers, pad_id: int, known: Tensor | None) -> dict[str, Tensor | float]:
        """One step of the optimiser on the mean over some pairs."""
        self.optimizer.zero_grad()
        n = len(numbers)
        cost, rewards, right = torch.zeros(()), torch.zeros(2), torch.zeros(())
        for places in pieces(numbers, pairs.steps, self.config.per_device_train_batch_size):
            some = numbers[places]
            kept = None if known is None else known[:, torch.from_numpy(some)].flatten()
            each, reward = self.costs(both(pairs, some, pad_id, self.config.device), kept)
            (each.sum() / n).backward()
            reward = reward.detach().cpu()
            cost, rewards = cost + each.detach().sum().cpu(), rewards + reward.sum(1)
            right = right + (reward[0] > reward[1]).sum()
        norm = self.optimizer.step(self.config.max_grad_norm)
        return {
            "loss": cost / n,
            "accuracy": right / n,
            "rewards/chosen": rewards[0] / n,
            "rewards/rejected": rewards[1] / n,
            "rewards/margin": (rewards[0] - rewards[1]) / n,
            "grad_norm": norm,
            "learning_rate": self.optimizer.lr,
        }

    @torch.no_grad()
    def judge(self, pairs: Pairs, pad_id: int, known: Tensor | None) -> tuple[Evaluation, dict[str, float]]:
        """The share of held-out pairs whose chosen answer gained more, a tie counting half; loss and margin of them."""
        numbers = np.arange(min(self.config.eval_pairs, len(pairs)))
        cost, margin, right = 0.0, 0.0, 0.0
        for places in pieces(numbers, pairs.steps, self.config.per_device_train_batch_size):
            some = numbers[places]
            kept = None if known is None else known[:, torch.from_numpy(some)].flatten()
            each, reward = self.costs(both(pairs, some, pad_id, self.config.device), kept)
            better = reward[0] - reward[1]
            cost, margin = cost + float(each.sum()), margin + float(better.sum())
            right += float((better > 0).sum()) + 0.5 * float((better == 0).sum())
        n = len(numbers)
        return Evaluation([right / n], [2 * n]), {"eval/loss": cost / n, "eval/margin": margin / n}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def ranked(rollout: Rollout, vocab_size: int) -> Pairs | None:
    """The best and the worst answer to each prompt of a rollout; None where no prompt has two that earned
    differently."""
    tokens, _ = parts(rollout.observation)
    action, group = rollout.action, rollout.context["group"]
    assert isinstance(action, Tensor) and isinstance(group, Tensor)
    reward = torch.where(rollout.loss_mask, rollout.reward, 0.0).sum(1)
    chosen, rejected, margin = list[TokenSequence](), list[TokenSequence](), list[float]()
    for prompt in group.unique(sorted=True):
        rows = (group == prompt).nonzero().squeeze(1)
        best, worst = rows[reward[rows].argmax()], rows[reward[rows].argmin()]
        if float(reward[best]) > float(reward[worst]):
            for side, row in ((chosen, best), (rejected, worst)):
                own = rollout.loss_mask[row]
                end = int(own.nonzero().max()) + 1
                ids = [*tokens[row, :end].tolist(), int(action[row, end - 1])]
                side.append(TokenSequence(ids, [False, *own[:end].tolist()]))
            margin.append(float(reward[best] - reward[worst]))
    if not chosen:
        return None
    made = [Sequences.of(side, vocab_size) for side in (chosen, rejected)]
    return Pairs(made[0], made[1], np.array(margin, np.float32))


def train(config: Config, task: PreferenceTask, run: Run, policy: LanguageModel | None = None) -> LanguageModel:
    """Tune ``policy`` to what is preferred, and return it."""
    if policy is None:
        raise ConfigError("expected a model to tune: give a fine-tuned run's, with init")
    keep_freed()
    policy = on_device(policy, config.device)
    if isinstance(config.lora, LoRA):
        with seeded(config.seed, "adapters"):
            policy = adapt(merged(policy), config.lora)
    policy.sampling = Sampling()  # an answer's probability is that at temperature 1
    if isinstance(config.data, Online):
        return _online(config, config.data, task, run, policy)
    data: Preferences = prepared(
        task.preferences(), policy.vocabulary, config.max_length, policy.config.max_position_embeddings,
        config.skip_too_long,
    )  # fmt: skip
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    cursor = Shuffled(len(data.train), size, derive(config.seed, "pairs"), data.train.fingerprint)
    learner, patience = Learner(policy, config), Patience(config.early_stopping_patience)
    known: tuple[Tensor | None, Tensor | None] = (None, None)
    if config.precompute_ref_log_probs and config.has_reference:
        known = (learner.precompute(data.train, data.pad_id), learner.precompute(data.validation, data.pad_id))
        learner.reference = None
    run.judge_by("accuracy", lower_is_better=False)
    run.say(data.left_out)
    with run:
        run.track(policy=policy, learner=learner, cursor=cursor, patience=patience)
        while not run.done and not patience.lost:
            learner.optimizer.lr = config.learning_rate * schedule(config, run.step / run.total)
            metrics = learner.update(data.train, cursor.next(), data.pad_id, known[0])
            run.advance(size, [Episode(float(metrics["accuracy"]), 2 * size)])
            run.log({**metrics, "epochs": cursor.epochs})
            if run.due("evaluate"):
                judged, more = learner.judge(data.validation, data.pad_id, known[1])
                patience.saw(run.evaluation(judged, policy, more))
            if run.due("checkpoint"):
                run.save()
        run.finish(policy)
    return policy


def _online(config: Config, data: Online, task: PreferenceTask, run: Run, policy: LanguageModel) -> LanguageModel:
    """The loop on pairs of the policy's own answers, judged by what they earn. It is evaluated by what it earns."""
    source: Source = task.source(
        data.generation_batch_size, config.seed, config.device, num_generations=data.num_generations
    )
    learner, patience = Learner(policy, config), Patience(config.early_stopping_patience)
    with run:
        run.track(policy=policy, learner=learner, source=source, patience=patience)
        while not run.done and not patience.lost:
            learner.optimizer.lr = config.learning_rate * schedule(config, run.step / run.total)
            policy.sampling = Sampling(data.temperature)
            rollout = source.collect(policy, data.max_completion_length)
            policy.sampling = Sampling()
            pairs = ranked(rollout, policy.config.vocab_size)
            metrics: dict[str, Tensor | float] = {"pairs": 0.0 if pairs is None else float(len(pairs))}
            if pairs is not None:
                metrics |= learner.update(pairs, np.arange(len(pairs)), 0, None)
            run.advance(data.generation_batch_size // data.num_generations, source.episodes())
            run.log(metrics)
            if run.due("evaluate"):
                seed = derive(config.seed, "evaluation")
                patience.saw(run.evaluation(task.evaluate(policy, run.options.n_eval_episodes, seed), policy))
            if run.due("checkpoint"):
                source.cut()
                run.save()
        run.finish(policy)
    source.close()
    return policy
