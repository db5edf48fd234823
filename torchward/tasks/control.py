"""Tuned settings of control: one plain function for each, and one plain table of them.

What stands here is what no flags mean; `torchward train ppo LunarLander-v3 --help` shows it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torchward.run import RunOptions


class Preset(NamedTuple):
    """Where the settings of a run start from; None stands for the defaults."""

    config: Any
    options: "RunOptions | None" = None
    env: Any = None
    """What the task is told: EnvOptions, or those of a task of text."""


def ppo_cartpole() -> Preset:
    """Few, large updates over 32 worlds: tuned for seconds, not for steps (docs/log.md)."""
    from torchward.algorithms import ppo

    return Preset(
        ppo.Config(
            total_timesteps=100_000,
            n_envs=32,
            n_steps=64,
            batch_size=512,
            n_epochs=6,
            gamma=0.98,
            gae_lambda=0.9,
            learning_rate=3e-3,
            learning_rate_schedule="linear",
        )
    )


def ppo_acrobot() -> Preset:
    """The rl-baselines3-zoo's horizon and trace, with larger updates and a falling step size."""
    from torchward.algorithms import ppo
    from torchward.nets.actor_critic import Network

    return Preset(
        ppo.Config(
            total_timesteps=1_000_000,
            n_envs=16,
            n_steps=256,
            batch_size=256,
            n_epochs=4,
            gae_lambda=0.94,
            learning_rate=1e-3,
            learning_rate_schedule="linear",
            network=Network(normalize_observation=True),
        )
    )


def ppo_lunar_lander() -> Preset:
    """The rl-baselines3-zoo's horizon and discount, with larger updates, a falling step size and less entropy."""
    from torchward.algorithms import ppo

    return Preset(
        ppo.Config(
            total_timesteps=1_000_000,
            n_envs=16,
            n_steps=1024,
            batch_size=256,
            n_epochs=6,
            gamma=0.999,
            gae_lambda=0.98,
            ent_coef=0.003,
            learning_rate=1e-3,
            learning_rate_schedule="linear",
        )
    )


def ppo_pendulum() -> Preset:
    """The rl-baselines3-zoo's setting, without its state-dependent exploration, and with a falling step size."""
    from torchward.algorithms import ppo

    return Preset(
        ppo.Config(
            total_timesteps=100_000,
            n_envs=4,
            n_steps=512,
            batch_size=64,
            n_epochs=10,
            gamma=0.9,
            learning_rate=1e-3,
            learning_rate_schedule="linear",
        )
    )


def dqn_cartpole() -> Preset:
    """Few, large updates behind the steps of 16 worlds: tuned for seconds (benchmarks/time_to_475.py)."""
    from torchward.algorithms import dqn
    from torchward.data.exploration import EpsilonGreedy
    from torchward.nets.q_network import QNet

    return Preset(
        dqn.Config(
            total_timesteps=100_000,
            n_envs=16,
            train_freq=8,
            gradient_steps=16,
            batch_size=256,
            buffer_size=100_000,
            learning_starts=1_000,
            learning_rate=2e-3,
            learning_rate_schedule="linear",
            n_steps=3,
            target_update_interval=500,
            double_q=True,
            exploration=EpsilonGreedy(1.0, 0.01, 0.05),
            network=QNet(net_arch=(128, 128)),
        )
    )


def dqn_acrobot() -> Preset:
    """The rl-baselines3-zoo's setting, for LunarLander as well: an update for each step."""
    from torchward.algorithms import dqn
    from torchward.data.exploration import EpsilonGreedy
    from torchward.nets.q_network import QNet

    return Preset(
        dqn.Config(
            total_timesteps=100_000,
            train_freq=4,
            gradient_steps=-1,
            batch_size=128,
            buffer_size=50_000,
            learning_starts=0,
            learning_rate=6.3e-4,
            target_update_interval=250,
            exploration=EpsilonGreedy(1.0, 0.1, 0.12),
            network=QNet(net_arch=(256, 256)),
        )
    )


def dqn_mountain_car() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import dqn
    from torchward.data.exploration import EpsilonGreedy
    from torchward.nets.q_network import QNet

    return Preset(
        dqn.Config(
            total_timesteps=120_000,
            train_freq=16,
            gradient_steps=8,
            batch_size=128,
            buffer_size=10_000,
            learning_starts=1_000,
            learning_rate=4e-3,
            gamma=0.98,
            target_update_interval=600,
            exploration=EpsilonGreedy(1.0, 0.07, 0.2),
            network=QNet(net_arch=(256, 256)),
        )
    )


def soft_q_cartpole() -> Preset:
    """The rl-baselines3-zoo's setting for DQN, at a temperature of half a step's reward."""
    from torchward.algorithms import soft_q
    from torchward.nets.q_network import QNet

    return Preset(
        soft_q.Config(
            total_timesteps=50_000,
            temperature=0.5,
            train_freq=256,
            gradient_steps=128,
            batch_size=64,
            buffer_size=100_000,
            learning_starts=1_000,
            learning_rate=2.3e-3,
            target_update_interval=10,
            network=QNet(net_arch=(256, 256)),
        )
    )


