"""Who takes what it is sent fast enough, and who does not: the rule alone, without a socket."""

from collections.abc import Iterable

from server.http.uptake import Uptake


def moment(looks: Iterable[tuple[float, int, int]], least_per_s: float = 0.0) -> float | None:
    """When a client is found too slow. Looks are moments, bytes given and bytes that wait."""
    uptake = Uptake(patience_s=15.0, window_s=20.0)
    for now, given, waiting in looks:
        if uptake.is_too_slow(now, num_given=given, num_waiting=waiting, least_per_s=least_per_s):
            return now
    return None


def steady(given_per_s: int, taken_per_s: int) -> Iterable[tuple[float, int, int]]:
    return ((now, given_per_s * now, max(0, (given_per_s - taken_per_s) * now)) for now in range(100))


def test_who_has_taken_all_is_never_too_slow() -> None:
    assert moment((now, 1000, 0) for now in range(100)) is None
    assert moment(steady(1000, 1000), least_per_s=1000) is None


def test_who_takes_nothing_is_found_when_patience_ends() -> None:
    assert moment((now, 1000, 1000) for now in range(100)) == 15
    assert moment((now, 1000 * now, 1000 * now) for now in range(100)) == 16, "more that waits is no progress"
    later = [*((now, 1000, 0) for now in range(50)), *((now, 2000, 1000) for now in range(50, 100))]
    assert moment(later) == 65, "only what waits counts"


def test_who_takes_less_than_the_least_rate_is_found_after_a_window() -> None:
    assert moment(steady(1000, 499), least_per_s=500) == 21
    assert moment(steady(1000, 501), least_per_s=500) is None
    assert moment((now, 100_000, 100_000 - now) for now in range(100)) is None, "no rate is asked for"


def test_a_pause_is_forgiven_once_all_is_taken() -> None:
    def looks() -> Iterable[tuple[float, int, int]]:
        for now in range(100):
            yield now, 1000 * now, 0 if now % 14 == 0 else 1000 * (now % 14)

    assert moment(looks(), least_per_s=500) is None


def test_the_rate_is_that_of_the_last_window() -> None:
    """A quick beginning does not pay for a trickle that follows."""
    looks = ((now, 10**6, 10**6 - min(now, 30) * 1000 - now) for now in range(100))
    found = moment(looks, least_per_s=500)
    assert found is not None and 40 <= found <= 45
