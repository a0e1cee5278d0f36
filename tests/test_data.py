"FERDataLoaders on the real FERPlus files, on broken ones, through workers, export and 50,000 rows."
import pickle
import shutil
import time
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import CrossEntropyLossFlat,Learner,Resize,accuracy,load_learner
from PIL import Image
from torch import nn

from fastai_resup.data import FERDataLoaders,unreadable_images
from fastai_resup.files import save_csv

@pytest.fixture
def faces(tmp_path):
    "`train` with 12 and 8 tiny images of two classes, `valid` with 3 and 2"
    rng = np.random.default_rng(0)
    for split,ns in dict(train=(12,8), valid=(3,2)).items():
        for c,n in zip(('calm','glad'), ns):
            (tmp_path/split/c).mkdir(parents=True)
            for i in range(n): Image.fromarray(rng.integers(0, 256, (20,20), dtype=np.uint8)).save(tmp_path/split/c/f'{i}.png')
    return tmp_path

def folder(path, **kw): return FERDataLoaders.from_folder(path, **{**dict(bs=4, img_size=16, num_workers=0), **kw})
def given(dls): return [o.label for o in dls.train_ds.items]
def named(dls): return [o.file.parent.name for o in dls.train_ds.items]

# FERPlus ---------------------------------------------------------------------

def test_ferplus_counts_and_vocab(ferplus_root):
    dls = FERDataLoaders.from_ferplus(ferplus_root, num_workers=0)
    assert (len(dls.train_ds),len(dls.valid_ds))==(25045,3191)
    assert list(dls.vocab)==['neutral','happiness','surprise','sadness','anger','disgust','fear','contempt']
    assert dls.true_targs is None
    x,y = dls.one_batch()
    assert x.shape==(64,3,64,64)

def test_ferplus_repeated_images_are_used_once(ferplus_root):
    dls = FERDataLoaders.from_ferplus(ferplus_root, source='fer2013new.csv', num_workers=0)
    assert (len(dls.train_ds),len(dls.valid_ds))==(25057,3199)
    assert len(set(dls.train_files))==25057

def test_ferplus_noise_seven_classes(ferplus_root):
    dls = FERDataLoaders.from_ferplus(ferplus_root, rule='plurality', n_classes=7, noise=.2, seed=1, num_workers=0)
    assert len(dls.vocab)==7 and 'contempt' not in given(dls)
    assert (dls.true_targs!=dls.train_targs).sum()==round(.2*len(dls.train_ds))
    clean = FERDataLoaders.from_ferplus(ferplus_root, rule='plurality', n_classes=7, num_workers=0)
    assert torch.equal(clean.train_targs, dls.true_targs)
    assert [o.label for o in clean.valid_ds.items]==[o.label for o in dls.valid_ds.items]

def test_benchmark_manifest_builds(ferplus_root, shared):
    df = pd.read_csv(shared/'data'/'ferplus_mini.csv')
    df = df[df['split']!='dev'].assign(is_valid=lambda d: d['split']=='valid')
    df['given'] = df['sym30_s0'].where(~df['is_valid'], df['true'])
    dls = FERDataLoaders.from_df(df, ferplus_root, 'file', 'given', 'is_valid', true_col='true', num_workers=0)
    assert (len(dls.train_ds),len(dls.valid_ds))==(5000,2846)
    assert (dls.true_targs!=dls.train_targs).sum()==1500

# noise and truth -------------------------------------------------------------

def test_truth_follows_the_items(faces):
    dls = folder(faces, noise=.5, seed=3)
    names = list(dls.vocab)
    assert [names[i] for i in dls.true_targs]==named(dls)
    assert [names[i] for i in dls.train_targs]==given(dls)
    assert [int(y) for _,y in dls.train_ds]==dls.train_targs.tolist()
    assert dls.true_targs.dtype==torch.int64 and dls.true_targs.shape==(20,)
    assert (dls.true_targs!=dls.train_targs).sum()==10

def test_batches_carry_the_noisy_labels(faces):
    dls = folder(faces, noise=.5, seed=3, shuffle=False, drop_last=False, batch_tfms=[])
    assert torch.cat([y for _,y in dls.train]).tolist()==dls.train_targs.tolist()

