"""A network as it is used, not as it is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def without_dropout(policy: nn.Module) -> Iterator[None]:
    """Within it nothing is dropped, and no statistics of a batch move: what is compared with what was sampled has to
    come from the same network, and what is judged stays as it was."""
    if not policy.training:
        yield
        return
    policy.eval()
    try:
        yield
    finally:
        policy.train()
