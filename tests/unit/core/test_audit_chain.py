"""The chain of audit events: whatever is done to it behind its back is found, and what was done rightly is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.audit_chain import (
    CONTENT,
    NOTHING,
    SEGMENT_EVENTS,
    SEGMENT_MS,
    Anchor,
    Event,
    Problem,
    Seal,
    Walk,
    anchor_is_due,
    anchor_mac,
    canonical,
    drop_mac,
    event_mac,
    is_own_drop,
    link,
    problem_of_anchor,
    problem_of_event,
    uid_of,
    uids_from,
)

KEYS = {"new": b"the newer key", "old": b"the older key"}
STRANGER = b"somebody else's key"

scalars = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))
# An id comes before, and what the other columns hold makes no difference.
contents = st.tuples(scalars, scalars).map(lambda values: (*values, *[None] * (len(CONTENT) - 3)))


class Link(NamedTuple):
    """What stands in the two tables for one event."""

    seal: Seal
    event: Event | None


def chain_of(bodies: Sequence[tuple[object, ...]], key_ids: Sequence[str] = ("new",)) -> list[Link]:
    """A chain as the plane makes it; each event gets an id of its own."""
    links, digest = [], NOTHING
    for number, body in enumerate(bodies, 1):
        key_id = key_ids[number % len(key_ids)]
        content = (uid_of(number, 0, f"{number:012x}"), *body)
        mac = event_mac(KEYS[key_id], content)  # type: ignore[arg-type]
        digest = link(KEYS[key_id], digest, number, str(content[0]), mac)
        seal = Seal(number, str(content[0]), key_id, digest)
        links.append(Link(seal, Event(content, key_id, mac)))  # type: ignore[arg-type]
    return links


def walked(links: Sequence[Link]) -> tuple[Problem | None, int]:
    """The first problem, and how many events were good."""
    walk = Walk(KEYS)
    for seal, event in links:
        wrong = walk.step(seal, event)
        if wrong is not None:
            return wrong, walk.seq
    return None, walk.seq


chains = st.lists(contents, min_size=2, max_size=8)


@given(st.lists(scalars, max_size=6), st.lists(scalars, max_size=6))
def test_two_lists_of_values_have_one_form_only_if_they_are_equal(
    one: list[str | int | None], other: list[str | int | None]
) -> None:
    assert (canonical(one) == canonical(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("ab", "c"), ("a", "bc")), ((None,), ("",)), (("1",), (1,)), (("a", None), ("a",)), (("2:a;",), ("2", "a"))],
)
def test_values_that_look_alike_side_by_side_have_forms_of_their_own(
    one: tuple[str | int | None, ...], other: tuple[str | int | None, ...]
) -> None:
    assert canonical(one) != canonical(other)


@given(chains)
def test_a_chain_is_good_under_every_key_that_it_was_made_with(bodies: list[tuple[object, ...]]) -> None:
    assert walked(chain_of(bodies, ("new", "old"))) == (None, len(bodies))


@given(chains, st.data())
def test_a_changed_value_is_found_where_it_stands(bodies: list[tuple[object, ...]], data: st.DataObject) -> None:
    links = chain_of(bodies)
    place = data.draw(st.integers(0, len(links) - 1))
    column = data.draw(st.integers(1, len(CONTENT) - 1))
    seal, event = links[place]
    assert event is not None
    content = list(event.content)
    content[column] = data.draw(scalars.filter(lambda value: value != content[column]))
    links[place] = Link(seal, event._replace(content=tuple(content)))

    wrong, good = walked(links)

    assert wrong is not None
    assert (wrong.kind, wrong.uid, wrong.seq, good) == ("broken", seal.uid, place + 1, place)


@given(chains, st.data())
def test_an_event_that_is_taken_out_is_found(bodies: list[tuple[object, ...]], data: st.DataObject) -> None:
    links = chain_of(bodies)
    place = data.draw(st.integers(0, len(links) - 2))
    with_its_seal = data.draw(st.booleans())
    seal = links[place].seal
    if with_its_seal:
        del links[place]
    else:
        links[place] = Link(seal, None)

    wrong, good = walked(links)

    assert wrong is not None
    assert (wrong.kind, wrong.seq, good) == ("missing", place + 1, place)


@given(chains, st.data())
def test_an_event_that_is_taken_out_is_found_also_when_the_others_move_up(
    bodies: list[tuple[object, ...]], data: st.DataObject
) -> None:
    links = chain_of(bodies)
    place = data.draw(st.integers(0, len(links) - 2))
    del links[place]
    renumbered = [Link(each.seal._replace(seq=number), each.event) for number, each in enumerate(links, 1)]

    wrong, good = walked(renumbered)

    assert wrong is not None
    assert (wrong.kind, wrong.seq, good) == ("moved", place + 1, place)


@given(chains, st.data())
def test_two_events_that_change_places_are_found(bodies: list[tuple[object, ...]], data: st.DataObject) -> None:
    links = chain_of(bodies)
    one, other = sorted(data.draw(st.permutations(range(len(links))))[:2])
    first, second = links[one], links[other]
    links[one] = Link(second.seal._replace(seq=one + 1), second.event)
    links[other] = Link(first.seal._replace(seq=other + 1), first.event)

    wrong, good = walked(links)

    assert wrong is not None
    assert (wrong.kind, wrong.seq, good) == ("moved", one + 1, one)


@given(chains, st.data())
def test_an_event_of_somebody_without_the_key_is_found(bodies: list[tuple[object, ...]], data: st.DataObject) -> None:
    links = chain_of(bodies)
    place = data.draw(st.integers(0, len(links)))
    before = links[place - 1].seal.digest if place else NOTHING
    content = ("forged", *[None] * (len(CONTENT) - 1))
    mac = event_mac(STRANGER, content)
    forged = Link(
        Seal(place + 1, "forged", "new", link(STRANGER, before, place + 1, "forged", mac)), Event(content, "new", mac)
    )
    moved = [Link(each.seal._replace(seq=each.seal.seq + 1), each.event) for each in links[place:]]

    wrong, good = walked([*links[:place], forged, *moved])

    assert wrong is not None
    assert (wrong.kind, wrong.uid, good) == ("broken", "forged", place)


@given(chains, st.data())
def test_a_copy_of_a_genuine_event_has_no_place(bodies: list[tuple[object, ...]], data: st.DataObject) -> None:
    links = chain_of(bodies)
    copied = data.draw(st.sampled_from(links))
    end = len(links) + 1
    forged = copied.seal._replace(seq=end, digest=link(STRANGER, links[-1].seal.digest, end, copied.seal.uid, "x"))

    wrong, good = walked([*links, Link(forged, copied.event)])

    assert wrong is not None
    assert (wrong.kind, wrong.seq, good) == ("moved", end, len(links))


def test_an_event_without_a_signature_or_of_an_unknown_key_is_told_apart() -> None:
    content = ("e1", *[None] * (len(CONTENT) - 1))

    unsigned = problem_of_event(Event(content, None, None), KEYS)
    unknown = problem_of_event(Event(content, "lost", event_mac(STRANGER, content)), KEYS)

    assert kind_of(unsigned) == "inserted"
    assert kind_of(unknown) == "key"
    assert unknown is not None
    assert "lost" in unknown.text


def anchor(number: int, seq: int, previous: str = NOTHING, dropped_at: int | None = None) -> Anchor:
    mac = anchor_mac(KEYS["new"], number, seq, "d" * 64, 5, 7, previous)
    proof = drop_mac(KEYS["new"], mac, dropped_at) if dropped_at is not None else None
    return Anchor(number, seq, "d" * 64, 5, 7, previous, "new", mac, dropped_at, "new" if proof else None, proof)


def kind_of(problem: Problem | None) -> str | None:
    return problem.kind if problem is not None else None


def test_anchors_are_a_chain_of_their_own() -> None:
    first = anchor(1, 1000)
    second = anchor(2, 2000, first.mac)

    assert problem_of_anchor(first, None, KEYS) is None
    assert problem_of_anchor(second, first, KEYS) is None
    assert kind_of(problem_of_anchor(second, None, KEYS)) == "anchor"
    assert kind_of(problem_of_anchor(anchor(2, 2000, NOTHING), first, KEYS)) == "anchor"
    assert kind_of(problem_of_anchor(anchor(2, 900, first.mac), first, KEYS)) == "anchor"


def test_only_the_plane_can_say_that_it_dropped_a_segment() -> None:
    dropped = anchor(1, 1000, dropped_at=9)
    plain = anchor(1, 1000)
    claimed = Anchor(
        plain.number, plain.seq, plain.digest, plain.newest_at, plain.at, plain.previous, plain.key_id, plain.mac,
        9, "new", drop_mac(STRANGER, plain.mac, 9),
    )  # fmt: skip

    assert problem_of_anchor(dropped, None, KEYS) is None
    assert kind_of(problem_of_anchor(claimed, None, KEYS)) == "missing"
    assert is_own_drop(dropped, KEYS)
    assert not is_own_drop(plain, KEYS)
    assert not is_own_drop(claimed, KEYS)


@pytest.mark.parametrize("changed", [{"seq": 9000}, {"newest_at": 9000}, {"number": 9}, {"key_id": "lost"}])
def test_a_genuine_drop_says_nothing_of_another_segment(changed: dict[str, Any]) -> None:
    assert not is_own_drop(replace(anchor(1, 1000, dropped_at=9), **changed), KEYS)


def test_an_anchor_is_due_at_first_and_after_a_number_of_events_or_some_time() -> None:
    last = anchor(1, 500)

    assert anchor_is_due(1, 0, None)
    assert not anchor_is_due(500, SEGMENT_MS * 9, last)
    assert not anchor_is_due(500 + SEGMENT_EVENTS - 1, 7, last)
    assert anchor_is_due(500 + SEGMENT_EVENTS, 7, last)
    assert anchor_is_due(501, 7 + SEGMENT_MS, last)


@given(st.integers(0, 2**47), st.integers(0, 2**47), st.integers(0, 2**20))
def test_ids_sort_as_their_moments(one: int, other: int, turn: int) -> None:
    uid = uid_of(one, turn, "f" * 12)

    assert len(uid) == 28
    assert (uid >= uids_from(other)) == (one >= other)
