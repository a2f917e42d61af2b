"""A forgotten password: from the image to the new session, by people, by guessers, and while something is down."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from PIL import Image
from werkzeug.test import TestResponse

from common.core.errors import StoreUnavailable
from common.services import accounts, captcha_image, jobs, key_rotation, password_reset, passwords
from common.services.plane import Plane
from common.worker.loop import Worker, handlers
from common.worker.tally import Tally
from tests.mail_sink import MailSink
from tests.people import Clock, Person, World, new_password
from tests.statements import statements

NOBODY = "nobody@ragkeeper.test"
ROUTES = {
    "legacy": {
        "captcha": ("GET", "/v1/user/forget/captcha"),
        "otp": ("POST", "/v1/user/forget/otp"),
        "verify": ("POST", "/v1/user/forget/verify-otp"),
        "reset": ("POST", "/v1/user/forget/reset-password"),
    },
    "new": {
        "captcha": ("POST", "/api/v1/auth/password/forgot/captcha"),
        "otp": ("POST", "/api/v1/auth/password/forgot/otp"),
        "verify": ("POST", "/api/v1/auth/password/forgot/otp/verify"),
        "reset": ("POST", "/api/v1/auth/password/reset"),
    },
}


@pytest.fixture
def sink() -> Iterator[MailSink]:
    with MailSink() as listening:
        yield listening


@pytest.fixture
def mailing(plane: Plane, sink: MailSink) -> World:
    """Both servers, with a mail server."""
    configured = dataclasses.replace(plane, settings=plane.settings.model_copy(update={"smtp": sink.settings()}))
    return World(configured)


class Forgetful:
    """Somebody without a password, at one of RAGFlow's web clients."""

    def __init__(self, world: World, email: str, monkeypatch: pytest.MonkeyPatch, form: str = "new") -> None:
        self.world = world
        self.email = email
        self.form = ROUTES[form]
        self.read = ""
        self.headers: dict[str, str] = {}
        draw = captcha_image.draw

        def reading(text: str) -> bytes:
            self.read = text
            return draw(text)

        monkeypatch.setattr(captcha_image, "draw", reading)

    def asks(self, step: str, **body: object) -> TestResponse:
        """One request of the client."""
        method, path = self.form[step]
        if step == "captcha":
            return self.world.api.ask(method, path, query_string={"email": self.email})
        return self.world.api.ask(method, path, {"email": self.email, **body}, headers=self.headers)

    def wants_code(self) -> TestResponse:
        """Reads the image and asks for the mail."""
        assert self.asks("captcha").status_code == 200
        return self.asks("otp", captcha=self.read)

    def code(self, sink: MailSink) -> str:
        """Gets the mail, and reads it."""
        answer = self.wants_code()
        assert answer.json == {"code": 0, "message": answer.json["message"], "data": True}
        work(self.world)
        return code_in(sink)

    def resets(self, **more: object) -> tuple[TestResponse, str]:
        """Sends a new password, twice."""
        password = new_password()
        return self.asks("reset", new_password=password, confirm_new_password=password, **more), password


def code_in(sink: MailSink) -> str:
    """The code of the latest mail."""
    part = sink.messages[-1].get_body(("plain",))
    assert part is not None
    [code] = re.findall(r"\b[A-Z]{6}\b", part.get_content())
    return str(code)


def work(world: World) -> None:
    """Let a worker do what waits."""
    worker = Worker(world.plane, "worker", handlers(), Tally(), threading.Event())
    while worker.work_once():
        pass


@pytest.fixture
def forgetful(mailing: World, monkeypatch: pytest.MonkeyPatch) -> Forgetful:
    """Someone who has an account."""
    return Forgetful(mailing, mailing.person("ann@ragkeeper.test").email, monkeypatch)


def outcome(answer: TestResponse) -> tuple[int, Any, Any]:
    """What a client sees of an answer, but for the wording of a wait."""
    assert answer.json is not None
    return answer.status_code, answer.json["code"], re.sub(r"\d+", "N", answer.json["message"])


