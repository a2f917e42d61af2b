import pytest

from common.conf.sections import list_services, parse_sections
from common.conf.types import split_address

PLAIN = "s3cr3t-of-the-test"


def services_of(text_sections):
    typed, _ = parse_sections(text_sections, dict.fromkeys(text_sections, "service_conf.yaml"))
    return list_services(typed)


def test_services_are_listed_in_the_files_order_as_ragflow_lists_them():
    entries = services_of(
        {
            "ragflow": {"host": "0.0.0.0", "http_port": 9380},
            "mysql": {"name": "rag_flow", "user": "root", "password": PLAIN, "host": "db", "port": 5455},
            "minio": {"user": "rag", "password": PLAIN, "host": "minio:9000"},
            "es": {"hosts": f"http://elastic:{PLAIN}@es01:1200,http://es02:1200", "username": "elastic"},
            "infinity": {"uri": "infinity:23817", "db_name": "default_db"},
            "redis": {"db": 1, "password": PLAIN, "host": "redis:6379"},
            "task_executor": {"message_queue_type": "redis"},
        }
    )
    assert [(e.name, e.service_type, e.host, e.port, dict(e.extra)) for e in entries] == [
        ("ragflow_0", "ragflow_server", "0.0.0.0", 9380, {}),
        ("mysql", "meta_data", "db", 5455, {"meta_type": "mysql", "username": "root"}),
        ("minio", "file_store", "minio", 9000, {"store_type": "minio", "user": "rag"}),
        (
            "elasticsearch",
            "retrieval",
            "es01",
            1200,
            {"retrieval_type": "elasticsearch", "username": "elastic"},
        ),
        ("infinity", "retrieval", "infinity", 23817, {"retrieval_type": "infinity", "db_name": "default_db"}),
        ("redis", "message_queue", "redis", 6379, {"mq_type": "redis", "database": 1}),
        ("task_executor", "task_executor", "", None, {"message_queue_type": "redis"}),
    ]
    assert PLAIN not in repr(entries)


def test_r12_every_kind_of_store_is_listed():
    sections = {
        "postgres": ({"host": "pg", "user": "u", "password": PLAIN}, "meta_data", "pg", 5432),
        "minio_0": ({"host": "m:9000"}, "file_store", "m", 9000),
        "s3": (
            {"endpoint_url": f"https://u:{PLAIN}@s3.example.org:8443/x"},
            "file_store",
            "s3.example.org",
            8443,
        ),
        "oss": (
            {"endpoint_url": "https://oss.example.org", "secret_key": PLAIN},
            "file_store",
            "oss.example.org",
            None,
        ),
        "azure": (
            {"container_url": f"https://a.blob.example.org/c?sig={PLAIN}", "sas_token": PLAIN},
            "file_store",
            "a.blob.example.org",
            None,
        ),
        "gcs": ({"bucket": "b"}, "file_store", "", None),
        "opendal": ({"scheme": "fs", "config": {"password": PLAIN}}, "file_store", "", None),
        "os": ({"hosts": "http://os01:1201", "password": PLAIN}, "retrieval", "os01", 1201),
        "oceanbase": ({"config": {"host": "ob", "port": 2881, "password": PLAIN}}, "retrieval", "ob", 2881),
        "seekdb": ({"config": {"host": "sd", "port": 2882}}, "retrieval", "sd", 2882),
        "gaussdb": ({"host": "g", "port": 8000, "schema": "x", "password": PLAIN}, "retrieval", "g", 8000),
        "rabbitmq": ({"host": "q", "port": 5672}, "message_queue", "q", 5672),
    }
    entries = services_of({key: value[0] for key, value in sections.items()})
    assert [(e.section, e.service_type, e.host, e.port) for e in entries] == [
        (key, kind, host, port) for key, (_, kind, host, port) in sections.items()
    ]
    assert PLAIN not in repr(entries)


def test_r12_nothing_that_is_missing_stops_the_start():
    entries = services_of(
        {
            "minio": {"host": "minio"},
            "redis": {"host": "redis"},
            "infinity": {"uri": "infinity"},
            "es": {"hosts": "es01"},
            "task_executor": {},
            "mysql": {},
            "s3": {},
            "oceanbase": {"scheme": "mysql"},
        }
    )
    assert [(e.section, e.host, e.port) for e in entries] == [
        ("minio", "minio", None),
        ("redis", "redis", None),
        ("infinity", "infinity", None),
        ("es", "es01", None),
        ("task_executor", "", None),
        ("mysql", "", 3306),
        ("s3", "", None),
        ("oceanbase", "", None),
    ]
    assert dict(entries[4].extra) == {}


def test_a_key_without_a_value_counts_as_absent():
    assert services_of({"redis": {"host": None, "db": None}})[0].extra["database"] == 1


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("redis:6379", "redis", 6379),
        ("redis", "redis", None),
        ("", "", None),
        ("[::1]:6379", "::1", 6379),
        ("::1", "::1", None),
        ("http://u:p@es:9200/x", "es", 9200),
        ("https://es", "es", None),
    ],
)
def test_an_address_is_split(text, host, port):
    assert split_address(text) == (host, port)
