"""Pictures of restored signals and points: every channel, the band, the truth, and columns by name."""

import numpy as np
import pytest
import torch

from score_sde.plots import restored

pytestmark = pytest.mark.rendered


@pytest.fixture
def figures(monkeypatch):
    kept = []
    monkeypatch.setattr(restored, "figure_bytes", lambda figure: kept.append(figure) or b"")
    return kept


def test_signals_have_truth_band_and_all_channels(figures, tmp_path, generator):
    samples, truth = torch.randn((2, 5, 6, 12), generator=generator), torch.randn((2, 6, 12), generator=generator)
    measured = truth.clone()
    measured[:, :, 6:] = torch.nan
    restored.signals(truth, measured, samples, tmp_path / "s.png", [3, 7])
    axes = figures[0].axes
    assert [a.get_ylabel() for a in axes[5:7]] == ["item 3\nchannel 5", "item 7\nchannel 0"]
    lines = {line.get_label(): line.get_ydata() for line in axes[7].lines}
    np.testing.assert_allclose(lines["truth"], truth[1, 1])
    np.testing.assert_allclose(lines["their mean"], samples[1, :, 1].mean(0), rtol=1e-5)
    band = axes[7].collections[0].get_paths()[0].vertices
    low, high = np.quantile(samples[1, :, 1].numpy(), [0.1, 0.9], axis=0)
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((low.min(), high.max()), rel=1e-5)
    # Means of blocks of two lie in their middles.
    restored.signals(None, truth[..., :6], samples[:, :1], tmp_path / "s.png", [0, 1])
    marks = next(line for line in figures[1].axes[0].lines if line.get_label() == "measured")
    np.testing.assert_allclose(marks.get_xdata(), np.arange(6) * 2 + 0.5)


def test_points_by_pairs_of_named_columns(figures, tmp_path, generator):
    samples = torch.randn((2, 5, 5), generator=generator)
    for columns, expected in (
        (["a", "b", "c", "d", "e"], [("a", "b"), ("c", "d"), ("d", "e")]),
        (None, [("column 1", "column 2"), ("column 3", "column 4"), ("column 4", "column 5")]),
    ):
        restored.points(samples[:, 0], None, samples, tmp_path / "p.png", columns)
        found = [(a.get_xlabel(), a.get_ylabel()) for a in figures[-1].axes if a.get_xlabel()]
        assert found == expected
