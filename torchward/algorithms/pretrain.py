"""Pretraining: a transformer learns to say the next token of a text (Radford et al. 2018, equation 1).

From top to bottom: the config, the loss, the update, the loop. The run's steps are tokens, and its figure is bits per
byte: the loss in bits, over the bytes of text that it was about, so that models with other tokenizers compare.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from torchward.config import ConfigError, verify_training
from torchward.data.cursor import Cursor
from torchward.data.packing import Packing, Rows, Wrapped, once
from torchward.data.protocols import Episode, Evaluation, on_device
from torchward.data.random import derive, seeded
from torchward.data.sequences import Sequences
from torchward.data.texts import CorpusTask, Labelled, Texts
from torchward.functional.schedules import warmup_constant, warmup_cosine, warmup_linear
from torchward.nets.adamw import AdamW, Group, decayed
from torchward.nets.body import Scoring, Worded, compile_layers, same_words
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import NONE, LanguageModel
from torchward.nets.positions import Learned
from torchward.nets.sampling import Sampling
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """Pretraining's settings, by the names of transformers and TRL."""

    total_timesteps: int = 2_000_000
    """Tokens to learn from, over all epochs."""
    max_length: int = 128
    """Tokens that are looked at together."""
    per_device_train_batch_size: int = 16
    """Rows of max_length tokens that are held in memory at a time."""
    gradient_accumulation_steps: int = 1
    """Batches to one step of the optimiser; the result is that of one large batch."""
    learning_rate: float = 1e-3
    """AdamW's highest step size."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """How it falls behind the warm-up: to a tenth at the last step, or not at all."""
    warmup_ratio: float = 0.05
    """Share of the run over which it rises from 0."""
    weight_decay: float = 0.1
    """Share of each matrix that is taken away at a step, times the step size."""
    adam_beta1: float = 0.9
    """Adam's memory of the gradient."""
    adam_beta2: float = 0.95
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
    eval_tokens: int = 32_768
    """Tokens of the validation texts that an evaluation looks at; the same ones each time."""
    model: TransformerConfig = field(default_factory=lambda: gpt2(512, 128, 4, 4, 128))
    """The transformer; its vocabulary is that of the tokenizer."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        for name in ("total_timesteps", "max_length", "per_device_train_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ConfigError(f"expected early_stopping_patience of at least 1, got {self.early_stopping_patience}")
        if not 0.0 <= self.warmup_ratio <= 1.0:
            raise ConfigError(f"expected warmup_ratio within [0, 1], got {self.warmup_ratio}")
        if self.max_length > self.model.max_position_embeddings:
            raise ConfigError(
                f"expected max_length of at most the model's max_position_embeddings="
                f"{self.model.max_position_embeddings}, got {self.max_length}"
            )
        if self.model.kind != "decoder":
            raise ConfigError(f"expected a model of kind 'decoder' to pretrain, got {self.model.kind!r}")


class Settings(Protocol):
    """What learning to say tokens needs of a config."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def adam_beta1(self) -> float: ...
    @property
    def adam_beta2(self) -> float: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def bf16(self) -> bool: ...
    @property
    def gradient_checkpointing(self) -> bool: ...
    @property
    def torch_compile(self) -> bool: ...
    @property
    def device(self) -> str: ...


class Scheduled(Protocol):
    """What the learning rate's schedule needs of a config."""

    @property
    def lr_scheduler_type(self) -> Literal["cosine", "linear", "constant"]: ...
    @property
    def warmup_ratio(self) -> float: ...


class Looking(Protocol):
    """What an evaluation needs of a config."""

    @property
    def max_length(self) -> int: ...
    @property
    def per_device_train_batch_size(self) -> int: ...
    @property
    def eval_tokens(self) -> int: ...


