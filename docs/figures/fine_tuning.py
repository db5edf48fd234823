"""What fine-tuning depends on: demonstrations, step sizes, epochs, layers, masks. A small model that adds two numbers
of two digits is taught to write the sum's lowest digit first, by sums that it is shown; others are held out.

python docs/figures/fine_tuning.py   (about ten minutes of one slow core)
"""

import argparse
import copy
import json
import statistics
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from torchward.algorithms import sft
from torchward.data.random import seeded
from torchward.data.sequences import Sequences, TokenSequence
from torchward.data.texts import Texts
from torchward.language.checks_of_learning import ends
from torchward.language.documents import Completion, Document
from torchward.language.text_task import Text
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import LoRA
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import gpt2
from torchward.run import Run, RunOptions
from torchward.tasks import addition

DOCS = Path(__file__).resolve().parents[1]
SEEDS, TOKENS, HALF, LOOKS = 3, 200_000, 100_000, 12
CONFIG = sft.Config(
    total_timesteps=TOKENS, max_length=32, per_device_train_batch_size=16, learning_rate=1e-3, eval_tokens=2048
)
BASE = replace(CONFIG, total_timesteps=500_000, learning_rate=2e-3, adam_beta2=0.98, weight_decay=0.1)
DEMONSTRATIONS = (100, 300, 1000, 3000)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
LENGTHS = (12_500, 25_000, 50_000, 100_000, 200_000)
CONSTANT = {"total_timesteps": HALF, "learning_rate": 3e-3, "lr_scheduler_type": "constant"}
WAYS: dict[str, dict[str, Any]] = {
    "all of it": {}, "all, lower layers slower (0.5)": {"layer_lr_decay": 0.5},
    **{f"above the lowest {n}": {"freeze_layers": n} for n in (1, 2, 3)},
    **{f"adapters of rank {r}": {"lora": LoRA(r=r, lora_alpha=2.0 * r), "learning_rate": 3e-3} for r in (1, 4, 16)},
}  # fmt: skip
Change = Callable[[list[int], list[bool]], tuple[list[int], list[bool]]]


def sums(demonstrations: int, is_reversed: bool = True) -> Text:
    """The sums of two numbers of two digits."""
    return Text(
        addition.make(
            addition.Options(
                digits=2, demonstrations=demonstrations, problems=4000, test=500, reversed_digits=is_reversed
            )
        )
    )


class Changed(Text):
    """Demonstrations that somebody got wrong."""

    def __init__(self, task: Text, change: Change) -> None:
        super().__init__(task.problems, task.tokenizer)
        self.change = change

    def using(self, policy: LanguageModel) -> Text:
        return self

    def demonstrations(self) -> Texts:
        texts = super().demonstrations()
        sides = [
            Sequences.of(
                (TokenSequence(*self.change(list(side[i].ids), list(side[i].own))) for i in range(len(side))),
                texts.vocab_size,
            )
            for side in (texts.train, texts.validation)
        ]
        return replace(texts, train=sides[0], validation=sides[1])


def tune(base: LanguageModel, task: Text, seed: int, config: sft.Config = CONFIG, **changes: Any) -> dict[str, Any]:
    """What comes of it: the share of held-out sums that are right, the two curves, and the verdict."""
    config = replace(config, seed=seed, **changes)
    every = config.total_timesteps // LOOKS
    options = RunOptions(eval_freq=every, checkpoint_freq=-1, tensorboard=False, progress=False)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=config.total_timesteps, manifest={"figure": "fine_tuning"})
        policy = sft.train(config, task.using(base), run, copy.deepcopy(base))
        curves = sft.evaluations(run)
        epochs = max(row["epochs"] for row in run.rows() if "epochs" in row)
        assert curves is not None
    weights = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    return {
        "right": right(policy, task), "seen": curves[0], "held_out": curves[1], "verdict": sft.verdict(*curves),
        "weights": weights, "epochs": epochs,
        "policy": policy,
    }  # fmt: skip


