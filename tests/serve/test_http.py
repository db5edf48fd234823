"""What the server answers to requests as the page makes them, and to wrong, large, slow and foreign ones."""

import json
import re
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.serve.places import BYTES, Place, Said, Say, read, scripted, serving, speaker, together
from torchward.language.documents import Message
from torchward.serve.guard import Guard
from torchward.serve.server import About
from torchward.serve.talk import Asked
from torchward.serve.wire import Limits

QUICK = Limits(head_seconds=1.0, body_seconds=1.0, write_seconds=1.0, linger_seconds=0.5)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp("feedback") / "feedback.db", speaker(scripted("one", "other"))) as started:
        yield started
        assert started.faults == []


def rows(path: Path, table: str = "comparisons") -> list[dict[str, Any]]:
    with sqlite3.connect(path) as opened:
        opened.row_factory = sqlite3.Row
        found = [dict(row) for row in opened.execute(f"SELECT * FROM {table} ORDER BY rowid")]
    opened.close()
    return found


def until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


# What the page does


def test_a_choice_is_a_row_that_knows_what_was_shown_where(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with serving(path, speaker(scripted("first", "second"))) as place:
        session, shown = place.session(), []
        for number, choice in enumerate(["left", "right", "tie"] * 4):
            said = place.answer(session, f"question {number}")
            shown.append(said.shown)
            data = {"id": f"judgement-{number}", "session": session, "exchange": said.exchange, "choice": choice}
            assert place.ask("POST", "/api/compare", data).json == {"stored": True}
    found = rows(path)
    assert [row["choice"] for row in found] != ["a", "b", "tie"] * 4, "sides are mixed"
    assert {tuple(each) for each in shown} == {("first", "second"), ("second", "first")}
    for number, (row, sides) in enumerate(zip(found, shown, strict=True)):
        assert (row["id"], row["session"], row["run"]) == (f"judgement-{number}", session, "runs/test")
        assert (row["a"], row["b"]) == ("first", "second")
        assert row["shown_left"] == ("a" if sides[0] == "first" else "b")
        if number % 3 == 2:
            assert row["choice"] == "tie"
        else:
            assert row[row["choice"]] == sides[number % 3]
        prompt = json.loads(row["prompt"])
        assert prompt[-1] == {"role": "user", "content": f"question {number}"}
        assert json.loads(row["options"]) == {"temperature": 1.0}
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\d\+00:00", row["time"])
    assert path.stat().st_mode & 0o777 == 0o600, "what people say is for the owner alone"


def test_a_conversation_goes_on_with_the_answer_that_was_chosen(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with serving(path, speaker(scripted("first", "second"))) as place:
        session, wanted = place.session(), []
        for number, choice in enumerate(["right", "left", "right"]):
            said = place.answer(session, str(number))
            data = {"id": f"judgement-{number}", "session": session, "exchange": said.exchange, "choice": choice}
            assert place.ask("POST", "/api/compare", data).status == 200
            wanted.append(said.shown[choice == "right"])
        kept = place.answer(session, "without a judgement").shown[0]
        said = place.answer(session, "last")
        data = {"id": "judgement-last", "session": session, "exchange": said.exchange, "choice": "tie"}
        assert place.ask("POST", "/api/compare", data).status == 200
    prompt = json.loads(rows(path)[-1]["prompt"])
    assert [each["content"] for each in prompt if each["role"] == "assistant"] == [*wanted, kept]
    assert [each["content"] for each in prompt if each["role"] == "user"] == [
        "0", "1", "2", "without a judgement", "last",
    ]  # fmt: skip


def test_a_conversation_waits_for_no_disk_to_go_on_with_the_answer_that_was_chosen(tmp_path: Path) -> None:
    written = threading.Event()
    with serving(tmp_path / "feedback.db", speaker(scripted("first", "second"))) as place:
        name = place.session()
        said = place.answer(name, "so?")
        session = place.server.sessions.find(name)
        assert session is not None
        exchange = session.exchanges[said.exchange]
        data = {"id": "judgement-0", "session": name, "exchange": said.exchange, "choice": "right"}
        place.server.store.rows.execute("PRAGMA query_only = ON")
        assert place.ask("POST", "/api/compare", data).status == 503
        place.server.store.rows.execute("PRAGMA query_only = OFF")
        assert exchange.answers[exchange.kept] == said.shown[0], "nothing was stored"
        place.server.file.submit(written.wait, 20.0)

        def go_on() -> Said:
            until(lambda: exchange.judgement is not None)
            try:
                return place.answer(name, "and?")
            finally:
                written.set()

        assert together([lambda: place.ask("POST", "/api/compare", data).status, go_on])[0] == 200
        words = list(session.exchanges.values())[-1].words
        assert isinstance(words, tuple) and words[1].content == said.shown[1]


@pytest.mark.parametrize(("scale", "good", "wrong"), [("thumbs", 1, 2), ("stars", 5, 0)])
def test_a_single_answer_is_rated(tmp_path: Path, scale: Any, good: int, wrong: int) -> None:
    path = tmp_path / "feedback.db"
    with serving(path, speaker(scripted("yes")), about=About("test", answers=1, rating=scale)) as place:
        session = place.session()
        said = place.answer(session, "so?", 1)
        data = {"id": "judgement-0", "session": session, "exchange": said.exchange}
        assert place.ask("POST", "/api/rate", {**data, "value": wrong}).status == 400
        assert place.ask("POST", "/api/rate", {**data, "value": True}).status == 400
        assert place.ask("POST", "/api/compare", {**data, "choice": "left"}).status == 409
        assert place.ask("POST", "/api/rate", {**data, "value": good}).status == 200
    (row,) = rows(path, "ratings")
    assert (row["answer"], row["scale"], row["value"]) == ("yes", scale, good)
    assert json.loads(row["prompt"]) == [{"role": "user", "content": "so?"}]


def test_a_retry_counts_once_also_after_the_server_began_anew(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with serving(path, speaker(scripted("one", "other"))) as place:
        session = place.session()
        said = place.answer(session, "so?")
        data = {"id": "judgement-0", "session": session, "exchange": said.exchange, "choice": "right"}
        replies = together([lambda: place.ask("POST", "/api/compare", data).status] * 8)
        assert replies == [200] * 8
        assert place.ask("POST", "/api/compare", {**data, "choice": "left"}).status == 409, "another judgement"
        assert place.ask("POST", "/api/compare", {**data, "id": "judgement-1"}).status == 409, "it was judged"
    with serving(path, speaker(scripted("one", "other"))) as place:
        assert place.ask("POST", "/api/compare", data).status == 200
        assert place.ask("POST", "/api/compare", {**data, "choice": "left"}).status == 404
        assert place.ask("POST", "/api/compare", {**data, "id": "judgement-1"}).status == 404
        assert place.ask("POST", "/api/compare", {**data, "session": "somebody-else"}).status == 404
    assert len(rows(path)) == 1


def test_equal_answers_are_not_compared(tmp_path: Path) -> None:
    with serving(tmp_path / "feedback.db", speaker(scripted("same", "same"))) as place:
        session = place.session()
        said = place.answer(session, "so?")
        assert said.same
        data = {"id": "judgement-0", "session": session, "exchange": said.exchange}
        assert place.ask("POST", "/api/compare", {**data, "choice": "left"}).status == 409
        assert place.ask("POST", "/api/compare", {**data, "choice": "tie"}).status == 200


def test_the_model_itself_answers_the_same_from_the_same_seed(tmp_path: Path) -> None:
    told = []
    for _ in range(2):
        with serving(tmp_path / "feedback.db", speaker(max_new_tokens=8, seed=3)) as place:
            session = place.session()
            told.append([place.answer(session, text).shown for text in ("hello", "and then?")])
    assert told[0] == told[1]
    assert any(one != other for one, other in told[0]), "two answers are drawn apart"


# Many at once


def test_twenty_people_at_once_keep_their_conversations_apart(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"

    def echo(asked: Asked, count: int) -> Iterator[tuple[int, str | bool]]:
        for i in range(count):
            yield i, f"{i}:" + "|".join(message.content for message in asked.words)  # type: ignore[union-attr]

    with serving(path, speaker(echo), limits=Limits(waiting=32)) as place:

        def person(number: int) -> str:
            session = place.session()
            for turn in range(2):
                said = place.answer(session, f"person {number}, turn {turn}")
                assert all(f"person {number}, turn {turn}" in text for text in said.shown)
                others = set(re.findall(r"person (\d+)", "".join(said.shown))) - {str(number)}
                assert not others
                data = {"id": f"judgement-{number}-{turn}", "session": session, "exchange": said.exchange}
                assert place.ask("POST", "/api/compare", {**data, "choice": "left"}).status == 200
            return session

        sessions = together([partial(person, number) for number in range(20)])
        assert place.server.waiting == 0 and place.faults == []
    assert len(set(sessions)) == 20
    assert Counter(row["session"] for row in rows(path)) == dict.fromkeys(sessions, 2)


def test_a_session_is_not_another_ones(place: Place) -> None:
    mine, yours = place.session(), place.session()
    said = place.answer(mine, "so?")
    data = {"id": "judgement-0", "session": yours, "exchange": said.exchange, "choice": "left"}
    assert place.ask("POST", "/api/compare", data).status == 404
    assert place.ask("POST", "/api/leave", {"session": yours}).status == 200
    reply = place.ask("POST", "/api/answer", {"session": yours, "text": "so?"})
    assert (reply.status, reply.error) == (404, "This conversation is not known here any more: begin a new one.")


class Held:
    """Somebody who speaks when a test lets him."""

    def __init__(self) -> None:
        self.open, self.spoken, self.ended = False, 0, 0

    def say(self) -> Say:
        def say(asked: Asked, count: int) -> Iterator[tuple[int, str | bool]]:
            try:
                while not self.open:
                    self.spoken += 1
                    yield 0, "x"
                    time.sleep(0.005)
            finally:
                self.ended += 1

        return say


def test_who_waits_too_long_or_asks_twice_is_told_so(tmp_path: Path) -> None:
    held = Held()
    with serving(tmp_path / "feedback.db", speaker(held.say()), limits=Limits(waiting=2, sessions=4)) as place:
        sessions = [place.session() for _ in range(4)]
        full = place.ask("POST", "/api/session", {})
        assert full.status == 503 and "retry-after" in full.headers

        def ask(number: int) -> int:
            return place.ask("POST", "/api/answer", {"session": sessions[number], "text": "so?"}).status

        def look() -> None:
            until(lambda: place.server.waiting == 3)
            twice = place.ask("POST", "/api/answer", {"session": sessions[0], "text": "and?"})
            assert twice.status == 429 and "retry-after" in twice.headers
            reply = place.ask("POST", "/api/answer", {"session": sessions[3], "text": "so?"})
            assert reply.status == 503 and "retry-after" in reply.headers
            held.open = True

        assert together([*(partial(ask, number) for number in range(3)), look]) == [200, 200, 200, None]
        assert ask(3) == 200


def test_the_conversation_that_rests_longest_gives_way(tmp_path: Path) -> None:
    limits = Limits(sessions=2, idle_seconds=0.05)
    with serving(tmp_path / "feedback.db", speaker(scripted("yes")), limits=limits) as place:
        old, used = place.session(), place.session()
        time.sleep(0.1)
        place.answer(used, "so?", 1)
        place.session()
        assert place.ask("POST", "/api/answer", {"session": old, "text": "so?"}).status == 404
        assert place.ask("POST", "/api/answer", {"session": used, "text": "so?"}).status == 200


def test_the_model_stops_when_nobody_listens_and_forgets_the_question(tmp_path: Path) -> None:
    held = Held()
    with serving(tmp_path / "feedback.db", speaker(held.say())) as place:
        session = place.session()
        body = json.dumps({"session": session, "text": "so?"}).encode()
        client = place.connected()
        client.sendall(post("/api/answer", body))
        until(lambda: held.spoken > 3)
        assert b"200 OK" in client.recv(1000)
        client.close()  # as a tab that is closed
        until(lambda: held.ended == 1 and place.server.waiting == 0)
        held.open = True
        place.answer(session, "again", 1)
        found = place.server.sessions.find(session)
        assert found is not None and [each.text for each in found.exchanges.values()] == ["again"]
        assert place.faults == []


def test_a_model_that_fails_is_told_in_a_sentence(tmp_path: Path) -> None:
    def fails(asked: Asked, count: int) -> Iterator[tuple[int, str | bool]]:
        yield 0, "so "
        raise RuntimeError("/secret/path is full")

    with serving(tmp_path / "feedback.db", speaker(fails)) as place:
        session = place.session()
        reply = place.ask("POST", "/api/answer", {"session": session, "text": "so?"})
        last = json.loads(reply.body.splitlines()[-1])
        assert last == {"error": "Something went wrong here: the terminal in which this runs says more."}
        assert b"secret" not in reply.body and "secret" in place.faults[0]
        assert place.ask("POST", "/api/answer", {"session": session, "text": "so?"}).status == 200


def test_what_the_file_cannot_take_is_not_acknowledged(tmp_path: Path) -> None:
    with serving(tmp_path / "feedback.db", speaker(scripted("one", "other"))) as place:
        session = place.session()
        said = place.answer(session, "so?")
        data = {"id": "judgement-0", "session": session, "exchange": said.exchange, "choice": "left"}
        place.server.store.rows.execute("PRAGMA query_only = ON")
        reply = place.ask("POST", "/api/compare", data)
        assert (reply.status, reply.error) == (503, "This could not be written: nothing was stored.")
        place.server.store.rows.execute("PRAGMA query_only = OFF")
        assert place.ask("POST", "/api/compare", data).status == 200
        assert place.server.store.counts() == (1, 0)


def test_a_long_conversation_forgets_its_beginning_and_a_long_question_is_refused(place: Place) -> None:
    session = place.session()
    for number in range(8):
        place.answer(session, f"question {number} " + "x" * 80)
    known = place.server.sessions.find(session)
    assert known is not None
    words = list(known.exchanges.values())[-1].words
    assert isinstance(words, tuple) and words[-1].content.startswith("question 7")
    room = 400 - 20
    assert len(place.server.speaker.template.prompt(words, BYTES)) <= room
    more = tuple(
        message
        for each in list(known.exchanges.values())[:-1]
        for message in (Message("user", each.text), Message("assistant", each.answers[each.kept]))
    )
    assert more[-len(words) + 1 :] == words[:-1], "the last ones are remembered"
    longer = (*more[-len(words) - 1 :], words[-1])
    assert len(place.server.speaker.template.prompt(longer, BYTES)) > room, "and as many as there is room for"
    reply = place.ask("POST", "/api/answer", {"session": session, "text": "x" * 500})
    assert reply.status == 400 and "too long for the model" in reply.error


# What is wrong


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    lines += [f"Content-Length: {len(body) if length is None else length}", "", ""]
    return "\r\n".join(lines).encode() + body


HEAD = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post("/api/session", b"{"), 400),
        (post("/api/session", b"[]"), 400),
        (post("/api/session", b'{"a": NaN}'), 400),
        (post("/api/session", b'{"a": "\xff"}'), 400),
        (post("/api/session", b'{"a": "\\ud800"}'), 400),
        (post("/api/session", b"[" * 30_000), 400),
        (post("/api/session", b'{"a": ' + b"9" * 9_000 + b"}"), 400),
        (post("/api/session", b"{}", length=99) + b"", 400),
        (post("/api/session", b"{}", length=65_537), 413),
        (post("/api/session", b"{}", length=10**30), 413),
        (post("/api/session", b" " * 300_000), 413),
        (post("/api/session", b"{}").replace(b"json", b"xml"), 415),
        (post("/api/session", b"{}").replace(b"Content-Type: application/json\r\n", b""), 415),
        (HEAD + b"\r\n", 411),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411),
        (HEAD + b"Content-Length: -2\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (HEAD + b"Content-Length : 2\r\n\r\n{}", 400),
        (HEAD + b"A: b\r\n folded\r\nContent-Length: 2\r\n\r\n{}", 400),
        (post("/api/nowhere", b"{}"), 404),
        (post("/../../etc/passwd", b"{}"), 404),
        (post("/", b"{}"), 405),
        (b"GET /api/session HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\xa0\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX\xff: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n", 400),
        (post("/api/session", b"{}", "Origin: http://localhost\xa0"), 400),
        (HEAD + b"Content-Length: \xb2\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: \xff\r\n\r\n{}", 400),
        (b"GET / HTTP/1.1\r\nHost: a:b:c\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: loc", 400),
    ],
)
def test_a_wrong_request_is_one_sentence(place: Place, request_: bytes, status: int) -> None:
    with place.connected() as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        answer = read(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    sentence = json.loads(body)["error"] if b"json" in head else body.decode()
    assert re.fullmatch(r"[A-Z][^\n]{8,120}\.\n?", sentence)
    assert "/" not in sentence.replace("application/json", "").replace("HTTP/1.1", "") and "Traceback" not in sentence
    if status == 405:
        assert b"Allow: " in head


def test_cookies_of_other_programs_on_this_machine_lock_nobody_out(tmp_path: Path) -> None:
    guard = Guard(token=TOKEN, cookie="mine")
    with serving(tmp_path / "feedback.db", guard=guard) as place:
        for other in ("theme=größer", "name=\u65e5\u672c", "state=" + "x" * 40_000):
            request = f"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {other}; mine={TOKEN}\r\n\r\n"
            assert place.raw(request.encode()).startswith(b"HTTP/1.1 200 "), other[:20]


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("answer", {"text": ""}, 400),
        ("answer", {"text": " \n"}, 400),
        ("answer", {"text": 3}, 400),
        ("answer", {"text": "x" * 8_001}, 413),
        ("answer", {"text": "x", "answers": 3}, 400),
        ("answer", {"text": "x", "answers": True}, 400),
        ("answer", {"text": "x", "session": "'; DROP TABLE comparisons; --"}, 400),
        ("compare", {"id": "judgement-0", "exchange": "exchange-0", "choice": "both"}, 400),
        ("compare", {"id": "short", "exchange": "exchange-0", "choice": "left"}, 400),
        ("compare", {"id": "judgement-0", "exchange": 7, "choice": "left"}, 400),
        ("compare", {"id": "judgement-0", "exchange": "exchange-0", "choice": "left"}, 404),
        ("rate", {"id": "judgement-0", "exchange": "exchange-0", "value": "1"}, 400),
        ("rate", {"id": "judgement-0", "exchange": "exchange-0", "value": 1}, 404),
        ("leave", {"session": None}, 400),
    ],
)
def test_wrong_data_is_one_sentence(place: Place, path: str, data: dict[str, Any], status: int) -> None:
    reply = place.ask("POST", f"/api/{path}", {"session": place.session(), **data})
    assert reply.status == status and reply.error.endswith(".")
    assert reply.headers["cache-control"] == "no-store" and reply.headers["x-content-type-options"] == "nosniff"


