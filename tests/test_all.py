"The star import gives every public name, and none that hides one of fastai's"
import importlib

MODULES = 'mixture files labels manifest data synth models losses callbacks learner audit votes review deploy checkpoint distributed peers'.split()

def test_star_import():
    ours,fastai = importlib.import_module('fastai_resup.all'),importlib.import_module('fastai.vision.all')
    names = {n for m in MODULES for n in importlib.import_module(f'fastai_resup.{m}').__all__}
    assert names <= set(vars(ours)) and len(names)>40
    assert not [n for n in names if hasattr(fastai, n)]