def rainbow_cartpole() -> Preset:
    """Soft Q-learning's setting with a distribution between no step and all that count at this discount."""
    return _rainbow(soft_q_cartpole(), 0.0, 100.0)


def rainbow_acrobot() -> Preset:
    """DQN's setting with a distribution between an episode that never ends and none."""
    return _rainbow(dqn_acrobot(), -100.0, 0.0)


def rainbow_lunar_lander() -> Preset:
    """DQN's setting with a distribution around what landings and crashes pay."""
    return _rainbow(dqn_acrobot(), -200.0, 300.0)


def rainbow_mountain_car() -> Preset:
    """DQN's setting with a distribution between an episode that never ends and none."""
    return _rainbow(dqn_mountain_car(), -50.0, 0.0)


def _rainbow(start: Preset, v_min: float, v_max: float) -> Preset:
    """Rainbow where another stands, with atoms from ``v_min`` to ``v_max``."""
    from torchward.algorithms import rainbow
    from torchward.nets.q_network import C51, QNet

    same = ("total_timesteps", "train_freq", "gradient_steps", "batch_size", "buffer_size", "learning_rate", "gamma")
    return Preset(
        rainbow.Config(
            **{name: getattr(start.config, name) for name in (*same, "target_update_interval")},
            learning_starts=1_000,
            distribution=C51(51, v_min, v_max),
            network=QNet(net_arch=(128, 128), dueling=True, noisy=True),
        )
    )


def ppo_atari() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import ppo
    from torchward.nets.actor_critic import Network

    return Preset(
        ppo.Config(
            total_timesteps=10_000_000,
            n_envs=8,
            n_steps=128,
            batch_size=256,
            n_epochs=4,
            learning_rate=2.5e-4,
            learning_rate_schedule="linear",
            clip_range=0.1,
            clip_range_schedule="linear",
            ent_coef=0.01,
            network=Network(net_arch=()),
        )
    )


def dqn_atari() -> Preset:
    """The rl-baselines3-zoo's setting, with its four steps to an update taken by four games at once."""
    from torchward.algorithms import dqn
    from torchward.data.exploration import EpsilonGreedy
    from torchward.nets.q_network import QNet

    return Preset(
        dqn.Config(
            total_timesteps=10_000_000,
            n_envs=4,
            train_freq=1,
            batch_size=32,
            buffer_size=100_000,
            frame_stack=4,
            stack_padding="zero",
            learning_starts=100_000,
            learning_rate=1e-4,
            target_update_interval=1_000,
            exploration=EpsilonGreedy(1.0, 0.01, 0.1),
            network=QNet(net_arch=()),
        )
    )


def rainbow_atari() -> Preset:
    """The paper's setting (Hessel et al. 2018, table 1), in steps of four frames, with a replay a tenth as large."""
    from torchward.algorithms import rainbow
    from torchward.nets.q_network import QNet

    return Preset(
        rainbow.Config(
            total_timesteps=10_000_000,
            n_envs=4,
            train_freq=1,
            batch_size=32,
            buffer_size=100_000,
            frame_stack=4,
            stack_padding="zero",
            learning_starts=20_000,
            learning_rate=6.25e-5,
            target_update_interval=8_000,
            network=QNet(net_arch=(), dueling=True, noisy=True),
        )
    )


def ppo_mountain_car() -> Preset:
    """Paid for what a network cannot yet foretell: nothing else leads to the goal (benchmarks/exploration.py)."""
    from torchward.algorithms import ppo
    from torchward.data.random_distillation import RandomDistillation
    from torchward.nets.actor_critic import Network

    return Preset(
        ppo.Config(
            total_timesteps=300_000,
            n_envs=16,
            n_steps=128,
            batch_size=256,
            n_epochs=6,
            gae_lambda=0.98,
            ent_coef=0.01,
            learning_rate=1e-3,
            learning_rate_schedule="linear",
            exploration_bonus=RandomDistillation(coef=10.0),
            network=Network(normalize_observation=True),
        )
    )


def q_learning_cliff_walking() -> Preset:
    """Deterministic steps: a constant, large rate is exact (benchmarks/tabular.py)."""
    from torchward.algorithms.q_learning import Config, Linear
    from torchward.data.exploration import EpsilonGreedy

    return Preset(Config(total_timesteps=50_000, exploration=EpsilonGreedy(0.1, 0.1), learning_rate=Linear(0.5, 0.5)))


def q_learning_taxi() -> Preset:
    """Deterministic steps and many places: explore much, copy each target (benchmarks/tabular.py)."""
    from torchward.algorithms.q_learning import Config, Linear
    from torchward.data.exploration import EpsilonGreedy

    return Preset(Config(total_timesteps=300_000, exploration=EpsilonGreedy(0.5, 0.5), learning_rate=Linear(1.0, 1.0)))


