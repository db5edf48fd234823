"""The random walks of `random_walks` as an environment: the same graph, and as return the same path optimality."""

from typing import Any

import gymnasium as gym
import numpy as np

from torchward.tasks.random_walks import GOAL, Options, letter, make_graph


class Env(gym.Env[Any, np.int64]):
    """Walk along edges to the goal. An episode begins at a random node and ends at the goal, which pays the optimality
    of the walk, or with as many nodes as a walk may have, which pays nothing.

    Observed are the first node, the node and the number of steps, by which what follows is independent of what went
    before; ``numbered`` makes one number of the three, for tables. Action k takes the k-th edge, counted round: edges
    that are not there cannot be chosen. So random actions are like the random walks that a model of text learns from.
    ``options`` are those of the text's task: they say which graph it is."""

    def __init__(self, numbered: bool = False, options: Options | None = None, **changes: Any) -> None:
        self.options = options or Options(**changes)
        self.graph = make_graph(self.options)
        self.numbered = numbered
        self.sizes = (self.options.nodes, self.options.nodes, self.options.longest)
        discrete = gym.spaces.Discrete(int(np.prod(self.sizes)))
        self.observation_space = discrete if numbered else gym.spaces.MultiDiscrete(list(self.sizes))
        self.action_space = gym.spaces.Discrete(max(map(len, self.graph.edges)))
        self.walk: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin at a random node, or at ``options["start"]``."""
        super().reset(seed=seed)
        start = (options or {}).get("start")
        self.walk = [int(self.np_random.integers(1, self.options.nodes)) if start is None else int(start)]
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        nexts = self.graph.edges[self.walk[-1]]
        self.walk.append(nexts[int(action) % len(nexts)])
        done = self.walk[-1] == GOAL or len(self.walk) == self.options.longest
        return self._see(), self.graph.optimality(self.walk), done, False, {}

    def render(self) -> str:
        """The walk as text."""
        return "".join(map(letter, self.walk))

    def state_dict(self) -> dict[str, Any]:
        """All that a step depends on."""
        return {"walk": np.array(self.walk), "random": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.walk = [int(node) for node in state["walk"]]
        self.np_random.bit_generator.state = state["random"]

    def _see(self) -> Any:
        seen = (self.walk[0], self.walk[-1], len(self.walk) - 1)
        return int(np.ravel_multi_index(seen, self.sizes)) if self.numbered else np.array(seen)
