"""What every test shares: annotations checked while they run, one thread, no window, equal examples each time."""

import os
import sys

from jaxtyping import install_import_hook

if "torchward" in sys.modules:
    raise RuntimeError("torchward was imported before tests/conftest.py: its shapes would not be checked")
# Where shapes stand in the types. The other layers pass trees of tensors, whose shapes no annotation can say.
SHAPED = ["functional", "nets.mlp", "nets.conv", "nets.recurrent", "nets.normalize"]
SHAPED += [f"nets.{module}" for module in ("attention", "kv_cache", "positions", "transformer", "transformer_block")]
SHAPED += [f"nets.{module}" for module in ("language_model", "lora", "sampling", "token_scores", "transformer_stack")]
SHAPED += ["nets.token_divergences"]
SHAPED += [f"data.{module}" for module in ("lessons", "packing", "replay", "rollout", "shaping")]
install_import_hook([f"torchward.{module}" for module in SHAPED], "beartype.beartype")

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import torch  # noqa: E402 - after the hook and the settings, like all that may import torchward
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("torchward", deadline=None, derandomize=True)
settings.load_profile("torchward")