def test_validation_labels_stay(faces):
    dls = folder(faces, noise=1., seed=0)
    assert [o.label for o in dls.valid_ds.items]==['calm']*3+['glad']*2
    with pytest.warns(UserWarning, match='as noisy as'): dls = folder(faces, noise=1., seed=0, valid_pct=.25)
    assert all(o.label==o.file.parent.name for o in dls.valid_ds.items)
    assert all(o.label!=o.file.parent.name for o in dls.train_ds.items)

def test_seed_drives_split_and_noise(faces):
    def state(**kw):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            d = folder(faces, noise=.5, valid_pct=.2, **kw)
        return list(d.train_files),given(d)
    assert state(seed=0)==state(seed=0)
    assert state(seed=0)[0]!=state(seed=1)[0]
    torch.manual_seed(5); a = state()
    torch.manual_seed(5); b = state()
    assert a==b and a!=state()

def test_seed_drives_the_noise_alone(faces):
    a,b,c = (given(folder(faces, noise=.5, seed=s)) for s in (0,0,1))
    assert a==b and a!=c

def test_split_is_stratified(faces):
    with pytest.warns(UserWarning, match='as noisy as'): dls = folder(faces, valid_pct=.25, seed=0)
    assert Counter(o.label for o in dls.valid_ds.items)==dict(calm=3, glad=2)
    assert not set(dls.train_files)&{o.file for o in dls.valid_ds.items}
    assert len(dls.train_ds)==15

def test_no_warning_with_a_validation_folder(faces):
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*validation')
        folder(faces)

def test_order_is_sorted_and_named(faces):
    dls = folder(faces)
    assert list(dls.train_files)==sorted(dls.train_files)
    assert dls.train_files[0]==faces/'train'/'calm'/'0.png'
    assert list(folder(faces, vocab=['glad','calm']).vocab)==['glad','calm']

# bad input -------------------------------------------------------------------

def test_missing_images_are_named_up_to_ten(faces):
    df = pd.DataFrame(dict(f=[f'no{i:02}.png' for i in range(14)], l=['calm','glad']*7, v=[False]*7+[True]*7))
    with pytest.raises(FileNotFoundError, match=r'14 of 14 .*no00\.png.*no09\.png and 4 more') as e: FERDataLoaders.from_df(df, faces, valid_col='v')
    assert 'no10.png' not in str(e.value)

@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('how', ['truncated','garbage'])
def test_broken_image_is_named(faces, workers, how):
    f = faces/'train'/'calm'/'7.png'
    f.write_bytes(f.read_bytes()[:200] if how=='truncated' else b'not an image')
    dls = folder(faces, num_workers=workers)
    with pytest.raises(OSError, match=r"can't read the image .*train.calm.7\.png"): list(dls.train)
    assert list(unreadable_images(dls.train_files))==[f]

def test_zero_byte_image_is_named_at_once(faces):
    (faces/'valid'/'glad'/'1.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'zero bytes\): .*valid.glad.1\.png'): folder(faces)

@pytest.mark.parametrize('noise', [-.1, 1.1])
def test_noise_outside_0_1(faces, noise):
    with pytest.raises(ValueError, match=r'in \[0, 1\]'): folder(faces, noise=noise, seed=0)

def test_folder_faults(faces):
    with pytest.raises(FileNotFoundError, match='nowhere'): folder(faces/'nowhere')
    (faces/'train'/'sad').mkdir()
    with pytest.raises(ValueError, match='without images .*sad'): folder(faces)
    (faces/'train'/'sad').rmdir(); (faces/'valid'/'shy').mkdir()
    shutil.copy(faces/'train'/'calm'/'0.png', faces/'valid'/'shy')
    with pytest.raises(ValueError, match='shy, which the training set lacks'): folder(faces)
    with pytest.raises(ValueError, match="shy, not in the vocab"): folder(faces, vocab=['calm','glad'])
    with pytest.raises(ValueError, match="no images"): folder(faces/'train'/'calm')

def test_saved_models_and_hidden_folders_are_no_classes(faces):
    for d in ('models','.ipynb_checkpoints','__MACOSX'): (faces/'train'/d).mkdir()
    assert list(folder(faces).vocab)==['calm','glad']

