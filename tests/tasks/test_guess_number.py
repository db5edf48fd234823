"""Guess the number: the partner's words, the best that can be done by trying every strategy, and its demonstrations."""

from collections.abc import Callable
from functools import cache

import pytest

from torchward.config import ConfigError
from torchward.language.documents import Dialogue, Document
from torchward.language.task import Problems
from torchward.tasks.guess_number import Answers, Options, make, optimal_success, optimum, read


def bounds(document: Document) -> tuple[int, int]:
    low, high = map(int, document.question.split(".."))
    return low, high


def played(problems: Problems, document: Document, guess: Callable[[int, int], str]) -> tuple[float, int]:
    """What a guesser earns that knows the bounds that remain, and how many turns it took."""
    assert problems.partner is not None
    (low, high), said, earned = bounds(document), [], 0.0
    while True:
        said.append(guess(low, high))
        reply = problems.partner(said, document.columns)
        earned += reply.reward
        if reply.text is None:
            nothing = problems.reward([document.question], ["\n".join(said)], number=[document.columns["number"]])
            return earned + nothing[0], len(said)
        assert reply.reward == 0.0
        if reply.text == "higher":
            low = int(said[-1]) + 1
        else:
            assert reply.text == "lower"
            high = int(said[-1]) - 1


@pytest.mark.parametrize("turns", [1, 3, 5, 6, 7])
def test_bisection_earns_exactly_the_optimum(turns: int) -> None:
    problems = make(Options(turns=turns, problems=10, demonstrations=5))
    earned = [played(problems, document, lambda low, high: str((low + high) // 2))[0] for document in problems.test]
    assert set(earned) <= {0.0, 1.0}
    assert sum(earned) / len(earned) == pytest.approx(optimum(problems.test, turns), abs=1e-12)
    assert (sum(earned) == len(earned)) == (turns >= 6)


def test_the_optimum_is_that_of_the_best_of_all_strategies() -> None:
    @cache
    def best(numbers: int, turns: int) -> int:
        """How many of the numbers are found, by the best first guess."""
        if not numbers or not turns:
            return 0
        return max(1 + best(first, turns - 1) + best(numbers - 1 - first, turns - 1) for first in range(numbers))

    for numbers in range(1, 40):
        for turns in range(7):
            assert optimal_success(numbers, turns) == best(numbers, turns) / numbers


def test_an_optimum_is_a_mean_over_the_tests_numbers() -> None:
    few, many = Document("0..1", "", {}), Document("0..9", "", {})
    assert optimum([few] * 2 + [many] * 10, 1) == pytest.approx((1 + 1) / 12)
    assert optimum([few] * 2 + [many] * 10, 2) == pytest.approx((2 + 3) / 12)


@pytest.mark.parametrize(
    "words",
    ["", " 7", "7 ", "7\n", "07", "+7", "-7", "7.0", "7 8 9", "5\n6\n7", "７", "٧", "²", "1e1", "higher", "9" * 10_000],
)
def test_what_is_no_number_ends_the_game_and_earns_nothing(words: str) -> None:
    assert read(words) is None
    assert Answers(6)([words], {"number": 7}) == (None, 0.0)
    assert Answers(6)(["3", words], {"number": 7}) == (None, 0.0)


def test_the_partner_says_where_the_number_is_pays_once_and_never_goes_on_for_ever() -> None:
    partner = Answers(3)
    assert partner(["6"], {"number": 7}) == ("higher", 0.0)
    assert partner(["6", "999"], {"number": 7}) == ("lower", 0.0)
    assert partner(["6", "999", "7"], {"number": 7}) == (None, 1.0)
    assert partner(["6", "999", "8"], {"number": 7}) == (None, 0.0)
    assert partner(["6", "6", "6", "7"], {"number": 7}) == (None, 0.0), "a turn too many"
    assert partner(["0"], {"number": 0}) == (None, 1.0)


def test_the_test_holds_each_number_of_ranges_that_are_not_learnt_from() -> None:
    options = Options(problems=3_000)
    problems = make(options)
    ranges = {bounds(document) for document in problems.test}
    assert len(ranges) == options.ranges
    assert not ranges & {bounds(document) for document in problems.train}
    assert sorted((*bounds(d), d.columns["number"]) for d in problems.test) == sorted(
        (low, high, number) for low, high in ranges for number in range(low, high + 1)
    )
    for document in problems.train:
        low, high = bounds(document)
        assert 0 <= low <= document.columns["number"] <= high <= options.largest and high - low + 1 >= options.span


def test_one_seed_one_game() -> None:
    options = Options(problems=300, demonstrations=100)
    problems, again, other = make(options), make(options), make(Options(problems=300, demonstrations=100, data_seed=1))
    assert (problems.train, problems.test) == (again.train, again.test)
    assert problems.train != other.train and problems.test != other.test
    fewer = make(Options(problems=100, demonstrations=100))
    assert fewer.test == problems.test and fewer.train == problems.train[:100]


def test_demonstrations_keep_to_the_rules() -> None:
    """Each answer in them is true, and they end where the game ends."""
    problems = make(Options(problems=600, demonstrations=500))
    assert len(problems.demonstrations) == 500
    for document in problems.demonstrations:
        content, number = document.content, document.columns["number"]
        assert isinstance(content, Dialogue)
        asked, *said = content.messages
        guesses = [int(message.content) for message in said[::2]]
        assert [message.role for message in content.messages] == ["user", "assistant"] * len(guesses)
        assert [message.content for message in said[1::2]] == [
            "higher" if number > guess else "lower" for guess in guesses[:-1]
        ]
        assert number not in guesses[:-1] and (guesses[-1] == number or len(guesses) == 6)
        low, high = map(int, asked.content.split(".."))
        assert all(low <= guess <= high for guess in guesses)
    tokenizer = problems.tokenizer.build(document.text for document in problems.train)
    for words in ("higher", "lower", "0123456789", *(document.question for document in problems.test)):
        tokenizer.encode(words)


@pytest.mark.parametrize("careless", [0.0, 0.5, 1.0])
def test_demonstrations_succeed_as_often_as_such_guessing_does(careless: float) -> None:
    """Against the exact chance, by what is still possible and how many turns are left."""

    def chance(size: int) -> float:
        @cache
        def of(n: int, turns: int) -> float:
            if not n or not turns:
                return 0.0
            # A guess that is still possible is one of n, and there are `first` numbers below it.
            sides = [
                first * of(first, turns - 1) + (n - 1 - first) * of(n - 1 - first, turns - 1) for first in range(n)
            ]
            within = (n + sum(sides)) / n**2
            possible = 1.0 - careless + careless * n / size
            return possible * within + (1.0 - possible) * of(n, turns - 1)

        return of(size, 6)

    # Of the ranges 0..30, 1..31 and 0..31 one is held out.
    options = Options(largest=31, span=31, ranges=1, careless=careless, problems=5_000, demonstrations=5_000)
    found = [d.text.split("\n")[-1] == str(d.columns["number"]) for d in make(options).demonstrations]
    expected = [chance(31), chance(32)]
    assert min(expected) - 0.025 < sum(found) / len(found) < max(expected) + 0.025


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"span": 64}, "expected span from 1 to 63, got 64"),
        ({"ranges": 561}, "expected ranges from 1 to 560, for there are 561 in all, got 561"),
        ({"careless": 1.5}, "expected careless from 0.0 to 1.0, got 1.5"),
        ({"turns": 0}, "expected turns of at least 1, got 0"),
    ],
)
def test_what_cannot_be_played_is_said(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make(Options(**changes))  # type: ignore[arg-type]
