"""A classifier of texts: a pretrained model is tuned to say which label a text has (Devlin et al. 2019, section 3.2).

From top to bottom: the config, the loss, the update, the verdict, the loop. What is tuned is an encoder, or a decoder
(Radford et al. 2018, section 3.2), with a new linear layer above it; begun from nothing, it is the baseline that shows
what pretraining was worth. The run's steps are texts, its figure is accuracy on those that were held out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from torchward.algorithms.pretrain import Patience, Settings, check_texts, precision, schedule, tell_of_places
from torchward.algorithms.sft import groups
from torchward.config import ConfigError, verify_training
from torchward.data.labelled import Batch, Shuffled, in_order
from torchward.data.protocols import Episode, Evaluation
from torchward.data.random import derive, seeded
from torchward.data.texts import Labelled, LabelledTask
from torchward.nets.adamw import AdamW, Group
from torchward.nets.body import compile_layers
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import merged
from torchward.nets.masked_language_model import MaskedLanguageModel
from torchward.nets.pooling import Pooling
from torchward.nets.text_classifier import TextClassifier
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, bert
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """The settings of a classifier, by the names of transformers."""

    total_timesteps: int = 20_000
    """Texts to learn from, over all epochs."""
    max_length: int = 128
    """Tokens of a text, its start and end included; of a longer one the beginning is kept."""
    pooling: Pooling = "mean"
    """What of a text's tokens is judged: their mean, the first (BERT's own way), or the last."""
    per_device_train_batch_size: int = 16
    """Texts that are held in memory at a time."""
    gradient_accumulation_steps: int = 1
    """Batches to one step of the optimiser; the result is that of one large batch."""
    learning_rate: float = 1e-3
    """AdamW's highest step size; for large pretrained encoders, 2e-5 to 5e-5."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "linear"
    """How it falls behind the warm-up: to a tenth at the last step, or not at all."""
    warmup_ratio: float = 0.1
    """Share of the run over which it rises from 0."""
    weight_decay: float = 0.01
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
    """Each layer's learning rate over that of the layer above it."""
    bf16: bool = False
    """Compute products in bfloat16, where the hardware is made for it; parameters and losses stay in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    torch_compile: bool = False
    """Let PyTorch's compiler join what a layer computes; on a CPU little is gained by it, after half a minute."""
    early_stopping_patience: int | None = None
    """Stop after so many evaluations in a row that are worse than the best before; None: never."""
    max_eval_samples: int = 2_000
    """Texts of those held out that an evaluation looks at, the first ones."""
    model: TransformerConfig = field(default_factory=lambda: bert(512, 128, 4, 4, 128))
    """The network of a classifier that begins from nothing; with init it is that of the model there."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        sizes = "total_timesteps", "per_device_train_batch_size", "gradient_accumulation_steps", "max_eval_samples"
        for name, least in (*((size, 1) for size in sizes), ("max_length", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"expected {name} of at least {least}, got {getattr(self, name)}")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ConfigError(f"expected early_stopping_patience of at least 1, got {self.early_stopping_patience}")
        if not 0.0 <= self.warmup_ratio <= 1.0:
            raise ConfigError(f"expected warmup_ratio within [0, 1], got {self.warmup_ratio}")
        if self.freeze_layers < 0 or not 0.0 < self.layer_lr_decay <= 1.0:
            raise ConfigError(
                f"expected freeze_layers of at least 0 and layer_lr_decay within (0, 1], got {self.freeze_layers} and "
                f"{self.layer_lr_decay}"
            )


class Learner:
    """The classifier's optimiser, and the update."""

    def __init__(self, policy: TextClassifier, config: Settings, tuned: Sequence[Group]) -> None:
        self.policy, self.config = policy, config
        self.optimizer = AdamW(tuned, config.learning_rate, (config.adam_beta1, config.adam_beta2))
        policy.body.checkpointing = config.gradient_checkpointing
        if config.torch_compile:
            compile_layers(policy.body, same_shapes=False)

    def update(self, batches: list[Batch]) -> dict[str, Tensor | float]:
        """One step of the optimiser on the mean cross-entropy of all texts of the batches."""
        self.policy.train()
        total = sum(len(batch.label) for batch in batches)
        cost, right = (torch.zeros((), device=self.config.device) for _ in range(2))
        self.optimizer.zero_grad()
        for batch in batches:
            on = batch.to(self.config.device)
            with precision(self.config):
                logits = self.policy.forward(on.tokens, on.mask)
            piece = F.cross_entropy(logits, on.label, reduction="sum")
            (piece / total).backward()
            cost, right = cost + piece.detach(), right + (logits.argmax(1) == on.label).sum()
        norm = self.optimizer.step(self.config.max_grad_norm)
        rate = self.optimizer.lr
        return {"loss": cost / total, "accuracy": right / total, "grad_norm": norm, "learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


class Verdict(NamedTuple):
    """What a classifier makes of texts whose labels are known."""

    confusion: Int[Tensor, "labels labels"]
    """How many of each label (the row) were taken for each (the column)."""
    loss: float
    """Cross-entropy, in nats."""

    @property
    def accuracy(self) -> float:
        """The share that is right."""
        return float(self.confusion.trace()) / max(int(self.confusion.sum()), 1)

    @property
    def majority(self) -> float:
        """The accuracy of who always says the commonest label."""
        return float(self.confusion.sum(1).max()) / max(int(self.confusion.sum()), 1)

    @property
    def f1(self) -> float:
        """Macro F1: the mean over labels of ``2 right / (taken for it + of it)``, 0 where there is neither."""
        of_both = (self.confusion.sum(0) + self.confusion.sum(1)).clamp_min(1)
        return float((2.0 * self.confusion.diagonal() / of_both).mean())


@torch.no_grad()
def judge(policy: TextClassifier, batches: Iterable[Batch], config: Settings) -> Verdict:
    """The classifier's labels of texts, held against their own, without dropout."""
    policy.eval()
    count = len(policy.labels)
    confusion, cost, total = torch.zeros(count * count, dtype=torch.int64), 0.0, 0
    for batch in batches:
        on = batch.to(config.device)
        with precision(config):
            logits = policy.forward(on.tokens, on.mask)
        cost, total = cost + float(F.cross_entropy(logits, on.label, reduction="sum")), total + len(on.label)
        pairs = (on.label * count + logits.argmax(1)).cpu()
        confusion += torch.bincount(pairs, minlength=count * count)
    return Verdict(confusion.view(count, count), cost / max(total, 1))


def table(labels: Sequence[str], verdict: Verdict) -> str:
    """The confusion as lines of text: a row for each label, of what its texts were taken for."""
    names = [label if len(label) <= 16 else label[:15] + "…" for label in labels]
    width = max(map(len, ("label", *names)))
    cell = max(4, *(len(name) for name in names), len(str(int(verdict.confusion.max())))) + 1
    lines = [f"{'label':<{width}}" + "".join(f"{name:>{cell}}" for name in names)]
    for name, row in zip(names, verdict.confusion.tolist(), strict=True):
        lines.append(f"{name:<{width}}" + "".join(f"{number:>{cell}}" for number in row))
    return "\n".join(lines)


def summary(verdict: Verdict) -> str:
    """Its numbers in a line."""
    return (
        f"accuracy {verdict.accuracy:.3f} on {int(verdict.confusion.sum()):,} texts that were held out (the commonest "
        f"label alone: {verdict.majority:.3f}), macro F1 {verdict.f1:.3f}, cross-entropy {verdict.loss:.3f}"
    )


def validation(config: Config, texts: Labelled) -> list[Batch]:
    """The texts of an evaluation."""
    labels, rows = texts.validation_labels[: config.max_eval_samples], config.per_device_train_batch_size
    return list(in_order(texts.validation, labels, batch_size=rows, pad_id=texts.pad_id))


def classifier(config: Config, texts: Labelled, policy: Any) -> TextClassifier:
    """What is tuned: a classifier that goes on learning, or a new layer on a model's body, or on a new one."""
    match policy:
        case TextClassifier():
            return policy
        case LanguageModel() | MaskedLanguageModel():
            return TextClassifier(merged(policy).body, policy.vocabulary, texts.labels, config.pooling)
        case None:
            with seeded(config.seed, "policy"):
                body = Transformer(replace(config.model, vocab_size=texts.vocab_size))
            return TextClassifier(body, texts.vocabulary, texts.labels, config.pooling)
    raise ConfigError(f"expected a model of text to classify with, got a {type(policy).__name__}")


def train(
    config: Config,
    task: LabelledTask,
    run: Run,
    policy: TextClassifier | MaskedLanguageModel | LanguageModel | None = None,
) -> TextClassifier:
    """Learn to tell the labels of the texts of ``task``, and return the classifier: one on the body of ``policy``, or
    ``policy`` itself where it is one, which goes on learning; without it, one that begins from nothing."""
    texts = task.labelled(config.max_length, policy.labels if isinstance(policy, TextClassifier) else None)
    keep_freed()
    if policy is None:
        tell_of_places(config.model, config.max_length, run)
    made = classifier(config, texts, policy).to(config.device)
    check_texts(made, texts, config.max_length)
    rows = config.per_device_train_batch_size
    cursor = Shuffled(
        texts.train, texts.train_labels, batch_size=rows, pad_id=texts.pad_id, seed=derive(config.seed, "texts")
    )
    held_out = validation(config, texts)
    learner = Learner(made, config, groups(made, config))
    patience = Patience(config.early_stopping_patience)
    run.judge_by("accuracy", lower_is_better=False)
    if texts.cut:
        run.say(f"{texts.cut:,} texts are longer than max_length={config.max_length} tokens: their beginning is read")
    with run:
        run.track(policy=made, learner=learner, cursor=cursor, patience=patience)
        while not run.done and not patience.lost:
            learner.optimizer.lr = config.learning_rate * schedule(config, run.step / run.total)
            batches = [cursor.next() for _ in range(config.gradient_accumulation_steps)]
            metrics = learner.update(batches)
            count = len(batches) * rows
            run.advance(count, [Episode(float(metrics.pop("accuracy")), count)])
            run.log({**metrics, "epochs": cursor.epochs})
            if run.due("evaluate"):
                judged = judge(made, held_out, config)
                told = {"eval/loss": judged.loss, "eval/f1_macro": judged.f1}
                patience.saw(run.evaluation(Evaluation([judged.accuracy], [int(judged.confusion.sum())]), made, told))
            if run.due("checkpoint"):
                run.save()
        run.finish(made.eval())
    run.say(summary(judge(made, held_out, config)))
    return made
