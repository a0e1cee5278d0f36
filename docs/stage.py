"Turns executed notebooks into pages that Sphinx reads: exported cells become entries of the Python domain, back-ticked names become links"
import ast, importlib, inspect, re
from functools import partial
from pathlib import Path

import pandas as pd
from fastcore.basics import _clsmethod
from fastcore.docments import docments
from fastcore.nbio import dict2nb, mk_cell, read_nb, write_nb
from fastcore.script import anno_parser
from nbdev.doclinks import NbdevLookup, patch_name

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/'nbs'
_defs = ast.FunctionDef,ast.AsyncFunctionDef,ast.ClassDef
_re_dir = re.compile(r'^#\|\s*(.+)$', re.M)
_re_tick = re.compile(r'(?<![`\w])`([^`\s]+?)(\(\))?`(?!`)')
_re_link = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)')

def notebooks()->list: # Paths, in the order of the site: modules of the core, their rooms, tutorials, explanations
    "All notebooks, those of a folder in the order of their file names"
    folders = [NBS, *(NBS/o for o in ('data','synth','audit','peers','cli','tutorials','explanations'))]
    found = [o for d in folders for o in sorted(d.glob('*.ipynb'))]
    if lost := set(NBS.rglob('*.ipynb')) - set(found) - set(NBS.rglob('.*/*.ipynb')): raise ValueError(f'a folder of notebooks has no place: {lost}')
    return [o for o in found if o.stem[0] not in '_.']

def page_name(
    path:Path, # A notebook, `nbs/data/09_manifest.ipynb`, or another page
)->str: # Its page, `data/manifest`
    "Path below nbs/ without the number that orders it; pages that stand elsewhere go by their file name"
    name = re.sub(r'^\d+[a-z]?_', '', path.stem)
    inside = path.parent.relative_to(NBS) if path.is_relative_to(NBS) else Path()
    return (inside/name).as_posix()

def default_exp(
    nb, # A notebook
)->str|None: # Name of the module it exports
    "What `#| default_exp` says"
    return next((m[1] for c in nb.cells if c.cell_type=='code' and (m := re.search(r'^#\|\s*default_exp\s+(\S+)', c.source, re.M))), None)

def public_names(
    source:str, # A cell's code
)->list: # `name`, or `Class.name` for a patched method, in the order of the code
    "Public functions, classes and patched methods that a cell defines"
    names = [(n, t.name) for t in ast.parse(source).body if isinstance(t, _defs) for n in _listed(patch_name(t))]
    return [n for n,own in names if not own.startswith('_')]

def _listed(o): return o if isinstance(o, list) else [o]

def own_methods(
    source:str, # A cell's code
    cls:str, # Name of a class that it defines
)->list: # Names of its public methods and properties
    "What a class defines itself"
    tree = next(t for t in ast.parse(source).body if isinstance(t, ast.ClassDef) and t.name==cls)
    return list(dict.fromkeys(t.name for t in tree.body if isinstance(t, _defs) and not t.name.startswith('_'))) # a setter has its property's name

class Links:
    "Where back-ticked names lead: our own symbols and modules, commands, then fastai's and fastcore's"
    def __init__(self,
        symbols:dict, # `name` or `Class.name` to its full name, `fastai_resup.mixture.BetaMixture`
        pages:dict, # name of a module to its page
        commands:dict, # console command to the full name of its function
    ):
        self.symbols,self.pages,self.other = {**symbols, **commands},pages,NbdevLookup(incl_libs=('fastai','fastcore'), strip_libs=('fastai','fastcore'))

    def __call__(self,
        m, # A match of back-ticked text
        cls:str='', # Class whose own methods may be meant
        modules:bool=False, # May names of modules be meant? In most prose `labels` is a parameter
    )->str: # The link, or the text as it was
        "The link for back-ticked text"
        name,call = m[1],m[2] or ''
        full = self.symbols.get(f'{cls}.{name}') or self.symbols.get(name.removeprefix('fastai_resup.'))
        if full: return f'{{py:obj}}`{name}{call} <{full}>`'
        page = self.pages.get(name.removeprefix('fastai_resup.'))
        if page and (modules or '.' in name): return f'[`{name}`](/{page}.ipynb)'
        url = self.other.doc(name) if len(name)>3 else None
        return f'[`{name}{call}`]({url})' if url and url.startswith('http') else m[0]

