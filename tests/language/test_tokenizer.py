"""Text to tokens and back: nothing is lost, nothing special is said by accident, files are data."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.config import ConfigError
from torchward.language.bpe import BPE
from torchward.language.documents import ROLES, TextError
from torchward.language.tokenizer import Bytes, Characters, Stream, TextTokenizer, Tokenizer, byte_counts, load, save

CORPUS = [
    "the cat sat on the mat, the cat ate the rat",
    "der Bär saß über der Tür: 12 + 34 = 46",
    "猫は魚を食べた。 the end\n\n",
]
BYTES = Bytes().build([])
PAIRS = BPE(300, min_frequency=1).build(CORPUS)
WHOLE = [BYTES, PAIRS, BPE(290, split_digits=False).build(CORPUS)]
ALL = [*WHOLE, Characters().build(CORPUS)]


@pytest.mark.parametrize("tokenizer", WHOLE, ids=["bytes", "pairs", "pairs, digits merged"])
@given(text=st.text())
def test_any_text_comes_back(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.bytes_of, ids)) == text.encode()
    assert all(0 <= token < tokenizer.eos_id for token in ids)


@given(text=st.text(alphabet=sorted(set("".join(CORPUS)))))
def test_text_of_known_characters_comes_back(text: str) -> None:
    tokenizer = ALL[-1]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and len(ids) == len(text)


@pytest.mark.parametrize("tokenizer", ALL)
@given(data=st.data())
def test_a_stream_says_what_decode_says(tokenizer: TextTokenizer, data: st.DataObject) -> None:
    """Of any tokens, also such as are no text; and no character that was shown is taken back."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    stream = Stream(tokenizer)
    shown = ""
    for count, token in enumerate(ids, start=1):
        shown += stream.push(token)
        assert tokenizer.decode(ids[:count]).startswith(shown)
    assert shown + stream.finish() == tokenizer.decode(ids)
    assert stream.push(BYTES.encode("a")[0] if tokenizer is BYTES else tokenizer.encode("a")[0]) == "a"


def test_a_stream_waits_for_a_whole_character() -> None:
    stream = Stream(BYTES)
    assert [stream.push(byte) for byte in "é猫".encode()] == ["", "é", "", "", "猫"]
    assert stream.push(0xE7) == "" and stream.finish() == "\ufffd" and stream.finish() == ""


@pytest.mark.parametrize("tokenizer", ALL)
def test_special_tokens_are_apart_and_silent(tokenizer: Tokenizer) -> None:
    special = [tokenizer.eos_id, tokenizer.pad_id, *map(tokenizer.role_id, ROLES)]
    assert sorted(special) == list(range(tokenizer.vocab_size - len(special), tokenizer.vocab_size))
    assert tokenizer.eos_id != tokenizer.pad_id
    assert tokenizer.decode(special) == "" and not byte_counts(tokenizer)[special].any()
    the = tokenizer.encode("the")
    assert tokenizer.decode([tokenizer.start_id, *the, tokenizer.eos_id, tokenizer.pad_id]) == "the"


@pytest.mark.parametrize("tokenizer", ALL)
def test_saved_as_json_and_back(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    save(tokenizer, tmp_path / "policy")
    assert [path.name for path in (tmp_path / "policy").iterdir()] == ["tokenizer.json"]
    json.loads((tmp_path / "policy" / "tokenizer.json").read_text())
    again = load(tmp_path / "policy")
    assert again.vocab_size == tokenizer.vocab_size
    for text in CORPUS:
        assert again.encode(text) == tokenizer.encode(text)
    assert list(map(again.bytes_of, range(again.vocab_size))) == list(
        map(tokenizer.bytes_of, range(tokenizer.vocab_size))
    )


@pytest.mark.parametrize(
    "text",
    [
        None,
        "not json",
        "{}",
        '{"format": 9}',
        '{"format": 1, "tokenizer": "Pickle"}',
        '{"format":1,"tokenizer":"PairCoder"}',
        "[]",
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(TextError, match="expected a tokenizer that torchward saved"):
        load(tmp_path)


def test_unknown_characters_are_refused_or_replaced() -> None:
    with pytest.raises(TextError, match="'z'"):
        Characters().build(["abc"]).encode("az")
    lossy = Characters(replace_unknown=True).build(["abc"])
    assert lossy.decode(lossy.encode("azb")) == "a\ufffdb"
    with pytest.raises(TextError, match="got none"):
        Characters().build([""])


@pytest.mark.parametrize("tokenizer", ALL)
def test_half_a_surrogate_pair_is_no_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match="surrogate"):
        tokenizer.encode("the \ud800")


@pytest.mark.parametrize("token", [-1, 262])
def test_foreign_tokens_are_refused(token: int) -> None:
    with pytest.raises(TextError, match="from 0 to 261"):
        BYTES.decode([65, token])


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="at least 262"):
        BPE(261)
    with pytest.raises(ConfigError, match="min_frequency"):
        BPE(300, min_frequency=0)


def test_a_stream_is_without_what_stands_around_an_answer() -> None:
    """Of every short text, however much of it is like that."""
    around = BYTES.encode("ab"), BYTES.encode("ba")
    stream = Stream(BYTES, around)
    for text in ("".join(each) for length in range(7) for each in itertools.product("abc", repeat=length)):
        assert "".join(map(stream.push, BYTES.encode(text))) + stream.finish() == text.removeprefix("ab").removesuffix(
            "ba"
        )
