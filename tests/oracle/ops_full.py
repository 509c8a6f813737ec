"""A flow, then -E -o, then single packets: whether thresholds (-x upper -y lower) end them."""
from lib import *
b = Bench('ops_full')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
def go(cp, p):
    b.drain(); b.c.send(fromc(udp(C, cp, V, p))); n = len(b.r.recv()); b.c.recv(0.005); return n
p = 100
for flows in (0, 1, 2, 3):
    for upper, lower in ((1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 3), (4, 0), (4, 2), (4, 3), (5, 0)):
        p += 1
        sh(f'ipvsadm -A -u {V}:{p} -s rr; ipvsadm -a -u {V}:{p} -r {rs(0)}:80 -m -x {upper} -y {lower}')
        taken = sum(go(1000 + k, p) for k in range(flows))
        sh(f'ipvsadm -E -u {V}:{p} -s rr -o')
        then = [go(2000 + k, p) for k in range(3)]
        b.rec(flows=flows, thresholds=[upper, lower], taken=taken, then=then); print(flows, upper, lower, taken, then, flush=True)
        sh(f'ipvsadm -D -u {V}:{p}')
