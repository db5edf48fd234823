"""Reward models: what an answer is worth, in one number, read where it ends; one network, or several that vote.

A decoder has read all of an answer at its last token; an encoder says what it makes of a text at the first one.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from torchward.config import from_json, to_json
from torchward.nets import body_description, saving
from torchward.nets.hub_model import HubModel
from torchward.nets.lora import LoRA, adapt, adaptation
from torchward.nets.spaces import Box, Discrete, Space


class RewardModel(nn.Module):
    """``members`` networks, each with a head of its own, whose rewards are numbers without a unit: their differences
    are log-odds of being preferred (Bradley and Terry 1952).

    ``vocabulary`` is what its tokenizer is made of, as JSON. ``offset`` is what the members say on average, which pairs
    leave open: it is taken away, so that members can be compared and an average answer is worth 0."""

    def __init__(self, bodies: list[Any], vocabulary: Mapping[str, Any]) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        heads = [nn.Linear(body.config.hidden_size, 1, bias=False) for body in bodies]
        for head in heads:
            nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
        self.heads = nn.ModuleList(heads)
        self.vocabulary = vocabulary
        self.offset: Tensor
        self.register_buffer("offset", torch.zeros(len(bodies)))

    @classmethod
    def of(cls, body: Any, vocabulary: Mapping[str, Any], members: int = 1) -> "RewardModel":
        """One that begins from a language model's body, or an encoder, which is copied. The heads are drawn from
        torch's global generator; they are what members begin apart by."""
        model = cls([deepcopy(body) for _ in range(members)], vocabulary)
        return model.to(next(body.parameters()).device)

    @property
    def config(self) -> Any:
        """What its networks are."""
        body: Any = self.bodies[0]
        return body.config

    @property
    def members(self) -> int:
        """How many networks vote."""
        return len(self.bodies)

    @property
    def observation_space(self) -> Space:
        """A token."""
        return Discrete(self.config.vocab_size)

    @property
    def action_space(self) -> Space:
        """A number: nothing is chosen."""
        return Box((1,))

    def raw(
        self, tokens: Int64[Tensor, "batch time"], length: Int64[Tensor, " batch"], member: int
    ) -> Float[Tensor, " batch"]:
        """What one member says of texts of ``length`` tokens, padded at the right, without the offset."""
        body: Any = self.bodies[member]
        if body.config.kind == "encoder":
            mask = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
            hidden = body.forward(tokens, mask)[:, 0]
        else:
            hidden = body.forward(tokens)[torch.arange(len(tokens), device=tokens.device), length - 1]
        with torch.autocast(hidden.device.type, enabled=False):  # rewards are compared, and stay as fine as float32 is
            reward: Tensor = self.heads[member](hidden.float())
        return reward.squeeze(-1)

    def forward(
        self, tokens: Int64[Tensor, "batch time"], length: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "members batch"]:
        """What each member says of texts of ``length`` tokens, padded at the right."""
        said = torch.stack([self.raw(tokens, length, member) for member in range(self.members)])
        return said - self.offset[:, None]

    @torch.no_grad()
    def score(
        self, tokens: Int64[Tensor, "batch time"], length: Int64[Tensor, " batch"], pessimism: float = 0.0
    ) -> Float[Tensor, " batch"]:
        """The members' mean less ``pessimism`` of their standard deviations (Coste et al. 2024, section 3): what they
        disagree about is worth less. One member disagrees with nobody."""
        said: Tensor = self(tokens, length)
        return said.mean(0) - pessimism * said.std(0, correction=0)

    # What is saved

    def description(self) -> dict[str, Any]:
        """What it was made from. Bodies that are no transformers of this package go as ``encoder``, by their name."""
        made = body_description.of(self.bodies[0])
        adapters = {"lora": to_json(lora)} if isinstance(lora := adaptation(self), LoRA) else {}
        return {**made, **adapters, "members": self.members, "vocabulary": dict(self.vocabulary)}

    @classmethod
    def described(
        cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None
    ) -> "RewardModel":
        """One as ``data`` says, with any parameters."""
        if encoder is not None:
            bodies: list[Any] = [deepcopy(encoder) for _ in range(data["members"])]
        else:
            bodies = [body_description.made(data) for _ in range(data["members"])]
        model = cls(bodies, data["vocabulary"])
        return adapted(model, from_json(LoRA, data["lora"])) if "lora" in data else model

    def save(self, directory: Path) -> None:
        """Write it into ``directory``, for :func:`torchward.load`."""
        saving.save(self, directory)
        if isinstance(first := self.bodies[0], HubModel):  # what kind of model it is, transformers has to say
            first.save(directory)


def adapted(model: RewardModel, lora: LoRA) -> RewardModel:
    """The model with new adapters, which learn beside its heads and nothing else."""
    adapt(model, lora)
    model.heads.requires_grad_(True)
    return model
