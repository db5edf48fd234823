"""`torchward data`: what a command of training would learn from, and what is wrong with it."""

import json
import re
from pathlib import Path

from tests.cli.conftest import QUIET, Command


def row(out: str, name: str) -> list[str]:
    """The figures behind a name of the table."""
    (line,) = [line for line in out.splitlines() if line.startswith(name + "  ")]
    return re.split(r"\s{2,}", line)[1:]


def test_text_of_ones_own_is_counted_and_what_repeats_is_told(command: Command, place: Path) -> None:
    lines = [f"{n} sheep went over the bridge, and {n * n} came back." for n in range(60)]
    (place / "book.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in [*lines, lines[3], lines[4]]))
    code, out, err = command("data", "pretrain", place / "book.jsonl", "--max-length", "4")
    assert (code, err) == (0, "")
    learnt, held_out = (int(figure) for figure in row(out, "documents"))
    assert learnt + held_out == 62 and held_out > 0
    assert sum(int(figure) for figure in row(out, "longer than 4 tokens")) == 62
    assert sum(int(figure) for figure in row(out, "copies of earlier ones")) == 2
    assert "word for word" in out


def test_questions_are_looked_for_in_training(command: Command, place: Path) -> None:
    lines = [json.dumps({"prompt": f"What is {n} and {n}? ", "completion": f"{2 * n}"}) for n in range(60)]
    (place / "sums.jsonl").write_text("\n".join(lines))
    code, out, _ = command("data", "sft", "./sums.jsonl")
    learnt, held_out = (int(figure) for figure in row(out, "documents"))
    assert code == 0 and learnt + held_out == 60
    assert row(out, "in training as well") == ["0"]
    assert "have no answer" not in out and "give --init" in out
    code, out, _ = command("data", "pretrain", "./sums.jsonl")  # reads questions with their answers
    assert row(out, "documents") == [str(learnt), str(held_out)] and row(out, "in training as well") == ["0"]
    (place / "mine.py").write_text("from torchward.algorithms.pretrain import Config, train\n")
    assert command("data", "./mine.py", "./sums.jsonl").out == out  # what its train takes says what it reads
    assert command("data", "masked_lm", "./sums.jsonl").out == out
    assert command("data", "sft", "./sums.jsonl", "--validation", "0").code == 2
    half = [json.dumps({"prompt": f"What is {n} and {n}? "}) for n in range(60, 70)]
    (place / "half.jsonl").write_text("\n".join([*lines, *half]))
    _, out, _ = command("data", "sft", "./half.jsonl")
    assert re.search(r"! \d+ of \d+ have no answer to imitate, \S*half.jsonl:[67]\d for one: sft passes them over", out)
    (place / "some.jsonl").write_text("\n".join([*lines, json.dumps({"text": "What is 9 and 9? 18"})]))
    net = ("--hidden-size", "16", "--num-hidden-layers", "1", "--num-attention-heads", "2")
    short = ("./some.jsonl", "--total-timesteps", "128", "--no-tensorboard", "--name")
    assert command("train", "pretrain", *short, "first", *net).code == 0
    told = command("train", "sft", *short, "tuned", "--init", "runs/first").err
    assert re.search(
        r"1 of \d+ documents have no answer to imitate and are passed over, \S*some.jsonl:61 for one\n", told
    )


def test_what_is_learnt_is_looked_at_as_it_is_learnt(command: Command, place: Path) -> None:
    """A chat takes a token for each role and each end; a pair is two texts; conversations are not their openings."""
    say = [{"role": "user", "content": "12"}, {"role": "assistant", "content": "345"}]
    chats = [{"messages": [{**say[0], "content": f"{number:02}"}, say[1]]} for number in range(40)]
    (place / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    counted = ("./chats.jsonl", "--tokenizer", "bytes", "--max-length")
    # user 12 end assistant 345 end: 9 tokens are predicted.
    assert row(command("data", "sft", *counted, "9").out, "longer than 9 tokens") == ["0", "0"]
    out = command("data", "sft", *counted, "8").out
    assert sum(map(int, row(out, "longer than 8 tokens"))) == 40
    pairs = [{"prompt": f"{number:02}", "chosen": "abc", "rejected": "de"} for number in range(40)]
    (place / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    counted = ("./pairs.jsonl", "--tokenizer", "bytes", "--max-length")
    # start 12 abc end: 7 tokens are read.
    assert row(command("data", "dpo", *counted, "7").out, "longer than 7 tokens") == ["0", "0"]
    assert sum(map(int, row(command("data", "dpo", *counted, "6").out, "longer than 6 tokens"))) == 40
    assert sum(map(int, row(command("data", "kto", *counted, "6").out, "documents"))) == 80
    talks = ("dialogue", "--demonstrations", "30", "--problems", "60", "--test", "20")
    assert row(command("data", "sft", *talks).out, "documents") == ["25", "5"]  # of 30


def test_tokens_are_those_of_the_run_that_it_begins_from(command: Command, place: Path) -> None:
    sums = ("--digits", "1", "--demonstrations", "30", "--problems", "40", "--test", "4")
    net = ("--hidden-size", "16", "--num-hidden-layers", "1", "--num-attention-heads", "2")
    made = command("train", "pretrain", "addition", *sums, *net, "--total-timesteps", "128", *QUIET, "--name", "first")
    assert made.code == 0
    (place / "words.jsonl").write_text("\n".join(json.dumps({"text": f"{n} apples"}) for n in range(50)))
    assert "cannot be encoded" in command("data", "pretrain", "./words.jsonl", "--init", "runs/first").out


def test_what_is_no_text_is_said(command: Command, trained: Path) -> None:
    code, out, err = command("data", "ppo", "CartPole-v1")
    assert (code, out, err) == (2, "", "torchward: data looks at tasks of text, and CartPole-v1 is none\n")
    code, _, err = command("data", "sft", "addition", "--init", trained)
    assert code == 2 and "expected the run of a language model" in err and "ActorCritic" in err
    assert "TASK is missing" in command("data", "sft").err
