"""What pretraining is worth to a classifier: labels of sixteen words, and the text that all words were read in.

A made-up language has animals and things, told apart only by what they do. The labels are learnt from the frame "look,
a ...", which says nothing, for eight words of each kind; the classifier is judged by the words that it has no label of.
"""

import json
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import torchward
from torchward.run import RunOptions

QUIET = RunOptions(tensorboard=False, progress=False)
DOES = {"animal": ["sleeps", "eats", "runs", "hides"], "thing": ["breaks", "falls", "burns", "shines"]}


def words(random: Random) -> dict[str, list[str]]:
    """24 words of each kind, of which the letters tell nothing."""
    made: list[str] = []
    while len(made) < 48:
        word = "".join(random.choice("bdfgklmnprst") + random.choice("aeiou") for _ in range(2))
        made += [word] if word not in made else []
    return {"animal": made[:24], "thing": made[24:]}


def write(place: Path) -> tuple[Path, Path]:
    """The plain text, and the labelled lines: of each kind eight words to learn from, and sixteen held out."""
    random = Random(0)
    known = words(random)
    text, labelled = place / "text.txt", place / "labels.jsonl"
    said = [
        random.choice([f"the {word} {random.choice(DOES[kind])}", f"look, a {word}"])
        for kind, word in (
            random.choice([(kind, word) for kind in known for word in known[kind]]) for _ in range(6_000)
        )
    ]
    text.write_text("\n".join(said))
    rows = [(word, kind, i >= 8) for kind in known for i, word in enumerate(known[kind])]
    lines = [{"text": f"look, a {word}", "label": kind, "held_out": held_out} for word, kind, held_out in rows]
    labelled.write_text("\n".join(map(json.dumps, lines)))
    return text, labelled


def task(labelled: Path, tokenizer: Any) -> Any:
    """The labelled lines, with the words that are held out as the test."""
    from torchward.language.corpus import JSONLines
    from torchward.language.rewards import exact_match
    from torchward.language.task import Problems
    from torchward.language.text_task import Text

    documents = list(JSONLines(labelled).documents())
    shown, held_out = ([each for each in documents if each.columns["held_out"] is side] for side in (False, True))
    return Text(Problems("words", shown, held_out, exact_match), tokenizer)


def main(place: Path) -> tuple[float, float, float]:
    """How well masked tokens of new text are guessed; and the accuracy on new words with pretraining and without."""
    from torchward.language.tokenizer import described

    text, labelled = write(place)
    small: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_length": 16}
    encoder = torchward.train(
        "masked_lm", str(text), path=place / "encoder", options=QUIET, total_timesteps=250_000, learning_rate=3e-3,
        per_device_train_batch_size=32, **small,
    )  # fmt: skip
    policy: Any = torchward.load(encoder.path)
    learn: dict[str, Any] = {
        "task": task(labelled, described(policy.vocabulary)), "options": QUIET, "total_timesteps": 1_280,
        "max_length": 16, "per_device_train_batch_size": 16,
    }  # fmt: skip
    tuned = torchward.train("classify", path=place / "tuned", init=encoder.path, **learn)
    fresh = torchward.train("classify", path=place / "fresh", **{**learn, **small})
    guessed = [row["eval/masked_accuracy"] for row in encoder.rows() if "eval/masked_accuracy" in row][-1]
    return guessed, *(run.rows()[-1].get("eval/accuracy", run.best_return) for run in (tuned, fresh))  # type: ignore


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        guessed, tuned, fresh = main(Path(place))
    sys.stdout.write(f"masked tokens of new text guessed: {guessed:.2f}\n")
    sys.stdout.write(f"new words told apart, after pretraining: {tuned:.2f}; without: {fresh:.2f}\n")
