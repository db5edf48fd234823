"""Rewards by settings: from the command line's names to a sum, and a function of the user's own from its file."""

import json
from pathlib import Path
from typing import Any

import pytest

import torchward
from torchward.cli import main
from torchward.config import ConfigError, from_json, to_json
from torchward.fields import change
from torchward.language.documents import TextError
from torchward.language.reward_sum import Sum
from torchward.language.rewards import exact_match
from torchward.run import RunOptions
from torchward.tasks import find, texts
from torchward.tasks.find import LaunchError
from torchward.tasks.reward_options import RewardOptions, own_reward

QUIET = RunOptions(tensorboard=False, progress=False, eval_freq=-1)

OWN = """
def vowels(prompts, completions, **columns):
    return [float(sum(c in "aeiou" for c in said)) for said in completions]

def reward(prompts, completions, completion, **columns):
    return [float(said == right) for said, right in zip(completions, completion)]

number = 3
"""


def pairs(path: Path) -> Path:
    lines = [{"prompt": f"{a}{b}=", "completion": f"{b}{a}"} for a in "abcdef" for b in "abcdef"]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def judged(options: RewardOptions, *said: str, **columns: Any) -> dict[str, list[float]]:
    reward = options.build()
    assert isinstance(reward, Sum)
    return reward.parts([""] * len(said), said, **columns)


def test_without_settings_it_is_the_answer_to_the_letter() -> None:
    assert RewardOptions().build() is exact_match
    assert RewardOptions(reward_weight=3.0, length_most=5, pattern_weight=2.0).build() is exact_match


def test_a_column_that_is_named_is_what_it_is_judged_by() -> None:
    reward = RewardOptions(reference_column="solution").build()
    assert reward(["", ""], ["3", "4"], solution=["3", "3"], answer=["4", "4"]) == [1.0, 0.0]


def test_every_part_is_built_by_its_weight() -> None:
    every = RewardOptions(
        exact_weight=1, numeric_weight=2, contains_weight=3, bleu_weight=4, chrf_weight=5, rouge_weight=6,
        rouge_kind="rouge1", distinct_weight=7, distinct_n=1, length_weight=8, length_most=6, length_margin=4,
        json_weight=9, json_keys=("a",), pattern=r"\d+ \d+", pattern_weight=-1,
    )  # fmt: skip
    reward = every.build()
    assert isinstance(reward, Sum)
    assert {part.name: part.weight for part in reward.terms} == {
        "exact": 1, "numeric": 2, "contains": 3, "bleu": 4, "chrf": 5, "rouge": 6, "distinct": 7, "length": 8,
        "json": 9, "pattern": -1,
    }  # fmt: skip
    said = judged(every, "12 12", '{"a": 12}', answer=["12", "12"])
    assert said["exact"] == [0.0, 0.0] and said["numeric"] == said["contains"] == [1.0, 1.0]
    assert said["rouge"] == pytest.approx([2 / 3, 2 / 3]) and said["distinct"] == [0.5, 1.0]
    assert said["length"] == [1.0, 0.25] and said["json"] == [0.0, 1.0] and said["pattern"] == [1.0, 0.0]


def test_the_names_of_the_command_line() -> None:
    options = change(texts.Options(), {"chrf_weight": 1, "length_weight": 0.2, "length_most": 80, "json_keys": ["a"]})
    assert options.rewards == RewardOptions(chrf_weight=1.0, length_weight=0.2, length_most=80, json_keys=("a",))
    assert from_json(texts.Options, to_json(options)) == options
    with pytest.raises(ConfigError, match=r"'chrf_weigth'.*Did you mean 'chrf_weight'"):
        change(texts.Options(), {"chrf_weigth": 1})


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(OWN)
    assert judged(RewardOptions(f"{own}:vowels", 0.5), "abe") == {"own": [2.0]}
    assert judged(RewardOptions(str(own)), "ab", completion=["ab"]) == {"own": [1.0]}
    with pytest.raises(LaunchError, match=r"nothing called 'vowel'.*Did you mean 'vowels'"):
        own_reward(f"{own}:vowel")
    with pytest.raises(LaunchError, match=r"there is no file .*to take a reward from"):
        own_reward(str(tmp_path / "other.py"))
    with pytest.raises(ConfigError, match=r"expected a function reward\(prompts, completions, \*\*columns\)"):
        own_reward(f"{own}:number")


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        ("def reward(prompts): return 1", r"got reward\(prompts\) \(too many"),
        ("def reward(completions, **kwargs): return 1", r"got reward\(completions, \*\*kwargs\) \(too many"),
        ("def reward(completions, prompts, **kwargs): return 1", r"the prompts come first"),
        ("class reward:\n  def __init__(self, *args, **columns): pass", r"got <class 'torchward_user_mine_.*reward'>"),
    ],
)
def test_a_function_that_cannot_be_asked(tmp_path: Path, mine: str, message: str) -> None:
    (own := tmp_path / "mine.py").write_text(mine)
    with pytest.raises(ConfigError, match=rf"expected a function reward\(prompts, completions, .* {message}"):
        own_reward(str(own))


