"""Chats: the mask is what the assistant said and its end, a prompt is a prefix, and nothing is cut in silence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.data.sequences import TokenSequence
from torchward.language.bpe import BPE
from torchward.language.chat import (
    CutEnd,
    CutStart,
    Refuse,
    Skip,
    Template,
    Truncation,
    encode,
    encode_all,
    encode_pair,
    learnt_bytes,
)
from torchward.language.documents import (
    ROLES,
    Completion,
    Content,
    Dialogue,
    Document,
    Message,
    Preference,
    Prompt,
    TextError,
    Words,
)
from torchward.language.tokenizer import Bytes, Characters, TextTokenizer

BYTES = Bytes().build([])
PAIRS = BPE(300).build(["the cat sat on the mat, the cat ate the rat"] * 3)
messages = st.builds(Message, st.sampled_from(ROLES), st.text(max_size=8))
chats = st.lists(messages, max_size=6).map(tuple)
tokenizers = st.sampled_from([BYTES, PAIRS])


def user(words: str) -> Message:
    return Message("user", words)


def assistant(words: str) -> Message:
    return Message("assistant", words)


def learnt(sequence: TokenSequence, tokenizer: TextTokenizer) -> list[bytes]:
    """What a mask covers: one entry for each answer, which must be unbroken and end with end-of-text."""
    answers, current = [], b""
    for place, (token, own) in enumerate(zip(sequence.ids, sequence.own, strict=True)):
        if own and token == tokenizer.eos_id:
            answers.append(current)
            current = b""
        elif own:
            assert sequence.own[place - 1] or sequence.ids[place - 1] == tokenizer.role_id("assistant")
            current += tokenizer.bytes_of(token)
        else:
            assert not current
    assert not current
    return answers


def one(content: Content, *, tokenizer: TextTokenizer = BYTES, **options: int | Truncation | None) -> TokenSequence:
    sequence, cut = encode(Document(content, "here"), tokenizer, **options)  # type: ignore[arg-type]
    assert sequence is not None and cut is None
    return sequence


@given(before=chats, said=st.text(max_size=8), after=chats, tokenizer=tokenizers)
def test_the_mask_is_what_the_assistant_said(
    before: tuple[Message, ...], said: str, after: tuple[Message, ...], tokenizer: TextTokenizer
) -> None:
    chat = (*before, assistant(said), *after)
    sequence = one(Dialogue(chat), tokenizer=tokenizer)
    assert learnt(sequence, tokenizer) == [m.content.encode() for m in chat if m.role == "assistant"]
    assert tokenizer.decode(sequence.ids) == "".join(m.content for m in chat)
    assert tokenizer.pad_id not in sequence.ids
    assert [token for token in sequence.ids if token > tokenizer.pad_id] == [tokenizer.role_id(m.role) for m in chat]


@given(before=chats, said=st.text(max_size=8), tokenizer=tokenizers)
def test_of_a_prompt_in_messages_nothing_is_learnt(
    before: tuple[Message, ...], said: str, tokenizer: TextTokenizer
) -> None:
    content = Completion((*before, assistant("?")), (assistant(said), Message("tool", "4"), assistant("!")))
    for template in (Template(), Template("Be brief.")):
        sequence, _ = encode(Document(content, "here"), tokenizer, template)
        assert sequence is not None and learnt(sequence, tokenizer) == [said.encode(), b"!"]


@given(before=chats, said=st.text(max_size=8), system=st.none() | st.text(max_size=4), tokenizer=tokenizers)
def test_what_is_prompted_and_sampled_is_what_is_learnt(
    before: tuple[Message, ...], said: str, system: str | None, tokenizer: TextTokenizer
) -> None:
    """The prompt, the answer's own tokens and end-of-text are the sequence, token for token."""
    template, prompt = Template(system), (*before, user("?"))
    sampled = [*tokenizer.encode(said), tokenizer.eos_id]
    chat = Document(Completion(prompt, (assistant(said),)), "here")
    sequence, _ = encode(chat, tokenizer, template)
    assert sequence is not None
    asked = template.prompt(prompt, tokenizer)
    assert list(sequence.ids) == asked + sampled
    assert list(sequence.own) == [False] * len(asked) + [True] * len(sampled)


