"""Tuned settings of the tasks of text: one plain function for each, and one plain table of them."""

from collections.abc import Callable

from torchward.tasks.control import Preset


def _two_digits(config: object) -> Preset:
    """Sums of two digits, few of them with their answer: what is learnt by heart and what is understood differ."""
    from torchward.run import RunOptions
    from torchward.tasks import addition

    sums = addition.Options(digits=2, demonstrations=700, problems=4_500)
    return Preset(config, RunOptions(n_eval_episodes=sums.test, stats_window=500), sums)


def pretrain_addition() -> Preset:
    """A small model that has seen the sums' demonstrations as text."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=20_000, max_length=64, per_device_train_batch_size=4, learning_rate=2e-3,
        model=gpt2(32, 128, 2, 4, 64),
    )  # fmt: skip
    return _two_digits(config)


def sft_addition() -> Preset:
    """Small steps, many of them: the sums are learnt late and at once."""
    from torchward.algorithms import sft

    config = sft.Config(
        total_timesteps=120_000, max_length=64, per_device_train_batch_size=4, learning_rate=2e-3
    )  # fmt: skip
    return _two_digits(config)


def grpo_addition() -> Preset:
    """Many questions with few answers each: soon most groups agree, and those teach nothing."""
    from torchward.algorithms import grpo

    config = grpo.Config(
        total_timesteps=800_000, generation_batch_size=512, num_generations=4, steps_per_generation=4,
        num_iterations=2, per_device_train_batch_size=128, learning_rate=7e-4, lr_scheduler_type="linear",
        warmup_ratio=0.03,
    )  # fmt: skip
    return _two_digits(config)


def ppo_addition() -> Preset:
    """Four tokens of each of 512 answers, twice; nothing is discounted."""
    from torchward.algorithms import ppo

    config = ppo.Config(
        total_timesteps=500_000, n_envs=512, n_steps=4, batch_size=512, n_epochs=2, learning_rate=5e-4,
        learning_rate_schedule="linear", gamma=1.0, gae_lambda=0.95, ent_coef=0.005,
    )  # fmt: skip
    return _two_digits(config)


def pretrain_python_topics() -> Preset:
    """A small model in small batches: English in about two minutes."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=600_000, max_length=128, per_device_train_batch_size=4, learning_rate=3e-3,
        model=gpt2(512, 128, 2, 4, 128),
    )  # fmt: skip
    return Preset(config)


PRESETS: dict[tuple[str, str], Callable[[], Preset]] = {
    ("pretrain", "addition"): pretrain_addition,
    ("sft", "addition"): sft_addition,
    ("grpo", "addition"): grpo_addition,
    ("ppo", "addition"): ppo_addition,
    ("pretrain", "python_topics"): pretrain_python_topics,
}
"""By algorithm and task."""
