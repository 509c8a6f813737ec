"""SCTP: exact frames in and out (NAT, DR, TUN x IPv4, IPv6; checksums, lengths, options), packets that open nothing, ICMP errors about SCTP, INITs of the same addresses and ports again."""
from lib import *
b = Bench('sctp')
sh('modprobe ip_vs; ipvsadm -A -t 10.9.9.9:9 -s rr'); sysctl('net.ipv4.conf.all.accept_local', 1)
def svc(v, p, dests): sh('ipvsadm -R', f'-A --sctp-service {q(v)}:{p} -s rr\n' + ''.join(f'-a --sctp-service {q(v)}:{p} -r {q(d)}:{x} {o} -w 1\n' for d, x, o in dests))
pn = [100]; D = lambda n: chunk(0, bytes(12) + bytes(i & 255 for i in range(n)))
for fam in (4, 6):
    cl, vip = (C, V) if fam == 4 else (C6, V6)
    for name, o, mapped, r0 in (('NAT mapped', '-m', 1, 4), ('NAT', '-m', 0, 4), ('DR', '-g', 0, 4), ('TUN', '-i', 0, 4), ('TUN other family', '-i', 0, 6), ('TUN gue csum', '-i --tun-type gue --tun-port 6000 --tun-csum', 0, 4), ('TUN gre csum', '-i --tun-type gre --tun-csum', 0, 4)):
        srv = (rs(0) if fam == 4 else rs6(0)) if r0 == 4 else (rs6(0) if fam == 4 else rs(0))
        pn[0] += 1; p = pn[0]; x = 8080 if mapped else p; svc(vip, p, [(srv, x, o)]); T = f'{name} IPv{fam}'; nat = name[:3] == 'NAT'
        K = dict(virtual=[vip, p], server=[srv, x], options=o); kw = dict(tos=0x28)
        inn = lambda what, *a, **k: b.case(f'{T}: {what}', 'c', sctp(cl, 40000, vip, p, *a, **dict(kw, **k)), **K)
        out = lambda what, *a, **k: b.case(f'{T}: reply {what}', 'r', sctp(srv, x, cl, 40000, *a, **dict(kw, **k)), **K) if nat else None
        inn('INIT', [1]); out('INIT ACK', [2]); inn('COOKIE ECHO', [chunk(10, bytes(300)), D(8)]); out('COOKIE ACK', [11])
        for n in (0, 1, 3, 4, 17, 255, 256, 1000, 1440 if fam == 4 else 1420): inn(f'DATA of {n}', [D(n)]); out(f'DATA of {n}', [D(n)])
        for s in (0, 1, 0xffffffff): inn(f'checksum {s:#x}', [D(20)], sum=s); out(f'checksum {s:#x}', [D(20)], sum=s)
        inn('checksum off by one bit', [D(20)], sum=crc32c(sctp(cl, 40000, vip, p, [D(20)])[-48:][:8] + bytes(4) + D(20)) ^ 1)
        for t in (1, 2): inn(f'ttl {t}', [D(20)], ttl=t); out(f'ttl {t}', [D(20)], ttl=t)
        if fam == 4:
            op = bytes.fromhex('070b04' + '00' * 8 + '00')
            b.case(f'{T}: IP options', 'c', ip(cl, vip, 132, sctp(cl, 40000, vip, p, [D(9)])[20:], opts=op), **K)
        inn('SHUTDOWN', [7]); out('SHUTDOWN ACK', [8]); inn('SHUTDOWN COMPLETE', [14])
        if name not in ('NAT', 'TUN gue csum', 'TUN gre csum', 'TUN other family'):
            # ICMP errors
            h = 20 if fam == 4 else 40; rt_c, rt_r = ('10.0.0.77', '10.1.0.20') if fam == 4 else ('fd00::77', 'fd01::20'); ty, co = (3, 3) if fam == 4 else (1, 4); ty2, co2 = (3, 4) if fam == 4 else (2, 0)
            rep = sctp(vip, p, cl, 40000, [D(600)], ttl=60); fwd = sctp(cl, 40000, srv if nat else vip, x, [D(600)], ttl=60)
            for n in (4, 8, 12, 548 - h): b.case(f'{T}: ICMP port unreachable about the reply, {n} bytes of SCTP quoted', 'c', icmp(rt_c, vip, ty, co, 0, rep[:h + n], ttl=50), **K)
            b.case(f'{T}: ICMP too big about the reply', 'c', icmp(rt_c, vip, ty2, co2, 1300, rep[:h + 100], ttl=50), **K)
            for n in (8, 500): b.case(f'{T}: ICMP port unreachable about the forwarded packet, {n} bytes of SCTP quoted', 'r', icmp(srv if nat else rt_r, cl, ty, co, 0, fwd[:h + n], ttl=50), i=0 if nat else 9, **K)
            b.case(f'{T}: ICMP too big about the forwarded packet', 'r', icmp(rt_r, cl, ty2, co2, 1300, fwd[:h + 100], ttl=50), i=9, **K)
        sh('ipvsadm -D --sctp-service %s:%d' % (q(vip), p))
    # nothing is opened, or nobody takes it
    for sl in (0, 1):
        vs('sloppy_sctp', sl); pn[0] += 1; p = pn[0]; srv = rs(0) if fam == 4 else rs6(0); svc(vip, p, [(srv, p, '-m')]); K = dict(virtual=[vip, p], server=[srv, p], options='-m', sysctl=dict(sloppy_sctp=sl))
        for n, (what, k) in enumerate((('INIT', dict(chunks=[1])), ('DATA', dict(chunks=[0])), ('ABORT', dict(chunks=[6])), ('COOKIE ECHO, ABORT', dict(chunks=[10, 6])), ('INIT ACK', dict(chunks=[2])), ('SHUTDOWN ACK', dict(chunks=[8])), ('no chunk', dict(raw=b'')), ('two bytes of a chunk', dict(raw=b'\1\0')))):
            b.case(f'IPv{fam} sloppy_sctp {sl}, no connection: {what}', 'c', sctp(cl, 41000 + n, vip, p, **k), **K)
        b.case(f'IPv{fam} sloppy_sctp {sl}, no connection: 8 bytes', 'c', ip(cl, vip, 132, sctp(cl, 41020, vip, p)[20 if fam == 4 else 40:][:8]), **K)
        sh('ipvsadm -D --sctp-service %s:%d' % (q(vip), p))
    vs('sloppy_sctp', 0); pn[0] += 1; p = pn[0]; svc(vip, p, []); b.case(f'IPv{fam}: INIT, no destination', 'c', sctp(cl, 40000, vip, p, [1]), virtual=[vip, p], server=None, options=''); sh('ipvsadm -D --sctp-service %s:%d' % (q(vip), p))