# Who is slow


def test_slow_clients_are_let_go_and_hold_nobody_up(tmp_path: Path) -> None:
    with serving(tmp_path / "feedback.db", speaker(scripted("one", "other")), limits=QUICK) as place:
        silent, dripping, late = (place.connected() for _ in range(3))
        late.sendall(post("/api/session", b"", length=100))
        end = time.monotonic() + 1.5
        while time.monotonic() < end:  # a byte now and then wins no time
            try:
                dripping.sendall(b"G")
            except OSError:
                break
            time.sleep(0.05)
        assert place.ask("GET", "/api/about").status == 200, "others are served meanwhile"
        assert b"408" in read(late)
        assert b"408" in read(silent)
        for client in (silent, dripping, late):
            client.close()
        until(lambda: not place.server._clients)


def test_a_client_that_does_not_read_loses_its_answer_and_the_model_goes_on_to_the_next(tmp_path: Path) -> None:
    floods = 0

    def flood(asked: Asked, count: int) -> Iterator[tuple[int, str | bool]]:
        nonlocal floods
        if asked.words[-1].content != "flood":  # type: ignore[union-attr]
            yield 0, "short"
            return
        try:
            for _ in range(2_000):
                yield 0, "x" * 20_000
        finally:
            floods += 1

    with serving(tmp_path / "feedback.db", speaker(flood), limits=QUICK) as place:
        body = json.dumps({"session": place.session(), "text": "flood"}).encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", place.port))
            client.sendall(post("/api/answer", body))
            until(lambda: floods == 1 and place.server.waiting == 0)
            assert place.answer(place.session(), "so?", 1).shown == ["short"]
        assert place.faults == []


