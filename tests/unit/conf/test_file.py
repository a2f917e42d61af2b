import pytest

from common.settings import load


@pytest.fixture
def conf(tmp_path):
    """Settings as read from a file with this text, and from these variables."""

    def read(text, **environ):
        (tmp_path / "service_conf.yaml").write_text(text, encoding="utf-8")
        return load({"RAGKEEPER_HOME": str(tmp_path), "RAGKEEPER_CONF": str(tmp_path), **environ})

    return read


def test_a_placeholder_takes_the_variable_or_the_default(conf):
    text = "admin:\n  host: ${ADMIN_HOST:-10.0.0.1}\n  http_port: ${ADMIN_PORT:-9001}\n"
    assert (conf(text).host, conf(text).admin_port) == ("10.0.0.1", 9001)
    settings = conf(text, ADMIN_HOST="10.0.0.2", ADMIN_PORT="9002")
    assert (settings.host, settings.admin_port) == ("10.0.0.2", 9002)
    assert conf(text, ADMIN_HOST="").host == "10.0.0.1"


def test_a_placeholder_within_a_value_is_expanded(conf):
    text = "infinity:\n  uri: '${INFINITY_HOST:-infinity}:23817'\n"
    assert conf(text).services[0].host == "infinity"
    assert conf(text, INFINITY_HOST="elsewhere").services[0].host == "elsewhere"


def test_a_placeholder_with_an_empty_default_is_no_value(conf):
    assert conf("admin:\n  http_port: ${ADMIN_PORT:-}\n").admin_port == 9381


@pytest.mark.parametrize("password", ["0123", "22:30", "2025-01-01", "1_000", "true", "null", "a: b # c", "${X:-y}"])
def test_a_password_from_the_environment_is_taken_as_it_is(conf, password):
    text = "smtp:\n  mail_server: s\n  mail_password: ${MAIL_PASSWORD:-x}\n"
    assert conf(text, MAIL_PASSWORD=password).smtp.mail_password.reveal() == password


@pytest.mark.parametrize("password", ["0123", "22:30", "2025-01-01", "1_000", "0x1F", "482915", "1.50", "yes"])
def test_a_plain_password_in_the_file_is_taken_as_it_is_written(conf, password):
    settings = conf(f"smtp:\n  mail_server: s\n  mail_password: {password}\n")
    assert settings.smtp.mail_password.reveal() == password


def test_other_dollars_are_meant_literally(conf):
    settings = conf("smtp:\n  mail_server: s\n  mail_password: 'a$b${HOME}c'\n", HOME="/x")
    assert settings.smtp.mail_password.reveal() == "a$b${HOME}c"
