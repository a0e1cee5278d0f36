"""The house as a picture: rooms and modules, and an arrow for each import, drawn from the imports themselves.

    python docs/house.py     writes docs/_static/house.svg, which CONTRIBUTING.md shows"""
import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from density import PACKAGE, module_name, modules

PICTURE = Path(__file__).resolve().parent/'_static'/'house.svg'
WIDTH,LINE,GAP = 900,17,46 # pixels: of the picture, of a line of text, between two rows

def imported(
    f:Path, # A module's file
)->list: # Pairs (module, name), 'data.noise' and 'noise_report'
    "What a module imports from the package, wherever the import stands"
    inside = ['fastai_resup', *f.relative_to(PACKAGE).parts[:-1]]
    res = []
    for node in ast.walk(ast.parse(f.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom): continue
        base = inside[:len(inside)-node.level+1] if node.level else []
        path = [*base, *(node.module or '').split('.')]
        if path[0]=='fastai_resup': res += [('.'.join(path[1:]), o.name) for o in node.names]
    return res

@cache
def import_graph()->dict: # Module to the set of modules that it imports
    "Who imports whom"
    return {module_name(f): {m for m,_ in imported(f)} for f in modules()}

def private_imports()->list: # 'audit.page imports _short from audit.decisions'
    "Private names that cross a module"
    return [f'{module_name(f)} imports {name} from {m}' for f in modules() for m,name in imported(f) if name.startswith('_')]

def room(
    module:str, # 'data.noise' or 'mixture'
)->str: # 'data', or 'mixture' itself
    "The room of a module; a module of the core stands for itself"
    return module.partition('.')[0]

def room_graph()->dict: # Room to the set of rooms that it imports from
    "Who imports whom, by room"
    res = {}
    for module,others in import_graph().items():
        below = {room(o) for o in others} - {room(module)}
        res.setdefault(room(module), set()).update(below)
    return res

def floors(
    graph:dict, # Room to the rooms that it imports from
)->list: # Sorted lists of rooms, the ground floor first; raises `graphlib.CycleError` where imports run in a circle
    "Each room above everything that it imports"
    height = {}
    for o in TopologicalSorter(graph).static_order():
        height[o] = 1 + max((height[b] for b in graph.get(o, ())), default=-1)
    return [sorted(o for o in height if height[o]==i) for i in range(max(height.values())+1)]

def arrows(
    graph:dict, # Room to the rooms that it imports from
)->list: # Pairs (room, room below)
    "Imports that no chain of other imports implies"
    def below(o): return {o}.union(*(below(b) for b in graph.get(o, ())))
    return [(o,b) for o in sorted(graph) for b in sorted(graph[o]) if not any(b in below(c) for c in graph[o]-{b})]

def box_lines(
    name:str, # A room
)->list: # Lines of text
    "What stands in the box of a room: its name and its modules"
    inner = [m.partition('.')[2] for m in import_graph() if m.startswith(name+'.')]
    rows = [inner[i:i+4] for i in range(0, len(inner), 4)]
    return [f'{name}/' if inner else name, *(' '.join(o) for o in rows)]

def boxes(
    levels:list, # What `floors` returns
)->dict: # Room to (x, y, width, height, lines)
    "Where each box stands: a floor is a row, the ground floor at the bottom"
    res,y = {},GAP/2
    for row in reversed(levels):
        texts = {o: box_lines(o) for o in row}
        tall = LINE*max(map(len, texts.values())) + 14
        wide = {o: 8*max(map(len, lines)) + 20 for o,lines in texts.items()}
        space = (WIDTH - sum(wide.values()))/(len(row)+1)
        x = space
        for o,lines in texts.items():
            res[o] = x, y, wide[o], LINE*len(lines)+14, lines
            x += wide[o] + space
        y += tall + GAP
    return res

def svg()->str:
    "The picture"
    graph = room_graph()
    at = boxes(floors(graph))
    tall = max(y+h for _,y,_,h,_ in at.values()) + GAP/2
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall:.0f}" font-family="monospace" font-size="13">',
             '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
             '<path d="M0 0 8 4 0 8z" fill="#888"/></marker></defs>',
             '<rect width="100%" height="100%" fill="#fff"/>']
    for o,b in arrows(graph):
        x0,y0,w0,h0,_ = at[o]
        x1,y1,w1,_,_ = at[b]
        parts.append(f'<line x1="{x0+w0/2:.0f}" y1="{y0+h0:.0f}" x2="{x1+w1/2:.0f}" y2="{y1:.0f}" stroke="#888" marker-end="url(#tip)"/>')
    for x,y,w,h,lines in at.values():
        fill = '#e8f0fe' if len(lines)>1 else '#f5f5f5'
        parts.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{w}" height="{h}" rx="5" fill="{fill}" stroke="#555"/>')
        for i,text in enumerate(lines):
            bold = ' font-weight="bold"' if i==0 else ''
            parts.append(f'<text x="{x+w/2:.0f}" y="{y+LINE*(i+1):.0f}" text-anchor="middle"{bold}>{text}</text>')
    return '\n'.join([*parts, '</svg>']) + '\n'

if __name__=='__main__': PICTURE.write_text(svg(), encoding='utf-8')
