"""Teacher trajectories, and the causal student that learns from them or from clips."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from engine.law.schedule import noise_levels
from engine.law.window import attended_blocks
from engine.model.segments import stack_text
from tests.model.oracle_pass import BlockSeen, oracle_pass
from tests.stage.micro import HEIGHT, TRANSFORMER, WIDTH, embedding, rollout
from tests.training.small_site import Site, logged, parts, same
from training import ode_init, trajectories
from training.forward import trainable_wan
from training.joined import denoise_joined
from training.networks import ROLLOUT, TEXT_LEN
from training.rollout import Context
from training.sampling import integrate
from training.student import load_network
from training.tokenizer import token_ids
from training.trajectories import chord_levels, open_trajectories

NUM_BLOCKS = 4
QUICK = ("--chords", "4", "--steps-per-chord", "2", "--blocks", "2", "--at-once", "2")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_a_joined_forward_is_a_stage_of_a_roll_out_on_given_contexts() -> None:
    torch.manual_seed(2)
    network, config = trainable_wan(TRANSFORMER), rollout(window_blocks=3)
    torch.nn.init.normal_(network.head.head.weight)
    torch.nn.init.normal_(network.time_projection[1].weight, std=0.1)
    shape = (2, NUM_BLOCKS, 3, TRANSFORMER.in_dim, HEIGHT, WIDTH)
    inputs, contexts = torch.randn(shape), torch.randn(shape).requires_grad_()
    levels, stages = noise_levels(config), (1, 3)
    now, later = (torch.tensor([levels[s + n].timestep for s in stages]) for n in (0, 1))
    text = stack_text([network.encode_context(embedding(sample)) for sample in range(2)])
    got = denoise_joined(network, inputs, contexts, now, later, text, config.window_blocks)
    for sample, stage in enumerate(stages):
        history: dict[int, BlockSeen] = {}
        padded = pad(embedding(sample), (0, 0, 0, TRANSFORMER.text_len - 3))
        for b in range(NUM_BLOCKS):
            seen = [history[earlier] for earlier in attended_blocks(config, b)]
            want, _ = oracle_pass(network, inputs[sample, b], levels[stage], b, seen, padded)
            read, history[b] = oracle_pass(network, contexts[sample, b], levels[stage + 1], b, seen, padded)
            torch.testing.assert_close(got[sample, :, b], torch.stack([read, want]), atol=2e-5, rtol=1e-4)
    got[:, 1, -1].sum().backward()
    reached = contexts.grad
    assert reached is not None
    assert [bool(reached[:, b].any()) for b in range(NUM_BLOCKS)] == [True, True, True, False]


@pytest.mark.parametrize("context", list(Context))
def test_samples_stand_at_the_levels_of_their_stage(context: Context) -> None:
    rng, levels = np.random.default_rng(0), noise_levels(ROLLOUT)
    clean = torch.full((2, 3, 4, 16, 16), 2.0)
    points = [torch.full((1,), float(n)) for n in range(5)]
    for stage in range(4):
        read = {Context.NEXT: stage + 1, Context.CURRENT: stage, Context.CLEAN: 4}[context]
        assert ode_init.context_level(stage, context) == read
        sample = ode_init.data_sample(clean, stage, read, rng)
        for latents, level in ((sample.inputs, levels[stage]), (sample.contexts, levels[read])):
            assert float(latents.mean()) == pytest.approx(2 * (1 - level.sigma), abs=0.06)
            assert float(latents.std()) == pytest.approx(level.sigma, abs=0.04)
        assert torch.equal(sample.inputs, sample.contexts) == (context == Context.CURRENT)
        along = ode_init.ode_sample(points, stage, read)
        assert (along.inputs.item(), along.contexts.item(), along.clean.item()) == (stage, read, 4)


def test_every_stage_and_context_is_drawn(site: Site) -> None:
    draw = ode_init.source(ode_init.Pairs.DATA, [site.latents], site.base, list(Context))
    samples, captions = draw(np.random.default_rng(0), 60, 1)
    assert {sample.stage for sample in samples} == {0, 1, 2, 3}
    assert {sample.context_level - sample.stage for sample in samples if sample.stage == 1} == {0, 1, 3}
    assert len(captions) == 60


def test_steps_of_any_length_cost_the_same(site: Site) -> None:
    draw, rng = ode_init.source(ode_init.Pairs.DATA, [site.latents], site.base, list(Context)), np.random.default_rng(0)
    batches = [ode_init.draw_batch(rng, draw, 2, [1, 3])[0] for _ in range(20)]
    assert {(len(samples), len(samples[0].clean)) for samples in batches} == {(6, 1), (2, 3)}


def test_euler_steps_meet_the_student_s_levels() -> None:
    levels = noise_levels(ROLLOUT)
    for chord in range(ROLLOUT.num_stages):
        path = chord_levels(ROLLOUT, chord, 3)
        assert (path[0].item(), path[-1].item()) == (levels[chord].sigma, levels[chord + 1].sigma)
        assert bool((path.diff() < 0).all())


@pytest.mark.slow
def test_trajectories_are_the_teacher_s_and_survive_a_stop(site: Site) -> None:
    whole = open_trajectories(site.run(trajectories, "whole", *QUICK, "--count", "3"), 4)
    points, chords, captions = whole.draw(np.random.default_rng(1), 2)
    assert chords.shape == (2, 4, 2, 3, 12, 16, 16)
    network, tokenizer = load_network(site.teacher, torch.device("cpu"))
    path = torch.cat([chord_levels(ROLLOUT, 0, 2), *(chord_levels(ROLLOUT, c, 2)[1:] for c in (1, 2, 3))])
    end = integrate(network, points[0], token_ids(tokenizer, captions, TEXT_LEN), path, whole.settings.guidance)[-1]
    torch.testing.assert_close(points[-1], end, atol=2e-2, rtol=2e-2)

    folder = site.base / "whole"
    kept = folder / "captions.jsonl"
    before = np.array(whole.chords_MVNFCYX)
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:2]))
    np.load(folder / "chords.npy", mmap_mode="r+")[2] = 0
    again = open_trajectories(site.run(trajectories, "whole", *QUICK, "--count", "3"), 4)
    assert again.captions == whole.captions
    np.testing.assert_allclose(again.chords_MVNFCYX, before, atol=1e-2)
    with pytest.raises(ValueError, match="other settings"):
        site.run(trajectories, "whole", *QUICK, "--count", "3", "--seed", "9")


def test_too_few_chords_are_refused(site: Site) -> None:
    options = ("--chords", "1", "--steps-per-chord", "1", "--blocks", "1", "--count", "1")
    folder = site.run(trajectories, "first", *options)
    with pytest.raises(ValueError, match="4 are needed"):
        open_trajectories(folder, 4)


def test_own_predictions_replace_the_world_s_in_what_a_stage_reads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network whose flow is known: it predicts 0.5 everywhere in denoise passes, 0.25 in cache passes."""
    network, tokenizer = load_network(site.teacher, torch.device("cpu"))
    rng, levels = np.random.default_rng(0), noise_levels(ROLLOUT)
    clean = torch.from_numpy(rng.standard_normal((2, 3, 12, 16, 16), dtype=np.float32))
    samples = [ode_init.data_sample(clean, stage, read, rng, own=True) for stage, read in ((0, 1), (2, 3), (3, 4))]
    batch, places = ode_init.as_batch(samples)
    seen: list[tuple[torch.Tensor, torch.Tensor, list[float]]] = []

    def predict(model: object, inputs: torch.Tensor, contexts: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        now, read, *_ = rest
        seen.append((inputs, contexts, [*now.tolist(), *read.tolist()]))
        noise = [t.view(-1, 1, 1, 1, 1, 1) / 1000 for t in (read, now)]
        parts = zip((contexts, inputs), noise, (0.25, 0.5), strict=True)
        return torch.stack([(x - x0) / sigma.clamp(min=1e-6) for x, sigma, x0 in parts], dim=1)

    monkeypatch.setattr(ode_init, "denoise_joined", predict)
    ode_init.regression_loss(network, batch, places, token_ids(tokenizer, ["A ring."] * 3, TEXT_LEN))
    (*_, before), (inputs, contexts, after) = seen
    assert before == [levels[n].timestep for n in (0, 1, 2, 1, 2, 3)]
    assert after == [levels[n].timestep for n in (0, 2, 3, 1, 3, 4)]
    for n, (sample, x0_seen) in enumerate(zip(samples, (0.5, 0.25, 0.25), strict=True)):
        sigma, read = levels[sample.stage].sigma, levels[sample.context_level].sigma
        noise, context_noise = sample.inputs - (1 - sigma) * clean, sample.contexts - (1 - read) * clean
        torch.testing.assert_close(inputs[n], (1 - sigma) * 0.5 + noise, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(contexts[n], (1 - read) * x0_seen + context_noise, atol=1e-5, rtol=1e-4)


def test_what_reads_no_noise_has_no_flow_to_learn(site: Site) -> None:
    network, tokenizer = load_network(site.teacher, torch.device("cpu"))
    rng, tokens = np.random.default_rng(0), token_ids(tokenizer, ["A ring."], TEXT_LEN)
    clean = torch.from_numpy(rng.standard_normal((1, 3, 12, 16, 16), dtype=np.float32))
    torch.nn.init.zeros_(network.transformer.head.head.weight)
    torch.nn.init.zeros_(network.transformer.head.head.bias)
    sample = ode_init.data_sample(clean, 3, 4, rng)
    loss = ode_init.regression_loss(network, *ode_init.as_batch([sample]), tokens)
    sigma = noise_levels(ROLLOUT)[3].sigma
    weights = torch.tensor([1.0] * 3 + [3.0] * 9)[:, None, None]
    want = (weights * (clean / sigma).square()).mean() / 2
    assert loss.item() == pytest.approx(want.item(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("pairs", ["ode", "data"])
def test_a_student_learns_from_pairs_and_a_stop_changes_nothing(site: Site, pairs: str) -> None:
    paths = site.run(trajectories, "paths", *QUICK, "--count", "2") if pairs == "ode" else site.base
    options = ("--autoencoder", str(site.autoencoder), "--latents", str(site.latents), "--trajectories", str(paths))
    options += ("--context", "next", "clean", "--pairs", pairs, "--blocks", "2", "--batch", "2", "--own-share", "0.5")
    options += ("--sheet-seconds", "0.5", "--sheet-every", "99")
    straight = site.run(ode_init, "straight", *options, "--steps", "2")
    stopped = stop_after_one(site, options)
    assert same(parts(straight), parts(stopped))
    before = load_network(site.teacher, torch.device("cpu"))[0].state_dict()
    after = parts(straight)["network"]
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"transformer", "encoder"}
    assert (straight / "videos-000002.png").exists() and len(logged(straight, "loss")) == 1


def stop_after_one(site: Site, options: tuple[str, ...]) -> Path:
    """A run of two steps, of which the second comes after a new start."""

    def factor(step: int, num_steps: int) -> float:
        return straight_factor(step, 2)

    straight_factor = ode_init.rate_factor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ode_init, "rate_factor", factor)
        site.run(ode_init, "stopped", *options, "--steps", "1")
    return site.run(ode_init, "stopped", *options, "--steps", "2")
