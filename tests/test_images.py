"Pictures of every form that people have: turned by a phone, in memory, in odd modes and shapes; and arguments that nobody would read"
import io
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import (CrossEntropyLossFlat,DataBlock,ImageBlock,ImageDataLoaders,Learner,MultiCategoryBlock,PILImage,
    PILImageBW,RegressionBlock,Resize,TensorImage,accuracy,load_learner)
from PIL import Image,ImageOps
from torch import nn

from fastai_resup.audit import show_suspects
from fastai_resup.data import FERDataLoaders,FERImage,fer_block,unreadable_images
from fastai_resup.data.images import ImageCache,ImageReader,read_image,upright

ORIENTATION = 0x0112

def picture(h=12, w=20):
    "An RGB picture without any symmetry"
    return np.random.default_rng(0).integers(0, 256, (h,w,3), dtype=np.uint8)

def exif(orientation):
    res = Image.Exif()
    res[ORIENTATION] = orientation
    return res

# EXIF ------------------------------------------------------------------------

as_stored = {1:lambda a: a, 2:lambda a: a[:,::-1], 3:lambda a: a[::-1,::-1], 4:lambda a: a[::-1], 5:lambda a: a.transpose(1,0,2),
             6:lambda a: np.rot90(a), 7:lambda a: a[::-1,::-1].transpose(1,0,2), 8:lambda a: np.rot90(a, -1)}

