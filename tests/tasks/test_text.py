"""The tuned settings of the tasks of text: what one algorithm leaves behind is what the next one begins from."""

import pytest

from torchward import launch
from torchward.tasks import find, text

OF_TEXT = ("pretrain", "sft", "grpo", "ppo", "expert_iteration")


@pytest.mark.parametrize("task", sorted({task for _, task in text.PRESETS} - {"python_topics"}))
def test_every_algorithm_is_told_the_same_of_a_task(task: str) -> None:
    """Else what one learns from is what another is judged by."""
    told = [launch.defaults(find.algorithm(algorithm), task).env for algorithm in OF_TEXT]
    assert told == [told[0]] * len(OF_TEXT)


@pytest.mark.parametrize(("algorithm", "task"), text.PRESETS)
def test_tuned_settings_fit_their_task(algorithm: str, task: str) -> None:
    """No answer is cut by the settings, and every row that is learnt from has room for its question."""
    start = launch.defaults(find.algorithm(algorithm), task)
    made = find.task(task, start.env).task
    if algorithm == "ppo" and made.problems.turns == 1:
        assert start.config.n_steps >= made.max_completion_length
    if algorithm in ("sft", "expert_iteration"):
        longest = max(len(made.tokenizer.encode(each.text)) for each in made.problems.demonstrations)
        assert start.config.max_length >= longest + 2
