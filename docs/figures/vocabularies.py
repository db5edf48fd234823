"""What a text costs in bytes, in characters and in pairs of bytes: tokens, weights of the head, and operations a byte.

python docs/figures/vocabularies.py   (some seconds)
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from torchward.language.bpe import BPE
from torchward.language.documents import Split
from torchward.language.task import TokenizerChoice
from torchward.language.tokenizer import Bytes, Characters
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import gpt2
from torchward.tasks.python_topics import Options, make

DOCS = Path(__file__).resolve().parents[1]
CHOICES: dict[str, TokenizerChoice] = {
    "bytes": Bytes(), "characters": Characters(replace_unknown=True),
    **{f"{size:,} pairs": BPE(size) for size in (512, 1024, 2048, 4096, 8192)},
}  # fmt: skip
WIDTH, LAYERS = 128, 4


def products(vocabulary: int) -> tuple[int, int]:
    """The weights that a token is multiplied by in a forward pass: those of the layers, and those of the head."""
    with torch.device("meta"):
        model = Transformer(gpt2(vocabulary, WIDTH, LAYERS, 4, 256))
    layers = sum(p.numel() for name, p in model.named_parameters() if p.dim() > 1 and "layers." in name)
    return layers, vocabulary * WIDTH


def measure() -> list[dict[str, Any]]:
    """Tokens are those of the texts that validate; each tokenizer is built from the others."""
    problems = make(Options())
    train, validation = Split(0.2)(problems.train)
    size = sum(len(document.text.encode()) for document in validation)
    found = []
    for name, choice in CHOICES.items():
        made = choice.build(document.text for document in train)
        tokens = sum(len(made.encode(document.text)) + 1 for document in validation)
        layers, head = products(made.vocab_size)
        found.append(
            {
                "name": name, "vocabulary": made.vocab_size, "tokens_per_byte": tokens / size, "head": head,
                "layers": layers, "operations": 6 * (layers + head) * tokens / size,
            }
        )  # fmt: skip
    return found


def show(found: list[dict[str, Any]]) -> None:
    """The table."""
    print(f"{'':14}{'vocabulary':>12}{'tokens/byte':>13}{'bytes in 128':>14}{'head':>8}{'MFLOP/byte':>12}")
    for row in found:
        share = row["head"] / (row["head"] + row["layers"])
        print(
            f"{row['name']:14}{row['vocabulary']:12,}{row['tokens_per_byte']:13.3f}"
            f"{128 / row['tokens_per_byte']:14.0f}{share:8.0%}{row['operations'] / 1e6:12.2f}"
        )


def main(args: list[str] | None = None) -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "vocabularies.json")
    options = parser.parse_args(args)
    found = measure()
    show(found)
    options.data.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
