import re
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from common.conf.sections import DefaultLlmSection
from common.secret import Secret
from common.settings import Settings, SettingsError, describe, load

ROOT = Path(__file__).parents[2]
KEY = "k" * 31 + "1"
OTHER_KEY = "o" * 32
PLAIN = "s3cr3t-of-the-test"


@pytest.fixture
def conf(tmp_path):
    """Settings as read from a file with this text, and from these variables."""

    def read(text="", local=None, **environ):
        (tmp_path / "service_conf.yaml").write_text(text, encoding="utf-8")
        if local is not None:
            (tmp_path / "local.service_conf.yaml").write_text(local, encoding="utf-8")
        home = {"RAGKEEPER_HOME": str(tmp_path / "home")}
        return load({**home, "RAGKEEPER_CONF": str(tmp_path), **environ})

    return read


def refusal(read, *args, **kwargs):
    """The one sentence that a wrong setting is refused with; it has no line breaks and no secret."""
    with pytest.raises(SettingsError) as caught:
        read(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert PLAIN not in text
    assert caught.value.__cause__ is None
    return text


# Defaults and the shipped file


def test_it_starts_without_any_configuration():
    settings = load({"HOME": "/home/op"})
    assert (settings.host, settings.admin_port, settings.api_port) == ("127.0.0.1", 9381, 9380)
    assert settings.admin_email == "admin@ragflow.io"
    assert settings.admin_password is None
    assert settings.secret_keys == ()
    assert settings.services == ()
    assert settings.warnings == ()
    assert (settings.mysql, settings.redis, settings.elasticsearch, settings.object_store) == (None,) * 4


def test_the_shipped_file_has_no_store_and_no_password():
    text = (ROOT / "conf" / "service_conf.yaml").read_text(encoding="utf-8")
    sections = re.findall(r"^([a-z0-9_]+):", text, re.MULTILINE)
    assert sections == ["admin"]
    assert not re.search(r"^\s*[a-z_]*password", text, re.MULTILINE)


def test_the_example_in_the_shipped_file_is_valid(conf):
    text = (ROOT / "conf" / "service_conf.yaml").read_text(encoding="utf-8")
    uncommented = re.sub(r"^(\s*)# ((?:  )?[a-z_]+:( .*)?)$", r"\1\2", text, flags=re.MULTILINE)
    settings = conf(uncommented)
    assert settings.smtp.mail_default_sender == ("Ragkeeper", "ragkeeper@example.org")
    assert "127.0.0.1" in {entry.host for entry in settings.services if entry.section == "ragflow"}
    assert settings.host == "0.0.0.0"
    assert settings.warnings == ()


def test_a_home_is_all_that_a_test_needs_to_give(tmp_path):
    settings = Settings(home=tmp_path)
    assert settings.database_path == tmp_path / "ragkeeper.db"
    assert settings.max_content_length == 1024 * 1024
    assert settings.drain_s == 2


def test_settings_do_not_change(tmp_path):
    settings = Settings(home=tmp_path, log_levels={"root": "INFO"})
    with pytest.raises(ValidationError):
        settings.host = "0.0.0.0"
    with pytest.raises(TypeError):
        settings.log_levels["root"] = "DEBUG"


def test_the_home_follows_xdg_and_ignores_a_relative_folder_there():
    assert load({"XDG_DATA_HOME": "/data"}).home == Path("/data/ragkeeper")
    assert load({"XDG_DATA_HOME": "data"}).home.name == "ragkeeper"
    assert load({"XDG_DATA_HOME": "data"}).home.is_absolute()


def test_trusted_proxies_are_networks_and_none_at_first(conf):
    networks = (ip_network("10.1.0.0/16"), ip_network("::1/128"))
    assert conf().trusted_proxies == ()
    assert conf("admin: {trusted_proxies: [10.1.0.0/16, '::1']}").trusted_proxies == networks
    assert conf("admin: {trusted_proxies: '10.1.0.0/16, ::1'}").trusted_proxies == networks
    settings = conf("admin: {trusted_proxies: 10.2.0.0/16}", RAGKEEPER_TRUSTED_PROXIES="10.1.0.0/16,::1")
    assert settings.trusted_proxies == networks
    assert "admin.trusted_proxies: expected networks" in refusal(conf, "admin: {trusted_proxies: everybody}")
    assert refusal(conf, RAGKEEPER_TRUSTED_PROXIES="*").startswith("RAGKEEPER_TRUSTED_PROXIES: expected networks")


# Where values come from


def test_the_environment_wins_over_the_file(conf):
    text = "admin:\n  host: 10.0.0.1\n  http_port: 9001\n  api_http_port: 9002\n"
    assert conf(text).host == "10.0.0.1"
    assert (conf(text).admin_port, conf(text).api_port) == (9001, 9002)
    settings = conf(text, RAGKEEPER_HOST="10.0.0.2", RAGKEEPER_ADMIN_PORT="9003", RAGKEEPER_API_PORT="9004")
    assert (settings.host, settings.admin_port, settings.api_port) == ("10.0.0.2", 9003, 9004)


def test_the_ragflow_section_does_not_say_where_ragkeeper_listens(conf):
    settings = conf("ragflow: {host: 10.0.0.9, http_port: 1234}")
    assert (settings.host, settings.api_port) == ("127.0.0.1", 9380)
    [watched] = settings.services
    assert (watched.host, watched.port) == ("10.0.0.9", 1234)


def test_an_empty_variable_counts_as_unset(conf):
    settings = conf("admin: {host: 10.0.0.1}", RAGKEEPER_HOST="", RAGKEEPER_ADMIN_PASSWORD="", REGISTER_ENABLED="")
    assert settings.host == "10.0.0.1"
    assert settings.admin_password is None
    assert settings.register_enabled


def test_it_says_where_each_value_came_from(conf):
    settings = conf("admin: {http_port: 9001, host: 10.0.0.1}", RAGKEEPER_HOST="10.0.0.2")
    assert settings.origins["admin_port"] == "service_conf.yaml: admin.http_port"
    assert settings.origins["host"] == "environment RAGKEEPER_HOST"
    lines = {line.name: line for line in describe(settings)}
    assert lines["api_port"].origin == "default"
    assert lines["admin_port"].value_masked == "9001"


def test_a_local_section_replaces_the_whole_section(conf):
    settings = conf(
        "admin: {host: 10.0.0.1, http_port: 9001}\nragflow: {host: 10.0.0.9}\n",
        local="admin: {http_port: 9005}\n",
    )
    assert (settings.host, settings.admin_port) == ("127.0.0.1", 9005)
    assert [entry.host for entry in settings.services] == ["10.0.0.9"]
    assert settings.origins["admin_port"] == "local.service_conf.yaml: admin.http_port"


def test_a_local_section_without_a_value_takes_the_section_away(conf):
    assert conf("redis: {host: 'r:6379'}\n", local="redis:\n").services == ()


def test_a_configuration_file_may_have_any_name_and_its_own_local_one(tmp_path):
    (tmp_path / "mine.yaml").write_text("admin: {http_port: 9001}")
    (tmp_path / "local.mine.yaml").write_text("admin: {http_port: 9002}")
    settings = load({"RAGKEEPER_CONF": str(tmp_path / "mine.yaml"), "RAGKEEPER_HOME": str(tmp_path)})
    assert settings.admin_port == 9002


@pytest.mark.parametrize(
    ("variable", "name", "value"),
    [
        ("RAGKEEPER_ADMIN_EMAIL", "admin_email", "root@example.org"),
        ("DEFAULT_SUPERUSER_EMAIL", "admin_email", "root@example.org"),
        ("DEFAULT_SUPERUSER_EMAIL", "default_superuser_email", "root@example.org"),
        ("DEFAULT_SUPERUSER_NICKNAME", "admin_nickname", "Root"),
        ("RAGKEEPER_PASSWORD_POLICY", "password_policy", "off"),
        ("RAGKEEPER_SHARED_DATABASE", "shared_database", "on"),
        ("RAGKEEPER_TOKEN_STORAGE", "token_storage", "plain"),
        ("DB_TYPE", "db_type", "postgres"),
        ("DOC_ENGINE", "doc_engine", "infinity"),
        ("STORAGE_IMPL", "storage_impl", "GCS"),
        ("DEVICE", "device", "gpu"),
    ],
)
def test_a_text_variable_is_honoured(conf, variable, name, value):
    settings = conf(**{variable: value})
    assert getattr(settings, name) == value
    assert settings.origins[name] == f"environment {variable}"


def test_our_administrator_variables_win_over_ragflows(conf):
    settings = conf(
        RAGKEEPER_ADMIN_EMAIL="a@example.org",
        DEFAULT_SUPERUSER_EMAIL="b@example.org",
        RAGKEEPER_ADMIN_PASSWORD="ours",
        DEFAULT_SUPERUSER_PASSWORD="theirs",
    )
    assert settings.admin_email == "a@example.org"
    assert settings.admin_password == Secret("ours")
    assert settings.default_superuser_email == "b@example.org"
    assert conf(DEFAULT_SUPERUSER_PASSWORD="theirs").admin_password == Secret("theirs")


def test_typed_variables_are_read(conf):
    settings = conf(
        REGISTER_ENABLED="0",
        DISABLE_PASSWORD_LOGIN="true",
        MAX_CONTENT_LENGTH="2048",
        WORKER_HEARTBEAT_TIMEOUT="90",
        RAGKEEPER_EGRESS_ALLOW_CIDRS="10.1.0.0/16, fd00::/8",
        LOG_LEVELS="root=info, peewee=WARN",
        RAGKEEPER_DB_TZ="Asia/Shanghai",
        LANG="zh_CN.UTF-8",
        RAGKEEPER_PASSWORD_PRIVATE_KEY="/etc/key.pem",
        RAGKEEPER_PASSWORD_PRIVATE_KEY_PASSPHRASE=PLAIN,
    )
    assert not settings.register_enabled
    assert settings.disable_password_login
    assert settings.max_content_length == 2048
    assert settings.worker_heartbeat_timeout == 90
    assert settings.egress_allow_cidrs == (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert settings.log_levels == {"root": "INFO", "peewee": "WARNING"}
    assert datetime(2025, 1, 1, tzinfo=UTC).astimezone(settings.db_tz).hour == 8
    assert settings.lang == "Chinese"
    assert settings.password_private_key == Path("/etc/key.pem")
    assert settings.password_private_key_passphrase.reveal() == PLAIN


def test_password_login_is_disabled_by_the_file_and_enabled_by_the_environment(conf):
    text = "authentication: {disable_password_login: true}"
    assert conf(text).disable_password_login
    assert not conf(text, DISABLE_PASSWORD_LOGIN="0").disable_password_login


# Wrong values


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("RAGKEEPER_ADMIN_PORT", "high", "a whole number"),
        ("RAGKEEPER_ADMIN_PORT", "0", "at least 1"),
        ("RAGKEEPER_API_PORT", "65536", "at most 65535"),
        ("RAGKEEPER_HOST", "http://x", "an address or a host name"),
        ("RAGKEEPER_HOST", "127.0.0.1:80", "without a port"),
        ("RAGKEEPER_HOST", "two words", "an address or a host name"),
        ("RAGKEEPER_ADMIN_EMAIL", "nobody", "an e-mail address"),
        ("RAGKEEPER_PASSWORD_POLICY", "strict", "'standard' or 'off'"),
        ("RAGKEEPER_SHARED_DATABASE", "yes", "'auto', 'on' or 'off'"),
        ("RAGKEEPER_TOKEN_STORAGE", "clear", "'hashed' or 'plain'"),
        ("RAGKEEPER_DB_TZ", "Mars/Olympus", "a time zone"),
        ("RAGKEEPER_DB_TZ", "../etc/passwd", "a time zone"),
        ("RAGKEEPER_DB_TZ", "Europe", "a time zone"),
        ("RAGKEEPER_EGRESS_ALLOW_CIDRS", "10.0.0.1/8", "networks"),
        ("RAGKEEPER_EGRESS_ALLOW_CIDRS", "intranet", "networks"),
        ("RAGKEEPER_DB_URL", "postgres://u:s3cr3t-of-the-test@h/n", "mysql://"),
        ("RAGKEEPER_DB_URL", "mysql://u:s3cr3t-of-the-test@h:port/n", "mysql://"),
        ("RAGKEEPER_DB_URL", "mysql://u:s3cr3t-of-the-test#@h/n", "percent-encoded"),
        ("RAGKEEPER_DB_URL", "mysql://u:s3cr3t-of-the-test@h/", "mysql://"),
        ("RAGKEEPER_DB_URL", "sqlite:///", "sqlite:///path"),
        ("RAGKEEPER_DB_URL", "sqlite:///:memory:", "sqlite:///path"),
        ("RAGKEEPER_DB_URL", "sqlite://folder/x.db", "sqlite:///path"),
        ("RAGKEEPER_REDIS_URL", "memcached://h", "redis://"),
        ("RAGKEEPER_REDIS_URL", "redis://:s3cr3t-of-the-test@h/first", "redis://"),
        ("RAGKEEPER_REDIS_URL", "redis://[::1", "redis://"),
        ("REGISTER_ENABLED", "perhaps", "true or false"),
        ("DISABLE_PASSWORD_LOGIN", "2", "true or false"),
        ("MAX_CONTENT_LENGTH", "1MB", "a whole number"),
        ("MAX_CONTENT_LENGTH", "-1", "at least 1"),
        ("LOG_LEVELS", "root=LOUD", "package=LEVEL"),
        ("LOG_LEVELS", "DEBUG", "package=LEVEL"),
        ("WORKER_HEARTBEAT_TIMEOUT", "soon", "a whole number"),
        ("RAGKEEPER_HOME", "~no-such-user-here/x", "a path"),
        ("RAGKEEPER_SECRET_KEY", "s3cr3t-of-the-test", "at least 32 characters"),
        ("RAGKEEPER_SECRET_KEY", "2025-11-24 07:06:00.123456+00:00", "no date"),
        ("RAGKEEPER_SECRET_KEY", f"{KEY},short", "at least 32 characters"),
        ("RAGKEEPER_SECRET_KEY", " , ", "at least 32 characters"),
    ],
)
def test_a_wrong_variable_is_named_with_what_is_expected(conf, variable, value, expected):
    text = refusal(conf, **{variable: value})
    assert text.startswith(variable)
    assert "expected" in text
    assert expected in text


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("admin: {http_port: high}", "admin.http_port", "a whole number"),
        ("admin: {http_port: true}", "admin.http_port", "a whole number"),
        ("admin: {http_port: 70000}", "admin.http_port", "at most 65535"),
        ("admin: {host: 5}", "admin.host", "text"),
        ("admin: {host: [a]}", "admin.host", "text"),
        ("admin: 5", "admin", "a section"),
        ("mysql: []", "mysql", "a section"),
        ("mysql: {port: x}", "mysql.port", "a whole number"),
        ("mysql: {password: [s3cr3t-of-the-test]}", "mysql.password", "text"),
        ("mysql: {password: {a: s3cr3t-of-the-test}}", "mysql.password", "text"),
        ("redis: {host: 'redis:s3cr3t-of-the-test'}", "redis.host", "a host"),
        ("es: {hosts: 'http://u:s3cr3t-of-the-test@es:port'}", "es.hosts", "a URL"),
        ("minio: {secure: perhaps}", "minio.secure", "true or false"),
        ("ragflow: {timeout: long}", "ragflow.timeout", "a number"),
        ("ragflow: {timeout: true}", "ragflow.timeout", "a number"),
        ("ragflow: {retry_count: true}", "ragflow.retry_count", "a whole number"),
        ("ragflow: {timeout: 0}", "ragflow.timeout", "greater than 0"),
        ("ragflow: {timeout: .inf}", "ragflow.timeout", "a number"),
        ("ragflow: {timeout: 61}", "ragflow.timeout", "at most 60"),
        ("ragflow: {retry_count: -1}", "ragflow.retry_count", "at least 0"),
        ("ragflow: {check_interval: 61}", "ragflow.check_interval", "at most 60"),
        ("oceanbase: {config: x}", "oceanbase.config", "a section"),
        ("smtp: {mail_default_sender: [a, b, c]}", "smtp.mail_default_sender", "a list of two"),
        ("smtp: {mail_default_sender: [a]}", "smtp.mail_default_sender", "a list of two"),
        ("smtp: {mail_port: x}", "smtp.mail_port", "a whole number"),
        (
            "authentication: {disable_password_login: 7}",
            "authentication.disable_password_login",
            "true or false",
        ),
    ],
)
def test_a_wrong_type_is_named_with_file_key_and_what_is_expected(conf, text, key, expected):
    said = refusal(conf, text)
    assert said.startswith(f"service_conf.yaml: {key}")
    assert expected in said