def test_one_image_two_labels(faces):
    f = [str(faces/'train'/'calm'/f'{i}.png') for i in (0,1,0)]
    df = pd.DataFrame(dict(f=f, l=['calm','calm','glad'], v=[0,1,0]))
    with pytest.raises(ValueError, match=r'more than one label: .*0\.png'): FERDataLoaders.from_df(df, valid_col='v')
    df = pd.DataFrame(dict(f=f, l=['calm','glad','calm'], v=[0,0,1]))
    with pytest.raises(ValueError, match=r'both the training and the validation set: .*0\.png'): FERDataLoaders.from_df(df, valid_col='v')

# csv files ---------------------------------------------------------------------

odd_names = ['=1+1.png', "'=2.png", "'quoted.png", 'a,b.png', 'say "b".png', 'new\nline.png', 'bare\rreturn.png', '@x.png', '007', b'caf\xe9.png'.decode('utf-8', 'surrogateescape')]
odd_classes = ['NA', 'None', '=x', "'a", "'=x", 'nan', '007', '7', 'a,b', 'true']

@pytest.mark.parametrize('classes', [odd_classes, ['', *odd_classes[1:]]])
def test_a_corrected_label_list_is_read_back_exactly(tmp_path, classes):
    "What `resup-audit --apply` writes, by `save_csv`"
    (tmp_path/'t').mkdir()
    rows = [(f'{part}/{name}', label, part=='v') for part in 'tv' for name,label in zip(odd_names, classes)]
    (tmp_path/'v').mkdir()
    for file,*_ in rows: Image.new('L', (8,8)).save(tmp_path/file, 'png')
    df = pd.DataFrame(rows, columns=['file','label','is_valid'], dtype=object)
    df['true'],df['decision'] = df['label'].to_numpy()[::-1],''
    save_csv(df, tmp_path/'labels.csv')
    dls = FERDataLoaders.from_csv(tmp_path, fn_col='file', label_col='label', valid_col='is_valid', true_col='true', vocab=classes if '' in classes else None, bs=2, num_workers=0)
    assert [str(o.relative_to(tmp_path)) for o in dls.train_files]==[f't/{o}' for o in odd_names]
    assert given(dls)==classes and [o.label for o in dls.valid_ds.items]==classes
    assert [o.true for o in dls.train_ds.items]==classes[::-1]
    assert sorted(dls.vocab)==sorted(classes)

def test_csv_faults_name_file_and_line(faces):
    def read(text, **kw):
        (faces/'labels.csv').write_text(text)
        return FERDataLoaders.from_csv(faces, bs=4, num_workers=0, **kw)
    head = 'file,label,is_valid\n'
    rows = [f'{p}/{c}/{i}.png,{c},{p=="valid"}\n' for p,n in (('train',3),('valid',2)) for c in ('calm','glad') for i in range(n)]
    assert (len(read(head+''.join(rows), valid_col='is_valid').train_ds))==6
    assert (len(read(''.join(rows), valid_col=2, header=None).train_ds))==6
    assert (len(read((head+''.join(rows)).replace(',',';'), valid_col=2, delimiter=';').train_ds))==6
    for flags in (('TRUE','FALSE'), ('1','0'), ('1.0','0.0')):
        text = head+''.join(rows).replace('True', flags[0]).replace('False', flags[1])
        assert (len(read(text, valid_col='is_valid').valid_ds))==4
    broken = [rows[0], rows[1].replace('calm,', ','), *rows[2:]]
    with pytest.raises(ValueError, match=r"missing label in line 3 of .*labels.csv"): read(head+''.join(broken), valid_col='is_valid')
    broken = [rows[0], rows[1].replace('False', 'maybe'), *rows[2:]]
    with pytest.raises(ValueError, match=r"valid_col='is_valid' must hold true or false .*, got maybe in line 3 of .*labels.csv"):
        read(head+''.join(broken), valid_col='is_valid')
    with pytest.raises(ValueError, match=r"labels.csv line 3: 2 fields, expected 3"): read(head+rows[0]+'a.png,calm\n')
    with pytest.raises(ValueError, match=r"labels.csv has no column 'name' .file column.; it has"): read(head+rows[0], fn_col='name')
    with pytest.raises(ValueError, match=r"labels.csv has no rows"): read(head)
    with pytest.raises(ValueError, match=r"header must be"): read(head, header=3)
    with pytest.raises(FileNotFoundError, match='no.csv'): FERDataLoaders.from_csv(faces, 'no.csv')