def read(policy: Scoring, rows: Rows) -> Tensor:
    """The hidden states ``[B, T, width]`` of packed rows."""
    # Rows without padding that hold one sequence need no mask, and attention is faster without one.
    segments = rows.segments if bool((rows.segments != 0).any()) else None
    return policy.body.forward(rows.tokens, segments, None if segments is None else rows.positions)


def bits(policy: Scoring, rows: Rows, bytes_of: Tensor) -> tuple[Tensor, Tensor]:
    """What the learnt tokens of packed rows cost, in nats and in all; and how many bytes they stand for."""
    return cost_of(policy, read(policy, rows), rows, bytes_of)


def cost_of(policy: Scoring, hidden: Tensor, rows: Rows, bytes_of: Tensor) -> tuple[Tensor, Tensor]:
    """The same, of rows whose hidden states are known."""
    target = rows.targets.masked_fill(~rows.loss_mask, NONE)
    cost = -policy.scores(hidden, target, with_entropy=False).log_prob.sum()
    return cost, (bytes_of[rows.targets] * rows.loss_mask).sum()


def schedule(config: Scheduled, progress: float) -> float:
    """The learning rate over its highest value; ``progress`` goes from 0 at the first step to 1 at the last."""
    match config.lr_scheduler_type:
        case "cosine":
            return warmup_cosine(progress, config.warmup_ratio, 0.1)
        case "linear":
            return warmup_linear(progress, config.warmup_ratio, 0.1)
        case "constant":
            return warmup_constant(progress, config.warmup_ratio)


