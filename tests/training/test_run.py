"""Runs: stopping and resuming changes nothing, a signal ends with a checkpoint, averages and rates are as they say."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.run import Average, Copies, Optimizers, Run, Stateful, latest_part, rate_factor, read_log

NUM_STEPS = 7


class Toy:
    """A run of two layers and a table, with noise from both random streams."""

    def __init__(self, folder: Path, seed: int = 5) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
        self.average = Average(self.network, 0.9)
        self.optimizers = Optimizers(self.network, 1e-2, tables=("0.weight",))
        parts: dict[str, Stateful] = {"network": self.network, "average": self.average, "optimizers": self.optimizers}
        self.run = Run(folder, parts, seed)

    def train(self, until: int, num_steps: int = NUM_STEPS) -> None:
        for step in self.run.steps(until):
            self.run.seed_torch()
            tokens = torch.from_numpy(self.run.rng().integers(6, size=8))
            loss = (self.network(tokens) - torch.randn(8, 2)).square().mean()
            loss.backward()
            self.optimizers.step(rate_factor(step, num_steps, warm_up=2))
            self.average.update(self.network)
            self.run.log(loss=loss.item())

    def weights(self) -> dict[str, torch.Tensor]:
        return {**self.network.state_dict(), **{f"a.{k}": v for k, v in self.average.state_dict().items()}}


def test_a_resumed_run_ends_with_the_weights_of_one_that_never_stopped(tmp_path: Path) -> None:
    whole = Toy(tmp_path / "whole")
    whole.train(NUM_STEPS)
    Toy(tmp_path / "parts").train(3)
    resumed = Toy(tmp_path / "parts")
    assert resumed.run.step == 3
    resumed.train(NUM_STEPS)
    torch.testing.assert_close(resumed.weights(), whole.weights(), rtol=0, atol=0)
    for folder in (tmp_path / "whole", tmp_path / "parts"):
        assert [line["step"] for line in read_log(folder) if "loss" in line] == list(range(NUM_STEPS))
        assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    first, second = Toy(tmp_path / "first"), Toy(tmp_path / "second", seed=6)
    first.train(2)
    second.train(2)
    assert not torch.equal(first.weights()["1.weight"], second.weights()["1.weight"])
    with pytest.raises(ValueError, match="was started with seed 5, not 6"):
        Toy(tmp_path / "first", seed=6)


def test_a_signal_ends_a_run_at_a_checkpoint(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    for step in toy.run.steps(NUM_STEPS):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
    assert toy.run.step == 2
    assert Toy(tmp_path).run.step == 2
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_lines_after_the_last_checkpoint_are_forgotten(tmp_path: Path) -> None:
    Toy(tmp_path).train(2)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    lines = read_log(Toy(tmp_path).run.folder)
    assert [line["step"] for line in lines] == [0, 0, 1, 2]
    assert [line.get("event") for line in lines] == ["start", None, None, "start"]
    assert {"command", "hardware", "seed", "torch", "date"} <= lines[-1].keys()


def test_a_young_average_forgets_faster() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, 0.5)
    nn.init.ones_(network.weight)
    seen = []
    for _ in range(12):
        average.update(network)
        seen.append(1 - float(average.module.state_dict()["weight"]))
    assert seen[0] == pytest.approx(1 - 9 / 11)
    assert seen[-1] / seen[-2] == pytest.approx(0.5, rel=1e-2)


@pytest.mark.parametrize(("num", "in_half"), [(1, True), (2, True), (3, False)])
def test_copies_compute_for_their_master(num: int, in_half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.run.computes_in_half", lambda: in_half)
    dtype = torch.bfloat16 if in_half else torch.float32
    torch.manual_seed(0)
    master = nn.Linear(4, 3)
    copies = Copies(master, num)
    inputs, factors = torch.randn(5, 4), torch.randn(5)
    seen: list[Tensor] = []

    def loss_of(module: nn.Module, share: Tensor, factor: Tensor) -> Tensor:
        seen.append(next(module.parameters()).detach().clone())
        return (module(share.to(dtype)).float().mean(1) * factor).mean()

    for _ in range(2):
        with torch.no_grad():
            master.weight.mul_(2)
        loss = copies.backward(loss_of, inputs, factors)
        found = master.weight.grad
        assert found is not None
        expected = torch.autograd.grad(loss_value := (master(inputs).mean(1) * factors).mean(), master.weight)[0]
        torch.testing.assert_close(found, expected, atol=0.01, rtol=0.05)
        assert loss == pytest.approx(loss_value.item(), abs=0.03)
        torch.testing.assert_close(seen[-1], master.weight.to(dtype), rtol=0, atol=0)
    assert len(seen) == 2 * num


def test_matrices_go_to_muon_and_tables_to_adam(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.train(1)
    adam, muon = (toy.optimizers.state_dict()[key]["state"] for key in ("0", "1"))
    assert len(muon) == 2 and all("mean" in state for state in muon.values())
    assert len(adam) == 3 and all("exp_avg_sq" in state for state in adam.values())


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    factors = [rate_factor(step, 100, warm_up=10, decay=0.4) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[59] == 1.0
    assert factors[80] == pytest.approx(0.5) and factors[100] == 0.0
    assert factors[60:] == sorted(factors[60:], reverse=True)


def test_one_part_of_a_checkpoint_can_be_read_alone(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.train(1)
    network = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
    network.load_state_dict(latest_part(tmp_path, "average", prefix="module."))
    torch.testing.assert_close(network.state_dict(), toy.average.module.state_dict(), rtol=0, atol=0)
