"""What the API pages lack: docstrings, comments of parameters, examples, errors that the docstring doesn't name.

    python docs/api.py     a line per gap"""
import ast, importlib, inspect, re

from fastcore.nbio import read_nb
from stage import _defs, _kind, _re_dir, default_exp, docstring, inherited, notebooks, own_methods, parameters, public_names, resolve

FLOW = {'NotImplementedError','CancelFitException','KeyboardInterrupt','SystemExit'} # control flow, or "a subclass does this"

def symbols(
    path, # A notebook
): # Gives (module, name, code of its cell, code that the page shows) of each public function, class, patched method and method
    "The public symbols of a notebook"
    nb = read_nb(path)
    if not (mod := default_exp(nb)): return
    module,code = importlib.import_module(f'fastai_resup.{mod}'),[c.source for c in nb.cells if c.cell_type=='code']
    shown = '\n'.join(o for o in code if not {d.split()[0] for d in _re_dir.findall(o)} & {'export','exporti','hide','default_exp'})
    for src in code:
        if not src.startswith('#| export\n'): continue
        for name in public_names(src):
            inner = own_methods(src, name) if inspect.isclass(resolve(module, name)) else []
            for n in [name, *(f'{name}.{m}' for m in inner)]: yield module,n,src,shown,n!=name

def raised(
    src:str, # Code of a cell
    name:str, # Function, class (then its `__init__` and the like), or method defined in it
)->set: # Names of exceptions
    "What the body itself raises"
    attr = name.rpartition('.')[2]
    for t in ast.walk(ast.parse(src)):
        if isinstance(t, _defs) and t.name==attr: break
    else: return set()
    parts = [o for o in t.body if isinstance(o, _defs) and o.name.startswith('__')] if isinstance(t, ast.ClassDef) else [t]
    exc = [o.exc.func if isinstance(o.exc, ast.Call) else o.exc for p in parts for o in ast.walk(p) if isinstance(o, ast.Raise) and o.exc]
    return {ast.unparse(o) for o in exc if not (isinstance(o, ast.Name) and o.id.islower())} - FLOW

def gaps(
    path, # A notebook
)->list: # Texts `symbol: what is missing`
    "What the page of a notebook lacks"
    res = []
    for module,name,src,shown,inner in symbols(path):
        _,o,_ = _kind(resolve(module, name), name)
        base,say = _kind(inherited(module, name), name)[1],lambda what: res.append(f'{module.__name__.removeprefix("fastai_resup.")}.{name}: {what}')
        doc = docstring(o, base)
        if not doc: say('no docstring')
        if not (inspect.isclass(o) and issubclass(o, BaseException)):
            told = parameters(o, base)[0]
            for k,v in told.items():
                if k!='return' and not v['docment']: say(f'no comment for {k}')
            doc += ' '.join(str(v['docment']) for v in told.values())
        if not inner and not re.search(rf'\b{name.rpartition(".")[2]}\b', shown): say('no example')
        doc += docstring(getattr(module, name.partition('.')[0], None) or '')
        for e in sorted(raised(src, name)):
            if not re.search(rf'\b{e}\b', doc): say(f'raises {e}, and the docstring does not say so')
    return res

if __name__=='__main__':
    for f in notebooks(): print('\n'.join([*gaps(f), '']), end='')