def q_learning_frozen_lake() -> Preset:
    """Slippery steps: rates that fall with the visits of each pair (benchmarks/tabular.py)."""
    from torchward.algorithms.q_learning import Config, VisitCount
    from torchward.data.exploration import EpsilonGreedy

    exploration, rate = EpsilonGreedy(1.0, 0.1), VisitCount(0.1, 0.8)
    return Preset(Config(total_timesteps=100_000, exploration=exploration, learning_rate=rate))


def q_learning_frozen_lake_8x8() -> Preset:
    """As the small lake; begun with the largest return there is, so that all of it is tried."""
    from torchward.algorithms.q_learning import Config, VisitCount
    from torchward.data.exploration import EpsilonGreedy

    exploration, rate = EpsilonGreedy(0.1, 0.1), VisitCount(0.1, 0.8)
    return Preset(Config(total_timesteps=500_000, exploration=exploration, learning_rate=rate, initial_q=1.0))


def sac_pendulum() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import sac

    return Preset(sac.Config(total_timesteps=20_000, learning_rate=1e-3))


def sac_lunar_lander_continuous() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import sac
    from torchward.nets.actor_body import ActorNet

    return Preset(
        sac.Config(
            total_timesteps=500_000,
            learning_starts=10_000,
            learning_rate=7.3e-4,
            learning_rate_schedule="linear",
            tau=0.01,
            network=ActorNet(net_arch=(400, 300)),
        )
    )


def sac_mujoco() -> Preset:
    """The rl-baselines3-zoo's setting: the defaults, after 10,000 steps at random."""
    from torchward.algorithms import sac

    return Preset(sac.Config(total_timesteps=1_000_000, learning_starts=10_000))


def td3_pendulum() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import td3

    return Preset(td3.Config(total_timesteps=20_000, gamma=0.98, buffer_size=200_000, learning_starts=10_000))


def td3_lunar_lander_continuous() -> Preset:
    """The rl-baselines3-zoo's setting."""
    from torchward.algorithms import td3

    return Preset(td3.Config(total_timesteps=300_000, gamma=0.98, buffer_size=200_000, learning_starts=10_000))


def td3_mujoco() -> Preset:
    """The rl-baselines3-zoo's setting: the defaults, after 10,000 steps at random."""
    from torchward.algorithms import td3

    return Preset(td3.Config(total_timesteps=1_000_000, learning_starts=10_000))


PRESETS: dict[tuple[str, str], Callable[[], Preset]] = {
    ("ppo", "CartPole-v1"): ppo_cartpole,
    ("ppo", "Acrobot-v1"): ppo_acrobot,
    ("ppo", "LunarLander-v3"): ppo_lunar_lander,
    ("ppo", "Pendulum-v1"): ppo_pendulum,
    ("ppo", "MountainCar-v0"): ppo_mountain_car,
    ("ppo", "ALE/*"): ppo_atari,
    ("dqn", "CartPole-v1"): dqn_cartpole,
    ("dqn", "Acrobot-v1"): dqn_acrobot,
    ("dqn", "LunarLander-v3"): dqn_acrobot,
    ("dqn", "MountainCar-v0"): dqn_mountain_car,
    ("soft_q", "CartPole-v1"): soft_q_cartpole,
    ("rainbow", "CartPole-v1"): rainbow_cartpole,
    ("rainbow", "Acrobot-v1"): rainbow_acrobot,
    ("rainbow", "LunarLander-v3"): rainbow_lunar_lander,
    ("rainbow", "MountainCar-v0"): rainbow_mountain_car,
    ("dqn", "ALE/*"): dqn_atari,
    ("rainbow", "ALE/*"): rainbow_atari,
    ("q_learning", "CliffWalking-v1"): q_learning_cliff_walking,
    ("q_learning", "Taxi-v3"): q_learning_taxi,
    ("q_learning", "Taxi-v4"): q_learning_taxi,
    ("q_learning", "FrozenLake-v1"): q_learning_frozen_lake,
    ("q_learning", "FrozenLake8x8-v1"): q_learning_frozen_lake_8x8,
    ("sac", "Pendulum-v1"): sac_pendulum,
    ("sac", "LunarLanderContinuous-v3"): sac_lunar_lander_continuous,
    ("sac", "HalfCheetah-v5"): sac_mujoco,
    ("sac", "Hopper-v5"): sac_mujoco,
    ("td3", "Pendulum-v1"): td3_pendulum,
    ("td3", "LunarLanderContinuous-v3"): td3_lunar_lander_continuous,
    ("td3", "HalfCheetah-v5"): td3_mujoco,
    ("td3", "Hopper-v5"): td3_mujoco,
}
"""(algorithm, task) -> preset; ``ALE/*`` stands for all games of ALE."""
