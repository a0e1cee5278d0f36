"Bad lists and bad images: each is answered by name, and no image is in both sets under any name."
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastai_resup.data import FERDataLoaders,FERImage,unreadable_images

@pytest.fixture
def squares(tmp_path):
    "Six images, `0.png` to `5.png`, each of another grey"
    for i in range(6): Image.new('L', (8,8), 40*i).save(tmp_path/f'{i}.png')
    return tmp_path

def make(path, names, labels='aabbab', valid='000011'):
    df = pd.DataFrame(dict(f=list(names), l=list(labels), v=[o=='1' for o in valid]))
    return FERDataLoaders.from_df(df, path, valid_col='v', bs=2, num_workers=0)

names = [f'{i}.png' for i in range(6)]

@pytest.mark.parametrize('how', ['spelled','dots','symlink','hardlink','folder link'])
@pytest.mark.parametrize('what', ['sets','labels'])
def test_one_file_under_two_names(squares, how, what):
    other = {'spelled':'./0.png', 'dots':'sub/../0.png', 'folder link':'again/0.png'}.get(how, 'other.png')
    (squares/'sub').mkdir()
    if how=='symlink': (squares/'other.png').symlink_to('0.png')
    if how=='hardlink': os.link(squares/'0.png', squares/'other.png')
    if how=='folder link': (squares/'again').symlink_to(squares)
    change = [*names[:4], other, names[5]] if what=='sets' else [names[0], names[1], other, *names[3:]]
    message = 'both the training and the validation set' if what=='sets' else 'more than one label'
    with pytest.raises(ValueError, match=f'{message}: .*0.png = .*{os.path.basename(other)}'): make(squares, change)

def test_pixel_twins_are_two_files(squares):
    "A copy is another file, and published sets have such twins"
    (squares/'4.png').write_bytes((squares/'0.png').read_bytes())
    assert len(make(squares, names).valid_ds)==2

def test_missing_columns_and_rows(squares):
    df = pd.DataFrame(dict(f=names, l=list('aabbab'), v=[0,0,0,0,1,1]))
    for kw,message in ((dict(label_col='no'), "no column 'no' .label column.; it has"), (dict(fn_col=7), 'no column 7 .file column'), (dict(valid_col='w'), "no column 'w' .is_valid column"), (dict(true_col='t'), "no column 't' .true column")):
        with pytest.raises(ValueError, match=message): FERDataLoaders.from_df(df, squares, **{**dict(valid_col='v'), **kw})
    with pytest.raises(ValueError, match='no rows'): FERDataLoaders.from_df(df[:0], squares, valid_col='v')
    with pytest.raises(ValueError, match='has c, not in the vocab'): FERDataLoaders.from_df(df.assign(l=list('aabcab')), squares, valid_col='v', vocab=['a','b'])
    with pytest.raises(ValueError, match='label column has 7, not in the vocab'): FERDataLoaders.from_df(df.assign(l=[0,0,1,7,0,1]), squares, valid_col='v', vocab=[0,1])

@pytest.mark.parametrize('mode,colour', [('L',90), ('RGB',(200,30,10)), ('RGBA',(200,30,10,255)), ('LA',(90,255)), ('P',None), ('CMYK',(0,255,255,0)), ('1',1)])
def test_modes_become_rgb(tmp_path, mode, colour):
    im = Image.new('RGB', (8,8), (200,30,10)).convert('P', palette=Image.Palette.ADAPTIVE) if mode=='P' else Image.new(mode, (8,8), colour)
    f = tmp_path/('a.tif' if mode=='CMYK' else 'a.png')
    im.save(f)
    expected = {'L':(90,)*3, 'LA':(90,)*3, 'CMYK':(255,0,0), '1':(255,)*3}.get(mode, (200,30,10))
    got = FERImage.create(f)
    assert got.mode=='RGB' and np.array(got)[3,3].tolist()==list(expected)

@pytest.mark.parametrize('suffix,dtype', [('png','<u2'), ('tif','<u2'), ('tif','>u2')])
def test_sixteen_bits_keep_their_shades(tmp_path, suffix, dtype):
    Image.fromarray(np.linspace(0, 65535, 256).astype(dtype).reshape(16,16)).save(tmp_path/f'a.{suffix}')
    assert np.array(FERImage.create(tmp_path/f'a.{suffix}'))[...,0].ravel().tolist()==list(range(256))

def test_truncated_images_are_found(squares):
    (squares/'2.png').write_bytes((squares/'2.png').read_bytes()[:50])
    assert list(unreadable_images(make(squares, names).train_files))==[squares/'2.png']
    (squares/'3.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'1 image files are empty \(zero bytes\): .*3.png'): make(squares, names)

def affectnet(path, rows, scheme='official', **kw):
    head = 'subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n'
    Image.new('RGB', (8,8)).save(path/'0.jpg')
    for i in range(1, 4): Image.new('RGB', (8,8)).save(path/f'{i}.jpg')
    (path/'training.csv').write_text(head+'\n'.join(rows)+'\n')
    (path/'validation.csv').write_text(head+'2.jpg,0,0,8,8,1;2,0,0.1,0.1\n')
    return FERDataLoaders.from_affectnet(path, scheme, bs=1, num_workers=0, **kw)

def test_affectnet_out_of_range_ids_are_counted_aloud(tmp_path):
    with pytest.warns(UserWarning, match="skipped 1 broken of 4 rows .*training.csv line 3: expression is '11'"):
        dls = affectnet(tmp_path, ['0.jpg,0,0,8,8,1;2,0,0.1,0.1', '1.jpg,0,0,8,8,1;2,11,0.1,0.1', '3.jpg,0,0,8,8,1;2,9,-2,-2'])
    assert dls.left_out=={'uncertain':1, 'broken':1} and len(dls.train_ds)==1
    with pytest.raises(ValueError, match='12 of 14 rows are broken .*right scheme'): affectnet(tmp_path, ['0.jpg,0,0,8,8,1;2,0,0.1,0.1']+['1.jpg,0,0,8,8,1;2,10,0.1,0.1']*12, 'alphabetical8')

def test_affectnet_one_image_in_both_lists(tmp_path):
    with pytest.raises(ValueError, match='both the training and the validation set: .*2.jpg'):
        affectnet(tmp_path, ['0.jpg,0,0,8,8,1;2,0,0.1,0.1', './2.jpg,0,0,8,8,1;2,0,0.1,0.1'])
    with pytest.raises(FileNotFoundError, match='1 of 3 image files not found: .*9.jpg'): affectnet(tmp_path, ['0.jpg,0,0,8,8,1;2,0,0.1,0.1', '9.jpg,0,0,8,8,1;2,0,0.1,0.1'])
