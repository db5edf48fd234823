"""What `torchward chat` has the model read."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.places import BYTES, policy
from torchward.cli.chat import Chat, Speaker
from torchward.language import generate
from torchward.serve import talk


def test_a_long_conversation_leaves_room_for_an_answer_as_the_page_does(monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[list[int]]()

    def says(model: Any, tokenizer: Any, prompt: list[int], **how: Any) -> Iterator[str]:
        read.append(prompt)
        yield "yes"

    monkeypatch.setattr(generate, "stream", says)
    for length, room in ((20, 20), (200, 64)):
        model = policy(256)
        chat = Speaker(model, BYTES, Chat(max_new_tokens=length), converses=True)
        page = talk.Speaker(model, BYTES, converses=True, max_new_tokens=length)
        session = talk.Session("somebody", 0)
        for number in range(25):
            text = f"question {number}" + "?" * number
            asked = page.asked(session, text)
            assert list(chat.answer(text)) == ["yes"]
            assert read[-1] == asked.ids and len(read[-1]) <= 256 - room
            session.exchanges[text] = talk.Exchange(text, text, asked.words, ("yes",), (False,))
        assert len(read[-1]) + 60 > 256 - room, "and no more room than that"