@given(prompt=st.text(max_size=8), said=st.text(max_size=8), tokenizer=tokenizers)
def test_plain_prompts_and_answers(prompt: str, said: str, tokenizer: TextTokenizer) -> None:
    sequence, asked = one(Completion(prompt, said), tokenizer=tokenizer), Template().prompt(prompt, tokenizer)
    assert list(sequence.ids) == [*asked, *tokenizer.encode(said), tokenizer.eos_id]
    assert list(sequence.own) == [place >= len(asked) for place in range(len(sequence.ids))]
    text = one(prompt, tokenizer=tokenizer)
    assert list(text.ids) == [*asked, tokenizer.eos_id]
    assert list(text.own) == [False, *[True] * (len(text.ids) - 1)]


def test_a_chat_token_by_token() -> None:
    chat = Dialogue((Message("system", "s"), user("u"), assistant("a")))
    end, (system, asks, says, _) = BYTES.eos_id, map(BYTES.role_id, ROLES)
    assert one(chat).ids == [end, system, ord("s"), end, asks, ord("u"), end, says, ord("a"), end]
    sequence, _ = encode(Document(Dialogue(chat.messages[1:]), ""), BYTES, Template(system="s"))
    assert sequence == one(chat)


@pytest.mark.parametrize(
    "content",
    [Dialogue(()), Dialogue((user("hello"),)), Completion((user("hello"),), (Message("tool", "4"),))],
)
def test_nothing_to_learn_is_an_error(content: Content) -> None:
    with pytest.raises(TextError, match="words of the assistant to learn from in here, got none"):
        one(content)


@pytest.mark.parametrize("content", [Prompt("2 + 2"), Preference("2 + 2", "4", "5")])
def test_what_is_no_one_sequence_is_an_error(content: Content) -> None:
    with pytest.raises(TextError, match="in here, got a pr"):
        one(content)


def test_text_and_messages_are_not_mixed() -> None:
    with pytest.raises(TextError, match="one of each"):
        one(Completion("2 + 2", (assistant("4"),)))
    with pytest.raises(TextError, match="the assistant's own as the last"):
        Template().prompt((user("2 + 2"), assistant("4")), BYTES)


# Of "ab" + "cd" there are 6 tokens: start, a, b, c, d, end.
@pytest.mark.parametrize(
    ("content", "rule", "max_length", "kept", "own"),
    [
        (Completion("ab", "cd"), CutEnd(), 5, "abcd", [0, 0, 0, 1, 1]),
        (Completion("ab", "cd"), CutEnd(), 4, "abc", [0, 0, 0, 1]),
        (Completion("ab", "cd"), CutStart(), 5, "bcd", [0, 0, 1, 1, 1]),
        (Completion("ab", "cd"), CutStart(), 4, "cd", [0, 1, 1, 1]),
        ("abcd", CutEnd(), 3, "ab", [0, 1, 1]),
        ("abcd", CutStart(), 3, "d", [0, 1, 1]),
    ],
)
def test_rules_cut_and_say_so(content: Content, rule: Truncation, max_length: int, kept: str, own: list[int]) -> None:
    sequence, cut = encode(Document(content, "here"), BYTES, max_length=max_length, truncation=rule)
    assert sequence is not None and cut == ("here", 6, max_length)
    assert BYTES.decode(sequence.ids) == kept and list(map(int, sequence.own)) == own
    assert (sequence.ids[-1] == BYTES.eos_id) == isinstance(rule, CutStart)


def test_an_answer_is_never_cut_at_its_start() -> None:
    with pytest.raises(TextError, match=r"at most 3 tokens, got 6 \(4 without what may be cut\) in here"):
        encode(Document(Completion("ab", "cd"), "here"), BYTES, max_length=3, truncation=CutStart())


EXCHANGES = (Message("system", "S"), user("aa"), assistant("bb"), user("cc"), Message("tool", "dd"), assistant("ee"))
"""4 tokens a message, 3 for the system's, and the start: 24. Without the first exchange 16."""


@pytest.mark.parametrize("max_length", range(10, 30))
def test_of_a_chat_whole_exchanges_go(max_length: int) -> None:
    document = Document(Dialogue(EXCHANGES), "here")
    if max_length < 16:
        with pytest.raises(TextError, match=rf"at most {max_length} tokens, got 24 \(16 without what may be cut\)"):
            encode(document, BYTES, max_length=max_length, truncation=CutStart())
        return
    sequence, cut = encode(document, BYTES, max_length=max_length, truncation=CutStart())
    left = EXCHANGES if max_length >= 24 else (EXCHANGES[0], *EXCHANGES[3:])
    assert sequence == one(Dialogue(left))
    assert cut == (None if max_length >= 24 else ("here", 24, 16))


