"""Messages to a real HTTP server on this machine, and to real programs."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from levit_batch.job.config import NotifyConfig
from levit_batch.storage import retry
from pipelines.nightly.notify import TRIES, notify

SECRET = "T0K3N"


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)


class Hook:
    """A webhook that answers with `codes`, one after the other, then 200; and remembers what it was sent."""

    def __init__(self, codes=(), delay=0.0):
        self.codes, self.got = list(codes), []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
                time.sleep(delay)
                self.send_response(hook.codes.pop(0) if hook.codes else 200)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hooks/{SECRET}?key={SECRET}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def send(events=("failure",), payload=None, **config) -> list[str]:
    said = []
    notify(NotifyConfig(**config), set(events), payload or {"text": "hello"}, said.append)
    return said


def test_webhook_gets_json():
    with Hook() as hook:
        assert send(webhook=hook.url) == []
        ((path, kind, body),) = hook.got
    assert path.startswith("/hooks/") and kind == "application/json"
    assert body == {"text": "hello", "events": ["failure"]}


@pytest.mark.parametrize(
    ("events", "on", "sent"),
    [
        ({"success"}, ["failure", "drift"], 0),
        ({"success", "drift"}, ["failure", "drift"], 1),
        ({"success"}, ["success"], 1),
        ({"failure"}, ["success", "drift"], 0),
    ],
)
def test_only_events_that_were_asked_for(events, on, sent):
    with Hook() as hook:
        send(events, webhook=hook.url, on=on)
        assert len(hook.got) == sent


def test_tries_again_while_the_server_may_recover():
    with Hook([503, 429]) as hook:
        assert send(webhook=hook.url) == []
        assert len(hook.got) == 3


def test_gives_up_in_one_line_that_holds_no_secret():
    with Hook([500] * 9) as hook:
        (said,) = send(webhook=hook.url)
        assert len(hook.got) == TRIES
    assert said == "notify.webhook at 127.0.0.1 was not told: it answers 500"


def test_does_not_insist_where_the_address_is_wrong():
    with Hook([404]) as hook:
        (said,) = send(webhook=hook.url)
        assert len(hook.got) == 1
    assert "404" in said and SECRET not in said


def test_server_that_does_not_answer_in_time_or_at_all():
    with Hook(delay=1.0) as hook:
        (said,) = send(webhook=hook.url, timeout=0.1)
        url = hook.url
    assert "timed out" in said
    (said,) = send(webhook=url)
    assert "refused" in said and SECRET not in said
    (said,) = send(webhook=f"nonsense {SECRET}")
    assert SECRET not in said


def test_secrets_are_taken_out_of_what_is_sent():
    with Hook() as hook:
        send(payload={"output": "s3://user:pass@host/out", "text": "hf_" + "a1B2" * 9}, webhook=hook.url)
        assert hook.got[0][2] == {"output": "s3://***@host/out", "text": "hf_***", "events": ["failure"]}


def test_command_gets_the_same_on_standard_input(tmp_path):
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"
    assert send(command=[sys.executable, "-c", script, str(tmp_path / "got")]) == []
    assert json.loads((tmp_path / "got").read_text()) == {"text": "hello", "events": ["failure"]}


def test_command_that_fails_hangs_or_is_not_there_is_one_line():
    (said,) = send(command=[sys.executable, "-c", "import sys; sys.exit('no mail today')"])
    assert said.endswith("failed: exit code 1: no mail today")
    (said,) = send(command=[sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)
    assert "longer than 0.2 s" in said
    loud = [sys.executable, "-c", "import sys; sys.exit('cannot reach ' + sys.argv[1])", f"https://hooks/{SECRET}/x"]
    (said,) = send(command=loud)
    assert said.endswith("cannot reach ***") and SECRET not in said
    (said,) = send(command=["no-such-program-here"])
    assert "no-such-program-here" in said
