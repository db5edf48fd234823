"""Distillation: a student learns what its teacher would say, on data, on the teacher's answers, or on its own.

From top to bottom: the config with its kin, what a step learns from, the update, the loop. At each token the student's
whole distribution is held against the teacher's (generalised knowledge distillation, GKD, Agarwal et al. 2023), or it
learns what the teacher wrote (Kim and Rush 2016). On its own answers it may be rewarded too: there the teacher is
followed as far as it does well, and the reward decides on the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from torchward.algorithms.grpo import earned
from torchward.algorithms.pretrain import check_texts, precision, schedule, some, validate
from torchward.config import ConfigError, verify_training
from torchward.data.cursor import Cursor
from torchward.data.kl import frozen
from torchward.data.lessons import Lesson, pieces, rows_of
from torchward.data.packing import Packing, Rows, Whole, Wrapped
from torchward.data.protocols import Episode, Evaluation, Source, on_device
from torchward.data.random import derive, generator, seeded
from torchward.data.texts import Texts, TextTask
from torchward.functional.advantages import group_relative
from torchward.functional.returns import reverse_scan
from torchward.nets.adamw import AdamW, decayed
from torchward.nets.body import compile_layers, same_words
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import NONE, LanguageModel
from torchward.nets.sampling import Sampling
from torchward.nets.token_divergences import Against, token_divergences
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2
from torchward.run import Run


@dataclass(frozen=True)
class Sequence:
    """The tokens that are shown are learnt, by cross-entropy; with the teacher's answers: Kim and Rush 2016."""


@dataclass(frozen=True)
class ForwardKL:
    """KL(teacher || student) of each token's distribution: the student covers all that the teacher says."""


@dataclass(frozen=True)
class ReverseKL:
    """KL(student || teacher) of each token's distribution: the student says nothing that the teacher would not."""

    gamma: float = 0.0
    """On the student's own answers, what a later token's divergence counts for the choices before it. 0: nothing (GKD);
    1: all of it, and the gradient is that of the KL of whole answers (MiniLLM, Gu et al. 2023, equation 3)."""

    def __post_init__(self) -> None:
        _within_one("gamma", self.gamma)


@dataclass(frozen=True)
class JensenShannon:
    """The generalised Jensen-Shannon divergence of each token's distribution, between the two."""

    beta: float = 0.5
    """The teacher's share of the mixture that both are held against; 0 and 1: forward and reverse KL, as in TRL."""

    def __post_init__(self) -> None:
        _within_one("beta", self.beta)


@dataclass(frozen=True)
class Corpus:
    """Plain text of the task: every token is learnt."""


@dataclass(frozen=True)
class Demonstrations:
    """The task's own answers, behind their prompts."""


@dataclass(frozen=True)
class TeacherSamples:
    """Answers that the teacher writes to the task's prompts, new ones each time (TRL's seq_kd)."""

    temperature: float = 1.0
    """What the teacher's logits are divided by when it writes them; near 0 it writes the likeliest."""

    def __post_init__(self) -> None:
        Sampling(self.temperature)  # raises where it cannot be


@dataclass(frozen=True)
class Always:
    """The teacher is followed everywhere."""


@dataclass(frozen=True)
class AsGood:
    """The divergence weighs as much as the teacher's own answers to the prompt earn in the mean, from 0 to 1."""


@dataclass(frozen=True)
class WhereBetter:
    """The teacher is followed where its own answers to the prompt earn more in the mean than the student's."""


@dataclass(frozen=True)
class Unrewarded:
    """The student's own answers teach by the teacher alone."""


@dataclass(frozen=True)
class Rewarded:
    """The student's own answers teach by what they earn, too: GRPO's advantage, one step on each rollout."""

    coef: float = 1.0
    """Weight of the advantage, beside the divergence."""
    scale_rewards: bool = True
    """Divide it by the deviation within a group."""
    follow: Always | AsGood | WhereBetter = field(default_factory=AsGood)
    """How far the teacher is followed, prompt by prompt."""

    def __post_init__(self) -> None:
        if not self.coef > 0.0:
            raise ConfigError(f"expected coef of the reward above 0, got {self.coef}")


Objective: TypeAlias = Sequence | ForwardKL | ReverseKL | JensenShannon
Data: TypeAlias = Corpus | Demonstrations | TeacherSamples
Reward: TypeAlias = Unrewarded | Rewarded


def _within_one(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"expected {name} within [0, 1], got {value}")


