"How the house is built: what stands in a line, who imports whom, and that its picture is true"
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

@pytest.fixture(scope='module')
def tools():
    "docs/density.py and docs/house.py as modules"
    docs = str(Path(__file__).resolve().parents[1]/'docs')
    sys.path.insert(0, docs)
    try:
        import density, house
        yield density,house
    finally: sys.path.remove(docs)

def test_no_module_line_or_body_is_too_dense(tools):
    density,_ = tools
    assert not (found := density.faults()), '\n'.join(found)

def test_exceptions_of_density_are_still_needed(tools):
    density,_ = tools
    large = {name for f in density.modules() for name,n in density.bodies(f) if n>density.MOST_IN_BODY}
    assert set(density.LARGE_BODIES)<=large, 'these are mended: take them off the list'

def test_density_is_counted_as_it_says(tools):
    density,_ = tools
    source = '"""A module"""\n# a comment\n\ndef f(\n    x, # one\n):\n    "What it does"\n    return x\n'
    assert density.code_lines(source)=={4, 5, 6, 8}
    assert density.per_line(source)==density.n_nodes(density.ast.parse(source))/4

def test_dense_module_and_long_line_and_large_body_are_found(tools, monkeypatch, tmp_path):
    density,_ = tools
    body = '; '.join(['x = [x, x, x]']*40)
    (tmp_path/'dense.py').write_text(f'def f(x):\n    {body}\n')
    monkeypatch.setattr(density, 'PACKAGE', tmp_path)
    assert [o.split(':')[0] for o in density.faults()]==['dense', 'dense, line 2', 'dense.f']

def test_imports_run_one_way(tools):
    _,house = tools
    list(TopologicalSorter(house.import_graph()).static_order()) # raises CycleError for modules,
    assert house.floors(house.room_graph())                      # and this for rooms
    with pytest.raises(CycleError): house.floors({'a':{'b'}, 'b':{'a'}})

def test_no_private_name_crosses_a_module(tools):
    _,house = tools
    assert not (found := house.private_imports()), '\n'.join(found)

def test_picture_of_the_house_is_what_the_imports_say(tools):
    _,house = tools
    assert house.PICTURE.read_text(encoding='utf-8')==house.svg(), 'the picture is old: python docs/house.py'

def test_arrows_leave_out_what_a_chain_implies(tools):
    _,house = tools
    graph = {'c':{'b','a'}, 'b':{'a'}, 'a':set()}
    assert house.floors(graph)==[['a'],['b'],['c']] and house.arrows(graph)==[('b','a'),('c','b')]
