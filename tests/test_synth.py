"Drawn faces: faults while writing, independence of size and number, and how hard the task is"
import numpy as np, pytest
from pathlib import Path
from PIL import Image
import fastai_resup.files as files
import fastai_resup.synth.faces as faces
from fastai_resup.synth.expressions import both_ways
from fastai_resup.synth.people import styles
from fastai_resup.synth import EXPRESSIONS, ACTIONS, draw_face, make_faces, sample_action, sample_look, sample_camera, render_face

def _files(path): return {o.relative_to(path).as_posix(): o.read_bytes() for o in sorted(Path(path).rglob('*.png'))}
def _make(path, n_train=9, n_valid=3, **kw): return make_faces(path, n_train, n_valid, size=16, progress=False, **kw)

@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_interrupted_leaves_nothing(tmp_path, error):
    def stop(done, total):
        if done==5: raise error('stop')
    with pytest.raises(error): make_faces(tmp_path/'faces', 9, 3, size=16, progress=stop)
    assert list(tmp_path.iterdir())==[]

def test_interrupted_overwrite_keeps_the_old_faces(tmp_path, monkeypatch):
    before = _files(_make(tmp_path/'faces'))
    real = draw_face
    monkeypatch.setattr(faces, 'draw_face', lambda e, *a, **k: real(e, *a, **k) if e!='anger' else 1/0)
    with pytest.raises(ZeroDivisionError): _make(tmp_path/'faces', seed=1, force=True)
    assert _files(tmp_path/'faces')==before and [o.name for o in tmp_path.iterdir()]==['faces']

def test_failing_last_move_restores_the_old_faces(tmp_path, monkeypatch):
    before = _files(_make(tmp_path/'faces'))
    real,moves = files.os.replace,[]
    def replace(a, b):
        moves.append(b)
        if len(moves)==2: raise OSError('no')
        return real(a, b)
    monkeypatch.setattr(files.os, 'replace', replace)
    with pytest.raises(OSError, match='no'): _make(tmp_path/'faces', seed=1, force=True)
    assert _files(tmp_path/'faces')==before and [o.name for o in tmp_path.iterdir()]==['faces']

def test_overwrite_only_when_told(tmp_path):
    before = _files(_make(tmp_path/'faces'))
    with pytest.raises(FileExistsError, match='faces exists and isn.t empty; pass force=True'): _make(tmp_path/'faces', seed=1)
    assert _files(tmp_path/'faces')==before
    after = _files(_make(tmp_path/'faces', n_train=2, seed=1, force=True))
    assert len(after)==5 and not set(after.values()) & set(before.values())

def test_force_never_removes_other_things(tmp_path):
    (tmp_path/'home'/'train').mkdir(parents=True); (tmp_path/'home'/'thesis.tex').write_text('years of work')
    with pytest.raises(FileExistsError, match='thesis.tex'): _make(tmp_path/'home', force=True)
    assert (tmp_path/'home'/'thesis.tex').read_text()=='years of work'
    (tmp_path/'file').write_text('')
    with pytest.raises(FileExistsError, match='file'): _make(tmp_path/'file', force=True)

def test_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path/'empty').mkdir()
    assert len(_files(_make(tmp_path/'empty')))==12
    assert len(_files(_make(tmp_path/'a'/'b'/'c')))==12
    assert _make(tmp_path/'none', 0, 0)==tmp_path/'none' and len(list((tmp_path/'none').glob('*/*')))==14

def test_prefix_and_seed(tmp_path):
    few,many,other = (_files(_make(tmp_path/str(i), n, 2, seed=s)) for i,(n,s) in enumerate([(5,3),(20,3),(5,4)]))
    assert few.items() <= many.items() and few.keys()==other.keys()
    assert not set(few.values()) & set(other.values())
    assert len(set(many.values()))==22                             # train and valid don't share images either

def test_nuisance_reaches_the_pictures(tmp_path):
    _make(tmp_path/'f', 3, 0, seed=5, nuisance=0)
    for i in range(3):
        im = draw_face(EXPRESSIONS[i], 16, np.random.default_rng([5,0,i]), nuisance=0)
        assert (np.asarray(im)==np.asarray(Image.open(tmp_path/'f'/'train'/EXPRESSIONS[i]/f'{i:05d}.png'))).all()

