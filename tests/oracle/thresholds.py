"""What `ipvsadm -e` with other thresholds does to a destination with so many connections: how many new ones it takes then."""
from lib import *
b = Bench('thresholds'); port = [100]
def accepted(p, first, n):
    got = 0
    for i in range(n):
        b.c.send(fromc(tcp(C, first + i, V, p, 'S'))); got += bool(b.r.recv(0.02)); b.c.recv(0.005)
    return got
def words(x, y): return f'-x {x} -y {y}'
for before in ((0, 0), (3, 0), (3, 2), (9, 0), (9, 5)):
    for sent in (0, 2, 3, 5, 6, 8):
        for after in ((0, 0), (3, 0), (4, 0), (5, 0), (5, 2), (5, 4), (6, 0), (8, 3), (10, 8)):
            port[0] += 1; p = port[0]
            sh(f'ipvsadm -A -t {V}:{p} -s rr; ipvsadm -a -t {V}:{p} -r {rs(0)}:80 -m {words(*before)}')
            conns = accepted(p, 1000, sent)
            sh(f'ipvsadm -e -t {V}:{p} -r {rs(0)}:80 -m {words(*after)}')
            then = accepted(p, 2000, 3)
            b.rec(before=before, sent=sent, conns=conns, after=after, then=then); print(before, sent, conns, after, then)
            sh(f'ipvsadm -D -t {V}:{p}')
