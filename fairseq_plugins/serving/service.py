"""A page and an HTTP service for a few exported models, by Flask and waitress.

``GET /``           the page
``GET /api``        how to use the service, as text
``GET /health``     {"status": "ok", "models": [...], "waiting": 0}
``POST /translate`` {"text": "..."} to translations

One request is translated at a time, by one model after the other, so that their times can be
compared; a few more wait for their turn, others are sent away.
"""

import ipaddress
import json
import re
import socket
import threading
import time
import traceback
import webbrowser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import waitress
from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from fairseq_plugins.generation.decoding import DecodingFailed
from fairseq_plugins.serving.differences import differences
from fairseq_plugins.serving.translator import TooSlow, Translator

MOST_CHARACTERS = 5_000
MOST_LINES = 50
MOST_BYTES = 1 << 17  # of a request's body: 5,000 characters are less, however they are written
MOST_BEAM = 20
MOST_BEST = 10
WAITING = 8  # requests, behind the one that is translated
SECONDS = 60  # from a request's arrival to its answer
BUFFERED_BYTES = 1 << 24  # a body up to this is read, and refused with words
NEXT_PORTS = 50  # that are tried for a proposal

FIELDS = ("text", "models", "beam", "nbest")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FOLDER = Path(__file__).parent
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<rect width="16" height="16" rx="3" fill="#0b6e99"/>'
    '<path d="M3 5.5h7M7.5 3 10 5.5 7.5 8M13 10.5H6M8.5 8 6 10.5 8.5 13" '
    'fill="none" stroke="#fff" stroke-width="1.5"/></svg>'
)

API = """\
POST /translate          Content-Type: application/json, in UTF-8
  text     what to translate, a sentence a line: at most {characters:,} characters, {lines} lines
  models   names of the models to ask, a list; left out: all. Here: {names}
  beam     1 to {most_beam}, hypotheses kept at each step; left out: {beam}
  nbest    1 to {most_best}, at most beam: translations of each line; left out: 1

Answer: {{"source_language", "target_language", "beam", "nbest", "translations"}},
translations is a list with, for each model
  model              its name
  text               the translation, as many lines as the request's text
  milliseconds       text to text, while this service translates nothing else
  pieces, pieces_per_second   what was generated
  lines              for each line
    text             the best translation
    score            its log-probability per piece, in nats; 0 is certain
    cut              true: the line is too long, only its beginning was translated
    candidates       nbest of {{"text", "score"}}, the best first
    differences      to the first model's translation; null for the first model

Errors have a status of 400 or more and {{"error": "a sentence"}}: 400 the request is wrong,
404 no such address, 413 too much text, 415 not application/json, 503 busy or too slow.
At most {waiting} requests wait for the one that is translated; an answer takes {seconds} s at most.

GET /health              {{"status": "ok", "models": [...], "waiting": 0}}

Example
  curl {address}translate -H 'Content-Type: application/json' -d '{{"text": "..."}}'
"""


@dataclass(frozen=True)
class Model:
    """A model that people choose by its name.

    ``about`` says in a few words what it is, and may be empty.
    """

    name: str
    about: str
    translator: Translator

    def record(self):
        """What the service tells about it; no path of this machine."""
        source, target = self.translator.languages
        return {
            "name": self.name,
            "about": self.about,
            "source_language": source,
            "target_language": target,
            "bytes": self.translator.bytes,
            "parameters": self.translator.parameters,
        }


class Refused(Exception):
    """A request that gets no translation: the HTTP status and a sentence."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Desk:
    """Translates one request at a time; a few more may wait."""

    def __init__(self):
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(1 + WAITING)
        self._counting = threading.Lock()
        self.present = 0  # requests that are translated or wait

    @contextmanager
    def turn(self, deadline):
        """Wait for one's turn, until the deadline at most.

        Raises:
            Refused: too many wait already, or the deadline passed.
        """
        if not self._places.acquire(blocking=False):
            raise Refused(503, f"{WAITING} requests wait already; try again in a moment")
        try:
            with self._counting:
                self.present += 1
            if not self._turn.acquire(timeout=max(deadline - time.monotonic(), 0)):
                raise Refused(503, f"others were translated for {SECONDS} s; try again later")
            try:
                yield
            finally:
                self._turn.release()
        finally:
            with self._counting:
                self.present -= 1
            self._places.release()


@dataclass(frozen=True)
class Wish:
    """A request that was found in order."""

    lines: list
    models: list
    beam: int
    n_best: int


def read_wish(data, models, default_beam):
    """The :class:`Wish` in the body of a request.

    Args:
        data: bytes.
        models: {name: Model}.

    Raises:
        Refused: says what is wrong with it.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(400, f"the request is not UTF-8 at byte {error.start + 1:,}") from None
    try:
        wish = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the request is not JSON ({error})") from None
    if not isinstance(wish, dict):
        raise Refused(400, 'the request is not a JSON object such as {"text": "..."}')
    for name in wish:
        if name not in FIELDS:
            raise Refused(400, f"{name[:40]!r} is unknown; there are {', '.join(FIELDS)}")
    beam = _number(wish, "beam", default_beam, MOST_BEAM)
    n_best = _number(wish, "nbest", 1, MOST_BEST)
    if n_best > beam:
        raise Refused(400, f"a beam of {beam} finds {beam} translations, not the {n_best} of nbest")
    return Wish(_lines(wish.get("text")), _models(wish.get("models"), models), beam, n_best)


