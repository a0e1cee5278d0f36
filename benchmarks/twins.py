"""Near twins among FERPlus's real faces: which changed copies `find_twins` finds, and how near two photos come that are not the same.

    python benchmarks/twins.py --data ferplus.tar.xz                   # the tables, in 3 minutes
    python benchmarks/twins.py --data ferplus.tar.xz --sheet twins.png # and a picture of the 90 farthest pairs within --distance

Hits: the share of 1,000 images whose changed copy is within a distance (bits of 256). False twins: an image and the mirror image of another
look as alike as any two faces, and are never the same photo, unless somebody mirrored it; so their pairs are an upper bound."""
import argparse, io
from pathlib import Path

import numpy as np
import pandas as pd
from fastai_resup.audit.twins import find_twins, near_pairs, picture_hash, twin_ids
from fastai_resup.data.ferplus import ferplus_labels, read_ferplus_votes
from ferplus_mini import read_data
from PIL import Image, ImageEnhance, ImageOps

distances = 16,24,32,40,48,56,64

def jpeg(im, quality):
    f = io.BytesIO()
    im.save(f, 'jpeg', quality=quality)
    return Image.open(f)

def resized(im, size): return im.resize((size,size), Image.Resampling.BICUBIC)
def cropped(im, left, top, right, bottom): return im.crop((left, top, im.width-right, im.height-bottom))
def brighter(im): return ImageEnhance.Brightness(im).enhance(1.1)

changes = {
    'JPEG, quality 90': lambda im: jpeg(im, 90),
    'JPEG, quality 50': lambda im: jpeg(im, 50),
    'twice as large': lambda im: resized(im, 96),
    'half as large': lambda im: resized(im, 24),
    '10 % brighter': brighter,
    '20 % more contrast': lambda im: ImageEnhance.Contrast(im).enhance(1.2),
    'turned by 1 degree': lambda im: im.rotate(1, Image.Resampling.BILINEAR),
    '1 of 48 pixels cut off at one side': lambda im: cropped(im, 1,0,0,0),
    '1 of 48 pixels cut off at two sides': lambda im: cropped(im, 1,1,0,0),
    'cut off at two sides, larger, brighter and JPEG': lambda im: jpeg(brighter(resized(cropped(im, 1,1,0,0), 64)), 75),
    'mirrored': ImageOps.mirror}

def hits(images):
    "The share of images whose changed copy is within each distance"
    bits = np.stack([picture_hash(o) for o in images])
    rows = {}
    for name,change in changes.items():
        differ = np.stack([picture_hash(change(o)) for o in images])!=bits
        rows[name] = [(differ.sum(1)<=d).mean() for d in distances]
    return pd.DataFrame(rows, distances).T

def pairs_within(bits, mirrored):
    "Pairs of images, and of an image and another's mirror image, as (place, place, distance)"
    n,most = len(bits),max(distances)
    both = np.concatenate([bits, mirrored])
    pairs = near_pairs(both, most)
    a,b = pairs.T
    kinds = {'images':b<n, "an image and another's mirror image":(a<n) & (b>=n) & (a<b-n)}
    return {k:np.column_stack([pairs[o], (both[a[o]]!=both[b[o]]).sum(1)]) for k,o in kinds.items()}

def draw(files, pairs, f, size=72, columns=9):
    "Save the 90 farthest of `pairs` as a picture, each with its distance below"
    far = pairs[np.argsort(-pairs[:,2], kind='stable')][:90]
    wide,high = 2*size+8,size+8
    sheet = Image.new('L', (columns*wide, -(-len(far)//columns)*high), 255)
    for i,(a,b,_) in enumerate(far):
        y,x = divmod(i, columns)
        for side,o in enumerate((a,b)): sheet.paste(resized(Image.open(files[o]).convert('L'), size), (x*wide+side*size, y*high))
    sheet.save(f)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, help='ferplus.tar.xz, or the folder that was made of it')
    parser.add_argument('--distance', type=int, default=32, help='bits, for the groups and the picture')
    parser.add_argument('--sheet', help='file for a picture of pairs')
    args = parser.parse_args()
    path = read_data(args.data)
    votes = read_ferplus_votes(path).drop_duplicates('file').reset_index(drop=True)
    table = pd.DataFrame(dict(file=[str(path/o) for o in votes['file']], label=ferplus_labels(votes, 'plurality'), is_valid=votes['split']=='valid'))
    for distance in (None, args.distance):
        found = find_twins(table, distance, progress=False)
        groups = found.drop_duplicates('twin')
        print(f'{len(table)} images, distance {distance}: {len(found)} have a twin, in {len(groups)} groups of at most {found.twin.value_counts().max()};',
              f'labels differ in {groups.labels_differ.sum()}, {groups.in_both_sets.sum()} are in both sets')
    same,_ = twin_ids(table['file'].tolist(), None, progress=False)
    files = table['file'][~pd.Series(same).duplicated()].tolist()
    images = [Image.open(o).convert('L') for o in files]
    chosen = np.random.default_rng(0).choice(len(images), 1000, replace=False)
    print('\nHits, by distance\n', hits([images[i] for i in chosen]).map('{:.1%}'.format).to_string())
    bits = [np.stack([picture_hash(f(o)) for o in images]) for f in (lambda o: o, ImageOps.mirror)]
    pairs = pairs_within(*bits)
    counts = {k:[(o[:,2]<=d).sum() for d in distances] for k,o in pairs.items()}
    print(f'\nPairs of {len(files)} images with other pixels, by distance\n', pd.DataFrame(counts, distances).T.to_string())
    if not args.sheet: return
    among = pairs['images']
    draw(files, among[among[:,2]<=args.distance], args.sheet)

if __name__=='__main__': main()
