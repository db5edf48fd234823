"""Before the first step, what is learnt from is what was sampled: on every task of text, by each kind of model."""

from collections.abc import Callable
from dataclasses import fields, replace
from importlib import import_module
from itertools import islice

import pytest
import torch

from torchward.language.corpus import StandardLibrary
from torchward.language.text_task import Text
from torchward.nets.language_model import LanguageModel
from torchward.nets.sampling import Sampling
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2, llama
from torchward.tasks import find, python_code

SMALL = {"demonstrations": 40, "problems": 80, "test": 10, "walks": 60}
"""Of those options that a task has, so much is enough here."""
SILENT = ("python_passages", "python_topics")
"""Nothing is asked in Python's topics, nor in passages of them."""
ASKING = sorted(set(find.problems()) - set(SILENT))
MODELS: dict[str, tuple[Callable[[int], TransformerConfig], Sampling]] = {
    "gpt2, drawn among all": (lambda size: gpt2(size, 32, 2, 4, 512), Sampling(0.9)),
    "llama, top-k and top-p": (lambda size: llama(size, 32, 2, 4, 2, 48, 512), Sampling(1.2, 12, 0.9)),
}


def task(name: str) -> Text:
    module = import_module(f"torchward.tasks.{name}")
    options = module.Options()
    known = {field.name for field in fields(options)}
    chosen = replace(options, **{key: value for key, value in SMALL.items() if key in known})
    if name == "python_code":  # of the standard library a part is enough
        short = (each for each in StandardLibrary().documents() if len(each.text) < 20_000)
        return Text(python_code.problems(islice(short, 60), chosen))
    return Text(module.make(chosen))


@pytest.fixture(scope="module", params=ASKING)
def asked(request: pytest.FixtureRequest) -> Text:
    return task(request.param)


@pytest.mark.parametrize("kind", MODELS)
def test_the_first_ratio_is_one(asked: Text, kind: str) -> None:
    make, sampling = MODELS[kind]
    torch.manual_seed(0)
    config = replace(make(asked.tokenizer.vocab_size), value_head=True, initializer_range=0.2)
    policy = LanguageModel(Transformer(config), asked.tokenizer.description(), sampling)
    rollout = asked.source(16, 0, num_generations=4).collect(policy, 40)
    with torch.no_grad():
        learnt, _, values = policy.evaluate_actions(rollout.observation, rollout.action, (), rollout.boundary)
    mask, value = rollout.loss_mask, rollout.value
    assert value is not None and values is not None
    assert int(mask.sum()) > 16 and float(rollout.log_prob[mask].std()) > 0.1
    torch.testing.assert_close(learnt[mask], rollout.log_prob[mask], rtol=0.0, atol=1e-4)
    torch.testing.assert_close(values[mask], value[mask], rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("name", SILENT)
def test_what_is_left_out_asks_nothing(name: str) -> None:
    """There is nothing to be rewarded for."""
    assert all(isinstance(each.content, str) for each in task(name).problems.train)
