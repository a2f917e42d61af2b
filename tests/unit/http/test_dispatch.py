"""The app without Flask's hooks: what it leaves out is refused, what it keeps works."""

from __future__ import annotations

import pytest
from flask import Response, request, url_for

from common.http.answers import json_response
from common.http.dispatch import DirectFlask


@pytest.fixture
def app() -> DirectFlask:
    """An app with a route that answers, and one that fails."""
    made = DirectFlask("direct", static_folder=None)
    made.url_map.strict_slashes = False

    @made.get("/things/<name>")
    def thing(name: str) -> Response:
        return json_response({"name": name, "query": request.args.to_dict()})

    @made.get("/broken")
    def broken() -> Response:
        raise LookupError("nothing here")

    @made.errorhandler(LookupError)
    def answer(error: LookupError) -> Response:
        return json_response({"error": str(error)}, 404)

    return made


def test_paths_and_queries_arrive_decoded(app: DirectFlask) -> None:
    answer = app.test_client().get("/things/caf%C3%A9?a=%C3%BC")

    assert answer.json == {"name": "café", "query": {"a": "ü"}}


def test_a_raised_error_finds_its_handler(app: DirectFlask) -> None:
    answer = app.test_client().get("/broken")

    assert (answer.status_code, answer.json) == (404, {"error": "nothing here"})


def test_head_has_the_headers_of_get_and_no_body(app: DirectFlask) -> None:
    got, head = app.test_client().get("/things/a"), app.test_client().head("/things/a")

    assert head.headers == got.headers
    assert int(got.headers["Content-Length"]) == len(got.data) > 0
    assert head.data == b""


@pytest.mark.parametrize("hook", ["before_request", "after_request", "teardown_request", "teardown_appcontext"])
def test_a_hook_that_would_never_run_is_refused(app: DirectFlask, hook: str) -> None:
    getattr(app, hook)(lambda *_: None)

    with pytest.raises(ValueError, match=hook):
        app.refuse_hooks()


def test_double_slashes_lead_to_the_path_without_on_the_host_that_was_asked(app: DirectFlask) -> None:
    answer = app.test_client().get("/things//a?b=1", base_url="https://plane.test:9380/below")

    assert answer.status_code == 308
    assert answer.headers["Location"] == "https://plane.test:9380/below/things/a?b=1"


def test_no_url_is_built(app: DirectFlask) -> None:
    with app.test_request_context(), pytest.raises(LookupError, match="no URL"):
        url_for("thing", name="a")
