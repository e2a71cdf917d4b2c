"""What is exported can be trained on: export, reopen, and the same weights are there, half as exact."""

from pathlib import Path

import pytest
import torch

from tests.training.small_site import SMALL, Site, parts
from training import autoencoder, export, reopen
from training.autoencoder import load_autoencoder
from training.run import add_line, start_line
from training.student import load_network


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(autoencoder, "FITTED_SCENES", 4)
    made = Site(tmp_path, monkeypatch)
    for folder in (made.teacher, made.autoencoder):
        add_line(folder, start_line(0, 1))
    return made


def test_an_exported_model_can_be_trained_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopen, "TRANSFORMER", SMALL)
    export.export(site.teacher, site.teacher, site.autoencoder, site.base / "model")
    student, both = site.base / "shipped", site.base / "shipped-autoencoder"
    reopen.reopen(site.base / "model", student, both)
    cpu = torch.device("cpu")
    before, after = (load_network(folder, cpu)[0].state_dict() for folder in (site.teacher, student))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-3, rtol=1e-3)
    fitted = load_autoencoder(both, cpu)
    decoder = load_autoencoder(site.autoencoder, cpu).decoder.state_dict()
    for name, tensor in fitted.decoder.state_dict().items():
        torch.testing.assert_close(tensor, decoder[name], atol=1e-3, rtol=1e-3)
    assert bool(fitted.encoder.components.any()) and "average" in parts(both)


def test_a_model_of_other_sizes_is_refused(site: Site) -> None:
    export.export(site.teacher, site.teacher, site.autoencoder, site.base / "model")
    with pytest.raises(ValueError, match="not of the sizes"):
        reopen.reopen(site.base / "model", site.base / "a", site.base / "b")
