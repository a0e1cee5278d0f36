"Images that are there twice: real faces and copies of them, against pixels and against imagehash's own distances"
import itertools, json, sys

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance, ImageOps

from fastai_resup.audit.decisions import Review
from fastai_resup.audit.table import LabelAudit
from fastai_resup.audit.twins import find_twins, near_pairs, picture_hash, twin_ids
from fastai_resup.cli.commands import resup_audit
from fastai_resup.cli.shell import UsageError
from fastai_resup.synth.faces import draw_face

def groups_of(ids): return {frozenset(o) for o in pd.Series(range(len(ids))).groupby(ids).agg(list) if len(o)>1}

def audit_of(files, labels, p):
    return LabelAudit(pd.DataFrame(dict(file=list(map(str, files)), label=labels, p_clean=p, similarity_0=p, similarity_1=p, suggested='a', suggested_prob=0.5, agree=True)))

@pytest.fixture(scope='module')
def real(ferplus_root): return sorted((ferplus_root/'FER2013Train').glob('*.png'))[:3000]

@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    "Four drawn faces as files 0.png to 3.png"
    folder = tmp_path_factory.mktemp('faces')
    rng = np.random.default_rng(0)
    for i,o in enumerate(('happiness','sadness','anger','surprise')): draw_face(o, rng=rng).save(folder/f'{i}.png')
    return folder

def test_exact_twins_of_real_faces_are_those_with_the_same_pixels(real):
    same,near = twin_ids(real, None, progress=False)
    pixels = [np.asarray(Image.open(o).convert('RGB')).tobytes() for o in real]
    assert groups_of(same)==groups_of(pd.factorize(pd.Series(pixels))[0])==groups_of(near)
    assert len(groups_of(same))>10

def test_near_twins_of_real_faces_are_within_the_distance_of_imagehash(real):
    files = real[:200]
    hashes = [imagehash.phash(Image.open(o).convert('RGB'), 16) for o in files]
    far = {(i,k):hashes[i]-hashes[k] for i,k in itertools.combinations(range(200), 2)}
    bits = np.stack([picture_hash(Image.open(o).convert('RGB')) for o in files])
    for distance in (32,96): assert set(map(tuple, near_pairs(bits, distance)))=={k for k,d in far.items() if d<=distance}
    assert any(d<=96 for d in far.values())

changes = dict(
    jpeg=lambda im,f: im.save(f.with_suffix('.jpg'), quality=75),
    larger=lambda im,f: im.resize((100,100)).save(f),
    smaller=lambda im,f: im.resize((24,24)).save(f),
    brighter=lambda im,f: ImageEnhance.Brightness(im).enhance(1.1).save(f))

@pytest.mark.parametrize('change', changes)
def test_changed_copies_are_twins_of_their_image_alone(real, change, tmp_path):
    some = real[:3000:20]
    _,before = twin_ids(some, progress=False)
    assert len(set(before))==len(some)
    for o in some: changes[change](Image.open(o), tmp_path/o.name)
    copies = sorted(tmp_path.iterdir())
    _,near = twin_ids([*some, *copies], progress=False)
    want = {frozenset((i,i+len(some))) for i in range(len(some))}
    found = groups_of(near)
    assert found<=want and len(found)>=0.98*len(want)

def test_a_mirrored_face_is_no_twin(faces, tmp_path):
    ImageOps.mirror(Image.open(faces/'0.png')).save(tmp_path/'m.png')
    assert not len(find_twins(pd.DataFrame(dict(file=[faces/'0.png',tmp_path/'m.png'], label='a')), progress=False))

def test_pixels_count_as_a_viewer_shows_them(faces, tmp_path):
    "Turned by EXIF data, grey in colour, another format: the same pixels"
    im = Image.open(faces/'1.png').convert('L')
    im.save(tmp_path/'grey.png')
    im.convert('RGB').save(tmp_path/'colour.bmp')
    exif = Image.Exif()
    exif[0x0112] = 6
    im.transpose(Image.Transpose.ROTATE_90).save(tmp_path/'turned.png', exif=exif)
    im.transpose(Image.Transpose.ROTATE_90).save(tmp_path/'lying.png')
    same,_ = twin_ids([tmp_path/o for o in ('grey.png','colour.bmp','turned.png','lying.png')], None, progress=False)
    assert groups_of(same)=={frozenset((0,1,2))}

def test_another_shape_of_the_same_bytes_is_another_image(tmp_path):
    for i,shape in enumerate(((8,18),(18,8))): Image.new('L', shape, 9).save(tmp_path/f'{i}.png')
    same,_ = twin_ids([tmp_path/'0.png',tmp_path/'1.png'], None, progress=False)
    assert same[0]!=same[1]