def test_balanced_to_within_one(tmp_path):
    _make(tmp_path/'f', 24, 8)
    for part,n in (('train',24),('valid',8)):
        counts = [len(list((tmp_path/'f'/part/e).iterdir())) for e in EXPRESSIONS]
        assert sum(counts)==n and max(counts)-min(counts)<=1

def test_folder_is_readable_like_any_other(tmp_path):
    import os, stat
    _make(tmp_path/'f'); (tmp_path/'g').mkdir()
    assert stat.S_IMODE(os.stat(tmp_path/'f').st_mode)==stat.S_IMODE(os.stat(tmp_path/'g').st_mode)

def test_same_picture_at_every_size():
    for e in EXPRESSIONS:
        small,large = (np.asarray(draw_face(e, n, rng=4, nuisance=0).resize((32,32), Image.BOX), float) for n in (64,128))
        assert abs(small-large).mean() < 4

@pytest.mark.parametrize('style', styles)
@pytest.mark.parametrize('occluder', ['none','hand','bar','lock','mask','crop'])
def test_every_style_and_occluder(style, occluder):
    rng = np.random.default_rng(0)
    look,cam = sample_look(rng),sample_camera(rng)
    look.update(style=style, beard='full', glasses='dark', freckles=True); cam.update(occluder=occluder)
    a,b = (np.asarray(render_face(sample_action('fear', np.random.default_rng(1)), look, dict_, 32), float) for dict_ in (cam, type(cam)(cam, occluder='none')))
    assert a.std()>10 and (abs(a-b).max()>0)==(occluder!='none')

def test_every_action_shows():
    rng = np.random.default_rng(5)
    look,cam = sample_look(rng),sample_camera(rng, nuisance=0)
    look.update(style='short', beard='none', glasses='none', skin=(236,186,148), lip=(200,100,100))
    rest = np.asarray(render_face(dict.fromkeys(ACTIONS, 0.), look, cam), float)
    for name in ACTIONS:
        for v in (1.,-1.) if name in both_ways else (1.,):
            moved = np.asarray(render_face({**dict.fromkeys(ACTIONS, 0.), name:v}, look, cam), float)
            assert (abs(moved-rest).max(-1)>12).sum() > 15, (name, v)

def test_look_says_nothing_about_the_expression():
    "Person and camera depend on the seed alone, so no class can be told by hair or background"
    a,b = (np.asarray(draw_face(e, 64, rng=11), float) for e in ('happiness','anger'))
    assert abs(a-b)[:8].mean() < 2 < abs(a-b)[20:52,16:48].mean()

@pytest.mark.parametrize('nuisance,low,high', [(0,0.6,0.97), (1,0.35,0.8)])
def test_neither_trivial_nor_hopeless(nuisance, low, high):
    "A linear classifier of 20 x 20 pixels is well above chance (0.143) on portraits, and worse on photos as they come"
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    def draw(n, split):
        ims = [draw_face(EXPRESSIONS[i%7], 32, np.random.default_rng([split,i]), nuisance=nuisance).convert('L') for i in range(n)]
        return np.stack([np.asarray(o, float)[8:28,6:26].ravel()/255 for o in ims]), np.arange(n)%7
    acc = make_pipeline(PCA(60, random_state=0), LogisticRegression(max_iter=500)).fit(*draw(700, 0)).score(*draw(280, 1))
    assert low < acc < high

def test_classes_overlap_in_action_space():
    "Even who sees the muscles themselves errs, and mostly where people do"
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import confusion_matrix
    rng = np.random.default_rng(0)
    v = np.array([list(sample_action(EXPRESSIONS[i%7], rng).values()) for i in range(4200)]); y = np.arange(4200)%7
    pred = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(v[:2800], y[:2800]).predict(v[2800:])
    m = confusion_matrix(y[2800:], pred, normalize='true')
    i = EXPRESSIONS.index
    assert 0.85 < np.diag(m).mean() < 0.995
    assert m[i('surprise'),i('fear')]+m[i('fear'),i('surprise')] > m[i('surprise'),i('anger')]+m[i('anger'),i('surprise')]
