"""`torchward serve` as a process of its own: what it prints, how it ends, and what is in the file after kill -9."""

import contextlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.places import policy, scripted, serving, speaker
from torchward.cli import main
from torchward.language.corpus import FeedbackFile
from torchward.language.documents import Message, Preference
from torchward.nets import saving
from torchward.nets.actor_critic import ActorCritic
from torchward.nets.spaces import Box, Discrete
from torchward.serve.talk import Asked, Session

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    saving.save(policy(), path)
    return path


class Process:
    """A server that was started by the command."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process, self.url = process, url
        match = re.fullmatch(r"http://([\d.]+):(\d+)(?:/\?token=([\w-]+))?", url)
        assert match is not None, url
        self.host, self.port, self.token = match[1], int(match[2]), match[3]

    def post(self, path: str, data: object, **headers: str) -> tuple[int, list[Any]]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request("POST", path, json.dumps(data), {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, [json.loads(line) for line in response.read().splitlines()]
        finally:
            connection.close()


@contextlib.contextmanager
def started(model: Path, home: Path, *options: str) -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", "torchward", "serve", str(model), "--port", "0", *options],
        cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    try:
        yield Process(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()
        process.stderr.close()


def test_what_was_acknowledged_before_kill_9_is_in_the_file_whole_and_once(model: Path, tmp_path: Path) -> None:
    """Killed among judgements that come in as fast as they can; then asked again, on another address of this machine,
    where it wants a token; and ended by Ctrl-C in the middle of an answer."""
    sent: dict[str, dict[str, object]] = {}
    acknowledged: set[str] = set()
    with started(model, tmp_path, "--mode", "messages", "--temperature", "2", "--max-new-tokens", "4") as server:
        assert server.host == "127.0.0.1" and server.token is None

        def person(number: int) -> None:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError, IndexError):  # killed
                session = server.post("/api/session", {})[1][0]["session"]
                for turn in range(1_000):
                    asked = {"session": session, "text": f"{number}, {turn}", "answers": 2}
                    _, lines = server.post("/api/answer", asked)
                    name = f"judgement-{number}-{turn}"
                    data = {"id": name, "session": session, "exchange": lines[-1]["end"], "choice": "tie"}
                    sent[name] = data
                    if server.post("/api/compare", data)[0] == 200:
                        acknowledged.add(name)

        people = [threading.Thread(target=person, args=(number,)) for number in range(4)]
        for thread in people:
            thread.start()
        end = time.monotonic() + 60
        while len(acknowledged) < 20 and time.monotonic() < end:
            time.sleep(0.002)
        server.process.send_signal(signal.SIGKILL)
        for thread in people:
            thread.join(20)
    assert len(acknowledged) >= 20
    with sqlite3.connect(tmp_path / "feedback.db") as rows:
        assert rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = {name for (name,) in rows.execute("SELECT id FROM comparisons")}
    rows.close()
    assert acknowledged <= found <= set(sent)

    # 127.0.0.2 is this machine too, but not one of the two names that need no token.
    with started(model, tmp_path, "--host", "127.0.0.2", "--max-new-tokens", "100000") as server:
        assert server.host == "127.0.0.2" and server.token is not None and len(server.token) >= 40
        assert server.post("/api/session", {})[0] == 401
        bearer = {"Authorization": f"Bearer {server.token}"}
        for name in sent:
            assert server.post("/api/compare", sent[name], **bearer)[0] == (200 if name in found else 404)
        assert server.post("/api/compare", {**sent[min(found)], "choice": "left"}, **bearer)[0] == 404
        session = server.post("/api/session", {}, **bearer)[1][0]["session"]

        def talk() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                server.post("/api/answer", {"session": session, "text": "so?", "answers": 2}, **bearer)

        talking = threading.Thread(target=talk)
        talking.start()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
        talking.join(20)
        assert server.process.stderr is not None
        said = server.process.stderr.read()
        assert f"feedback.db holds {len(found)} comparisons and 0 ratings" in said and "Traceback" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"feedback.db"}, "the log went into the file"


# What is said to who starts it


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["serve", *map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


def test_who_cannot_talk_is_told_so_in_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saving.save(ActorCritic(Box((3,), (-1.0,) * 3, (1.0,) * 3), Discrete(2)), tmp_path / "player")
    assert "has a ActorCritic, which does not talk" in refused(capsys, "player")
    assert "no such directory" in refused(capsys, "nowhere")
    assert not (tmp_path / "feedback.db").exists()


def test_wrong_options_are_told(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for options, sentence in [
        (("--token", "short"), "expected a token of 16"),
        (("--token", "with space and more"), "expected a token of 16"),
        (("--port", "70000"), "expected a port"),
        (("--temperature", "-1"), "temperature has to be"),
        (("--max-sessions", "0"), "max_sessions has to be"),
        (("--feedback", "no/such/folder.db"), "expected a file for feedback at no/such/folder.db"),
        (("--feedback", "."), "expected a file for feedback at ."),
    ]:
        assert sentence in refused(capsys, model, *options)
    (tmp_path / "text.db").write_text("this is no database, and it is long enough to be looked at as one" * 20)
    assert "got: file is not a database" in refused(capsys, model, "--feedback", "text.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE comparisons (id)")
    other.close()
    assert "got another database" in refused(capsys, model, "--feedback", "other.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("comparisons",)], "it is left as it was"
    other.close()


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "feedback.db") as place:
        said = refused(capsys, model, "--port", place.port, "--feedback", tmp_path / "feedback.db")
        assert f"cannot listen on 127.0.0.1, port {place.port}" in said and "--port 0 finds one" in said
    said = refused(capsys, model, "--host", "300.1.1.1", "--feedback", tmp_path / "feedback.db")
    assert "cannot listen on 300.1.1.1, port 8000" in said and "--port 0" not in said


def test_the_file_is_read_while_it_is_written(tmp_path: Path) -> None:
    with serving(tmp_path / "feedback.db", speaker(scripted("one", "other"))) as place:
        session = place.session()
        said = place.answer(session, "so?")
        data = {"id": "judgement-0", "session": session, "exchange": said.exchange, "choice": "left"}
        assert place.ask("POST", "/api/compare", data).status == 200
        (document,) = FeedbackFile(tmp_path / "feedback.db").documents()
        chosen, rejected = ((Message("assistant", text),) for text in said.shown)
        assert document.content == Preference((Message("user", "so?"),), chosen, rejected)


def test_an_answer_that_its_length_cut_is_told_in_the_file(tmp_path: Path) -> None:
    """One of the two is longer than the model is let write."""

    def say(asked: Asked, count: int) -> Iterator[tuple[int, str | bool]]:
        yield 0, "short"
        yield 0, False
        yield 1, "long"
        yield 1, True

    with serving(tmp_path / "feedback.db", speaker(say)) as place:
        session = place.session()
        said = place.answer(session, "so?")
        data = {"id": "judgement-0", "session": session, "exchange": said.exchange, "choice": "left"}
        assert place.ask("POST", "/api/compare", data).status == 200
    (document,) = FeedbackFile(tmp_path / "feedback.db").documents()
    assert isinstance(document.content, Preference)
    assert document.content.cut == ((False, True) if said.shown[0] == "short" else (True, False))


def test_a_model_says_whether_its_length_has_cut_it() -> None:
    for longest, is_cut in ((1, True), (300, False)):
        talker = speaker(max_new_tokens=longest)
        asked = talker.asked(Session("s", 0), "so?")
        pieces = list(talker.answers(asked, 2, 0, 1))
        last = {i: piece for i, piece in pieces if isinstance(piece, bool)}
        assert last == {0: is_cut, 1: is_cut} and all(isinstance(piece, str | bool) for _, piece in pieces)