def linkify(
    md:str, # Markdown
    links:Links, # Where names lead
)->str: # The same with links; headings, fenced code and the text of links are left alone
    "Link back-ticked names"
    res,fence = [],None
    for line in md.splitlines():
        mark = re.match(r'\s*(`{3,}|~{3,})', line)
        if mark: fence = None if fence and line.strip().startswith(fence) else fence or mark[1]
        skip = fence or mark or line.startswith(('#','    '))
        res.append(line if skip else ''.join(o if i%2 else _re_tick.sub(links, o) for i,o in enumerate(re.split(r'(\[[^\]]*\]\([^)]*\))', line))))
    return '\n'.join(res)

def relink(
    md:str, # Markdown
    to, # Function of a link's target
)->str: # The same with other targets
    "Pass the relative targets of links and pictures through a function; fenced code is left alone"
    new = lambda m: m[0] if re.match(r'\w+:|#', m[3]) else f'{m[1]}[{m[2]}]({to(m[3])})'
    return ''.join(o if i%2 else _re_link.sub(new, o) for i,o in enumerate(re.split(r'(^```.*?^```)', md, flags=re.M|re.S)))

def resolve(
    module, # A module of the package
    name:str, # `name` or `Class.name`
): # The object as it stands in the class: a property is a property
    "A symbol of a module by its name"
    cls,_,attr = name.rpartition('.')
    return inspect.getattr_static(getattr(module, cls), attr) if cls else getattr(module, name)

def _default(o):
    "A default value as a reader would write it"
    if inspect.isclass(o) or inspect.isroutine(o): return o.__name__
    r = repr(o)
    return r if len(r)<40 and re.fullmatch(r"[\w\s.,:'\"()\[\]{}+*/-]*", r) else '...'

def signature(
    f, # Function, method or class
    method:bool=False, # Leave out its first parameter?
    passed=(), # Names of parameters that are only passed on: together they are `**kwargs`
)->str: # `(x, n=1001)`
    "The signature without annotations, which stand in the table"
    ps = list(inspect.signature(f).parameters.values())[int(method):]
    kept = [p for p in ps if p.name not in passed or p.kind in (p.VAR_POSITIONAL,p.VAR_KEYWORD)]
    if len(kept)<len(ps) and (not kept or kept[-1].kind!=inspect.Parameter.VAR_KEYWORD): kept.append(inspect.Parameter('kwargs', inspect.Parameter.VAR_KEYWORD))
    bare = [p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else _Shown(_default(p.default))) for p in kept]
    return str(inspect.Signature(bare))

class _Shown(str):
    def __repr__(self): return str(self)

def entry(
    module, # The module that holds it
    name:str, # `name` or `Class.name`
    links:Links, # Where names lead
    inner:str='', # Entries of its methods
    command:str='', # The console command that runs it
)->str: # Markdown
    "The page's entry for a symbol: signature, docstring, parameters, and for a command its help"
    o = resolve(module, name)
    kind,o,method = _kind(o, name)
    base = _kind(inherited(module, name), name)[1]
    sig = '' if kind in ('property','exception') else signature(o, method, parameters(o, base)[1])
    head = f':::::{{py:{kind}}} {name}{sig}\n:module: {module.__name__}\n\n'
    if kind in ('class','exception'): head = ':'+head
    near = partial(links, cls=name.partition('.')[0])
    body = linkify(_plain(docstring(o, base)), near) + '\n\n' + linkify(_table(o, base), near)
    if command: body += f'\n\n```text\n{anno_parser(getattr(o, "__wrapped__", o), prog=command).format_usage().strip()}\n```'
    return f'<span id="{name.lower()}"></span>\n\n{head}{body}\n\n{inner}\n' + head[:head.index('{')] + '\n'

