"""Persistence: rows, renewal, masks, port 0, fwmark, weight 0, deletion. Times in seconds after the start."""
from lib import *
b = Bench('persist'); T0 = time.monotonic()
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
def now(): return round(time.monotonic() - T0, 1)
def lnc(p=None, cl=None):
    return [l for l in sh('ipvsadm -Lnc').splitlines()[2:] if (p is None or f':{p} ' in l)]
def note(case, p=None, **k):
    x = [c for c in conns() if p is None or c['vp'] == p or c['cp'] == 0 and c['vp'] in (p, 0)]; t = lnc(p)
    d = {f'{a[1]}:{a[2]}': v for a, v in dests().items() if a[0] == p}
    b.rec(case=case, t=now(), conns=x, lnc=t, dests=d, **k); print(f'## {case} (t={now()})', k or ''); [print('   ', l) for l in t]; print('    dests', d)
pn = [1000]
def svc(args, dests=((0, 1), (1, 1), (2, 1)), port=None, proto='-t', fw='-m', s='rr'):
    pn[0] += 1; p = pn[0] if port is None else port
    sh('ipvsadm -R', f'-A {proto} {V}:{p} -s {s} {args}\n' + ''.join(f'-a {proto} {V}:{p} -r {rs(i)}:{p} {fw} -w {w}\n' for i, w in dests)); return p
def go(what, cl, cp, p, fl='S', proto='tcp', vip=V):
    b.drain(); b.c.send(fromc(tcp(cl, cp, vip, p, fl) if proto == 'tcp' else udp(cl, cp, vip, p)))
    fr, fc = b.r.recv(), b.c.recv(); to = [socket.inet_ntoa(f[30:34]) + ':' + str(f[36] << 8 | f[37]) for f in fr]; b.rec(case=what, t=now(), packet=[cl, cp, vip, p, fl if proto == 'tcp' else 'udp'], to=to, to_client=[ftxt(f) for f in fc]); print(f'  {what} (t={now()}): {cl}:{cp} -> {vip}:{p} {fl if proto == "tcp" else "udp"} => {to}', [ftxt(f)[26:130] for f in fc]); return to
# slow ones start first; watched at the end of the script
pA = svc('-p 5'); go('A -p 5, connection stays in SYN_RECV', C, 40000, pA)
pB = svc('-p 5'); go('B -p 5, connection reset after 1 s', C, 40000, pB); go('B', C, 40000, pB, 'A')
pC = svc('-p 30'); go('C -p 30, reset after 1 s, a second connection at 20 s', C, 40000, pC); go('C', C, 40000, pC, 'A')
pD = svc('-p 30'); go('D -p 30, data on the connection at 5, 10, 15 s', C, 40000, pD); go('D', C, 40000, pD, 'A')
pE = svc('-p 5'); go('E -p 5, a second connection at 20 s (its template was restarted at 5 s)', C, 40000, pE); go('E', C, 40000, pE, 'A')
tA = time.monotonic(); marks = []
time.sleep(1); go('B', C, 40000, pB, 'R'); go('C', C, 40000, pC, 'R')
# basics
p = svc('-p 60'); go('basic: first', C, 40000, p); note('basic -p 60: after the first SYN', p); go('basic: second', C, 40001, p); go('basic: third', C, 40002, p); note('basic -p 60: after three connections', p); go('basic: another client', '10.0.0.3', 40000, p); go('basic: and another', '10.0.0.4', 40000, p); note('basic -p 60: three clients', p)
time.sleep(2); note('2 s later', p); go('data on the first connection', C, 40000, p, 'A'); note('after data', p); go('a new connection', C, 40003, p); note('after a new connection', p)
print(sh('ipvsadm -Ln')); print(sh('ipvsadm -Ln --persistent-conn')); b.rec(case='listings', ln=sh('ipvsadm -Ln'), pconn=sh('ipvsadm -Ln --persistent-conn'), sn=sh('ipvsadm -Sn'))
p = svc('-p'); go('-p without a value', C, 40000, p); note('-p without a value', p)
p = svc('-p 60 -M 255.255.255.0'); go('mask', '10.0.0.2', 40000, p); go('mask', '10.0.0.200', 40000, p); go('mask: other net', '10.2.0.2', 40000, p); note('-p 60 -M 255.255.255.0', p)
p = svc('-p 60', proto='-u'); go('udp', C, 40000, p, proto='udp'); go('udp', C, 40001, p, proto='udp'); note('-u -p 60', p)
p = svc('-p 60', fw='-g'); go('DR', C, 40000, p); go('DR', C, 40001, p); note('-g -p 60', p)
# port 0
sh('ipvsadm -R', f'-A -t {V}:0 -s rr -p 60\n-a -t {V}:0 -r {rs(3)}:0 -m\n-a -t {V}:0 -r {rs(4)}:0 -m\n'); go('port 0', C, 40000, 7001); go('port 0', C, 40001, 7002); go('port 0', '10.0.0.3', 40001, 7002); note('port 0 service -p 60 (7001)', 7001); note('port 0 service -p 60 (7002)', 7002); note('port 0 templates', 0); print(sh('ipvsadm -Lnc')); print(sh('ipvsadm -Ln | tail -4'))
sh(f'ipvsadm -D -t {V}:0')
# fwmark
sh('nft -f -', 'table ip m { chain p { type filter hook prerouting priority -150; ip daddr 10.9.2.0/24 meta mark set 7; }; }')
sh('ip addr add 10.9.2.1/32 dev lo; ip addr add 10.9.2.2/32 dev lo'); sh('ipvsadm -R', f'-A -f 7 -s rr -p 60\n-a -f 7 -r {rs(3)} -g\n-a -f 7 -r {rs(4)} -g\n')
for vip, pp in (('10.9.2.1', 80), ('10.9.2.2', 443), ('10.9.2.2', 443)): go('fwmark 7', C, 41000 + pp, pp, vip=vip)
go('fwmark 7 udp', C, 41000, 53, proto='udp', vip='10.9.2.2'); print(sh('ipvsadm -Lnc | grep -E "10.9.2|IP  |0.0.0.7"', check=False)); note('fwmark -p 60: all rows with port 0', 0); b.rec(case='fwmark -p 60 rows', lnc=[l for l in lnc() if '10.9.2' in l or l.startswith('IP')])
# weight 0 with a template
for q in (0, 1):
    vs('expire_quiescent_template', q); p = svc('-p 60'); to = go(f'w0 (expire_quiescent_template={q})', C, 40000, p)[0]; ip_ = to.split(':')[0]
    sh(f'ipvsadm -e -t {V}:{p} -r {to} -m -w 0'); go(f'w0 (expire_quiescent_template={q}): a second connection after weight 0', C, 40001, p); go('w0: data on the first', C, 40000, p, 'A'); note(f'weight 0 with a template, expire_quiescent_template={q}', p); go('w0: another client', '10.0.0.3', 40000, p)
