"""Persistence for all ports (a service of port 0, or of a mark): the port of a destination is not looked at. Port 21 is one of all, too."""
from lib import *
b = Bench('any_port')
sh('ip addr add 10.9.2.1/32 dev lo; ip addr add 10.9.2.2/32 dev lo')
sh('nft -f -', 'table ip m { chain p { type filter hook prerouting priority -150; ip daddr 10.9.2.1 meta mark set 7; ip daddr 10.9.2.2 meta mark set 8; }; }')
def rows_of(conns): return [[r['proto'], r['c'], r['cp'], r['v'], r['vp'], r['d'], r['dp']] for r in conns]
def play(case, rules, packets):
    """packets: (client port, VIP, port, flags or udp)"""
    sh('ipvsadm -C; ipvsadm -R', ''.join(rule + '\n' for rule in rules)); before = conns(); out = []
    for cp, vip, p, fl in packets:
        b.drain(); b.c.send(fromc(udp(C, cp, vip, p) if fl == 'udp' else tcp(C, cp, vip, p, fl))); b.c.recv(0.005)
        out.append(dict(packet=[C, cp, vip, p, fl], to=[[socket.inet_ntoa(f[30:34]), f[36] << 8 | f[37]] for f in b.r.recv()]))
    rows = [r for r in rows_of(conns()) if r not in rows_of(before)]
    b.rec(case=case, rules=rules, packets=out, conns=sorted(rows)); print(case, [o['to'] for o in out], *sorted(rows), sep='\n  ')
a, r = f'-t {V}:0', rs(0)
both = [(4000, '10.9.2.1', 80, 'S'), (4001, '10.9.2.1', 81, 'S'), (4002, '10.9.2.1', 82, 'udp')]
play('fwmark -p, destination port 8080', [f'-A -f 7 -s rr -p 60', f'-a -f 7 -r {r}:8080 -m'], both)
play('fwmark, destination port 8080', [f'-A -f 8 -s rr', f'-a -f 8 -r {r}:8080 -m'], [(4100, '10.9.2.2', 80, 'S'), (4101, '10.9.2.2', 82, 'udp')])
play('port 0 -p, destination port 8080', [f'-A {a} -s rr -p 60', f'-a {a} -r {r}:8080 -m'], [(4200, V, 80, 'S'), (4201, V, 81, 'S')])
play('port 0 -p, destination port 0', [f'-A -u {V}:0 -s rr -p 60', f'-a -u {V}:0 -r {r}:0 -m'], [(4300, V, 80, 'udp'), (4301, V, 81, 'udp')])
