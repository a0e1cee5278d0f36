"""Time and memory of a Beta mixture fit: `BetaMixture`, exact and binned, beside EM in a few lines of SciPy, all in one run.

    python benchmarks/speed_mixture.py --max-n 1e7

`em_table(max_n)` returns the rows. Times are medians of `repeats` runs taken in turn (SciPy once from 1e7 on). Peak memory is what
`tracemalloc` sees NumPy allocate beyond the input, in a separate run, because tracing slows the timed one."""
import argparse, gc, statistics, time, tracemalloc
import numpy as np
from scipy.stats import beta
from fastai_resup.mixture import BetaMixture

def scipy_em(
    x:np.ndarray, # similarities, (n,)
    n_iter:int=10, # rounds
)->np.ndarray: # (3,2): alphas, betas, weights
    "The same EM as anybody would write it with `scipy.stats.beta.pdf`"
    x = np.where(x <= 0, 1e-3, np.where(x >= 1, 1-1e-3, x)).astype(np.float64).clip(1e-4, 1-1e-4)
    a, b, w = np.array([1., 2]), np.array([2., 1]), np.array([0.5, 0.5])
    for _ in range(n_iter):
        r = np.stack([w[k]*beta.pdf(x, a[k], b[k]) for k in (0, 1)]).clip(1e-12)
        r /= r.sum(0)
        s = r.sum(1)
        m = (r*x).sum(1)/s
        v = (r*(x - m[:,None])**2).sum(1)/s
        a = m*(m*(1-m)/v - 1)
        b, w = a*(1-m)/m, s/s.sum()
    return np.stack([a, b, w])

FITS = {
    'scipy': scipy_em,
    'exact': lambda x: BetaMixture(mode='exact').fit(x),
    'binned': lambda x: BetaMixture(mode='binned').fit(x),
}

def similarities(
    n:int, # how many
    seed:int=0, # of the draw
)->np.ndarray: # (n,), float32 as a network gives them
    "30 % noisy"
    return BetaMixture.from_params([1.5, 6], [6, 1.2], [0.3, 0.7]).sample(n, random_state=seed)[0][:,0].astype(np.float32)

def seconds(f, x)->float:
    "One run of `f(x)`"
    gc.collect()
    t = time.perf_counter()
    f(x)
    return time.perf_counter() - t

def peak_mb(f, x)->float:
    "Most memory that `f(x)` held at once beyond `x`, in 1e6 bytes (tracemalloc)"
    gc.collect()
    tracemalloc.start()
    try:
        f(x)
        return tracemalloc.get_traced_memory()[1]/1e6
    finally: tracemalloc.stop()

def largest_difference(x)->float:
    "Of p(clean) between SciPy's EM and the binned fit, on a grid of 1001 similarities"
    grid = np.linspace(0.0005, 0.9995, 1001)
    a, b = BetaMixture.from_params(*scipy_em(x)), BetaMixture(mode='binned').fit(x)
    return float(abs(a.predict_proba(grid) - b.predict_proba(grid)).max())

def em_table(
    max_n:int=1_000_000, # largest number of similarities
    repeats:int=5, # runs per figure
)->list: # dict rows: n, fit, seconds (median), times_scipy (ratio), peak_mb, p_difference (binned against SciPy)
    "Fits of 1e4, 1e5, 1e6, 1e7 similarities, up to `max_n`"
    rows = []
    for n in (10**k for k in range(4, 8) if 10**k <= max_n):
        x, big = similarities(n), n >= 10**7
        runs = [{k:seconds(f, x) for k,f in FITS.items() if k != 'scipy' or i == 0 or not big} for i in range(repeats)]
        t = {k:statistics.median(r[k] for r in runs if k in r) for k in FITS}
        for k,f in FITS.items():
            row = dict(n=n, fit=k, seconds=t[k], times_scipy=t['scipy']/t[k], peak_mb=peak_mb(f, x))
            row['p_difference'] = largest_difference(x) if k == 'binned' and not big else None
            rows.append(row)
    return rows

def show(rows:list):
    "Print the rows as a Markdown table"
    print('| n | fit | median s | times as fast as SciPy | peak MB (tracemalloc) | largest difference in p(clean) |')
    print('|---|---|---|---|---|---|')
    def cell(v, form): return '' if v is None else format(v, form)
    for r in rows:
        times = f"{r['seconds']:.4f} | {r['times_scipy']:.1f}"
        print(f"| {r['n']:,} | {r['fit']} | {times} | {cell(r['peak_mb'], '.1f')} | {cell(r['p_difference'], '.1e')} |")

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--max-n', type=lambda v: int(float(v)), default=10**7, help='largest number of similarities')
    p.add_argument('--repeats', type=int, default=5, help='runs per figure')
    a = p.parse_args()
    show(em_table(a.max_n, a.repeats))
