"""Langfuse keys, asked of a server that answers like Langfuse, or doesn't."""

from __future__ import annotations

import time
from functools import partial

import pytest

from common.core.errors import PlaneError
from common.secret import Secret
from common.stores.egress import Answer, EgressBusy, EgressGuard, EgressRefused, fetch
from common.stores.langfuse_rest import (
    LangfuseAnswerUnusable,
    LangfuseKeysRejected,
    LangfuseProject,
    LangfuseUnreachable,
    verify,
)
from tests.unit.stores.servers import drip, hang, http_server, langfuse, raw_server, send

PROJECT = {"id": "p1", "name": "Support", "organization": {"id": "o1", "name": "o"}, "metadata": {}}


def check(host, public_key="pk-1", secret_key="sk-1", *, guard=None, deadline_s=5.0):
    guard = guard or EgressGuard(["127.0.0.0/8"])
    return verify(host, public_key, Secret(secret_key), partial(fetch, guard=guard), deadline_s=deadline_s)


@pytest.mark.parametrize("ending", ["", "/", "//"])
def test_right_keys_give_the_first_project(ending):
    with http_server(langfuse({"pk-1": "sk-1"}, [PROJECT, {"id": "p2", "name": "x"}])) as port:
        assert check(f"http://127.0.0.1:{port}{ending}") == LangfuseProject("p1", "Support")


def test_a_host_below_a_path_is_asked_there():
    paths = []

    def answer(handler):
        paths.append(handler.path)
        send(handler, 404)

    with http_server(answer) as port, pytest.raises(LangfuseAnswerUnusable):
        check(f"http://127.0.0.1:{port}/tools/langfuse/")
    assert paths == ["/tools/langfuse/api/public/projects"]


def test_wrong_keys_are_rejected_and_never_a_401():
    server = http_server(langfuse({"pk-1": "sk-1"}, [PROJECT]))
    with server as port, pytest.raises(LangfuseKeysRejected) as raised:
        check(f"http://127.0.0.1:{port}", secret_key="sk-wrong")
    assert (raised.value.status, raised.value.code) == (400, 102)
    assert "Invalid Langfuse keys" in raised.value.message


def test_nothing_is_remembered_between_checks_of_one_public_key():
    keys = {"pk-1": "sk-new"}
    with http_server(langfuse(keys, [PROJECT])) as port:
        host = f"http://127.0.0.1:{port}"
        with pytest.raises(LangfuseKeysRejected):
            check(host, secret_key="sk-old")
        assert check(host, secret_key="sk-new").id == "p1"
        keys["pk-1"] = "sk-newest"
        with pytest.raises(LangfuseKeysRejected):
            check(host, secret_key="sk-new")


def test_a_403_is_a_rejection_too():
    with http_server(lambda handler: send(handler, 403)) as port, pytest.raises(LangfuseKeysRejected):
        check(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_langfuse_out_of_order_is_unreachable(status):
    with http_server(lambda handler: send(handler, status)) as port, pytest.raises(LangfuseUnreachable):
        check(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("talk", [hang, drip(b""), drip(b"HTTP/1.1 200 OK\r\n\r\n")])
def test_a_host_that_hangs_is_unreachable_within_the_deadline(talk):
    with raw_server(talk) as port:
        started = time.monotonic()
        with pytest.raises(LangfuseUnreachable):
            check(f"http://127.0.0.1:{port}", deadline_s=0.3)
        assert time.monotonic() - started < 1


def test_a_refused_port_is_unreachable():
    with http_server(lambda handler: None) as port:
        pass
    with pytest.raises(LangfuseUnreachable):
        check(f"http://127.0.0.1:{port}")


def test_a_redirect_is_not_followed_and_unusable():
    paths = []

    def answer(handler):
        paths.append(handler.path)
        send(handler, 302, Location="/inside")

    with http_server(answer) as port, pytest.raises(LangfuseAnswerUnusable):
        check(f"http://127.0.0.1:{port}")
    assert len(paths) == 1


def test_a_huge_answer_is_not_read_to_its_end():
    body = b'{"data": [' + b" " * 1_000_000 + b"]}"

    def answer(handler):
        try:
            send(handler, 200, body)
        except ConnectionError:
            pass

    with http_server(answer) as port, pytest.raises(LangfuseUnreachable, match="too large"):
        check(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"\xff\xfe", b"null", b"[]", b'"text"', b"{}", b'{"data": null}', b'{"data": []}'),
        *(b'{"data": ["p1"]}', b'{"data": [{"id": 1, "name": "n"}]}', b'{"data": [{"id": "", "name": "n"}]}'),
        *(b'{"data": [{"name": "n"}]}', b'{"data": [{"id": "p1", "name": "\\ud800"}]}', b"[" * 100_000),
        b"9" * 5000,
    ],
    ids=range(16),
)
def test_an_answer_without_a_project_is_unusable_and_not_quoted(body):
    server = http_server(lambda handler: send(handler, 200, body))
    with server as port, pytest.raises(LangfuseAnswerUnusable) as raised:
        check(f"http://127.0.0.1:{port}")
    assert (raised.value.status, raised.value.code) == (502, 100)
    assert "html" not in raised.value.message


@pytest.mark.parametrize(
    "host", ["", "127.0.0.1", "ftp://h", "http://u:p@h", "http://127.0.0.1?x=", "http://127.0.0.1#"]
)
def test_a_host_that_is_not_one_is_refused(host):
    with pytest.raises(EgressRefused):
        check(host)


def test_an_address_inside_is_refused_where_nobody_allowed_it():
    with pytest.raises(EgressRefused):
        check("http://127.0.0.1:1", guard=EgressGuard())


def test_too_many_calls_at_once_stay_that_error():
    guard = EgressGuard(["127.0.0.0/8"], limit=1)
    with guard.place(), pytest.raises(EgressBusy):
        check("http://127.0.0.1:1", guard=guard)


def test_keys_that_no_header_can_carry_are_rejected_without_a_call():
    def never(url, **kwargs):
        raise AssertionError("called")

    with pytest.raises(LangfuseKeysRejected):
        verify("http://h", "pk-\ud800", Secret("sk"), never)


def test_keys_in_other_letters_and_with_line_breaks_are_sent_as_they_are():
    with http_server(langfuse({"pk-ü": "sk\r\nX: y"}, [PROJECT])) as port:
        assert check(f"http://127.0.0.1:{port}", "pk-ü", "sk\r\nX: y").id == "p1"


def test_the_secret_is_in_no_error():
    for answer in (
        Answer(401, {}, b""),
        Answer(500, {}, b""),
        Answer(200, {}, b"sk-secret"),
        Answer(302, {}, b""),
    ):
        with pytest.raises(PlaneError) as raised:
            verify("http://h", "pk", Secret("sk-secret"), lambda url, answer=answer, **kwargs: answer)
        assert "sk-secret" not in repr(raised.value) + raised.value.message
