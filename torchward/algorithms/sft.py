"""Supervised fine-tuning: a language model learns to give the answers that it is shown, behind their prompts.

From top to bottom: the config, what is tuned, the loop, and the verdict on under- and over-fitting. The loss and its
update are those of pretraining; here only the assistant's words are learnt, no sequence is cut, and texts in one row do
not see each other. The run's steps are tokens of rows, its figure is bits per byte of the answers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import nn

from torchward.algorithms.pretrain import Learner, Patience, check_texts, schedule, some, validate
from torchward.config import ConfigError, verify_training
from torchward.data.cursor import Cursor
from torchward.data.packing import Whole
from torchward.data.protocols import Episode, on_device
from torchward.data.random import derive, seeded
from torchward.data.texts import TextTask, check_whole
from torchward.nets.adamw import Group, decayed
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import Adaptation, LoRA, NoLoRA, adapt, merged
from torchward.nets.sampling import Sampling
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """Fine-tuning's settings, by the names of transformers and TRL."""

    total_timesteps: int = 500_000
    """Tokens of rows to learn from, prompts and padding included, over all epochs."""
    max_length: int = 128
    """Tokens of a row; no sequence may be longer."""
    per_device_train_batch_size: int = 16
    """Rows that are held in memory at a time."""
    gradient_accumulation_steps: int = 1
    """Batches to one step of the optimiser; the result is that of one large batch."""
    learning_rate: float = 3e-4
    """AdamW's highest step size."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
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
    """Norm to which the gradient of all parameters together is clipped."""
    freeze_layers: int = 0
    """Leave the embeddings and so many layers above them as they are."""
    layer_lr_decay: float = 1.0
    """Each layer's learning rate over that of the layer above it: 0.9, say, moves what lies deep more slowly."""
    lora: Adaptation = field(default_factory=NoLoRA)
    """Tune the model itself, or low-rank adapters beside it."""
    bf16: bool = False
    """Compute products in bfloat16, where the hardware is made for it; parameters and losses stay in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    torch_compile: bool = False
    """Let PyTorch's compiler join what a layer computes; on a CPU little is gained by it, after half a minute."""
    early_stopping_patience: int | None = None
    """Stop after so many evaluations in a row that are worse than the best before; None: never."""
    eval_tokens: int = 32_768
    """Tokens of the validation rows that an evaluation looks at; the same ones each time."""
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
        if self.freeze_layers < 0 or not 0.0 < self.layer_lr_decay <= 1.0:
            raise ConfigError(
                f"expected freeze_layers of at least 0 and layer_lr_decay within (0, 1], got {self.freeze_layers} and "
                f"{self.layer_lr_decay}"
            )


class Layered(Protocol):
    """A model that is tuned layer by layer."""

    def layers(self) -> list[list[nn.Parameter]]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


class Tuning(Protocol):
    """What tuning needs of a config."""

    @property
    def weight_decay(self) -> float: ...
    @property
    def freeze_layers(self) -> int: ...
    @property
    def layer_lr_decay(self) -> float: ...


def groups(policy: Layered, config: Tuning) -> list[Group]:
    """The parameters that are tuned, layer by layer from below, each with its learning rate.

    Freezes those that are not; raises ConfigError where none would be left."""
    layers = policy.layers()
    if config.freeze_layers >= len(layers) - 1:
        raise ConfigError(
            f"expected freeze_layers of at most {len(layers) - 2}, the model's layers, got {config.freeze_layers}"
        )
    tuned: list[Group] = []
    for depth, parameters in enumerate(layers):
        frozen = config.freeze_layers > 0 and depth <= config.freeze_layers
        for parameter in parameters:
            parameter.requires_grad_(parameter.requires_grad and not frozen)
        tuned += decayed(parameters, config.weight_decay, config.layer_lr_decay ** (len(layers) - 1 - depth))
    if not any(x.requires_grad and "value_head" not in name.split(".") for name, x in policy.named_parameters()):
        raise ConfigError(
            f"expected freeze_layers to leave an adapter, got {config.freeze_layers}, all layers, beside lora, which "
            "learns in layers alone: freeze fewer, or leave one of the two out"
        )
    return tuned


