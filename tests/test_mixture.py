"""Mixture and lookup: the authors' numbers, scikit-learn's contract, binned against exact, faults."""
import numpy as np, pytest, torch
from scipy import integrate, special, stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data
from fastai_resup.mixture import BetaMixture, DegenerateMixtureError, _explained, _inside, _moments, _responsibilities, clean_lookup, p_clean, step_lookup

GOLDEN = ['bimodal', 'cosine', 'skewed']
GRID = np.linspace(0, 1, 2001)
INVERTED = dict(alphas=(2,0.8), betas=(2,0.3), weights=(0.3,0.7))
MIX = dict(alphas=(1.5,6), betas=(6,1.2), weights=(0.3,0.7))

def softmax_cosine(n, centres, sd, noisy, dtype=np.float32, seed=0):
    "Similarities of softmax outputs to class 0, its logit raised by one of two `centres`"
    rng = np.random.default_rng(seed)
    z = rng.normal(0, sd, (n,7)).astype(dtype)
    z[:,0] += rng.choice(centres, n, p=[noisy, 1-noisy]).astype(dtype)
    p = np.exp(z - z.max(1, keepdims=True))
    return (p[:,0]/np.linalg.norm(p, axis=1)).astype(dtype)

def betas(n, *abw, seed=0):
    "Draws from a mixture of `(alpha, beta, weight)`"
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.beta(a, b, int(n*w)) for a,b,w in abw])

DISTRIBUTIONS = dict(
    bimodal=lambda: betas(20000, (1.5,6,0.3), (6,1.2,0.7)),
    overlapping=lambda: betas(20000, (2,3,0.5), (4,2,0.5)),
    uniform=lambda: betas(20000, (1,1,1)),
    nearly_clean=lambda: betas(20000, (1,8,0.03), (20,0.5,0.97)),
    j_shaped=lambda: betas(20000, (0.1,2,0.4), (3,0.1,0.6)),
    saturated=lambda: softmax_cosine(20000, (-8,10), 2, 0.3),
    saturated_wide=lambda: softmax_cosine(20000, (-12,12), 6, 0.3),
    saturated_noisy=lambda: softmax_cosine(20000, (-10,9), 1.5, 0.6),
    discrete=lambda: np.random.default_rng(0).choice(np.array([0, 0.02, 0.3, 0.31, 0.9, 1], dtype=np.float32), 20000))

# --- the authors' numbers

@pytest.mark.parametrize('name', GOLDEN)
def test_golden_fit(golden, name):
    m = BetaMixture(mode='exact').fit(golden[f'{name}_x'])
    for ours,theirs in ((m.alphas_, 'alphas'), (m.betas_, 'betas'), (m.weights_, 'weight')): np.testing.assert_allclose(ours, golden[f'{name}_{theirs}'], rtol=0, atol=1e-6)
    np.testing.assert_allclose(m.predict_proba(golden[f'{name}_x'])[:,1], golden[f'{name}_posterior_clean'], rtol=0, atol=1e-6)
    np.testing.assert_allclose(step_lookup(m), golden[f'{name}_lookup'], rtol=0, atol=1e-6)

@pytest.mark.parametrize('i', [0, 1])
def test_golden_batch(golden, i):
    t = step_lookup(BetaMixture.from_params(*golden[f'mix{i}']))
    np.testing.assert_allclose(t, golden[f'lookup{i}'], rtol=0, atol=1e-6)
    s = torch.from_numpy(golden[f'sim{i}'])
    for table in (t, torch.from_numpy(golden[f'lookup{i}'])): np.testing.assert_allclose(p_clean(s, table, interpolate=False), golden[f'weight{i}'], rtol=0, atol=1e-6)

def test_golden_batch_of_both_networks(golden):
    s, t, w = (torch.from_numpy(np.stack([golden[f'{k}0'], golden[f'{k}1']])) for k in ('sim', 'lookup', 'weight'))
    np.testing.assert_allclose(p_clean(s, t, interpolate=False), w, rtol=0, atol=1e-6)