def _number(wish, name, default, most):
    value = wish.get(name, default)
    if type(value) is not int or not 1 <= value <= most:
        shown = f", not {value}" if isinstance(value, (int, float)) else ""
        raise Refused(400, f"{name} is a whole number from 1 to {most}{shown}")
    return value


def _lines(text):
    if not isinstance(text, str) or not text.strip():
        raise Refused(400, "text is empty; it holds what to translate, one sentence a line")
    if len(text) > MOST_CHARACTERS:
        raise Refused(
            413, f"the text has {len(text):,} characters; {MOST_CHARACTERS:,} are the most at once"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(400, f"character {error.start + 1:,} of text is half a character") from None
    lines = text.removesuffix("\n").split("\n")
    if len(lines) > MOST_LINES:
        raise Refused(413, f"the text has {len(lines):,} lines; {MOST_LINES} are the most at once")
    return lines


def _models(names, models):
    if names is None:
        return list(models.values())
    if not isinstance(names, list) or not names:
        raise Refused(400, "models is a list of names; leave it out to ask all")
    for name in names:
        if not isinstance(name, str) or name not in models:
            shown = f" {name[:80]!r}" if isinstance(name, str) else " of that name"
            raise Refused(400, f"there is no model{shown}; there are {', '.join(models)}")
    return [models[name] for name in dict.fromkeys(names)]


def translate(wish, desk):
    """The answer to a :class:`Wish`, as ``GET /api`` describes it.

    Raises:
        Refused: the service is busy or too slow.
    """
    deadline = time.monotonic() + SECONDS
    with desk.turn(deadline):
        try:
            found = [
                model.translator.translate(wish.lines, wish.beam, wish.n_best, deadline)
                for model in wish.models
            ]
        except TooSlow:
            raise Refused(503, f"this takes longer than {SECONDS} s; send less text") from None
        except DecodingFailed:
            raise Refused(503, "the decoder gave up; send less text, or a smaller beam") from None
    source, target = wish.models[0].translator.languages
    return {
        "source_language": source,
        "target_language": target,
        "beam": wish.beam,
        "nbest": wish.n_best,
        "translations": [
            _record(model, translated, found[0])
            for model, translated in zip(wish.models, found, strict=True)
        ],
    }


def _record(model, translated, first):
    best = [candidates[0] for candidates in translated.candidates]
    return {
        "model": model.name,
        "text": "\n".join(candidate.text for candidate in best),
        "milliseconds": round(translated.seconds * 1000, 1),
        "pieces": translated.pieces,
        "pieces_per_second": round(translated.pieces / max(translated.seconds, 1e-6), 1),
        "lines": [
            {
                "text": best[index].text,
                "score": round(best[index].normalised, 4),
                "cut": index in translated.cut,
                "candidates": [
                    {"text": candidate.text, "score": round(candidate.normalised, 4)}
                    for candidate in candidates
                ],
                "differences": None if translated is first else differences(
                    best[index].text, first.candidates[index][0].text
                ),
            }
            for index, candidates in enumerate(translated.candidates)
        ],
    }  # fmt: skip


# -- the web -------------------------------------------------------------------------------


def make_app(models, beam, names=("localhost",)):
    """The Flask application.

    Args:
        models: list of :class:`Model` with different names, the first one is compared with.
        beam: where a request has none.
        names: that this machine is called by; any address in numbers is fine, too.

    Raises:
        ValueError: the models translate between different languages, or no such beam.
    """
    languages = _languages(models)
    if not 1 <= beam <= MOST_BEAM:
        raise ValueError(f"--beam is 1 to {MOST_BEAM} with --serve, not {beam}")
    by_name, desk = {model.name: model for model in models}, Desk()
    app = Flask(__name__, static_folder=None, template_folder=str(FOLDER))
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.json.sort_keys = False
    app.json.ensure_ascii = False

    @app.before_request
    def check_host():
        # a page elsewhere may give its own name this machine's address, and would then be ours
        if not host_is_known(request.host, names):
            raise Refused(400, "this service does not go by that name; use its address")

    @app.after_request
    def add_headers(response):
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    @app.errorhandler(Refused)
    def refuse(refused):
        return jsonify(error=refused.sentence), refused.status

    @app.errorhandler(HTTPException)
    def refuse_http(error):
        sentence = {
            404: "there is nothing here; see /api",
            405: f"{request.method} does not work here; see /api",
            413: f"the request is too large; {MOST_CHARACTERS:,} characters are the most at once",
        }.get(error.code, error.description)
        return jsonify(error=sentence), error.code

    @app.errorhandler(Exception)
    def fail(error):
        traceback.print_exception(error)
        return jsonify(error="something went wrong here; the terminal says what"), 500

    @app.get("/")
    def page():
        return render_template(
            "page.html", models=[model.record() for model in models], beam=beam,
            source=_tag(languages[0]), target=_tag(languages[1]), most_beam=MOST_BEAM,
            most_characters=MOST_CHARACTERS, most_lines=MOST_LINES, most_best=MOST_BEST,
        )  # fmt: skip

    @app.get("/page.css")
    def style():
        return Response((FOLDER / "page.css").read_bytes(), mimetype="text/css")

    @app.get("/page.js")
    def script():
        return Response((FOLDER / "page.js").read_bytes(), mimetype="text/javascript")

    @app.get("/icon.svg")
    def icon():
        return Response(ICON, mimetype="image/svg+xml")

    @app.get("/api")
    def api():
        text = API.format(
            names=", ".join(by_name), beam=beam, address=request.host_url, waiting=WAITING,
            characters=MOST_CHARACTERS, lines=MOST_LINES, most_beam=MOST_BEAM, most_best=MOST_BEST,
            seconds=SECONDS,
        )  # fmt: skip
        return Response(text, mimetype="text/plain")

    @app.get("/health")
    def health():
        return jsonify(
            status="ok", models=[model.record() for model in models],
            waiting=max(desk.present - 1, 0),
        )  # fmt: skip

    @app.post("/translate")
    def post_translate():
        # pages elsewhere cannot send this type without asking first, and are not answered
        if request.mimetype != "application/json":
            raise Refused(415, "the request's Content-Type is application/json, nothing else")
        return jsonify(translate(read_wish(request.get_data(), by_name, beam), desk))

    return app


def host_is_known(host, names):
    """Whether a Host header is an address in numbers or one of ``names``, with any port."""
    name = re.sub(r":\d*$", "", host).lower()
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name in names
    return True


def _languages(models):
    """(source, target) of all models; None where none of them says."""
    for model in models:
        for other in models:
            ours, theirs = model.translator.languages, other.translator.languages
            if None not in (*ours, *theirs) and ours != theirs:
                raise ValueError(
                    f"{model.name} translates {'-'.join(ours)} and {other.name} "
                    f"{'-'.join(theirs)}; models side by side have the same languages"
                )
    known = [model.translator.languages for model in models]
    return next((langs for langs in known if None not in langs), (None, None))


def _tag(lang):
    """A language code as HTML knows it, or '' where it is none."""
    tag = (lang or "").replace("_", "-")
    return tag if re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", tag) else ""


def check_port(host, port):
    """Refuse an address that cannot be listened at.

    Raises:
        ValueError: says why, and what to do.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is 0 to 65535, not {port}")
    try:
        _try(host, port)
    except socket.gaierror:
        raise ValueError(f"--host {host} is no address of this machine") from None
    except PermissionError:
        raise ValueError(f"port {port} is not for everyone; take one from 1024 on") from None
    except OSError as error:
        free = next((p for p in range(port + 1, port + NEXT_PORTS) if _is_free(host, p)), 0)
        if not free:
            raise ValueError(f"cannot listen at {host}, port {port}: {error.strerror}") from None
        raise ValueError(
            f"port {port} of {host} is in use; another is free: --port {free}"
        ) from None


def _try(host, port):
    family, address = _resolve(host, port)
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)


def _resolve(host, port):
    """(family, address) of a name or number, the first one where there are several."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, address


def _is_free(host, port):
    try:
        _try(host, port)
    except (OSError, OverflowError):
        return False
    return True


def make_server(app, host, port):
    """waitress, listening; ``run`` answers, ``close`` ends it."""
    _, (number, *_) = _resolve(host, port)
    return waitress.create_server(
        app, host=number, port=port, threads=WAITING + 4, ident=None,
        max_request_body_size=BUFFERED_BYTES, clear_untrusted_proxy_headers=True,
    )  # fmt: skip


def serve(models, host, port, beam, browse=False, say=lambda text: None):
    """Answer until Ctrl-C or SIGTERM.

    Args:
        models: list of :class:`Model`.
        host, port: where to listen; port 0 is any that is free.
        beam: what the page begins with.
        browse: whether to open the page in the browser.
        say: called with the address, and with warnings.
    """
    app = make_app(models, beam, names=("localhost", host.lower(), socket.gethostname().lower()))
    for model in models:
        # the first sentence takes longer than those after it
        model.translator.translate(["a"], beam)
    try:
        server = make_server(app, host, port)
    except OSError as error:
        raise ValueError(f"cannot listen at {host}, port {port}: {error.strerror}") from None
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{server.effective_port}/"
    if not is_loopback(host):
        say(
            f"warning: --host {host} lets whoever reaches this machine use the models; there is "
            f"no password, and texts travel unencrypted"
        )
    say(f"{', '.join(model.name for model in models)} at {address} (Ctrl-C stops)")
    if browse:
        webbrowser.open(address)
    server.run()  # until Ctrl-C
    say("stopped")


def is_loopback(host):
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
