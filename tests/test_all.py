"The star import gives what users call, about a hundred names, and none that hides one of fastai's"
import ast, importlib, inspect
from pathlib import Path

import fastai_resup.all as ours

def brought():
    "Names that `fastai_resup/all.py` imports"
    tree = ast.parse(Path(ours.__file__).read_text(encoding='utf-8'))
    return [o.name for t in tree.body if isinstance(t, ast.ImportFrom) for o in t.names]

def test_star_import_brings_users_names_only():
    names = brought()
    assert len(set(names))==len(names)<=100 and '*' not in names
    stars = {n for n in vars(ours) if not n.startswith('_') and not inspect.ismodule(getattr(ours, n))}
    assert stars==set(names)

def test_every_name_has_an_entry_in_the_docs():
    "It is in the `__all__` of the module that defines it"
    package = Path(ours.__file__).parent
    modules = [o.relative_to(package).with_suffix('').as_posix().replace('/', '.') for o in package.rglob('*.py')]
    listed = {n for m in modules if not m.endswith(('__init__','all','_modidx')) for n in importlib.import_module(f'fastai_resup.{m}').__all__}
    assert set(brought())<=listed

def test_no_name_hides_one_of_fastai():
    fastai = importlib.import_module('fastai.vision.all')
    assert not [n for n in brought() if hasattr(fastai, n)]

def test_names_of_the_first_page_are_there():
    for name in 'BetaMixture FERDataLoaders LabelAudit LossReweight MixtureRefit PairedModel ReSup ReSupLearner ReSupLoss resup_learner'.split():
        assert name in brought(), name