def inherited(
    module, # A module of the package
    name:str, # `Class.name`
): # The method of the nearest base class that has it, None without one
    "What a method overrides"
    cls,_,attr = name.rpartition('.')
    return next((vars(b)[attr] for b in getattr(module, cls).__mro__[1:] if attr in vars(b)), None) if cls else None

def docstring(
    o, # Function or class
    base=None, # The function that it overrides, whose docstring serves where `o` has none
)->str: # '' for none
    "The docstring, without what fasttransform adds below a line: the other methods of the name"
    return re.split(r'\n-{4,}\n', inspect.cleandoc(o.__doc__ or getattr(base, '__doc__', None) or ''))[0]

def _plain(text):
    "Text of a docstring or comment, in which only back-ticks are markup"
    return ''.join(o if i%2 else re.sub(r'([<*$\[])', r'\\\1', o) for i,o in enumerate(re.split(r'(`[^`]*`)', text)))

def _kind(o, name):
    "Directive of the Python domain, the function to look at, and whether its first parameter is to be left out"
    if isinstance(o, property): return 'property',o.fget,True
    if isinstance(o, (classmethod, _clsmethod)): return 'classmethod',getattr(o, '__func__', None) or o.f,True # fastcore's `@patch(cls_method=True)`
    if isinstance(o, staticmethod): return 'staticmethod',o.__func__,False
    if inspect.isclass(o): return ('exception' if issubclass(o, BaseException) else 'class'),o,False
    return ('method',o,True) if '.' in name else ('function',o,False)

def parameters(
    o, # Function or class
    base=None, # The function that it overrides, whose comments serve where `o` has none
)->tuple: # Parameter to its description (see docments), those written here first; and names of those that are only passed on, with no comment
    "Parameters and what is returned, without `self`; an override is described by what it overrides"
    dm = {k:v for k,v in docments(o, full=True, returns=True).items() if k not in ('self','cls')}
    above = docments(base, returns=True) if base else {}
    for k,v in dm.items(): v['docment'] = v.get('docment') or _comment(o, k) or above.get(k) or (_comment(base, k) if base else None)
    if 'return' in dm and dm['return']['docment']==_comment(o, 'kwargs'): dm['return']['docment'] = None # docments takes the last comment before `)` for that of what is returned
    passed = [k for k in dm if k!='return' and not dm[k]['docment'] and k not in _own_parameters(o)]
    return {k:v for k,v in dm.items() if k not in passed},passed

def _init(o): return inspect.unwrap(o.__init__ if inspect.isclass(o) else o)

def _own_parameters(o):
    "Names that the code of the package itself has, not what `delegates` or a base class of another package adds"
    f = _init(o)
    if not hasattr(f, '__code__') or not f.__module__.startswith('fastai_resup'): return []
    return f.__code__.co_varnames[:f.__code__.co_argcount+f.__code__.co_kwonlyargcount+(f.__code__.co_flags>>2&1)+(f.__code__.co_flags>>3&1)]

def _origin(o):
    "Name of what takes the parameters that are passed on"
    to = getattr(_init(o), '__delwrap__', None) or getattr(o, '__delwrap__', None)
    if to: return to.__qualname__.removesuffix('.__init__')
    return next(c for c in o.__mro__ if '__init__' in vars(c)).__name__ if inspect.isclass(o) else ''

