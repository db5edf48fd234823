"""Tuned settings of the tasks of text: one plain function for each, and one plain table of them."""

from collections.abc import Callable

from torchward.tasks.control import Preset


def pretrain_addition() -> Preset:
    """A small model that has seen the sums' demonstrations as text."""
    from torchward.algorithms import pretrain
    from torchward.nets.transformer_config import gpt2

    return Preset(pretrain.Config(total_timesteps=100_000, max_length=64, model=gpt2(32, 128, 4, 4, 64)))


PRESETS: dict[tuple[str, str], Callable[[], Preset]] = {
    ("pretrain", "addition"): pretrain_addition,
}
"""By algorithm and task."""
