"""Large lists of labels: seconds and peak memory of reading, checking, splitting, auditing and writing.

    python benchmarks/sizes.py                     # both tables, about five minutes, most of them to make the files
    python benchmarks/sizes.py --only csv --rows 50000

csv: 1,000,000 rows, and as many jpeg files, a thousand in a folder. 'read' is the csv as a table for `from_table`; 'from_csv' goes
on to `DataLoaders` that are ready; 'audit' is `LabelAudit.from_predictions` of random predictions, its ranking and its 50 worst rows;
'written' are all its rows as csv.
affectnet: 450,000 rows in AffectNet's official form, 68 landmarks in each, and as many files, from the call of `FERDataLoaders.from_affectnet` to `DataLoaders` that are ready.
Images are all alike, 16 pixels, each a file of its own. The check of files reads the directory entries of real files, which the system has in memory after they were made. Each row is the median of
new processes, with their own peak resident memory, fastai and PyTorch included. `import` is what a process has that only imports them."""
import argparse, io, multiprocessing, statistics, tempfile, time, warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from fastai_resup.data.affectnet import affectnet_columns
from speed import peak_kb

SHARES = [0.26,0.46,0.09,0.05,0.02,0.01,0.09,0.02] # of the eight emotions, about as in AffectNet: happy and neutral are frequent
NAMES = 'surprise fear disgust happiness sadness anger neutral'.split()

def jpeg():
    "The bytes of an image"
    buf = io.BytesIO()
    Image.new('RGB', (16,16), (200,150,120)).save(buf, 'JPEG')
    return buf.getvalue()

def make_affectnet(path, rows, seed=0):
    "AffectNet's lists and image files, made up; one row in a hundred is for validation"
    rng,image = np.random.default_rng(seed),jpeg()
    landmarks = [';'.join(f'{v:.2f}' for v in rng.uniform(50, 350, 136)) for _ in range(100)]
    for name,n in dict(training=rows-rows//100, validation=rows//100).items():
        with open(path/f'{name}.csv', 'w') as f:
            f.write(','.join(affectnet_columns)+'\n')
            for i,c in enumerate(rng.choice(8, n, p=SHARES)):
                d = path/'Manually_Annotated_Images'/f'{name[0]}{i//1000}'
                if i%1000==0: d.mkdir(parents=True)
                (d/f'{i:056x}.jpg').write_bytes(image)
                f.write(f'{d.name}/{i:056x}.jpg,10,10,224,224,{landmarks[i%100]},{c},-0.125,0.0625\n')

def make_csv(path, rows, seed=0):
    "labels.csv and a file for each of its rows; one row in a hundred is for validation"
    image = jpeg()
    with open(path/'labels.csv', 'w') as f:
        f.write('file,label,is_valid\n')
        for i,c in enumerate(np.random.default_rng(seed).integers(7, size=rows)):
            if i%1000==0: (path/f'{i//1000:04}').mkdir()
            name = f'{i//1000:04}/face_{i:07}.jpg'
            (path/name).write_bytes(image)
            f.write(f'{name},{NAMES[c]},{i%100==0}\n')

def from_affectnet(path, **kwargs):
    from fastai_resup.data import FERDataLoaders
    return len(FERDataLoaders.from_affectnet(path, 'official', seed=0, **kwargs).train_ds)

def read(path):
    from fastai_resup.data.tables import fer_table,label_csv
    return len(fer_table(label_csv(path/'labels.csv'), path, valid_col='is_valid'))

def from_csv(path, **kwargs):
    from fastai_resup.data import FERDataLoaders
    return len(FERDataLoaders.from_csv(path, valid_col='is_valid', **kwargs).train_ds)

def audit(path, save=False):
    "An audit of as many rows as the csv file has, from random predictions"
    from fastai_resup.audit.table import LabelAudit,prediction_table
    n = sum(1 for _ in open(path/'labels.csv'))-1
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(7), (2,n)).astype(np.float32)
    files = [f'{path}/{i//1000:04}/face_{i:07}.jpg' for i in range(n)]
    start = time.perf_counter()
    a = LabelAudit.from_predictions(prediction_table(probs, rng.integers(7, size=n), files, NAMES), rng.random((2,n)), NAMES, probs.mean(0))
    a.suspects(50)
    if save:
        start = time.perf_counter()
        a.to_csv(path/'p_clean.csv', overwrite=True)
    return n,time.perf_counter()-start

TABLES = dict(
    csv=(make_csv, {'import':lambda path: 0, 'read':read, 'from_csv':from_csv, 'from_csv, check_files=False':lambda path: from_csv(path, check_files=False),
                    'audit':audit, 'audit written':lambda path: audit(path, save=True)}),
    affectnet=(make_affectnet, {'import':lambda path: 0, 'official lists':from_affectnet, 'hold out 10 %':lambda path: from_affectnet(path, valid_pct=0.1)}))

def run(table, what, path):
    "In a process of its own: rows, seconds, peak memory in MB"
    import fastai_resup.all
    warnings.simplefilter('ignore')
    start = time.perf_counter()
    n = TABLES[table][1][what](path)
    n,seconds = n if isinstance(n, tuple) else (n,time.perf_counter()-start)
    return n,seconds,peak_kb()/1024

def sizes_table(table, path, repeats):
    "Medians over new processes"
    ctx,rows = multiprocessing.get_context('spawn'),[]
    for what in TABLES[table][1]:
        runs = []
        for _ in range(repeats):
            with ProcessPoolExecutor(1, ctx) as pool: runs.append(pool.submit(run, table, what, path).result())
        n,seconds,mb = (statistics.median(o) for o in zip(*runs))
        rows.append(dict(what=what, rows=int(n), seconds=round(seconds, 1), peak_mb=round(mb)))
    return pd.DataFrame(rows)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', choices=list(TABLES))
    p.add_argument('--rows', type=int, help='1,000,000 for csv and 450,000 for affectnet where not given')
    p.add_argument('--repeats', type=int, default=3)
    a = p.parse_args()
    for table in [a.only] if a.only else TABLES:
        with tempfile.TemporaryDirectory() as d:
            TABLES[table][0](Path(d), a.rows or dict(csv=1_000_000, affectnet=450_000)[table])
            print(table, sizes_table(table, Path(d), a.repeats).to_string(index=False), sep='\n')

if __name__=='__main__': main()
