"""Import every module, train two small networks on drawn faces, audit them, and train by the command: all in a minute, in an environment that holds just a set of versions.

    python .ci/short_fit.py .ci/oldest.txt     fails where another version than that of the file is installed"""
import importlib, os, pkgutil, subprocess, sys, sysconfig, tempfile
os.environ.setdefault('OMP_NUM_THREADS', '1')
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version
from fastai.vision.all import accuracy, resnet18
from fastai_resup.all import FERDataLoaders, LabelAudit, ReSup, make_faces, resup_learner
import fastai_resup

for line in Path(sys.argv[1]).read_text(encoding='utf-8').splitlines():
    name,_,pin = line.partition('==')
    if not pin: continue
    found = Version(version(name))
    if Version(found.public)!=Version(pin): sys.exit(f'{name} {found} is installed, not {pin}')

for mod in pkgutil.walk_packages(fastai_resup.__path__, 'fastai_resup.'): importlib.import_module(mod.name)

with tempfile.TemporaryDirectory() as d:
    faces = make_faces(Path(d)/'faces', n_train=64, n_valid=16, size=32, progress=False)
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=16, noise=0.3, num_workers=0)
    learn = resup_learner(dls, resnet18, pretrained=False, metrics=accuracy)
    with learn.no_bar(): learn.fit_one_cycle(2, 1e-3, cbs=ReSup(warmup=1))
    audit = LabelAudit.from_learner(learn)
    assert len(audit.df)==64
    audit.to_html(Path(d)/'review')
    train = [Path(sysconfig.get_path('scripts'))/'resup-train', faces, '--weights', 'none', '--epochs', '1', '--img-size', '32', '--out', Path(d)/'model']
    subprocess.run(train, check=True)
    assert (Path(d)/'model'/'model.safetensors').exists()
print(f'Python {sys.version.split()[0]}: imported, trained and audited with {sys.argv[1]}')
