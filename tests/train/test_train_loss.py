"""The loss of one micro-batch, and what the meter says of it."""

from __future__ import annotations

import pytest
import torch

from openrlhf_cft.train.loss import CriticalTokenLoss, Meter, evaluation_logs


def taken(meter: Meter) -> dict[str, float]:
    return dict(zip(meter.NAMES, meter.take().tolist(), strict=True))


def test_dft_is_the_loss_times_a_probability_that_is_not_differentiated() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -4.0]], requires_grad=True)
    weights = torch.tensor([[0.0, 0.5, 1.5]])
    loss_fn = CriticalTokenLoss("dft")
    assert loss_fn(log_probs, weights).item() == 3.5  # evaluation is by the nll, whatever is trained
    loss_fn.meter.take()
    loss = loss_fn(log_probs, weights, batch_num_tokens=torch.tensor(2.0))
    p = log_probs.detach().exp()
    assert loss.item() == pytest.approx(float((weights * p * -log_probs.detach()).sum() / 2))
    loss.backward()
    torch.testing.assert_close(log_probs.grad, -weights * p / 2)
    assert taken(loss_fn.meter)["weighted_nll"] == 0.5 * 2 + 1.5 * 4  # what is logged stays comparable with nll


def test_evaluation_tells_critical_from_other_tokens() -> None:
    meter = CriticalTokenLoss().meter
    bits = torch.tensor([[1, 5, 7, 7, 5, 1]])  # two critical tokens, two others
    log_probs, entropy = torch.tensor([[0.0, -1, -2, -3, -4]]), torch.tensor([[0.0, 0.1, 0.2, 0.3, 0.4]])
    meter.add_flags(bits)
    meter.add_loss(log_probs, torch.tensor([[0.0, 0, 1, 1, 0]]))
    meter.add_evaluated(bits, log_probs, entropy)
    expected = {"critical_loss": 2.5, "other_loss": 2.5, "critical_share": 0.5}
    assert evaluation_logs(taken(meter)) == pytest.approx(
        {**expected, "critical_entropy": 0.25, "other_entropy": 0.25}, rel=1e-6
    )
    assert evaluation_logs(taken(meter)) == {}  # nothing measured, nothing logged


def test_the_loss_is_the_weighted_mean_and_the_meter_counts() -> None:
    loss_fn = CriticalTokenLoss()
    log_probs, weights = torch.tensor([[-1.0, -2.0, -4.0]]), torch.tensor([[0.0, 0.5, 1.5]])
    assert loss_fn(log_probs, weights).item() == pytest.approx((0.5 * 2 + 1.5 * 4) / 2)
    # Half of a step: the step's weights sum to 8 over two micro-batches on two ranks.
    share = loss_fn(log_probs, weights, dp_size=2, batch_num_tokens=torch.tensor(8.0) / 2)
    assert share.item() == pytest.approx(7 / 4 * 2)
    sums = taken(loss_fn.meter)
    assert (sums["weighted_nll"], sums["weight"], sums["trained"]) == (14.0, 4.0, 4)
    assert taken(loss_fn.meter)["trained"] == 0
    assert loss_fn(log_probs, torch.zeros(1, 3)).item() == 0  # an evaluation batch with nothing in it