def test_a_wrong_type_in_the_local_file_names_that_file(conf):
    assert refusal(conf, "", local="admin: {http_port: x}").startswith("local.service_conf.yaml: admin.http_port")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("admin: {host: 'x\n", "not valid YAML"),
        ("mysql:\n  password: *s3cr3t-of-the-test\n", "not valid YAML at line 2"),
        ("mysql:\n  password: @s3cr3t-of-the-test\n", "not valid YAML at line 2"),
        ("a: !!python/object:os.system {}\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
        ("a: !!bool x", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("- a\n- b\n", "found a list"),
        ("just words", "found a single value"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_sentence(conf, tmp_path, text, expected):
    said = refusal(conf, text)
    assert said.startswith(str(tmp_path / "service_conf.yaml"))
    assert expected in said


def test_an_empty_file_is_an_empty_configuration(conf):
    assert conf("").services == ()
    assert conf("# nothing\n").services == ()


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "service_conf.yaml").write_bytes(b"admin: \xff\xfe")
    assert "UTF-8" in refusal(load, {"RAGKEEPER_CONF": str(tmp_path)})


def test_a_missing_file_that_was_named_is_refused(tmp_path):
    assert "no such file" in refusal(load, {"RAGKEEPER_CONF": str(tmp_path / "nowhere.yaml")})
    assert "no such file" in refusal(load, {"RAGKEEPER_CONF": str(tmp_path)})


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    # Root may read every file, so this one is unreadable for being a folder.
    (tmp_path / "service_conf.yaml").mkdir()
    assert "cannot be read" in refusal(load, {"RAGKEEPER_CONF": str(tmp_path)})


def test_both_servers_cannot_have_one_port(conf):
    said = refusal(conf, RAGKEEPER_API_PORT="9381")
    assert "RAGKEEPER_ADMIN_PORT and RAGKEEPER_API_PORT" in said


# Unknown keys


def test_unknown_keys_are_one_warning(conf):
    settings = conf("adnim: {}\nadmin: {htp_port: 1}\n", local="smtp: {mail_servr: x}\n")
    assert len(settings.warnings) == 1
    assert "adnim (service_conf.yaml)" in settings.warnings[0]
    assert "admin.htp_port (service_conf.yaml)" in settings.warnings[0]
    assert "smtp.mail_servr (local.service_conf.yaml)" in settings.warnings[0]


def test_ragflows_own_sections_are_known(conf):
    settings = conf(
        "oauth: {x: {client_secret: y}}\npermission: {switch: false}\ngeneral: 1\nnats: {}\n"
        "clickhouse: {}\notel: {}\n"
        "ingestor: {}\nfile_syncer: {}\nlog: {level: info}\n"
        "authentication: {client: {switch: false, http_secret_key: x}, site: {switch: false}}\n"
        "user_default_llm: {factory: Tongyi, api_key: x, base_url: y, allowed_factories: [a]}\n"
    )
    assert settings.warnings == ()


# Secret keys, S8


def test_secret_keys_come_from_our_variable_then_ragflows_then_the_file(conf):
    text = f"ragflow: {{secret_key: {'f' * 32}}}"
    assert conf(text).secret_keys == (Secret("f" * 32),)
    assert conf(text, RAGFLOW_SECRET_KEY=OTHER_KEY).secret_keys == (Secret(OTHER_KEY),)
    settings = conf(text, RAGFLOW_SECRET_KEY=OTHER_KEY, RAGKEEPER_SECRET_KEY=f"{KEY}, {OTHER_KEY}")
    assert settings.secret_keys == (Secret(KEY), Secret(OTHER_KEY))
    assert settings.origins["secret_keys"] == "environment RAGKEEPER_SECRET_KEY"


@pytest.mark.parametrize("weak", [PLAIN, "2025-11-24", "2025-11-24 07:06:00.123456+00:00"])
def test_a_weak_secret_key_of_ragflows_is_ignored_with_a_warning(conf, weak):
    settings = conf(f"ragflow: {{secret_key: '{weak}'}}")
    assert settings.secret_keys == ()
    assert len(settings.warnings) == 1
    assert "ragflow.secret_key" in settings.warnings[0]
    assert weak not in settings.warnings[0]
    settings = conf(f"ragflow: {{secret_key: {KEY}}}", RAGFLOW_SECRET_KEY=weak)
    assert settings.secret_keys == (Secret(KEY),)
    assert "RAGFLOW_SECRET_KEY" in settings.warnings[0]


def test_s8_no_secret_key_is_made_up_by_a_process(conf):
    assert conf().secret_keys == conf().secret_keys == ()


# Stores


def test_elasticsearch_is_selected_by_its_section(conf):
    section = f"es: {{hosts: 'https://a:9200,https://b:9200', username: elastic, password: {PLAIN}, timeout: 3}}"
    settings = conf(section, DOC_ENGINE="elasticsearch")
    assert settings.elasticsearch.hosts == Secret("https://a:9200,https://b:9200")
    assert (settings.elasticsearch.password, settings.elasticsearch.timeout) == (Secret(PLAIN), 3)
    assert (settings.elasticsearch.verify, settings.elasticsearch.ssl_ca_certs) == (True, "")
    assert settings.warnings == ()


MINIO = f"minio: {{host: 'm:9000', user: u, password: {PLAIN}, bucket: b, prefix_path: p, secure: true, verify: false}}"
S3 = f"s3: {{endpoint_url: 'https://s3.example.org', access_key: {PLAIN}, secret_key: {PLAIN}, region: eu-west-1}}"


@pytest.mark.parametrize(
    ("text", "environ", "named"),
    [
        (MINIO, {}, "minio"),
        (S3, {}, "s3"),
        (f"{S3}\n{MINIO}", {}, "minio"),
        (f"{S3}\n{MINIO}", {"STORAGE_IMPL": "AWS_S3"}, "s3"),
        (f"{S3}\n{MINIO}", {"STORAGE_IMPL": "minio"}, "minio"),
        (S3, {"STORAGE_IMPL": "MINIO"}, None),
        (MINIO.replace("minio", "minio_0"), {}, "minio_0"),
    ],
)
def test_object_storage_is_selected_by_its_section_and_ragflows_variable(conf, text, environ, named):
    settings = conf(text, **environ)
    origin = settings.origins.get("object_store")
    assert origin == (f"{origin.rpartition(':')[0]}: {named}" if named else None)
    if named and named.startswith("minio"):
        assert settings.object_store.address() == ("m", 9000)
        assert (settings.object_store.bucket, settings.object_store.prefix_path) == ("b", "p")
        assert (settings.object_store.secure, settings.object_store.verify) == (True, False)
    elif named:
        assert (settings.object_store.region, settings.object_store.verify) == ("eu-west-1", True)


def test_redis_is_selected_by_its_section_and_the_url_wins(conf):
    section = f"redis: {{host: 'r:6379', db: 3, username: u, password: {PLAIN}, ssl: true, ssl_ca_certs: /ca.pem}}"
    settings = conf(section)
    assert settings.redis.address() == ("r", 6379)
    assert (settings.redis.db, settings.redis.username, settings.redis.password) == (3, "u", Secret(PLAIN))
    assert (settings.redis.ssl, settings.redis.ssl_ca_certs) == (True, "/ca.pem")
    settings = conf(section, RAGKEEPER_REDIS_URL="rediss://other:7000")
    assert settings.redis.address() == ("other", 7000)
    assert (settings.redis.db, settings.redis.password, settings.redis.ssl) == (0, None, True)
    assert settings.origins["redis"] == "environment RAGKEEPER_REDIS_URL"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("mysql: {host: db}", {"DB_TYPE": "postgres"}),
        ("es: {hosts: 'http://es:9200'}", {"DOC_ENGINE": "infinity"}),
        ("minio: {host: 'm:9000'}", {"STORAGE_IMPL": "OSS"}),
    ],
)
def test_a_section_that_ragflows_variable_switches_off_is_listed_and_selects_nothing(conf, text, environ):
    settings = conf(text, **environ)
    assert len(settings.services) == 1
    assert (settings.mysql, settings.elasticsearch, settings.object_store) == (None, None, None)


