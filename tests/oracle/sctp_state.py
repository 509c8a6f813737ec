"""The SCTP state table, asked of the kernel: for each state x direction x what a packet begins with."""
from lib import *
c, r = setup(); rec = Rec('sctp_state')
h = lambda t, n: struct.pack('!BBH', t, 0, n)
EV = {str(t): dict(chunks=[t]) for t in range(16)}
EV.update({'192': dict(chunks=[192]), '255': dict(chunks=[255]), '10+6': dict(chunks=[10, 6]), '11+6': dict(chunks=[11, 6]), '10+0': dict(chunks=[10, 0]), '11+7': dict(chunks=[11, 7]), '10+0+6': dict(chunks=[10, 0, 6]),
    '0+6': dict(chunks=[0, 6]), '7+6': dict(chunks=[7, 6]), 'none': dict(raw=b''), '2 bytes of 7': dict(raw=h(7, 4)[:2])})
ODD = {'10 (padded)+6': dict(raw=h(10, 6) + b'ab\0\0' + h(6, 4)), '10 (length 3)+6': dict(raw=h(10, 3) + h(6, 4)), '10 (length 4000)+6': dict(raw=h(10, 4000) + h(6, 4)), '10 (length 65535)': dict(raw=h(10, 65535) + h(6, 4)),
    '10+2 bytes of 6': dict(raw=h(10, 4) + h(6, 4)[:2]), '10 (64 bytes)+6': dict(raw=h(10, 64) + bytes(60) + h(6, 4)), '10 (804 bytes)+6': dict(raw=h(10, 804) + bytes(800) + h(6, 4)), 'ports': None, '8 bytes': None, '11 bytes': None}
port = [1000]
def pkt(d, ev, p):
    a = (C, 40000, V, p) if d == 'in' else (rs(0), p, C, 40000) if d == 'out' else (V, p, C, 40000)
    if ev in ODD and ODD[ev] is None:
        n = dict(ports=4, **{'8 bytes': 8, '11 bytes': 11})[ev]; f = ip(a[0], a[2], 132, sctp(*a)[20:20 + n])
    else: f = sctp(*a, **(EV[ev] if ev in EV else ODD[ev]))
    if d == 'in': c.send(fromc(f))
    else: r.send(fromr(f))
NAMES = 'NONE INIT1 INIT C-SENT C-REPLIED C-WAIT COOKIE C-ECHOED ESTABLISHED S-SENT S-RECEIVED S-ACK-SENT REJECTED CLOSED'.split()
def sync(p, st):
    m = struct.pack('!BBHIHHHHII', 0, 132, 36, 0 if st == 8 else 0x100, st, 40000, p, p, 0, 700) + pa(C) + pa(V) + pa(rs(0))
    m = struct.pack('!BBHBbH', 0, 0, 8 + len(m), 1, 1, 0) + m
    c.send(eth('01005e000051', MC, udp(C, 9999, '224.0.0.81', 8848, m, ttl=1)))
def snap(e): return next((k for k in TIMES if k - 3 <= e <= k), e)
TIMES = (2, 4, 10, 30, 60, 120, 300, 700, 900)
def batch(fwd, tag, sets, tests):
    """tests: (state, path, direction, event), two dozen at a time; states last four seconds at least (but for NONE)"""
    done = []
    for i in range(0, len(tests), 24):
        part = [(port[0] + n + 1, t) for n, t in enumerate(tests[i:i + 24])]; port[0] += len(part)
        sh('ipvsadm -R', ''.join(f'-A --sctp-service {V}:{p} -s rr\n-a --sctp-service {V}:{p} -r {rs(0)}:{p} {fwd} -w 1\n' for p, _ in part))
        for p, (st, path, d, ev) in part:
            for a in path:
                if a[0] == 'sync': sync(p, a[1]); time.sleep(0.01)
                else: pkt(a[0], a[1], p)
        c.recv(0.001); r.recv(0.001)
        for p, (st, path, d, ev) in part: pkt(d, ev, p)
        rows = {x['vp']: x for x in conns()}; dd = dests(); fr, fc = r.recv(0.004), c.recv(0.001)
        for p, (st, path, d, ev) in part:
            x = rows.get(p, {}); o = dict(tag=tag, sysctl=sets, forward=fwd, state=st, path=[list(a) for a in path], direction=d, event=ev, next=x.get('state'), expires=x.get('expires') if 'expires' not in x else snap(x['expires']),
                active=dd[p, rs(0), p][2], inactive=dd[p, rs(0), p][3], forwarded_to_server=sum(struct.unpack('!H', f[36:38])[0] == p for f in fr if f[23] == 132),
                sent_to_client=[ftxt(f) for f in fc if f'SCTP {p}>' in ftxt(f) or f'>{p} ' in ftxt(f) or p in struct.unpack('!HH', (f + bytes(99))[62:66])])
            rec(**o); done.append(o)
        sh('ipvsadm -R', ''.join(f'-D --sctp-service {V}:{p}\n' for p, _ in part))
    return done
def walk(fwd, dirs, tag, events, plant=True, **sets):
    for k, v in sets.items(): vs(k, v)
    t0 = time.monotonic(); known = {'(no connection)': []}; queue = [('(no connection)', [])]
    while queue:
        st, path = queue.pop(0)
        for o in batch(fwd, tag, sets, [(st, path, d, ev) for d in dirs for ev in events]):
            if o['next'] and o['next'] not in known: pp = path + [(o['direction'], o['event'])]; known[o['next']] = pp; queue.append((o['next'], pp))
    for n, st in enumerate(NAMES):
        if plant and st not in known: batch(fwd, tag + '+sync', sets, [(st, [('sync', n)], d, ev) for d in dirs for ev in events])
    print(tag, fwd, known, port[0], time.monotonic() - t0, flush=True)
sh('modprobe ip_vs; ipvsadm -A -t 10.9.9.9:9 -s rr; ipvsadm --start-daemon backup --mcast-interface dc'); time.sleep(0.5)
sysctl('net.ipv4.conf.all.accept_local', 1)
vs('conn_reuse_mode', 0)
walk('-m', ['in', 'out'], 'default', EV)
walk('-g', ['in', 'out_vip'], 'default', EV)
walk('-i', ['in'], 'default', EV)
open_ = [('in', '1'), ('out', '2'), ('in', '10'), ('out', '11')]
batch('-m', 'odd', {}, [(st, path, d, ev) for st, path in (('ESTABLISHED', open_), ('(no connection)', [])) for d in ('in', 'out') for ev in ODD])
vs('sloppy_sctp', 1)
for f in ('-m', '-g'): batch(f, 'sloppy', dict(sloppy_sctp=1), [('(no connection)', [], 'in', ev) for ev in list(EV) + list(ODD)])
