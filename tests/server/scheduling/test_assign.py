"""Namespaces onto servers, as a pure function."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from hetuflow.protocol.model import NamespaceId, ServerId
from hetuflow.server.scheduling.leading.assign import Place, Portion, assign

Current = dict[NamespaceId, ServerId]

MANY = 1_000_000
GONE = ServerId(UUID(int=999))


def server(number: int, weight: int = 1, *, strained: bool = False) -> Place:
  """Make a server with an id of its number."""
  return Place(id=ServerId(UUID(int=number)), weight=weight, strained=strained)


def namespaces(count: int, weight: int = 1) -> list[Portion]:
  """Make namespaces of one size."""
  return [Portion(id=NamespaceId(f"n{n:04}"), weight=weight) for n in range(count)]


def settle(
  servers: Sequence[Place],
  portions: Sequence[Portion],
  current: Current,
  max_moves: int = 10,
) -> Current:
  """Move until nothing moves any more, and return where all are then."""
  current = dict(current)
  for _ in range(10 * len(portions) + 10):
    moves = assign(servers, portions, current, max_moves)
    if not moves:
      return current
    current |= moves
  raise AssertionError("it does not end")


def counts(current: Current) -> list[int]:
  """Count what each server has, in order of ids."""
  return [count for _, count in sorted(Counter(current.values()).items())]


servers_at_will = st.lists(
  st.builds(
    server,
    st.integers(1, 6),
    st.sampled_from([0, 1, 2, 3, 100]),
    strained=st.booleans(),
  ),
  max_size=5,
  unique_by=lambda each: each.id,
)
wishes = st.one_of(
  st.none(), st.builds(lambda n: ServerId(UUID(int=n)), st.integers(1, 8))
)
portions_at_will = st.lists(
  st.builds(
    Portion,
    id=st.integers(0, 60).map(lambda n: NamespaceId(f"n{n}")),
    weight=st.sampled_from([0, 1, 1, 2, 7, 1_000]),
    wish=wishes,
  ),
  max_size=40,
  unique_by=lambda each: each.id,
)
homes = st.dictionaries(
  st.integers(0, 60).map(lambda n: NamespaceId(f"n{n}")),
  st.integers(1, 8).map(lambda n: ServerId(UUID(int=n))),
)


@settings(derandomize=True, deadline=None)
@given(servers_at_will, portions_at_will, homes)
def test_after_one_pass_nobody_is_without_a_server_that_is_alive(
  servers: list[Place], portions: list[Portion], current: Current
) -> None:
  alive = {each.id for each in servers}
  after = current | assign(servers, portions, current, 0)
  if alive:
    assert {after[each.id] for each in portions} <= alive
  else:
    assert after == current


@settings(derandomize=True, deadline=None)
@given(servers_at_will, portions_at_will, homes, st.integers(0, 5))
def test_what_can_stay_moves_a_few_at_a_time_and_not_beside_what_must_move(
  servers: list[Place], portions: list[Portion], current: Current, max_moves: int
) -> None:
  alive = {each.id for each in servers}
  must = {
    each.id
    for each in portions
    if (each.wish if each.wish in alive else current.get(each.id))
    != current.get(each.id)
    or current.get(each.id) not in alive
  }
  moves = assign(servers, portions, current, max_moves)
  if must and alive:
    assert set(moves) == must
  else:
    assert len(moves) <= max_moves
  assert all(current.get(name) != home for name, home in moves.items())


@settings(derandomize=True, deadline=None)
@given(servers_at_will, portions_at_will, homes)
def test_it_comes_to_rest_with_all_wishes_kept(
  servers: list[Place], portions: list[Portion], current: Current
) -> None:
  alive = {each.id for each in servers}
  rest = settle(servers, portions, current)
  assert all(rest[each.id] == each.wish for each in portions if each.wish in alive)
  if any(each.weight for each in servers):
    nothing = {each.id for each in servers if not each.weight}
    placed = [each for each in portions if rest.get(each.id) in nothing]
    assert all(each.wish in nothing for each in placed)


@settings(derandomize=True, deadline=None)
@given(servers_at_will, portions_at_will, homes, st.randoms(use_true_random=False))
def test_the_order_in_which_they_are_named_does_not_matter(
  servers: list[Place], portions: list[Portion], current: Current, dice: object
) -> None:
  said = assign(servers, portions, current, 3)
  dice.shuffle(servers)  # type: ignore[attr-defined]  # hypothesis hides the class
  dice.shuffle(portions)  # type: ignore[attr-defined]  # as above
  assert list(assign(servers, portions, current, 3).items()) == list(said.items())


@settings(derandomize=True, deadline=None)
@given(
  st.lists(st.integers(1, 5), min_size=1, max_size=5),
  st.integers(200, 700),
  st.lists(st.integers(1, 8), min_size=1, max_size=20),
)
def test_each_server_has_its_share_within_5_percent(
  weights: list[int], count: int, homes: list[int]
) -> None:
  servers = [server(n, weight) for n, weight in enumerate(weights, 1)]
  portions = namespaces(count)
  current = {
    each.id: ServerId(UUID(int=homes[n % len(homes)]))
    for n, each in enumerate(portions)
  }
  had = Counter(settle(servers, portions, current, MANY).values())
  for each in servers:
    fair = count * each.weight / sum(weights)
    # One namespace cannot be halved.
    assert abs(had[each.id] - fair) <= max(0.05 * fair, 1)


def test_weights_1_2_3_share_600_namespaces_as_1_2_3() -> None:
  servers = [server(1, 1), server(2, 2), server(3, 3)]
  assert counts(assign(servers, namespaces(600), {}, 0)) == [100, 200, 300]


def test_only_what_a_dead_server_had_moves() -> None:
  servers = [server(n) for n in (1, 2, 3)]
  before = settle(servers, namespaces(600), {})
  moves = assign(servers[1:], namespaces(600), before, 10)
  assert set(moves) == {name for name, home in before.items() if home == servers[0].id}
  assert counts(before | moves) == [300, 300]
  assert assign(servers[1:], namespaces(600), before | moves, 10) == {}


def test_to_a_server_that_joins_only_its_share_moves_and_nothing_between_the_others() -> (
  None
):
  before = settle([server(1), server(2)], namespaces(600), {})
  after = settle([server(n) for n in (1, 2, 3)], namespaces(600), before)
  moved = {name for name in before if after[name] != before[name]}
  assert {after[name] for name in moved} == {server(3).id}
  assert 190 <= len(moved) <= 200


def test_a_wish_for_a_server_that_is_gone_is_no_wish() -> None:
  wishing = [Portion(id=NamespaceId("n"), weight=1, wish=GONE)]
  assert assign([server(1)], wishing, {}, 0) == {NamespaceId("n"): server(1).id}
  assert assign([server(1)], wishing, {NamespaceId("n"): server(1).id}, 10) == {}


def test_a_wish_that_can_be_kept_again_is_kept_at_once() -> None:
  wishing = [Portion(id=NamespaceId("n"), weight=1, wish=server(2, 0).id)]
  current = {NamespaceId("n"): server(1).id}
  assert assign([server(1), server(2, 0)], wishing, current, 0) == {
    NamespaceId("n"): server(2).id
  }


def test_size_counts_and_a_weight_of_0_is_tiny() -> None:
  large = [Portion(id=NamespaceId("large"), weight=50)]
  tiny = namespaces(20, weight=0)
  servers = [server(1), server(2)]
  rest = settle(servers, [*large, *namespaces(50), *tiny], {}, MANY)
  [home] = {rest[NamespaceId("large")]}
  assert sum(rest[each.id] == home for each in namespaces(50)) <= 1
  rest = settle(servers, tiny, {}, MANY)
  assert counts(rest) == [10, 10]


def test_a_server_under_strain_gives_a_quarter_away_and_takes_it_back_later() -> None:
  calm = [server(n) for n in (1, 2, 3)]
  strained = [server(1, strained=True), *calm[1:]]
  before = settle(calm, namespaces(300), {})
  after = settle(strained, namespaces(300), before)
  assert 80 <= counts(after)[0] <= 84
  assert settle(strained, namespaces(300), after) == after
  assert 96 <= counts(settle(calm, namespaces(300), after))[0] <= 100


def test_where_all_are_under_strain_nothing_moves() -> None:
  before = settle([server(1), server(2)], namespaces(100), {})
  strained = [server(1, strained=True), server(2, strained=True)]
  assert assign(strained, namespaces(100), before, 10) == {}


def test_a_weight_of_0_takes_none_unless_there_is_nobody_else() -> None:
  rest = settle([server(1, 0), server(2)], namespaces(20), {})
  assert set(rest.values()) == {server(2).id}
  rest = settle(
    [server(1, 0), server(2)], namespaces(20), dict.fromkeys(rest, server(1).id)
  )
  assert set(rest.values()) == {server(2).id}
  assert counts(settle([server(1, 0), server(2, 0)], namespaces(20), {})) == [10, 10]