vs('expire_quiescent_template', 0)
# deleted with a template
for q in (0, 1):
    vs('expire_nodest_conn', q); p = svc('-p 60'); to = go(f'deleted (expire_nodest_conn={q})', C, 40000, p)[0]
    sh(f'ipvsadm -d -t {V}:{p} -r {to}'); go(f'deleted (expire_nodest_conn={q}): data on the first', C, 40000, p, 'A'); note('deleted, after data', p); go(f'deleted (expire_nodest_conn={q}): a second connection', C, 40001, p); go('deleted: a third connection', C, 40002, p); note(f'destination deleted with a template, expire_nodest_conn={q}', p)
    sh(f'ipvsadm -a -t {V}:{p} -r {to} -m -w 1'); go('added again: data on the first', C, 40000, p, 'A'); go('added again: a new connection', C, 40003, p); note('added again', p)
vs('expire_nodest_conn', 0)
# deleted and added again at once
p = svc('-p 60'); to = go('del+add', C, 40000, p)[0]; sh(f'ipvsadm -d -t {V}:{p} -r {to}; ipvsadm -a -t {V}:{p} -r {to} -m -w 1'); go('del+add: a second connection', C, 40001, p); note('deleted and added again', p)
# all deleted / all weight 0
p = svc('-p 60', dests=((0, 1),)); to = go('single', C, 40000, p)[0]; sh(f'ipvsadm -e -t {V}:{p} -r {to} -m -w 0'); go('single, weight 0: second connection', C, 40001, p); go('single, weight 0: another client', '10.0.0.3', 40001, p); sh(f'ipvsadm -d -t {V}:{p} -r {to}'); go('single, deleted: third connection', C, 40003, p); note('single', p)
# overload with a template
p = svc('-p 60', dests=()); sh('ipvsadm -R', ''.join(f'-a -t {V}:{p} -r {rs(i)}:{p} -m -w 1 -x 2\n' for i in (0, 1))); [go('overload -x 2', C, 40000 + k, p) for k in range(4)]; go('overload: another client', '10.0.0.3', 40000, p); note('-x 2 and persistence: the template carries on past the limit?', p)
# -E
p = svc('-p 60'); go('-E', C, 40000, p); sh(f'ipvsadm -E -t {V}:{p} -s rr -p 100'); go('-E -p 100: second connection', C, 40001, p); note('-E with -p 100', p); sh(f'ipvsadm -E -t {V}:{p} -s rr'); go('-E without -p: third', C, 40002, p); go('fourth', C, 40003, p); note('-E without -p', p); sh(f'ipvsadm -E -t {V}:{p} -s rr -p 60'); go('-E -p again: fifth', C, 40004, p); note('-E -p again', p)
# sh with persistence, -D of the service
p = svc('-p 60'); to = go('-D', C, 40000, p); sh(f'ipvsadm -D -t {V}:{p}'); note('service deleted: rows', p); pn[0] = p - 1; p = svc('-p 60', dests=((1, 1), (2, 1), (0, 1))); go('service added again: data on the first', C, 40000, p, 'A'); go('service added again: new connection', C, 40001, p); note('service added again', p)
# now watch A..D
sec2 = False; done = set(); last = {}
while time.monotonic() - tA < 135:
    t = time.monotonic() - tA
    for at, f in ((5, lambda: go('D data', C, 40000, pD, 'A')), (10, lambda: go('D data', C, 40000, pD, 'A')), (15, lambda: go('D data', C, 40000, pD, 'A')), (20, lambda: go('C second connection', C, 40001, pC)), (20.1, lambda: go('E second connection', C, 40001, pE))):
        if t >= at and at not in done: done.add(at); f()
    rows = {}
    for x in conns():
        if x['vp'] in (pA, pB, pC, pD, pE): rows.setdefault('ABCDE'[(pA, pB, pC, pD, pE).index(x['vp'])], []).append((x['cp'], x['state'], x['expires']))
    b.rec(case='watch', t=round(t, 1), rows=rows); print('watch', round(t, 1), {k: v for k, v in sorted(rows.items())}, flush=True); time.sleep(1.5 if t < 40 else 3)
