"""UDP: the next datagram of a flow after its destination got weight 0, was deleted, was added again, or the service went; expire_nodest_conn 0 and 1."""
from lib import *
b = Bench('reuse_udp'); sh('ipvsadm -A -t 10.9.9.9:9 -s rr'); p = 2000
for en in (0, 1):
    vs('expire_nodest_conn', en)
    for fwd in ('-m', '-g'):
        for ch in ('none', 'weight0', 'all weight0', 'deleted', 'deleted+readded', 'service deleted', 'service deleted+readded'):
            p += 1; sv = f'-u {V}:{p}'
            def add(): sh('ipvsadm -R', f'-A {sv} -s rr\n-a {sv} -r {rs(0)}:{p} {fwd} -w 1\n-a {sv} -r {rs(1)}:{p} {fwd} -w 1\n')
            add(); b.drain(); b.c.send(fromc(udp(C, 40000, V, p))); first = b.r.recv()[0][5] - 11; other = 1 - first
            if ch == 'weight0': sh(f'ipvsadm -e {sv} -r {rs(first)}:{p} {fwd} -w 0')
            if ch == 'all weight0': [sh(f'ipvsadm -e {sv} -r {rs(i)}:{p} {fwd} -w 0') for i in (0, 1)]
            if ch[:7] == 'deleted': sh(f'ipvsadm -d {sv} -r {rs(first)}:{p}')
            if ch == 'deleted+readded': sh(f'ipvsadm -a {sv} -r {rs(first)}:{p} {fwd} -w 1')
            if ch[:15] == 'service deleted': sh(f'ipvsadm -D {sv}')
            if ch == 'service deleted+readded': add()
            res = []
            for n in range(2):
                b.c.send(fromc(udp(C, 40000, V, p))); a = conns(); fr, fc = b.r.recv(), b.c.recv()
                res.append(dict(to_server=['first' if f[5] - 11 == first else 'other' for f in fr], to_client=[ftxt(f) for f in fc], conns=[('first' if x['d'] == rs(first) else 'other', x['state'], x['expires']) for x in a if x['vp'] == p]))
            rp = None
            if fwd == '-m': b.r.send(fromr(udp(rs(first), p, C, 40000), first)); rp = [ftxt(f) for f in b.c.recv()]
            b.rec(sysctl=dict(expire_nodest_conn=en), forward=fwd, change=ch, first_packet=res[0], same_packet_again=res[1], then_a_reply_of_first=rp)
            print(en, fwd, ch, '|', res[0]['to_server'], [x[26:80] for x in res[0]['to_client']], res[0]['conns'], '| again', res[1]['to_server'], res[1]['conns'], '| reply', [x[26:75] for x in rp or []], flush=True)
            if ch != 'service deleted': sh(f'ipvsadm -D {sv}')
# the same with TCP replies: does the server's side of a connection go on when its destination is deleted?
vs('expire_nodest_conn', 0)
for ch in ('none', 'weight0', 'deleted', 'service deleted'):
    p += 1; sv = f'-t {V}:{p}'; sh('ipvsadm -R', f'-A {sv} -s rr\n-a {sv} -r {rs(0)}:{p} -m -w 1\n'); b.c.send(fromc(tcp(C, 40000, V, p, 'S'))); b.c.send(fromc(tcp(C, 40000, V, p, 'A'))); b.drain()
    if ch == 'weight0': sh(f'ipvsadm -e {sv} -r {rs(0)}:{p} -m -w 0')
    if ch == 'deleted': sh(f'ipvsadm -d {sv} -r {rs(0)}:{p}')
    if ch == 'service deleted': sh(f'ipvsadm -D {sv}')
    b.r.send(fromr(tcp(rs(0), p, C, 40000, 'PA', pl=b'x'))); o = [ftxt(f) for f in b.c.recv()]; x = [(y['state'], y['expires']) for y in conns() if y['vp'] == p]
    b.r.send(fromr(tcp(rs(0), p, C, 40000, 'FA'))); o2 = [ftxt(f) for f in b.c.recv()]; x2 = [(y['state'], y['expires']) for y in conns() if y['vp'] == p]
    b.rec(case=f'TCP -m ESTABLISHED, {ch}: reply data, then FIN of the server', to_client=o, conns=x, fin_to_client=o2, conns_after_fin=x2); print('TCP reply', ch, [y[26:100] for y in o], x, [y[26:100] for y in o2], x2)
