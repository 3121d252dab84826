"""The HTTP service: what it answers, what it refuses, and several at once."""

import http.client
import json
import signal
import socket
import threading
import time

import pytest

from fairseq_plugins.generation.ctranslate2_backend import CTranslate2Backend
from fairseq_plugins.generation.decoding import DecodingFailed
from fairseq_plugins.serving import service
from fairseq_plugins.serving.service import Model, check_port, make_app, make_server, serve
from fairseq_plugins.serving.translate import main
from fairseq_plugins.serving.translator import TooSlow, Translator
from tests.fixtures.exported import exported_models
from tests.fixtures.models import toy_lines

NAMES = ("teacher", "general student", "9")


@pytest.fixture(scope="module")
def models():
    translators = [Translator(path, workers=1, threads=1) for path in exported_models()]
    return [Model(name, f"about {name}", one) for name, one in zip(NAMES, translators)]


@pytest.fixture
def client(models):
    return make_app(models, beam=3).test_client()


@pytest.fixture
def address(models):
    """(host, port) of a service that listens."""
    server = make_server(make_app(models, beam=3), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield "127.0.0.1", int(server.effective_port)
    server.close()
    server.task_dispatcher.shutdown()


def ask(client, **wish):
    return client.post("/translate", json=wish)


def test_every_model_answers_by_its_name_and_in_order(client, models):
    text = "ba be bi\n\nbo bu da"
    answer = ask(client, text=text).get_json()
    assert (answer["source_language"], answer["target_language"]) == ("de", "en")
    assert (answer["beam"], answer["nbest"]) == (3, 1)
    assert [found["model"] for found in answer["translations"]] == list(NAMES)
    for found, model in zip(answer["translations"], models):
        expected = model.translator.translate(text.split("\n"), beam=3).candidates
        assert found["text"] == "\n".join(one.text for (one,) in expected)
        assert [line["text"] for line in found["lines"]] == [one.text for (one,) in expected]
        assert [line["score"] for line in found["lines"]] == pytest.approx(
            [one.normalised for (one,) in expected], abs=1e-4
        )
        assert found["lines"][1]["text"] == ""
        assert found["milliseconds"] > 0
        assert found["pieces"] == sum(one.pieces for (one,) in expected)


def test_models_beam_and_candidates_can_be_chosen(client, models):
    answer = ask(client, text="ba be bi bo", models=["9", "teacher"], beam=4, nbest=4).get_json()
    assert [found["model"] for found in answer["translations"]] == ["9", "teacher"]
    expected = models[2].translator.translate(["ba be bi bo"], beam=4, n_best=4).candidates[0]
    (line,) = answer["translations"][0]["lines"]
    assert [one["text"] for one in line["candidates"]] == [one.text for one in expected]
    texts = {
        ask(client, text=line, beam=beam).get_json()["translations"][0]["text"]
        for line in toy_lines(5) for beam in (1, 8)
    }  # fmt: skip
    assert len(texts) > 5, "the beam makes no difference"


def test_others_are_compared_with_the_first_model_that_was_asked(client):
    answer = ask(client, text="ba be bi", models=["9", "teacher"]).get_json()
    first, second = (found["lines"][0] for found in answer["translations"])
    assert first["differences"] is None
    assert "".join(part["text"] for part in second["differences"]) == second["text"]
    assert any(part.get("differs") or part.get("missing") for part in second["differences"])


def test_a_long_line_is_cut_and_says_so(client):
    lines = ask(client, text="ba\n" + "ba " * 400).get_json()["translations"][0]["lines"]
    assert [line["cut"] for line in lines] == [False, True]


def test_health_and_description_tell_the_models_but_no_path(client):
    health = client.get("/health")
    assert health.get_json()["status"] == "ok"
    assert [model["name"] for model in health.get_json()["models"]] == list(NAMES)
    assert health.get_json()["models"][0]["parameters"] > 0
    description = client.get("/api")
    assert description.mimetype == "text/plain"
    for name in (*NAMES, "nbest", "5,000 characters"):
        assert name in description.text
    for path in exported_models():
        for answer in (health, description, client.get("/")):
            assert str(path.parent) not in answer.text


@pytest.mark.parametrize("send, status, words", [
    ({"data": b'{"text": "\xff"}'}, 400, "not UTF-8"),
    ({"data": b"text=a"}, 400, "not JSON"),
    ({"data": b'{"text": ""}'}, 400, "text is empty"),
    ({"data": b'{"text": "a", "models": ["/etc"]}'}, 400, "no model '/etc'"),
    ({"data": b'{"text": "a", "beam": 99}'}, 400, "beam is a whole number from 1 to 20"),
    ({"data": b'{"text": "' + b"a" * 6000 + b'"}'}, 413, "6,000 characters"),
    ({"data": b'{"text": "' + b"a" * 1_000_000 + b'"}'}, 413, "the request is too large"),
    ({"data": b'{"text": "a"}', "content_type": "text/plain"}, 415, "application/json"),
    ({"data": b'{"text": "a"}', "content_type": ""}, 415, "application/json"),
    ({"data": b'{"text": "a"}', "content_type": "application/x-www-form-urlencoded"}, 415,
     "application/json"),
])  # fmt: skip
def test_a_wrong_request_is_answered_by_a_sentence_in_json(client, send, status, words):
    answer = client.post("/translate", **{"content_type": "application/json", **send})
    assert answer.status_code == status
    assert answer.mimetype == "application/json"
    assert words in answer.get_json()["error"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/nothing", 404), ("GET", "/../service.py", 404), ("GET", "/service.py", 404),
    ("GET", "/page.html", 404), ("GET", "/translate", 405), ("DELETE", "/", 405),
    ("GET", "/page.js/../service.py", 404),
])  # fmt: skip
def test_nothing_else_is_served(client, method, path, status):
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.mimetype) == (status, "application/json")


