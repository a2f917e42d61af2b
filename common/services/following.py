"""Keeping up with a RAGFlow in the same database: what it wrote since the last look, and now and then all of it."""

from __future__ import annotations

from common.services import claims, invitations, tokens
from common.services.jobs import Task

FOLLOW = "ragflow.follow"
WALK = "ragflow.walk"
#: Seconds between two looks; an account that RAGFlow made may be missing from lists by page for so long at most.
FOLLOW_EVERY_S = 60.0
WALK_EVERY_S = 3600.0


def follow(task: Task) -> None:
    """The job ``ragflow.follow``: claim what RAGFlow wrote, and bring before it what it would not learn otherwise.

    That are invitations of addresses which have registered there, and the end of tokens, by their removal.
    """
    plane = task.plane
    seen = claims.follow(plane.database, plane.now_ms())
    told = {"rows": seen, "invitations": invitations.deliver(plane), "tokens": tokens.retire_expired(plane)}
    task.save(told)


def walk(task: Task) -> None:
    """The job ``ragflow.walk``: claim rows without a claim, and give up the claims of rows that are gone."""
    seen = 0
    for rows in claims.walk(task.plane.database, task.plane.now_ms()):
        seen += rows
        task.pause_point()
    task.save({"rows": seen})