@given(chat=chats, max_length=st.integers(2, 40), rule=st.sampled_from([Refuse(), Skip(), CutEnd(), CutStart()]))
def test_what_fits_is_whole_and_what_does_not_is_told(
    chat: tuple[Message, ...], max_length: int, rule: Truncation
) -> None:
    document = Document(Dialogue((*chat, assistant("yes"))), "here")
    whole = one(document.content)
    try:
        sequence, cut = encode(document, BYTES, max_length=max_length, truncation=rule)
    except TextError:
        assert len(whole.ids) > max_length and not isinstance(rule, Skip)
        return
    if len(whole.ids) <= max_length:
        assert sequence == whole and cut is None
    else:
        assert cut is not None and cut.before == len(whole.ids)
        assert cut.after == (0 if sequence is None else len(sequence.ids)) <= max_length
        assert isinstance(rule, Skip) == (sequence is None) and not isinstance(rule, Refuse)
    if isinstance(rule, CutStart) and sequence is not None:
        assert learnt(sequence, BYTES)[-1] == b"yes"


def test_all_documents_and_what_was_cut() -> None:
    documents = [Document("x" * size, f"line {size}") for size in (3, 30, 5, 40)]
    found = encode_all(documents, BYTES, max_length=10, truncation=Skip())
    assert [BYTES.decode(found.sequences[i].ids) for i in range(2)] == ["xxx", "xxxxx"]
    assert found.cuts == (("line 30", 32, 0), ("line 40", 42, 0))
    assert "2 were too long (2 left out), 74 tokens lost" in str(found) and "line 40: 0 of 42" in str(found)
    assert learnt_bytes(found.sequences, BYTES) == 8 and found.sequences.learnt == 10
    assert "none was too long" in str(encode_all(documents, BYTES))
    with pytest.raises(TextError, match="got 32 in line 30"):
        encode_all(documents, BYTES, max_length=10)
    with pytest.raises(TextError, match="got none: all 4 documents were too long"):
        encode_all(documents, BYTES, max_length=2, truncation=Skip())


@given(documents=st.lists(st.text(), min_size=1, max_size=5), tokenizer=tokenizers)
def test_learnt_bytes_are_those_of_the_text(documents: list[str], tokenizer: TextTokenizer) -> None:
    found = encode_all([Document(text, "") for text in documents], tokenizer)
    assert learnt_bytes(found.sequences, tokenizer) == sum(len(text.encode()) for text in documents)


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("2 + 2 = ", "4", "5"),
        ((user("2 + 2"),), (assistant("4"),), (assistant("5"),)),
        ("", (user("2 + 2"), assistant("4")), (user("2 + 2"), assistant("5"))),
        (
            "",
            (user("x"), assistant("y"), user("z"), assistant("4")),
            (user("x"), assistant("y"), user("z"), assistant("5")),
        ),
    ],
)
def test_pairs_differ_in_the_answer_alone(prompt: Words, chosen: Words, rejected: Words) -> None:
    pair = encode_pair(Document(Preference(prompt, chosen, rejected), "here"), BYTES)
    assert pair is not None
    assert [bytes(token for token, own in zip(*one, strict=True) if own and token < 256) for one in pair] == [
        b"4",
        b"5",
    ]
    assert pair[0].own == pair[1].own
    assert (
        encode_pair(Document(Preference(prompt, chosen, rejected), ""), BYTES, max_length=3, truncation=Skip()) is None
    )


def test_a_pair_is_asked_of_a_preference() -> None:
    with pytest.raises(TextError, match="chosen and rejected in here, got Prompt"):
        encode_pair(Document(Prompt("2 + 2"), "here"), BYTES)


def test_characters_that_a_tokenizer_lacks_are_told_with_their_place() -> None:
    known = Characters().build(["abc"])
    sentence = r"one of the 3 characters .* built from in a\.jsonl:7, got 'Q': a model that a run begins from knows"
    for content in ("aQ", Completion("a", "Q"), Dialogue((user("a"), assistant("Q")))):
        with pytest.raises(TextError, match=sentence):
            encode_all([Document("abc", "a.jsonl:6"), Document(content, "a.jsonl:7")], known)
    with pytest.raises(TextError, match=sentence):
        encode_pair(Document(Preference("a", "b", "Q"), "a.jsonl:7"), known)
