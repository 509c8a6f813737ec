"""Which connections drop_entry ends, and how fast: how many of each kind are left, second by second."""
from lib import *
c, r = setup(); rec = Rec('dropentry')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr'); vs('drop_entry', 0)
N, port = 128, [2000]
KINDS = []
class Kind:
    """N connections (clients' ports from 40000 on) of a service of their own, opened by the same packets."""
    def __init__(s, what, packets, proto='-t', options=''):
        port[0] += 1; s.p, s.what, s.packets, s.proto, s.options = port[0], what, packets.split(), proto, options
        sh(f'ipvsadm -A {proto} {V}:{s.p} -s rr {options}; ipvsadm -a {proto} {V}:{s.p} -r {rs(0)}:{s.p} -m')
        KINDS.append(s)
    def open(s):
        for sp in range(40000, 40000 + N):
            # a persistent client has one template, so each has an address of its own
            src = f'10.2.0.{sp - 39999}' if s.options else C
            for f in s.packets:
                back, f = f[0] == '<', f.lstrip('<')
                a = (rs(0), s.p, src, sp) if back else (src, sp, V, s.p)
                p = udp(*a) if f == 'udp' else tcp(*a, f)
                (r.send(fromr(p)) if back else c.send(fromc(p)))
            if sp % 16 == 0: c.recv(0.001); r.recv(0.001)
        c.recv(0.01); r.recv(0.01)
def left():
    """by service port: connections, templates"""
    out = {}
    for l in open('/proc/net/ip_vs_conn').read().splitlines()[1:]:
        w = l.split(); k = int(w[4], 16); o = out.setdefault(k, [0, 0]); o[w[2] == '0000'] += 1
    return out
def note(kinds, since):
    x, t = left(), time.time() - since
    for k in kinds: rec(kind=k.what, proto=k.proto, options=k.options, packets=k.packets, opened=N, phase=phase, seconds=round(t, 1), left=x.get(k.p, [0, 0]))
    print(f'{phase} {t:.1f}', {k.what: x.get(k.p, [0, 0]) for k in kinds}, flush=True)
# kinds that wait: TCP 900 s, UDP 300 s
slow = [Kind(f'TCP ESTABLISHED, {n} packets', 'S <SA ' + 'A ' * (n - 1)) for n in (2, 3, 5, 8, 9, 12)]
slow += [Kind(f'UDP, {n} packets', 'udp ' * n, '-u') for n in (1, 2, 4, 8, 9)] + [Kind('UDP, 2 packets and 8 replies', 'udp udp' + ' <udp' * 8, '-u')]
slow += [Kind('UDP, 4 packets, persistent, answered', 'udp <udp udp udp udp', '-u', '-p 900'), Kind('UDP, 1 packet, persistent', 'udp', '-u', '-p 900'), Kind('UDP, one-packet, persistent', 'udp', '-u', '-o -p 900'), Kind('UDP, one-packet, persistent, 4 packets', 'udp ' * 4, '-u', '-o -p 900'), Kind('UDP, one-packet, persistent, 9 packets', 'udp ' * 9, '-u', '-o -p 900'), Kind('TCP CLOSE, persistent, established before', 'S <SA A R', '-t', '-p 900')]
for k in slow: k.open()
start = time.time(); phase = 'off'; note(slow, start)
time.sleep(20); phase = 'on, idle for 20 s'; on = time.time(); vs('drop_entry', 3)
for t in range(3): time.sleep(8); note(slow, on)
vs('drop_entry', 0); time.sleep(max(0, 64 - (time.time() - start)))
phase = 'on, idle for 64 s'; vs('drop_entry', 3); on = time.time()
for t in range(5): time.sleep(8); note(slow, on)
vs('drop_entry', 0)
# kinds that are young, or soon over
quick = [Kind('TCP SYN_RECV', 'S'), Kind('TCP FIN_WAIT', 'S <SA A FA'), Kind('TCP CLOSE_WAIT', 'S <SA A <FA'), Kind('TCP TIME_WAIT', 'S <SA A FA <FA'), Kind('TCP SYN_RECV, persistent', 'S', '-t', '-p 900'), Kind('TCP ESTABLISHED', 'S <SA A')]
for k in quick: k.open()
phase = 'quick'; vs('drop_entry', 3); on = time.time(); note(quick, on)
for t in range(4): time.sleep(8); note(quick, on)
vs('drop_entry', 0)
