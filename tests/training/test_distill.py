"""The losses of distillation on cases with known answers, and the command from end to end."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.config import Order
from tests.training.small_site import Site, logged, parts, same
from training import distill, trajectories
from training.distillation import Recipe, cut
from training.dmd import (
    Flow,
    critic_loss,
    draw_sigmas,
    flow_error,
    forward_kl_loss,
    matching_gradient,
    matching_loss,
    noised,
)
from training.networks import ROLLOUT


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def normal_flow(mean: Tensor, std: float) -> Flow:
    """The exact flow of data that are normal: its clean prediction is the conditional mean."""

    def predict(x: Tensor, sigmas_B: Tensor) -> Tensor:
        sigma = sigmas_B[:, None].double()
        gain = (1 - sigma) * std**2 / ((1 - sigma) ** 2 * std**2 + sigma**2)
        clean = mean + gain * (x - (1 - sigma) * mean)
        return (x - clean) / sigma

    return predict


def test_matching_moves_a_generator_s_mean_to_the_data_s() -> None:
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(1)
    data_mean = torch.tensor([1.5, -0.5, 0.25], dtype=torch.float64)
    mean = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([mean], lr=30.0)
    for _ in range(60):
        x = mean + 0.5 * torch.randn(64, 3, generator=generator).double()
        noise = torch.randn(64, 3, generator=generator).double()
        real, fake = normal_flow(data_mean, 0.5), normal_flow(mean.detach(), 0.5)
        gradient = matching_gradient(x.detach(), noise, draw_sigmas(rng, 64, 5.0), real, fake)
        optimizer.zero_grad()
        matching_loss(x, gradient / 64).backward()
        optimizer.step()
    torch.testing.assert_close(mean.detach(), data_mean, atol=0.05, rtol=0)


def test_matching_gradient_is_its_formula() -> None:
    x = torch.tensor([[1.0, 2.0], [0.5, -1.0]], requires_grad=True)
    noise, sigmas = torch.tensor([[0.5, -1.0], [1.0, 0.0]]), torch.tensor([0.5, 0.25])
    mixed = torch.tensor([[0.75, 0.5], [0.625, -0.75]])
    torch.testing.assert_close(noised(x.detach(), noise, sigmas), mixed)
    gradient = matching_gradient(x.detach(), noise, sigmas, lambda x, s: x * 2, lambda x, s: x)
    x_real, x_fake = mixed * (1 - 2 * sigmas[:, None]), mixed * (1 - sigmas[:, None])
    distance = (x.detach() - x_real).abs().mean(dim=1, keepdim=True)
    torch.testing.assert_close(gradient, ((x_fake - x_real) / distance).double())
    matching_loss(x, gradient).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (gradient / x.numel()).float())


def test_a_sample_that_equals_the_teacher_s_prediction_gives_no_gradient() -> None:
    x = torch.zeros(1, 2)
    assert not matching_gradient(x, torch.zeros(1, 2), torch.tensor([0.5]), lambda x, s: x, lambda x, s: x).any()


def test_levels_are_shifted_and_stay_inside() -> None:
    sigmas = draw_sigmas(np.random.default_rng(0), 20_000, 5.0)
    assert (float(sigmas.min()), float(sigmas.max())) == pytest.approx((0.02, 0.98))
    assert float(sigmas.median()) == pytest.approx(5 * 0.5 / 3, abs=0.01)


def test_the_critic_s_loss_vanishes_at_the_exact_flow_of_one_sample() -> None:
    x, noise, sigmas = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0.3, 0.9])
    assert critic_loss(x, noise, sigmas, lambda mixed, s: (mixed - x) / s[:, None]).item() < 1e-10


def test_an_error_of_the_clean_sample_counts_alike_at_all_low_levels() -> None:
    sigmas = torch.tensor([0.03, 0.15, 0.3, 0.6])
    error = torch.full((4, 5), 0.1)
    per_level = [
        flow_error((error / sigmas[:, None])[n : n + 1], torch.zeros(1, 5), sigmas[n : n + 1]) for n in range(4)
    ]
    assert [value.item() for value in per_level[:3]] == pytest.approx([per_level[2].item()] * 3)
    assert per_level[3].item() == pytest.approx((0.1 / 0.6) ** 2)


def test_forward_kl_is_the_velocity_form_of_the_clean_prediction_s_loss() -> None:
    generator = torch.Generator().manual_seed(2)
    start, end, flow = (torch.randn(2, 5, generator=generator) for _ in range(3))
    now, after = 1.0, 0.9375
    chord = (end - start) / (after - now)
    target, predicted = start - now * chord, start - now * flow
    torch.testing.assert_close(forward_kl_loss(flow, chord), (predicted - target).square().mean())


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"fkl_steps": 5}, "fkl_steps"),
        ({"batch": 0}, "batch"),
        ({"window_blocks": 9}, "leaves 1..8, the blocks of a roll-out"),
        ({"min_exit": 4}, "no stage 4"),
        ({"rollout": dataclasses.replace(ROLLOUT, order=Order.BLOCK_FIRST)}, "clean context"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(Recipe(rollout=ROLLOUT), **changed)


def test_roll_outs_are_cut_into_windows_with_their_places_and_prompts() -> None:
    x = torch.arange(2 * 6).view(2, 6, 1, 1, 1, 1)
    judged = cut(x, torch.tensor([[7], [8]]), 4)
    assert judged.x_BNFCYX.flatten(1).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [6, 7, 8, 9], [8, 9, 10, 11]]
    assert judged.first_blocks_B.tolist() == [0, 2] * 2
    assert judged.tokens_BT.flatten().tolist() == [7] * 2 + [8] * 2
    assert cut(x, torch.tensor([[7], [8]]), 1).first_blocks_B.tolist() == [*range(6)] * 2


def options(site: Site, paths: Path, *more: str) -> tuple[str, ...]:
    folders = ("--student", str(site.teacher), "--autoencoder", str(site.autoencoder), "--trajectories", str(paths))
    small = ("--blocks", "2", "--window", "1", "--batch", "1", "--fkl-batch", "1", "--critic-updates", "3")
    return (
        *folders,
        *small,
        "--critic-first",
        "1",
        "--log-every",
        "1",
        "--sheet-seconds",
        "0.5",
        "--sheet-every",
        "99",
        *more,
    )


def first_chords(site: Site, num_chords: int = 1) -> Path:
    quick = ("--steps-per-chord", "1", "--blocks", "2", "--count", "2")
    return site.run(trajectories, f"chords-{num_chords}", *quick, "--chords", str(num_chords))


@pytest.mark.slow
def test_a_stopped_distillation_goes_on_as_if_it_had_not_been(site: Site) -> None:
    usual = options(site, first_chords(site))
    straight = site.run(distill, "straight", *usual, "--steps", "3")
    site.run(distill, "stopped", *usual, "--steps", "1")
    stopped = site.run(distill, "stopped", *usual, "--steps", "3")
    assert same(parts(straight), parts(stopped))
    assert (straight / "videos-000003.png").exists()
    assert [len(logged(straight, name)) for name in ("critic", "matching", "forward_kl")] == [3, 2, 2]


@pytest.mark.slow
def test_both_networks_learn_and_the_text_encoder_stays(site: Site) -> None:
    folder = site.run(distill, "run", *options(site, first_chords(site)), "--steps", "3", "--rate", "0.01")
    before, made = parts(site.teacher)["average"], parts(folder)
    for name, tensor in made["network"].items():
        assert torch.equal(tensor, before[f"module.{name}"]) == name.startswith("encoder."), name
    assert all(not torch.equal(tensor, before[f"module.transformer.{name}"]) for name, tensor in made["critic"].items())


@pytest.mark.slow
def test_every_switch_changes_what_is_learned(site: Site) -> None:
    usual = options(site, first_chords(site), "--steps", "2", "--critic-first", "0", "--critic-updates", "1")
    switches = (
        "--context current",
        "--context clean",
        "--order block_first",
        "--fkl-weight 0",
        "--fkl-attention causal",
        "--min-exit 3",
        "--guidance 2",
    )
    learned = [
        parts(site.run(distill, f"run{n}", *usual, *more.split()))["network"] for n, more in enumerate(("", *switches))
    ]
    for index, one in enumerate(learned):
        assert not any(same(one, other) for other in learned[:index])


@pytest.mark.slow
def test_the_regulariser_holds_several_steps(site: Site) -> None:
    usual = options(site, first_chords(site, 2), "--steps", "4", "--fkl-steps", "2")
    assert len(logged(site.run(distill, "usual", *usual), "forward_kl")) == 3
    with pytest.raises(ValueError, match="2 are needed"):
        site.run(distill, "few", *options(site, first_chords(site, 1), "--steps", "1", "--fkl-steps", "2"))
