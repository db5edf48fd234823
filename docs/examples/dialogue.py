"""Conversations with the users of `dialogue` who were held out, side by side: of the script of rules, and of any runs.

python docs/examples/dialogue.py                                       the script alone
python docs/examples/dialogue.py runs/sft runs/ppo --users 2 6         and two runs, with the third and seventh user
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torchward import launch
from torchward.language.documents import Document
from torchward.language.play import play
from torchward.language.text_task import Text
from torchward.nets import saving
from torchward.nets.language_model import LanguageModel
from torchward.run import read_manifest
from torchward.tasks.dialogue import Options, held_out
from torchward.tasks.dialogue_script import Script, converse, evaluate
from torchward.tasks.dialogue_user import User

Said = Mapping[str, Sequence[Sequence[str]]]
"""By speaker, what it said to each user, turn by turn."""


def of_run(path: Path, documents: Sequence[Document]) -> list[list[str]]:
    """What the policy at a run's end says to users, token by token the likeliest."""
    task: Any = launch.reopen_task(path, read_manifest(path)["manifest"]).task
    policy = saving.load(path, which="last")
    assert isinstance(task, Text) and isinstance(policy, LanguageModel)
    task = task.using(policy)
    problems = replace(task.problems, test=documents)
    length = problems.max_completion_length
    lines = play(policy, problems, documents, task.tokenizer, task.template, max_completion_length=length)
    return [line.said for line in lines]


def show(document: Document, said: Sequence[str]) -> None:
    """Print a conversation."""
    user = User(document.columns)
    print(f"  user       {user.opening()}")
    for words in said:
        answer = user.hear(words)
        print(f"  assistant  {words}")
        if answer is not None:
            print(f"  user       {answer}")
    left = "has left" if user.over else "waits for an answer"
    print(f"  {'a success' if user.success else f'no success: the user wanted something else, or {left}'}")
    print()


def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("runs", type=Path, nargs="*", help="runs on dialogue")
    options.add_argument("--users", type=int, nargs="+", default=[2], help="which of the users, from 0 on")
    options.add_argument("--data-seed", type=int, default=0, help="that of the runs' task")
    given = options.parse_args(args)
    documents = held_out(Options(data_seed=given.data_seed))
    print("the script's success", {name: f"{each:.1%}" for name, each in evaluate(Script(), documents).items()})
    some = [documents[number] for number in given.users]
    said: dict[str, Sequence[Sequence[str]]] = {
        "the script": [converse(Script(), document.columns)[2] for document in some]
    }
    said |= {str(path): of_run(path, some) for path in given.runs}
    for place, document in enumerate(some):
        wanted = ", ".join(f"{slot} {value}" for slot, value in document.columns["goal"].items())
        print(f"\n{document.columns['mode']}, patient for {document.columns['patience']} turns: {wanted}")
        for speaker, turns in said.items():
            print(f" {speaker}")
            show(document, turns[place])


if __name__ == "__main__":
    main()
