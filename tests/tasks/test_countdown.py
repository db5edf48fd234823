"""Countdown: its parser against Python's own, its problems against a search through all expressions."""

import ast
import operator
import warnings
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torchward.tasks.countdown import Options, Reached, make, value

NUMBERS = (3, 5, 12, 20)
SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def by_python(expression: str) -> Fraction | None:
    """What Python's grammar makes of it, where that is within the rules."""
    if not set(expression) <= set("0123456789+-*/()"):
        return None
    left = Counter(NUMBERS)

    def walk(node: ast.expr) -> Fraction:
        match node:
            case ast.BinOp(one, sign, other) if type(sign) in SIGNS:
                return Fraction(SIGNS[type(sign)](walk(one), walk(other)))
            case ast.Constant(int(number)) if left[number] > 0:
                left[number] -= 1
                return Fraction(number)
        raise SyntaxError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 3(5) looks like a call
            return walk(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ZeroDivisionError):
        return None


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """Of the grammar, with numbers that may be wrong, and perhaps a character changed."""
    number = st.sampled_from(["3", "5", "12", "20", "4"])
    deeper = st.recursive(
        number,
        lambda inner: st.one_of(
            inner.map(lambda text: f"({text})"),
            st.tuples(inner, st.sampled_from("+-*/"), inner).map("".join),
        ),
        max_leaves=5,
    )
    text = draw(deeper)
    place = draw(st.integers(0, len(text)))
    return draw(st.sampled_from([text, text[:place] + draw(st.sampled_from("0123+-*/() ")) + text[place:]]))


@given(st.one_of(expressions(), st.text("0123456789+-*/()", max_size=12)))
@example("20/(5-3-12+5)")
@example("12-(5-3)")
@example("12/3/5")
@example("3-5-12")
@example("20/5*3")
@example("3(5)")
@example("(3,5)")
@example("00")
def test_the_parser_reads_what_python_reads(expression: str) -> None:
    assert value(expression, NUMBERS) == by_python(expression)


def test_most_expressions_of_that_kind_are_read_and_some_are_not() -> None:
    seen: list[bool] = []

    @given(expressions())
    def collect(expression: str) -> None:
        seen.append(value(expression, NUMBERS) is not None)

    collect()
    assert 0.1 < sum(seen) / len(seen) < 0.9


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "35",
        "=35",
        "20+5*3=35",
        " 20+5*3",
        "20 +5*3",
        "20+5*3\n",
        "20+5*03",
        "20+5*+3",
        "--20+5*3",
        "20+5*3.0",
        "2_0+5*3",
        "20+5*3;20+5*3",
        "20+5*3,",
        "20+15",
        "5*(12-5)",  # 5 twice
        "20+20-5",
        "20+12+3+5-5",
        "35/1",
        "3**5",
        "20//3+5",
        "20%3",
        "3/0+35",
        "20+5*3+12/(3-3)",
        "20/(5-3-2)",
        "()20+5*3",
        "(20+5*3",
        "20+5*3)",
        "20+5*３",
        "20+5*٣",
        "20+5*³",
        "20+5×3",
        "20+5*3" + " " * 100_000,
        "9" * 1_000_000,
        "(" * 100_000,
        "+".join(["3"] * 100_000),
        "__import__('os').abort()",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_what_breaks_a_rule_earns_nothing(answer: str) -> None:
    for reward in (Reached(), Reached(0.5)):
        assert reward.of(answer, NUMBERS, 35) == 0.0


@pytest.mark.parametrize(
    "answer", ["20+5*3", "(5*3)+20", "((20)+(5*3))", "5*3+20", "(" * 50_000 + "20+5*3" + ")" * 50_000]
)
def test_what_makes_the_target_earns_all(answer: str) -> None:
    assert Reached().of(answer, NUMBERS, 35) == 1.0
    assert Reached(0.5).of(answer, NUMBERS, 35) == 1.0


def test_halves_and_negative_numbers_may_stand_in_between() -> None:
    assert value("(3-5)*(5-20)", (3, 5, 5, 20)) == 30
    assert value("5/2*12", (5, 2, 12)) == 30
    assert value("1/3*3", (1, 3, 3)) == 1  # exactly, where floating point could miss it


def test_being_well_formed_pays_only_what_was_asked_for_and_only_for_two_numbers() -> None:
    for answer, part in (("20+5", 0.1), ("20", 0.0), ("((20))", 0.0), ("(20/5)", 0.1), ("20+", 0.0)):
        assert Reached(0.1).of(answer, NUMBERS, 35) == part
        assert Reached().of(answer, NUMBERS, 35) == 0.0
    problems = make(Options(problems=50, demonstrations=10, test=50, well_formed=0.1))
    numbers = [document.columns["numbers"] for document in problems.test]
    target = [document.columns["target"] for document in problems.test]
    lazy = [f"{ns[0]}+{ns[1]}" for ns in numbers]
    paid = problems.reward([""] * 50, lazy, numbers=numbers, target=target)
    assert problems.metric is not None
    judged = problems.metric([""] * 50, lazy, numbers=numbers, target=target)
    assert set(paid) <= {0.1, 1.0} and [1.0 if one == 1.0 else 0.0 for one in paid] == judged


def reachable(numbers: tuple[Fraction, ...]) -> set[Fraction]:
    """Everything that some of the numbers make."""
    found = set(numbers)
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i != j:
                rest = tuple(number for k, number in enumerate(numbers) if k not in (i, j))
                made = {a + b, a - b, a * b} | ({a / b} if b else set())
                found |= set().union(*(reachable((*rest, one)) for one in made))
    return found


@pytest.mark.parametrize(
    "options", [Options(problems=50, demonstrations=10, test=100), Options(4, 9, 60, 0.0, 1, 1, 10)]
)
def test_every_problem_can_be_solved_and_none_is_solved_by_one_number(options: Options) -> None:
    for document in make(options).test:
        numbers, target = document.columns["numbers"], document.columns["target"]
        assert target in reachable(tuple(map(Fraction, numbers)))
        assert target not in numbers and 1 <= target <= options.largest_target
        assert len(numbers) == options.numbers and max(numbers) <= options.largest
        assert document.question == " ".join(map(str, numbers)) + f"={target}:"
