"""A causal model that transformers computes, with the verbs of our transformer.

transformers computes the hidden states; the cache, the head and the value head are those that a
:class:`~torchward.nets.language_model.LanguageModel` knows. Nothing of a model's own is run, and no pickle is read.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchward.config import ConfigError
from torchward.nets import peft_adapters
from torchward.nets.kv_cache import Cache, write
from torchward.nets.token_scores import Head
from torchward.nets.transformer_stack import check_counted, places

if TYPE_CHECKING:
    from torchward.nets.lora import LoRA

MODEL, ADAPTER = "model", "adapter"
"""Where beside a policy's description a model lies that transformers computes, and its adapters."""
UNLIMITED = 2048
"""The size of a cache of a model whose config does not bound its context, by default."""


@dataclass(frozen=True)
class HubConfig:
    """What a policy wants to know of a model. The names are those of our transformer's config."""

    vocab_size: int
    hidden_size: int
    max_position_embeddings: int
    kind: Literal["decoder"] = "decoder"
    value_head: bool = True


class HubModel(nn.Module):
    """One of transformers' causal models, with a value head of its own that begins at zero.

    Raises ConfigError for a model without keys and values that a cache could hold, one whose logits are no product of
    its hidden states, and one that does not give a padded row what it gives that row alone: they would be learnt from
    wrongly. Three tokens are read to find out."""

    def __init__(self, model: Any) -> None:
        """``model`` is what ``AutoModelForCausalLM`` gives; it is used, not copied."""
        super().__init__()
        self.model = model
        config = model.config.get_text_config()
        self._limit = _longest(config)
        head = model.get_output_embeddings().weight
        self.config = HubConfig(self.token.weight.shape[0], head.shape[1], self._limit or UNLIMITED)
        self._tells_positions = "position_ids" in inspect.signature(self.body.forward).parameters
        self.value_head = nn.Linear(head.shape[1], 1).to(head)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.head_scale = 1.0
        self.lora: LoRA | None = None
        """Its adapters, if it has some."""
        self._checkpointing = False
        self._shapes: list[_Shape] = []
        self._check()

    @property
    def body(self) -> nn.Module:
        """What is below the head."""
        body: nn.Module = self.model.get_decoder()
        return body

    @property
    def token(self) -> nn.Embedding:
        """The embedding."""
        embedding: nn.Embedding = self.model.get_input_embeddings()
        return embedding

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers from below."""
        lists = [module for module in self.body.modules() if isinstance(module, nn.ModuleList)]
        return max(map(list, lists), key=len, default=[])

    @property
    def checkpointing(self) -> bool:
        """Compute layers again in the backward pass instead of keeping what they computed. transformers does so in
        training mode alone: it saves nothing where an algorithm learns without dropout, as those by reward do."""
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        if on != self._checkpointing:
            name = "checkpointing_enable" if on else "checkpointing_disable"
            switch = getattr(self.model, f"activation_{name}", None) or getattr(self.model, f"gradient_{name}")
            switch(*[{"use_reentrant": False}] * on)
            self._checkpointing = on

    def forward(self, tokens: Tensor, segments: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """The hidden states ``[B, T, width]`` of tokens ``[B, T]``, as our transformer takes them. Rows that are packed
        are taken apart, so positions are always counted within segments: ValueError for others, and for rows that are
        too long."""
        self._check_length(tokens.shape[1])
        check_counted(segments, positions)
        if segments is None:
            return self._hidden(tokens, None, None)
        if segments.dtype == torch.bool:
            return self._hidden(tokens, segments, places(segments))
        place = places(segments)
        number = (place == 0).flatten().cumsum(0).view_as(place) - 1
        apart = tokens.new_zeros(int(number.max()) + 1, int(place.max()) + 1)
        apart[number, place] = tokens
        return self._hidden(apart, None, None)[number, place]

    def before_head(self, hidden: Tensor) -> tuple[Tensor, Head]:
        """What the head's product is taken of, and with."""
        head = self.model.get_output_embeddings()
        return hidden if self.head_scale == 1.0 else hidden * self.head_scale, Head(head.weight, head.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """The head: hidden states ``[..., width]`` to logits ``[..., vocab_size]``."""
        hidden, head = self.before_head(hidden)
        return F.linear(hidden, head.weight, head.bias)

    def value(self, hidden: Tensor) -> Tensor:
        """The value head: hidden states ``[..., width]`` to values ``[...]``."""
        value: Tensor = self.value_head(hidden)
        return value.squeeze(-1)

    def cache(self, batch: int, size: int | None = None) -> Cache:
        """An empty cache of ``batch`` rows and ``size`` slots, by default max_position_embeddings."""
        size = self.config.max_position_embeddings if size is None else size
        self._check_length(size)
        weight = self.token.weight
        keys = tuple(weight.new_zeros(batch, each.groups, size, each.key) for each in self._shapes)
        values = tuple(weight.new_zeros(batch, each.groups, size, each.value) for each in self._shapes)
        return Cache(keys, values, torch.zeros(batch, dtype=torch.int64, device=weight.device))

    @torch.no_grad()
    def extend(
        self, tokens: Tensor, cache: Cache, mask: Tensor | None = None, span: int | None = None
    ) -> tuple[Tensor, Cache]:
        """Tokens ``[B, T]`` behind what ``cache`` holds, as our transformer reads them: their hidden states, and the
        cache with them in it, whose slots are the same. Hidden states of padding are 0."""
        training = self.training
        if training:  # what transformers checkpoints keeps nothing in a cache
            self.eval()
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        count = real.sum(1)
        after = cache.length + count
        span = int(after.max()) if span is None else span
        if span > cache.size:
            raise ValueError(f"expected a cache of at least {span} slots, got {cache.size}")
        # Padding moves to the left. Rows with a past are read with those that have as many new tokens: whatever a model
        # takes from the distance of two columns is then that of the tokens.
        order = real.long().argsort(dim=1, stable=True)
        hidden = self.token.weight.new_zeros(*tokens.shape, self.config.hidden_size)
        for rows, new in _alike(count, tokens.shape[1], bool(cache.length.any())):
            columns = order[rows, tokens.shape[1] - new :]
            each = rows[:, None]
            hidden[each, columns] = self._read(tokens[each, columns], real[each, columns], cache, rows)
        if training:
            self.train()
        return hidden * real[..., None], cache._replace(length=after)

    # Adapters, which are peft's; and files

    def adapt(self, lora: "LoRA") -> None:
        """Give its products new adapters, and freeze all else but the value head. Raises ConfigError where it has none
        of the products, and ImportError in one sentence without peft."""
        peft_adapters.inject(self.model, lora, {id(block) for block in self.blocks})
        self.lora = lora
        self.value_head.requires_grad_(True)

    def merge(self) -> None:
        """Add the adapters to the matrices, in place: they are gone, and all can learn."""
        peft_adapters.merge(self.model)
        self.lora = None
        self.requires_grad_(True)

    @property
    def is_on(self) -> bool:
        """Whether the adapters are part of what is computed; without any, True."""
        return self.lora is None or peft_adapters.are_on(self.model)

    @is_on.setter
    def is_on(self, on: bool) -> None:
        if self.lora is not None:
            peft_adapters.switch(self.model, on)

    def save(self, directory: Path) -> None:
        """Write the model into ``directory / "model"`` as transformers does, without its adapters; these, if there are
        some, into ``directory / "adapter"`` as peft does. The value head is not written."""
        with peft_adapters.taken_out(self.model):
            self.model.save_pretrained(str(directory / MODEL), safe_serialization=True)
        if self.lora is not None:
            peft_adapters.save(self.model, directory / ADAPTER)

    def _read(self, tokens: Tensor, real: Tensor, cache: Cache, rows: Tensor) -> Tensor:
        """Tokens ``[b, T]``, padded at the left, behind what the cache holds in some of its rows, and into it."""
        length = cache.length[rows, None]
        place = (length + real.cumsum(1) - 1).clamp_min(0)
        width = int(length.max())
        source = torch.arange(width, device=length.device) + length - width  # each row's last token in the last column
        past = _empty()
        there = source.clamp_min(0)[:, None, :, None]
        for i, pair in enumerate(cache.slots):
            past.update(*(leaf[rows].take_along_dim(there, 2) for leaf in pair), i)
        mask = torch.cat([source >= 0, real], 1)
        hidden = self._hidden(tokens, None if bool(mask.all()) else mask, place, past)
        which, column = real.nonzero(as_tuple=True)
        into = rows[which], place[which, column]
        for pair, layer in zip(cache.slots, past.layers, strict=True):
            for leaf, new in zip(pair, (layer.keys, layer.values), strict=True):
                write(leaf, into, new[which, :, width + column])
        return hidden

    def step(self, tokens: Tensor, cache: Cache, span: int | None = None) -> tuple[Tensor, Cache]:
        """One token ``[B]`` behind what ``cache`` holds: :meth:`extend`."""
        hidden, cache = self.extend(tokens[:, None], cache, None, span)
        return hidden[:, 0], cache

    def _hidden(self, tokens: Tensor, mask: Tensor | None, positions: Tensor | None, past: Any = None) -> Tensor:
        given: dict[str, Any] = {"attention_mask": None if mask is None else mask.long()}
        if self._tells_positions and positions is not None:
            given["position_ids"] = positions
        read = self.body(input_ids=tokens, past_key_values=past, use_cache=past is not None, **given)
        hidden: Tensor = read.last_hidden_state
        return hidden

    def _check_length(self, length: int) -> None:
        if self._limit is not None and length > self._limit:
            raise ValueError(f"expected at most max_position_embeddings={self._limit} tokens, got {length}")

    @torch.no_grad()
    def _check(self) -> None:
        name, training = type(self.model).__name__, self.training
        self.eval()
        tokens = torch.arange(3, device=self.token.weight.device)[None] % self.config.vocab_size
        past = _empty()
        try:
            hidden = self._hidden(tokens, None, None, past)
            self._shapes = [_Shape.of(layer.keys, layer.values) for layer in past.layers]
        except Exception as error:  # another library's model: it may raise anything
            raise ConfigError(f"expected a causal model that keeps keys and values, got {name}: {error}") from error
        if not self._shapes or any(layer.keys.shape[2] != 3 for layer in past.layers):
            raise ConfigError(f"expected a causal model that keeps keys and values of each token, got {name}")
        self._check_head(tokens, hidden, name)
        mask = torch.tensor([[False, True, True]], device=tokens.device)
        padded, cache = self.extend(tokens.roll(1, 1), self.cache(1, 3), mask)
        last, _ = self.step(tokens[:, 2], cache)
        if (off := _distance(torch.cat([padded[:, 1:], last[:, None]], 1), hidden)) > _TOLERANCE[hidden.dtype]:
            raise ConfigError(
                f"expected a model that reads a padded row as it reads it alone, got {name}, whose hidden states then "
                f"differ by {off:.1g} of their size"
            )
        self.train(training)

    def _check_head(self, tokens: Tensor, hidden: Tensor, name: str) -> None:
        if cap := getattr(self.model.config.get_text_config(), "final_logit_softcapping", None):
            raise ConfigError(
                f"expected logits that are hidden states times a head, got {name}, which caps them at {cap}; "
                "take a model without final_logit_softcapping"
            )
        theirs, ours = self.model(input_ids=tokens).logits, self.logits(hidden)
        scale = float((theirs * ours).sum() / ours.square().sum())
        if _distance(theirs, ours) > _TOLERANCE[hidden.dtype]:
            self.head_scale = scale
        if _distance(theirs, self.logits(hidden)) > _TOLERANCE[hidden.dtype]:
            raise ConfigError(
                f"expected logits that are a product of hidden states and a head, got {name}: are they capped?"
            )


class _Shape(NamedTuple):
    """Of a layer's part of a cache."""

    groups: int
    key: int
    value: int

    @classmethod
    def of(cls, keys: Tensor, values: Tensor) -> "_Shape":
        return cls(keys.shape[1], keys.shape[3], values.shape[3])


def read(directory: Path) -> HubModel:
    """The model that :meth:`HubModel.save` wrote, with any value head. Raises ConfigError where there is none."""
    from safetensors import SafetensorError

    theirs = library("computes this model")
    try:
        model, found = theirs.AutoModelForCausalLM.from_pretrained(
            str(directory), dtype="auto", use_safetensors=True, trust_remote_code=False, local_files_only=True,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"the model in {directory} cannot be read: {said}") from error
    if found["missing_keys"]:
        raise ConfigError(f"expected a weight {min(found['missing_keys'])} in {directory}, got none")
    return HubModel(model).eval()


def library(does: str) -> Any:
    """transformers, which ``does`` this here. Raises ImportError in one sentence without it."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f"expected transformers, which {does}; install it: pip install 'torchward[hf]'") from error
    return transformers


def _longest(config: Any) -> int | None:
    """The most tokens of a row, by the config of a model; None: any number. Beyond the original length of longrope all
    rows are turned by other frequencies as soon as one of them is longer: so there it ends."""
    rope = getattr(config, "rope_parameters", None) or {}
    each = [part for part in (rope, *rope.values()) if isinstance(part, dict) and part.get("rope_type") == "longrope"]
    limits = [getattr(config, "max_position_embeddings", None)]
    limits += [part.get("original_max_position_embeddings") for part in each]
    return min((limit for limit in limits if limit), default=None)


_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def _distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, by the largest number."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))


def _empty() -> Any:
    return library("computes this model").DynamicCache()


def _alike(count: Tensor, most: int, has_past: bool) -> Iterator[tuple[Tensor, int]]:
    """Rows that are read together, and how many of their columns: without a past all of them, else those with equal
    ``count`` ``[B]``."""
    if not has_past:
        yield torch.arange(len(count), device=count.device), most
        return
    for new in count.unique().tolist():
        if new:
            yield (count == new).nonzero().squeeze(1), new
