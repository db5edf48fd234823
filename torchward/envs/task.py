"""Control as a task: a Gymnasium environment, learnt from in many worlds and judged in worlds of its own."""

import copy
import itertools
from contextlib import nullcontext
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv

from torchward.data.hindsight import Goals
from torchward.data.protocols import Evaluation, Policy
from torchward.data.tree import replace_rows
from torchward.envs import faults
from torchward.envs import spaces as sp
from torchward.envs.atari import is_atari
from torchward.envs.collect import EnvSource, device_of
from torchward.envs.faults import WorldError
from torchward.envs.goals import goals
from torchward.envs.in_process import InProcess
from torchward.envs.make import Environment, EnvOptions, build, limited, make, make_env, name_of
from torchward.envs.models import Model, tabular_model
from torchward.envs.worlds import Worlds, episode_seed, layers, time_limit
from torchward.nets import spaces
from torchward.nets.dropout import without_dropout

Made: TypeAlias = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]

EVALUATION = 7
"""Evaluation worlds count their seeds from a place of their own, so that they never replay a training episode."""

EVALUATION_STEPS = 10_000
"""Steps after which an evaluation counts an episode as it stands, in an environment that has no time limit of its own:
a policy that walks in circles would never come to an end."""


class Control:
    """A :class:`~torchward.data.protocols.Task` from an environment id, class, factory or instance."""

    def __init__(self, environment: Environment, options: EnvOptions | None = None) -> None:
        self.environment = environment
        self.options = options or EnvOptions()
        self.name = name_of(environment)
        self.is_vector = False
        self.limit: int | None = 0
        """The time limit of an episode in steps; None: none is known; 0: what makes the worlds has one."""
        self.held: int | None = None
        """The number of environments of a vector; None: as many as are asked for."""
        self.is_native = is_atari(environment) or self.options.vectorization == "envpool"
        if self.is_native:
            worlds = self.worlds(1)
            self.action_space, self.observation_space = worlds.action_space, worlds.observation_space
            worlds.close()
            return
        probe = build(environment, self.options)
        if isinstance(probe, VectorEnv):
            self.is_vector, self.held = True, probe.num_envs
            action, observation = probe.single_action_space, probe.single_observation_space
        else:
            action, observation = (_space_of(probe, self.name, name) for name in ("action_space", "observation_space"))
        self.limit = self.options.max_episode_steps or time_limit(probe)
        _refuse_statistics(self.name, probe)
        if probe is not environment:
            probe.close()
        if not isinstance(environment, str | type | gym.Env | VectorEnv):
            _refuse_the_same(self.name, probe, build(environment, self.options))
        self.action_space = sp.from_gym(action, of_actions=True)
        self.observation_space = sp.from_gym(observation)
        if self.options.action_mask and not spaces.has_mask(self.observation_space):
            self.observation_space = sp.with_mask(self.observation_space, sp.mask_space(self.action_space))

    def env(self, **kwargs: Any) -> "gym.Env[Any, Any]":
        """One environment, as its users know it. Raises :class:`WorldError` where there are only vectors of them."""
        return make_env(self.environment, self.options, **kwargs)

    def worlds(self, n_envs: int) -> Worlds:
        """``n_envs`` worlds, to be reset with a seed before they are stepped."""
        return make(self.environment, n_envs, self.options)

    def source(self, n_envs: int, seed: int, device: str = "cpu") -> EnvSource:
        return EnvSource(self.worlds(n_envs), seed, device)

    def model(self) -> Model:
        """The transition probabilities and rewards of an environment that has a table of them."""
        return tabular_model(self.env(), self.name)

    def goals(self) -> Goals:
        """What goals pay, in an environment of goals. Raises :class:`WorldError` for any other."""
        return goals(self.env(), self.name)

    @torch.no_grad()
    def evaluate(self, policy: Policy, episodes: int, seed: int, deterministic: bool = True) -> Evaluation:
        """Play ``episodes`` whole episodes, as evenly as can be in up to 16 worlds: a short one displaces no long one.

        In an environment without a time limit an episode counts as it stands after ``EVALUATION_STEPS``.
        Raises :class:`WorldError` if an environment raises."""
        worlds = self._evaluation_worlds(min(episodes, 16))
        try:
            with without_dropout(policy) if isinstance(policy, torch.nn.Module) else nullcontext():
                return self._play(policy, worlds, episodes, seed, deterministic)
        finally:
            worlds.close()

    def _play(self, policy: Policy, worlds: Worlds, episodes: int, seed: int, deterministic: bool) -> Evaluation:
        n, device = worlds.n, device_of(policy)
        quota = np.full(n, episodes // n) + (np.arange(n) < episodes % n)
        observation = worlds.reset(episode_seed(seed, EVALUATION, 0))
        generator = torch.Generator(device).manual_seed(episode_seed(seed, EVALUATION, 1))
        state = initial = policy.initial_state(n)
        totals, lengths = np.zeros(n), np.zeros(n, np.int64)
        evaluation = Evaluation([], [])
        while (quota > 0).any():
            noise = None if deterministic else policy.noise((n,), generator)
            acted = policy.act(sp.tensors(observation, device), state, noise)
            step = worlds.step(sp.numpy(spaces.env_action(worlds.action_space, acted.action)))
            totals += step.reward
            lengths += ~step.reset
            ended = step.terminated | step.truncated
            endless = (lengths >= EVALUATION_STEPS) & ~ended & (self.limit is None)
            for i in np.flatnonzero(ended | endless):
                if quota[i] > 0:
                    evaluation.returns.append(float(totals[i]))
                    evaluation.lengths.append(int(lengths[i]))
                    quota[i] -= 1
            totals[ended | endless], lengths[ended | endless] = 0.0, 0
            state = replace_rows(acted.state, torch.from_numpy(ended | step.reset), initial)
            observation = step.observation
        return evaluation

    def _evaluation_worlds(self, n: int) -> Worlds:
        """In this process: an evaluation is short, and processes of its own would cost more to start than to step.
        A vector of the user's has as many worlds as it has."""
        if self.is_native:
            return make(self.environment, n, self.options, whole_games=True)
        if self.is_vector:
            vector = self._another_vector()
            return make(vector, vector.num_envs, self.options)
        limit = EVALUATION_STEPS if self.limit is None else 0
        envs = (self.env() for _ in range(n))
        return InProcess(self.name, [limited(env, limit) if limit else env for env in envs], self.options.action_mask)

    def _another_vector(self) -> "VectorEnv[Any, Any, Any]":
        """Not the one that is learnt from, whose episodes an evaluation would break off."""
        if not isinstance(self.environment, VectorEnv):
            made = build(self.environment, self.options)
            assert isinstance(made, VectorEnv)
            return made
        try:
            return copy.deepcopy(self.environment)
        except Exception as error:
            raise WorldError(
                f"{self.name} cannot be copied for an evaluation of its own; give a factory, such as "
                f"lambda: {self.name}(...)"
            ) from error


def _refuse_statistics(name: str, made: Made) -> None:
    """Raise :class:`WorldError` for one of Gymnasium's wrappers that keep running statistics, unless they stand
    still: each world, and each one that judges, would have its own."""
    one, many = gym.wrappers, gym.wrappers.vector
    kinds: dict[str, tuple[Any, ...]] = {
        "--normalize-observation": (one.NormalizeObservation, many.NormalizeObservation),
        "--normalize-reward, in ppo and a2c": (one.NormalizeReward, many.NormalizeReward),
    }
    for layer, (instead, kind) in itertools.product(layers(made), kinds.items()):
        if isinstance(layer, kind) and layer.update_running_mean:
            raise WorldError(
                f"expected {name} to be the same in each of its worlds, got one in {type(layer).__name__}, whose "
                "running statistics begin anew in each world and each evaluation; take it off and use what the run "
                f"keeps ({instead})"
            )


def _refuse_the_same(name: str, first: Made, second: Made) -> None:
    """Raise :class:`WorldError` if what a factory made at two calls is one object; else close the second."""
    if first.unwrapped is second.unwrapped:
        raise faults.shared(name)
    second.close()


def _space_of(env: "gym.Env[Any, Any]", name: str, attribute: str) -> "gym.Space[Any]":
    """A space of an environment. Raises :class:`WorldError` for one that has none."""
    space = getattr(env, attribute, None)  # Gymnasium's Env only announces it
    if not isinstance(space, gym.Space):
        raise WorldError(
            f"expected {name} to have an {attribute}, got {'none' if space is None else repr(space)}; set "
            f"self.{attribute} in its __init__, to a space such as gymnasium.spaces.Discrete(2)"
        )
    return space