@dataclass(frozen=True)
class Config:
    """Distillation's settings, by the names of TRL's GKD."""

    total_timesteps: int = 500_000
    """Tokens to learn: those of answers, or all of a text."""
    objective: Objective = field(default_factory=JensenShannon)
    """How the student is held against its teacher."""
    lmbda: float = 0.5
    """Share of the steps that learn from the student's own answers; the others learn from data."""
    data: Data = field(default_factory=TeacherSamples)
    """What those others learn from."""
    reward: Reward = field(default_factory=Unrewarded)
    """Whether the student's own answers teach by what they earn, too."""
    ce_coef: float = 0.0
    """Weight of the cross-entropy of the data's own tokens, beside the divergence (Hinton et al. 2015)."""
    temperature: float = 1.0
    """What the logits of both are divided by, in sampling and in learning."""
    num_generations: int = 4
    """The student's answers to each prompt."""
    generation_batch_size: int = 64
    """Answers, the student's or the teacher's, of a step of the optimiser."""
    max_completion_length: int | None = None
    """Tokens that an answer may have, if the task allows as many; None: what the task allows."""
    max_length: int = 128
    """Tokens of a row of data."""
    per_device_train_batch_size: int = 16
    """Rows of data, or answers, that are held in memory at a time."""
    gradient_accumulation_steps: int = 1
    """Batches of rows of data to a step of the optimiser; the result is that of one large batch."""
    learning_rate: float = 1e-3
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
    bf16: bool = False
    """Compute products in bfloat16, where the hardware is made for it; parameters and losses stay in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    torch_compile: bool = False
    """Let PyTorch's compiler join what a layer computes; on a CPU little is gained by it, after half a minute."""
    cuda_graphs: bool = False
    """On a GPU, record the steps by which completions are written, and replay them."""
    eval_tokens: int = 32_768
    """Tokens of the validation rows that an evaluation by bits per byte looks at."""
    model: TransformerConfig = field(default_factory=lambda: gpt2(512, 64, 4, 4, 256))
    """The student, where it begins from nothing; its vocabulary is the teacher's."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where both models live: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        names = ("total_timesteps", "num_generations", "generation_batch_size", "max_completion_length", "max_length")
        for name in (*names, "per_device_train_batch_size", "gradient_accumulation_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"expected {name} of at least 1, got {value}")
        _within_one("lmbda", self.lmbda)
        _within_one("warmup_ratio", self.warmup_ratio)
        if self.generation_batch_size % self.num_generations:
            raise ConfigError(
                f"expected generation_batch_size a multiple of num_generations={self.num_generations}, got "
                f"{self.generation_batch_size}"
            )
        if self.ce_coef < 0.0 or self.model.kind != "decoder":
            raise ConfigError(
                f"expected ce_coef of at least 0 and a model of kind 'decoder', got {self.ce_coef} and "
                f"{self.model.kind!r}"
            )
        Sampling(self.temperature)  # raises where it cannot be

    @property
    def beta(self) -> float:
        """Which divergence: 0 is the forward KL, 1 the reverse."""
        match self.objective:
            case JensenShannon(beta):
                return beta
            case ReverseKL():
                return 1.0
            case _:
                return 0.0

    @property
    def gamma(self) -> float:
        """What later divergences count on the student's own answers."""
        return self.objective.gamma if isinstance(self.objective, ReverseKL) else 0.0

    @property
    def by_text(self) -> bool:
        """Whether all is learnt from the task's own text: nothing is written then, nor earned."""
        return self.lmbda == 0.0 and not isinstance(self.data, TeacherSamples)


