"""What the errors of MySQL and MariaDB mean: a value that is taken or does not fit, a store that is lost, or a defect.

Numbers are those of the servers' error references; from 2000 on they are PyMySQL's own.
"""

from __future__ import annotations

import re

from pymysql.constants import CR, ER
from pymysql.err import InterfaceError, MySQLError

from common.core.errors import BadField, PlaneError, StoreUnavailable
from common.stores.database import STORE, Taken
from common.stores.network import failure_of

_DISK_FULL, _FULL, _CAN_NOT_WRITE = "its disk is full", "it is full", "it can't write to its disk"

DEADLOCK = ER.LOCK_DEADLOCK
REFUSED_CREDENTIALS = ER.ACCESS_DENIED_ERROR
TOO_LONG = "the statement took too long"
_READ_ONLY = "it is read-only"
_OUT_OF_CLUSTER = "it takes no statements now; a node of a cluster may have left it"
#: What another server may not say that the address leads to by now.
OF_ONE_SERVER = frozenset({_READ_ONLY, _OUT_OF_CLUSTER})
#: What a server says that has no room; it may be read, and some changes still find room in what it has.
FULL = frozenset({_DISK_FULL, _FULL, _CAN_NOT_WRITE})
FOREIGN = "it does not speak the protocol of MySQL"
_LOCK_WAIT = ER.LOCK_WAIT_TIMEOUT

_TAKEN = frozenset({ER.DUP_ENTRY, 1586})
_DOES_NOT_FIT = {
    ER.DATA_TOO_LONG: "is too long",
    ER.WARN_DATA_OUT_OF_RANGE: "is too large or too small",
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD: "has characters that the database can't store",
}
_COLUMN = re.compile(r"column '([^']+)'|column (?:`[^`]+`\.)*`([^`]+)`")

# The connection is over. What the server says is told from what the client finds: both may come first.
_SHUTDOWN, _KILLED, _IDLE_TOO_LONG = ER.SERVER_SHUTDOWN, 1927, 4031
_CUT = frozenset({_SHUTDOWN, _KILLED, _IDLE_TOO_LONG, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST})

# The server answers, and this is refused.
_REFUSALS = {
    ER.CON_COUNT_ERROR: "it accepts no more connections (max_connections)",
    ER.TOO_MANY_USER_CONNECTIONS: "it accepts no more connections of this user (max_user_connections)",
    ER.USER_LIMIT_REACHED: "it accepts no more connections of this user (max_user_connections)",
    ER.ACCESS_DENIED_ERROR: "it refuses the user name or the password",
    ER.DBACCESS_DENIED_ERROR: "the user may not use this database",
    ER.BAD_DB_ERROR: "it has no database of this name",
    ER.HOST_IS_BLOCKED: "it has blocked this host after many broken connections (FLUSH HOSTS)",
    ER.HOST_NOT_PRIVILEGED: "it lets nobody in from this host",
    ER.TABLEACCESS_DENIED_ERROR: "the user may not do that to one of its tables",
    ER.COLUMNACCESS_DENIED_ERROR: "the user may not do that to a column of one of its tables",
    ER.SPECIFIC_ACCESS_DENIED_ERROR: "the user lacks a privilege",
    ER.NO_SUCH_TABLE: "its tables are missing",
    ER.OPTION_PREVENTS_STATEMENT: _READ_ONLY,
    ER.OPEN_AS_READONLY: _READ_ONLY,
    1792: _READ_ONLY,
    1836: _READ_ONLY,
    ER.DISK_FULL: _DISK_FULL,
    ER.RECORD_FILE_FULL: _FULL,
    ER.ERROR_ON_WRITE: _CAN_NOT_WRITE,
    ER.GET_ERRNO: "its storage failed",
    ER.OUTOFMEMORY: "it is out of memory",
    ER.OUT_OF_RESOURCES: "it is out of memory",
    ER.NET_PACKET_TOO_LARGE: "the statement is larger than it takes (max_allowed_packet)",
    ER.QUERY_INTERRUPTED: "the statement was interrupted",
    1969: TOO_LONG,
    3024: TOO_LONG,
    DEADLOCK: "another transaction was in the way, and this one was undone (deadlock)",
    _LOCK_WAIT: "another transaction held what was needed for too long",
    ER.LOCK_TABLE_FULL: "it has no room for more locks",
    # A node that has left its cluster (Galera, Group Replication) answers so whatever is asked.
    ER.UNKNOWN_COM_ERROR: _OUT_OF_CLUSTER,
    3100: _OUT_OF_CLUSTER,
    3101: _OUT_OF_CLUSTER,
    ER.ERROR_DURING_COMMIT: "it could not commit",
    CR.CR_SSL_CONNECTION_ERROR: "it does not offer TLS",
}


def code_of(error: MySQLError) -> int:
    """The number of an error; of one without, that of a lost connection for a closed one, else 0."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    # PyMySQL's word for a connection that it has closed.
    return CR.CR_SERVER_LOST if code == 0 and isinstance(error, InterfaceError) else code


def was_cut(error: MySQLError) -> bool:
    """Whether the connection was ended at the other side, as opposed to a deadline that was missed on it."""
    return code_of(error) in _CUT and failure_of(error) is None


def meaning_of(error: MySQLError, *, connecting: bool = False) -> PlaneError | Taken | None:
    """What is to be raised in place of the error; None for a defect of the statement.

    The store counts as lost when it could not be reached or did not answer in time. A connection that was cut, once
    it stood, is no outage: the next one tells.
    """
    code = code_of(error)
    if code in _TAKEN:
        return Taken(str(error))
    if code in _DOES_NOT_FIT:
        return _unfit(code, str(error.args[1]))
    if code in _REFUSALS:
        return StoreUnavailable(STORE, _refusal(code, str(error.args[1])), lost=False)
    if code == 0:
        # PyMySQL's own: an answer that it can't read.
        return StoreUnavailable(STORE, FOREIGN)
    if code in _CUT or CR.CR_ERROR_FIRST <= code <= CR.CR_ERROR_LAST:
        reason = failure_of(error)
        return StoreUnavailable(STORE, reason or "the connection was cut", lost=connecting or reason is not None)
    return None


def _unfit(code: int, text: str) -> PlaneError | None:
    found = _COLUMN.search(text)
    if found is None:
        return None
    field = found[1] or found[2]
    return BadField(f"{field}: {_DOES_NOT_FIT[code]}.", field=field)


def _refusal(code: int, text: str) -> str:
    # The errno of the operating system; its words may have a path in them.
    if code in (ER.ERROR_ON_WRITE, ER.GET_ERRNO) and re.search(r"\b28\b", text):
        return _DISK_FULL
    return _REFUSALS[code]
