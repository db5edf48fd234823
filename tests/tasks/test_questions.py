"""What every task of questions promises: one seed one task, nothing of the test is learnt, what is shown is right."""

import re
from collections.abc import Callable, Hashable
from dataclasses import fields, replace
from types import ModuleType
from typing import Any

import pytest

from torchward.config import ConfigError, from_json, to_json
from torchward.fields import docstrings
from torchward.language.documents import Completion, Document, Prompt
from torchward.tasks import (
    addition,
    countdown,
    dialogue,
    guess_number,
    multiplication,
    python_code,
    python_topics,
    random_walks,
    reversal,
)
from torchward.tasks import sorting as sorting_task


def operands(prompt: str) -> Hashable:
    return frozenset(map(int, re.findall(r"\d+", prompt)))


def either_way(prompt: str) -> Hashable:
    return frozenset((prompt[:-1], prompt[-2::-1]))


def items(prompt: str) -> Hashable:
    return tuple(sorted(prompt[:-1].split(" ")))


def numbers_and_target(prompt: str) -> Hashable:
    *numbers, target = re.findall(r"\d+", prompt)
    return tuple(sorted(numbers)), target


# What two prompts have in common that ask the same, found from the prompts alone.
TASKS: dict[str, tuple[ModuleType, dict[str, Any], Callable[[str], Hashable]]] = {
    "addition": (addition, {}, operands),
    "addition of two digits": (addition, {"digits": 2, "reversed_digits": True}, operands),
    "addition with leading zeros": (addition, {"digits": 2, "leading_zeros": True}, operands),
    "multiplication": (multiplication, {"demonstrations": 2_000}, operands),
    "reversal": (reversal, {"demonstrations": 2_000, "shortest": 2}, either_way),
    "sorting": (sorting_task, {"demonstrations": 2_000, "shortest": 3}, items),
    "sorting of words": (sorting_task, {"demonstrations": 2_000, "items": "words", "longest": 5}, items),
    "countdown": (countdown, {}, numbers_and_target),
    "countdown of four": (countdown, {"numbers": 4, "largest": 9}, numbers_and_target),
}


@pytest.fixture(params=list(TASKS.values()), ids=list(TASKS))
def task(request: pytest.FixtureRequest) -> tuple[ModuleType, Any, Callable[[str], Hashable]]:
    module, changes, same = request.param
    return module, module.Options(**{"problems": 3_000, "test": 400, **changes}), same


def test_nothing_of_the_test_is_learnt_and_nothing_comes_twice(task: Any) -> None:
    module, options, same = task
    problems = module.make(options)
    train, test = ([same(document.question) for document in part] for part in (problems.train, problems.test))
    assert (len(train), len(test)) == (options.problems, options.test)
    assert len(set(train) | set(test)) == options.problems + options.test


def test_leading_zeros_change_how_operands_are_written_and_nothing_else() -> None:
    plain, wide = (addition.make(addition.Options(problems=2_000, leading_zeros=given)) for given in (False, True))
    assert any("+7=" in document.question for document in plain.train)
    for short, long in zip((*plain.train, *plain.test), (*wide.train, *wide.test), strict=True):
        assert re.fullmatch(r"\d{3}\+\d{3}=", long.question)
        assert [*map(int, re.findall(r"\d+", long.question))] == [*map(int, re.findall(r"\d+", short.question))]
        assert long.columns == short.columns, "a sum has no zeros before it"


def test_one_seed_one_task_and_the_test_set_follows_from_it_alone(task: Any) -> None:
    module, options, _ = task
    problems, again = module.make(options), module.make(options)
    assert (problems.train, problems.test) == (again.train, again.test)
    other = module.make(replace(options, data_seed=1))
    assert questions(problems.test) != questions(other.test)
    assert questions(problems.train) != questions(other.train)
    smaller = module.make(replace(options, problems=1_000, demonstrations=10))
    assert smaller.test == problems.test
    assert questions(smaller.train) == questions(problems.train)[:1_000]


def test_the_first_documents_hold_an_answer_and_the_others_none(task: Any) -> None:
    module, options, _ = task
    problems = module.make(options)
    kinds = [type(document.content) for document in problems.train]
    assert kinds == [Completion] * options.demonstrations + [Prompt] * (options.problems - options.demonstrations)
    assert problems.demonstrations == problems.train[: options.demonstrations]
    assert {type(document.content) for document in problems.test} == {Prompt}
    assert not module.make(replace(options, demonstrations=0)).demonstrations


def test_every_demonstration_is_right_can_be_said_and_is_not_cut(task: Any) -> None:
    module, options, _ = task
    problems = module.make(options)
    tokenizer = problems.tokenizer.build(document.text for document in problems.train)
    prompts, completions = zip(
        *((d.content.prompt, d.content.completion) for d in problems.demonstrations), strict=True
    )
    columns = {
        name: [document.columns[name] for document in problems.demonstrations] for name in problems.train[0].columns
    }
    for judge in (problems.reward, problems.metric or problems.reward):
        assert judge(prompts, completions, **columns) == [1.0] * options.demonstrations
        assert not any(judge(prompts, [""] * len(prompts), **columns))
    lengths = [len(tokenizer.encode(completion)) + 1 for completion in completions]
    assert max(lengths) <= problems.max_completion_length
    for document in problems.test:
        tokenizer.encode(document.question)


