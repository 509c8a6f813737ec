"""expire_nodest_conn: when the connections of deleted destinations end without a packet of theirs."""
from lib import *
b = Bench('expire_nodest')
def at(p): return f'-t {V}:{p}'
def dst(p, i): return f'{at(p)} -r {rs(i)}:80'
def opened(p): # a connection by each destination of the service
    for sp in (40000, 40001): b.c.send(fromc(tcp(C, sp, V, p, 'S'))); time.sleep(0.05)
def step(scenario, what):
    if what.startswith('-'): sh('ipvsadm ' + what)
    else: vs('expire_nodest_conn', int(what.split('=')[1]))
    time.sleep(1.5)
    left = sorted(c['d'] for c in conns())
    b.rec(scenario=scenario, step=what, left=left); print(scenario, what, left)
OFF, ON = 'expire_nodest_conn=0', 'expire_nodest_conn=1'
SCENARIOS = {
    'deleted, then set': [f'-d {dst(80, 0)}', ON, f'-e {dst(80, 1)} -m -w 5', f'-a {dst(80, 4)} -m'],
    'deleted, set, then another is deleted': [f'-d {dst(80, 0)}', ON, f'-d {dst(81, 2)}'],
    'deleted, set, then another service is deleted': [f'-d {dst(80, 0)}', ON, f'-D {at(81)}'],
    'deleted, set, unset, then another is deleted': [f'-d {dst(80, 0)}', ON, OFF, f'-d {dst(81, 2)}'],
    'set, deleted': [ON, f'-d {dst(80, 0)}', OFF, f'-d {dst(80, 1)}'],
    'deleted, back, set, then another is deleted': [f'-d {dst(80, 0)}', f'-a {dst(80, 0)} -m', ON, f'-d {dst(81, 2)}'],
    'set, the service is deleted': [ON, f'-D {at(80)}'],
}
for name, steps in SCENARIOS.items():
    vs('expire_nodest_conn', 0); sh('ipvsadm -C'); sh('ip link set lo up')
    for p, i in ((80, 0), (81, 2)):
        sh(f'ipvsadm -A {at(p)} -s rr; ipvsadm -a {dst(p, i)} -m; ipvsadm -a {dst(p, i + 1)} -m'); opened(p)
    step(name, OFF)
    for what in steps: step(name, what)
    # What is left ends by being deleted while it is set.
    vs('expire_nodest_conn', 1); sh('ipvsadm -C'); sh(f'ipvsadm -A {at(99)} -s rr; ipvsadm -a {dst(99, 5)} -m; ipvsadm -D {at(99)}'); time.sleep(1)
    assert not conns(), conns()