def test_golden_inverted_is_reproduced_and_repaired(golden):
    m = BetaMixture.from_params(**INVERTED)
    np.testing.assert_allclose(step_lookup(m), golden['inverted_lookup'], rtol=0, atol=1e-6)
    assert step_lookup(m)[0] > 0.99
    t = clean_lookup(m, rise=0)
    raw = m.predict_proba(np.linspace(0, 1, 1001))[:,1]
    assert (t.diff() >= 0).all() and t[0] < 0.61 and abs(t[0] - raw[:728].min()) < 1e-6
    np.testing.assert_allclose(t[raw.argmin():-1], raw[raw.argmin():-1], atol=1e-6)

# --- the estimator

class AnyColumns(BetaMixture):
    "The first of any real columns, folded into [0,1): what the checks feed isn't in [0,1]"
    def _check_X(self, X):
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return super()._check_X(X[:,:1]/8 % 1)
    def fit(self, X, y=None, sample_weight=None):
        validate_data(self, X, reset=True, dtype=[np.float64, np.float32])
        n = self.n_features_in_
        super().fit(X, y, sample_weight)
        self.n_features_in_ = n
        return self

# Nothing is expected to fail. `check_array_api_input` skips itself unless SCIPY_ARRAY_API is set. Other foldings into [0,1] (a sigmoid) make checks on a handful of distinct values degenerate.
EXPECTED_FAILED = {}

@parametrize_with_checks([AnyColumns(), AnyColumns(mode='binned')], expected_failed_checks=lambda e: EXPECTED_FAILED)
def test_sklearn_contract(estimator, check): check(estimator)

@pytest.mark.parametrize('mode', ['exact', 'binned'])
@pytest.mark.parametrize('par', [((1.5,6), (6,1.2), (0.3,0.7)), ((1,9), (8,2), (0.5,0.5)), ((3,12), (9,3), (0.1,0.9))])
def test_sample_and_fit_recover_parameters(par, mode):
    truth = BetaMixture.from_params(*par)
    x, k = truth.sample(50000, random_state=0)
    assert x.shape == (50000,1) and k.shape == (50000,)
    m = BetaMixture(mode=mode, max_iter=200).fit(x)
    np.testing.assert_allclose(m.weights_, truth.weights_, atol=0.02)
    np.testing.assert_allclose(m.means_, truth.means_, atol=0.02)
    np.testing.assert_allclose(m.predict_proba(GRID), truth.predict_proba(GRID), atol=0.05)
    for c in (0, 1): assert stats.kstest(x[k==c,0], stats.beta(truth.alphas_[c], truth.betas_[c]).cdf).pvalue > 1e-3

def test_sample_repeats_and_refuses_none():
    m = BetaMixture.from_params(**MIX)
    assert np.array_equal(m.sample(9, random_state=3)[0], m.sample(9, random_state=3)[0]) and not np.array_equal(m.sample(9, random_state=3)[0], m.sample(9, random_state=4)[0])
    with pytest.raises(ValueError, match='n_samples'): m.sample(0)

def test_densities_against_scipy():
    m, x = BetaMixture.from_params(**MIX), np.random.default_rng(0).uniform(0.01, 0.99, 300)
    ref = np.stack([w*stats.beta.pdf(x, a, b) for a,b,w in zip(*MIX.values())], axis=1)
    np.testing.assert_allclose(np.exp(m.weighted_log_density(x)), ref)
    np.testing.assert_allclose(m.score_samples(x), np.log(ref.sum(1)))
    np.testing.assert_allclose(m.predict_proba(x), ref/ref.sum(1, keepdims=True), atol=1e-9)
    assert np.array_equal(m.predict(x), ref.argmax(1)) and np.isclose(m.score(x), np.log(ref.sum(1)).mean())
    assert np.isclose(m.aic(x), 10 - 2*np.log(ref.sum(1)).sum()) and np.isclose(m.bic(x), 5*np.log(300) - 2*np.log(ref.sum(1)).sum())
    assert np.isclose(integrate.quad(lambda v: np.exp(m.score_samples([v])[0]), 0, 1)[0], 1, atol=1e-4)