def test_an_answer_that_is_right_is_shorter_than_the_limit() -> None:
    """So one that the limit cuts before its end-of-text is never taken for right."""
    for module in (addition, multiplication, reversal, sorting_task):
        problems = module.make(module.Options(problems=3_000, test=500))
        longest = max(len(document.columns["answer"]) for document in (*problems.train, *problems.test))
        assert longest == problems.max_completion_length - 1, module.__name__


@pytest.mark.parametrize(
    ("module", "changes", "sentence"),
    [
        (addition, {"digits": 1}, "expected 10,000 more questions that are all different, found 0 beside 55"),
        (addition, {"digits": 1, "test": 30, "problems": 26, "demonstrations": 1}, "26 more .* found 25 beside 30"),
        (addition, {"digits": 0}, "expected digits from 1 to 100, got 0"),
        (addition, {"demonstrations": 10_001}, "expected demonstrations from 0 to 10000, got 10001"),
        (addition, {"problems": 0}, "expected problems of at least 1, got 0"),
        (multiplication, {"test": 0}, "expected test of at least 1, got 0"),
        (multiplication, {"problems": 5_050}, "found 4,550 beside 500: ask for fewer, or for larger ones"),
        (reversal, {"letters": 27}, "expected letters from 1 to 26, got 27"),
        (reversal, {"shortest": 9}, "expected longest of at least shortest=9, got 8"),
        (sorting_task, {"shortest": 0}, "expected shortest of at least 1, got 0"),
        (sorting_task, {"longest": 3}, "expected longest of at least shortest=4, got 3"),
        (countdown, {"numbers": 1}, "expected numbers from 2 to 10, got 1"),
        (countdown, {"well_formed": 0.9}, "expected well_formed from 0 to 0.5, got 0.9"),
        (countdown, {"numbers": 2, "largest": 2, "largest_target": 2}, "are all different"),
    ],
)
def test_what_cannot_be_asked_is_said(module: ModuleType, changes: dict[str, Any], sentence: str) -> None:
    if module is addition and changes.get("test") != 30 and changes.get("digits") == 1:
        changes = {**changes, "test": 55}
    with pytest.raises(ConfigError, match=sentence):
        module.make(module.Options(**changes))


def test_all_questions_that_there_are_can_be_asked() -> None:
    problems = addition.make(addition.Options(digits=1, test=30, problems=25, demonstrations=0))
    assert {operands(document.question) for document in (*problems.train, *problems.test)} == {
        frozenset((a, b)) for a in range(10) for b in range(10)
    }


@pytest.mark.parametrize(
    "module",
    [
        addition,
        multiplication,
        reversal,
        sorting_task,
        countdown,
        dialogue,
        guess_number,
        python_code,
        python_topics,
        random_walks,
    ],
)
def test_options_travel_and_say_what_they_are(module: ModuleType) -> None:
    options = module.Options()
    assert from_json(module.Options, to_json(options)) == options
    assert set(docstrings(module.Options)) == {field.name for field in fields(module.Options)}


def test_sums_and_products_are_those_of_school() -> None:
    """In columns, digit by digit, against the answers."""
    sums = addition.make(addition.Options(digits=5))
    products = multiplication.make(multiplication.Options(digits=4, reversed_digits=True))
    for document in sums.test:
        assert in_columns(*document.question[:-1].split("+")) == document.columns["answer"]
    for document in products.test:
        a, b = document.question[:-1].split("*")
        total = "0"
        for place, digit in enumerate(reversed(b)):
            for _ in range(int(digit)):
                total = in_columns(total, a + "0" * place)
        assert (total.lstrip("0") or "0")[::-1] == document.columns["answer"]


def test_operands_are_uniform() -> None:
    """All last digits come alike often, and a tenth of the operands of two digits have one."""
    problems = addition.make(addition.Options(digits=2, test=2_000, problems=1, demonstrations=0))
    drawn = [int(number) for document in problems.test for number in document.question[:-1].split("+")]
    for digit in range(10):
        assert abs(sum(number % 10 == digit for number in drawn) / 4_000 - 0.1) < 0.02
        assert abs(sum(number // 10 == digit for number in drawn) / 4_000 - 0.1) < 0.02


def in_columns(a: str, b: str) -> str:
    width = max(len(a), len(b))
    written, carry = "", 0
    for x, y in zip(reversed(a.zfill(width)), reversed(b.zfill(width)), strict=True):
        count = [*range(10), *range(10)]
        seen = "0123456789".index(x) + "0123456789".index(y) + carry
        written, carry = str(count[seen]) + written, int(seen >= 10)
    return "1" + written if carry else written


def questions(documents: list[Document]) -> list[str]:
    return [document.question for document in documents]
