"""Faults of pretraining, each planted: what the run reports, and what is true of the texts that were held out.

python docs/figures/pretraining_faults.py   (about four minutes of one slow core)
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from torchward.algorithms import pretrain
from torchward.data.packing import Rows, Wrapped
from torchward.data.texts import Texts
from torchward.language.bpe import BPE
from torchward.language.documents import Document, Split, hash64
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.nets.language_model import LanguageModel
from torchward.nets.transformer_config import gpt2
from torchward.run import Run, RunOptions
from torchward.tasks.python_topics import Options, make

DOCS = Path(__file__).resolve().parents[1]
TOKENS, LENGTH = 262_144, 128
CONFIG = pretrain.Config(
    total_timesteps=TOKENS, max_length=LENGTH, per_device_train_batch_size=4, learning_rate=3e-3,
    model=replace(gpt2(512, 64, 4, 2, LENGTH), initializer_range=0.06),
)  # fmt: skip
ALL = make(Options())
TRAIN, HELD_OUT = Split(0.2)(ALL.train)
SOME = [document for document in TRAIN if len(document.text) < 12_000]
"""Short texts alone, a third of all: so few that they are read several times."""
TOKENIZER = BPE(512).build(document.text for document in TRAIN)
Loss = Callable[[LanguageModel, Rows, Tensor], tuple[Tensor, Tensor]]


class Given:
    """A task that hands out these texts."""

    def __init__(self, train: list[Document], validation: list[Document]) -> None:
        task = Text(Problems("given", train, [], ALL.reward), TOKENIZER)
        self.texts: Texts = task._texts(train, validation)

    def corpus(self) -> Texts:
        return self.texts


def learn(task: Any, loss: Loss = pretrain.bits, looks: int = 1) -> tuple[LanguageModel, list[float], int]:
    """The model, what the run reports of its validation, and the tokens after which it ended."""
    options = RunOptions(eval_freq=TOKENS // looks, checkpoint_freq=-1, tensorboard=False, progress=False)
    with tempfile.TemporaryDirectory() as place, patch.object(pretrain, "bits", loss):
        run = Run(Path(place) / "run", options, total=TOKENS, manifest={"figure": "pretraining_faults"})
        policy = pretrain.train(CONFIG, task, run)
        return policy, [row["eval/bits_per_byte"] for row in run.rows() if "eval/bits_per_byte" in row], run.step


def true(policy: LanguageModel) -> float:
    """Bits per byte of the texts that were held out."""
    texts = Given(SOME, HELD_OUT).texts
    batches = pretrain.some(texts.validation, CONFIG, texts.pad_id, Wrapped())
    return pretrain.validate(policy, batches, texts.bytes_of, CONFIG).returns[0]


@torch.no_grad()
def ending(policy: LanguageModel) -> float:
    """What end-of-text costs where a text ends, in bits: the mean over those that were held out."""
    cost = []
    for document in HELD_OUT:
        read = torch.tensor([TOKENIZER.encode(document.text)[-LENGTH:]])
        logits = policy.body.logits(policy.body.forward(read))[0, -1]
        cost.append(-float(logits.log_softmax(0)[TOKENIZER.eos_id]) / math.log(2.0))
    return sum(cost) / len(cost)


def itself(policy: LanguageModel, rows: Rows, bytes_of: Tensor) -> tuple[Tensor, Tensor]:
    """The label is the token that was read."""
    return pretrain_bits(policy, replace(rows, targets=rows.tokens), bytes_of)


def after_next(policy: LanguageModel, rows: Rows, bytes_of: Tensor) -> tuple[Tensor, Tensor]:
    """The label is one further on."""
    mask = rows.loss_mask.clone()
    mask[:, -1] = False
    return pretrain_bits(policy, replace(rows, targets=rows.targets.roll(-1, 1), loss_mask=mask), bytes_of)


pretrain_bits = pretrain.bits


def pieces(documents: list[Document]) -> list[Document]:
    """Documents cut into pieces of 400 characters, each of which then goes to one side or to the other."""
    return [
        Document(each.text[i : i + 400], f"{each.origin}, {i}")
        for each in documents
        for i in range(0, len(each.text), 400)
    ]


def measure() -> dict[str, Any]:
    """Each fault; and the same text without one."""
    found: dict[str, Any] = {}

    def note(name: str, made: tuple[LanguageModel, list[float], int], **more: Any) -> None:
        found[name] = {"told": made[1][-1], "true": true(made[0]), "ending": ending(made[0]), **more}
        print(name, found[name], flush=True)

    sound = Given(SOME, HELD_OUT)
    made = learn(sound, looks=16)
    found["epochs"] = TOKENS / sound.texts.train.learnt
    note("none", made, curve=made[1])
    note("label: the token itself", learn(sound, itself))
    note("label: the one after the next", learn(sound, after_next))
    note("validation is learnt too", learn(Given([*SOME, *HELD_OUT], HELD_OUT)))
    cut = pieces([*SOME, *HELD_OUT])
    sides = [[each for each in cut if (hash64(each.origin) % 5 == 0) == held] for held in (False, True)]
    note("pieces of one text on both sides", learn(Given(*sides)))
    joined = [Document("\n".join(each.text for each in SOME), "all")]
    note("no end between texts", learn(Given(joined, HELD_OUT)))
    return found


def show(found: dict[str, Any]) -> None:
    """The tables."""
    print(f"{'fault':36}{'the run says':>14}{'held out':>10}{'an end costs':>14}")
    for name, row in found.items():
        if isinstance(row, dict):
            kept = f"{row['true']:10.2f}" if "both" not in name and "learnt too" not in name else f"{'seen':>10}"
            print(f"{name:36}{row['told']:14.2f}{kept}{row['ending']:14.1f}")
    curve = found["none"]["curve"]
    print("\nwithout a fault, sixteenth by sixteenth")
    print(" ".join(f"{each:.2f}" for each in curve))


def main(args: list[str] | None = None) -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "pretraining_faults.json")
    parser.add_argument("--drawn", action="store_true", help="print what the data hold, and measure nothing")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    found = json.loads(options.data.read_text()) if options.drawn else measure()
    show(found)
    if not options.drawn:
        options.data.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