def right(policy: LanguageModel, task: Text) -> float:
    """The share of held-out sums that are answered to the letter."""
    return statistics.fmean(task.evaluate(policy, 500, seed=0).returns)


def begun() -> LanguageModel:
    """A model that writes sums as people do, highest digit first."""
    task = sums(3000, is_reversed=False)
    config = replace(gpt2(task.tokenizer.vocab_size, 64, 4, 2, 32), value_head=True, initializer_range=0.1)
    with seeded(0, "base"):
        policy = LanguageModel(Transformer(config), task.tokenizer.description())
    learnt: LanguageModel = tune(policy, task, 0, BASE)["policy"]
    return learnt


def runs(base: LanguageModel, task: Text, **changes: Any) -> list[dict[str, Any]]:
    """One for each seed."""
    made = [tune(base, task, seed, **changes) for seed in range(SEEDS)]
    for each in made:
        del each["policy"]
    print(changes, [each["right"] for each in made], made[0]["verdict"][:12], flush=True)
    return made


def too_early(ids: list[int], own: list[bool]) -> tuple[list[int], list[bool]]:
    """A mask that stands one too early: the sign = is learnt, and end-of-text is not."""
    return ids, [False, *own[2:], False]


def too_late(ids: list[int], own: list[bool]) -> tuple[list[int], list[bool]]:
    """A mask that stands one too late: the answer's first digit is not learnt."""
    first = own.index(True)
    return ids, [*own[:first], False, *own[first + 1 :]]


def endless(ids: list[int], own: list[bool]) -> tuple[list[int], list[bool]]:
    """No end-of-text."""
    return ids[:-1], own[:-1]


def faults(base: LanguageModel) -> dict[str, Any]:
    """Each with what comes of it, and what the doctor's check says of the sequences."""
    task = sums(1000).using(base)
    asked = [
        Document(Completion(each.question.rstrip("="), each.columns["answer"]), each.origin, each.columns)
        for each in task.problems.test
    ]
    otherwise = Text(replace(task.problems, test=asked), task.tokenizer)
    found: dict[str, Any] = {}
    for name, change in (
        ("none", lambda ids, own: (ids, own)), ("no end-of-text", endless), ("mask one too early", too_early),
        ("mask one too late", too_late),
    ):  # fmt: skip
        changed = Changed(task, change)
        made = tune(base, changed, 0, total_timesteps=HALF)
        words = ends(changed.demonstrations().train, None, task.tokenizer.eos_id, task.tokenizer.pad_id)
        found[name] = {"right": made["right"], "doctor": words.words if words.ok is False else "nothing"}
        if name == "none":
            found["asked without its sign ="] = {"right": right(made["policy"], otherwise), "doctor": "nothing"}
        print(name, found[name], flush=True)
    return found


def all_learnt(demonstrations: int) -> Text:
    """Sums of which the question is learnt too."""
    task = sums(demonstrations)

    def change(ids: list[int], own: list[bool]) -> tuple[list[int], list[bool]]:
        return ids, [False, *[True] * (len(ids) - 1)]

    return Changed(task, change)


def measure() -> dict[str, Any]:
    """All runs, from one base."""
    base = begun()
    found: dict[str, Any] = {
        "base": [right(base, sums(3000, is_reversed=False)), right(base, sums(3000))],
        "data": {str(n): runs(base, sums(n)) for n in DEMONSTRATIONS},
        "rates": {str(rate): runs(base, sums(1000), total_timesteps=HALF, learning_rate=rate) for rate in RATES},
        "constant": {"0.003": runs(base, sums(1000), **CONSTANT)},
        "lengths": {str(tokens): runs(base, sums(300), total_timesteps=tokens) for tokens in LENGTHS[:-1]},
        "ways": {name: runs(base, sums(300), total_timesteps=HALF, **way) for name, way in WAYS.items() if way},
        "prompts": runs(base, all_learnt(1000)),
        "faults": faults(base),
    }
    found["lengths"]["200000"], found["ways"]["all of it"] = found["data"]["300"], found["lengths"][str(HALF)]
    return found


