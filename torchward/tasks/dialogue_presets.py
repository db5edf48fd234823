"""Tuned settings of `dialogue`: one plain function for each algorithm; the table of all is in `text`."""

from torchward.tasks.control import Preset


def _users(config: object) -> Preset:
    """Users of all modes, judged on all that are held out."""
    from torchward.run import RunOptions
    from torchward.tasks import dialogue

    users = dialogue.Options()
    return Preset(config, RunOptions(n_eval_episodes=users.test, stats_window=500), users)


def pretrain_dialogue() -> Preset:
    """A small model that has seen a little of how conversations look."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    config = pretrain.Config(
        total_timesteps=50_000, max_length=128, per_device_train_batch_size=4, learning_rate=3e-3,
        model=gpt2(640, 96, 2, 4, 256),
    )  # fmt: skip
    return _users(config)


def sft_dialogue() -> Preset:
    """Many small steps, until values are copied from where they stand; by reward, that takes far longer to learn."""
    from torchward.algorithms import sft

    config = sft.Config(
        total_timesteps=1_000_000, max_length=192, per_device_train_batch_size=4, learning_rate=3e-3
    )  # fmt: skip
    return _users(config)


def grpo_dialogue() -> Preset:
    """Eight conversations with each user; rewards are not divided by their deviation, for else it is brevity alone that
    counts among conversations that all succeed."""
    from torchward.algorithms import grpo

    config = grpo.Config(
        total_timesteps=600_000, generation_batch_size=512, num_generations=8, steps_per_generation=8,
        num_iterations=2, per_device_train_batch_size=64, learning_rate=7e-4, lr_scheduler_type="linear",
        warmup_ratio=0.03, entropy_coef=0.003, credit=grpo.GroupRelative(scale_rewards=False),
    )  # fmt: skip
    return _users(config)


def ppo_dialogue() -> Preset:
    """Conversations with 512 users at once. The user's words pass as time, so that the trace is never cut; and nothing
    rewards entropy, of which demonstrations with faults have enough."""
    from torchward.algorithms import ppo

    config = ppo.Config(
        total_timesteps=4_096_000, n_envs=512, n_steps=80, batch_size=5_120, n_epochs=2, learning_rate=5e-4,
        learning_rate_schedule="linear", gamma=1.0, gae_lambda=1.0, ent_coef=0.0,
    )  # fmt: skip
    return _users(config)
