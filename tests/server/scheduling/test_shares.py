"""Namespaces share the places of agents by weight."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hetuflow.protocol.model import NamespaceId
from hetuflow.server.scheduling.shares import Shares

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def names(count: int) -> list[NamespaceId]:
  """Name some namespaces."""
  return [NamespaceId(f"n{number}") for number in range(count)]


def serve(
  shares: Shares, asking: dict[NamespaceId, int], places: int
) -> Counter[NamespaceId]:
  """Give free places away in rounds, as the poller does; return who got how many."""
  got: Counter[NamespaceId] = Counter()
  while places and any(asking.values()):
    for name in shares.order(asking):
      count = min(shares.portion(name, places, asking), asking[name], places)
      shares.charge(name, count)
      shares.waits(name, asking[name] > count)
      asking[name] -= count
      got[name] += count
      places -= count
  return got


@given(weights=WEIGHTS, places=st.lists(st.integers(1, 40), min_size=150, max_size=150))
@settings(derandomize=True, deadline=None, max_examples=50)
def test_those_who_always_wait_are_served_by_weight(
  weights: list[int], places: list[int]
) -> None:
  who = names(len(weights))
  shares = Shares()
  shares.weigh(dict(zip(who, weights, strict=True)))
  got: Counter[NamespaceId] = Counter()
  for free in places:
    got += serve(shares, dict.fromkeys(who, 1_000), free)
  total = sum(places)
  assert got.total() == total
  # Nobody is further from its part than what is given away in a round or two.
  for name, weight in zip(who, weights, strict=True):
    assert abs(got[name] - total * weight / sum(weights)) <= 2 * max(places) + 20


def test_places_that_one_does_not_need_go_to_the_others() -> None:
  one, other = names(2)
  shares = Shares()
  shares.weigh({one: 1, other: 99})
  serve(shares, {one: 100, other: 100}, 2)
  got = serve(shares, {one: 100, other: 3}, 50)
  assert got == {one: 47, other: 3}


def test_whoever_was_idle_has_saved_nothing_up() -> None:
  one, other = names(2)
  shares = Shares()
  shares.weigh({one: 1, other: 1})
  for _ in range(100):
    serve(shares, {one: 1_000}, 10)
  got: Counter[NamespaceId] = Counter()
  for _ in range(10):
    got += serve(shares, {one: 1_000, other: 1_000}, 10)
  assert abs(got[one] - got[other]) <= 20


def test_weight_zero_is_served_last_but_served() -> None:
  one, other = names(2)
  shares = Shares()
  shares.weigh({one: 0, other: 1})
  got: Counter[NamespaceId] = Counter()
  for _ in range(500):
    got += serve(shares, {one: 10, other: 10}, 1)
  assert 0 < got[one] < got[other] / 10


def test_a_namespace_that_is_gone_is_forgotten() -> None:
  one, other = names(2)
  shares = Shares()
  shares.weigh({one: 1, other: 1})
  serve(shares, {one: 5, other: 5}, 5)
  shares.weigh({one: 1})
  assert shares.portion(one, 10, [one, other]) == 10


def test_who_waits_for_other_agents_does_not_matter() -> None:
  one, other = names(2)
  shares = Shares()
  shares.weigh({one: 1, other: 1})
  serve(shares, {other: 50}, 5)
  assert shares.portion(one, 10, [one]) == 10
  assert shares.portion(one, 10, [one, other]) < 10