def _table(o, base=None):
    "Table of parameters and of what is returned"
    if inspect.isclass(o) and issubclass(o, BaseException): return ''
    told,passed = parameters(o, base)
    rows = [(_written(k, v), _plain((v.get('docment') or '').replace('\n', ' '))) for k,v in told.items() if v.get('docment') or k!='return']
    if passed and _origin(o)!='object': rows.append(('``**kwargs``', (f'as in `{_origin(o)}`' if _origin(o) else 'passed on') + (f': {", ".join(passed)}' if len(passed)<=20 else '')))
    return '\n'.join('| ' + ' | '.join(c.replace('|', r'\|') for c in r) + ' |' for r in [('parameter', ''), ('---',)*2, *rows]) if rows else ''

def _comment(o, name):
    "The comment of `*args`, `**kwargs`, or a `def` without a type for what it returns, which docments leaves out"
    pattern = r'\bdef \w+\([^()]*\): # (.+)' if name=='return' else rf'\*{name},? *# *(.+)'
    try: m = re.search(pattern, inspect.getsource(o.__init__ if inspect.isclass(o) else o))
    except (OSError, TypeError): return None # made by a decorator, as a dataclass's `__init__` is
    return m[1] if m else None

def _written(name, p):
    "A parameter as code has it, `name: type = default`"
    empty = inspect.Parameter.empty
    anno,default = p.get('anno', empty),p.get('default', empty)
    anno,default = '' if anno in (None,empty,type(None)) else _type(anno),'' if default is empty else _default(default)
    if name=='return': return '*returns*' + (f' ``{anno}``' if anno else '')
    return f'``{name}' + (f': {anno}' if anno else '') + (f' = {default}' if default else '') + '``'

def _type(o):
    "A type as a reader would write it"
    return o.__name__ if inspect.isclass(o) and not hasattr(o, '__args__') else re.sub(r'\b(?:\w+\.)+(\w+)', r'\1', str(o))

def page_cells(
    nb, # An executed notebook
    links:Links, # Where names lead
    commands:dict, # Full name of a function to its console command
)->list: # Cells of its page
    "A notebook's cells as its page shows them"
    mod = default_exp(nb)
    module = importlib.import_module(f'fastai_resup.{mod}') if mod else None
    return [o for c in nb.cells for o in _page_cell(c, module, links, commands)]

def _page_cell(c, module, links, commands):
    if c.cell_type!='code': return [mk_cell(linkify(c.source, links if module else partial(links, modules=True)), 'markdown')]
    dirs = {d.split()[0] for d in _re_dir.findall(c.source)}
    if dirs & {'hide','default_exp','exporti'}: return []
    if 'export' in dirs: return [mk_cell(o, 'markdown') for o in _entries(c.source, module, links, commands)]
    c.outputs = [] if 'output:' in dirs else [o for out in c.get('outputs', []) if _shown(out) for o in training_table(out)]
    c.source = _re_dir.sub('', c.source).strip()
    c.metadata = dict(tags=['hide-input'], mystnb=dict(code_prompt_show='Show the checks', code_prompt_hide='Hide the checks')) if is_checks(c.source) and not c.outputs else {}
    if 'echo:' in dirs: c.metadata = dict(tags=['remove-input'])
    return [c] if c.source else []

def _shown(out):
    "Is this output for readers? Progress bars and standard error are not"
    data = out.get('data', {})
    text = ''.join(data.get('text/html', [])) + ''.join(data.get('text/plain', []))
    return out.get('name')!='stderr' and 'progress::-webkit' not in text and '<progress' not in text and 'IPython.core.display.HTML' not in ''.join(data.get('text/plain', [])) * (not data.get('text/html'))

