"""Encoded clips: the same for the same seed and index, resumable, and cut into windows with fitting captions."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from training import latents
from training.autoencoder import Autoencoder, draw_clips, fit
from training.latents import Latents, make_clips, open_latents
from training.run import read_log
from training.world import Motion, Split


@pytest.fixture(scope="module")
def network() -> Autoencoder:
    fresh = Autoencoder()
    fit(fresh.encoder, draw_clips(np.random.default_rng(0), whole=False))
    return fresh.eval()


def test_a_clip_is_a_function_of_seed_and_index(network: Autoencoder) -> None:
    clips, captions = make_clips(network, Split.TRAIN, 7, [4, 5], 2)
    alone, caption = make_clips(network, Split.TRAIN, 7, [5], 2)
    assert clips.shape == (2, 2, 12, 16, 16) and clips.dtype == np.float16
    np.testing.assert_allclose(clips[1], alone[0], atol=0.02)
    assert captions[1] == caption[0] and captions[0] != captions[1]
    other, _ = make_clips(network, Split.TRAIN, 8, [5], 2)
    assert np.abs(clips[1] - other[0]).max() > 0.1


def test_clips_of_some_motions_alone(network: Autoencoder) -> None:
    _, captions = make_clips(network, Split.TRAIN, 7, range(4), 1, [Motion.BOUNCE])
    assert all("bounc" in sentence for sentences in captions for sentence in sentences)


def test_clips_of_two_things_alone(network: Autoencoder) -> None:
    _, captions = make_clips(network, Split.TRAIN, 7, range(4), 1, nums_things=[2])
    assert all(" while " in sentence or " and " in sentence for sentences in captions for sentence in sentences)


def test_the_command_goes_on_where_it_stopped(
    network: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "load_autoencoder", lambda folder, device: network)
    monkeypatch.setattr(latents, "CLIPS_AT_ONCE", 2)
    monkeypatch.setattr(
        sys, "argv", ["latents", "--folder", str(tmp_path), "--clips", "3", "--length", "2", "--threads", "1"]
    )
    latents.main()
    whole = open_latents(tmp_path)
    before = np.array(whole.latents_MTCYX)
    assert len(whole.captions) == 3 and before.any(axis=(1, 2, 3, 4)).all()
    lines = (tmp_path / "clips.jsonl").read_text().splitlines()
    (tmp_path / "clips.jsonl").write_text(lines[0] + "\n")
    assert len(open_latents(tmp_path).latents_MTCYX) == 1
    latents.main()
    again = open_latents(tmp_path)
    assert again.captions == whole.captions
    assert [line["step"] for line in read_log(tmp_path)] == [0, 3, 1, 3]
    np.testing.assert_allclose(again.latents_MTCYX, before, atol=0.02)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--clips", "4"])
    with pytest.raises(ValueError, match="use another folder"):
        latents.main()


def test_windows_begin_where_clips_do_and_keep_their_captions() -> None:
    values = np.zeros((5, 10, 1, 1, 1), np.float16)
    values[..., 0, 0, 0] = np.arange(5)[:, None] * 100 + np.arange(10)
    clips = Latents(values, tuple((f"{clip} a", f"{clip} b") for clip in range(5)))
    windows = clips.draw(np.random.default_rng(0), 200, 6)
    assert windows.latents_BNFCYX.shape == (200, 2, 3, 1, 1, 1) and not windows.first_blocks_B.any()
    rows, captions = windows.latents_BNFCYX.flatten(1).numpy(), windows.captions
    assert (np.diff(rows, axis=1) == 1).all()
    assert {int(row[0]) % 100 for row in rows} == {0}
    assert {int(row[0]) // 100 for row in rows} == {0, 1, 2, 3, 4}
    assert [json.loads(caption[0]) for caption in captions] == [int(row[0]) // 100 for row in rows]
    assert {caption[2] for caption in captions} == {"a", "b"}


@pytest.mark.parametrize(("num_frames", "begins"), [(1, range(10)), (3, (0, 3, 6)), (6, (0, 3))])
def test_windows_can_begin_at_any_block_and_tell_which(num_frames: int, begins: Sequence[int]) -> None:
    values = np.broadcast_to(np.arange(10, dtype=np.float16)[None, :, None, None, None], (2, 10, 1, 1, 1))
    windows = Latents(values, (("a",), ("b",))).draw(np.random.default_rng(0), 200, num_frames, anywhere=True)
    first = windows.latents_BNFCYX.flatten(1)[:, 0]
    assert set(first.int().tolist()) == set(begins)
    assert torch.equal(first, windows.first_blocks_B * float(min(num_frames, 3)))
