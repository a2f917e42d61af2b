import copy
import json
import pickle

import orjson
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from common.secret import Secret

PLAIN = "correct horse"


class Login(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)
    password: Secret
    other: Secret | None = None


def test_it_gives_its_text_only_when_asked():
    assert Secret(PLAIN).reveal() == PLAIN


@pytest.mark.parametrize("show", [str, repr, format, "{:>40}".format, "{!r}".format, lambda s: f"{[s]}", ascii])
def test_it_prints_as_stars(show):
    assert PLAIN not in show(Secret(PLAIN))
    assert "***" in show(Secret(PLAIN))


def test_it_has_no_attribute_dictionary_to_look_into():
    with pytest.raises(TypeError):
        vars(Secret(PLAIN))


@pytest.mark.parametrize("write", [json.dumps, orjson.dumps, pickle.dumps])
def test_it_is_not_written_by(write):
    with pytest.raises(TypeError):
        write(Secret(PLAIN))


def test_it_equals_only_a_secret_of_the_same_text():
    assert Secret(PLAIN) == Secret(PLAIN)
    assert hash(Secret(PLAIN)) == hash(Secret(PLAIN))
    assert Secret(PLAIN) != Secret(PLAIN + "!")
    assert Secret(PLAIN) != PLAIN
    assert Secret("pässword") == Secret("pässword")


def test_it_holds_what_the_environment_may_hold():
    assert Secret("\udcff") == Secret("\udcff")


def test_it_is_false_when_empty():
    assert not Secret("")
    assert Secret(PLAIN)


def test_it_does_not_change():
    secret = Secret(PLAIN)
    with pytest.raises(AttributeError):
        secret._value = "other"
    with pytest.raises(AttributeError):
        del secret._value
    assert secret.reveal() == PLAIN


def test_a_copy_is_the_secret_itself():
    secret = Secret(PLAIN)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_it_refuses_to_wrap_what_is_not_text_and_does_not_quote_it():
    with pytest.raises(TypeError) as refusal:
        Secret(482915)
    assert "482915" not in str(refusal.value)


def test_a_model_takes_text_and_a_secret():
    assert Login(password=PLAIN).password.reveal() == PLAIN
    assert Login(password=Secret(PLAIN)).password.reveal() == PLAIN
    assert Login.model_validate_json('{"password": "correct horse"}').password.reveal() == PLAIN


def test_a_model_refuses_another_type_and_does_not_quote_it():
    for wrong in (482915, ["482915"], None):
        with pytest.raises(ValidationError) as refusal:
            Login(password=wrong)
        assert "482915" not in str(refusal.value)
    with pytest.raises(ValidationError):
        Login.model_validate_json('{"password": 482915}')


def test_a_model_shows_stars():
    login = Login(password=PLAIN, other=PLAIN)
    assert PLAIN not in repr(login)
    assert PLAIN not in repr(login.model_dump())
    assert json.loads(login.model_dump_json()) == {"password": "***", "other": "***"}
    assert login.model_dump(mode="json") == {"password": "***", "other": "***"}


def test_the_json_schema_says_that_it_is_a_password():
    schema = Login.model_json_schema()["properties"]["password"]
    assert (schema["type"], schema["format"], schema["writeOnly"]) == ("string", "password", True)
