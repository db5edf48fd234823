"""Problems as a task: what is imitated, what is held out, and how an answer is judged."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.language.letters import LETTERS, TEXTS, lengths, policy, problems, talking
from torchward.config import ConfigError
from torchward.data.sequences import Sequences
from torchward.data.texts import GroupTask, TextTask, check_whole
from torchward.language.chat import Template
from torchward.language.documents import Completion, Document, Preference, Prompt, Split, TextError
from torchward.language.play import spoken
from torchward.language.rewards import exact_match
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.language.tokenizer import Bytes, Characters
from torchward.nets.language_model import LanguageModel
from torchward.nets.spaces import Discrete


def answered(count: int = 40) -> Problems:
    """Words with their answer, and as many prompts alone."""
    documents = [Document(Completion(f"{i}=", f"{i * i}"), f"line {i}", {"weight": 0.0}) for i in range(count)] + [
        Document(Prompt(f"{i}?"), f"line {i}", {"weight": 0.0}) for i in range(count)
    ]
    return Problems("squares", documents, [], lengths, tokenizer=Characters())


def texts_of(sequences: Sequences, task: Text) -> list[tuple[str, str]]:
    """What is given in each sequence, and what is learnt."""
    made = []
    for i in range(len(sequences)):
        ids, own = sequences[i]
        first = own.index(True)
        assert all(own[first:]) and ids[-1] == task.tokenizer.eos_id and ids[0] == task.tokenizer.start_id
        made.append((task.tokenizer.decode(ids[:first]), task.tokenizer.decode(ids[first:])))
    return made


def test_a_task_of_text_speaks_the_protocols() -> None:
    task = Text(problems(), LETTERS)
    assert isinstance(task, TextTask) and isinstance(task, GroupTask)
    assert task.name == "letters" and task.max_completion_length == 6
    assert task.observation_space == task.action_space == Discrete(LETTERS.vocab_size)


def test_a_corpus_is_all_text_with_nothing_given() -> None:
    task = Text(replace(answered(), split=Split(0.3)))
    found = task.corpus()
    sides = [texts_of(side, task) for side in (found.train, found.validation)]
    assert sorted(sides[0] + sides[1]) == sorted(("", f"{i}={i * i}") for i in range(40)), "a prompt alone is no text"
    assert 4 < len(sides[1]) < 20
    assert found.vocabulary == task.tokenizer.description() and found.pad_id == task.tokenizer.pad_id
    assert found.vocab_size == task.tokenizer.vocab_size
    assert found.bytes_of.tolist() == [len(task.tokenizer.bytes_of(i)) for i in range(found.vocab_size)]
    words = [Document(word, word) for word in ["one", "two", "three", "four", "five"]]
    own = Text(replace(answered(), corpus=words, split=Split(0.5)))
    assert sum(len(side) for side in (own.corpus().train, own.corpus().validation)) == 5


def test_of_demonstrations_the_answers_are_learnt() -> None:
    task = Text(replace(answered(), split=Split(0.3)))
    found = task.demonstrations()
    sides = [texts_of(side, task) for side in (found.train, found.validation)]
    assert sorted(sides[0] + sides[1]) == sorted((f"{i}=", f"{i * i}") for i in range(40))
    asked = [{given for given, _ in side} for side in sides]
    assert not asked[0] & asked[1]
    with pytest.raises(TextError, match="expected answers to learn from in letters, got prompts alone"):
        Text(problems(), LETTERS).demonstrations()


def test_what_is_passed_over_is_told_and_where() -> None:
    """Prompts alone are there to be answered; a text among answers, and an answer among pairs, may be a mistake."""
    assert not Text(answered()).demonstrations().left_out
    text, rated = Document("9=81", "line 90"), Document(Completion("9=", "81"), "line 91", {"label": True})
    bad = Document(Completion("9=", "80"), "line 92", {"label": False})
    pair = Document(Preference("9=", "81", "80"), "line 93")
    some = replace(answered(20), train=[*answered(20).train, text], split=Split(0.3))
    told = Text(some).demonstrations().left_out
    assert told == "1 of 41 documents have no answer to imitate and are passed over, line 90 for one"

    def of(*documents: Document) -> Text:
        return Text(Problems("nines", documents, documents, exact_match, tokenizer=Characters()))

    assert (
        not of(bad, rated, pair).judgements().left_out
        and not of(pair, Document(Prompt("9="), "")).preferences().left_out
    )
    assert of(pair, rated, text).judgements().left_out.startswith("2 of 6 documents have no label and are passed over")
    assert of(pair, rated, text).preferences().left_out == (
        "4 of 6 documents are no pairs and are passed over, line 91 for one"
    )
    assert of(pair, rated, bad).demonstrations().left_out.startswith("2 of 6 documents have no answer to imitate")


def test_few_answers_of_which_none_is_held_out_are_parted_all_the_same() -> None:
    """Most lines are prompts, and the split left no answer to validate on: it is not asked the same once more."""
    split = Split(0.2)
    asked = [Document(Prompt(f"{i}="), f"line {i}") for i in range(300)]
    shown = [Document(Completion(f"{i}=", "1"), f"line {i}") for i in range(300, 600)]
    shown = [each for each in shown if not split.validates(each)][:30]
    train, test = split([*asked, *shown])
    assert not any(isinstance(each.content, Completion) for each in test)
    found = Text(Problems("few", train, test, exact_match, tokenizer=Characters(), split=split)).demonstrations()
    assert len(found.train) + len(found.validation) == 30 and len(found.validation) >= 2


def test_both_sides_of_a_pair_validate_together() -> None:
    pairs = [Document(Preference("", f"{i} yes", f"{i} no"), f"line {i}") for i in range(40)]
    made = Text(Problems("pairs", pairs, [], exact_match, tokenizer=Characters(), split=Split(0.3)))
    sides = [[each.origin for each in side] for side in made.rated_sides()]
    assert not set(sides[0]) & set(sides[1]) and all(side.count(each) == 2 for side in sides for each in side)


def test_documents_that_say_nothing_are_not_read() -> None:
    words = [Document(word, word) for word in ["one", "two", " \n", "four", "", "six"]]
    sides = Text(replace(answered(), corpus=words, split=Split(0.5))).corpus_sides()
    assert sorted(each.text for side in sides for each in side) == ["four", "one", "six", "two"]


def test_a_text_that_no_row_holds_is_told_by_where_it_stands() -> None:
    long = Document(Completion("7=", "4" + 30 * "9"), "line 97")
    for split in (Split(0.3), Split(0.3, salt="other"), Split(0.3, salt="third")):
        texts = Text(replace(answered(20), train=[*answered(20).train, long], split=split)).demonstrations()
        check_whole(texts, 34)
        with pytest.raises(ConfigError, match=r"of at most 34 tokens, .* got 35 in line 97: raise max_length to 34"):
            check_whole(texts, 33)
        with pytest.raises(ConfigError, match=r"got 35 in sequence \d+: raise"):
            check_whole(replace(texts, origins=((), ())), 33)


def test_the_tokenizer_is_the_policys_or_made_of_the_text() -> None:
    task = Text(answered())
    assert task.tokenizer.decode(task.tokenizer.encode("10=100")) == "10=100"
    with pytest.raises(TextError, match="expected one of the"):
        task.tokenizer.encode("?")
    template = Template("abc")
    of = LanguageModel(policy().body, LETTERS.description())
    same = Text(replace(answered(), split=Split(0.5)), Bytes().build(()), template).using(of)
    assert same.tokenizer.description() == LETTERS.description()
    assert (same.template, same.split, same.problems.name) == (template, Split(0.5), "squares")


def test_each_held_out_prompt_is_asked_once() -> None:
    asked: list[str] = []

    def metric(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        asked.extend(prompts)
        return [float(len(completion)) for completion in completions]

    made = replace(problems(metric=metric), test=problems().train)
    task, of = Text(made, LETTERS), policy()
    judged = task.evaluate(of, 100, 0)
    assert sorted(asked) == sorted(TEXTS)
    assert len(judged.returns) == len(judged.lengths) == len(TEXTS)
    other = task.evaluate(of, 100, 1)
    assert sorted(other.lengths) == sorted(judged.lengths), "the likeliest, whatever the seed is"
    subsets = set()
    for seed in range(5):
        asked.clear()
        found = task.evaluate(of, 4, seed)
        assert len(found.returns) == len(set(asked)) == 4
        subsets.add(tuple(asked))
        assert found == task.evaluate(of, 4, seed), "the likeliest, each time"
    assert len(subsets) == 5
    by_reward = Text(replace(made, metric=None), LETTERS).evaluate(of, 100, 0)
    weights = {text: 100.0 * i for i, text in enumerate(TEXTS)}
    asked.clear()
    again = task.evaluate(of, 100, 0)
    for reward, length, prompt in zip(by_reward.returns, again.returns, asked, strict=True):
        assert reward == length + weights[prompt]


def test_answers_may_be_drawn_for_an_evaluation() -> None:
    task, of = Text(replace(problems(), test=problems().train), LETTERS), policy()
    state = torch.random.get_rng_state()
    first, same, other = (task.evaluate(of, 100, seed, deterministic=False) for seed in (1, 1, 2))
    assert first == same and sorted(first.lengths) != sorted(other.lengths)
    assert torch.equal(torch.random.get_rng_state(), state), "nothing else is drawn from"


def test_in_turns_an_evaluation_is_the_sum_of_rewards() -> None:
    made = talking(max_completion_length=5)
    task, of = Text(replace(made, test=made.train), LETTERS), policy(ends=2.0)
    found = task.evaluate(of, 100, 0)
    paid = Text(replace(made, test=made.train, reward=lambda prompts, completions, **_: [0.0] * 7), LETTERS)
    partners = paid.evaluate(of, 100, 0)
    assert partners.lengths == found.lengths and max(found.lengths) > 5, "some speak twice"
    assert sum(partners.returns) > 0.0 and all(a < b for a, b in zip(partners.returns, found.returns, strict=True))


def test_a_source_is_as_the_task_says() -> None:
    task = Text(talking(max_completion_length=2), LETTERS, Template("h"))
    source = task.source(6, 3, num_generations=2, slots=2)
    rollout = source.collect(policy(), None)
    assert isinstance(rollout.context["group"], torch.Tensor) and rollout.context["group"].tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert all(line.ids[2:3] == LETTERS.encode("h") for line in source.lines)
    with pytest.raises(ConfigError, match="multiple of num_generations=4"):
        task.source(6, 3, num_generations=4)


def test_a_prompt_in_other_characters_is_told_with_its_place() -> None:
    asked = [Document(Prompt("Q="), "asked.jsonl:3")]
    task = Text(replace(problems(), train=asked, test=asked), LETTERS)
    with pytest.raises(TextError, match=r"built from in asked\.jsonl:3, got 'Q': a model that a run begins from"):
        task.source(1, 0).collect(policy(), None)


def test_who_is_no_language_model_is_not_judged() -> None:
    with pytest.raises(TypeError, match="expected a LanguageModel to judge, got list"):
        Text(problems(), LETTERS).evaluate([], 1, 0)  # type: ignore[arg-type]


def test_a_token_without_text_within_an_answer_is_seen_by_who_judges_it() -> None:
    """Else `ba` and padding until the length ends would be a right `ba`, and be learnt."""
    tokenizer = LETTERS
    said = tokenizer.encode("ba")
    assert spoken(tokenizer, [*said, tokenizer.eos_id]) == "ba" == tokenizer.decode([*said, tokenizer.pad_id])
    for silent in (tokenizer.pad_id, tokenizer.role_id("user")):
        heard = spoken(tokenizer, [*said, silent, silent])
        assert heard == "ba\ufffd\ufffd"
        assert exact_match(["ab="], [heard], answer=["ba"]) == [0.0]


def test_a_reward_is_told_all_that_was_said() -> None:
    """An untrained policy says special tokens as often as others."""
    heard = list[str]()

    def reward(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        heard.extend(completions)
        return [0.0] * len(prompts)

    Text(problems(reward=reward), LETTERS).source(8, 0).collect(policy(ends=0.0), None)
    assert heard and any("\ufffd" in each for each in heard)


@pytest.mark.parametrize("margin", ["big", float("nan"), float("inf"), True])
def test_a_margin_that_is_no_number_is_told_with_its_line(margin: Any) -> None:
    pair = Document(Preference("2", "4", "5"), "pairs.jsonl:7", {"margin": margin})
    made = Problems("pairs", [pair], [pair], reward=lambda *_, **__: [], tokenizer=Bytes())
    with pytest.raises(TextError, match=r"expected a finite number as margin at pairs\.jsonl:7, got"):
        Text(made).preferences()


def test_a_margin_is_kept_and_none_is_0() -> None:
    said = [Document(Preference("2", "4", "5"), "pairs.jsonl", columns) for columns in ({"margin": 2}, {})]
    found = Text(Problems("pairs", said, said, reward=lambda *_, **__: [], tokenizer=Bytes())).preferences()
    assert found.train.margin.tolist() == [2.0, 0.0]