def test_a_store_that_is_only_listed_is_a_warning_when_nothing_takes_its_place(conf):
    settings = conf("postgres: {host: db}\noss: {bucket: b}\nragflow: {host: x}\n")
    assert len(settings.warnings) == 1
    assert settings.warnings[0].endswith("embedded store is used in their place: postgres, oss")


def test_a_sqlite_url_is_relative_to_the_home_or_absolute(conf, tmp_path):
    assert conf(RAGKEEPER_DB_URL="sqlite:///a/b.db").database_path == tmp_path / "home/a/b.db"
    assert conf(RAGKEEPER_DB_URL="sqlite:////srv/a%20b.db").database_path == Path("/srv/a b.db")


def test_a_sqlite_url_wins_over_the_mysql_section(conf):
    settings = conf("mysql: {host: db}", RAGKEEPER_DB_URL="sqlite:///x.db")
    assert settings.mysql is None


# Services, mail and models


def test_a_service_has_its_timeout_retry_count_and_check_interval(conf):
    first, second = conf("ragflow: {timeout: 0.5, retry_count: 2, check_interval: 30}\nrabbitmq: {host: q}\n").services
    assert (first.timeout, first.retry_count, first.check_interval) == (0.5, 2, 30)
    assert (second.timeout, second.retry_count, second.check_interval) == (2.0, 0, 1)


