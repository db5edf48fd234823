"""Masked-language pretraining: an encoder learns to guess tokens that are hidden from it (Devlin et al. 2019, 3.1).

From top to bottom: the config, the verdict, the loop. The loss and its update are those of pretraining; here a token
sees the text on both sides, and only what is masked is learnt, drawn anew each time (Liu et al. 2019, section 4.1). The
run's steps are tokens that were seen. Its figure is bits per masked byte: what the masked tokens cost, over the bytes
that these stand for. It is no measure of the whole text, as pretraining's is, and smaller where less is masked.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from torchward.algorithms.pretrain import (
    Learner,
    Patience,
    Settings,
    check_texts,
    cost_of,
    precision,
    read,
    schedule,
    some,
    tell_of_places,
)
from torchward.config import ConfigError, verify_training
from torchward.data.cursor import Cursor
from torchward.data.masking import Masking
from torchward.data.packing import Rows, Wrapped
from torchward.data.protocols import Episode, Evaluation
from torchward.data.random import derive, generator, seeded
from torchward.data.texts import MaskedTask, Texts
from torchward.nets.adamw import decayed
from torchward.nets.heap import keep_freed
from torchward.nets.masked_language_model import MaskedLanguageModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, bert
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """The settings of masked-language pretraining, by the names of transformers."""

    total_timesteps: int = 2_000_000
    """Tokens to see, masked or not, over all epochs."""
    max_length: int = 128
    """Tokens that are looked at together."""
    mlm_probability: float = 0.15
    """Share of the tokens that are to be guessed."""
    mask_replace_prob: float = 0.8
    """Share of these that are replaced by the mask."""
    random_replace_prob: float = 0.1
    """Share of these that are replaced by an ordinary token, any of them; what is left is shown as it is."""
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
    weight_decay: float = 0.01
    """Share of each matrix that is taken away at a step, times the step size."""
    adam_beta1: float = 0.9
    """Adam's memory of the gradient."""
    adam_beta2: float = 0.98
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
    """Tokens of the validation texts that an evaluation sees; the same ones each time, with the same masks."""
    model: TransformerConfig = field(default_factory=lambda: bert(512, 128, 4, 4, 128))
    """The encoder; its vocabulary is that of the tokenizer."""
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
        if self.model.kind != "encoder":
            raise ConfigError(f"expected a model of kind 'encoder' to fill gaps with, got {self.model.kind!r}")
        self.masking(0, torch.ones(1, dtype=torch.bool))

    def masking(self, mask_id: int, ordinary: Tensor) -> Masking:
        """How rows are masked. Raises ConfigError for shares that cannot be."""
        return Masking(mask_id, ordinary, self.mlm_probability, self.mask_replace_prob, self.random_replace_prob)


@torch.no_grad()
def judge(
    policy: MaskedLanguageModel, batches: Iterable[Rows], bytes_of: Tensor, config: Settings
) -> tuple[Evaluation, float]:
    """Of masked rows, the bits per masked byte, as one episode; and the share of the masked tokens of which the
    likeliest guess is right."""
    policy.eval()
    cost, size, right, count = 0.0, 0.0, 0, 0
    for rows in batches:
        on = rows.to(config.device)
        with precision(config):
            hidden = read(policy, on)
            piece, some_bytes = cost_of(policy, hidden, on, bytes_of)
            guesses = policy.likeliest(hidden, on.loss_mask)
        right += int((guesses == on.targets[on.loss_mask]).sum())
        cost, size, count = cost + float(piece), size + float(some_bytes), count + int(rows.loss_mask.sum())
    return Evaluation([cost / max(size, 1.0) / math.log(2.0)], [count]), right / max(count, 1)


def commonest(batches: Iterable[Rows], texts: Texts) -> float:
    """The share of the masked tokens that are the commonest token of the texts that are learnt from: the accuracy of
    who knows how often tokens occur, and nothing else."""
    counts = torch.bincount(torch.from_numpy(texts.train.tokens.astype("int64")), minlength=texts.vocab_size)
    likeliest = counts.masked_fill(texts.bytes_of == 0, -1).argmax()
    targets = torch.cat([rows.targets[rows.loss_mask] for rows in batches])
    return float((targets == likeliest).float().mean())


def masked_validation(config: Config, texts: Texts, masking: Masking) -> list[Rows]:
    """The rows of an evaluation, always with the same masks."""
    draws = generator(config.seed, "validation masks")
    rows = some(texts.validation, config, texts.pad_id, Wrapped())
    return [masking(each, draws) for each in rows]


def train(config: Config, task: MaskedTask, run: Run, policy: MaskedLanguageModel | None = None) -> MaskedLanguageModel:
    """Learn to fill gaps in the text of ``task`` and return the encoder: a new one, or ``policy``, which goes on
    learning. Raises ConfigError for a policy that is no encoder, or has no token for what is masked."""
    if policy is not None and not isinstance(policy, MaskedLanguageModel):
        raise ConfigError(
            f"expected an encoder that fills gaps to go on with, got a {type(policy).__name__}: begin from a run of "
            "masked_lm or a local directory of BERT or RoBERTa, or leave init out"
        )
    texts = task.masked()
    if texts.mask_id is None:
        raise ConfigError("expected texts in whose vocabulary a token stands for what is masked, got none")
    if policy is None:
        made = replace(config.model, vocab_size=texts.vocab_size)
        tell_of_places(made, config.max_length, run)
        with seeded(config.seed, "policy"):
            policy = MaskedLanguageModel(Transformer(made), texts.vocabulary)
    keep_freed()
    policy.to(config.device)
    check_texts(policy, texts, config.max_length)
    rows = config.per_device_train_batch_size
    cursor = Cursor(
        texts.train, max_length=config.max_length, batch_size=rows, pad_id=texts.pad_id,
        seed=derive(config.seed, "corpus"),
    )  # fmt: skip
    masking = config.masking(texts.mask_id, texts.bytes_of > 0)
    masks = generator(config.seed, "masks")
    validation = masked_validation(config, texts, masking)
    learner = Learner(policy, config, texts.bytes_of, decayed(policy.parameters(), config.weight_decay))
    patience = Patience(config.early_stopping_patience)
    run.judge_by("bits_per_masked_byte", lower_is_better=True)
    with run:
        run.track(policy=policy, learner=learner, cursor=cursor, masks=masks, patience=patience)
        while not run.done and not patience.lost:
            learner.optimizer.lr = config.learning_rate * schedule(config, run.step / run.total)
            batches = [masking(cursor.next(), masks) for _ in range(config.gradient_accumulation_steps)]
            metrics = learner.update(batches)
            tokens = len(batches) * rows * config.max_length
            run.advance(tokens, [Episode(float(metrics.pop("bits_per_byte")), tokens)])
            run.log({**metrics, "epochs": cursor.epochs})
            if run.due("evaluate"):
                judged, accuracy = judge(policy, validation, learner.bytes_of, config)
                patience.saw(run.evaluation(judged, policy, {"eval/masked_accuracy": accuracy}))
            if run.due("checkpoint"):
                run.save()
        run.finish(policy.eval())
    return policy
