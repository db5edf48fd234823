"""Expert iteration: the model writes its own training data. Sample, verify, keep what is right, fine-tune, again.

From top to bottom: the config, what is kept, the loop. It is the simplest learning by reward: no advantage, no ratio,
the loss of fine-tuning on the model's own best answers (Anthony et al. 2017; STaR, Zelikman et al. 2022; ReST, Gulcehre
et al. 2023). It learns from what succeeded alone, and cannot say what was wrong.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchward.algorithms.pretrain import Learner
from torchward.config import ConfigError, verify_training
from torchward.data.cursor import Cursor
from torchward.data.kl import frozen
from torchward.data.packing import Whole
from torchward.data.protocols import on_device
from torchward.data.random import derive
from torchward.data.rollout import Rollout
from torchward.data.sequences import Sequences, TokenSequence
from torchward.data.texts import GroupTask
from torchward.nets.adamw import decayed
from torchward.nets.heap import keep_freed
from torchward.nets.language_model import LanguageModel, parts
from torchward.nets.sampling import Sampling
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """Expert iteration's settings, by the names of TRL."""

    total_timesteps: int = 500_000
    """Tokens to write, over all rounds."""
    generation_batch_size: int = 512
    """Completions of a round."""
    num_generations: int = 4
    """Completions of each prompt."""
    max_completion_length: int | None = None
    """Tokens that a completion may have; None: as many as the task allows."""
    reward_threshold: float = 1.0
    """Completions that earned at least this are kept."""
    kept_per_prompt: int = 2
    """The most different ones that are kept of a prompt's, the best first; then easy prompts do not outweigh all."""
    num_train_epochs: int = 2
    """How often what was kept is learnt from."""
    start_over: bool = False
    """Fine-tune the policy of the beginning anew in each round on all that was kept so far (STaR), and not the last
    one on the round's own (ReST)."""
    temperature: float = 1.0
    """What logits are divided by in sampling; what was kept is learnt at temperature 1."""
    top_k: int | None = None
    """Sample among this many of the likeliest tokens; None: all."""
    top_p: float | None = None
    """Sample among the fewest likeliest tokens with this probability together; None: all."""
    max_length: int = 128
    """Tokens of a row in learning; no prompt with its completion may be longer."""
    per_device_train_batch_size: int = 16
    """Rows of a step of the optimiser."""
    learning_rate: float = 1e-4
    """AdamW's step size."""
    weight_decay: float = 0.0
    """Share of each matrix that is taken away at a step, times the step size."""
    adam_beta1: float = 0.9
    """Adam's memory of the gradient."""
    adam_beta2: float = 0.999
    """Adam's memory of the squared gradient."""
    max_grad_norm: float = 1.0
    """Norm to which the gradient of all parameters together is clipped."""
    bf16: bool = False
    """Compute products in bfloat16 in learning, where the hardware is made for it."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
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
        for name in ("total_timesteps", "num_generations", "kept_per_prompt", "num_train_epochs", "max_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.max_completion_length is not None and self.max_completion_length < 1:
            raise ConfigError(f"expected max_completion_length of at least 1, got {self.max_completion_length}")
        if self.generation_batch_size % self.num_generations:
            raise ConfigError(
                f"expected generation_batch_size a multiple of num_generations={self.num_generations}, got "
                f"{self.generation_batch_size}"
            )


def kept(rollout: Rollout, config: Config) -> list[TokenSequence]:
    """The completions that earned enough, each different one once, the best ``kept_per_prompt`` of each prompt. None is
    longer than a row, ``max_length``."""
    tokens, _ = parts(rollout.observation)
    action, group = rollout.action, rollout.context["group"]
    assert isinstance(action, Tensor) and isinstance(group, Tensor)
    reward = torch.where(rollout.loss_mask, rollout.reward, 0.0).sum(1)
    found: dict[int, dict[tuple[int, ...], TokenSequence]] = {}
    for row in reward.argsort(descending=True, stable=True).tolist():
        if float(reward[row]) < config.reward_threshold:
            break
        own = rollout.loss_mask[row]
        end = int(own.nonzero().max()) + 1
        if end > config.max_length:
            continue
        ids = [*tokens[row, :end].tolist(), int(action[row, end - 1])]
        answers = found.setdefault(int(group[row]), {})
        if tuple(ids) not in answers and len(answers) < config.kept_per_prompt:
            answers[tuple(ids)] = TokenSequence(ids, [False, *own[:end].tolist()])
    return [answer for answers in found.values() for answer in answers.values()]


class Kept:
    """What was kept in all rounds."""

    def __init__(self) -> None:
        self.sequences: list[TokenSequence] = []
        self.rounds = 0

    def state_dict(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "sequences": [[list(each.ids), list(each.own)] for each in self.sequences]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rounds = int(state["rounds"])
        self.sequences = [TokenSequence(ids, own) for ids, own in state["sequences"]]


def learner_of(policy: LanguageModel, config: Config) -> Learner:
    """The update of fine-tuning. Nothing is said of bytes: every token counts as one."""
    ones = torch.ones(policy.config.vocab_size, dtype=torch.int64)
    return Learner(policy, config, ones, decayed(policy.parameters(), config.weight_decay))


def fine_tune(policy: LanguageModel, learner: Learner, memory: Kept, config: Config) -> dict[str, Tensor | float]:
    """Some epochs over what was kept, in rows that hold several completions."""
    policy.sampling = Sampling()
    sequences = Sequences.of(memory.sequences, policy.config.vocab_size)
    rows = config.per_device_train_batch_size
    seed = derive(config.seed, f"round {memory.rounds}")
    cursor = Cursor(sequences, max_length=config.max_length, batch_size=rows, pad_id=0, packing=Whole(), seed=seed)
    metrics: dict[str, Tensor | float] = {}
    for _ in range(max(1, round(config.num_train_epochs * cursor.rows / rows))):
        metrics = learner.update([cursor.next()])
    policy.eval()
    metrics.pop("bits_per_byte")
    return metrics


def train(config: Config, task: GroupTask, run: Run, policy: LanguageModel | None = None) -> LanguageModel:
    """Improve ``policy``, which can write the task's tokens already, by its own best answers; return it."""
    if policy is None:
        raise ConfigError("expected a policy that can write, to improve: give a run's, with init")
    if config.max_length > (context := policy.config.max_position_embeddings):
        raise ConfigError(f"expected max_length of at most {context}, the model's context, got {config.max_length}")
    keep_freed()
    policy = on_device(policy, config.device)
    drawn = Sampling(config.temperature, config.top_k, config.top_p)
    begun = frozen(policy) if config.start_over else None
    policy.replay_steps(config.cuda_graphs)
    policy.eval()
    source = task.source(
        config.generation_batch_size, config.seed, config.device, num_generations=config.num_generations
    )
    learner, memory = learner_of(policy, config), Kept()
    with run:
        run.track(policy=policy, learner=learner, source=source, kept=memory)
        while not run.done:
            policy.sampling = drawn
            rollout = source.collect(policy, config.max_completion_length)
            new = kept(rollout, config)
            memory.sequences = [*memory.sequences, *new] if config.start_over else new
            memory.rounds += 1
            metrics: dict[str, Tensor | float] = {"kept": len(new) / len(rollout.reward)}
            if begun is not None:
                policy.load_state_dict(begun.state_dict())
                learner.optimizer = learner_of(policy, config).optimizer
            if memory.sequences:
                metrics |= fine_tune(policy, learner, memory, config)
            run.advance(rollout.steps, source.episodes())
            run.log(metrics)
            if run.due("evaluate"):
                seed = derive(config.seed, "evaluation")
                run.evaluation(task.evaluate(policy, run.options.n_eval_episodes, seed), policy)
            if run.due("checkpoint"):
                run.save()
        run.finish(policy)
    source.close()
    return policy
