"Every notebook runs from top to bottom: its examples are the project's first tests"
import os
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.test import test_nb as run_nb

NBS = sorted((Path(__file__).resolve().parents[1]/'nbs').glob('*.ipynb'))

def test_there_are_notebooks(): assert len(NBS)>=9

@pytest.mark.parametrize('nb', NBS, ids=lambda p: p.stem)
def test_notebook(nb, monkeypatch, capfd):
    monkeypatch.chdir(nb.parent)
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    ok,_ = run_nb(nb, basepath=nb.parent, do_print=False, verbose=True)
    assert ok, capfd.readouterr().err