@pytest.mark.parametrize("path", ["/", "/api", "/health", "/page.js", "/page.css", "/icon.svg"])
def test_pages_elsewhere_can_neither_read_nor_frame_nor_keep_it(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in answer.headers
    for name in ("evil.example", "a b"):
        refused = client.get(path, headers={"Host": name})
        assert (refused.status_code, refused.mimetype) == (400, "application/json")


def test_a_page_elsewhere_that_asks_first_gets_no_leave(client):
    answer = client.options("/translate", headers={
        "Origin": "http://evil.example", "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    })  # fmt: skip
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


def test_names_are_text_in_the_page(models):
    bold = Model("<b>x</b>", "<script>", models[0].translator)
    page = make_app([bold], beam=3).test_client().get("/").text
    assert "<b>" not in page and "<script>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


@pytest.mark.parametrize("error, words", [
    (TooSlow, "takes longer than 60 s"), (DecodingFailed, "the decoder gave up"),
])  # fmt: skip
def test_what_cannot_be_translated_now_is_answered_503(client, monkeypatch, error, words):
    def fail(*args):
        raise error

    monkeypatch.setattr(Translator, "translate", fail)
    answer = ask(client, text="ba")
    assert answer.status_code == 503
    assert words in answer.get_json()["error"]


def test_our_own_mistakes_are_told_to_the_terminal_alone(client, monkeypatch, capsys):
    monkeypatch.setattr(service, "differences", lambda text, other: 1 / 0)
    answer = ask(client, text="ba")
    assert answer.status_code == 500
    assert "terminal" in answer.get_json()["error"] and "division" not in answer.text
    assert "ZeroDivisionError" in capsys.readouterr().err
    monkeypatch.undo()
    assert ask(client, text="ba").status_code == 200


def test_a_line_that_the_decoder_gives_up_on_is_no_empty_translation(models, monkeypatch):
    def give_up(*args):
        raise DecodingFailed("no memory")

    monkeypatch.setattr(CTranslate2Backend, "begin", give_up)
    with pytest.raises(DecodingFailed):
        models[0].translator.translate(["ba be"], beam=3)


def test_a_deadline_ends_a_translation_between_batches(models):
    translator = models[0].translator
    with pytest.raises(TooSlow):
        translator.translate(["ba be"], beam=3, deadline=time.monotonic() - 1)
    lines = toy_lines(3)
    plain = translator.translate(lines, beam=3).candidates
    assert translator.translate(lines, 3, deadline=time.monotonic() + 60).candidates == plain


# -- over the wire -------------------------------------------------------------------------


def post(address, body, **headers):
    connection = http.client.HTTPConnection(*address, timeout=60)
    try:
        connection.request(
            "POST", "/translate", body, {"Content-Type": "application/json", **headers}
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_many_at_once_get_what_each_would_get_alone(address):
    lines = toy_lines(8, seed=3)
    bodies = [json.dumps({"text": line, "beam": 1 + number % 4})
              for number, line in enumerate(lines)]  # fmt: skip
    alone = [post(address, body) for body in bodies]
    together = [None] * len(bodies)

    def keep(number):
        together[number] = post(address, bodies[number])

    threads = [threading.Thread(target=keep, args=[number]) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def texts(answers):
        return [(status, [found["text"] for found in answer["translations"]])
                for status, answer in answers]  # fmt: skip

    assert texts(together) == texts(alone)


def test_who_comes_when_too_many_wait_is_sent_away_and_others_are_served(address, monkeypatch):
    inside, leave = threading.Event(), threading.Event()
    translate = Translator.translate

    def hold(self, *args):
        inside.set()
        leave.wait(60)
        return translate(self, *args)

    monkeypatch.setattr(Translator, "translate", hold)
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(post(address, '{"text": "ba"}')[0]))
        for _ in range(service.WAITING + 3)
    ]
    for thread in threads:
        thread.start()
    inside.wait(60)
    while statuses.count(503) < 2:  # one is inside, WAITING are behind it
        time.sleep(0.005)
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.request("GET", "/health")  # answers nevertheless
    assert json.loads(connection.getresponse().read())["waiting"] == service.WAITING
    leave.set()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * (service.WAITING + 1) + [503] * 2


def test_a_megabyte_over_the_wire_is_refused_in_json(address):
    status, answer = post(address, json.dumps({"text": "ba " * 350_000}))
    assert status == 413
    assert "5,000 characters are the most at once" in answer["error"]


# -- the command ---------------------------------------------------------------------------


def test_a_port_in_use_is_named_with_one_that_is_free(address):
    host, port = address
    with pytest.raises(ValueError, match=rf"port {port} of {host} is in use; .* --port (\d+)") as e:
        check_port(host, port)
    free = int(str(e.value).rsplit(" ", 1)[1])
    with socket.create_server((host, free)):
        pass


@pytest.mark.parametrize("host, port, complaint", [
    ("127.0.0.1", 70000, "--port is 0 to 65535, not 70000"),
    ("nowhere.invalid", 0, "--host nowhere.invalid is no address"),
    ("192.0.2.1", 0, "cannot listen at 192.0.2.1"),
])  # fmt: skip
def test_an_address_that_cannot_be_listened_at_is_refused(host, port, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_port(host, port)


@pytest.fixture
def served(monkeypatch):
    """Serves until its first sentence on the address was said; what was said."""
    said = []

    def say(text):
        said.append(text)

    def call(models, host, **options):
        server = {}

        def make(*args):
            server["one"] = make_server(*args)
            server["one"].run = server["one"].close
            return server["one"]

        monkeypatch.setattr(service, "make_server", make)
        serve(models, host, 0, 3, say=say, **options)
        server["one"].task_dispatcher.shutdown()
        return said

    return call


def test_only_loopback_needs_no_warning(served, models, monkeypatch):
    opened = []
    monkeypatch.setattr(service.webbrowser, "open", opened.append)
    said = served(models, "127.0.0.1", browse=True)
    assert said[0].startswith(f"{', '.join(NAMES)} at http://127.0.0.1:")
    assert opened == [said[0].split()[-3]]
    assert "warning: --host 0.0.0.0 lets whoever reaches" in served(models, "0.0.0.0")[2]
    assert len(opened) == 1


@pytest.mark.parametrize("words, complaint", [
    ([], "name models with --model NAME=DIR"),
    (["--domain", "talks"], "--domain chooses among those of --run"),
    (["--model", "a=MODEL", "--model", "a=MODEL"], "two models are called 'a'"),
    (["--model", "=MODEL"], "--model takes NAME=DIR"),
    (["--model", "a=MODEL", "--port", "0", "--beam", "21"], "--beam is 1 to 20 with --serve"),
    (["--model", "a=MODEL", "--port", "-1"], "--port is 0 to 65535"),
    (["--run", "MODEL"], "holds no run; name the --work of a recipe"),
])  # fmt: skip
def test_wishes_that_cannot_be_served_are_refused(monkeypatch, capsys, words, complaint):
    model = str(exported_models()[0])
    words = [word.replace("MODEL", model) for word in words]
    monkeypatch.setattr("sys.argv", ["dad-translate", "--serve", *words])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 1
    assert complaint in capsys.readouterr().err
