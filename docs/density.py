"""How much stands in a line: what `tests/test_house.py` holds the modules to.

    python docs/density.py           a line per module, then everything that is over a limit
    python docs/density.py --bodies  the 40 largest bodies, too

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

def main():
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