@pytest.mark.parametrize("form", ["legacy", "new"])
def test_image_code_password_session(
    mailing: World, sink: MailSink, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    ann = mailing.person("ann@ragkeeper.test")
    old_session, old_admin = ann.session, mailing.root.session
    someone = Forgetful(mailing, "Ann@Ragkeeper.test", monkeypatch, form)

    code = someone.code(sink)
    verified = someone.asks("verify", otp=code.lower())
    answer, password = someone.resets()

    assert sink.recipients == [ann.email]
    assert (verified.json["code"], verified.json["data"]) == (0, True)
    assert (answer.json["code"], answer.json["data"]["email"]) == (0, ann.email)
    assert mailing.api.ask("GET", "/v1/user/info", credential=answer.headers["Authorization"]).json["code"] == 0
    assert mailing.api.ask("GET", "/v1/user/info", credential=old_session).status_code == 401
    assert mailing.api.ask("GET", "/v1/user/info", credential=old_admin).status_code == 200
    assert log_in(mailing, ann.email, password) == 0
    assert log_in(mailing, ann.email, ann.password) == 109


def test_r36_the_form_of_0_22_sends_code_and_password_at_once(forgetful: Forgetful, sink: MailSink) -> None:
    code, password = forgetful.code(sink), new_password()
    body = {"email": forgetful.email, "otp": code, "new_password": password, "confirm_new_password": password}

    answer = forgetful.world.api.ask("POST", "/v1/user/forget", body)

    assert (answer.status_code, answer.json["code"]) == (200, 0)
    assert answer.headers["Authorization"]
    assert answer.headers["Access-Control-Expose-Headers"] == "Authorization"
    assert log_in(forgetful.world, forgetful.email, password) == 0
    assert forgetful.world.api.ask("POST", "/v1/user/forget", body).json["code"] == 10, "a code counts once"


def log_in(world: World, email: str, password: str) -> int:
    return int(world.api.ask("POST", "/v1/user/login", {"email": email, "password": password}).json["code"])


def test_the_image_is_one_with_something_on_it(forgetful: Forgetful) -> None:
    answer = forgetful.asks("captcha")

    assert answer.mimetype == "image/jpeg"
    assert answer.headers["Cache-Control"] == "no-store"
    image = Image.open(io.BytesIO(answer.data))
    dark = sum(image.convert("L").histogram()[:160])
    assert image.size == (240, 80)
    assert 240 * 80 / 50 < dark < 240 * 80 / 3


def base64_of(world: World, plain: str) -> str:
    return base64.b64encode(plain.encode()).decode()


def encrypted(world: World, plain: str) -> str:
    pem = world.api.ask("GET", "/api/v1/system/public-key").json["data"]
    key = serialization.load_pem_public_key((pem if isinstance(pem, str) else pem["public_key"]).encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return base64.b64encode(key.encrypt(base64.b64encode(plain.encode()), padding.PKCS1v15())).decode()


@pytest.mark.parametrize("form", [base64_of, encrypted])
def test_the_passwords_may_come_in_the_forms_of_ragflows_clients(
    forgetful: Forgetful, sink: MailSink, form: Callable[[World, str], str]
) -> None:
    forgetful.asks("verify", otp=forgetful.code(sink))
    plain = "quite a fine password 密码"
    given = {name: form(forgetful.world, plain) for name in ("new_password", "confirm_new_password")}

    assert forgetful.asks("reset", **given).json["code"] == 0

    assert log_in(forgetful.world, forgetful.email, plain) == 0


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("short", "short", "at least 12"),
        (base64.b64encode(b"short").decode(), base64.b64encode(b"short").decode(), "at least 12"),
        ("a fine long password", "a fine long passwort", "confirm_new_password"),
    ],
)
def test_a_password_that_will_not_do_costs_neither_code_nor_verification(
    forgetful: Forgetful, sink: MailSink, first: str, second: str, said: str
) -> None:
    forgetful.asks("verify", otp=forgetful.code(sink))

    answer = forgetful.asks("reset", new_password=first, confirm_new_password=second)

    assert answer.json["code"] == 101
    assert said in answer.json["message"]
    assert forgetful.resets()[0].json["code"] == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_a_store_that_is_down_costs_neither_code_nor_verification(
    forgetful: Forgetful, sink: MailSink, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("metadata", "read-only")

    code = forgetful.code(sink)
    given = {"otp": code} if at_once else {}
    if not at_once:
        forgetful.asks("verify", otp=code)
    with monkeypatch.context() as patched:
        patched.setattr(accounts, "change", down)
        assert forgetful.resets(**given)[0].json["code"] == 503

    assert forgetful.resets(**given)[0].json["code"] == 0


@pytest.mark.parametrize("down", ["metadata", "cache"])
def test_a_code_that_no_store_takes_begins_no_minute_and_leaves_the_one_before(
    forgetful: Forgetful, sink: MailSink, clock: Clock, monkeypatch: pytest.MonkeyPatch, down: str
) -> None:
    before = forgetful.code(sink)
    clock.forward(seconds=61)
    keep = type(forgetful.world.plane.cache).set

    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("metadata", "read-only")

    def refuse_codes(cache: Any, key: str, *more: Any) -> None:
        if key.startswith("reset:code:"):
            raise StoreUnavailable("cache", "it is full")
        keep(cache, key, *more)

    with monkeypatch.context() as patched:
        if down == "metadata":
            patched.setattr(jobs, "enqueue", refuse)
        else:
            patched.setattr(type(forgetful.world.plane.cache), "set", refuse_codes)
        assert forgetful.wants_code().json["code"] == 503
    work(forgetful.world)

    assert len(sink.messages) == 1
    assert forgetful.asks("verify", otp=before).json["code"] == 0
    assert forgetful.code(sink) != before
    assert forgetful.wants_code().headers["Retry-After"] == "60"


def test_a_verification_that_no_cache_takes_costs_no_code(
    forgetful: Forgetful, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("cache", "the connection was cut")

    code = forgetful.code(sink)
    with monkeypatch.context() as patched:
        for change in ("set", "redeem"):
            patched.setattr(type(forgetful.world.plane.cache), change, refuse)
        assert forgetful.asks("verify", otp=code).json["code"] == 503

    assert forgetful.asks("verify", otp=code).json["code"] == 0
    assert forgetful.resets()[0].json["code"] == 0


def test_a_verification_whose_answer_was_lost_stands(
    forgetful: Forgetful, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(forgetful.world.plane.cache)
    redeem = kind.redeem

    def lost(*asked: Any) -> None:
        redeem(*asked)
        raise StoreUnavailable("cache", "the connection was cut")

    code = forgetful.code(sink)
    with monkeypatch.context() as patched:
        patched.setattr(kind, "redeem", lost)
        assert forgetful.asks("verify", otp=code).json["code"] == 503

    assert forgetful.resets()[0].json["code"] == 0


class Cut:
    """A transaction whose COMMIT is kept, and its answer lost."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def __enter__(self) -> None:
        self.kept.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self.kept.__exit__(*raised)
        raise StoreUnavailable("metadata", "the connection was cut")


@contextmanager
def answers_lost(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Meanwhile what is committed is kept, and nobody is told."""
    kind = type(plane.database)
    begin = kind.transaction
    with monkeypatch.context() as patched:
        patched.setattr(kind, "transaction", lambda store: Cut(begin(store)))
        yield


def test_a_code_that_may_be_on_its_way_counts(
    forgetful: Forgetful, sink: MailSink, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = forgetful.code(sink)
    clock.forward(seconds=61)
    with answers_lost(forgetful.world.plane, monkeypatch):
        assert forgetful.wants_code().json["code"] == 503
    work(forgetful.world)

    assert code_in(sink) != before
    assert forgetful.asks("verify", otp=code_in(sink)).json["code"] == 0


def test_a_password_that_may_have_been_set_has_used_the_proof_up(
    forgetful: Forgetful, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful.asks("verify", otp=forgetful.code(sink))
    with answers_lost(forgetful.world.plane, monkeypatch):
        answer, password = forgetful.resets()
        assert answer.json["code"] == 503

    assert log_in(forgetful.world, forgetful.email, password) == 0
    assert forgetful.resets()[0].json["code"] == 10


def test_a_newer_code_is_not_replaced_by_one_that_an_outage_gives_back(
    forgetful: Forgetful, sink: MailSink, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = forgetful.code(sink)
    clock.forward(seconds=61)
    newer: list[str] = []

    def overtaken(*_: object) -> None:
        newer.append(forgetful.code(sink))
        raise StoreUnavailable("metadata", "read-only")

    with monkeypatch.context() as patched:
        patched.setattr(passwords, "hash_opened", overtaken)
        assert forgetful.resets(otp=first)[0].json["code"] == 503

    assert newer != [first]
    assert forgetful.asks("verify", otp=newer[0]).json["code"] == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_a_code_outlives_the_rotation_of_the_secret_key(forgetful: Forgetful, sink: MailSink, *, at_once: bool) -> None:
    code = forgetful.code(sink)
    if not at_once:
        forgetful.asks("verify", otp=code)
    key_rotation.rotate(forgetful.world.plane)

    assert forgetful.resets(**({"otp": code} if at_once else {}))[0].json["code"] == 0


@pytest.mark.parametrize("step", ["otp", "verify", "reset"])
def test_what_is_missing_is_named(forgetful: Forgetful, step: str) -> None:
    answer = forgetful.asks(step)

    assert (answer.status_code, answer.json["code"]) == (200, 101)
    assert answer.json["message"].startswith("required argument are missing: ")


def test_without_an_address_there_is_no_image(mailing: World) -> None:
    for query in ("", "?email="):
        assert mailing.api.ask("GET", f"/v1/user/forget/captcha{query}").json["code"] == 101


def test_an_image_counts_once_and_for_a_minute(forgetful: Forgetful, clock: Clock) -> None:
    forgetful.asks("captcha")
    right = forgetful.read
    assert outcome(forgetful.asks("otp", captcha="WRONG!"))[1] == 109
    assert outcome(forgetful.asks("otp", captcha=right))[1] == 10
    forgetful.asks("captcha")
    clock.forward(seconds=61)

    answer = forgetful.asks("otp", captcha=forgetful.read)

    assert answer.json["code"] == 10
    assert answer.json["data"] is False
    assert jobs.page(forgetful.world.plane)["jobs"] == []


def test_the_image_of_another_address_is_no_use(forgetful: Forgetful, mailing: World) -> None:
    forgetful.asks("captcha")
    forgetful.email = "another@ragkeeper.test"

    assert outcome(forgetful.asks("otp", captcha=forgetful.read))[1] == 10


def test_the_next_code_can_be_had_after_a_minute_and_replaces_the_first(
    forgetful: Forgetful, sink: MailSink, clock: Clock
) -> None:
    first = forgetful.code(sink)
    early = forgetful.wants_code()
    clock.forward(seconds=60)
    second = forgetful.code(sink)

    assert (early.json["code"], early.headers["Retry-After"]) == (10, "60")
    assert outcome(forgetful.asks("verify", otp=first))[1] == 109
    assert outcome(forgetful.asks("verify", otp=second))[1] == 0


def test_a_code_holds_for_five_minutes_and_once(forgetful: Forgetful, sink: MailSink, clock: Clock) -> None:
    code = forgetful.code(sink)
    clock.forward(seconds=299)
    assert outcome(forgetful.asks("verify", otp=code))[1] == 0
    assert outcome(forgetful.asks("verify", otp=code))[1] == 10

    code = forgetful.code(sink)
    clock.forward(seconds=301)
    assert outcome(forgetful.asks("verify", otp=code))[1] == 10


def test_a_verification_holds_for_five_minutes_once_and_for_the_client_that_made_it(
    forgetful: Forgetful, sink: MailSink, clock: Clock
) -> None:
    assert forgetful.resets()[0].json["code"] == 10
    forgetful.asks("verify", otp=forgetful.code(sink))
    forgetful.headers = {"User-Agent": "somebody else who knows the address"}
    assert forgetful.resets()[0].json["code"] == 10
    forgetful.headers = {}
    assert forgetful.resets()[0].json["code"] == 0
    assert forgetful.resets()[0].json["code"] == 10

    clock.forward(seconds=61)
    forgetful.asks("verify", otp=forgetful.code(sink))
    clock.forward(seconds=301)
    assert forgetful.resets()[0].json["code"] == 10


def test_s21_five_wrong_codes_lock_the_address_for_half_an_hour_whatever_comes(
    forgetful: Forgetful, sink: MailSink, clock: Clock
) -> None:
    code = forgetful.code(sink)

    answers = [outcome(forgetful.asks("verify", otp="AAAAAA"))[1] for _ in range(6)]

    assert answers == [109] * 5 + [10]
    assert forgetful.asks("verify", otp=code).json["code"] == 10
    clock.forward(seconds=100)
    assert "1700 seconds" in forgetful.wants_code().json["message"]
    clock.forward(seconds=1700)
    assert forgetful.asks("verify", otp=forgetful.code(sink)).json["code"] == 0


def test_a_new_password_by_mail_ends_the_wait_for_logins(forgetful: Forgetful, sink: MailSink) -> None:
    def log_in(password: str) -> TestResponse:
        return forgetful.world.api.ask("POST", "/v1/user/login", {"email": forgetful.email, "password": password})

    for _ in range(5):
        log_in("a wrong password")
    assert log_in("a wrong password").status_code == 429
    _, password = forgetful.resets(otp=forgetful.code(sink))

    assert log_in(password).json["code"] == 0


def test_a_clock_that_was_put_back_locks_no_address_longer_than_half_an_hour(
    forgetful: Forgetful, sink: MailSink, clock: Clock
) -> None:
    forgetful.code(sink)
    for _ in range(5):
        forgetful.asks("verify", otp="AAAAAA")
    clock.forward(days=-1)

    assert "1800 seconds" in forgetful.wants_code().json["message"]
    clock.forward(seconds=1801)
    # Not locked any more; the minute of the last code, which had begun in the future as well, begins anew.
    assert "60 seconds" in forgetful.wants_code().json["message"]
    clock.forward(seconds=61)
    assert forgetful.wants_code().json["code"] == 0


def test_a_new_code_does_not_begin_a_new_count(forgetful: Forgetful, sink: MailSink, clock: Clock) -> None:
    forgetful.code(sink)
    for _ in range(4):
        forgetful.asks("verify", otp="AAAAAA")
    clock.forward(seconds=60)
    forgetful.code(sink)
    assert outcome(forgetful.asks("verify", otp="AAAAAA"))[1] == 109

    assert outcome(forgetful.asks("verify", otp="AAAAAA"))[1] == 10


def test_the_right_code_ends_the_count(forgetful: Forgetful, sink: MailSink, clock: Clock) -> None:
    for _ in range(2):
        code = forgetful.code(sink)
        for _ in range(4):
            forgetful.asks("verify", otp="AAAAAA")
        assert forgetful.asks("verify", otp=code).json["code"] == 0
        clock.forward(seconds=60)


def test_of_tries_that_began_before_the_lock_stood_no_more_are_judged(
    forgetful: Forgetful, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = forgetful.code(sink)
    monkeypatch.setattr(password_reset, "_refuse_if_locked", lambda *_: None)

    answers = [outcome(forgetful.asks("verify", otp=given))[1] for given in (*["AAAAAA"] * 5, "AAAAAA", code)]

    assert answers == [109] * 5 + [10] * 2


@pytest.mark.race
def test_tries_at_the_same_moment_are_all_counted(forgetful: Forgetful, sink: MailSink) -> None:
    forgetful.code(sink)

    def guess(_: int) -> int:
        try:
            return int(outcome(forgetful.asks("verify", otp="AAAAAA"))[1])
        finally:
            forgetful.world.plane.database.close()
            forgetful.world.plane.cache.close()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(guess, range(16)))

    assert answers.count(109) == 5
    assert answers.count(10) == 11


def test_s21_an_unknown_address_is_answered_word_for_word_like_a_known_one(
    mailing: World, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def story(email: str) -> list[Any]:
        someone = Forgetful(mailing, email, monkeypatch)
        told = [outcome(someone.wants_code()), outcome(someone.wants_code())]
        work(mailing)
        told += [outcome(someone.asks("verify", otp="AAAAAA")) for _ in range(6)]
        return [*told, outcome(someone.wants_code()), outcome(someone.resets()[0])]

    assert story(mailing.person().email) == story(NOBODY)
    assert len(sink.messages) == 1


def test_s21_no_step_before_the_new_password_asks_whether_there_is_an_account(
    mailing: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that time tells nothing either: known and unknown addresses cost the same statements."""
    someone = Forgetful(mailing, NOBODY, monkeypatch)

    with statements(mailing.plane) as heard:
        someone.wants_code()
        someone.asks("verify", otp="AAAAAA")

    assert any("rk_job" in statement for statement in heard)
    assert not [
        statement for statement in heard if re.search(r'(FROM|JOIN|UPDATE|INTO) ["`]?(rk_account|user)\b', statement)
    ]


def test_codes_are_limited_by_the_address_that_asks_for_them(mailing: World) -> None:
    mailing.set_variable("limit.forgotten_password", "2")

    def ask(number: int, address: str) -> int:
        body = {"email": f"nobody{number}@ragkeeper.test", "captcha": "none"}
        answer = mailing.api.ask("POST", "/v1/user/forget/otp", body, environ_overrides={"REMOTE_ADDR": address})
        return int(answer.json["code"])

    assert [ask(number, f"2001:db8::{number + 1}") for number in range(3)] == [10, 10, 429]
    assert ask(3, "2001:db8:0:1::1") == 10


@pytest.mark.parametrize("why", ["unknown", "off", "late"])
def test_a_mail_that_should_not_go_out_says_why_in_its_job(
    forgetful: Forgetful, sink: MailSink, clock: Clock, why: str
) -> None:
    database = forgetful.world.plane.database
    forgetful.wants_code()
    if why == "unknown":
        database.run("UPDATE rk_account SET email_key = 'gone'")
    elif why == "off":
        database.run("UPDATE user SET is_active = '0' WHERE email = ?", (forgetful.email,))
    else:
        clock.forward(seconds=300)

    work(forgetful.world)

    [row] = database.all("SELECT state, progress FROM rk_job")
    assert row[0] == "done"
    assert ("expired" if why == "late" else "No active account") in row[1]
    assert sink.messages == []


@pytest.mark.parametrize("at_last", [False, True])
def test_an_account_that_was_switched_off_meanwhile_gets_neither_password_nor_session(
    forgetful: Forgetful, sink: MailSink, monkeypatch: pytest.MonkeyPatch, *, at_last: bool
) -> None:
    database, make_hash = forgetful.world.plane.database, passwords.hash_opened

    def switch_off() -> None:
        database.run("UPDATE user SET is_active = '0' WHERE email = ?", (forgetful.email,))

    def slow(*given: Any) -> str:
        switch_off()
        return make_hash(*given)

    forgetful.asks("verify", otp=forgetful.code(sink))
    before = database.one("SELECT password FROM user WHERE email = ?", (forgetful.email,))
    if at_last:
        monkeypatch.setattr(passwords, "hash_opened", slow)
    else:
        switch_off()

    assert forgetful.resets()[0].json["code"] == 10
    assert database.one("SELECT password FROM user WHERE email = ?", (forgetful.email,)) == before
    assert database.one("SELECT COUNT(*) FROM rk_session") == (0,)


def test_the_mail_speaks_the_accounts_language(forgetful: Forgetful, sink: MailSink) -> None:
    forgetful.world.plane.database.run("UPDATE user SET language = 'Chinese'")

    forgetful.code(sink)

    assert sink.messages[0]["Subject"] == "重置密码的验证码"


def test_the_code_stands_nowhere_in_the_clear(forgetful: Forgetful, sink: MailSink) -> None:
    code = forgetful.code(sink)
    home = forgetful.world.plane.settings.home

    assert len(code) == 6
    for file in home.glob("*.*"):
        assert code.encode() not in file.read_bytes(), file
    for event in forgetful.world.plane.database.all("SELECT * FROM rk_audit_event"):
        assert code not in repr(event)


def test_a_generated_password_need_not_be_changed_any_more_and_tokens_go_on(
    mailing: World, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = mailing.person(must_change=True)
    someone = Forgetful(mailing, person.email, monkeypatch)
    someone.asks("verify", otp=someone.code(sink))

    answer, _ = someone.resets()

    assert answer.json["data"]["must_change_password"] is False
    session = answer.headers["Authorization"]
    assert mailing.api.ask("GET", "/v1/user/info", credential=session).status_code == 200


def test_every_step_leaves_an_audit_event(forgetful: Forgetful, sink: MailSink) -> None:
    code = forgetful.code(sink)
    forgetful.asks("verify", otp="AAAAAA")
    forgetful.asks("verify", otp=code)
    forgetful.resets()

    world = forgetful.world
    [asked], [refused], [changed] = (
        world.events(tag) for tag in ("user:reset_ask", "user:reset_refused", "user:password")
    )
    assert (asked[0], refused[0], changed[0]) == ("ok", "refused", "ok")
    assert asked[2] == refused[2] == changed[2] == forgetful.email
    assert changed[4] == '{"by":"code"}'
    assert len(world.events("session:login")) == 1


def test_without_a_mail_server_everybody_is_told_so(world: World) -> None:
    known: Person = world.person()
    told = {
        outcome(world.api.ask(method, path, *body, **query))
        for email in (known.email, NOBODY)
        for form in ROUTES.values()
        for step, (method, path) in form.items()
        for body, query in [
            ((), {"query_string": {"email": email}})
            if step == "captcha"
            else (
                ({"email": email, "captcha": "x", "otp": "x", "new_password": "x" * 12, "confirm_new_password": ""},),
                {},
            )
        ]
        if step != "reset"
    }

    assert told == {(200, 10, "Mail is not configured on this server, so it can't send a code; ask an administrator.")}
    assert jobs.page(world.plane)["jobs"] == []


@pytest.mark.parametrize("step", ["captcha", "otp", "verify", "reset"])
def test_without_a_cache_store_it_is_503(forgetful: Forgetful, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("cache", "gone")

    for name in ("get", "set", "incr", "delete"):
        monkeypatch.setattr(type(forgetful.world.plane.cache), name, down)

    password = new_password()
    answer = forgetful.asks(step, captcha="x", otp="x", new_password=password, confirm_new_password=password)

    assert (answer.status_code, answer.json["code"]) == (503, 503)
    assert "cache" in answer.json["message"]


def test_true_statuses_for_those_who_ask_for_problem_details(forgetful: Forgetful, sink: MailSink) -> None:
    forgetful.headers = {"Accept": "application/problem+json"}
    forgetful.asks("captcha")

    assert forgetful.asks("otp", captcha="WRONG!").status_code == 403
    assert forgetful.asks("verify", otp="AAAAAA").status_code == 409
    assert forgetful.wants_code().status_code == 200
    again = forgetful.wants_code()
    assert (again.status_code, again.headers["Retry-After"]) == (429, "60")


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "", "x" * 10_000, "nul\0", [], {}, "\t", "🧨" * 100])
def test_no_value_of_a_field_is_a_500(mailing: World, value: object) -> None:
    fields = ("email", "captcha", "otp", "new_password", "confirm_new_password")
    for form in ROUTES.values():
        for step, (method, path) in form.items():
            if step == "captcha":
                assert mailing.api.ask(method, path, query_string={"email": str(value)}).status_code == 200
                continue
            for field in fields:
                answer = mailing.api.ask(method, path, dict.fromkeys(fields, "x" * 12) | {field: value})
                assert answer.status_code == 200, (path, field, answer.json)
