"""Reading, checking and splitting a list as large as AffectNet: seconds and peak memory.

    python benchmarks/sizes.py                     # 450,000 rows; about two minutes, most of them to make the files
    python benchmarks/sizes.py --rows 50000

Made up: a csv in AffectNet's official form, 68 landmarks in each row, and as many jpeg files (all alike, 16 pixels, each a file of its
own). The check that every image is there, isn't empty and is in one set only reads the directory entries of 450,000 real files, which the
system has in memory after they were made. Measured from the call of `FERDataLoaders.from_affectnet` to `DataLoaders` that are ready, each
time in a new process, with its own peak resident memory, fastai and PyTorch included. `import` is what a process has that only imports
them."""
import argparse, io, multiprocessing, statistics, tempfile, time, warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from fastai_resup.data.affectnet import affectnet_columns
from speed import peak_kb

SHARES = [0.26,0.46,0.09,0.05,0.02,0.01,0.09,0.02] # of the eight emotions, about as in AffectNet: happy and neutral are frequent

def make_affectnet(path, n_train, n_valid, seed=0):
    "AffectNet's lists and image files, made up"
    rng,buf = np.random.default_rng(seed),io.BytesIO()
    Image.new('RGB', (16,16), (200,150,120)).save(buf, 'JPEG')
    landmarks = [';'.join(f'{v:.2f}' for v in rng.uniform(50, 350, 136)) for _ in range(100)]
    for name,n in dict(training=n_train, validation=n_valid).items():
        with open(path/f'{name}.csv', 'w') as f:
            f.write(','.join(affectnet_columns)+'\n')
            for i,c in enumerate(rng.choice(8, n, p=SHARES)):
                d = path/'Manually_Annotated_Images'/f'{name[0]}{i//1000}'
                if i%1000==0: d.mkdir(parents=True)
                (d/f'{i:056x}.jpg').write_bytes(buf.getvalue())
                f.write(f'{d.name}/{i:056x}.jpg,10,10,224,224,{landmarks[i%100]},{c},-0.125,0.0625\n')

def read(path, what, queue):
    "In a process of its own: seconds, sizes of both sets, peak memory in MB"
    from fastai_resup.data import FERDataLoaders
    warnings.simplefilter('ignore')
    start,n = time.perf_counter(),(0,0)
    if what!='import':
        dls = FERDataLoaders.from_affectnet(path, 'official', seed=0, **(dict(valid_pct=0.1) if what=='hold out 10 %' else {}))
        n = len(dls.train_ds),len(dls.valid_ds)
    seconds = time.perf_counter()-start
    queue.put((seconds, *n, peak_kb()/1024))

def sizes_table(path, repeats):
    "Medians over new processes"
    ctx,rows = multiprocessing.get_context('spawn'),[]
    for what in ('import','official lists','hold out 10 %'):
        runs = []
        for _ in range(repeats):
            queue = ctx.Queue()
            p = ctx.Process(target=read, args=(path, what, queue)); p.start(); runs.append(queue.get()); p.join()
        seconds,n_train,n_valid,mb = (statistics.median(o) for o in zip(*runs))
        rows.append(dict(what=what, train=int(n_train), valid=int(n_valid), seconds=round(seconds, 2), peak_mb=round(mb)))
    return pd.DataFrame(rows)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rows', type=int, default=450_000)
    p.add_argument('--repeats', type=int, default=3)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        n_valid = a.rows//100
        make_affectnet(Path(d), a.rows-n_valid, n_valid)
        print(sizes_table(Path(d), a.repeats).to_string(index=False))

if __name__=='__main__': main()
