"""Which bytes a request wants, as RFC 9110 has it."""

import pytest

from server.videos.ranges import begins_later, is_known, wanted_range

TAG = '"a"'


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("bytes=0-", range(100)),
        ("bytes=0-0", range(1)),
        ("bytes=10-19", range(10, 20)),
        ("bytes=10-1000", range(10, 100)),
        ("bytes=99-", range(99, 100)),
        ("bytes=-1", range(99, 100)),
        ("bytes=-1000", range(100)),
        ("Bytes= 5-6 ", range(5, 7)),
    ],
)
def test_one_range_is_understood(asked: str, wanted: range) -> None:
    assert wanted_range({"range": asked}, TAG, 100) == wanted


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=-0", "bytes=500-600", "bytes=999999999999999999-"])
def test_what_is_not_there_is_empty(asked: str) -> None:
    assert wanted_range({"range": asked}, TAG, 100) == range(0)


@pytest.mark.parametrize(
    "asked", ["", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "seconds=0-1", "bytes=x-", "bytes=1", "bytes=٣-", "1-2"]
)
def test_what_cannot_be_read_is_the_whole(asked: str) -> None:
    assert wanted_range({"range": asked}, TAG, 100) is None


def test_a_range_of_another_file_is_the_whole() -> None:
    assert wanted_range({"range": "bytes=1-", "if-range": TAG}, TAG, 100) == range(1, 100)
    for other in ('"b"', 'W/"a"', "Tue, 01 Jan 2030 00:00:00 GMT"):
        assert wanted_range({"range": "bytes=1-", "if-range": other}, TAG, 100) is None


def test_a_known_file_is_known() -> None:
    assert [is_known({"if-none-match": tags}, TAG) for tags in ('"a"', 'W/"a"', '"b", "a"', "*", '"b"', "")] == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_part_of_a_file_without_a_length() -> None:
    later = ["bytes=1-", "bytes=007-9", "bytes=-500"]
    assert all(begins_later({"range": asked}) for asked in later)
    assert not any(begins_later({"range": asked}) for asked in ("", "bytes=0-", "bytes=0-99", "bytes=00-", "x=1-"))