# reuse
b.rec = Rec('sctp_reuse'); port = [2000]
PATH = {'INIT1': [('in', 1)], 'ESTABLISHED': [('in', 1), ('out', 11)], 'S-SENT': [('in', 1), ('out', 7)], 'REJECTED': [('in', 1), ('out', 6)], 'CLOSED': [('in', 1), ('in', 6)]}
def one(fwd, st, change, final, sets, pers=''):
    port[0] += 1; p = port[0]; S = f'--sctp-service {V}:{p}'
    for k, v in sets.items(): vs(k, v)
    sh('ipvsadm -R', f'-A {S} -s rr {pers}\n-a {S} -r {rs(0)}:{p} {fwd} -w 1\n-a {S} -r {rs(1)}:{p} {fwd} -w 1\n'); b.drain(); first = None
    for d, t in PATH[st]:
        b.c.send(fromc(sctp(C, 40000, V, p, [t]))) if d == 'in' else b.r.send(fromr(sctp(rs(first), p, C, 40000, [t]), first))
        if first is None: first = b.r.recv()[0][5] - 11
    b.drain(); x = [x['state'] for x in conns() if x['vp'] == p and x['cp']]
    if change == 'weight0': sh(f'ipvsadm -e {S} -r {rs(first)}:{p} {fwd} -w 0')
    if change == 'deleted': sh(f'ipvsadm -d {S} -r {rs(first)}:{p}')
    res = []
    for n in (0, 1):
        b.c.send(fromc(sctp(C, 40000, V, p, [final]))); a = conns(); fr = b.r.recv()
        res.append(dict(to_server=['first' if f[5] - 11 == first else 'other' for f in fr], conns=[('first' if x['d'] == rs(first) else 'other', x['state'], x['expires']) for x in a if x['vp'] == p and x['cp']]))
    ds = {('first' if k[1] == rs(first) else 'other'): v for k, v in dests().items() if k[0] == p}
    o = dict(sysctl=dict(dict(conn_reuse_mode=1, expire_nodest_conn=0), **sets), forward=fwd, persistent=bool(pers), state=st, path=PATH[st], before=x, change=change, packet=final, first_packet=res[0], same_packet_again=res[1], dests=ds)
    b.rec(**o); print(o, flush=True); vs('conn_reuse_mode', 1); vs('expire_nodest_conn', 0); sh(f'ipvsadm -D {S}')
for st in PATH:
    for m in (0, 1, 2): one('-m', st, 'none', 1, dict(conn_reuse_mode=m))
    for ch in ('weight0', 'deleted'):
        for e in (0, 1):
            for fin in (1, 0): one('-m', st, ch, fin, dict(expire_nodest_conn=e))
for st in ('INIT1', 'CLOSED'):
    one('-g', st, 'none', 1, {}); one('-m', st, 'none', 1, {}, '-p 60'); one('-m', st, 'none', 6, {})
# what listings show
b.rec = Rec('sctp_list'); sh('ipvsadm -C'); rules = f'-A --sctp-service {V}:80 -s rr -p 60\n-a --sctp-service {V}:80 -r {rs(0)}:8080 -m -w 1\n-A --sctp-service [{V6}]:36412 -s wlc\n-a --sctp-service [{V6}]:36412 -r [{rs6(0)}]:36412 -g -w 1\n'
sh('ipvsadm -R', rules); b.c.send(fromc(sctp(C, 40000, V, 80))); b.r.send(fromr(sctp(rs(0), 8080, C, 40000, [2]))); b.c.send(fromc(sctp(C6, 40000, V6, 36412))); time.sleep(0.2)
b.rec(rules=rules, **{c: shx('ipvsadm ' + c) for c in ('-Ln', '-Lnc', '-Sn', '-Ln --stats', '-L', '-Lc')}, proc={n: open('/proc/net/' + n).read() for n in ('ip_vs', 'ip_vs_conn')})