def test_floor_and_denominator_of_the_authors():
    m, x = BetaMixture.from_params((40,60), (60,2), (0.5,0.5)), np.array([1e-3, 0.1, 0.66, 0.9999, 1-1e-9])
    lik = np.stack([0.5*stats.beta.pdf(x, a, b) for a,b in ((40,60), (60,2))])
    assert lik.sum(0).min() < 1e-12
    np.testing.assert_allclose(m.predict_proba(x)[:,1], lik[1]/(lik.sum(0) + 1e-12), rtol=1e-9)
    assert m.predict_proba([0.]).tolist() == [[1., 0.]]
    x = np.array([0.05, 0.06, 0.6, 0.95]) # likelihoods below 1e-12 in the first two: one E step, floored
    lik = np.maximum([0.5*stats.beta.pdf(x, a, 1) for a in (12,12.5)], 1e-12)
    r = lik/lik.sum(0)
    fit = BetaMixture(mode='exact', max_iter=1, alpha_init=(12,12.5), beta_init=(1,1)).fit(x)
    np.testing.assert_allclose(fit.means_, np.sort(r@x/r.sum(1)), rtol=1e-9)

def test_spread_within_bins_counts():
    x = DISTRIBUTIONS['bimodal']()
    a, b = (BetaMixture(mode=o, n_bins=16, max_iter=1, alpha_init=(1,1), beta_init=(1,1)).fit(x) for o in ('exact', 'binned')) # equal shares: moments of the whole
    np.testing.assert_allclose(a.alphas_, b.alphas_, rtol=1e-9)

def test_long_arrays_are_evaluated_whole():
    m, x = BetaMixture.from_params(**MIX), np.random.default_rng(0).random(150_000)
    i = np.r_[0, 65535, 65536, 131072, 149_999]
    assert np.array_equal(m.predict_proba(x)[i], m.predict_proba(x[i]))

def test_components_are_ordered_by_mean():
    x = betas(4000, (1.5,6,0.3), (6,1.2,0.7))
    a, b = BetaMixture().fit(x), BetaMixture(alpha_init=(2,1), beta_init=(1,2)).fit(x)
    for k in ('alphas_', 'betas_', 'weights_', 'means_'): np.testing.assert_allclose(getattr(a, k), getattr(b, k))
    assert a.means_[0] < a.means_[1] and a.predict([0.05, 0.95]).tolist() == [0, 1]
    f = BetaMixture.from_params([6,1.5], [1.2,6], [0.7,0.3])
    assert f.alphas_.tolist() == [1.5,6] and f.betas_.tolist() == [6,1.2] and f.weights_.tolist() == [0.3,0.7]

def test_ends_are_moved_as_the_authors_move_them():
    x = np.r_[betas(3000, (1.5,6,0.3), (6,1.2,0.7)), np.zeros(200), np.ones(400), np.full(100, 1e-6), np.full(100, 1-1e-6)]
    y = x.copy(); y[x==0], y[x==1], y[x==1e-6], y[x==1-1e-6] = 1e-3, 1-1e-3, 1e-4, 1-1e-4
    for mode in ('exact', 'binned'):
        a, b = BetaMixture(mode=mode).fit(x), BetaMixture(mode=mode).fit(y)
        np.testing.assert_allclose(a.alphas_, b.alphas_, rtol=1e-9)
        assert abs(BetaMixture(mode=mode, edge=1e-4).fit(x).alphas_ - a.alphas_).max() > 1e-3
        assert abs(BetaMixture(mode=mode, clip=1e-3).fit(x).alphas_ - a.alphas_).max() > 1e-3
    assert np.array_equal(a.score_samples([0, 1, 1e-6]), a.score_samples([1e-3, 1-1e-3, 1e-4]))
    assert abs(a.predict_proba([1e-6])[0,1] - a.predict_proba([1e-4])[0,1]) > 0

def test_max_iter_and_start_are_used():
    x = betas(3000, (1.5,6,0.3), (6,1.2,0.7))
    fits = [BetaMixture(**k).fit(x).weights_[0] for k in ({}, dict(max_iter=1), dict(weights_init=(0.9,0.1)), dict(alpha_init=(1,5)), dict(beta_init=(5,1)))]
    assert BetaMixture(max_iter=3).fit(x).n_iter_ == 3 and min(abs(f - fits[0]) for f in fits[1:]) > 1e-4

