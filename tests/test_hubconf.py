"""What torch.hub finds in the repository: a run's policy, and a fresh transformer."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.algorithms import tiny_text
from torchward.nets.language_model import LanguageModel
from torchward.nets.transformer import Transformer

ROOT = Path(__file__).resolve().parents[1]


def load(name: str, *args: Any, **settings: Any) -> Any:
    return torch.hub.load(str(ROOT), name, *args, source="local", **settings)


def test_the_policy_of_a_run_is_served(tmp_path: Path) -> None:
    policy = tiny_text.policy(tiny_text.task())
    policy.save(tmp_path / "policy" / "last")
    served = load("policy", str(tmp_path))
    assert isinstance(served, LanguageModel) and served.vocabulary == policy.vocabulary
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(served.body.forward(tokens), policy.body.forward(tokens))


@pytest.mark.parametrize(("preset", "kind"), [("gpt2", "decoder"), ("bert", "encoder"), ("t5", "encoder-decoder")])
def test_a_fresh_transformer_is_built(preset: str, kind: str) -> None:
    settings = {"vocab_size": 11, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 6}
    model = load("transformer", preset, **settings)
    assert isinstance(model, Transformer) and model.config.kind == kind
    assert model.token.weight.shape == (11, 12)


def test_nothing_else_is_offered() -> None:
    """As torch.hub.list finds what there is; it has no source="local"."""
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [name for name in dir(module) if callable(getattr(module, name))] == ["policy", "transformer"]
    with pytest.raises(ValueError, match="expected a preset of gpt2, llama, bert, t5, got 'gpt5'"):
        load("transformer", "gpt5")