class Lessons:
    """What each step learns from. It holds the place in the data, the sources of answers, and whose turn it is."""

    def __init__(
        self, config: Config, task: TextTask, policy: LanguageModel, teacher: LanguageModel, texts: Texts | None
    ) -> None:
        self.config, self.policy, self.teacher = config, policy, teacher
        self.generator = generator(config.seed, "whose turn")
        many, device = config.generation_batch_size, config.device
        self.sources: dict[str, Source] = {}
        if config.lmbda > 0.0:
            own = config.num_generations
            self.sources["student"] = task.source(many, config.seed, device, num_generations=own)
            if isinstance(config.reward, Rewarded) and not isinstance(config.reward.follow, Always):
                # An equal seed: the teacher is asked what the student is asked.
                self.sources["asked"] = task.source(many, config.seed, device, num_generations=own)
        if config.lmbda < 1.0 and isinstance(config.data, TeacherSamples):
            self.sources["teacher"] = task.source(many, derive(config.seed, "the teacher's prompts"), device)
        self.cursor: Cursor | None = None
        if texts is not None:
            self.cursor = Cursor(
                texts.train, max_length=config.max_length, batch_size=config.per_device_train_batch_size,
                pad_id=texts.pad_id, packing=packing(config), seed=derive(config.seed, "data"),
            )  # fmt: skip

    def next(self) -> tuple[Lesson, list[Episode], dict[str, Tensor | float]]:
        """The next step's; the answers of the student's that it is made of, and metrics."""
        if float(torch.rand((), generator=self.generator)) < self.config.lmbda:
            return self.of_student()
        if isinstance(self.config.data, TeacherSamples):
            with writing(self.teacher, self.config.data.temperature):
                rollout = self.sources["teacher"].collect(self.teacher, self.config.max_completion_length)
            self.sources["teacher"].episodes()  # nobody asks for the teacher's
            earns = earned(rollout)[0].mean()
            longest = self.policy.config.max_position_embeddings
            rows = rows_of(rollout, longest)
            if not bool(rows.loss_mask.any()):
                raise ConfigError(
                    f"expected prompts that leave room for an answer in the {longest} tokens that the student reads, "
                    "got none of a whole rollout: give the student more max_position_embeddings"
                )
            return self.of_data(rows), [], {"teacher_reward": earns}
        assert self.cursor is not None
        batches = [self.cursor.next() for _ in range(self.config.gradient_accumulation_steps)]
        rows = Rows(**{name: torch.cat([vars(batch)[name] for batch in batches]) for name in vars(batches[0])})
        return self.of_data(rows.to(self.config.device)), [], {"epochs": self.cursor.epochs}

    def of_data(self, rows: Rows) -> Lesson:
        """The distributions behind what is shown; and the tokens themselves, as far as those count."""
        sequence = isinstance(self.config.objective, Sequence)
        like = torch.ones(rows.tokens.shape, device=rows.tokens.device)
        return Lesson(rows, like * (not sequence), like * (1.0 if sequence else self.config.ce_coef))

    def of_student(self) -> tuple[Lesson, list[Episode], dict[str, Tensor | float]]:
        """The student's own answers: the teacher's word on each token and, where it counts, what they earn."""
        config, source = self.config, self.sources["student"]
        rollout = source.collect(self.policy, config.max_completion_length)
        reward, group = earned(rollout)
        metrics: dict[str, Tensor | float] = {"reward": reward.mean()}
        weight, advantage = torch.ones_like(reward), torch.zeros_like(reward)
        if isinstance(config.reward, Rewarded):
            advantage = config.reward.coef * group_relative(reward, group, config.reward.scale_rewards)
            if "asked" in self.sources:
                taught = earned(self.sources["asked"].collect(self.teacher, config.max_completion_length))[0]
                self.sources["asked"].episodes()
                same = (group[:, None] == group).float()
                own, others = ((same @ x) / same.sum(1) for x in (reward, taught))
                follows = isinstance(config.reward.follow, AsGood)
                weight = others.clamp(0.0, 1.0) if follows else (others > own).float()
                metrics |= {"asked_teacher_reward": taught.mean(), "followed": weight.mean()}
        shape = rollout.reward.shape
        lesson = Lesson(rows_of(rollout), weight[:, None].expand(shape), advantage[:, None].expand(shape), group)
        return lesson, source.episodes(), metrics

    def state_dict(self) -> dict[str, Any]:
        sources = {name: source.state_dict() for name, source in self.sources.items()}
        cursor = {} if self.cursor is None else {"cursor": self.cursor.state_dict()}
        return {"generator": self.generator.get_state(), "sources": sources, **cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        for name, source in self.sources.items():
            source.load_state_dict(state["sources"][name])
        if self.cursor is not None:
            self.cursor.load_state_dict(state["cursor"])


class Learner:
    """The student's optimiser, and the update."""

    def __init__(self, policy: LanguageModel, teacher: LanguageModel, config: Config) -> None:
        self.policy, self.teacher, self.config = policy, teacher, config
        betas = config.adam_beta1, config.adam_beta2
        self.optimizer = AdamW(decayed(policy.parameters(), config.weight_decay), config.learning_rate, betas)
        policy.body.checkpointing = config.gradient_checkpointing
        if config.torch_compile:
            compile_layers(policy.body, same_shapes=False)

    def compare(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """The divergence from the teacher and the student's log-probability, of each token that teaches ``[N]``, in the
        order of the mask."""
        rows, mask, config = lesson.rows, lesson.taught, self.config
        where = mask.flatten().nonzero().squeeze(1)
        target = rows.targets.flatten().index_select(0, where)
        with precision(config):
            hidden = read(self.policy, rows)
            if isinstance(config.objective, Sequence):
                scores = self.policy.scores(hidden, rows.targets.masked_fill(~mask, NONE), with_entropy=False)
                return torch.zeros(len(where), device=where.device), scores.log_prob[mask]
            with torch.no_grad():
                known = self.teacher.body.before_head(read(self.teacher, rows).flatten(0, 1).index_select(0, where))
            picked, head = self.policy.body.before_head(hidden.flatten(0, 1).index_select(0, where))
            made = token_divergences(picked, head, Against(*known), target, config.beta, config.temperature)
        return made.divergence, made.log_prob

    def update(self, lesson: Lesson) -> dict[str, Tensor | float]:
        """One step of the optimiser on the mean over all tokens of the lesson of

            weight_t D(teacher, student)_t - advantage_t log student(y_t)

        The divergence's gradient is that of the token's own distribution; how the tokens came there is not
        differentiated (GKD, algorithm 1), but as far as :meth:`later` credits it. Where nothing teaches, no step."""
        config = self.config
        total = lesson.rows.loss_mask.sum().clamp_min(1)
        if config.gamma > 0.0 and lesson.group is not None:
            lesson = replace(lesson, advantage=lesson.advantage - self.later(lesson))
        sums, count = torch.zeros(3, device=config.device), torch.zeros((), device=config.device)
        self.optimizer.zero_grad()
        for piece, _ in pieces(lesson, config.per_device_train_batch_size):
            apart, log_prob = self.compare(piece)
            mask = piece.taught
            loss = (piece.weight[mask] * apart - piece.advantage[mask] * log_prob).sum() / total
            loss.backward()
            sums = sums + torch.stack([loss, apart.sum(), -log_prob.sum()]).detach()
            count = count + mask.sum()
        if not bool(count):
            return {}
        norm = self.optimizer.step(config.max_grad_norm)
        return {
            "loss": sums[0], "divergence": sums[1] / count, "cross_entropy": sums[2] / count, "grad_norm": norm,
            "learning_rate": self.optimizer.lr,
        }  # fmt: skip

    @torch.no_grad()
    def later(self, lesson: Lesson) -> Tensor:
        """What the choice of each token ``[B, T]`` brought on: the discounted sum of the weighted divergences behind
        it, less the mean of the same of the other answers to its prompt, which does not bias the gradient.

        The divergence at a token is the expectation of its log-ratio: as credit it is less noisy than the log-ratio of
        what was drawn, and its mean is the same (MiniLLM's long part of the gradient, without its division by length).
        """
        assert lesson.group is not None
        apart = torch.zeros_like(lesson.weight)
        for piece, index in pieces(lesson, self.config.per_device_train_batch_size):
            here = torch.zeros_like(piece.weight)
            here[piece.taught] = self.compare(piece)[0] * piece.weight[piece.taught]
            apart[index, : here.shape[1]] = here
        gamma = torch.full_like(apart, self.config.gamma)
        behind = torch.zeros_like(apart)
        behind[:, :-1] = self.config.gamma * reverse_scan(apart, gamma)[:, 1:]
        same = (lesson.group[:, None] == lesson.group).float().fill_diagonal_(0.0)
        return behind - (same @ behind) / same.sum(1, keepdim=True).clamp_min(1.0)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def read(policy: LanguageModel, rows: Rows) -> Tensor:
    """Hidden states ``[B, T, width]``. Rows that hold one text need no mask, and attention is faster without one."""
    segments = rows.segments if bool((rows.segments != 0).any()) else None
    return policy.body.forward(rows.tokens, segments, None if segments is None else rows.positions)


@contextmanager
def writing(policy: LanguageModel, temperature: float) -> Iterator[None]:
    """Within it the policy draws, and is judged, at another temperature."""
    before, policy.sampling = policy.sampling, Sampling(temperature)
    try:
        yield
    finally:
        policy.sampling = before


def packing(config: Config) -> Packing:
    """How data is laid into rows: text is cut anywhere, answers stay whole."""
    return Wrapped() if isinstance(config.data, Corpus) else Whole()


def student_of(config: Config, teacher: LanguageModel) -> LanguageModel:
    """A new student, which has the teacher's words and reads no longer texts."""
    words, longest = teacher.config.vocab_size, teacher.config.max_position_embeddings
    longest = min(longest, config.model.max_position_embeddings)
    made = replace(config.model, vocab_size=words, max_position_embeddings=longest, value_head=True)
    with seeded(config.seed, "policy"):
        return LanguageModel(Transformer(made), teacher.vocabulary)


def check_teacher(policy: LanguageModel, teacher: LanguageModel) -> None:
    """Raises ConfigError where teacher and student do not speak of the same tokens."""
    if not isinstance(teacher, LanguageModel):
        raise ConfigError(f"expected a language model for a teacher, got {type(teacher).__name__}")
    alike = same_words(policy.vocabulary, teacher.vocabulary)
    if not alike or policy.config.vocab_size != teacher.config.vocab_size:
        raise ConfigError(
            "expected a teacher with the student's tokenizer, for their distributions are compared token by token, "
            f"got one of {teacher.config.vocab_size} tokens and a student of {policy.config.vocab_size}: without init "
            "a new student has the teacher's, or begin from a run that has it"
        )
    if (known := teacher.config.max_position_embeddings) < (own := policy.config.max_position_embeddings):
        raise ConfigError(
            f"expected a teacher that reads as long texts as the student, {own} tokens, got one of {known}: give the "
            f"student max_position_embeddings of {known}"
        )


def check_together(config: Config) -> None:
    """Raises ConfigError for an objective that has nothing to teach the student's own answers, and for a reward that
    nothing would earn: said before the first step and not when the settings are made, for they come one after the
    other."""
    if isinstance(config.objective, Sequence) and config.lmbda > 0.0:
        raise ConfigError(
            f"expected lmbda=0 with the objective Sequence, got {config.lmbda}: a student learns nothing from being "
            "shown its own answers; take a divergence for those"
        )
    if isinstance(config.reward, Rewarded) and (config.lmbda == 0.0 or config.num_generations < 2):
        raise ConfigError(
            "expected lmbda above 0 and num_generations of at least 2 with a reward, which the student's own "
            f"answers earn and are compared by, got {config.lmbda} and {config.num_generations}"
        )


def train(
    config: Config,
    task: TextTask,
    run: Run,
    policy: LanguageModel | None = None,
    teacher: LanguageModel | None = None,
) -> LanguageModel:
    """Teach ``policy``, or a new student, what ``teacher`` says on ``task``; return it."""
    if teacher is None:
        raise ConfigError("expected a teacher to learn from: give a run's, with teacher")
    check_together(config)
    keep_freed()
    teacher = on_device(frozen(teacher), config.device)
    policy = on_device(student_of(config, teacher) if policy is None else policy, config.device)
    check_teacher(policy, teacher)
    policy.eval()  # without dropout, as in TRL: what is learnt from is what was sampled
    policy.sampling = teacher.sampling = Sampling(config.temperature)
    for writer in (policy, teacher):
        writer.replay_steps(config.cuda_graphs)
    texts: Texts | None = None
    if config.lmbda < 1.0 and not isinstance(config.data, TeacherSamples):
        texts = task.corpus() if isinstance(config.data, Corpus) else task.demonstrations()
        check_texts(policy, texts, config.max_length)
    lessons, learner = Lessons(config, task, policy, teacher, texts), Learner(policy, teacher, config)
    if config.by_text:
        run.judge_by("bits_per_byte", lower_is_better=True)
    with run:
        run.track(policy=policy, learner=learner, lessons=lessons)
        while not run.done:
            learner.optimizer.lr = config.learning_rate * schedule(config, run.step / run.total)
            lesson, episodes, metrics = lessons.next()
            metrics |= learner.update(lesson)
            run.advance(int(lesson.rows.loss_mask.sum()), episodes)
            run.log(metrics)
            if run.due("evaluate"):
                run.evaluation(judge(config, task, run, policy, texts), policy)
            if run.due("checkpoint"):
                run.save()
        run.finish(policy)
    for source in lessons.sources.values():
        source.close()
    return policy


def judge(config: Config, task: TextTask, run: Run, policy: LanguageModel, texts: Texts | None) -> Evaluation:
    """By the task; by bits per byte of what was held out, where all is learnt from text."""
    if texts is None or not config.by_text:
        return task.evaluate(policy, run.options.n_eval_episodes, derive(config.seed, "evaluation"))
    held_out = some(texts.validation, config, texts.pad_id, packing(config))
    with writing(policy, 1.0):
        return validate(policy, held_out, texts.bytes_of.to(config.device), config)