def test_smtp_is_read_as_ragflow_has_it(conf):
    text = "smtp: {mail_server: s, mail_port: 587, mail_use_ssl: false, mail_use_tls: true, mail_username: u, "
    smtp = conf(text + f"mail_password: {PLAIN}, mail_default_sender: [Rag, rag@example.org]}}").smtp
    assert (smtp.mail_server, smtp.mail_port, smtp.mail_use_ssl, smtp.mail_use_tls) == ("s", 587, False, True)
    assert smtp.mail_default_sender == ("Rag", "rag@example.org")
    assert smtp.mail_password.reveal() == PLAIN


def test_smtp_without_a_server_is_no_smtp(conf):
    assert conf("smtp: {mail_server: '', mail_port: 465}").smtp is None
    assert conf().smtp is None


def test_a_senders_address_alone_will_do(conf):
    smtp = conf("smtp: {mail_server: s, mail_default_sender: rag@example.org}").smtp
    assert smtp.mail_default_sender == ("", "rag@example.org")


def test_default_models_are_named_with_their_factory(conf):
    models = conf(
        "user_default_llm:\n  factory: Tongyi\n  parsers: naive:General\n  default_models:\n"
        "    chat_model: qwen\n"
        "    embedding_model: {name: bge, factory: BAAI, api_key: x}\n    asr_model: w@OpenAI\n"
        "    rerank_model: {api_key: x}\n"
    )
    named = {role: models.default_llm.model_id(f"{role}_model") for role in ("chat", "embedding", "asr", "rerank")}
    assert named == {"chat": "qwen@Tongyi", "embedding": "bge@BAAI", "asr": "w@OpenAI", "rerank": ""}
    assert models.default_parsers == "naive:General"
    assert DefaultLlmSection().model_id("image2text_model") == ""