@pytest.mark.parametrize('mode', ['exact', 'binned'])
def test_sample_weight_counts_as_repetition(mode):
    x = betas(3000, (1.5,6,0.3), (6,1.2,0.7))
    n = np.random.default_rng(1).integers(0, 4, x.size)
    a, b = BetaMixture(mode=mode).fit(x, sample_weight=n), BetaMixture(mode=mode).fit(np.repeat(x, n))
    for k in ('alphas_', 'betas_', 'weights_'): np.testing.assert_allclose(getattr(a, k), getattr(b, k), rtol=1e-8)

def test_clone_and_params():
    m = BetaMixture(max_iter=3, alpha_init=(1,3), clip=1e-3, edge=2e-3, mode='binned', n_bins=99)
    assert clone(m).get_params() == m.get_params() and not hasattr(clone(m.fit(GRID)), 'alphas_')

@pytest.mark.parametrize('method', ['predict_proba', 'predict', 'score_samples', 'score', 'bic', 'aic', 'weighted_log_density', 'sample'])
def test_unfitted(method):
    with pytest.raises(NotFittedError): getattr(BetaMixture(), method)(5 if method == 'sample' else GRID)

# --- binned against exact

@pytest.mark.parametrize('name', DISTRIBUTIONS)
def test_binned_is_exact_to_a_thousandth(name):
    x = DISTRIBUTIONS[name]()
    a, b = BetaMixture(mode='exact').fit(x), BetaMixture(mode='binned').fit(x)
    assert (a.mode_, b.mode_) == ('exact', 'binned')
    for at in (x, GRID): assert abs(a.predict_proba(at) - b.predict_proba(at)).max() < 1e-3
    np.testing.assert_allclose(a.weights_, b.weights_, atol=1e-3)
    assert abs(clean_lookup(a) - clean_lookup(b)).max() < 1e-3

def test_the_saturated_sets_are_saturated():
    x = DISTRIBUTIONS['saturated']()
    assert x.dtype == np.float32 and (x > 0.999).mean() > 0.6 and (x < 0.001).mean() > 0.25 and (x == 1).mean() > 0.1

def test_bins_decide():
    x = DISTRIBUTIONS['saturated']()
    exact = BetaMixture(mode='exact').fit(x)
    assert abs(exact.predict_proba(GRID) - BetaMixture(mode='binned', n_bins=4).fit(x).predict_proba(GRID)).max() > 1e-2

def test_auto_changes_over_at_5000():
    assert [BetaMixture().fit(GRID.repeat(4)[:n]).mode_ for n in (4999, 5000)] == ['exact', 'binned']

@pytest.mark.parametrize('mode', ['exact', 'binned'])
def test_input_kinds_agree_and_stay_untouched(mode):
    x = betas(6000, (1.5,6,0.3), (6,1.2,0.7)).astype(np.float32)
    keep, ref = x.copy(), BetaMixture(mode=mode).fit(x.astype(np.float64))
    for v in (x, x[:,None], torch.from_numpy(x), x.tolist(), np.repeat(x, 2)[::2]): np.testing.assert_allclose(BetaMixture(mode=mode).fit(v).alphas_, ref.alphas_, rtol=1e-6)
    ref.predict_proba(x); ref.score(x)
    assert np.array_equal(x, keep)

# --- faults

@pytest.mark.parametrize('x,words', [([0.1,np.nan,0.5], 'NaN'), ([0.1,np.inf,0.5], 'infinity'), ([0.1,-np.inf,0.5], 'infinity'), ([], 'minimum of 1'), ([0.1,1.5], 'outside'),
    ([-0.2,0.5], 'outside'), (np.full((5,2), 0.5), '2 features'), (np.full((5,1,1), 0.5), 'dim')])
def test_bad_data(x, words):
    m = BetaMixture.from_params(**MIX)
    for f in (m.fit, m.predict_proba, m.score_samples):
        with pytest.raises(ValueError, match=words) as e: f(x)
        assert not isinstance(e.value, DegenerateMixtureError)
    assert m.alphas_.tolist() == [1.5,6]

