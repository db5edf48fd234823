"""What a body was made from, as JSON, for those who save a model that stands on one."""

from typing import Any

from torchward.config import from_json, to_json
from torchward.nets import saving
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.hub_model import HubModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig


def of(body: Any) -> dict[str, Any]:
    """One that transformers computes lies in a directory of its own, and is named alone; one of the user's own goes as
    ``encoder``, by its name."""
    match body:
        case Transformer():
            return {"transformer": to_json(body.config)}
        case EncoderDecoder():
            tokens = {"start_id": body.config.start_id, "end_id": body.config.end_id}
            return {"transformer": to_json(body.config.transformer), "encoder_decoder": tokens}
        case HubModel():
            return {"hub": type(body.model).__name__}
    return {"encoder": saving.name_of(body)}


def made(data: dict[str, Any]) -> Transformer | EncoderDecoder:
    """One as ``data`` says, with any parameters: a transformer of this package, or an encoder-decoder of it."""
    body = Transformer(from_json(TransformerConfig, data["transformer"]))
    return EncoderDecoder(body, **data["encoder_decoder"]) if "encoder_decoder" in data else body