# What is shown, S24


def test_s24_nothing_secret_is_shown(conf):
    settings = conf(
        f"ragflow: {{host: r, secret_key: {PLAIN * 2}}}\nsmtp: {{mail_server: s, mail_password: {PLAIN}}}\n"
        f"user_default_llm: {{api_key: {PLAIN}, "
        f"default_models: {{chat_model: {{name: m, api_key: {PLAIN}}}}}}}\n"
        f"oceanbase: {{config: {{password: {PLAIN}}}}}\nopendal: {{config: {{password: {PLAIN}}}}}\n"
        f"authentication: {{client: {{http_secret_key: {PLAIN}}}}}\n"
        f"oauth: {{x: {{client_secret: {PLAIN}}}}}\n",
        RAGKEEPER_ADMIN_PASSWORD=PLAIN,
        RAGKEEPER_PASSWORD_PRIVATE_KEY_PASSPHRASE=PLAIN,
    )
    lines = describe(settings)
    shown = {line.name: line.value_masked for line in lines}
    assert shown["admin_password"] == shown["secret_keys"] == shown["smtp.mail_password"] == "***"
    for everything in (
        repr(lines),
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(settings.model_dump()),
    ):
        assert PLAIN not in everything


def test_nested_settings_and_services_say_where_they_came_from(conf):
    settings = conf(
        "smtp: {mail_server: s}\nragflow: {host: r}\nuser_default_llm: {default_models: {chat_model: {name: m}}}\n"
    )
    origins = {line.name: line.origin for line in describe(settings)}
    assert origins["smtp.mail_server"] == "service_conf.yaml: smtp.mail_server"
    assert origins["smtp.mail_port"] == "default"
    assert origins["services.ragflow_0"] == "service_conf.yaml: ragflow"
    named = "service_conf.yaml: user_default_llm.default_models"
    assert origins["default_llm.default_models.chat_model.name"] == named


