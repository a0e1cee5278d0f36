"""How much stands in a line: what `tests/test_house.py` holds the modules to.

    python docs/density.py           a line per module, then everything that is over a limit
    python docs/density.py --bodies  the 40 largest bodies, too
    python docs/density.py --figures the shape of the whole package: lengths of bodies, nodes per line, long lines, expressions that pack

A node is one of Python's syntax tree. A code line holds code: blank lines, comments and docstrings don't count."""
import ast, io, sys, tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]/'fastai_resup'
MOST_PER_LINE,MOST_WIDE,MOST_IN_BODY = 11,140,160
LARGE_BODIES = {} # 'module.function' to the reason why its body may hold more nodes

def modules():
    "Every module that is exported from a notebook"
    return [f for f in sorted(PACKAGE.rglob('*.py')) if f.name not in ('_modidx.py','__init__.py','all.py')]

def module_name(
    f:Path, # A module's file
)->str: # 'data.noise'
    "Name within the package"
    return '.'.join(f.relative_to(PACKAGE).with_suffix('').parts)

def n_nodes(
    *trees, # Parts of a syntax tree
)->int:
    "Nodes of syntax trees"
    return sum(1 for t in trees for _ in ast.walk(t))

def has_docstring(
    node, # A module, class or function
)->bool:
    "Does its body begin with a docstring?"
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)

def code_lines(
    source:str, # A module's source
)->set: # Numbers of the lines that hold code
    "Lines with code, from 1"
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for t in tokenize.generate_tokens(io.StringIO(source).readline):
        if t.type not in empty: lines |= set(range(t.start[0], t.end[0]+1))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) or not has_docstring(node): continue
        lines -= set(range(node.body[0].lineno, node.body[0].end_lineno+1))
    return lines

def per_line(
    source:str, # A module's source
)->float:
    "Syntax nodes per code line"
    return n_nodes(ast.parse(source))/max(len(code_lines(source)), 1)

def bodies(
    f:Path, # A module's file
): # Gives (name such as 'data.noise.noise_report', nodes of the body without its docstring)
    "Every function and method of a module"
    def walk(node, prefix):
        for o in ast.iter_child_nodes(node):
            if isinstance(o, ast.ClassDef): yield from walk(o, f'{prefix}.{o.name}')
            if not isinstance(o, ast.FunctionDef): continue
            yield f'{prefix}.{o.name}', n_nodes(*o.body[int(has_docstring(o)):])
    yield from walk(ast.parse(f.read_text(encoding='utf-8')), module_name(f))

def faults()->list: # A text per fault
    "Everything that is over a limit"
    res = []
    for f in modules():
        name,source = module_name(f),f.read_text(encoding='utf-8')
        dense = per_line(source)
        if dense>MOST_PER_LINE: res.append(f'{name}: {dense:.1f} nodes per code line, at most {MOST_PER_LINE}')
        for i,line in enumerate(source.splitlines(), 1):
            if len(line)>MOST_WIDE: res.append(f'{name}, line {i}: {len(line)} characters, at most {MOST_WIDE}')
        for body,n in bodies(f):
            if n>MOST_IN_BODY and body not in LARGE_BODIES: res.append(f'{body}: {n} nodes in its body, at most {MOST_IN_BODY}')
    return res

def share(
    n:int,
    of:int,
)->str: # Per cent
    "A share with one decimal"
    return f'{100*n/max(of, 1):.1f}'

def figures()->str: # Lines to print
    "The package as a whole"
    sources = [f.read_text(encoding='utf-8') for f in modules()]
    trees = [ast.parse(o) for o in sources]
    nodes = [n for t in trees for n in ast.walk(t)]
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef)]
    lengths = sorted(body_lines(o) for o in functions)
    lines = [line for o in sources for line in o.splitlines() if line.strip()]
    n_code = sum(len(code_lines(o)) for o in sources)
    statements = sum(isinstance(n, ast.stmt) for n in nodes)
    count = lambda *kinds: share(sum(isinstance(n, kinds) for n in nodes), statements)
    wide = lambda n: share(sum(len(o)>n for o in lines), len(lines))
    public = [o for o in functions if not o.name.startswith('_')]
    return '\n'.join([
        f'body lines, median/p90/max: {lengths[len(lengths)//2]}/{lengths[len(lengths)*9//10]}/{lengths[-1]}',
        f'nodes per code line: {len(nodes)/n_code:.1f}',
        f'lines over 120/160 characters, per cent: {wide(120)}/{wide(160)}',
        'comprehensions/ternaries/lambdas per 100 statements: '
        f'{count(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)}/{count(ast.IfExp)}/{count(ast.Lambda)}',
        f'public functions with a docstring, per cent: {share(sum(map(has_docstring, public)), len(public))}'])

def body_lines(
    function:ast.FunctionDef,
)->int:
    "Lines from the first statement after the docstring to the last"
    body = function.body[int(has_docstring(function)):]
    return body[-1].end_lineno-body[0].lineno+1 if body else 0

def main():
    if '--figures' in sys.argv: return print(figures())
    for f in modules():
        source = f.read_text(encoding='utf-8')
        print(f'{module_name(f):20} {per_line(source):5.1f} nodes per line, {len(code_lines(source)):4} lines')
    if '--bodies' in sys.argv:
        largest = sorted((o for f in modules() for o in bodies(f)), key=lambda o: -o[1])[:40]
        print('', *[f'{n:5} {name}' for name,n in largest], sep='\n')
    found = faults()
    print('', *found, sep='\n')
    sys.exit(bool(found))

if __name__=='__main__': main()