def test_a_group_is_connected_by_the_image_between(tmp_path):
    im = draw_face('anger', 128, np.random.default_rng(1))
    for k in (0,2,4): im.crop((k,k,128,128)).save(tmp_path/f'{k}.png')
    files = [tmp_path/'0.png',tmp_path/'4.png',tmp_path/'2.png']
    assert not groups_of(twin_ids(files[:2], progress=False)[1])
    assert groups_of(twin_ids(files, progress=False)[1])=={frozenset((0,1,2))}

def test_twins_with_other_labels_lead_and_stay_together(faces, tmp_path):
    names = '0.png','1.png','2.png','3.png'
    copies = [tmp_path/f'c{o}' for o in names[:3]]
    for o,c in zip(names, copies): Image.open(faces/o).resize((90,90)).save(c)
    audit = audit_of([*(faces/o for o in names), *copies], list('abcd')+['a','x','y'], [0.1,0.9,0.5,0.2,0.3,0.4,0.8])
    found = audit.twins(progress=False)
    assert found.index.tolist()==[5,1,2,6,0,4] and found.twin.tolist()==[0,0,1,1,2,2]
    assert found.labels_differ.tolist()==[True]*4+[False]*2 and not found.exact.any()
    led = audit.twins_first(progress=False)
    assert led.index.tolist()==[5,1,2,6,0,3,4] and led.twin.tolist()==[0,0,1,1,2,-1,2]
    assert 'twin' not in audit.df and audit.suspects(None).index[0]==0
    page = audit.to_html(tmp_path/'page', led, progress=False)
    shown = json.loads((page.parent/'data.js').read_text().removeprefix('window.RESUP_AUDIT = ').rstrip(';\n'))
    assert shown['p_clean']==led.p_clean.tolist()
    assert Review(audit).table(found).index.tolist()==found.index.tolist()

def test_the_command_puts_twins_first(faces, tmp_path, capsys):
    Image.open(faces/'2.png').save(tmp_path/'c.bmp')
    names = [*(faces/f'{i}.png' for i in range(4)), tmp_path/'c.bmp']
    csv = audit_of(names, ['a','b','a','b','b'], [0.1,0.2,0.9,0.3,0.8]).save(tmp_path/'p_clean.csv')
    page = resup_audit(str(tmp_path), str(csv), out=str(tmp_path/'page'), twins=True, n=3)
    shown = json.loads((page.parent/'data.js').read_text().removeprefix('window.RESUP_AUDIT = ').rstrip(';\n'))
    assert shown['p_clean']==[0.8,0.9,0.1]
    said = capsys.readouterr().out
    assert 'Twins with different labels come first: 2 images of 1 pictures.' in said and '--twins' not in said
    with pytest.raises(UsageError, match='--twins is for the page'): resup_audit(str(tmp_path), str(csv), twins=True, apply=str(csv))

def test_an_image_in_both_sets_is_said(faces):
    table = pd.DataFrame(dict(file=[faces/'0.png',faces/'1.png',faces/'0.png',faces/'1.png'], label=[1,1,2,1], is_valid=[False,False,False,True]), index=[7,7,8,9])
    found = find_twins(table, None, progress=False)
    assert found.index.tolist()==[7,8,7,9] and found.exact.all()
    assert found.labels_differ.tolist()==[True,True,False,False] and found.in_both_sets.tolist()==[False,False,True,True]

def test_unreadable_images_are_named_and_have_no_twin(faces, tmp_path):
    for o in 'ab': (tmp_path/f'{o}.png').write_bytes(b'no image')
    table = pd.DataFrame(dict(file=[tmp_path/'a.png',tmp_path/'b.png',tmp_path/'gone.png',faces/'0.png'], label='a'))
    with pytest.warns(UserWarning, match="3 of 4 images can't be read.*a.png.*gone.png"): assert not len(find_twins(table, progress=False))
    with pytest.warns(UserWarning, match='3 of 3'): assert not len(find_twins(table[:3], progress=False))
    assert not len(find_twins(table[:0], progress=False))

def test_without_imagehash_exact_twins_are_found(faces, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagehash', None)
    audit = audit_of([faces/'0.png',faces/'1.png'], ['a','b'], [0.1,0.2])
    with pytest.raises(ImportError, match=r"pip install 'fastai_resup\[twins\]'.*distance=None"): audit.twins(progress=False)
    assert not len(audit.twins(None, progress=False))

@pytest.mark.parametrize('distance', [-1,65,256])
def test_a_distance_that_says_nothing_is_refused(faces, distance):
    with pytest.raises(ValueError, match=f'from 0 to 64, or None.*not {distance}'): twin_ids([faces/'0.png'], distance)