SHOWN = (("data", "100"), ("rates", "0.0001"), ("constant", "0.003"), ("rates", "0.001"))
"""The runs whose curves are drawn, and whose verdict is printed: the first seed of each."""


def mean(cell: list[dict[str, Any]], key: str = "right") -> str:
    """Over the seeds, with the deviation between them; of a curve its end."""
    values = [run[key][-1] if isinstance(run[key], list) else run[key] for run in cell]
    scale = 100.0 if key == "right" else 1.0
    digits = 0 if key == "right" else 2
    return f"{scale * statistics.fmean(values):.{digits}f} ± {scale * statistics.stdev(values):.{digits}f}"


def table(head: str, cells: dict[str, list[dict[str, Any]]]) -> None:
    """What came of each."""
    print(f"{head:40}{'right, %':>12}{'bits, shown':>14}{'bits, held out':>16}{'read':>8}  verdict")
    for name, cell in cells.items():
        words = ", ".join(sorted({run["verdict"].partition(":")[0] for run in cell}))
        line = f"{name:40}{mean(cell):>12}{mean(cell, 'seen'):>14}{mean(cell, 'held_out'):>16}"
        print(f"{line}{cell[0]['epochs']:7.0f}x  {words}")
    print()


def show(found: dict[str, Any]) -> None:
    """The tables."""
    print(f"before: {found['base'][0]:.1%} right as people write them, {found['base'][1]:.1%} the other way round\n")
    table("demonstrations", {f"{int(n):,}": found["data"][n] for n in map(str, DEMONSTRATIONS)})
    table("step size, 1,000 demonstrations", {f"{rate:g}": found["rates"][str(rate)] for rate in RATES})
    table(
        "step size 0.003, 1,000 demonstrations",
        {"falling": found["rates"]["0.003"], "constant": found["constant"]["0.003"]},
    )
    table("tokens, 300 demonstrations", {f"{tokens:,}": found["lengths"][str(tokens)] for tokens in LENGTHS})
    ways = {f"{name}, {found['ways'][name][0]['weights']:,}": found["ways"][name] for name in WAYS}
    table("weights tuned, 300 demonstrations", ways)
    table("learnt, 1,000 demonstrations", {"answers": found["data"]["1000"], "questions too": found["prompts"]})
    for name, row in found["faults"].items():
        print(f"{name:28}{row['right']:7.1%}  doctor: {textwrap.shorten(row['doctor'], 78, placeholder=' ...')}")
    print()
    for part, key in SHOWN:
        print(textwrap.fill(found[part][key][0]["verdict"], 118, subsequent_indent="  "))


def draw(found: dict[str, Any], out: Path) -> None:
    """The two curves of four runs."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 3.2), sharey=True)
    names = {"data": "{:,.0f} demonstrations", "rates": "step size {:g}", "constant": "constant {:g}"}
    for axis, (part, key) in zip(axes, SHOWN, strict=True):
        run = found[part][key][0]
        steps = [
            (i + 1) * (TOKENS if part == "data" else HALF) / len(run["seen"]) / 1000 for i in range(len(run["seen"]))
        ]
        axis.plot(steps, run["seen"], label="shown")
        axis.plot(steps, run["held_out"], label="held out")
        word = run["verdict"].partition(":")[0]
        axis.set(title=f"{names[part].format(float(key))}:\n{word}", xlabel="thousand tokens", yscale="log")
    axes[0].set(ylabel="bits per byte of the answers")
    axes[0].legend()
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "fine_tuning.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "fine_tuning.json")
    parser.add_argument("--drawn", action="store_true", help="draw and print what the data hold, and measure nothing")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    found = json.loads(options.data.read_text()) if options.drawn else measure()
    show(found)
    if not options.drawn:
        options.data.write_text(json.dumps(found, indent=1) + "\n")
    draw(found, options.out)


if __name__ == "__main__":
    main()
