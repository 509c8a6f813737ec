"""Two services with one destination, and one client's port: whose are the destination's replies?"""
from lib import *
b = Bench('shared_reply'); sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
for n, (proto, make) in enumerate((('tcp', lambda s, sp, d, dp, fl: tcp(s, sp, d, dp, fl)), ('udp', lambda s, sp, d, dp, fl: udp(s, sp, d, dp)))):
    o = '-' + proto[0]
    for p in (101, 102): sh(f'ipvsadm -A {o} {V}:{p} -s rr; ipvsadm -a {o} {V}:{p} -r {rs(0)}:80 -m')
    steps = [('c', 101, 'S'), ('r', 0, 'SA'), ('c', 101, 'A'), ('c', 102, 'S'), ('r', 0, 'SA'), ('c', 101, 'A'), ('r', 0, 'A'), ('c', 102, 'A'), ('r', 0, 'A'), ('c', 101, 'R'), ('r', 0, 'A'), ('c', 101, 'S'), ('r', 0, 'SA')]
    for i, (frm, p, fl) in enumerate(steps):
        x = make(C, 40000, V, p, fl) if frm == 'c' else make(rs(0), 80, C, 40000, fl)
        b.case(f'{proto} {i}: ' + (f'client to {p} {fl}' if frm == 'c' else f'server {fl}'), frm, x, protocol=proto)
    sh('ipvsadm -C; ipvsadm -A -t 10.9.9.9:9 -s rr')
