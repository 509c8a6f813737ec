"""A SYN of the same 5-tuple for a connection in each state: rescheduled or not; with weight 0; with the destination deleted."""
from lib import *
b = Bench('reuse')
port = [2000]
PATH = dict(SYN_RECV=[('in', 'S')], ESTABLISHED=[('in', 'S'), ('out', 'SA'), ('in', 'A')], FIN_WAIT=[('in', 'S'), ('out', 'SA'), ('in', 'A'), ('out', 'FA')], CLOSE_WAIT=[('in', 'S'), ('out', 'SA'), ('in', 'A'), ('in', 'FA')],
    TIME_WAIT=[('in', 'S'), ('out', 'SA'), ('in', 'A'), ('in', 'FA'), ('out', 'FA')], CLOSE=[('in', 'S'), ('out', 'SA'), ('in', 'A'), ('in', 'R')])
PATHG = dict(SYN_RECV=[('in', 'S')], ESTABLISHED=[('in', 'S'), ('in', 'A')], FIN_WAIT=[('in', 'S'), ('in', 'A'), ('in', 'FA')], TIME_WAIT=[('in', 'S'), ('in', 'F')], CLOSE=[('in', 'S'), ('in', 'A'), ('in', 'R')])
def one(fwd, st, path, change, final, sets):
    """two destinations by rr; the connection goes to the one the kernel picks; then the change; then the final packet"""
    port[0] += 1; p = port[0]
    for k, v in sets.items(): vs(k, v)
    sh('ipvsadm -R', f'-A -t {V}:{p} -s rr\n-a -t {V}:{p} -r {rs(0)}:{p} {fwd} -w 1\n-a -t {V}:{p} -r {rs(1)}:{p} {fwd} -w 1\n')
    b.drain(); first = None
    for d, fl in path:
        if d == 'in': b.c.send(fromc(tcp(C, 40000, V, p, fl)))
        else: b.r.send(fromr(tcp(rs(first), p, C, 40000, fl), first))
        if first is None:
            f = b.r.recv()[0]; first = f[5] - 11
    b.drain(); before = [x for x in conns() if x['vp'] == p]
    other = 1 - first
    if change == 'weight0': sh(f'ipvsadm -e -t {V}:{p} -r {rs(first)}:{p} {fwd} -w 0')
    if change == 'deleted': sh(f'ipvsadm -d -t {V}:{p} -r {rs(first)}:{p}')
    if change == 'deleted+readded': sh(f'ipvsadm -d -t {V}:{p} -r {rs(first)}:{p}; ipvsadm -a -t {V}:{p} -r {rs(first)}:{p} {fwd} -w 1')
    if change == 'service deleted': sh(f'ipvsadm -D -t {V}:{p}')
    if change == 'all weight0': sh(f'ipvsadm -e -t {V}:{p} -r {rs(first)}:{p} {fwd} -w 0; ipvsadm -e -t {V}:{p} -r {rs(other)}:{p} {fwd} -w 0')
    res = []
    for n, fl in enumerate([final, final]): # the same packet twice: the second shows what the first left
        b.c.send(fromc(tcp(C, 40000, V, p, fl))); a = conns(); fr, fc = b.r.recv(), b.c.recv()
        res.append(dict(to_server=['first' if f[5] - 11 == first else 'other' for f in fr], to_client=[ftxt(f) for f in fc], conns=[('first' if x['d'] == rs(first) else 'other', x['state'], x['expires']) for x in a if x['vp'] == p]))
    ds = {('first' if k[1] == rs(first) else 'other'): v for k, v in dests().items() if k[0] == p}
    o = dict(sysctl=dict(dict(conn_reuse_mode=1, expire_nodest_conn=0), **sets), forward=fwd, state=st, path=path, before=[(x['state'], x['expires']) for x in before], change=change, packet=final, first_packet=res[0], same_packet_again=res[1], dests=ds)
    b.rec(**o)
    print(fwd, sets, st, [x['state'] for x in before], '| change', change, '| packet', final, '->', 'to', res[0]['to_server'] or 'nobody', 'client gets', res[0]['to_client'], 'conns', res[0]['conns'], '| again:', res[1]['to_server'], res[1]['conns'], '|', ds, flush=True)
    vs('conn_reuse_mode', 1); vs('expire_nodest_conn', 0)
    if change != 'service deleted': sh(f'ipvsadm -D -t {V}:{p}')
sh(f'ipvsadm -A -t 10.9.9.9:9 -s rr') # with no service at all ip_vs looks at no packet
for st, path in PATH.items():
    for ch in ('none', 'weight0', 'deleted', 'deleted+readded', 'service deleted', 'all weight0'):
        for fin in ('S',) if ch not in ('weight0', 'deleted', 'service deleted', 'deleted+readded') else ('S', 'A'): one('-m', st, path, ch, fin, {})
for st in PATH:
    for ch in ('weight0', 'deleted', 'service deleted'):
        for fin in ('S', 'A'): one('-m', st, PATH[st], ch, fin, dict(expire_nodest_conn=1))
for m in (0, 2, 3):
    for st in PATH: 
        for ch in ('none', 'weight0'): one('-m', st, PATH[st], ch, 'S', dict(conn_reuse_mode=m))
for m in (1, 2, 3):
    for st in PATHG: one('-g', st, PATHG[st], 'none', 'S', dict(conn_reuse_mode=m))
for st in PATHG:
    for ch in ('weight0', 'deleted'): one('-g', st, PATHG[st], ch, 'S', {})
# the last service deleted: ip_vs looks at no packet any more
sh(f'ipvsadm -D -t 10.9.9.9:9')
one('-m', 'ESTABLISHED (last service of all)', PATH['ESTABLISHED'], 'service deleted', 'A', {})
