"""Rewards by overlap, by form and by the answer: known values, what is refused, and sums of several."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchward.config import ConfigError
from torchward.language.documents import TextError
from torchward.language.reward_sum import Stage, Staged, Sum, Weighted
from torchward.language.rewards import exact_match, references
from torchward.language.rewards_by_answer import Contains, Exact, Numeric
from torchward.language.rewards_by_form import Distinct, JSONObject, Length, Matches
from torchward.language.rewards_by_overlap import BLEU, ROUGE, ChrF
from torchward.language.task import InParts, Reward


def says(reward: Reward, *completions: str, **columns: Any) -> list[float]:
    return reward([""] * len(completions), completions, **columns)


def one(reward: Reward, completion: str, reference: Any) -> float:
    (earned,) = says(reward, completion, reference=[reference])
    return earned


# By overlap: values computed by hand from the definitions


def test_bleu_by_hand() -> None:
    cat = "the cat sat on the mat"
    # Of "the cat sat on a mat": 5 of 6 words, 3 of 5 pairs, 2 of 4, 1 of 3.
    assert one(BLEU(), "the cat sat on a mat", cat) == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert one(BLEU(), cat, cat) == pytest.approx(1.0)
    # Three words, all of them there: no run of four is asked for, and the penalty for 3 in place of 6 is e^(1 - 6/3).
    assert one(BLEU(), "the cat sat", cat) == pytest.approx(math.exp(-1.0))
    assert one(BLEU(max_ngram_order=1), "the the the the the the", cat) == pytest.approx(2 / 6)  # clipped counts
    assert one(BLEU(), "", cat) == 0.0
    assert one(BLEU(lowercase=True), "THE CAT SAT ON THE MAT", cat) == pytest.approx(1.0)
    assert one(BLEU(tokenize="char"), "猫坐在垫子上", "猫坐在垫子上") == pytest.approx(1.0)


def test_chrf_by_hand() -> None:
    # Orders 1 and 2: "abd" has 2 of 3 characters and 1 of 2 pairs of "abc"; precision and recall are (2/3 + 1/2) / 2.
    assert one(ChrF(char_order=2), "abd", "abc") == pytest.approx(7 / 12)
    # Against "abcd": precision 1 and recall (2/4 + 1/3) / 2; F with beta 2 is 5 P R / (4 P + R).
    recall = (2 / 4 + 1 / 3) / 2
    assert one(ChrF(char_order=2), "ab", "abcd") == pytest.approx(5 * recall / (4 + recall))
    assert one(ChrF(), "a b c d e f", "abcdef") == pytest.approx(1.0), "white space is no character"
    assert one(ChrF(word_order=2), "a b c d e f", "abcdef") < 1.0, "but it makes words"


def test_rouge_by_hand() -> None:
    said, right = "police ended the gunman", "police killed the gunman"
    assert one(ROUGE("rouge1"), said, right) == pytest.approx(3 / 4)
    assert one(ROUGE("rouge2"), said, right) == pytest.approx(1 / 3)
    # Longest common subsequences of "a b c d" and "d a b": "a b", of 4 and of 3 words.
    assert one(ROUGE(), "a b c d", "d a b") == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert one(ROUGE("rouge1"), "running", "run") == 0.0 < one(ROUGE("rouge1", use_stemmer=True), "running", "run")
    assert one(ROUGE(), "猫坐", "猫坐") == 0.0, "no letter of a to z"
    assert one(ROUGE(characters=True), "猫坐着", "猫站着") == pytest.approx(2 / 3)


@pytest.mark.parametrize("reward", [BLEU(), ChrF(), ROUGE()], ids=lambda reward: type(reward).__name__)
def test_an_overlap_is_within_its_bounds_and_the_best_reference_counts(reward: Reward) -> None:
    words = ["one", "two", "three", "four", "five", "six"]
    texts = [" ".join(words[i:j]) for i in range(6) for j in range(i, 7)]
    earned = [one(reward, said, texts[6]) for said in texts]
    assert all(0.0 <= each <= 1.0 + 1e-12 for each in earned) and max(earned) == pytest.approx(1.0)
    assert one(reward, "three four", ["five six one", "three four"]) == pytest.approx(1.0)
    assert says(reward, "one two", "three four", answer=["one two", "six"])[0] == pytest.approx(1.0)


def test_where_references_stand() -> None:
    columns: dict[str, list[Any]] = {"completion": ["c"], "answer": ["a"], "other": [["o", "p"]]}
    assert references(columns) == [("a",)] and references(columns, "other") == [("o", "p")]
    assert references({"completion": ["c"]}) == [("c",)] and references({**columns, "reference": ["r"]}) == [("r",)]
    with pytest.raises(TextError, match="reference, answer, completion to judge by, got other"):
        references({"other": ["o"]})
    wrong: Any
    for wrong in (None, 3, [], [3], {}):
        with pytest.raises(TextError, match="expected a text or a list of texts as 'answer'"):
            references({"answer": [wrong]})
    with pytest.raises(TextError, match="expected a column 'gold' to judge by"):
        says(ChrF("gold"), "a", answer=["a"])


# By form


def test_a_band_of_lengths() -> None:
    band = Length(3, 5, margin=4)
    assert says(band, *("x" * n for n in range(11))) == [0.25, 0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    assert says(Length(2, 2), "x", "xx", "xxx") == [0.0, 1.0, 0.0]
    assert says(Length(2, unit="words"), "long", "a b", "a b " * 99) == [0.0, 1.0, 1.0]


def test_a_pattern_has_to_match_as_a_whole() -> None:
    wanted = Matches(r"<think>.*</think><answer>\d+</answer>")
    whole = "<think>one\ntwo</think><answer>12</answer>"
    assert says(wanted, whole, whole + " ", "x" + whole, whole[:-1], "") == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert says(Matches(r"\d+"), "12\n", "12") == [0.0, 1.0], "a line's end behind it is not nothing"


@pytest.mark.parametrize(
    "said",
    ["", "[]", '"a"', "{}", '{"a": 1}', '{"a": 1, "b": NaN}', '{"a": 1, "a": 1, "b": 2}', '{"a": 1, "b": 2} and more',
     "```json\n{\"a\": 1, \"b\": 2}\n```", "[" * 100_000, '{"b": {"a": 1}}', '{"a": 1, "b": 2,}'],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_what_is_no_such_object_earns_nothing(said: str) -> None:
    assert says(JSONObject(("a", "b")), said) == [0.0]


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.text()), st.sampled_from([None, 2]))
def test_every_object_with_its_keys_is_one(made: dict[str, Any], indent: int | None) -> None:
    said = json.dumps({**made, "a": [1], "b": 2.5}, indent=indent)
    assert says(JSONObject(("a", "b")), said) == [1.0]
    assert says(JSONObject(("a", "b"), no_others=True), said) == [float(made.keys() <= {"a", "b"})]


def test_repetition_within_an_answer() -> None:
    assert says(Distinct(1), "a a a a", "a b c d", "a b a b") == [0.25, 1.0, 0.5]
    assert says(Distinct(2), "", "a", "a b") == [0.0, 0.0, 1.0]


# By the answer


def test_what_exact_forgives() -> None:
    assert says(Exact(), " Paris\n", "paris", "Paris.", answer=["Paris"] * 3) == [1.0, 0.0, 0.0]
    assert says(Exact(ignore_case=True, strip=False), " paris", "PARIS", answer=["Paris"] * 2) == [0.0, 1.0]
    assert says(Exact(), "b", answer=[["a", "b"]]) == [1.0]


@pytest.mark.parametrize(
    ("said", "right"),
    [("12", True), (" 12.0\n", True), ("1.2e1", True), ("+12.", True), ("12.0001", False), ("12 13", False),
     ("", False), ("twelve", False), ("0xC", False), ("nan", False), ("inf", False), ("1_2", False), ("-12", False),
     ("１２", False), ("12abc", False)],
)  # fmt: skip
def test_a_number_and_nothing_more(said: str, right: bool) -> None:
    assert says(Numeric(), said, answer=["12"]) == says(Numeric(), said, answer=[12]) == [float(right)]


def test_a_number_within_a_tolerance() -> None:
    near = Numeric(absolute=0.0, relative=0.01)
    assert says(near, "99", "98.9", "101", "-100", answer=[100] * 4) == [1.0, 0.0, 1.0, 0.0]
    assert says(Numeric(absolute=0.5), "0.5", "0.6", answer=[0, 0]) == [1.0, 0.0]
    said = "3 apples and 4 pears are 7, so the answer is 7."
    assert says(Numeric(last=True), said, "none", answer=[7, 7]) == [1.0, 0.0] and says(
        Numeric(), said, answer=[7]
    ) == [0]
    for wrong in ("seven", None, True, math.inf, math.nan, [7], "9" * 5000):
        with pytest.raises(TextError, match="expected a finite number as 'answer'"):
            says(Numeric(), "7", answer=[wrong])


@pytest.mark.parametrize(
    ("right", "other"),
    [("12345678901234567890", "12345678901234567891"), (9007199254740992, "9007199254740993"), (2_000_000, "2000001"),
     ("1e-8", "1e-9"), ("1e300", "1.0000000000000001e300"), (0.1, "0.10000001"), (123456789012.3, "123456789012.4")],
)  # fmt: skip
def test_a_number_is_right_to_its_last_digit(right: object, other: str) -> None:
    reward = Numeric(absolute=1e-9 if right != "1e-8" else 0.0, last=True)
    assert says(reward, str(right), other, answer=[right] * 2) == [1.0, 0.0]


def test_numbers_too_long_to_be_read_are_wrong() -> None:
    assert says(Numeric(), "9" * 5000, answer=[9]) == says(Numeric(last=True), "9" * 5000, answer=[9]) == [0.0]


@pytest.mark.parametrize(
    ("said", "number"),
    [("it is \u22125", -5), ("GPT-4", 4), ("item-12", 12), ("7-5", 5), ("x=-4", -4), ("f(2)-3", 3), ("at -.5", -0.5),
     ("1,234", 1234), ("1,000,000 in all", 1_000_000), ("1,23", 23), ("1,2345", 2345), ("12345,678", 678),
     ("1,2,3", 3), ("2 (-3)", -3), ("so 5.", 5), ("1e3", 1000), ("2e\u22121", 0.2), ("12 apples", 12)],
)  # fmt: skip
def test_the_last_number_of_an_answer(said: str, number: float) -> None:
    assert says(Numeric(last=True), said, said, answer=[number, number + 1]) == [1.0, 0.0]
    assert says(Numeric(last=True), said, answer=[-number]) == [0.0]


def test_what_contains_the_answer() -> None:
    numbers = ["-5", "\u22125", "15.5", "5.7", "5,000", "1,5", ".5", "+5", "5e3"]
    assert says(Contains(), *numbers, answer=["5"] * len(numbers)) == [0.0] * len(numbers)
    among = ["5", "is 5.", "5, or", "(5)", "3-5", "a-5", "=5", "[5, 6]", "GPT-5", "5%"]
    assert says(Contains(), *among, answer=["5"] * len(among)) == [1.0] * len(among)
    assert says(Contains(), "-5", "3-5", "it is -5.", answer=["-5"] * 3) == [1.0, 0.0, 1.0]
    assert says(Contains(), "it is 12.", "it is 123", "x12", "12", answer=["12"] * 4) == [1.0, 0.0, 0.0, 1.0]
    assert says(Contains(), "c++", "c+++", "", answer=["c++", "c++", ""]) == [1.0, 1.0, 0.0]
    assert says(Contains(ignore_case=True), "PARIS", answer=["Paris"]) == [1.0]
    everything = " ".join(map(str, range(1000)))
    assert says(Contains(), everything, answer=["577"]) == [1.0], "who may write much names every answer"
    assert says(Contains(longest=20), everything, answer=["577"]) == [0.0]


# Sums


def test_a_sum_is_its_weighted_parts_each_asked_once() -> None:
    asked: list[str] = []

    def counting(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        asked.append(str(columns))
        return [0.5 for _ in completions]

    reward = Sum(
        (Weighted("exact", exact_match, 2.0), Weighted("own", counting), Weighted("short", Length(0, 1), -1.0))
    )
    assert isinstance(reward, InParts) and not isinstance(exact_match, InParts)
    parts = reward.parts(["", ""], ["12", "3"], answer=["12", "12"])
    assert parts == {"exact": [1.0, 0.0], "own": [0.5, 0.5], "short": [0.0, 1.0]}
    assert reward.total(parts) == says(reward, "12", "3", answer=["12", "12"]) == [2.5, -0.5]
    assert len(asked) == 2


def test_a_part_that_says_too_little_is_named() -> None:
    with pytest.raises(TextError, match="one reward for each of 2 completions from few, got 1"):
        says(Sum((Weighted("few", lambda prompts, completions, **_: [1.0]),)), "a", "b")
    for wrong in (None, math.nan, math.inf):
        with pytest.raises(TextError, match="expected finite numbers from odd"):
            says(Sum((Weighted("odd", lambda prompts, completions, wrong=wrong, **_: [wrong]),)), "a")


@pytest.mark.parametrize("wrong", [None, 1.0, "ab", {"a": 1.0}, torch.tensor(1.0), lambda: [1.0]])
def test_a_part_that_gives_no_list_is_named(wrong: Any) -> None:
    with pytest.raises(TextError, match="expected a list of numbers from odd, one for each completion, got "):
        says(Sum((Weighted("odd", lambda prompts, completions, **_: wrong),)), "a", "b")


@pytest.mark.parametrize("wrong", ["good", "1", [1.0], torch.ones(2), 1j])
def test_a_part_that_gives_no_numbers_is_named(wrong: Any) -> None:
    with pytest.raises(TextError, match=r"expected finite numbers from odd, got .* for 'a'"):
        says(Sum((Weighted("odd", lambda prompts, completions, **_: [wrong]),)), "a")


def test_numbers_may_come_as_tensors_and_errors_of_ones_own_stay_as_they_are() -> None:
    def broken(prompts: Any, completions: Any, **_: Any) -> Any:
        yield 1.0 + completions  # a mistake in the function itself

    def ones(prompts: Any, completions: Any, **_: Any) -> Any:
        return torch.ones(len(completions))

    assert says(Sum((Weighted("tensor", ones),)), "a", "b") == [1.0, 1.0]
    with pytest.raises(TypeError, match="unsupported operand"):
        says(Sum((Weighted("broken", broken),)), "a")


@pytest.mark.parametrize(
    "make",
    [lambda: Sum(()), lambda: Sum((Weighted("a", exact_match), Weighted("a", exact_match))),
     lambda: Sum((Weighted("", exact_match),)), lambda: Sum((Weighted("a", exact_match, math.nan),)),
     lambda: BLEU(max_ngram_order=0), lambda: ChrF(char_order=0), lambda: ChrF(word_order=-1), lambda: Length(3, 2),
     lambda: Length(-1), lambda: Matches("("), lambda: Distinct(0), lambda: Numeric(absolute=-1.0)],
)  # fmt: skip
def test_settings_that_cannot_be(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"^expected .*got"):
        make()


# Stages


def test_a_later_stage_pays_and_is_asked_only_where_the_earlier_is_reached() -> None:
    asked: list[list[tuple[str, str, str]]] = []

    def style(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        asked.append(list(zip(prompts, completions, columns["answer"], strict=True)))
        return [0.5 for _ in completions]

    reward = Staged(
        (
            Stage("number", Matches(r"\d+"), 0.25),
            Stage("near", Numeric(absolute=5.0), 1.0, reached=0.5),
            Stage("style", style, 2.0),
        )
    )
    said, right = ["12", "x", "40", "14"], ["12", "9", "12", "12"]
    assert isinstance(reward, InParts)
    parts = reward.parts(list("pqrs"), said, answer=right)
    assert parts == {"number": [1, 0, 1, 1], "near": [1, 0, 0, 1], "style": [0.5, 0, 0, 0.5]}
    assert reward.total(parts) == reward(list("pqrs"), said, answer=right) == [2.25, 0.0, 0.25, 2.25]
    assert asked[0] == [("p", "12", "12"), ("s", "14", "12")]
    assert reward(["q"], ["x"], answer=["9"]) == [0.0] and len(asked) == 2, "no one is left to be asked"


@given(st.lists(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), min_size=1, max_size=6))
def test_what_has_reached_more_never_earns_less_by_it(said: list[list[float]]) -> None:
    def stage(k: int) -> Stage:
        return Stage(f"stage {k}", lambda prompts, completions, **columns: list(columns[f"c{k}"]), 1.0, reached=0.5)

    columns = {f"c{k}": [row[k] for row in said] for k in range(3)}
    found = Staged((stage(0), stage(1), stage(2)))([""] * len(said), [""] * len(said), **columns)
    for row, earned in zip(said, found, strict=True):
        first = next((k for k, one in enumerate(row) if one < 0.5), 2)
        assert earned == pytest.approx(sum(row[: first + 1]))
