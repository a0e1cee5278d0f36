"""Every notebook runs from top to bottom: its examples are the project's first tests.

With the environment variable RESUP_DOCS=1, those that `python docs/build.py` has run without an error, as they and the package are now, aren't run a second time."""
import os
from pathlib import Path

import pytest
from nbdev.test import test_nb as run_nb

ROOT = Path(__file__).resolve().parents[1]/'nbs'
BUILT = os.environ.get('RESUP_DOCS')=='1'
LONG = () if BUILT else ('tutorials','explanations') # they train for minutes; the build of the site runs them
NBS = sorted(o for o in ROOT.rglob('*.ipynb') if o.relative_to(ROOT).parts[0] not in LONG)

@pytest.fixture(scope='session')
def copies(build): return build.copies(NBS) if BUILT else {}

def test_every_module_has_a_notebook(build):
    made = {mod.replace('.', '/') for o in NBS if (mod := build.default_exp(build.read_nb(o)))}
    package = ROOT.parent/'fastai_resup'
    modules = {o.relative_to(package).with_suffix('').as_posix() for o in package.rglob('*.py') if o.name not in ('__init__.py','_modidx.py','all.py')}
    assert made==modules

@pytest.mark.parametrize('nb', NBS, ids=lambda p: p.relative_to(ROOT).with_suffix('').as_posix())
def test_notebook(nb, copies, monkeypatch, capfd):
    if nb in copies and copies[nb].exists(): return
    monkeypatch.chdir(nb.parent)
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    ok,_ = run_nb(nb, basepath=nb.parent, do_print=False, verbose=True)
    assert ok, capfd.readouterr().err
