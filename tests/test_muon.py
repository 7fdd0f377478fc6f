"""Muon: its steps are orthogonal, it trains matrices alone, and it learns faint directions faster than AdamW."""

import pytest
import torch

from t2v_models.training.muon import Muon, matrices, orthogonal


@pytest.mark.parametrize(("rows", "columns"), [(48, 48), (48, 96), (96, 48)])
def test_all_singular_values_of_a_step_are_near_one(rows, columns):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(3, rows, columns), full_matrices=False)
    sizes = torch.logspace(0, -1.5, min(rows, columns))
    made = orthogonal(u * sizes @ v)
    values = torch.linalg.svdvals(made)
    assert made.shape == (3, rows, columns)
    assert 0.6 < values.min() <= values.max() < 1.3
    assert torch.allclose(made, u @ torch.diag_embed(values.new_tensor([1.0] * len(sizes))) @ v, atol=0.4)


def test_first_and_last_layers_norms_and_biases_are_not_for_muon():
    layers = [
        torch.nn.Conv2d(4, 48, 3),
        torch.nn.GroupNorm(8, 48),
        torch.nn.Conv2d(48, 48, 3),
        torch.nn.Conv2d(48, 4, 3),
    ]
    model = torch.nn.Sequential(*layers)
    assert matrices(model) == [layers[2].weight]


def test_step_has_the_size_of_adamw():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(48, 96, 3))
    weight.grad = torch.randn(48, 96, 3)
    Muon([weight], lr=1e-2).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2e-2, rel=0.3)


def test_directions_of_low_variance_are_learned_faster_than_by_adamw():
    """The inputs of a linear layer differ a thousandfold in variance; AdamW learns the smallest slowly."""

    def error(optimizer):
        torch.manual_seed(0)
        turn, _ = torch.linalg.qr(torch.randn(48, 48))
        target = torch.randn(48, 48) / 48**0.5
        layer = torch.nn.Linear(48, 48, bias=False)
        torch.nn.init.zeros_(layer.weight)
        train = optimizer([layer.weight])
        for _ in range(200):
            x = torch.randn(256, 48) * torch.logspace(0, -1.5, 48) @ turn
            loss = (layer(x) - x @ target.T).square().mean()
            train.zero_grad()
            loss.backward()
            train.step()
        return float((layer.weight.detach() - target).square().mean())

    adam = error(lambda weights: torch.optim.AdamW(weights, 1e-2, weight_decay=0))
    assert error(lambda weights: Muon(weights, 1e-2, weight_decay=0)) < 0.5 * adam
