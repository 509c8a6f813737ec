"""A service or destination that is deleted and added again while connections of before live on: what counts, and where."""
from lib import *
b = Bench('readd')
def st():
    time.sleep(2.3) # the kernel adds its per-CPU counters up every 2 s
    rows = {}
    for l in shx('ipvsadm -Ln --stats --exact')['stdout'].splitlines()[3:]:
        w = l.split(); rows[' '.join(w[:2])] = [int(x) for x in w[2:7]]
    tot = open('/proc/net/ip_vs_stats').read().splitlines()[2].split()
    cpu = open('/proc/net/ip_vs_stats_percpu').read().splitlines()[2:]
    cpus = [[int(x, 16) for x in l.split()[1:]] for l in cpu[:[i for i, l in enumerate(cpu) if l.strip().startswith('~')][0]]]
    return dict(rows=rows, total=[int(x, 16) for x in tot], cpus=[sum(c) for c in zip(*cpus)])
def step(what, commands=(), packets=(), ):
    for c in commands: sh('ipvsadm ' + c)
    for frm, k in packets: (b.c if frm == 'c' else b.r).send(fromc(k) if frm == 'c' else fromr(k)); time.sleep(0.05)
    e = st(); b.rec(step=what, commands=list(commands), packets=[[f, k.hex()] for f, k in packets], **e); print(what, e)
r = rs(0)
svc, dst = f'-A -t {V}:80 -s rr', f'-a -t {V}:80 -r {r}:80 -m'
gone, dgone = f'-D -t {V}:80', f'-d -t {V}:80 -r {r}:80'
syn, ack = ('c', tcp(C, 40000, V, 80, 'S')), ('c', tcp(C, 40000, V, 80, 'A', pl=b'x' * 100))
sa, data = ('r', tcp(r, 80, C, 40000, 'SA')), ('r', tcp(r, 80, C, 40000, 'PA', pl=b'y' * 300))
step('a connection', [svc, dst], [syn, sa, ack, data])
step('the service is deleted', [gone], [])
step('packets of the connection meanwhile', [], [ack, data])
step('the service comes back without destinations', [svc], [])
step('packets meanwhile', [], [ack, data])
step('the destination comes back', [dst], [])
step('packets of the old connection', [], [ack, data])
step('the destination is deleted', [dgone], [])
step('packets while it is gone', [], [ack, data])
step('the destination comes back to the service that it left', [dst], [])
step('packets after that', [], [ack, data])
step('the service is zeroed', [f'-Z -t {V}:80'], [])
step('all is zeroed', ['-Z'], [])
step('packets after that', [], [ack, data])
step('the service is deleted', [gone], [])
step('another one has the destination', [f'-A -t {V}:81 -s rr', f'-a -t {V}:81 -r {r}:80 -m'], [ack, data])
step('all is deleted', ['-C'], [])