def train(config: Config, task: TextTask, run: Run, policy: LanguageModel | None = None) -> LanguageModel:
    """Tune ``policy`` on the demonstrations of ``task``, and return it."""
    if policy is None:
        raise ConfigError("expected a model to tune: give a pretrained run's, with init")
    keep_freed()
    policy = on_device(policy, config.device)
    if isinstance(config.lora, LoRA):
        with seeded(config.seed, "adapters"):
            policy = adapt(merged(policy), config.lora)
    policy.sampling = Sampling()  # what is imitated are the answers, at temperature 1
    texts = task.demonstrations()
    check_texts(policy, texts, config.max_length)
    check_whole(texts, config.max_length)
    rows = config.per_device_train_batch_size
    cursor = Cursor(
        texts.train, max_length=config.max_length, batch_size=rows, pad_id=texts.pad_id, packing=Whole(),
        seed=derive(config.seed, "demonstrations"),
    )  # fmt: skip
    seen, validation = (list(some(side, config, texts.pad_id, Whole())) for side in (texts.train, texts.validation))
    learner = Learner(policy, config, texts.bytes_of, groups(policy, config))
    patience = Patience(config.early_stopping_patience)
    run.judge_by("bits_per_byte", lower_is_better=True)
    run.say(texts.left_out)
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
                known = validate(policy, seen, learner.bytes_of, config).returns[0]
                judged = validate(policy, validation, learner.bytes_of, config)
                patience.saw(run.evaluation(judged, policy, {"eval/seen_bits_per_byte": known}))
            if run.due("checkpoint"):
                run.save()
        run.finish(policy.eval())
    if curves := evaluations(run):
        run.say(verdict(*curves))
    return policy


def evaluations(run: Run) -> tuple[list[float], list[float]] | None:
    """The bits per byte of what was trained on and of what was held out, evaluation by evaluation."""
    rows = [row for row in run.rows() if "eval/seen_bits_per_byte" in row]
    if len(rows) < 3:
        return None
    seen, held_out = ([row[f"eval/{name}"] for row in rows] for name in ("seen_bits_per_byte", "bits_per_byte"))
    return [math.inf if x is None else x for x in seen], [math.inf if x is None else x for x in held_out]


def verdict(seen: Sequence[float], held_out: Sequence[float]) -> str:
    """In words, what two curves of a loss say: that of what was learnt, and that of what was held out.

    Over-fitting: the held-out loss has risen by a twentieth from its lowest, while the other went on falling. Unstable:
    so it has, and the other did not fall. Under-fitting: over the last third of the evaluations the held-out loss still
    fell by a twentieth or more."""
    best = min(range(len(held_out)), key=held_out.__getitem__)
    last, lowest = held_out[-1], held_out[best]
    gap = f"{seen[-1]:.3f} on what it was shown, {last:.3f} on what was held out"
    if last > 1.05 * lowest and seen[-1] >= seen[best]:
        return (
            f"unstable: {gap} bits per byte, and held out it was at {lowest:.3f} before. policy/best is that of the "
            "best. Take a smaller step size."
        )
    if last > 1.05 * lowest:
        return (
            f"over-fitted: held out it was best ({lowest:.3f} bits per byte) at evaluation {best + 1} of "
            f"{len(held_out)}, and is at {last:.3f} now, while what it was shown fell to {seen[-1]:.3f}. policy/best "
            "is that of the best. Give more data, or fewer tokens, a smaller step size, more frozen layers."
        )
    third = held_out[-1 - max(1, len(held_out) // 3)]
    if last < 0.95 * third:
        return f"under-fitted: {gap} bits per byte, and still falling. Train for longer, or with a larger step size."
    return f"fitted: {gap} bits per byte, and level."
