"""The teacher: its tokens, its batches, its loss, its samples, and its command from start to resumption."""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from engine.model.text import END_OF_TEXT, TextEncoder, umt5_encoder
from training import networks, teacher
from training.autoencoder import Autoencoder
from training.captions import corpus
from training.dmd import LEVEL_FLOW
from training.forward import Mask, flow, text_rows
from training.latents import Latents
from training.networks import TABLES, TEXT_LEN, TextToFlow, text_config
from training.run import Optimizers, latest_part, precision, read_log
from training.sampling import integrate, levels
from training.teacher import curriculum, draw_batch, draw_noise, flow_loss, window_frames
from training.tokenizer import token_ids, train_tokenizer

SMALL = dataclasses.replace(networks.TRANSFORMER, dim=24, ffn_dim=32, num_heads=2, num_layers=1, freq_dim=16)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(corpus(1500, seed=2))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> TextToFlow:
    monkeypatch.setattr(networks, "TRANSFORMER", SMALL)
    torch.manual_seed(0)
    return TextToFlow(tokenizer.get_vocab_size())


def clips(num: int, length: int) -> Latents:
    values = np.random.default_rng(1).standard_normal((num, length, 12, 16, 16)).astype(np.float16)
    return Latents(values, tuple((f"{sentence}",) for sentence in corpus(num, seed=4)))


def test_every_word_of_the_world_is_one_token(tokenizer: Tokenizer) -> None:
    for sentence in corpus(300, seed=9):
        words = re.findall(r"\w+|[^\w\s]", sentence)
        assert len(tokenizer.encode(sentence).ids) == len(words), sentence
        assert tokenizer.decode(tokenizer.encode(sentence).ids).strip() == sentence.lower()


def test_any_other_text_has_tokens_too(tokenizer: Tokenizer) -> None:
    for text in ("Ein grüner Kreis", "漢字 🙂", "x" * 500, ""):
        ids = token_ids(tokenizer, [text], TEXT_LEN)
        assert ids.shape[1] <= TEXT_LEN and (ids != 2).all()
        assert ids[0, -1] == tokenizer.token_to_id(END_OF_TEXT)
    assert tokenizer.decode(tokenizer.encode("Ein grüner Kreis 漢").ids).strip() == "ein grüner kreis 漢"


def test_tokens_are_those_of_the_product(tokenizer: Tokenizer) -> None:
    config = text_config(tokenizer.get_vocab_size())
    product = TextEncoder(config, umt5_encoder(config), tokenizer)
    prompts = ["A red  circle.", "", "zebra " * 200]
    rows = token_ids(tokenizer, prompts, TEXT_LEN)
    for prompt, row in zip(prompts, rows.tolist(), strict=True):
        expected = product.tokens(prompt)
        assert row[: len(expected)] == expected and not any(row[len(expected) :])


def test_windows_grow_along_the_curriculum() -> None:
    shares = curriculum("1:60,3:30,21:10")
    lengths = [window_frames(shares, step / 100) for step in range(100)]
    assert [lengths.count(frames) for frames in (1, 3, 21)] == [60, 30, 10] and lengths == sorted(lengths)
    assert window_frames(shares, 1.0) == 21


def test_a_batch_comes_from_clips_long_enough_and_loses_some_captions(tokenizer: Tokenizer) -> None:
    short, long = clips(3, 3), clips(4, 9)
    rng = np.random.default_rng(0)
    clean, blocks, _ = draw_batch(rng, [short, long], 9, tokenizer)
    assert clean.shape == (10, 3, 3, 12, 16, 16) and not blocks.any()
    assert draw_batch(rng, [short, long], 1, tokenizer)[0].shape == (96, 1, 1, 12, 16, 16)
    assert set(draw_batch(rng, [long], 1, tokenizer)[1].tolist()) == set(range(9))
    tokens = torch.cat([(draw_batch(rng, [short, long], 3, tokenizer)[2] != 0).sum(1) for _ in range(20)])
    assert 0.04 < (tokens == 1).float().mean() < 0.18
    with pytest.raises(ValueError, match="no clip holds 21 latent frames"):
        draw_batch(rng, [short, long], 21, tokenizer)


