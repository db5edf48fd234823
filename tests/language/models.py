"""Small language models whose every weight matters, and what they say of a text when they read all of it at once."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchward.nets.language_model import LanguageModel
from torchward.nets.sampling import Sampling, unpacked
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2, llama

WORDS, CONTEXT = 13, 20
EOS = 11
GPT = replace(gpt2(WORDS, 16, 2, 2, CONTEXT), value_head=True, head_bias=True)
LLAMA = replace(llama(WORDS, 16, 2, 4, 2, 24, CONTEXT), value_head=True, head_bias=True)


def model(
    config: TransformerConfig = GPT, sampling: Sampling | None = None, seed: int = 0, ends: float = 0.3, **made: Any
) -> LanguageModel:
    """One with random weights, also where they begin as 0 or 1, and with so much more on the logit of its end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = LanguageModel(Transformer(replace(config, **made)), {"tokenizer": "none"}, sampling).eval()
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.25)
            policy.get_parameter("body.head_bias")[EOS] += ends
    return policy


class Read(NamedTuple):
    """What a model says at each token of a text about the next one."""

    log_probs: Tensor
    """``[T, vocab]`` of all tokens, without their support."""
    values: Tensor
    """``[T]``"""


@torch.no_grad()
def read(policy: LanguageModel, ids: list[int]) -> Read:
    """The whole text at once, alone, without a cache."""
    hidden = policy.body.forward(torch.tensor([ids]))[0]
    logits = policy.body.logits(hidden).double() / policy.sampling.temperature
    return Read(logits.log_softmax(1), policy.body.value(hidden))


def within(log_probs: Tensor, support: Tensor | None) -> Tensor:
    """``[T, vocab]`` log-probabilities, of tokens of the support alone."""
    if support is None:
        return log_probs
    return log_probs.masked_fill(~unpacked(support, log_probs.shape[1]), -torch.inf).log_softmax(1)