# fastai's ways ---------------------------------------------------------------

def tiny(): return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))

@pytest.mark.parametrize('cache', [False, True])
def test_export_and_load(faces, cache):
    learn = Learner(folder(faces, cache=cache), tiny(), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    expected = learn.get_preds(dl=learn.dls.test_dl([o.file for o in learn.dls.valid_ds.items], num_workers=0))[0]
    learn.export(faces/'e.pkl')
    assert (faces/'e.pkl').stat().st_size<200_000                      # no image, no file name travels with it
    assert b'train/calm' not in (faces/'e.pkl').read_bytes()
    loaded = load_learner(faces/'e.pkl')
    assert isinstance(loaded.dls, FERDataLoaders) and list(loaded.dls.vocab)==['calm','glad']
    files = [str(o.file) for o in learn.dls.valid_ds.items]
    with loaded.no_bar(): got = loaded.get_preds(dl=loaded.dls.test_dl(files, num_workers=0))[0]
    torch.testing.assert_close(got, expected)
    with loaded.no_bar(): assert loaded.predict(files[0])[0] in ('calm','glad')

def test_default_transforms(faces):
    dls = folder(faces)
    assert [type(o).__name__ for o in dls.train.after_batch.fs]==['IntToFloatTensor','Flip']   # no Normalize, no lighting
    flip,zoom = dls.train.after_batch.fs[1].aff_fs                                             # no rotation, no warp
    assert (flip.func.__name__,zoom.func.__name__,zoom.keywords['max_zoom'])==('flip_mat','zoom_mat',1.1)
    assert [type(o).__name__ for o in folder(faces, batch_tfms=[]).train.after_batch.fs]==['IntToFloatTensor']
    assert folder(faces, item_tfms=Resize(24)).one_batch()[0].shape[-1]==24
    assert folder(faces, img_size=(16,12)).one_batch()[0].shape==(4,3,16,12)

def test_squish_keeps_the_whole_image(tmp_path):
    im = np.zeros((20,40), np.uint8); im[:,:10] = 255
    for i in range(3): Image.fromarray(im).save(tmp_path/f'{i}.png')
    df = pd.DataFrame(dict(f=['0.png','1.png','2.png'], l=list('aba'), v=[False,False,True]))
    x = FERDataLoaders.from_df(df, tmp_path, valid_col='v', img_size=20, batch_tfms=[], bs=1, num_workers=0).one_batch()[0][0]
    assert x.mean((0,1))[:4].min()==1 and x.mean((0,1))[7:].max()==0   # the left quarter is white

@pytest.mark.parametrize('workers', [0, 1])
def test_cache_reads_each_file_once(faces, workers):
    kw = dict(batch_tfms=[], shuffle=False, drop_last=False, num_workers=workers)
    plain,cached = folder(faces, **kw),folder(faces, cache=True, **kw)
    before = [x for x,_ in plain.train]
    for a,b in zip(before, [x for x,_ in cached.train]): torch.testing.assert_close(a, b)
    for f in plain.train_files: f.unlink()
    after = [x for x,_ in cached.train]                                # a forked worker's readings are shared
    assert len(after)==5
    for a,b in zip(before, after): torch.testing.assert_close(a, b)

def test_pickle_in_a_new_dls(faces):
    dls = pickle.loads(pickle.dumps(folder(faces, noise=.5, seed=0)))
    assert (dls.true_targs!=dls.train_targs).sum()==10

def test_fifty_thousand_rows_are_quick(tmp_path):
    Image.new('L', (4,4)).save(tmp_path/'0.png')
    image = (tmp_path/'0.png').read_bytes()
    for i in range(50_000): (tmp_path/f'{i}.png').write_bytes(image)
    df = pd.DataFrame(dict(f=[f'{i}.png' for i in range(50_000)], l=[f'c{i%5}' for i in range(50_000)], v=[i%50>40 for i in range(50_000)]))
    start = time.process_time()
    dls = FERDataLoaders.from_df(df, tmp_path, valid_col='v', noise=.2, seed=0, num_workers=0)
    assert dls.true_targs.shape==(41_000,)
    assert time.process_time()-start<6

# --- RAF-DB ---

def raf_images(path, layout, n=(70,14)):
    "A RAF-DB of grey squares in the official layout or in folders, class i%7+1"
    names = {**{f'train_{i+1:05d}': i%7+1 for i in range(n[0])}, **{f'test_{i+1:04d}': i%7+1 for i in range(n[1])}}
    for name,c in names.items():
        d = path/'Image'/'aligned' if layout=='official' else path/name.split('_')[0]/str(c)
        d.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (20,20), (30*c,)*3).save(d/f'{name}_aligned.jpg')
    if layout=='official':
        (path/'EmoLabel').mkdir()
        (path/'EmoLabel'/'list_patition_label.txt').write_text(''.join(f'{n}.jpg {c}\n' for n,c in names.items()))
    return names