@pytest.mark.slow
def test_a_fresh_network_predicts_nothing_and_learns(network: TextToFlow, tokenizer: Tokenizer) -> None:
    clean = torch.zeros(16, 1, 3, 12, 16, 16) + torch.linspace(-1, 1, 12)[:, None, None]
    tokens = token_ids(tokenizer, ["a red circle"] * 16, TEXT_LEN)
    optimizers, losses = Optimizers(network, 1e-2, tables=TABLES), []
    for step in range(40):
        torch.manual_seed(step)
        loss = flow_loss(network, clean, *draw_noise(clean), tokens, torch.zeros(16, dtype=torch.int64))
        loss.backward()
        optimizers.step(1.0)
        losses.append(loss.item())
    torch.manual_seed(0)
    sigmas = draw_noise(clean)[1].clamp(min=LEVEL_FLOW)
    assert losses[0] == pytest.approx(float(clean.square().mean() * sigmas.pow(-2).mean()), rel=0.02)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_sample_follows_the_guided_flow(network: TextToFlow, tokenizer: Tokenizer, guidance: float) -> None:
    torch.nn.init.normal_(network.transformer.head.head.weight)
    noise = torch.randn(2, 2, 3, 12, 16, 16)
    tokens = token_ids(tokenizer, ["a red circle", "a blue star drifts"], TEXT_LEN)
    empty = token_ids(tokenizer, ["", ""], TEXT_LEN)
    with torch.no_grad(), precision(torch.device("cpu")):
        told, untold = (
            flow(
                network.transformer,
                noise,
                torch.full((2, 2), 1000.0),
                text_rows(network.transformer, network.encoder, ids),
                Mask.BIDIRECTIONAL,
            ).float()
            for ids in (tokens, empty)
        )
    path = integrate(network, noise, tokens, torch.tensor([1.0, 0.25]), guidance)
    assert len(path) == 2 and torch.equal(path[0], noise)
    expected = noise - 0.75 * (untold + guidance * (told - untold))
    torch.testing.assert_close(path[1], expected, atol=0.05, rtol=0.05)
    assert (told - untold).abs().max() > 0.1


def test_levels_go_from_noise_to_clean() -> None:
    found = levels(4, 3.0)
    assert found[0] == 1 and found[-1] == 0 and found[2] == pytest.approx(0.75)
    assert (found.diff() < 0).all()


@pytest.mark.slow
def test_the_command_trains_checks_and_resumes(
    network: TextToFlow, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "open_latents", lambda folder: clips(4, 9))
    monkeypatch.setattr(teacher, "load_autoencoder", lambda folder, device: Autoencoder().eval())
    monkeypatch.setattr(teacher, "world_tokenizer", lambda seed: tokenizer)
    monkeypatch.setattr(teacher, "FRAMES_PER_STEP", 9)
    monkeypatch.setattr(teacher, "CHECK_SAMPLES", 4)
    monkeypatch.setattr(teacher, "PROMPTS", ("A red circle.",))
    options = ["--folder", str(tmp_path), "--curriculum", "1:50,9:50", "--check-every", "9", "--threads", "1"]
    for steps in ("1", "2"):
        monkeypatch.setattr(sys, "argv", ["teacher", *options, "--steps", steps])
        teacher.main()
    checks = [line for line in read_log(tmp_path) if "check" in line]
    assert [line["step"] for line in checks] == [0, 1] and all(np.isfinite(line["check_0.9"]) for line in checks)
    assert (tmp_path / "samples-000002.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_starts_from_another_with_its_words(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "open_latents", lambda folder: clips(4, 9))
    monkeypatch.setattr(teacher, "load_autoencoder", lambda folder, device: Autoencoder().eval())
    monkeypatch.setattr(teacher, "world_tokenizer", lambda seed: tokenizer)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, options in ((first, ["--seed", "1"]), (second, ["--seed", "2", "--start", str(first)])):
        monkeypatch.setattr(sys, "argv", ["teacher", "--folder", str(folder), "--steps", "0", *options])
        teacher.main()
    weights, started = (latest_part(folder, "network") for folder in (first, second))
    assert all(torch.equal(weights[name], started[name]) for name in weights)
    assert (second / "tokenizer.json").read_text() == (first / "tokenizer.json").read_text()


@pytest.mark.slow
def test_a_run_can_keep_the_text_encoder_it_started_from(
    network: TextToFlow, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "open_latents", lambda folder: clips(4, 9))
    monkeypatch.setattr(teacher, "load_autoencoder", lambda folder, device: Autoencoder().eval())
    monkeypatch.setattr(teacher, "world_tokenizer", lambda seed: tokenizer)
    monkeypatch.setattr(teacher, "FRAMES_PER_STEP", 9)
    monkeypatch.setattr(teacher, "PROMPTS", ("A red circle.",))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, options in (
        (first, ["--steps", "2"]),
        (second, ["--steps", "2", "--start", str(first), "--keep-text"]),
    ):
        monkeypatch.setattr(sys, "argv", ["teacher", "--folder", str(folder), "--threads", "1", *options])
        teacher.main()
    before, after = latest_part(first, "average", prefix="module."), latest_part(second, "network")
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"transformer"}
