"""What a service of port 21 means to other ports of its address, without ip_vs_ftp; and packets from port 20."""
from lib import *
b = Bench('ftp_service')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
def rows_of(conns): return [[r['proto'], r['c'], r['cp'], r['v'], r['vp'], r['d'], r['dp'], r['state']] for r in conns]
def play(case, rules, packets):
    """packets: (client, client port, VIP, port, flags or udp)"""
    sh('ipvsadm -C; ipvsadm -A -t 10.9.9.9:9 -s rr; ipvsadm -R', ''.join(rule + '\n' for rule in rules)); before = rows_of(conns()); out = []
    for c, cp, vip, p, fl in packets:
        b.drain(); b.c.send(fromc(udp(c, cp, vip, p) if fl == 'udp' else tcp(c, cp, vip, p, fl))); back = [ftxt(f)[26:] for f in b.c.recv(0.02)]
        out.append(dict(packet=[c, cp, vip, p, fl], to=[[socket.inet_ntoa(f[30:34]), f[36] << 8 | f[37]] for f in b.r.recv()], to_client=back))
    rows = sorted(r for r in rows_of(conns()) if r not in before)
    b.rec(case=case, rules=rules, packets=out, conns=rows); print(case, *[f"{o['packet']} => {o['to']} {o['to_client']}" for o in out], *rows, sep='\n  ', flush=True)
n = [30]
def client(): n[0] += 1; return f'10.2.0.{n[0]}'
def dests(t, servers, port): return [f'-a {t} -r {rs(i)}:{port} -m' for i in servers]
ports = (21, 20, 19, 80, 1023, 1024, 2000, 65535)
t = f'-t {V}:21'; c = client()
play('port 21 -p', [f'-A {t} -s rr -p 60', *dests(t, (0, 1), 21)], [(c, 4000 + k, V, p, 'S') for k, p in enumerate(ports)] + [(client(), 5000, V, 2000, 'S'), (client(), 5000, V, 20, 'S'), (client(), 5000, V, 2000, 'A')])
c = client(); play('port 21', [f'-A {t} -s rr', *dests(t, (0, 1), 21)], [(c, 4000 + k, V, p, 'S') for k, p in enumerate(ports)])
c = client(); play('port 21 -p, destination port 2121', [f'-A {t} -s rr -p 60', *dests(t, (0, 1), 2121)], [(c, 4000 + k, V, p, 'S') for k, p in enumerate(ports)])
c = client(); z = f'-t {V}:0'; play('port 21 -p and port 0 -p', [f'-A {t} -s rr -p 60', *dests(t, (0, 1), 21), f'-A {z} -s rr -p 60', *dests(z, (0, 1), 0)], [(c, 4000 + k, V, p, 'S') for k, p in enumerate(ports)] + [(client(), 4000, V, 80, 'S'), (f'10.2.0.{n[0]}', 4001, V, 21, 'S')])
c = client(); play('port 21 -p and another service', [f'-A {t} -s rr -p 60', *dests(t, (0, 1), 21), f'-A -t {V}:2000 -s rr', f'-a -t {V}:2000 -r {rs(2)}:2000 -m'], [(c, 4000 + k, V, p, 'S') for k, p in enumerate(ports)])
u = f'-u {V}:21'; c = client(); play('UDP port 21 -p', [f'-A {u} -s rr -p 60', *dests(u, (0, 1), 21)], [(c, 4000 + k, V, p, 'udp') for k, p in enumerate(ports)])
w = f'-t {V}:80'; x = f'-u {V}:80'; play('from port 20', [f'-A {w} -s rr', *dests(w, (0, 1), 80), f'-A {x} -s rr', *dests(x, (0, 1), 80)], [(client(), 20, V, 80, 'S'), (client(), 20, V, 80, 'udp'), (client(), 21, V, 80, 'S')])
play('from port 20, persistent', [f'-A {w} -s rr -p 60', *dests(w, (0, 1), 80)], [(client(), 20, V, 80, 'S'), (client(), 21, V, 80, 'S')])