def test_rounding_above_one_is_let_pass():
    x = np.r_[DISTRIBUTIONS['bimodal'](), 1 + 1e-7]
    assert np.isfinite(BetaMixture().fit(x).alphas_).all() and np.isfinite(BetaMixture().fit(x).predict_proba(x)).all()

@pytest.mark.parametrize('mode', ['exact', 'binned', 'auto'])
@pytest.mark.parametrize('x', [np.zeros(100), np.ones(100), np.full(100, 0.3), np.full(6000, 0.3, dtype=np.float32), np.array([0.4]), np.array([0.4,0.4+1e-9]),
    np.array([0.2]*60 + [0.8]*40), softmax_cosine(20000, (-6,16), 1, 0.3), softmax_cosine(20000, (-6,12), 1, 0.3)],
    ids=['zeros', 'ones', 'constant', 'constant32', 'single', 'nearly_constant', 'two_values', 'spike', 'spike_and_noise'])
def test_degenerate_data_raises_and_keeps_the_mixture(x, mode):
    m = BetaMixture.from_params(**MIX, mode=mode)
    before = {k: np.copy(v) for k,v in vars(m).items() if k.endswith('_')}
    with pytest.raises(DegenerateMixtureError, match='collapsed'): m.set_params(max_iter=200 if x.size == 100 else 10).fit(x)
    assert {k for k in vars(m) if k.endswith('_')} == set(before) and all(np.array_equal(getattr(m, k), v) for k,v in before.items())

def flat(n, seed=0):
    "Similarities without a dip between the heaps: a logit of -2 (30 %) or 2, and much noise"
    rng = np.random.default_rng(seed)
    return special.expit(rng.choice([-2, 2], n, p=[0.3, 0.7]) + rng.normal(0, 8**0.5, n))

@pytest.mark.parametrize('mode', ['exact', 'binned'])
@pytest.mark.parametrize('seed', [0, 2, 3, 4])
def test_components_that_would_become_one_are_kept_apart(seed, mode):
    "EM goes from two components to one; the fit is that of the last round in which they were apart"
    x = flat(4000, seed)
    m = BetaMixture(mode=mode, max_iter=200).fit(x)
    assert 10 < m.n_iter_ < 50 and np.ptp(m.means_) > 0.5 and np.ptp(m.predict_proba(x)[:,1]) > 0.95
    fewer = BetaMixture(mode=mode, max_iter=m.n_iter_).fit(x)
    assert fewer.n_iter_ == m.n_iter_ and fewer.alphas_.tolist() == m.alphas_.tolist() and fewer.weights_.tolist() == m.weights_.tolist()
    w = np.where(x < 0.5, 2., 1)
    assert np.allclose(BetaMixture(mode=mode, max_iter=200).fit(x, sample_weight=w).alphas_, BetaMixture(mode=mode, max_iter=200).fit(np.r_[x, x[x < 0.5]]).alphas_)

@pytest.mark.parametrize('mu,sd', [((-6,6), 4), ((-6,8), 5), ((-8,8), 5), ((-4,8), 4)])
def test_sharp_heaps_are_told_apart(mu, sd):
    "Networks that are sure of nearly everything, of 1,000 labels at a noise rate of 30 %: the share comes out, and a hundred rounds do no harm"
    rng = np.random.default_rng(0)
    x = special.expit(rng.normal(np.where(rng.random(1000) < 0.3, *mu), sd))
    m = BetaMixture(max_iter=100).fit(x)
    assert m.n_iter_ < 100 and abs(m.weights_[0] - 0.3) < 0.05 and np.ptp(m.means_) > 0.75

