"""Every notebook runs from top to bottom: its examples are the project's first tests.

With the environment variable RESUP_DOCS=1, those that `python docs/build.py` has run without an error, as they and the package are now, aren't run a second time."""
import os
from pathlib import Path

import pytest
from nbdev.test import test_nb as run_nb

NBS = sorted((Path(__file__).resolve().parents[1]/'nbs').glob('*.ipynb'))

@pytest.fixture(scope='session')
def copies(build): return build.copies(NBS) if os.environ.get('RESUP_DOCS')=='1' else {}

def test_there_are_notebooks(): assert len(NBS)>=9

@pytest.mark.parametrize('nb', NBS, ids=lambda p: p.stem)
def test_notebook(nb, copies, monkeypatch, capfd):
    if nb in copies and copies[nb].exists(): return
    monkeypatch.chdir(nb.parent)
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    ok,_ = run_nb(nb, basepath=nb.parent, do_print=False, verbose=True)
    assert ok, capfd.readouterr().err
