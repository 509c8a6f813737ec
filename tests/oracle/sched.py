"""Which destination is picked, with changes in mid-run: sequences to replay."""
from lib import *
import random, select
c, r = setup(); rec = Rec('sched_changes')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
port = [1000]
class Run:
    def __init__(s, name, sched, weights, flags='', src='port', proto='tcp'):
        port[0] += 1; s.p = port[0]; s.name, s.sched, s.src, s.proto, s.n, s.steps = name, sched, src, proto, 0, []
        s.o = '-t' if proto == 'tcp' else '-u'; s.v = f'{s.o} {V}:{s.p}'; s.w = {}
        s.cmd(f'-A {s.v} -s {sched}' + (f' -b {flags}' if flags else ''))
        for i, w in enumerate(weights): s.add(i, w)
    def cmd(s, a): x = shx('ipvsadm ' + a); s.steps.append(dict(cmd='ipvsadm ' + a, rc=x['rc'])); 
    def add(s, i, w): s.w[i] = w; s.cmd(f'-a {s.v} -r {rs(i)}:80 -m -w {w}')
    def edit(s, i, w): s.w[i] = w; s.cmd(f'-e {s.v} -r {rs(i)}:80 -m -w {w}')
    def delete(s, i): del s.w[i]; s.cmd(f'-d {s.v} -r {rs(i)}:80')
    def one(s):
        k = s.n; s.n += 1
        src, sp = (C, 20000 + k) if s.src == 'port' else ('10.2.%d.%d' % (k * 7 // 250, 1 + k * 7 % 250), 20000)
        c.send(fromc((tcp if s.proto == 'tcp' else udp)(src, sp, V, s.p, *(['S'] if s.proto == 'tcp' else []))))
        f = None; wait = 0
        while 1:
            if select.select([r.s], [], [], wait)[0]:
                x, a = r.s.recvfrom(4000)
                if a[2] != 4 and x[12:14] == b'\x08\0' and x[36:38] == struct.pack('!H', 80) and x[34:36] == struct.pack('!H', sp) and x[26:30] == pa(src): f = socket.inet_ntoa(x[30:34]); break
                continue
            if wait: break
            wait = 0.03
        while select.select([c.s], [], [], 0)[0]: c.s.recv(4000)
        f = f or '-'; s.steps.append(dict(pkt=[src, sp, V, s.p], to=f)); return f
    def pk(s, n): return [s.one() for _ in range(n)]
    def done(s, show=False):
        rec(scenario=s.name, scheduler=s.sched, protocol=s.proto, steps=s.steps)
        if show: print(s.name, ' '.join(('[' + x['cmd'].split(None, 1)[1].replace(s.v + ' ', '').replace(':80 -m', '').replace('10.1.0.', '.') + ']') if 'cmd' in x else x['to'].split('.')[-1] for x in s.steps), flush=True)
        sh(f'ipvsadm -D {s.v}')
        c.recv(0.001); r.recv(0.001)
def last(s, f): return int(f.split('.')[-1]) - 11
# structured: rr, wrr
for S in ('rr', 'wrr'):
    W = [1, 1, 1, 1] if S == 'rr' else [4, 3, 2, 1]
    for n in (1, 2, 3, 4, 5, 6, 9):
        s = Run(f'{S}: after {n} packets delete the destination just picked', S, W); f = s.pk(n)[-1]; s.delete(last(s, f)); s.pk(12); s.done(n < 4)
        s = Run(f'{S}: after {n} packets delete the destination that would be next', S, W); f = s.pk(n)[-1]
        s.delete((last(s, f) - 1) % 4); s.pk(12); s.done(n < 3)
        s = Run(f'{S}: after {n} packets delete and add again the destination just picked', S, W); f = s.pk(n)[-1]; i = last(s, f); s.delete(i); s.add(i, W[i]); s.pk(12); s.done(n < 4)
        s = Run(f'{S}: after {n} packets add a destination', S, W); s.pk(n); s.add(4, 3); s.pk(14); s.done(n < 3)
        s = Run(f'{S}: after {n} packets add a destination of greatest weight', S, W); s.pk(n); s.add(4, 8); s.pk(24); s.done(n < 2)
        s = Run(f'{S}: after {n} packets -e gives the destination just picked another weight', S, W); f = s.pk(n)[-1]; s.edit(last(s, f), 2); s.pk(14); s.done(n < 4)
        s = Run(f'{S}: after {n} packets -e gives the destination just picked weight 0', S, W); f = s.pk(n)[-1]; s.edit(last(s, f), 0); s.pk(14); s.done(n < 4)
        s = Run(f'{S}: after {n} packets -e with the same weight', S, W); f = s.pk(n)[-1]; s.edit(last(s, f), W[last(s, f)]); s.pk(14); s.done(n < 4)
        s = Run(f'{S}: after {n} packets -E with the same scheduler', S, W); s.pk(n); s.cmd(f'-E {s.v} -s {S}'); s.pk(14); s.done(n < 4)
        s = Run(f'{S}: after {n} packets -E with another scheduler (lc)', S, W); s.pk(n); s.cmd(f'-E {s.v} -s lc'); s.pk(10); s.done(n < 3)
        s = Run(f'{S}: after {n} packets -E with another scheduler and back', S, W); s.pk(n); s.cmd(f'-E {s.v} -s lc'); s.cmd(f'-E {s.v} -s {S}'); s.pk(14); s.done(n < 4)
        s = Run(f'{S}: after {n} packets delete all and add them again', S, W); s.pk(n); [s.delete(i) for i in range(4)]; s.one(); [s.add(i, W[i]) for i in range(4)]; s.pk(14); s.done(n < 4)
        s = Run(f'{S}: after {n} packets all to weight 0 and back', S, W); s.pk(n); [s.edit(i, 0) for i in range(4)]; s.one(); s.one(); [s.edit(i, W[i]) for i in range(4)]; s.pk(14); s.done(n < 4)
    s = Run(f'{S}: no destination, then some', S, []); s.one(); s.add(0, 2); s.pk(3); s.add(1, 1); s.pk(6); s.add(2, 3); s.pk(9); s.done(True)
print('structured done', port[0], time.monotonic(), flush=True)
R = random.Random(20261121)
def rand(S, k, flags='', src='port', extra=()):
    nd = R.randint(1, 8); W = [R.randint(0, 6) for _ in range(nd)]
    if not any(W): W[0] = R.randint(1, 6)
    proto = 'tcp' if k % 5 else 'udp'
    s = Run(f'{S}{"-" + flags if flags else ""}-random-{k}', S, W, flags, src, proto)
    at = sorted(R.sample(range(3, 57), 3)); gone = []
    for i in range(60):
        if i in at:
            ops = ['a', 'e', 'd'] if len(s.w) > 1 else ['a', 'e']; op = R.choice(ops + list(extra))
            if op == 'a':
                j = R.choice([x for x in range(12) if x not in s.w]); s.add(j, R.randint(0, 6))
            elif op == 'e': s.edit(R.choice(sorted(s.w)), R.randint(0, 6))
            elif op == 'd': s.delete(R.choice(sorted(s.w)))
            elif op == 'E': s.cmd(f'-E {s.v} -s {S}' + (f' -b {flags}' if flags else ''))
            elif op == 'O': s.sched = S = R.choice(['rr', 'wrr', 'lc', 'wlc', 'sh', 'sed', 'nq']); s.cmd(f'-E {s.v} -s {S}')
        s.one()
    s.done()
for S in ('rr', 'wrr', 'lc', 'wlc'):
    for k in range(15): rand(S, k)
    for k in range(15, 20): rand(S, k, extra=('E', 'O'))
for k in range(15): rand('sh', k, src='addr')
for k in range(15, 20): rand('sh', k, src='addr', flags='sh-fallback')
for k in range(20, 25): rand('sh', k, src='port', flags='sh-port')
for k in range(25, 30): rand('sh', k, src='port', flags='sh-port,sh-fallback')
print('random done', port[0], time.monotonic(), flush=True)
for S in ('sed', 'nq', 'fo', 'ovf'):
    for k in range(8): rand(S, k)
for S in ('dh', 'lblc', 'lblcr'):
    for k in range(6): rand(S, k)
for k in range(6): rand('mh', k, src='addr')
for k in range(6, 10): rand('mh', k, src='port', flags='mh-port')
for k in range(10, 14): rand('mh', k, src='addr', flags='mh-fallback')
print('others done', port[0], time.monotonic(), flush=True)