def test_one_component_is_where_all_rounds_would_end():
    "By a plain loop of the same steps, and with all of them p(clean) is the same for all"
    x, m = _inside(flat(4000)), BetaMixture(mode='exact', max_iter=200).fit(flat(4000))
    par, share, rounds = [np.array(o, dtype=float) for o in ((1,2), (2,1), (0.5,0.5))], [], []
    for _ in range(200):
        p = _responsibilities(np.log(x), np.log1p(-x), *par)
        share.append(p[1].var()/(p[1].mean()*(1-p[1].mean()))); rounds.append(par)
        par = _moments(x, 0., p)
    assert np.ptp(BetaMixture.from_params(*par).predict_proba(x)[:,1]) < 1e-3
    last = max(i for i,o in enumerate(share) if o >= 0.9*share[0])
    assert m.n_iter_ == last and share[last+1] < 0.9*share[0] and np.allclose(m.alphas_, rounds[last][0])

@pytest.mark.parametrize('max_iter', [10, 100, 500])
@pytest.mark.parametrize('name', DISTRIBUTIONS)
def test_healthy_fits_are_let_pass(name, max_iter): BetaMixture(max_iter=max_iter).fit(DISTRIBUTIONS[name]())

def test_the_narrow_heap_of_an_untrained_network_is_let_pass():
    "All similarities within 0.05 or so of each other: p(clean) differs little, and so did it at the start"
    for seed in range(3):
        x = np.random.default_rng(seed).beta(300, 500, 84)
        for n in (10, 100): assert 0.02 < np.ptp(BetaMixture(max_iter=n).fit(x).predict_proba(x)[:,1])

@pytest.mark.parametrize('max_iter', [10, 100])
@pytest.mark.parametrize('ab', [(2,2), (5,2), (20,30), (1,3), (8,1), (2,20), (0.5,0.5)])
def test_one_heap_is_let_pass(ab, max_iter):
    "An early network has one heap of similarities, and the order of p(clean) is of use all the same"
    for seed in range(3):
        x = np.random.default_rng(seed).beta(*ab, 5000)
        assert np.ptp(BetaMixture(max_iter=max_iter).fit(x).predict_proba(x)[:,1]) > 0.15

@pytest.mark.parametrize('name', GOLDEN)
def test_golden_data_is_let_pass_after_many_rounds(golden, name):
    for n in (10, 100, 1000): BetaMixture(mode='exact', max_iter=n).fit(golden[f'{name}_x'])

def test_share_explained():
    "Against the variance of the posterior over the variance of membership"
    m = BetaMixture.from_params(**MIX)
    x, k = m.sample(200_000, random_state=0)
    p = m.predict_proba(x)[:,1]
    assert np.isclose(_explained(np.stack([1-p, p]), 1.), p.var()/(p.mean()*(1-p.mean())))
    assert abs(_explained(np.stack([1-p, p]), 1.) - (1 - ((k-p)**2).mean()/k.var())) < 0.01     # the coefficient of determination of true membership

@pytest.mark.parametrize('seed', range(30))
def test_never_nan_on_odd_data(seed):
    rng = np.random.default_rng(seed)
    x = rng.choice(rng.choice([0, 1, 1e-8, 1-1e-8, *rng.random(5)], rng.integers(2, 6)), rng.integers(2, 300))
    try: m = BetaMixture(max_iter=50).fit(x)
    except DegenerateMixtureError: return
    assert np.isfinite([m.alphas_, m.betas_, m.weights_, m.means_]).all() and np.isfinite(m.predict_proba(GRID)).all() and (clean_lookup(m).diff() >= 0).all()

@pytest.mark.parametrize('kw,words', [(dict(mode='fast'), 'mode'), (dict(max_iter=0), 'max_iter'), (dict(n_bins=1), 'n_bins'), (dict(clip=0), 'clip'), (dict(clip=0.5), 'clip'), (dict(edge=0), 'edge'),
    (dict(alpha_init=(1,-2)), 'positive'), (dict(beta_init=(1,2,3)), 'positive'), (dict(weights_init=(0.5,0.6)), 'sum to 1')])
def test_bad_arguments(kw, words):
    with pytest.raises(ValueError, match=words): BetaMixture(**kw).fit(GRID)

@pytest.mark.parametrize('w', [[1,2], [-1]*2001, [0]*2001, [np.nan]*2001, np.ones((2001,1))])
def test_bad_sample_weight(w):
    with pytest.raises(ValueError, match='sample_weight'): BetaMixture().fit(GRID, sample_weight=w)

