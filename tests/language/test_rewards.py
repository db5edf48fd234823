"""Rewards that several tasks share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.language.documents import TextError
from torchward.language.rewards import GradedMatch, exact_match
from torchward.language.task import Reward

NEARLY = [
    "",
    " 579",
    "579 ",
    "579\n",
    "\t579",
    "579\u200b",
    "0579",
    "+579",
    "579.0",
    "5_7_9",
    "0x243",
    "５７９",
    "٥٧٩",
    "579 580",
    "579=579",
    "57",
    "5799",
    "579" * 100_000,
    "9" * 1_000_000,
]


@pytest.mark.parametrize("completion", NEARLY, ids=lambda text: repr(text[:12]))
def test_only_the_answer_to_the_letter_is_right(completion: str) -> None:
    assert exact_match(["123+456="] * 2, [completion, "579"], answer=["579"] * 2) == [0.0, 1.0]


@given(answers=st.lists(st.tuples(st.text(), st.text())))
def test_each_completion_is_judged_by_its_own_answer(answers: list[tuple[str, str]]) -> None:
    said, right = [pair[0] for pair in answers], [pair[1] for pair in answers]
    earned = exact_match([""] * len(said), said, answer=right, other=right)
    assert [one == 1.0 for one in earned] == [a == b for a, b in answers]
    assert exact_match([""] * len(said), right, answer=right) == [1.0] * len(said)


@pytest.mark.parametrize("answer", [5, ["5", "five"], None])
@pytest.mark.parametrize("reward", [exact_match, GradedMatch(0.5)])
def test_what_no_text_can_be_is_said_and_not_judged(reward: Reward, answer: object) -> None:
    """An answer of 5 that is no text would be wrong for every completion, and nothing would be learnt."""
    with pytest.raises(TextError, match="expected a text as 'answer', to judge by to the letter, got"):
        reward(["2+3="] * 2, ["5"] * 2, answer=["5", answer])


def test_without_the_column_it_is_said_which_one_is_missing() -> None:
    with pytest.raises(TextError, match="expected a column 'answer' to judge by, got target"):
        exact_match(["1"], ["1"], target=["1"])