class Learner:
    """The policy's optimiser, and the update."""

    def __init__(self, policy: Scoring, config: Settings, bytes_of: Tensor, groups: Sequence[Group]) -> None:
        self.policy, self.config = policy, config
        self.bytes_of = bytes_of.to(config.device)
        self.optimizer = AdamW(groups, config.learning_rate, (config.adam_beta1, config.adam_beta2))
        policy.body.checkpointing = config.gradient_checkpointing
        if config.torch_compile:
            compile_layers(policy.body, same_shapes=True)

    def update(self, batches: list[Rows]) -> dict[str, Tensor | float]:
        """One step of the optimiser on the mean over all learnt tokens of the batches."""
        self.policy.train()
        total = max(1, sum(int(rows.loss_mask.sum()) for rows in batches))
        cost, size = torch.zeros((), device=self.config.device), torch.zeros((), device=self.config.device)
        self.optimizer.zero_grad()
        for rows in batches:
            with precision(self.config):
                piece, count = bits(self.policy, rows.to(self.config.device), self.bytes_of)
            (piece / total).backward()
            cost, size = cost + piece.detach(), size + count
        norm = self.optimizer.step(self.config.max_grad_norm)
        return {
            "loss": cost / total,
            "bits_per_byte": cost / size.clamp_min(1) / math.log(2.0),
            "grad_norm": norm,
            "learning_rate": self.optimizer.lr,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


class Patience:
    """Counts the evaluations in a row that brought nothing."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.count = limit, 0

    def saw(self, is_best: bool) -> None:
        """Take in one evaluation."""
        self.count = 0 if is_best else self.count + 1

    @property
    def lost(self) -> bool:
        """Whether there were too many."""
        return self.limit is not None and self.count >= self.limit

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])


@torch.no_grad()
def validate(policy: Scoring, batches: Iterable[Rows], bytes_of: Tensor, config: Settings) -> Evaluation:
    """Bits per byte of the validation texts, as one episode."""
    policy.eval()
    cost, size, tokens = 0.0, 0.0, 0
    for rows in batches:
        with precision(config):
            piece, count = bits(policy, rows.to(config.device), bytes_of)
        cost, size, tokens = cost + float(piece), size + float(count), tokens + int(rows.loss_mask.sum())
    return Evaluation([cost / max(size, 1.0) / math.log(2.0)], [tokens])


def precision(config: Settings) -> contextlib.AbstractContextManager[None]:
    """Where products are computed in bfloat16, if that is wanted."""
    if not config.bf16:
        return contextlib.nullcontext()
    kind = torch.device(config.device).type
    return torch.autocast(kind, torch.bfloat16)


def train(config: Config, task: CorpusTask, run: Run, policy: LanguageModel | None = None) -> LanguageModel:
    """Learn the corpus of ``task`` and return the model: a new one, or ``policy``, which goes on learning."""
    texts = task.corpus()
    if policy is None:
        made = replace(config.model, vocab_size=texts.vocab_size, value_head=True)
        tell_of_places(made, config.max_length, run)
        with seeded(config.seed, "policy"):
            policy = LanguageModel(Transformer(made), texts.vocabulary)
    keep_freed()
    policy = on_device(policy, config.device)
    check_texts(policy, texts, config.max_length)
    policy.sampling = Sampling()  # what is imitated is the text, at temperature 1
    rows = config.per_device_train_batch_size
    cursor = Cursor(
        texts.train, max_length=config.max_length, batch_size=rows, pad_id=texts.pad_id,
        seed=derive(config.seed, "corpus"),
    )  # fmt: skip
    validation = list(some(texts.validation, config, texts.pad_id, Wrapped()))
    learner = Learner(policy, config, texts.bytes_of, decayed(policy.parameters(), config.weight_decay))
    patience = Patience(config.early_stopping_patience)
    run.judge_by("bits_per_byte", lower_is_better=True)
    with run:
        run.track(policy=policy, learner=learner, cursor=cursor, patience=patience)
        while not run.done and not patience.lost:
            learner.optimizer.lr = config.learning_rate * schedule(config, run.step / run.total)
            batches = [cursor.next() for _ in range(config.gradient_accumulation_steps)]
            metrics = learner.update(batches)
            tokens = len(batches) * rows * config.max_length
            run.advance(tokens, [Episode(float(metrics.pop("bits_per_byte")), tokens)])
            run.log({**metrics, "epochs": cursor.epochs})
            if run.due("evaluate"):
                patience.saw(run.evaluation(validate(policy, validation, learner.bytes_of, config), policy))
            if run.due("checkpoint"):
                run.save()
        run.finish(policy.eval())
    return policy


def tell_of_places(model: TransformerConfig, max_length: int, run: Run) -> None:
    """Say where a new model has vectors for places that no row of ``max_length`` tokens reaches: nothing is learnt of
    them, and longer texts are read and written by chance."""
    if isinstance(model.positions, Learned) and max_length < model.max_position_embeddings:
        run.say(
            f"rows of max_length={max_length:,} tokens leave the places behind them as they began, up to "
            f"max_position_embeddings={model.max_position_embeddings:,}: nothing is learnt of longer texts; make both "
            "equal"
        )


def check_texts(policy: Worded, texts: Texts | Labelled, max_length: int) -> None:
    """Raises ConfigError for rows that a policy cannot read, and for texts in the tokens of another vocabulary."""
    if max_length > (limit := policy.config.max_position_embeddings):
        raise ConfigError(
            f"expected max_length of at most {limit}, as many tokens as the model reads, got {max_length}"
        )
    if not same_words(policy.vocabulary, texts.vocabulary):
        raise ConfigError(
            "expected texts in the policy's own vocabulary, got another: task.using(policy) writes them so"
        )


def some(sequences: Sequences, config: Looking, pad_id: int, packing: Packing) -> Iterator[Rows]:
    """The first ``eval_tokens`` of sequences, in batches. They are taken before they are packed, the longest first.

    Raises ConfigError where nothing of them is learnt, as of a prompt that is cut within."""
    first, rows = sequences.head(max(0, config.eval_tokens)), config.per_device_train_batch_size
    if not first.learnt:
        raise ConfigError(
            f"expected eval_tokens that hold some that are learnt, got {config.eval_tokens}: a loss over nothing would "
            "be 0; give more"
        )
    return once(first, max_length=config.max_length, batch_size=rows, pad_id=pad_id, packing=packing)