def test_values_are_shown_as_they_are_written(conf):
    settings = conf(
        LOG_LEVELS="root=INFO,peewee=DEBUG",
        RAGKEEPER_EGRESS_ALLOW_CIDRS="10.0.0.0/8,fd00::/8",
        REGISTER_ENABLED="0",
    )
    shown = {line.name: line.value_masked for line in describe(settings)}
    assert shown["log_levels"] == "root=INFO,peewee=DEBUG"
    assert shown["egress_allow_cidrs"] == "10.0.0.0/8,fd00::/8"
    assert shown["register_enabled"] == "false"
    assert shown["token_storage"] == ""


def test_further_permissions_are_read_from_their_section(conf):
    settings = conf("permissions:\n  report: [read, export]\n  dataset: [publish]\n")

    assert dict(settings.permissions) == {"report": ("read", "export"), "dataset": ("publish",)}
    assert settings.origins["permissions"] == "service_conf.yaml: permissions"
    assert dict(conf().permissions) == {}
    assert "permissions.report: expected a list" in refusal(conf, "permissions: {report: read}")


@pytest.mark.parametrize("value", ["short", "x" * 31, "with a space in it, and long enough for a secret", "ü" * 40])
def test_a_secret_of_the_proxy_that_is_too_short_or_no_header_is_refused(conf, value):
    sentence = refusal(conf, RAGKEEPER_FORWARD_AUTH_SECRET=value)

    assert sentence == "RAGKEEPER_FORWARD_AUTH_SECRET: expected at least 32 visible ASCII characters"
    assert conf(RAGKEEPER_FORWARD_AUTH_SECRET="x" * 32).forward_auth_secret == Secret("x" * 32)
