"""Group relative policy optimisation (Shao et al. 2024): answers to one prompt are judged against each other.

From top to bottom: the config with its kin, the credit, the loss, the update, the loop. No critic: what an answer is
worth, its group says. Dr. GRPO, DAPO, RLOO, REINFORCE++ and GSPO differ from it in three places, each of which is a
type: how a reward becomes an advantage, what is clipped, and what the mean is taken over.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from torchward.config import ConfigError, verify_training
from torchward.data.kl import KLToReference, frozen
from torchward.data.protocols import Shaping, on_device
from torchward.data.random import derive, generator, seeded
from torchward.data.rollout import Batch, Rollout
from torchward.data.texts import GroupTask
from torchward.functional.advantages import group_relative, leave_one_out, standardise
from torchward.functional.divergences import k3
from torchward.functional.policy_losses import clipped_surrogate
from torchward.functional.reduction import constant_mean, sequence_mean, token_mean
from torchward.functional.schedules import warmup_constant, warmup_linear
from torchward.nets.adamw import AdamW, decayed
from torchward.nets.body import compile_layers
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import Adaptation, LoRA, NoLoRA, adapt, merged, without_adapters
from torchward.nets.sampling import Sampling
from torchward.run import Run


@dataclass(frozen=True)
class GroupRelative:
    """A reward less the mean of its group, in the group's deviations (GRPO); unscaled in Dr. GRPO."""

    scale_rewards: bool = True
    """Divide by the deviation: groups that nearly agree then count as much as any."""


@dataclass(frozen=True)
class LeaveOneOut:
    """A reward less the mean of the others in its group (RLOO)."""


@dataclass(frozen=True)
class WholeBatch:
    """A reward less the mean of all, in the deviations of all (REINFORCE++, Hu 2025)."""


@dataclass(frozen=True)
class TokenClip:
    """The ratio of each token is clipped (PPO)."""

    epsilon: float = 0.2
    """How far it may fall below 1."""
    epsilon_high: float | None = None
    """How far it may rise above 1; None: as far (DAPO: 0.28)."""

    def __post_init__(self) -> None:
        _check_clip(self.epsilon, self.epsilon_high)


@dataclass(frozen=True)
class SequenceClip:
    """The ratio of a whole answer is clipped, as the geometric mean of its tokens' (GSPO, Zheng et al. 2025)."""

    epsilon: float = 3e-4
    """How far it may fall below 1."""
    epsilon_high: float | None = 4e-4
    """How far it may rise above 1; None: as far."""

    def __post_init__(self) -> None:
        _check_clip(self.epsilon, self.epsilon_high)


def _check_clip(low: float, high: float | None) -> None:
    if not (0.0 <= low <= 1.0 and (high is None or high >= 0.0)):
        raise ConfigError(f"expected epsilon within [0, 1] and epsilon_high of at least 0, got {low} and {high}")


@dataclass(frozen=True)
class SequenceMean:
    """Each answer counts the same, so a token of a long one less (GRPO)."""


@dataclass(frozen=True)
class TokenMean:
    """Each token counts the same, so a long answer more (DAPO)."""


@dataclass(frozen=True)
class ConstantMean:
    """The sum over an answer's tokens, over one and the same length for all (Dr. GRPO)."""


Credit: TypeAlias = GroupRelative | LeaveOneOut | WholeBatch
Clip: TypeAlias = TokenClip | SequenceClip
Normalisation: TypeAlias = SequenceMean | TokenMean | ConstantMean


