"""The text of a playlist, as RFC 8216 and its second edition have it."""

from server.videos.playlist import listed, playlist, target_s


def test_a_playlist_that_grows() -> None:
    text = playlist(0, [0.5625, 0.75], 0.75, is_ended=False, hint=2)
    assert text.splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        "#EXT-X-TARGETDURATION:1",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=2.25",
        "#EXT-X-PART-INF:PART-TARGET=0.75",
        "#EXT-X-MEDIA-SEQUENCE:0",
        '#EXT-X-MAP:URI="init.mp4"',
        '#EXT-X-PART:DURATION=0.5625,URI="blocks/0.m4s",INDEPENDENT=YES',
        "#EXTINF:0.5625,",
        "blocks/0.m4s",
        '#EXT-X-PART:DURATION=0.75,URI="blocks/1.m4s",INDEPENDENT=YES',
        "#EXTINF:0.75,",
        "blocks/1.m4s",
        '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="blocks/2.m4s"',
    ]


def test_parts_are_told_of_three_target_durations_from_the_end_and_no_hint_behind_it() -> None:
    lines = playlist(7, [0.75] * 10, 0.75, is_ended=True, hint=None).splitlines()
    assert "#EXT-X-MEDIA-SEQUENCE:7" in lines and lines[-1] == "#EXT-X-ENDLIST"
    assert [line.split('"')[1] for line in lines if "X-PART:" in line] == [f"blocks/{n}.m4s" for n in range(13, 17)]
    assert not any("PRELOAD" in line for line in lines)


def test_no_block_is_longer_than_the_target() -> None:
    assert [target_s(block_s) for block_s in (0.1, 0.75, 1.0, 1.2, 12.0)] == [1, 1, 1, 2, 12]


def test_what_is_dropped_next_is_not_told_of() -> None:
    assert listed(range(5)) == range(5)
    firsts = [listed(range(start, start + 20)).start for start in range(40)]
    assert firsts == sorted(firsts) and firsts[:3] == [0, 5, 6]
    assert listed(range(9, 12)) == range(9, 12) and listed(range(9, 13)) == range(10, 13)
