"The authors' own program gave these numbers: loss, weights and gradients must be the same (mixture and lookups: test_mixture.py)"
from functools import partial

import numpy as np
import pytest
import torch
from fastai_resup.callbacks import ReSup, presets
from fastai_resup.losses import Pair, ReSupLoss, WeightedLoss, similarity
from fastai_resup.mixture import BetaMixture, p_clean, step_lookup

def batch(golden):
    "Logits that want gradients, and targets"
    return [torch.tensor(golden[f'logits{i}'], requires_grad=True) for i in range(2)],torch.tensor(golden['target'])

def lookups(golden):
    "The authors' lookups, made from their mixtures"
    return torch.stack([step_lookup(BetaMixture.from_params(*golden[f'mix{i}'])) for i in range(2)])

def check(loss, z, golden, epoch):
    "Loss and both gradients to 1e-6"
    loss.backward()
    assert abs(loss.item() - golden[f'loss_epoch{epoch}']) < 1e-6
    for i in range(2): np.testing.assert_allclose(z[i].grad.numpy(), golden[f'grad{i}_epoch{epoch}'], atol=1e-6, rtol=0)

def test_warmup_loss(golden):
    z,y = batch(golden)
    check(ReSupLoss()(Pair(z), y), z, golden, 0)

def test_similarities_and_weights(golden):
    z,y = batch(golden)
    sim = similarity(torch.stack(z), y)
    for i in range(2): np.testing.assert_allclose(sim[i].numpy(), golden[f'sim{i}'], atol=1e-6)
    w = p_clean(sim, lookups(golden), interpolate=False)
    for i in range(2): np.testing.assert_allclose(w[i].numpy(), golden[f'weight{i}'], atol=1e-6)

def test_reference_loss(golden):
    "The loss as `preset='reference'` makes it"
    z,y = batch(golden)
    cb = ReSup(preset='reference')
    weigh = partial(p_clean, lookup=lookups(golden), interpolate=cb.interpolate)
    loss = WeightedLoss(weigh, cb.agreement, cb.normalize, base_loss=cb.base_loss)
    check(ReSupLoss()(Pair(z).with_loss(loss), y), z, golden, 1)

@pytest.mark.parametrize('change', [dict(agreement=4.), dict(normalize=True), dict(interpolate=True)])
def test_each_setting_of_the_reference_matters(golden, change):
    z,y = batch(golden)
    kw = {**presets['reference'], **change}
    weigh = partial(p_clean, lookup=lookups(golden), interpolate=kw['interpolate'])
    loss = ReSupLoss()(Pair(z).with_loss(WeightedLoss(weigh, kw['agreement'], kw['normalize'])), y)
    assert abs(loss.item() - golden['loss_epoch1']) > 1e-5

def test_the_swap_matters(golden):
    z,y = batch(golden)
    weigh = lambda s: p_clean(s, lookups(golden), interpolate=False).flip(0)
    loss = ReSupLoss()(Pair(z).with_loss(WeightedLoss(weigh, 5., False)), y)
    assert abs(loss.item() - golden['loss_epoch1']) > 1e-4

def test_no_host_synchronisation():
    "Forward and backward of loss and weights on meta tensors, which have no values to ask for"
    z = [torch.randn(96, 7, device='meta', requires_grad=True) for _ in range(2)]
    y = torch.zeros(96, dtype=torch.long, device='meta')
    for interpolate,n in ((True,1001),(False,100)):
        weigh = partial(p_clean, lookup=torch.empty(2, n, device='meta'), interpolate=interpolate)
        ReSupLoss()(Pair(z).with_loss(WeightedLoss(weigh, balance=torch.empty(2, 7, device='meta'))), y).backward()
    assert z[0].grad.shape==(96,7)
