"""A courier fetches a parcel and brings it to a door: an environment with a Dict, a mask and a state of its own."""

from typing import Any

import gymnasium as gym
import numpy as np

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Env(gym.Env[dict[str, Any], np.int64]):
    """Each step costs 0.02; the delivery pays 1 and ends the episode. ``size``: cells to a side."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, size: int = 6, render_mode: str | None = None) -> None:
        self.size, self.render_mode = size, render_mode
        places = gym.spaces.Box(0.0, 1.0, (6,), np.float32)
        self.observation_space = gym.spaces.Dict({"places": places, "loaded": gym.spaces.Discrete(2)})
        self.action_space = gym.spaces.Discrete(len(MOVES))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        cells = self.np_random.choice(self.size**2, 3, replace=False)
        self.courier, self.parcel, self.door = (np.array(divmod(int(cell), self.size)) for cell in cells)
        self.loaded = False
        return self._see(), {"action_mask": self._allowed()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.courier = np.clip(self.courier + MOVES[action], 0, self.size - 1)
        self.loaded = self.loaded or bool((self.courier == self.parcel).all())
        delivered = self.loaded and bool((self.courier == self.door).all())
        return self._see(), 1.0 if delivered else -0.02, delivered, False, {"action_mask": self._allowed()}

    def _see(self) -> dict[str, Any]:
        places = np.concatenate([self.courier, self.parcel, self.door]) / (self.size - 1)
        return {"places": places.astype(np.float32), "loaded": int(self.loaded)}

    def _allowed(self) -> Any:
        """1 for every move that does not run into a wall."""
        inside = [((target := self.courier + move) >= 0).all() and (target < self.size).all() for move in MOVES]
        return np.array(inside, np.int8)

    def render(self) -> Any:
        image = np.full((self.size, self.size, 3), 235, np.uint8)
        image[tuple(self.door)] = (0, 158, 115)
        if not self.loaded:
            image[tuple(self.parcel)] = (230, 159, 0)
        image[tuple(self.courier)] = (213, 94, 0) if self.loaded else (0, 114, 178)
        return image.repeat(32, 0).repeat(32, 1)

    def state_dict(self) -> dict[str, Any]:
        """All that a step depends on. With it a run is resumed without playing the episode again."""
        places = {"courier": self.courier, "parcel": self.parcel, "door": self.door}
        return {**places, "loaded": self.loaded, "random": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.courier, self.parcel, self.door = (np.array(state[name]) for name in ("courier", "parcel", "door"))
        self.loaded = bool(state["loaded"])
        self.np_random.bit_generator.state = state["random"]
