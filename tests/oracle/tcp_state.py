"""The TCP state table, asked of the kernel: for each state x direction x flags."""
from lib import *
c, r = setup(); rec = Rec('tcp_state')
EV = ['S', 'SA', 'A', 'F', 'FA', 'R', 'RA', '']
port = [1000]
def pkt(d, fl, p):
    if d == 'in': c.send(fromc(tcp(C, 40000, V, p, fl)))
    elif d == 'out': r.send(fromr(tcp(rs(0), p, C, 40000, fl)))
    elif d == 'out_vip': r.send(fromr(tcp(V, p, C, 40000, fl)))
SYNCST = dict(NONE=0, ESTABLISHED=1, SYN_SENT=2, SYN_RECV=3, FIN_WAIT=4, TIME_WAIT=5, CLOSE=6, CLOSE_WAIT=7, LAST_ACK=8, LISTEN=9, SYNACK=10)
def sync(p, st):
    fl = 0x100 if st in ('NONE', 'LISTEN', 'FIN_WAIT', 'TIME_WAIT', 'CLOSE', 'CLOSE_WAIT', 'LAST_ACK') else 0
    m = struct.pack('!BBHIHHHHII', 0, 6, 36, fl, SYNCST[st], 40000, p, p, 0, 700) + pa(C) + pa(V) + pa(rs(0))
    m = struct.pack('!BBHBbH', 0, 0, 8 + len(m), 1, 1, 0) + m
    c.send(eth('01005e000051', MC, udp(C, 9999, '224.0.0.81', 8848, m, ttl=1)))
def snap(e):
    """what is read is what is left, rounded down: the timeout is the table's next one up"""
    return next((k for k in (10, 30, 60, 77, 120, 200, 300, 700, 900) if k - 3 <= e <= k), e)
def batch(fwd, tests, tag, sets):
    """tests: (from state, path, event) ; returns results"""
    ps = []
    cmd = ''
    for t in tests:
        port[0] += 1; ps.append(port[0]); cmd += f'-A -t {V}:{port[0]} -s rr\n-a -t {V}:{port[0]} -r {rs(0)}:{port[0]} {fwd} -w 1\n'
    sh('ipvsadm -R', cmd)
    c.recv(0.01); r.recv(0.01)
    res = []
    for i in range(0, len(tests), 8):
        chunk = list(zip(tests, ps))[i:i + 8]; out = {}; pre = {}
        for (st, path, ev), p in chunk:
            for a in path:
                if a[0] == 'sync': sync(p, a[1]); time.sleep(0.005)
                else: pkt(a[0], a[1], p)
        for k in range(3):
            for x in conns(): pre[x['vp']] = x
        c.recv(0.005); r.recv(0.005)
        for (st, path, ev), p in chunk:
            if ev: t = time.monotonic(); pkt(ev[0], ev[1], p); out[p] = t
        t1 = time.monotonic(); cs = {}
        for k in range(2):
            for x in conns(): # an entry just replaced may still be listed, with its expiry brought forward
                if x['vp'] not in cs or cs[x['vp']]['expires'] <= x['expires']: cs[x['vp']] = x
        ds = dests(); fc, fr = c.recv(0.01), r.recv(0.01)
        for (st, path, ev), p in chunk:
            x = cs.get(p); d = ds[p, rs(0), p]
            ft = [ftxt(f) for f in fr if f' 40000>{p}' in f'{ptxt(f[14:])}' .replace('TCP ', ' ') or f'40000>{p} ' in ftxt(f)] if 1 else 0
            fcx = [ftxt(f) for f in fc if f'TCP {p}>40000 ' in ftxt(f)]
            o = dict(tag=tag, sysctl=sets, forward=fwd, state=st, path=[list(a) for a in path], before=pre.get(p, {}).get('state'), direction=ev[0] if ev else None, flags=ev[1] if ev else None,
                next=x and x['state'], expires=x and snap(x['expires']), active=d[2], inactive=d[3], forwarded_to_server=len(ft), sent_to_client=len(fcx))
            rec(**o); res.append(o)
    return res
def walk(fwd, dirs, tag, **sets):
    for k, v in sets.items(): vs(k, v)
    known = {}; queue = [('(no connection)', [])]
    known['(no connection)'] = []
    while queue:
        st, path = queue.pop(0)
        res = batch(fwd, [(st, path, (d, f)) for d in dirs for f in EV], tag, sets)
        for o in res:
            if o['next'] and o['next'] not in known: pp = path + [(o['direction'], o['flags'])]; known[o['next']] = pp; queue.append((o['next'], pp))
    for st in SYNCST:
        if st not in known:
            batch(fwd, [(st, [('sync', st)], (d, f)) for d in dirs for f in EV], tag + '+sync', sets)
    print(tag, fwd, {k: v for k, v in known.items()}, flush=True)
    print('  ports used', port[0], time.monotonic(), flush=True)
    sh('ipvsadm -C')
t0 = time.monotonic()
sh('ipvsadm --start-daemon backup --mcast-interface dc'); time.sleep(0.5)
sysctl('net.ipv4.conf.all.accept_local', 1)
walk('-m', ['in', 'out'], 'default')
walk('-g', ['in', 'out', 'out_vip'], 'default')
walk('-i', ['in', 'out'], 'default')
walk('-m', ['in', 'out'], 'reuse0', conn_reuse_mode=0)
walk('-g', ['in'], 'reuse0', conn_reuse_mode=0)
walk('-m', ['in', 'out'], 'sloppy', conn_reuse_mode=0, sloppy_tcp=1)
walk('-g', ['in'], 'sloppy', conn_reuse_mode=0, sloppy_tcp=1)
walk('-m', ['in', 'out'], 'secure', conn_reuse_mode=0, sloppy_tcp=0, secure_tcp=3)
walk('-g', ['in'], 'secure', conn_reuse_mode=0, sloppy_tcp=0, secure_tcp=3)
for k, v in (('conn_reuse_mode', 1), ('secure_tcp', 0)): vs(k, v)
sh('ipvsadm --set 700 77 200')
walk('-m', ['in', 'out'], 'set 700 77 200')
sh('ipvsadm --set 900 120 300')
# UDP
u = Rec('udp_state')
sh('ipvsadm -R', ''.join(f'-A -u {V}:{p} -s rr\n-a -u {V}:{p} -r {rs(0)}:{p} {f} -w 1\n' for p, f in ((1, '-m'), (2, '-g'), (3, '-i'))))
for p, f in ((1, '-m'), (2, '-g'), (3, '-i')):
    for d in ('in', 'out', 'in'):
        if d == 'in': c.send(fromc(udp(C, 40000, V, p)))
        else: r.send(fromr(udp(rs(0), p, C, 40000)))
        x = [x for x in conns() if x['vp'] == p and x['proto'] == 'UDP'][0]; o = dict(forward=f, direction=d, state=x['state'], expires=snap(x['expires']), active=dests()[p, rs(0), p][2], inactive=dests()[p, rs(0), p][3], to_client=len(c.recv()), to_server=len(r.recv())); u(**o); print(o)
