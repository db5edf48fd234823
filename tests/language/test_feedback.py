"""Feedback as a corpus: what a judgement says, what says nothing, and what fine-tuning imitates of it."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import torchward
from tests.serve.places import policy
from torchward.language.chat import encode, encode_pair
from torchward.language.corpus import FeedbackFile
from torchward.language.documents import Completion, Content, Document, Message, Preference, Prompt, TextError, imitated
from torchward.language.generate import generate, stream
from torchward.language.text_task import rated
from torchward.language.tokenizer import Characters, described
from torchward.nets import saving
from torchward.run import RunOptions
from torchward.serve.store import Comparison, Rating, Store
from torchward.tasks import find

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "so?"}]
WORDS = (Message("system", "Be brief."), Message("user", "so?"))


def written(path: Path, *judgements: Comparison | Rating) -> FeedbackFile:
    store = Store(path, "runs/test", {})
    for judgement in judgements:
        assert store.add(judgement)
    store.close()
    return FeedbackFile(path)


def comparison(number: int, choice: Any, prompt: Any = ASKED, a: str = "yes", b: str = "no") -> Comparison:
    return Comparison(f"comparison-{number}", "session", prompt, a, b, choice, "b")


def rating(number: int, scale: Any, value: int, prompt: Any = ASKED) -> Rating:
    return Rating(f"rating-{number}", "session", prompt, f"answer {number}", scale, value)


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def test_of_an_answer_that_its_length_cut_no_end_is_learnt(tmp_path: Path) -> None:
    corpus = written(
        tmp_path / "feedback.db",
        Comparison("comparison-1", "s", "so?", "yes", "no\ufffd", "a", "b", ("b",)),
        Comparison("comparison-2", "s", ASKED, "yes", "no", "b", "b", ("b",)),
        Rating("rating-1", "s", "so?", "maybe", "thumbs", 1, ("a",)), Rating("rating-2", "s", ASKED, "no", "thumbs", 1),
        Rating("rating-3", "s", ASKED, "perhaps", "thumbs", 1, ("a",)),
    )  # fmt: skip
    documents = list(corpus.documents())
    assert [each.content for each in documents] == [
        Preference("so?", "yes", "no", (False, True)),
        Preference(WORDS, said("no"), said("yes"), (True, False)),
        Completion("so?", "maybe", True),
        Completion(WORDS, said("no")),
        Completion(WORDS, said("perhaps"), True),
    ]
    words = Characters().build(["so?Bebrif.yesnomaybeperhaps "])
    for document in documents:
        pairs = encode_pair(document, words) if isinstance(document.content, Preference) else None
        sequences = [encode(document, words)[0]] if pairs is None else list(pairs)
        content: Any = document.content
        cuts = [content.cut] if pairs is None else list(content.cut)
        answers = [content.completion] if pairs is None else [content.chosen, content.rejected]
        for sequence, cut, answer in zip(sequences, cuts, answers, strict=True):
            assert sequence is not None
            text = answer if isinstance(answer, str) else answer[0].content
            learnt = [id_ for id_, own in zip(sequence.ids, sequence.own, strict=True) if own]
            assert learnt == [*words.encode(text), *([] if cut else [words.eos_id])] and sequence.own[-1]
        for shown in [one for one in (imitated(document),) if one is not None]:
            assert isinstance(shown.content, Completion) and shown.content.cut == cuts[0]
    assert [each.content.cut for each in rated(documents)[:4]] == [False, True, True, False]  # type: ignore[union-attr]


def test_what_a_model_writes_says_whether_it_was_cut() -> None:
    model = policy()
    tokenizer = described(model.vocabulary, "the policy")
    for longest in (1, 3, 20):
        pieces = stream(model, tokenizer, [tokenizer.start_id], max_new_tokens=longest)
        ended = None
        while ended is None:
            try:
                next(pieces)
            except StopIteration as end:
                ended = end.value
        done = generate(model, [[tokenizer.start_id]], eos_id=tokenizer.eos_id, max_new_tokens=longest)
        assert ended == bool(done.ended[0])


def test_judgements_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "feed back?#1.db"  # a name that an address would have to quote
    corpus = written(
        path,
        rating(0, "thumbs", 1), comparison(0, "a"), comparison(1, "tie"), rating(1, "thumbs", 0), comparison(2, "b"),
        comparison(3, "a", "once"), comparison(4, "a", a="equal", b="equal"),
        comparison(5, "b", a="", b="\0 <b>\u2028"),
        *(rating(2 + stars, "stars", stars) for stars in range(1, 6)),
    )  # fmt: skip
    before = path.read_bytes()
    found = list(corpus.documents())
    assert [(each.content, dict(each.columns)) for each in found] == [
        (Preference(WORDS, said("yes"), said("no")), {}),
        (Preference(WORDS, said("no"), said("yes")), {}),
        (Preference("once", "yes", "no"), {}),
        (Preference(WORDS, said("\0 <b>\u2028"), said("")), {}),
        (Completion(WORDS, said("answer 0")), {"label": True}),
        (Completion(WORDS, said("answer 1")), {"label": False}),
        (Completion(WORDS, said("answer 3")), {"label": False}),
        (Completion(WORDS, said("answer 4")), {"label": False}),
        (Completion(WORDS, said("answer 6")), {"label": True}),
        (Completion(WORDS, said("answer 7")), {"label": True}),
    ]
    assert found[0].origin == f"{path}, comparison comparison-0"
    assert found[-1].origin == f"{path}, rating rating-7"
    assert path.read_bytes() == before


def test_what_is_no_feedback_is_told(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(TextError) as error:
            list(FeedbackFile(path).documents())
        return str(error.value)

    assert "got nothing" in refused(tmp_path / "nowhere.db")
    assert "got a folder" in refused(tmp_path)
    (tmp_path / "text.db").write_text("no database" * 100)
    assert "file is not a database" in refused(tmp_path / "text.db")
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    assert "no such table: comparisons" in refused(tmp_path / "empty.db")
    assert "got 2 that say nothing" in refused(
        written(tmp_path / "ties.db", comparison(0, "tie"), rating(0, "stars", 3)).path
    )


@pytest.mark.parametrize(
    ("table", "values", "sentence"),
    [
        ("comparisons", ("x", "{", "a", "b", "a"), "expected a prompt as JSON at .*, comparison x"),
        ("comparisons", ("x", "7", "a", "b", "a"), "expected a text or a list of messages"),
        ("comparisons", ("x", '[{"role": "god", "content": ""}]', "a", "b", "a"), "expected a role"),
        ("comparisons", ("x", "[" * 100_000, "a", "b", "a"), "expected a prompt as JSON"),
        ("comparisons", ("x", '"so?"', b"a", "b", "a"), "expected an answer as text"),
        ("comparisons", ("x", '"so?"', "a", "b", "left"), "expected a choice of a, b or tie"),
        ("ratings", ("x", '"so?"', "a", "stars", 7), "expected thumbs of 0 or 1"),
        ("ratings", ("x", '"so?"', "a", "thumbs", "1"), "expected thumbs of 0 or 1"),
        ("ratings", ("x", '"so?"', "a", "thumbs", 1, "[]"), "expected options as a JSON object at .*, rating x"),
        ("comparisons", ("x", '"so?"', "a", "b", "a", None), "expected options as a JSON object"),
    ],
)
def test_a_row_that_somebody_else_wrote_is_looked_at(
    tmp_path: Path, table: str, values: tuple[Any, ...], sentence: str
) -> None:
    path, options = tmp_path / "foreign.db", ("{}",) if len(values) == 5 else ()
    with sqlite3.connect(path) as rows:
        rows.execute("CREATE TABLE comparisons (id, prompt, a, b, choice, options)")
        rows.execute("CREATE TABLE ratings (id, prompt, answer, scale, value, options)")
        rows.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)", (*values, *options))
    rows.close()
    with pytest.raises(TextError, match=sentence):
        list(FeedbackFile(path).documents())


def test_what_of_a_document_is_imitated() -> None:
    ask, yes, no = (Message("user", "so?"),), said("yes"), said("no")
    pairs: list[tuple[Content, Content | None]] = [
        (Completion("so?", "yes"), Completion("so?", "yes")),
        (Preference("so?", "yes", "no"), Completion("so?", "yes")),
        (Preference("", "yes", "no"), Completion("", "yes")),
        (Preference(ask, yes, no), Completion(ask, yes)),
        (Preference("", ask + yes, ask + no), Completion(ask, yes)),
        (Preference("", ask + yes, ask + yes), None),
        (Prompt("so?"), None),
        ("a text", None),
    ]
    for content, wanted in pairs:
        found = imitated(Document(content, "here", {"weight": 2}))
        assert (found and found.content) == wanted
        assert found is None or (found.origin, found.columns) == ("here", {"weight": 2})
    for label, kept in [(False, False), (True, True), (0, True), ("no", True), (None, True)]:
        found = imitated(Document(Completion("so?", "yes"), "here", {"label": label}))
        assert (found is not None) == kept, "a label is False, or it is some other column of that name"


def test_fine_tuning_imitates_what_was_chosen_and_nothing_that_was_not(tmp_path: Path) -> None:
    def ask(number: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"question {number}"}]

    path = written(
        tmp_path / "feedback.db",
        *(comparison(i, "ab"[i % 2], ask(i), *(("good", "wrong"), ("wrong", "good"))[i % 2]) for i in range(40)),
        *(Rating(f"rating-{i}", "s", ask(i), "wrong" if i % 2 else "good", "thumbs", 1 - i % 2) for i in range(40, 80)),
    ).path
    task = find.task(str(path)).task
    learnt = task.demonstrations()
    counts = []
    for side in (learnt.train, learnt.validation):
        for number in range(len(side)):
            ids, own = side[number]
            assert task.tokenizer.decode([id_ for id_, mine in zip(ids, own, strict=True) if mine]) == "good"
        counts.append(len(side))
    assert sum(counts) == 60 and min(counts) > 0


def test_a_model_is_tuned_on_feedback_and_talks_as_it_was_shown(tmp_path: Path) -> None:
    path = written(
        tmp_path / "feedback.db",
        *(comparison(i, "a", [{"role": "user", "content": f"{i}?"}]) for i in range(30)),
    ).path
    saving.save(policy(), tmp_path / "model")
    tuned = torchward.train(
        "sft", str(path), path=tmp_path / "tuned", init=tmp_path / "model", total_timesteps=2_000, max_length=64,
        options=RunOptions(tensorboard=False, progress=False),
    )  # fmt: skip
    rows = [json.loads(line) for line in (tuned.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] >= 2_000
    from torchward.cli.chat import learnt_messages

    assert learnt_messages(tuned.path)


def test_preferences_and_judgements_are_those_of_the_people(tmp_path: Path) -> None:
    def ask(number: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"question {number}"}]

    path = written(
        tmp_path / "feedback.db",
        *(comparison(i, "ab"[i % 2], ask(i), *(("good", "wrong"), ("wrong", "good"))[i % 2]) for i in range(40)),
        *(rating(i, "stars", 1 + 4 * (i % 2), ask(i)) for i in range(40, 60)),
        *(comparison(i, "tie", ask(i)) for i in range(60, 70)),
    ).path
    task = find.task(str(path)).task

    def own(sequences: Any) -> list[str]:
        rows = (sequences[i] for i in range(len(sequences)))
        return [task.tokenizer.decode([i for i, mine in zip(ids, own, strict=True) if mine]) for ids, own in rows]

    pairs, judged = task.preferences(), task.judgements()
    assert len(pairs.train) + len(pairs.validation) == 40
    for side in (pairs.train, pairs.validation):
        assert set(own(side.chosen)) == {"good"} and set(own(side.rejected)) == {"wrong"}
    told = [
        pair
        for side in (judged.train, judged.validation)
        for pair in zip(own(side.answers), side.desirable.tolist(), strict=True)
    ]
    answers = [(f"answer {i}", i % 2 == 1) for i in range(40, 60)]
    assert sorted(told) == sorted([("good", True), ("wrong", False)] * 40 + answers)


def test_answers_that_are_all_wrong_are_not_imitated(tmp_path: Path) -> None:
    path = written(
        tmp_path / "feedback.db",
        *(rating(i, "thumbs", 0, [{"role": "user", "content": f"{i}?"}]) for i in range(30)),
    ).path
    with pytest.raises(TextError, match="all labelled False"):
        find.task(str(path)).task.demonstrations()