def training_table(
    out, # An output
)->list: # The same, or what was printed and tables in HTML
    "fastai prints progress bars and a line per epoch where no notebook listens: keep the epochs, without the time, which is the building machine's, and no bars"
    text = ''.join(out.get('text', [])).replace('\r', '\n')
    if '█' not in text: return [out]
    lines = [o.strip('█ ').rstrip() for o in text.split('\n')]
    lines = [o for o in lines if o and not re.match(r'(Epoch \d+/\d+ *:|\|?[█-]*\| )', o)]
    res,rest,rows = [],[],None
    for line in lines:
        cells = re.split(r' {2,}', line)
        if cells[:2]==['epoch','train_loss']: res += [_printed(rest)]*bool(rest); head,rest,rows = cells,[],[]; res.append(rows)
        elif rows is not None and cells[0].isdigit() and len(cells)==len(head): rows.append(dict(zip(head[:-1], cells)))
        else: rest.append(line)
    return [mk_output(pd.DataFrame(o).to_html(index=False, border=0)) if isinstance(o, list) else o for o in res] + [_printed(rest)]*bool(rest)

def _printed(lines): return dict(output_type='stream', name='stdout', text=['\n'.join(lines)+'\n'])

def mk_output(html): return dict(output_type='display_data', metadata={}, data={'text/html':[html], 'text/plain':['<table>']})

def is_checks(
    source:str, # A cell's code
)->bool: # Does every statement of it check something?
    "Cells of nothing but assertions are folded away on the page"
    def check(t):
        if isinstance(t, (ast.Assert, ast.Try)): return True
        if isinstance(t, (ast.For, ast.With)): return all(map(check, t.body))
        return isinstance(t, ast.Expr) and isinstance(t.value, ast.Call) and getattr(t.value.func, 'id', '').startswith('test_')
    try: body = ast.parse(source).body
    except SyntaxError: return False
    return bool(body) and any(map(check, body)) and all(check(t) or isinstance(t, ast.Assign) for t in body)

def _entries(source, module, links, commands):
    "Entries of a cell's public symbols; a class carries those of its methods"
    for name in public_names(source):
        full = f'{module.__name__}.{name}'
        inner = ''
        if '.' not in name and inspect.isclass(getattr(module, name)):
            inner = '\n'.join(entry(module, f'{name}.{m}', links) for m in own_methods(source, name))
        yield entry(module, name, links, inner, commands.get(full, ''))

def write_page(
    cells:list, # Cells
    dest:Path, # File to write
):
    "A notebook that Sphinx reads and doesn't run"
    spec = dict(name='python3', display_name='Python 3', language='python')
    write_nb(dict2nb(dict(cells=cells, metadata=dict(kernelspec=spec, language_info=dict(name='python', pygments_lexer='ipython3')), nbformat=4, nbformat_minor=5)), dest)

# The page of fastai's features

def matrix_rows(
    tests:Path, # tests/test_matrix.py
)->list: # (feature, verdict, how, line of the test), in the order of the file; '# ' comments between them give the section
    "What the markers of the tests say"
    text = tests.read_text(encoding='utf-8')
    heads = {i:o[2:] for i,o in enumerate(text.splitlines(), 1) if o.startswith('# ')}
    rows = []
    for f in ast.parse(text).body:
        marks = [d for d in getattr(f, 'decorator_list', []) if getattr(getattr(d, 'func', None), 'id', '')=='feature']
        if marks: rows.append((*(ast.literal_eval(a) for a in marks[0].args), f.lineno, [h for i,h in heads.items() if i<f.lineno][-1]))
    return rows

def matrix_page(
    tests:Path, # tests/test_matrix.py
)->str: # Markdown
    "The page of fastai's features: a row per test, so that it can claim nothing that has no test"
    res,section = ["# fastai's features", '', "> What works with `ReSup`, what works differently, and where each line is tested", '',
        f'Each row is a test on a real pair of networks with `ReSup` at work, and this page is made from those tests ([{tests.name}](../../tests/{tests.name})). A test fails if the feature silently does nothing.'],None
    for feature,verdict,how,line,head in matrix_rows(tests):
        if head!=section: res += ['', f'## {head}', '', '| feature | verdict | how | |', '|---|---|---|---|']
        section = head
        res.append(f'| {feature} | {verdict} | {how} | [test](../../tests/{tests.name}#L{line}) |')
    return '\n'.join(res) + '\n'
