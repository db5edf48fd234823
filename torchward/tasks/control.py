"""Tuned settings of control: one plain function for each, and one plain table of them.

What stands here is what no flags mean; `torchward train ppo LunarLander-v3 --help` shows it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torchward.envs.make import EnvOptions
    from torchward.run import RunOptions


class Preset(NamedTuple):
    """Where the settings of a run start from; None stands for the defaults."""

    config: Any
    options: "RunOptions | None" = None
    env: "EnvOptions | None" = None


def ppo_cartpole() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import ppo

    return Preset(
        ppo.Config(
            total_timesteps=100_000,
            n_envs=8,
            n_steps=32,
            batch_size=256,
            gae_lambda=0.8,
            gamma=0.98,
            n_epochs=20,
            learning_rate=1e-3,
            learning_rate_schedule="linear",
            clip_range_schedule="linear",
        )
    )


def ppo_acrobot() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import ppo
    from torchward.nets.actor_critic import Network

    return Preset(
        ppo.Config(
            total_timesteps=1_000_000,
            n_envs=16,
            n_steps=256,
            batch_size=64,
            gae_lambda=0.94,
            n_epochs=4,
            normalize_reward=True,
            network=Network(normalize_observation=True),
        )
    )


def ppo_lunar_lander() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import ppo

    return Preset(
        ppo.Config(
            total_timesteps=1_000_000,
            n_envs=16,
            n_steps=1024,
            batch_size=64,
            gae_lambda=0.98,
            gamma=0.999,
            n_epochs=4,
            ent_coef=0.01,
        )
    )


def ppo_pendulum() -> Preset:
    """The rl-baselines3-zoo's setting, without its state-dependent exploration."""
    from torchward.algorithms import ppo

    return Preset(
        ppo.Config(
            total_timesteps=100_000,
            n_envs=4,
            n_steps=1024,
            batch_size=64,
            gae_lambda=0.95,
            gamma=0.9,
            n_epochs=10,
            learning_rate=1e-3,
        )
    )


PRESETS: dict[tuple[str, str], Callable[[], Preset]] = {
    ("ppo", "CartPole-v1"): ppo_cartpole,
    ("ppo", "Acrobot-v1"): ppo_acrobot,
    ("ppo", "LunarLander-v3"): ppo_lunar_lander,
    ("ppo", "Pendulum-v1"): ppo_pendulum,
}
"""(algorithm, task) -> preset."""
