"""How much is measured: the whole, or just enough to see that it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """``pairs`` runs of reference and server in turn, each of ``reads`` requests; 4 x ``pages`` of a kind of page;
    ``logins`` on each port before their memory is weighed; ``events`` that pages of the audit trail are out of, and
    ``written_s`` seconds of audited changes; ``failures`` of logins for each kind of address."""

    pairs: int
    reads: int
    pages: int
    whole_lists: int
    few_users: int
    many_users: int
    listed_users: int
    many_roles: int
    logins: int
    events: int
    written_s: float
    failures: int


WHOLE = Effort(
    pairs=7,
    reads=3000,
    pages=12,
    whole_lists=30,
    few_users=1_000,
    many_users=100_000,
    listed_users=10_000,
    many_roles=10_000,
    logins=200,
    events=100_000,
    written_s=20.0,
    failures=200,
)
QUICK = Effort(
    pairs=2,
    reads=40,
    pages=2,
    whole_lists=3,
    few_users=600,
    many_users=1_200,
    listed_users=600,
    many_roles=1_000,
    logins=32,
    events=3_000,
    written_s=1.0,
    failures=4,
)
