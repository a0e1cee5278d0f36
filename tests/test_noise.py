"Properties of the noise models that need more data than a notebook shows"
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastai_resup.data.noise import class_noise, instance_noise, matrix_noise, noise_models, noise_report, pair_noise, symmetric_noise

@pytest.mark.parametrize('n,rate,flips', [(12271,0.1,1227), (12271,0.3,3681), (5000,0.3,1500), (3,0.5,2), (7,0.,0), (7,1.,7), (0,0.5,0)])
def test_exact_number_of_flips(n, rate, flips):
    y = np.arange(n)%7
    assert (symmetric_noise(y, rate, 7, seed=3)!=y).sum()==flips

def test_rates_are_nested():
    y = np.random.default_rng(0).integers(0, 8, 1000)
    last = y
    for rate in np.linspace(0, 1, 21):
        noisy = symmetric_noise(y, rate, 8, seed=5)
        changed = last!=y
        assert (noisy[changed]==last[changed]).all()
        last = noisy

def test_every_other_class_is_equally_likely():
    y = np.random.default_rng(0).integers(0, 5, 50_000)
    noisy = symmetric_noise(y, 0.4, 5, seed=0)
    table = np.zeros((5,5)); np.add.at(table, (y,noisy), 1)
    expected = table.sum(1, keepdims=True)*0.1
    off = ~np.eye(5, dtype=bool)
    assert (np.abs(table-expected)/np.sqrt(expected))[off].max()<4

def test_global_generators_are_left_alone():
    np.random.seed(0); before = np.random.get_state()[1].copy()
    symmetric_noise([0,1,2], 0.5, 3)
    assert (np.random.get_state()[1]==before).all()

@pytest.mark.parametrize('make', [list, np.array, lambda y: np.array(y, dtype=np.uint8)])
def test_inputs_are_left_alone(make):
    y = make([0,1,2,3]*25)
    kept = list(y)
    noisy = symmetric_noise(y, 0.5, 4, seed=0)
    assert list(y)==kept and noisy.dtype==np.int64 and (noisy!=np.array(kept)).sum()==50

@pytest.mark.parametrize('targs,rate,k,message', [
    ([0,1], -0.1, 2, 'rate'), ([0,1], 1.01, 2, 'rate'), ([0,1], float('nan'), 2, 'rate'), ([0,0], 0.1, 1, 'n_classes'),
    ([0,3], 0.1, 3, r'targs\[1\] is 3'), ([-1,0], 0.1, 3, r'targs\[0\] is -1'), ([[0,1]], 0.1, 2, 'one dimension'), (['a'], 0.1, 2, 'integer')])
def test_bad_noise_arguments(targs, rate, k, message):
    with pytest.raises(ValueError, match=message): symmetric_noise(targs, rate, k)

K = 4

CONFUSED = np.array([[0,0.5,0.3,0.2],[0.1,0,0.6,0.3],[0.2,0.2,0,0.6],[0.7,0.1,0.2,0]])

def probs_of(y): return np.random.default_rng(9).dirichlet(np.ones(K), len(y))

def at_rate(model, y, rate, seed):
    "Any noise model at one rate"
    args = dict(symmetric=dict(rate=rate), pair=dict(rate=rate), matrix=dict(matrix=np.eye(K)*(1-rate)+rate*CONFUSED), instance=dict(rate=rate, probs=probs_of(y)))
    args['class'] = dict(rates=[rate, rate/2, rate, 0])
    return noise_models[model](y, n_classes=K, seed=seed, **args[model])

@pytest.mark.parametrize('model', noise_models)
@settings(max_examples=40, deadline=None)
@given(y=st.lists(st.integers(0, K-1), max_size=60), r=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), seed=st.integers(0, 5))
def test_models_are_exact_seeded_and_nested(model, y, r, seed):
    y = np.array(y, dtype=int)
    low,high = (at_rate(model, y, o, seed) for o in r)
    for rate,noisy in zip(r, (low,high)):
        assert (noisy==at_rate(model, y, rate, seed)).all() and noisy.dtype==np.int64 and set(noisy)<=set(range(K))
        n = np.bincount(y, minlength=K)
        per_class = dict(pair=[rate]*K, matrix=[rate]*K, **{'class':[rate, rate/2, rate, 0]}).get(model)
        if per_class is None: assert (noisy!=y).sum()==round(rate*len(y))
        else: assert (np.abs(np.bincount(y[noisy!=y], minlength=K)-n*per_class)<=0.5+1e-9).all()
    assert (low[low!=y]==high[low!=y]).all()

@pytest.mark.parametrize('model', noise_models)
def test_seeds_differ(model):
    y = np.arange(400)%K
    a,b = (at_rate(model, y, 0.3, s) for s in (0,1))
    assert (a!=b).mean()>0.2

def test_inclusive_rates_nest_and_count():
    y = np.arange(700)%7
    a,b = (symmetric_noise(y, r, 7, seed=2, inclusive=True) for r in (0.35,0.7))
    assert ((a!=y).sum(), (b!=y).sum())==(210, 420) and (a[a!=y]==b[a!=y]).all()

@pytest.mark.parametrize('call,message', [
    (lambda: matrix_noise([0,1], [[0.5,0.5],[0.5,0.6]]), 'row 1 of matrix sums to 1.1'), (lambda: matrix_noise([0,1], [[1,0]]), 'shape'), (lambda: matrix_noise([], []), 'shape'),
    (lambda: matrix_noise([2], np.eye(2)), r'targs\[0\] is 2'), (lambda: matrix_noise([0], [[np.nan,1],[0,1]]), 'between 0 and 1'), (lambda: matrix_noise([0], np.eye(3), 4), 'for 3 classes'),
    (lambda: class_noise([0], [1.2,0]), 'rate'), (lambda: class_noise([0], []), 'K at least 2|at least 2'), (lambda: class_noise([0], [0.1,0.2], 3), '3 numbers'), (lambda: class_noise([3], [0.1,0.2]), r'targs\[0\] is 3'),
    (lambda: pair_noise([0], -0.1, 3), 'rate'), (lambda: pair_noise([0], 0.1, 3, to=[]), 'another class'), (lambda: pair_noise([0], 0.1, 3, to=[1,2,5]), 'is 5'), (lambda: pair_noise([4], 0.1, 3), 'is 4'),
    (lambda: instance_noise([0], [[0.5,0.5]], 1.5), 'rate'), (lambda: instance_noise([0,1], [[0.5,0.5]], 0.5), '1 rows for 2'), (lambda: instance_noise([0], [], 0.5), 'shape'),
    (lambda: instance_noise([2], [[0.5,0.5]], 0.5), 'is 2'), (lambda: instance_noise([0], [[0.5,0.6]], 0.5), 'sums to 1.1'), (lambda: instance_noise([0], [[np.inf,0]], 0.5), 'finite'),
    (lambda: noise_report([0], [0], []), 'at least 2'), (lambda: noise_report([0,2], [0,1], 'ab'), 'is 2')])
def test_bad_arguments_of_other_models(call, message):
    with pytest.raises(ValueError, match=message): call()

@pytest.mark.parametrize('model', noise_models)
def test_no_labels_no_noise(model): assert at_rate(model, np.array([], dtype=int), 0.5, 0).shape==(0,)