@pytest.mark.parametrize('par', [((1,2), (2,1), (0.5,0.6)), ((0,2), (2,1), (0.5,0.5)), ((1,np.nan), (2,1), (0.5,0.5)), ((1,), (2,), (1,))])
def test_from_params_refuses(par):
    with pytest.raises(ValueError, match='two positive'): BetaMixture.from_params(*par)

# --- lookups

def both_tails():
    "Posterior rises towards 0 and falls towards 1"
    return BetaMixture.from_params((2,1), (0.4,0.6), (0.1,0.9)), BetaMixture.from_params((1,8), (0.6,2), (0.5,0.5)), BetaMixture.from_params(**INVERTED)

@pytest.mark.parametrize('n', [2, 3, 100, 1001, 5000])
def test_clean_lookup_is_monotone(n):
    for m in (*both_tails(), *(BetaMixture().fit(d()) for d in DISTRIBUTIONS.values())):
        t, flat = clean_lookup(m, n), clean_lookup(m, n, rise=0)
        for o in (t, flat): assert o.shape == (n,) and o.dtype == torch.float32 and o.device.type == 'cpu' and (o.diff() >= 0).all() and o.min() >= 0 and o.max() <= 1
        assert (t.diff() > 0).all() and abs(t - flat).max() <= 2e-3 and t.min() >= 1e-4 - 1e-9 and t.max() <= 1 - 1e-4 + 1e-7

def test_the_lookup_ranks_as_the_similarity_does():
    "where the posterior is flat it says nothing; the table still does, as float32 and through the weight function's clip"
    s = torch.linspace(0, 1, 4001)
    for m in both_tails():
        assert (p_clean(s, clean_lookup(m)).diff() > 0).all() and not (p_clean(s, clean_lookup(m, rise=0)).diff() > 0).all()
    np.testing.assert_allclose(clean_lookup(both_tails()[0], rise=0.5), 0.5*clean_lookup(both_tails()[0], rise=0) + 0.5*torch.linspace(0.05, 0.95, 1001), atol=1e-6)

def test_right_tail_is_flat_from_the_maximum():
    m = both_tails()[1]
    raw = m.predict_proba(np.linspace(0, 1, 1001))[:,1]
    k = raw.argmax()
    assert 0 < k < 1000 and raw[-1] < raw[k] - 0.5
    t = clean_lookup(m, rise=0).numpy()
    np.testing.assert_allclose(t[k:], raw[k], atol=1e-6)
    np.testing.assert_allclose(t[:k+1], raw[:k+1], atol=1e-6)
    s = step_lookup(m)
    assert s[-1] == s.max() and abs(s.max() - raw[k]) < 1e-3

def test_left_tail_is_flat_up_to_the_minimum():
    m = both_tails()[2]
    raw = m.predict_proba(np.linspace(0, 1, 1001))[:,1]
    k = raw[:728].argmin()
    t = clean_lookup(m, rise=0).numpy()
    assert k > 50 and raw[0] > raw[k] + 0.3
    np.testing.assert_allclose(t[:k], raw[k], atol=1e-6)

def test_the_minimum_is_searched_left_of_the_clean_mean_only():
    class Dip: # p(clean) falls right of the clean mean, lower than anywhere on the left
        means_ = np.array([0.1, 0.5])
        def predict_proba(self, x): p = np.where(x[:,0] < 0.8, 0.2 + x[:,0]/2, 0.01); return np.c_[1-p, p]
        def score_samples(self, x): return np.zeros(len(x))
    t = clean_lookup(Dip(), 101, rise=0)
    assert abs(t[0] - 0.2) < 1e-6 and abs(t[50] - 0.45) < 1e-6 and t[-1] == t[79]

@pytest.mark.parametrize('seed', range(4))
def test_gaussian_mixture_in_its_place(seed):
    x, _ = BetaMixture.from_params(**MIX).sample(3000, random_state=0)
    g = GaussianMixture(2, random_state=seed, means_init=[[0.9],[0.1]] if seed % 2 else [[0.1],[0.9]]).fit(x)
    k = int(g.means_[1,0] > g.means_[0,0])
    assert k == 1 - seed % 2
    t, raw = clean_lookup(g, rise=0), g.predict_proba(np.linspace(0, 1, 1001)[:,None])[:,k]
    assert (t.diff() >= 0).all() and t[50] < 0.05 and t[950] > 0.95
    np.testing.assert_allclose(t[200:800], raw[200:800], atol=1e-5)
    assert step_lookup(g).shape == (100,) and step_lookup(g)[95] > 0.95