@pytest.mark.parametrize('layout', ['official','folders'])
def test_rafdb_layouts_agree(tmp_path, layout):
    names = raf_images(tmp_path/'raf', layout)
    noisy = tmp_path/'noisy.txt'
    noisy.write_bytes('\r\n'.join(f'/x/{n}_aligned.jpg {(c if i%5 else c%7+1)-1}' for i,(n,c) in reversed(list(enumerate(names.items())))).encode())
    dls = FERDataLoaders.from_rafdb(tmp_path/'raf', noise_list=noisy, bs=8, num_workers=0)
    assert [f.name for f in dls.train_files] == [f'train_{i+1:05d}_aligned.jpg' for i in range(70)]
    assert dls.true_targs.tolist() == [i%7 for i in range(70)]
    assert dls.train_targs.tolist() == [i%7 if i%5 else (i%7+1)%7 for i in range(70)]
    assert [o.label for o in dls.valid_ds.items] == [dls.vocab[i%7] for i in range(14)]
    with pytest.warns(UserWarning, match='as noisy as'):
        held = FERDataLoaders.from_rafdb(tmp_path/'raf', noise_list=noisy, valid_pct=.2, seed=0, bs=8, num_workers=0)
    assert len(held.train_ds)+len(held.valid_ds)==70 and not any('test_' in f.file.name for f in held.valid_ds.items)

def test_rafdb_refuses_links_that_leave(tmp_path):
    raf_images(tmp_path/'raf', 'official')
    f = tmp_path/'raf'/'Image'/'aligned'/'train_00003_aligned.jpg'
    f.rename(tmp_path/'away.jpg')
    f.symlink_to(tmp_path/'away.jpg')
    with pytest.raises(ValueError, match='train_00003_aligned.jpg.*Copy them'): FERDataLoaders.from_rafdb(tmp_path/'raf')
    f.unlink()
    (tmp_path/'away.jpg').rename(f)
    (tmp_path/'raf'/'Image').rename(tmp_path/'Image')              # a folder that is a link
    (tmp_path/'raf'/'Image').symlink_to(tmp_path/'Image')
    with pytest.raises(ValueError, match='84 images are links that leave'): FERDataLoaders.from_rafdb(tmp_path/'raf')

def test_rafdb_names_missing_images(tmp_path):
    raf_images(tmp_path/'raf', 'official')
    for i in range(12): (tmp_path/'raf'/'Image'/'aligned'/f'train_{i+1:05d}_aligned.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='12 of 84 .*train_00010_aligned.jpg and 2 more'): FERDataLoaders.from_rafdb(tmp_path/'raf')

@pytest.mark.parametrize('change,message', [('train/8', "folder '8'"), ('train/1/cat.jpg', 'cat.jpg is no RAF-DB train image'), ('train/2/train_00001_aligned.jpg', 'train 1, as is')])
def test_rafdb_folders_name_what_does_not_fit(tmp_path, change, message):
    raf_images(tmp_path, 'folders')
    f = tmp_path/change if change.endswith('.jpg') else tmp_path/change/'train_00099.jpg'
    f.parent.mkdir(exist_ok=True)
    f.touch()
    with pytest.raises(ValueError, match=message): FERDataLoaders.from_rafdb(tmp_path)
