"""Control as a task: a Gymnasium environment, learnt from in many worlds and judged in worlds of its own."""

from typing import Any

import numpy as np
import torch

from torchward.data.protocols import Evaluation, Policy
from torchward.data.tree import zero_rows
from torchward.envs import spaces as sp
from torchward.envs.collect import EnvSource
from torchward.envs.make import Environment, EnvOptions, make, make_env, name_of
from torchward.envs.models import Model, tabular_model
from torchward.envs.vector import InProcess, Worlds, episode_seed
from torchward.nets import spaces

EVALUATION = 7
"""Evaluation worlds count their seeds from a place of their own, so that they never replay a training episode."""


class Control:
    """A :class:`~torchward.data.protocols.Task` from an environment id, class, factory or instance."""

    def __init__(self, environment: Environment, options: EnvOptions | None = None) -> None:
        self.environment = environment
        self.options = options or EnvOptions()
        self.name = name_of(environment)
        if isinstance(environment, sp.gym.vector.VectorEnv):
            action, observation = environment.single_action_space, environment.single_observation_space
        else:
            probe = self.env()
            action, observation = probe.action_space, probe.observation_space
            probe.close()
        self.action_space = sp.from_gym(action)
        self.observation_space = sp.from_gym(observation)
        if self.options.action_mask and not spaces.has_mask(self.observation_space):
            self.observation_space = sp.with_mask(self.observation_space, sp.mask_space(self.action_space))

    def env(self, **kwargs: Any) -> Any:
        """One environment, as its users know it."""
        if self.options.vectorization == "envpool" and isinstance(self.environment, str):
            import gymnasium as gym

            if self.environment not in gym.registry:
                import envpool

                return envpool.make(self.environment, env_type="gymnasium", num_envs=1, **self.options.env_kwargs)
        return make_env(self.environment, self.options, **kwargs)

    def worlds(self, n_envs: int) -> Worlds:
        """``n_envs`` worlds, to be reset with a seed before they are stepped."""
        return make(self.environment, n_envs, self.options)

    def source(self, n_envs: int, seed: int, device: str = "cpu") -> EnvSource:
        return EnvSource(self.worlds(n_envs), seed, device)

    def model(self) -> Model:
        """The transition probabilities and rewards of an environment that has a table of them."""
        return tabular_model(self.env(), self.name)

    @torch.no_grad()
    def evaluate(self, policy: Policy, episodes: int, seed: int, deterministic: bool = True, device: str = "cpu") -> Evaluation:
        """Play ``episodes`` whole episodes, as evenly as can be in up to 16 worlds; a short one displaces no long one."""
        n = min(episodes, 16)
        worlds = self._evaluation_worlds(n)
        quota = np.full(n, episodes // n) + (np.arange(n) < episodes % n)
        observation = worlds.reset(episode_seed(seed, EVALUATION, 0))
        generator = torch.Generator(device).manual_seed(episode_seed(seed, EVALUATION, 1))
        state = policy.initial_state(n)
        totals, lengths = np.zeros(n), np.zeros(n, np.int64)
        evaluation = Evaluation([], [])
        while (quota > 0).any():
            noise = None if deterministic else policy.noise((n,), generator)
            acted = policy.act(sp.tensors(observation, device), state, noise)
            step = worlds.step(sp.numpy(spaces.env_action(worlds.action_space, acted.action)))
            ended = step.terminated | step.truncated
            totals += step.reward
            lengths += ~step.reset
            for i in np.flatnonzero(ended):
                if quota[i] > 0:
                    evaluation.returns.append(float(totals[i]))
                    evaluation.lengths.append(int(lengths[i]))
                    quota[i] -= 1
            totals[ended], lengths[ended] = 0.0, 0
            state = zero_rows(acted.state, torch.from_numpy(ended | step.reset))
            observation = step.observation
        worlds.close()
        return evaluation

    def _evaluation_worlds(self, n: int) -> Worlds:
        """In this process: an evaluation is short, and processes of its own would cost more to start than to step."""
        if self.options.vectorization == "envpool" or isinstance(self.environment, sp.gym.vector.VectorEnv):
            return make(self.environment, n, self.options)
        return InProcess(self.name, [self.env() for _ in range(n)], self.options.action_mask)
