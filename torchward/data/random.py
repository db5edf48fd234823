"""Randomness flows from one seed through named generators."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator


def generator(seed: int, name: str, device: str | torch.device = "cpu") -> Generator:
    """A generator of its own for each name: what one part draws never shifts what another draws."""
    return Generator(device).manual_seed(derive(seed, name))


def derive(seed: int, name: str) -> int:
    """A seed for ``name``, by a hash."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Within it, torch's global generator is that of ``name``: for initialisers that take no generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, name))
        yield