@dataclass(frozen=True)
class Config:
    """GRPO's settings, by the names of TRL."""

    total_timesteps: int = 500_000
    """Tokens to write and learn from, over all completions."""
    num_generations: int = 8
    """Completions of each prompt: a group."""
    generation_batch_size: int = 64
    """Completions of a rollout."""
    steps_per_generation: int = 1
    """Steps of the optimiser that a rollout is divided into."""
    num_iterations: int = 1
    """How often a rollout is learnt from."""
    per_device_train_batch_size: int = 16
    """Completions whose activations are held at a time; the result does not depend on it."""
    max_completion_length: int | None = None
    """Tokens that a completion may have, if the task allows as many; None: what the task allows."""
    mask_truncated_completions: bool = False
    """Learn nothing from completions that the length ended (DAPO's overlong filtering)."""
    temperature: float = 1.0
    """What logits are divided by, in sampling and in learning."""
    top_k: int | None = None
    """Sample among this many of the likeliest tokens; None: all."""
    top_p: float | None = None
    """Sample among the fewest likeliest tokens with this probability together; None: all."""
    credit: Credit = field(default_factory=GroupRelative)
    """How a reward becomes an advantage."""
    clip: Clip = field(default_factory=TokenClip)
    """What is clipped."""
    normalisation: Normalisation = field(default_factory=SequenceMean)
    """What the mean is taken over."""
    beta: float = 0.0
    """Weight of the divergence from the policy that the run began with; 0: there is no reference."""
    entropy_coef: float = 0.0
    """Weight of the entropy of each token, which is added to what the policy is to gain; 0: none."""
    lora: Adaptation = field(default_factory=NoLoRA)
    """Tune the model itself, or low-rank adapters beside it."""
    learning_rate: float = 1e-4
    """AdamW's highest step size."""
    lr_scheduler_type: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    warmup_ratio: float = 0.0
    """Share of the run over which it rises from 0."""
    weight_decay: float = 0.0
    """Share of each matrix that is taken away at a step, times the step size."""
    max_grad_norm: float = 1.0
    """Norm to which the gradient of all parameters together is clipped."""
    torch_compile: bool = False
    """Let PyTorch's compiler join what a layer computes; on a CPU little is gained by it, after half a minute."""
    cuda_graphs: bool = False
    """On a GPU, record the steps by which completions are written, and replay them."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        names = ("total_timesteps", "num_generations", "generation_batch_size", "steps_per_generation")
        for name in (*names, "num_iterations", "per_device_train_batch_size", "max_completion_length"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"expected {name} of at least 1, got {value}")
        if self.generation_batch_size % self.num_generations:
            raise ConfigError(
                f"expected generation_batch_size a multiple of num_generations={self.num_generations}, got "
                f"{self.generation_batch_size}"
            )
        if self.steps_per_generation > self.generation_batch_size:
            raise ConfigError(
                f"expected steps_per_generation of at most generation_batch_size={self.generation_batch_size}, an "
                f"answer for each, got {self.steps_per_generation}"
            )
        together = "generation_batch_size" if isinstance(self.credit, WholeBatch) else "num_generations"
        if getattr(self, together) < 2:
            raise ConfigError(f"expected {together} of at least 2: answers teach nothing but by comparison")
        if not 0.0 <= self.warmup_ratio <= 1.0 or min(self.beta, self.entropy_coef) < 0.0:
            raise ConfigError(
                "expected warmup_ratio within [0, 1], beta of at least 0 and entropy_coef of at least 0, got "
                f"{self.warmup_ratio}, {self.beta} and {self.entropy_coef}"
            )
        Sampling(self.temperature, self.top_k, self.top_p)  # raises where they cannot be

    @property
    def sampling(self) -> Sampling:
        """What completions are drawn from."""
        return Sampling(self.temperature, self.top_k, self.top_p)


def dr_grpo(config: Config) -> Config:
    """GRPO done right (Liu et al. 2025): neither a group's deviation nor an answer's length changes its weight."""
    return replace(config, credit=GroupRelative(scale_rewards=False), normalisation=ConstantMean())


def dapo(config: Config) -> Config:
    """DAPO (Yu et al. 2025): clip-higher, mean over tokens, nothing learnt from answers that were cut."""
    return replace(
        config, clip=TokenClip(0.2, 0.28), normalisation=TokenMean(), mask_truncated_completions=True, beta=0.0
    )


def rloo(config: Config) -> Config:
    """REINFORCE leave-one-out (Ahmadian et al. 2024)."""
    return replace(config, credit=LeaveOneOut(), normalisation=ConstantMean())


def reinforce_plus_plus(config: Config) -> Config:
    """REINFORCE++ (Hu 2025): no groups; the whole batch is the baseline."""
    return replace(config, credit=WholeBatch(), normalisation=TokenMean())


def gspo(config: Config) -> Config:
    """GSPO (Zheng et al. 2025): the ratio of a whole answer."""
    return replace(config, clip=SequenceClip())


def advantages(rollout: Rollout, credit: Credit) -> Tensor:
    """What each answer ``[B]`` was better by than its like."""
    reward, group = earned(rollout)
    match credit:
        case GroupRelative(scale):
            return group_relative(reward, group, scale)
        case LeaveOneOut():
            return leave_one_out(reward, group)
        case WholeBatch():
            return standardise(reward, torch.ones_like(reward, dtype=torch.bool))


def earned(rollout: Rollout) -> tuple[Tensor, Tensor]:
    """What each answer ``[B]`` earned, and which group it is of."""
    group = rollout.context["group"]
    assert isinstance(group, Tensor)
    return torch.where(rollout.loss_mask, rollout.reward, 0.0).sum(1), group


METRICS = ("policy_loss", "entropy", "kl", "clip_fraction", "approx_kl", "mismatch")


class Learner:
    """The policy's optimiser, its reference if there is a copy of it, and the update."""

    def __init__(self, policy: LanguageModel, config: Config) -> None:
        self.policy, self.config = policy, config
        # Of new adapters the base is what the run began with: it needs no copy.
        self.reference = frozen(policy) if config.beta and isinstance(config.lora, NoLoRA) else None
        self.optimizer = AdamW(decayed(policy.parameters(), config.weight_decay), config.learning_rate)
        self.generator = generator(config.seed, "minibatches")
        if config.torch_compile:
            compile_layers(policy.body, same_shapes=False)

    def anneal(self, progress: float) -> None:
        """Set the learning rate; ``progress`` goes from 0 at the first step to 1 at the last."""
        schedule = warmup_linear if self.config.lr_scheduler_type == "linear" else warmup_constant
        self.optimizer.lr = self.config.learning_rate * schedule(progress, self.config.warmup_ratio)

    def loss(self, batch: Batch, reference: Tensor | None, length: int, total: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of some rows, their share of a mean whose divisor is ``total``; and for the ``METRICS`` that loss,
        four sums over tokens, and the largest distance from what was sampled.

        The divergence is k3 times the ratio, whose expectation under what was sampled, and whose gradient, are those of
        KL(pi || reference), also when the policy has moved since it sampled."""
        config, mask = self.config, batch.loss_mask
        log_prob, entropy, _ = self.policy.evaluate_actions(batch.observation, batch.action, (), batch.boundary)
        now, then = log_prob, batch.log_prob
        if isinstance(config.clip, SequenceClip):
            now, then = (over_rows(x, mask) for x in (now, then))
        low, high = config.clip.epsilon, config.clip.epsilon_high
        surrogate = clipped_surrogate(now, then, batch.advantage, low, low if high is None else high)
        loss = self.mean(surrogate.loss, mask, length, total)
        log_ratio = torch.where(mask, log_prob - batch.log_prob, 0.0)
        divergence = torch.zeros_like(log_prob)
        if reference is not None:
            divergence = log_ratio.exp() * k3(log_prob, reference)
            loss = loss + config.beta * self.mean(divergence, mask, length, total)
        if config.entropy_coef:
            loss = loss - config.entropy_coef * self.mean(entropy, mask, length, total)
        with torch.no_grad():
            each = (entropy, divergence, surrogate.clipped.float(), k3(batch.log_prob, log_prob))
            sums = [torch.where(mask, x, 0.0).sum() for x in each]
            return loss, torch.stack([loss.detach(), *sums, log_ratio.abs().max()])

    def mean(self, x: Tensor, mask: Tensor, length: int, total: Tensor) -> Tensor:
        """The mean over the steps in the mask, as the normalisation says; ``total`` is that of :meth:`total`."""
        match self.config.normalisation:
            case SequenceMean():
                return sequence_mean(x, mask, total)
            case TokenMean():
                return token_mean(x, mask, total)
            case ConstantMean():
                return constant_mean(x, mask, length, total)

    def total(self, mask: Tensor) -> Tensor:
        """What the mean over all rows of a step of the optimiser is divided by: its answers, or its tokens."""
        tokens = isinstance(self.config.normalisation, TokenMean)
        return (mask.sum() if tokens else mask.any(1).sum()).float().clamp_min(1.0)

    def update(self, rollout: Rollout, advantage: Tensor, length: int) -> dict[str, Tensor | float]:
        """Learn from a rollout whose answers are better than their like by ``advantage`` ``[B]``. ``length`` is the
        largest number of tokens of an answer, for a constant mean. With neither a reference nor an entropy bonus, the
        metrics are of the answers that teach, and where none does there is no step."""
        config = self.config
        mask = rollout.loss_mask
        if config.mask_truncated_completions:
            mask = mask & rollout.terminated.any(1, keepdim=True)
        spread = advantage[:, None].expand_as(rollout.reward)
        batch = replace(rollout.credited(spread, spread), loss_mask=mask, value=None)
        # By reward alone, an answer that is as good as its like has no gradient: it counts, and is not computed.
        taught = mask if config.beta or config.entropy_coef else mask & (spread != 0.0)
        reference = self.references(batch)
        seen, tokens = list[Tensor](), torch.zeros((), device=mask.device)
        norm: Tensor | float = 0.0
        for _ in range(config.num_iterations):
            order = torch.randperm(len(batch), generator=self.generator).to(mask.device)
            for rows in order.tensor_split(config.steps_per_generation):
                minibatch = replace(batch.rows(rows), loss_mask=taught[rows])
                if not bool(minibatch.loss_mask.any()):
                    continue
                total = self.total(mask[rows])
                sums, norm = self.step(minibatch, None if reference is None else reference[rows], length, total)
                seen.append(sums)
                tokens = tokens + minibatch.loss_mask.sum()
        metrics: dict[str, Tensor | float] = {"grad_norm": norm, "learning_rate": self.optimizer.lr}
        if seen:
            table = torch.stack(seen)
            means = table[:, 1:5].sum(0) / tokens
            # The mismatch is that before the first step: what was sampled is what is learnt from.
            numbers = (table[:, 0].mean(), *means.unbind(), table[0, 5])
            metrics |= dict(zip(METRICS, numbers, strict=True))
            if not config.beta:  # nothing was measured here; what shaping measured stands
                del metrics["kl"]
        return metrics

    def step(self, minibatch: Batch, reference: Tensor | None, length: int, total: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; what :meth:`loss` says of all its rows, and the norm of the gradient."""
        self.optimizer.zero_grad()
        sums = torch.zeros(6, device=total.device)
        for piece, rows in pieces(minibatch, self.config.per_device_train_batch_size):
            known = None if reference is None else reference[rows, : piece.log_prob.shape[1]]
            loss, seen = self.loss(piece, known, length, total)
            loss.backward()
            sums = torch.cat([sums[:5] + seen[:5], torch.maximum(sums[5:], seen[5:])])
        return sums, self.optimizer.step(self.config.max_grad_norm)

    @torch.no_grad()
    def references(self, batch: Batch) -> Tensor | None:
        """The reference's log-probabilities ``[B, T]``."""
        if not self.config.beta:
            return None
        made = torch.zeros_like(batch.log_prob)
        with without_adapters(self.policy) if self.reference is None else nullcontext(self.reference) as reference:
            for piece, rows in pieces(batch, self.config.per_device_train_batch_size):
                made[rows, : piece.log_prob.shape[1]] = reference.log_probs(piece.observation, piece.action)
        return made

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


def over_rows(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of each row's entries in the mask, at all of its places ``[B, T]``."""
    total = torch.where(mask, x, 0.0).sum(1, keepdim=True)
    return (total / mask.sum(1, keepdim=True).clamp_min(1)).expand_as(x)


def pieces(batch: Batch, rows: int) -> list[tuple[Batch, Tensor]]:
    """The rows that are learnt from, in pieces of about equal lengths, each cut to its longest; and which they are."""
    time = torch.arange(1, batch.loss_mask.shape[1] + 1, device=batch.loss_mask.device)
    lengths = (batch.loss_mask * time).amax(1)
    order = lengths.argsort(stable=True, descending=True)
    order = order[: int((lengths > 0).sum())]
    return [(batch.rows(some).until(int(lengths[some[0]])), some) for some in order.split(rows) if len(some)]


def train(
    config: Config, task: GroupTask, run: Run, policy: LanguageModel | None = None, shaping: Sequence[Shaping] = ()
) -> LanguageModel:
    """Improve ``policy``, which can write the task's tokens already, by reward; return it."""
    if policy is None:
        raise ConfigError("expected a policy that can write, to improve: give a run's, with init")
    keep_freed()
    policy = on_device(policy, config.device)
    if isinstance(config.lora, LoRA):
        with seeded(config.seed, "adapters"):
            policy = adapt(merged(policy), config.lora)
    policy.sampling = config.sampling
    policy.replay_steps(config.cuda_graphs)
    for each in shaping:
        if isinstance(each, KLToReference) and isinstance(each.reference, LanguageModel):
            each.reference.sampling = config.sampling  # one temperature divides the logits of both
    policy.eval()  # without dropout: what is learnt from is what was sampled
    source = task.source(
        config.generation_batch_size, config.seed, config.device, num_generations=config.num_generations
    )
    learner = Learner(policy, config)
    length = min(config.max_completion_length or task.max_completion_length, task.max_completion_length)
    with run:
        run.track(policy=policy, learner=learner, source=source, **{f"shaping{i}": s for i, s in enumerate(shaping)})
        while not run.done:
            learner.anneal(run.step / run.total)
            rollout = source.collect(policy, config.max_completion_length)
            metrics: dict[str, Tensor | float] = {}
            for each in shaping:
                rollout, shaped = each.shape(rollout)
                metrics |= shaped
            advantage = advantages(rollout, config.credit)
            metrics |= learner.update(rollout, advantage, length)
            metrics |= rewards(rollout)
            run.advance(rollout.steps, source.episodes())
            run.log(metrics)
            if run.due("evaluate"):
                seed = derive(config.seed, "evaluation")
                run.evaluation(task.evaluate(policy, run.options.n_eval_episodes, seed), policy)
            if run.due("checkpoint"):
                source.cut()
                run.save()
        run.finish(policy)
    source.close()
    return policy


def rewards(rollout: Rollout) -> dict[str, Tensor | float]:
    """What the answers earned; the share of those whose group all earned the same, which teach nothing; and of those
    that the length ended."""
    reward, group = earned(rollout)
    differs = group_relative(reward, group, False) != 0.0
    uniform = 1.0 - ((group[:, None] == group) & differs).any(1).float().mean()
    truncated = 1.0 - rollout.terminated.any(1).float().mean()
    return {"reward": reward.mean(), "reward_std": reward.std(), "uniform_groups": uniform, "truncated": truncated}
