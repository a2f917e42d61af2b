from common.conf.urls import database_from_url, redis_from_url


def test_store_urls_become_sections(tmp_path):
    name, mysql = database_from_url("mysql://us%40er:p%2Fw@[::1]:3307/rag", tmp_path)
    assert name == "mysql"
    assert (mysql.user, mysql.password.reveal(), mysql.name) == ("us@er", "p/w", "rag")
    assert mysql.address() == ("::1", 3307)
    assert not mysql.ssl
    _, mysql = database_from_url("mysqls://u@db/rag", tmp_path)
    assert (mysql.address(), mysql.ssl, mysql.password) == (("db", 3306), True, None)
    redis = redis_from_url("redis://me:p%3Aw@[::1]/3")
    assert (redis.username, redis.password.reveal(), redis.db) == ("me", "p:w", 3)
    assert redis.address() == ("::1", 6379)