def test_lookup_refusals():
    x = BetaMixture.from_params(**MIX).sample(500, random_state=0)[0]
    for f in (clean_lookup, step_lookup):
        with pytest.raises(ValueError, match='two components'): f(GaussianMixture(3, random_state=0).fit(x))
        broken = BetaMixture.from_params(**MIX); broken.alphas_ = broken.alphas_*np.nan
        with pytest.raises(DegenerateMixtureError, match='finite'): f(broken)
    with pytest.raises(ValueError, match='2 entries'): clean_lookup(BetaMixture.from_params(**MIX), 1)
    for rise in (-0.1, 1., float('nan')):
        with pytest.raises(ValueError, match='rise'): clean_lookup(BetaMixture.from_params(**MIX), rise=rise)

# --- reading it

def test_p_clean_interpolates_like_numpy():
    t, s = clean_lookup(BetaMixture.from_params(**MIX)), torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(p_clean(s, t), np.interp(s, np.linspace(0, 1, 1001), t).clip(1e-4, 1-1e-4), atol=1e-5)
    assert p_clean(s, t).shape == s.shape and p_clean(s[0,0,0], t).shape == () and p_clean(s[:0], t).shape == (0,5,6)

def test_p_clean_reads_each_network_in_its_own_row():
    t, s = torch.stack([torch.linspace(0, 1, 11), torch.linspace(0.5, 0.6, 11)]), torch.tensor([[0.2,0.45],[0.2,0.45]])
    torch.testing.assert_close(p_clean(s, t), torch.tensor([[0.2,0.45],[0.52,0.545]]))
    torch.testing.assert_close(p_clean(s, t, interpolate=False), torch.tensor([[0.2,0.4],[0.52,0.54]]))
    torch.testing.assert_close(p_clean(s[:,None], t), p_clean(s, t)[:,None])

def test_p_clean_ends_and_nan():
    s, t = torch.tensor([0., 1., -0.5, 1.5, float('nan'), float('inf'), -float('inf')]), torch.tensor([0., 0.25, 0.5, 1.])
    for interpolate in (True, False):
        lo, hi = 1e-4, 1-1e-4
        torch.testing.assert_close(p_clean(s, t, interpolate), torch.tensor([lo, hi, lo, hi, lo, hi, lo]))
        torch.testing.assert_close(p_clean(s, t, interpolate, clip=0.), torch.tensor([0., 1, 0, 1, 0, 1, 0]))
    torch.testing.assert_close(p_clean(torch.tensor([0.24,0.26,0.99]), t, False), torch.tensor([lo,0.25,hi]))

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_p_clean_of_other_precisions(dtype):
    t, s = clean_lookup(BetaMixture.from_params(**MIX)), torch.rand(64, generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.testing.assert_close(p_clean(s, t), p_clean(s.float(), t))

@pytest.mark.parametrize('interpolate', [True, False])
def test_p_clean_needs_no_values(interpolate):
    for shape,table in (((2,96), (2,1001)), ((96,), (1001,)), ((3,4), (1001,))):
        out = p_clean(torch.empty(shape, device='meta'), torch.empty(table, device='meta'), interpolate)
        assert out.device.type == 'meta' and out.shape == shape
    assert p_clean(torch.empty(5, device='meta'), torch.rand(9), interpolate).device.type == 'meta'

def test_p_clean_leaves_its_input_alone():
    s = torch.tensor([-1., 0.5, float('nan')], requires_grad=True)
    t = torch.tensor([0., 1.])
    assert not p_clean(s, t).requires_grad and s[0] == -1 and s[2].isnan() and t.tolist() == [0, 1]
    p_clean(d := torch.tensor([-1., 2.]), t)
    assert d.tolist() == [-1, 2]