@pytest.mark.parametrize('suffix', ['png','jpg','tif','webp'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_what_a_viewer_shows_is_read(tmp_path, suffix, orientation):
    f,shown = tmp_path/f'a.{suffix}',np.kron(picture(3, 5), np.ones((16,16,1), np.uint8))
    Image.fromarray(as_stored[orientation](shown).copy()).save(f, exif=exif(orientation), **(dict(quality=100) if suffix!='tif' else {}))
    with Image.open(f) as im: want = shown if suffix in ('png','tif') else np.asarray(ImageOps.exif_transpose(im).convert('RGB'))
    assert want.shape==shown.shape and abs(want.astype(int)-shown).mean()<20
    data = f.read_bytes()
    for x in (f, str(f), data, io.BytesIO(data), Image.open(f), Image.open(io.BytesIO(data)).convert('RGB') if suffix!='tif' else f):
        np.testing.assert_array_equal(np.asarray(FERImage.create(x)), want)

def test_turned_once_only(tmp_path):
    Image.fromarray(np.rot90(picture()).copy()).save(tmp_path/'a.png', exif=exif(6))
    once = FERImage.create(tmp_path/'a.png')
    np.testing.assert_array_equal(np.asarray(FERImage.create(once)), picture())
    np.testing.assert_array_equal(np.asarray(FERImage.create(ImageOps.exif_transpose(Image.open(tmp_path/'a.png')))), picture())

@pytest.mark.parametrize('damaged', [b'Exif\0\0nonsense', b'Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01', b'Exif\0\0', b'\0'])
def test_damaged_exif_turns_nothing(tmp_path, damaged):
    Image.fromarray(picture()).save(tmp_path/'a.png', exif=damaged)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        np.testing.assert_array_equal(np.asarray(FERImage.create(tmp_path/'a.png')), picture())
    assert unreadable_images([tmp_path/'a.png'])=={}

def test_an_odd_orientation_turns_nothing(tmp_path):
    for said in (0, 9, 65535):
        Image.fromarray(picture()).save(tmp_path/'a.png', exif=exif(said))
        np.testing.assert_array_equal(np.asarray(FERImage.create(tmp_path/'a.png')), picture())

@pytest.mark.parametrize('img_cls', [FERImage,PILImage,PILImageBW])
def test_every_image_class_stands_upright(tmp_path, img_cls):
    Image.fromarray(np.rot90(picture()).copy()).save(tmp_path/'a.png', exif=exif(6))
    got = ImageReader(img_cls)(tmp_path/'a.png')
    assert type(got) is img_cls and got.size==(20,12) and got.mode==img_cls._open_args['mode']

def test_a_class_with_its_own_way_of_reading_keeps_it(tmp_path):
    class Own(PILImage):
        @classmethod
        def create(cls, x, **kw): return cls(Image.new('RGB', (3,2)))
    assert ImageReader(Own)(tmp_path/'nothing.png').size==(3,2)

@pytest.fixture
def phone(tmp_path):
    "A picture that a phone saved on its side, and the same one as it is shown, in class folders; `train` has more"
    for part,c in (('train','a'), ('train','b'), ('valid','a'), ('valid','b')):
        (tmp_path/part/c).mkdir(parents=True)
        Image.fromarray(np.rot90(picture()).copy()).save(tmp_path/part/c/'phone.png', exif=exif(6))
        Image.fromarray(picture()).save(tmp_path/part/c/'shown.png')
    return tmp_path

def folder(path, **kw): return FERDataLoaders.from_folder(path, **{**dict(bs=2, img_size=(12,20), num_workers=0, batch_tfms=[]), **kw})

@pytest.mark.parametrize('kw', [{}, dict(cache=True), dict(img_cls=PILImage), dict(img_cls=PILImageBW, cache=True), dict(item_tfms=Resize(16, method='squish'))])
def test_training_sees_photos_upright(phone, kw):
    dls = folder(phone, **kw)
    for _ in range(2):                                          # the second time from the cache
        for ds in (dls.train, dls.valid):
            x = torch.cat([x for x,_ in ds.new(shuffle=False, drop_last=False)])
            by_name = dict(zip(((o.label,o.file.stem) for o in ds.dataset.items), x))
            for c in 'ab': torch.testing.assert_close(by_name[c,'phone'], by_name[c,'shown'])

def test_the_contact_sheet_shows_photos_upright(phone):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib.figure import Figure
    rows = [dict(file=str(phone/'train'/'a'/f'{o}.png'), label='a', suggested='b', p_clean=.1) for o in ('phone','shown')]
    axs = show_suspects(pd.DataFrame(rows), fig=Figure())
    turned,shown = (np.asarray(ax.images[0].get_array()) for ax in axs)
    np.testing.assert_array_equal(turned, shown)

def test_a_phones_own_format_says_what_to_do(tmp_path):
    (tmp_path/'IMG_1.HEIC').write_bytes(b'\0\0\0 ftypheic')
    with pytest.raises(OSError, match='IMG_1.HEIC.*Convert it to JPEG'): FERImage.create(tmp_path/'IMG_1.HEIC')

# the same picture in every form ----------------------------------------------

def tiny(n=3*12*20): return nn.Sequential(nn.Flatten(), nn.Linear(n, 2))

@pytest.fixture(params=[False,True], ids=['read','cached'])
def learn(phone, request):
    torch.manual_seed(0)
    learn = Learner(folder(phone, cache=request.param), tiny(), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    learn.remove_cb(learn.progress) if hasattr(learn, 'progress') else None
    return learn

def probs(learn, x):
    with learn.no_bar(), learn.no_logging():
        one = learn.predict(x)[2]
        many = learn.get_preds(dl=learn.dls.test_dl([x,x], num_workers=0))[0]
    torch.testing.assert_close(many, torch.stack([one,one]))
    return one

def forms(a, f):
    "The RGB picture `a`, which the file `f` holds, in other forms"
    im,t = Image.fromarray(a),torch.from_numpy(a.copy())
    cut_out = np.dstack([a, np.arange(a.shape[1], dtype=np.uint8)[None].repeat(len(a), 0)])
    return dict(str=str(f), bytes=f.read_bytes(), bytearray=bytearray(f.read_bytes()), buffer=io.BytesIO(f.read_bytes()), open=open(f, 'rb'),
        pil=im, opened=Image.open(f), rgba=Image.fromarray(cut_out), array=a, four=cut_out, wide=a.astype(np.int64), floats=a.astype(np.float32),
        shares=a/255, sixteen=a.astype(np.uint16)*257, turned_around=a[::-1][::-1], fortran=np.asfortranarray(a),
        chw=t.permute(2,0,1), hwc=t, first=a.transpose(2,0,1), image=TensorImage(t.permute(2,0,1)), grad=(t.permute(2,0,1)/255).requires_grad_(),
        double=t.permute(2,0,1).double()/255, long=t.long(), fer=FERImage.create(f), fastai=PILImage.create(f))

def test_the_same_picture_gives_the_same_prediction(learn, phone):
    f = phone/'valid'/'a'/'shown.png'
    want = probs(learn, f)
    for name,x in forms(picture(), f).items(): torch.testing.assert_close(probs(learn, x), want, msg=name)
    assert not torch.allclose(probs(learn, 255-picture()), want)

def test_grey_pictures_in_every_form(learn, phone):
    a = picture()[...,0]
    f = phone/'grey.png'
    Image.fromarray(a).save(f)
    im,want = Image.fromarray(a),probs(learn, f)
    palette = im.convert('P')
    see_through = Image.merge('LA', (im, Image.fromarray(255-a)))
    deep = Image.fromarray(a.astype(np.uint16)*257)
    deep.save(phone/'deep.png')
    Image.fromarray(a.astype(np.float32)).save(phone/'float.tif')
    same = dict(L=im, P=palette, LA=see_through, RGB=im.convert('RGB'), RGBA=im.convert('RGBA'), I=im.convert('I'), F=im.convert('F'),
        deep=deep, deep_file=phone/'deep.png', float_file=phone/'float.tif', two=a, one=a[...,None], three=np.dstack([a]*3), pair=np.asarray(see_through),
        first=a[None], tensor=torch.from_numpy(a.copy()), shares=a/255, chw=torch.from_numpy(a.copy())[None])
    for name,x in same.items(): torch.testing.assert_close(probs(learn, x), want, msg=name)
    black = a>128
    want = probs(learn, black.astype(np.uint8)*255)
    for x in (black, Image.fromarray(black), torch.from_numpy(black), black.astype(np.float32)): torch.testing.assert_close(probs(learn, x), want)

@pytest.mark.parametrize('mode', ['1','L','LA','La','P','PA','RGB','RGBA','RGBa','RGBX','CMYK','YCbCr','HSV','I','I;16','I;16B','F'])
def test_every_mode_of_pillow(tmp_path, mode):
    base = Image.fromarray(picture(8, 8))
    ways = {'PA':('P','PA'), 'La':('LA','La'), 'RGBa':('RGBA','RGBa'), 'I;16':('L','I','I;16'), 'I;16B':('L','I','I;16B'), 'F':('L','F'), 'I':('L','I'), 'LA':('L','LA')}
    im = base
    for o in ways.get(mode, (mode,)): im = im.convert(o)
    before = im.tobytes(),im.mode,type(im)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        got = FERImage.create(im)
    assert got.mode=='RGB' and type(got) is FERImage and (im.tobytes(),im.mode,type(im))==before
    if mode in ('RGB','RGBA','RGBX','RGBa'): np.testing.assert_array_equal(np.asarray(got), np.asarray(base))

def test_transparent_palettes_warn_of_nothing(tmp_path):
    im = Image.fromarray(picture()).quantize(16)
    im.save(tmp_path/'a.png', transparency=bytes(range(16)))
    im.save(tmp_path/'a.gif', transparency=3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for f in ('a.png','a.gif'):
            np.testing.assert_array_equal(np.asarray(FERImage.create(tmp_path/f)), np.asarray(im.convert('RGB')))
            np.testing.assert_array_equal(np.asarray(FERImage.create(Image.open(tmp_path/f))), np.asarray(im.convert('RGB')))

def test_the_callers_picture_stays_as_it_was(tmp_path):
    Image.fromarray(picture()).save(tmp_path/'a.jpg', exif=exif(6))
    im = Image.open(tmp_path/'a.jpg')
    kind = type(im)
    first = np.asarray(FERImage.create(im))
    assert type(im) is kind and im.getexif()[ORIENTATION]==6
    np.testing.assert_array_equal(np.asarray(FERImage.create(im)), first)
    a = picture()
    FERImage.create(a).paste((0,0,0), (0,0,20,12))
    np.testing.assert_array_equal(a, picture())

def test_a_file_that_was_read_is_read_again(tmp_path):
    Image.fromarray(picture()).save(tmp_path/'a.png')
    with open(tmp_path/'a.png', 'rb') as f:
        f.read()
        for _ in range(2): np.testing.assert_array_equal(np.asarray(FERImage.create(f)), picture())
        assert not f.closed

no_image = dict(none=(None,'not NoneType'), number=(3,'not int'), nested=([[1,2],[3,4]],'not list'), pairs=((picture(),picture()),'not list'), dictionary=({},'not dict'),
    empty_bytes=(b'',"can't read the image in 0 bytes"), noise=(b'GIF89a nonsense',"can't read the image in 15 bytes"), empty=(np.zeros((0,0,3), np.uint8),'is empty'), thin=(np.zeros((0,4), np.uint8),'is empty'),
    line=(np.zeros(9, np.uint8),r'not \(9,\)'), point=(np.array(3),r'not \(\)'), batch=(picture()[None],'Of a batch, give one image after the other'), deep=(np.zeros((9,9,5), np.uint8),r'not \(9, 9, 5\)'),
    far=(np.full((4,6), 70_000),'from 70000 to 70000, and no telling what is white'), ten_bits=(np.full((4,6,3), 1023),'no telling what is white'),
    negative=(torch.randn(3, 8, 8, generator=torch.manual_seed(0)),'no telling what is white'), nan=(np.full((4,6), np.nan),'no telling what is white'), inf=(np.full((4,6), np.inf),'no telling what is white'),
    texts=(np.full((4,6), 'a'),'holds numbers, not'), objects=(np.full((4,6), None),'holds numbers, not'), complexes=(np.zeros((4,6), complex),'holds numbers, not'))

@pytest.mark.parametrize('x,message', no_image.values(), ids=no_image)
def test_what_is_no_image_is_refused(learn, x, message):
    for call in (lambda: learn.predict(x), lambda: list(learn.dls.test_dl([x], num_workers=0))):
        with learn.no_bar(), pytest.raises((TypeError,ValueError,OSError), match=message): call()

def test_a_file_opened_as_text_is_refused(learn, phone):
    with open(phone/'valid'/'a'/'shown.png', encoding='latin1') as f, pytest.raises(TypeError, match="opened by 'rb'"): FERImage.create(f)

def test_a_missing_file_is_named(learn, phone):
    with learn.no_bar(), pytest.raises(FileNotFoundError, match='nowhere.png'): learn.predict(phone/'nowhere.png')
    with learn.no_bar(), pytest.raises(OSError, match=f"can't read the image {phone}"): learn.predict(phone)

def test_an_exported_learner_takes_the_same_forms(learn, phone):
    f = phone/'valid'/'a'/'phone.png'
    want = probs(learn, f)
    learn.export(phone/'e.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = load_learner(phone/'e.pkl')
    for x in (f, str(f), f.read_bytes(), io.BytesIO(f.read_bytes()), Image.open(f), picture(), torch.from_numpy(picture()).permute(2,0,1)):
        torch.testing.assert_close(probs(loaded, x), want)
    with loaded.no_bar(), pytest.raises(TypeError, match='not NoneType'): loaded.predict(None)

# test sets ---------------------------------------------------------------------

def ids(dl): return [dl.vocab[int(i)] for _,y in dl for i in y]

def test_labels_of_test_sets_are_the_class_folders(phone):
    dls = folder(phone)
    deep = phone/'more'/'b'/'2024'/'x.png'
    deep.parent.mkdir(parents=True)
    (phone/'more'/'A').mkdir()
    for f in (deep, phone/'more'/'A'/'y.png'): Image.fromarray(picture()).save(f)
    files = [phone/'valid'/'b'/'phone.png', str(phone/'valid'/'a'/'shown.png'), deep, phone/'more'/'A'/'y.png']
    assert ids(dls.test_dl(files, with_labels=True, num_workers=0))==['b','a','b','a']
    assert len(dls.test_dl(files, num_workers=0).one_batch())==1
    learn = Learner(dls, tiny(), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    with learn.no_bar(): assert len(learn.validate(dl=dls.test_dl(files, with_labels=True, num_workers=0)))==2
    assert ids(dls.test_dl(dls.valid_ds.items, with_labels=True, num_workers=0))==[o.label for o in dls.valid_ds.items]
    assert ids(dls.test_dl([*dls.valid_ds.items[:1], deep], with_labels=True, num_workers=0))==['a','b']
    assert ids(dls.test_dl(deep, with_labels=True, num_workers=0))==['b']
    assert dls.test_dl([deep, *dls.valid_ds.items[:1]], num_workers=0).one_batch()[0].shape[0]==2
    assert dls.test_dl([*dls.valid_ds.items[:1], deep], num_workers=0).one_batch()[0].shape[0]==2

def test_relative_names_have_labels_too(phone, monkeypatch):
    dls = folder(phone)
    monkeypatch.chdir(phone/'valid'/'b')
    assert ids(dls.test_dl(['phone.png'], with_labels=True, num_workers=0))==['b']

def test_a_file_without_a_label_is_refused(phone):
    dls = folder(phone)
    away = phone.parent/'a'/'new'                                      # the class name is above all files, and not in the data set
    (phone/'new').mkdir()
    away.mkdir(parents=True)
    for f in (away/'x.png', phone/'new'/'x.png'):
        Image.fromarray(picture()).save(f)
        with pytest.raises(ValueError, match=r"no label for 1 of 1 files.*new.x.png.*give a table with the columns file and label"): dls.test_dl([f], with_labels=True)
    with pytest.raises(ValueError, match=r"no label for 1 of 2 files.*new.x.png"): dls.test_dl([phone/'valid'/'b'/'phone.png',f], with_labels=True)
    with pytest.raises(ValueError, match='ndarray has no label'): dls.test_dl([picture()], with_labels=True)
    with pytest.raises(ValueError, match='no images in the list'): dls.test_dl([])
    with pytest.raises(TypeError, match='images in a list, not NoneType'): dls.test_dl(None)

def test_test_sets_from_tables(phone):
    dls = folder(phone)
    files = [str(phone/'valid'/'b'/f'{o}.png') for o in ('phone','shown')]
    table = pd.DataFrame(dict(file=files, label=['a','b']))
    assert ids(dls.test_dl(table, with_labels=True, num_workers=0))==['a','b']
    assert dls.test_dl(table[['file']], num_workers=0).one_batch()[0].shape[0]==2
    assert dls.test_dl(table['file'], num_workers=0).one_batch()[0].shape[0]==2
    assert ids(dls.test_dl(table[['file']], with_labels=True, num_workers=0))==['b','b']
    with pytest.raises(ValueError, match='no column file'): dls.test_dl(table[['label']])
    with pytest.raises(ValueError, match=r"in the vocab \['a', 'b'\], not c"): dls.test_dl(table.assign(label='c'), with_labels=True)

def test_one_image_or_several(phone):
    dls = folder(phone)
    f = phone/'valid'/'b'/'phone.png'
    for x in (f, str(f), f.read_bytes(), io.BytesIO(f.read_bytes()), Image.open(f)): assert len(dls.test_dl(x, num_workers=0).dataset)==1
    for x in (picture(), np.stack([picture()]*2), torch.zeros(3,12,20)):
        with pytest.raises(TypeError, match='may be one image or several'): dls.test_dl(x)
    assert len(dls.test_dl(list(np.stack([picture()]*2)), num_workers=0).dataset)==2
    assert len(dls.test_dl(np.array([str(f),str(f)]), num_workers=0).dataset)==2
    assert len(dls.test_dl((o for o in [f,f]), num_workers=0).dataset)==2

def test_other_data_loaders_keep_fastais_way(phone):
    block = DataBlock((ImageBlock,RegressionBlock), get_x=lambda i: picture(), get_y=lambda i: float(i), item_tfms=Resize(8))
    dls = FERDataLoaders.from_dblock(block, list(range(8)), bs=2, num_workers=0)
    assert dls.test_dl([1,2,3], num_workers=0).one_batch()[0].shape==(2,3,8,8)

# the cache (in worker processes: test_workers) --------------------------------------

def test_the_cache_takes_memory_as_it_fills(phone):
    "8 GB for files that are never read: more than most machines' /dev/shm, and nothing is written"
    if not hasattr(os, 'memfd_create'): pytest.skip('a file of this size elsewhere')
    start = time.process_time()
    cache = ImageCache([phone/'valid'/'a'/'shown.png', *(phone/f'{i}.png' for i in range(2999))], (1000,900))
    torch.testing.assert_close(cache(phone/'valid'/'a'/'shown.png'), cache(phone/'valid'/'a'/'shown.png'))
    assert cache.pixels.array.nbytes==3000*1000*900*3 and os.fstat(cache.pixels.memory.fd).st_blocks*512<20_000_000
    assert time.process_time()-start<5

def test_the_cache_gives_its_memory_back(phone):
    def descriptors(): return len(os.listdir('/proc/self/fd'))
    if not os.path.isdir('/proc/self/fd'): pytest.skip('no /proc')
    import gc
    gc.collect()
    before = descriptors()
    for _ in range(3):
        cache = ImageCache([phone/'valid'/'a'/'shown.png'], 16)
        cache(phone/'valid'/'a'/'shown.png')
        del cache
    gc.collect()
    assert descriptors()<=before

# arguments that nobody reads -------------------------------------------------------

@pytest.fixture
def files(tmp_path):
    "20 files called a_0.png, b_1.png, …, in the folders a and b"
    res = []
    for i in range(20):
        c = 'ab'[i%2]
        (tmp_path/c).mkdir(exist_ok=True)
        res.append(tmp_path/c/f'{c}_{i}.png')
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8,8), dtype=np.uint8)).save(res[-1])
    return res

def label_of(f): return Path(f).parent.name

constructors = dict(
    from_lists=lambda fs,**kw: FERDataLoaders.from_lists(fs[0].parents[1], fs, [label_of(f) for f in fs], **kw),
    from_path_func=lambda fs,**kw: FERDataLoaders.from_path_func(fs[0].parents[1], fs, label_of, **kw),
    from_name_func=lambda fs,**kw: FERDataLoaders.from_name_func(fs[0].parents[1], fs, lambda o: o[0], **kw),
    from_path_re=lambda fs,**kw: FERDataLoaders.from_path_re(fs[0].parents[1], fs, r'([ab])_\d+.png$', **kw),
    from_name_re=lambda fs,**kw: FERDataLoaders.from_name_re(fs[0].parents[1], fs, r'^([ab])_', **kw),
    from_folder=lambda fs,**kw: FERDataLoaders.from_folder(fs[0].parents[1], **kw),
    from_df=lambda fs,**kw: FERDataLoaders.from_df(pd.DataFrame(dict(f=list(map(str, fs)), l=list(map(label_of, fs)))), **kw),
    from_table=lambda fs,**kw: FERDataLoaders.from_table(pd.DataFrame(dict(file=list(map(str, fs)), label=list(map(label_of, fs)))), **kw),
    from_csv=lambda fs,**kw: FERDataLoaders.from_csv(csv_of(fs), **kw))

def csv_of(fs):
    path = fs[0].parents[1]
    (path/'labels.csv').write_text('name,label\n'+''.join(f'{f.parent.name}/{f.name},{label_of(f)}\n' for f in fs))
    return path

@pytest.mark.filterwarnings('ignore:.*as noisy as')
@pytest.mark.parametrize('make', constructors.values(), ids=constructors)
def test_noise_reaches_every_constructor(files, make):
    dls = make(files, noise=.5, seed=0, img_size=8, bs=4, num_workers=0, cache=True, vocab=['b','a'])
    assert list(dls.vocab)==['b','a'] and len(dls.train_ds)==16
    assert [dls.vocab[i] for i in dls.true_targs]==[label_of(f) for f in dls.train_files]
    assert (dls.true_targs!=dls.train_targs).sum()==8
    assert dls.one_batch()[0].shape==(4,3,8,8)

@pytest.mark.filterwarnings('ignore:.*as noisy as')
@pytest.mark.parametrize('make', constructors.values(), ids=constructors)
@pytest.mark.parametrize('kw,message', [(dict(noize=.3), r'noize= would be ignored'), (dict(batchsize=4), r'batchsize= would be ignored: did you mean batch_size=\?'), (dict(num_worker=0), 'did you mean num_workers'),
    (dict(collate_fn=list), 'collate_fn= would be ignored'), (dict(label_delim=' '), 'no label_delim= here.*one class per image.*ImageDataLoaders'), (dict(y_block=MultiCategoryBlock), 'no y_block= here.*one class per image'),
    (dict(blocks=(ImageBlock,RegressionBlock)), 'no blocks= here')])
def test_arguments_that_nobody_reads_are_refused(files, make, kw, message):
    with pytest.raises(TypeError, match=message): make(files, num_workers=0, **kw) if 'num_workers' not in kw else make(files, **kw)

def test_arguments_that_fastai_reads_pass(files):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dls = constructors['from_folder'](files, num_workers=0, pin_memory=False, val_bs=3, drop_last=False, device='cpu', shuffle=False, val_shuffle=True, verbose=False, persistent_workers=False, timeout=0, n=8)
    assert (dls.valid.bs,dls.train.n)==(3,8)
    for kw in (dict(noise=.3), dict(nonsense=1)):
        with pytest.raises(TypeError, match='would be ignored'): dls.test_dl(files, **kw)
        with pytest.raises(TypeError, match='would be ignored'): FERDataLoaders.from_dsets(dls.train_ds, dls.valid_ds, **kw)
        with pytest.raises(TypeError, match='would be ignored'): FERDataLoaders.from_dblock(fer_block(['a','b']), pd.DataFrame(dict(file=files, label=list(map(label_of, files)), is_valid=[i>9 for i in range(20)])), **kw)
    assert len(dls.test_dl(files, bs=5, num_workers=0, shuffle=True))==4
    assert isinstance(FERDataLoaders.from_dsets(dls.train_ds, dls.valid_ds, bs=4, num_workers=0, path='x'), FERDataLoaders)

@pytest.mark.parametrize('labels', [[['a','b']]*20, [('a',)]*20, list(np.linspace(0, 1, 20)), [{'a'}]*20, [np.array([0,1])]*20])
def test_other_targets_are_refused(files, labels):
    with pytest.raises(ValueError, match='one class per image'): FERDataLoaders.from_lists('.', files, labels)
    with pytest.raises(ValueError, match='one class per image'): FERDataLoaders.from_df(pd.DataFrame(dict(f=files, l=pd.Series(labels, dtype=object))))

def test_lists_and_functions_name_what_is_wrong(files):
    with pytest.raises(ValueError, match='20 files and 3 labels: give one label for each file'): FERDataLoaders.from_lists('.', files, list('aba'))
    with pytest.raises(ValueError, match=r'no label for .*a_0.png: .*Failed to find'): FERDataLoaders.from_name_re('.', files, '^([cd])_')
    with pytest.raises(ValueError, match=r'no label for .*a_0.png: .*no such group'): FERDataLoaders.from_name_re('.', files, '^[ab]_')
    with pytest.raises(ValueError, match=r'no label for .*a_0.png: KeyError'): FERDataLoaders.from_path_func('.', files, {}.__getitem__)
    with pytest.raises(ValueError, match='missing label'): FERDataLoaders.from_path_func('.', files, {}.get)

def test_without_a_look_at_the_files(files):
    table = pd.DataFrame(dict(file=[*map(str, files), 'nowhere.png'], label=[*map(label_of, files), 'a'], is_valid=[i>9 for i in range(21)]))
    with pytest.raises(FileNotFoundError, match='nowhere.png'): FERDataLoaders.from_table(table, num_workers=0)
    dls = FERDataLoaders.from_table(table, check_files=False, num_workers=0, bs=4, img_size=8)
    assert len(dls.valid_ds)==11 and dls.one_batch()[0].shape[0]==4
    with pytest.raises(FileNotFoundError, match='nowhere.png'): list(dls.valid)
    with pytest.raises(ValueError, match='in both'): FERDataLoaders.from_table(pd.concat([table, table[:1].assign(is_valid=True)]), check_files=False)