@pytest.mark.parametrize(
    "head",
    [
        "prompts, completions, *, answer, **rest", "*args, **columns", "a, b, answer, c=1", "a, b",
        "a, b, *, other=None", "*args, answer",
    ],
)  # fmt: skip
def test_a_function_that_names_what_it_reads(tmp_path: Path, head: str) -> None:
    (own := tmp_path / "mine.py").write_text(f"def reward({head}): return [1.0, 2.0]")
    assert judged(RewardOptions(str(own)), "a", "b", answer=["", ""], label=[1, 2]) == {"own": [1.0, 2.0]}


@pytest.mark.parametrize(
    "made",
    [
        "type('R', (), {'__call__': lambda self, a, b, answer: [3.0]})()",
        "partial(lambda a, b, scale: [scale], scale=3.0)",
    ],
)
def test_what_is_called_as_a_function_is_one(tmp_path: Path, made: str) -> None:
    (own := tmp_path / "mine.py").write_text(f"from functools import partial\nreward = {made}")
    assert judged(RewardOptions(str(own)), "a", answer=[""], label=[1]) == {"own": [3.0]}


def test_a_function_is_given_the_columns_that_it_names(tmp_path: Path) -> None:
    (own := tmp_path / "mine.py").write_text("def reward(a, b, size, more=(7,)): return [size[0] + more[0]]")
    assert judged(RewardOptions(str(own)), "a", size=[1], label=[5]) == {"own": [8.0]}
    assert judged(RewardOptions(str(own)), "a", size=[1], more=[2]) == {"own": [3.0]}
    with pytest.raises(TextError, match="expected a column 'size' to judge by, got sise"):
        judged(RewardOptions(str(own)), "a", sise=[1])


def test_a_file_that_is_no_python(tmp_path: Path) -> None:
    (own := tmp_path / "mine.py").write_text("import json\ndef reward(:\n")
    with pytest.raises(LaunchError, match=r"expected Python in .*mine.py, to take a reward from, got .* at line 2$"):
        own_reward(str(own))
    own.write_text("compile('def', 'elsewhere', 'exec')")
    with pytest.raises(SyntaxError):  # an error of the code in it keeps its traceback
        own_reward(str(own))


def test_paths_outlast_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lasting = find.lasting(texts.Options(rewards=RewardOptions("./mine.py:vowels", similarity_model="runs/base")))
    assert lasting.rewards.reward_function == f"{tmp_path}/mine.py:vowels"
    assert lasting.rewards.similarity_model == str(tmp_path / "runs" / "base")
    assert RewardOptions("./mine.py").lasting().reward_function == str(tmp_path / "mine.py")
    assert RewardOptions().lasting() == RewardOptions()


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="expected similarity_model"):
        RewardOptions(similarity_weight=1.0)
    with pytest.raises(ConfigError, match="expected length_most or length_least"):
        RewardOptions(length_weight=1.0)


def test_from_a_command_to_a_run_with_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    file = pairs(tmp_path / "pairs.jsonl")
    torchward.train(
        "pretrain", str(file), path=tmp_path / "base", options=QUIET, total_timesteps=2048, hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, max_length=32, tokenizer="characters",
    )  # fmt: skip
    wrong = "train grpo ./pairs.jsonl --init base --path tuned --answer-length 6 --total-timesteps 400 --no-progress"
    assert main(wrong.split()) == 2
    told = capsys.readouterr().err
    assert "expected a column 'answer'" in told and "the run failed" not in told and not (tmp_path / "tuned").exists()
    command = (
        "train grpo ./pairs.jsonl --init base --path tuned --reward-function ./mine.py:vowels --chrf-weight 2 "
        "--length-weight 0.5 --length-most 3 --similarity-weight 1 --similarity-model base --answer-length 6 "
        "--kl-budget 100 --total-timesteps 400 --no-tensorboard --no-progress --checkpoint-freq 200 --eval-freq -1"
    )
    assert main(command.split()) == 0, capsys.readouterr()
    rows = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        parts = {name: row[f"reward/{name}"] for name in ("own", "chrf", "length", "similarity")}
        total = parts["own"] + 2.0 * parts["chrf"] + 0.5 * parts["length"] + parts["similarity"]
        assert row["reward"] == pytest.approx(total, abs=1e-4) and row["beta"] == 0.0 and row["warnings"] >= 0.0
    monkeypatch.chdir("/")  # a run is resumed from anywhere
    torchward.resume(tmp_path / "tuned")
    assert main(["train", "sft", str(file), "--init", str(tmp_path / "base"), "--kl-budget", "3"]) != 0
    assert "sft takes no kl_budget" in capsys.readouterr().err