def test_more_connections_than_there_may_be_are_told_so(tmp_path: Path) -> None:
    with serving(tmp_path / "feedback.db", speaker(scripted("yes")), limits=Limits(connections=4)) as place:
        idle = [place.connected() for _ in range(4)]
        until(lambda: len(place.server._clients) == 4)
        reply = place.ask("GET", "/")
        assert reply.status == 503 and "retry-after" in reply.headers
        for client in idle:
            client.close()
        until(lambda: not place.server._clients)
        assert place.ask("GET", "/").status == 200


# Who may ask


def test_only_names_of_this_machine_are_answered_to(place: Place) -> None:
    for host, status in [
        (f"127.0.0.1:{place.port}", 200), ("localhost:9000", 200), ("LOCALHOST", 200), ("evil.example", 403),
        ("127.0.0.1.evil.example", 403), ("192.168.0.7", 403), ("user@localhost", 400), ("", 400),
    ]:  # fmt: skip
        assert place.ask("GET", "/", headers={"Host": host}).status == status, host
        assert place.ask("POST", "/api/session", {}, {"Host": host}).status == status, host


def test_no_other_site_may_ask(place: Place) -> None:
    own = f"127.0.0.1:{place.port}"
    for headers, status in [
        ({"Origin": f"http://{own}"}, 200),
        ({"Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": f"http://localhost:{place.port}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ]:
        assert place.ask("POST", "/api/session", {}, headers).status == status, headers


TOKEN = "0123456789-abcdef"


def test_the_token_is_asked_for_and_kept_in_a_cookie(tmp_path: Path) -> None:
    guard = Guard("0.0.0.0", TOKEN, cookie="mine")
    with serving(tmp_path / "feedback.db", speaker(scripted("yes")), guard=guard) as place:
        for path in (
            "/",
            "/api/about",
            "/nowhere",
            "/?token=",
            "/?token=0123456789-abcdeg",
            f"/api/about?token={TOKEN}",
        ):
            assert place.ask("GET", path).status == 401, path
        assert place.ask("POST", "/api/session", {}, {"Cookie": "mine=wrong"}).status == 401
        assert place.ask("POST", "/api/session", {}, {"Cookie": f"other={TOKEN}"}).status == 401
        page = place.ask("GET", f"/?token={TOKEN}")
        assert page.status == 200
        assert page.headers["set-cookie"] == f"mine={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert place.ask("POST", "/api/session", {}, {"Cookie": f"a=b; mine={TOKEN}"}).status == 200
        assert place.ask("POST", "/api/session", {}, {"Authorization": f"Bearer {TOKEN}"}).status == 200
        assert place.ask("GET", f"/?token={TOKEN}", headers={"Host": "evil.example"}).status == 403
        assert place.ask("GET", f"/?token={TOKEN}", headers={"Host": "10.0.0.7:80"}).status == 200, (
            "a number is no name"
        )


def test_the_page_runs_its_own_script_alone(place: Place) -> None:
    page = place.ask("GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    text = page.body.decode()
    assert "://" not in text, "nothing comes from elsewhere"
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " onclick", " style="):
        assert word not in text
    head = place.ask("HEAD", "/")
    assert (head.status, head.body) == (200, b"") and head.headers["content-length"] == str(len(page.body))
