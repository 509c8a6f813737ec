"""schedule_icmp: ICMP errors about packets of no connection, and what the connections that they open do next."""
from lib import *
b = Bench('schedule_icmp'); vs('schedule_icmp', 1)
port = [300]
def error(fam, proto, p, sp, client=None, ttl=50):
    """a port unreachable from the client about the service's packet to it"""
    cl, vip = (client or C, V) if fam == 4 else (client or C6, V6)
    x = dict(t=lambda: tcp(vip, p, cl, sp, 'A', pl=bytes(40)), u=lambda: udp(vip, p, cl, sp, bytes(40)), s=lambda: sctp(vip, p, cl, sp, (0,)))[proto]()
    return icmp(cl, vip, *((3, 3) if fam == 4 else (1, 4)), 0, x[:(20 if fam == 4 else 40) + 8], ttl=ttl)
def client(fam, proto, p, sp):
    cl, vip = (C, V) if fam == 4 else (C6, V6)
    return dict(t=lambda: tcp(cl, sp, vip, p, 'A'), u=lambda: udp(cl, sp, vip, p), s=lambda: sctp(cl, sp, vip, p, (0,)))[proto]()
FW = dict(NAT='-m', DR='-g', TUN='-i')
def case(what, fam, proto, fw='NAT', options='', weight=1, sysctls={}, ttl=50, service=True, then=True):
    port[0] += 1; p = port[0]; vip, r0, r1 = (V, rs(0), rs(1)) if fam == 4 else (V6, rs6(0), rs6(1)); flag = {'t': '-t', 'u': '-u', 's': '--sctp-service'}[proto]
    cmds = [f'-A {flag} {q(vip)}:{p} -s rr {options}'.strip()] + [f'-a {flag} {q(vip)}:{p} -r {q(r)}:{8080 if fw == "NAT" else p} {FW[fw]} -w {weight}' for r in (r0, r1)] if service else []
    [sh('ipvsadm ' + x) for x in cmds]
    k = dict(commands=cmds, sysctls=sysctls, port=p); old = {n: vs(n) for n in sysctls}; [vs(n, v) for n, v in sysctls.items()]
    t = f'{fw} IPv{fam} {proto} {what}'
    b.case(f'{t}: error', 'c', error(fam, proto, p, 40000, ttl=ttl), **k)
    if then:
        b.case(f'{t}: another about the same', 'c', error(fam, proto, p, 40000), **k)
        b.case(f'{t}: the client, after that', 'c', client(fam, proto, p, 40000), **k)
        b.case(f'{t}: about another connection', 'c', error(fam, proto, p, 40001), **k)
    b.rec(case=f'{t}: connections', commands=cmds, sysctls=sysctls, port=p, rows=[[x['proto'], x['cp'], x['d'], x['state']] for x in conns() if x['vp'] == p], dests=[[k[1], *v] for k, v in dests().items() if k[0] == p]); print(t, [x for x in conns() if x['vp'] == p])
    [vs(n, v) for n, v in old.items()]
    if service: sh(f'ipvsadm -D {flag} {q(vip)}:{p}')
for fam in (4, 6):
    for proto in 'tus':
        for fw in FW: case('plain', fam, proto, fw)
    case('persistent', fam, 't', options='-p 60'); case('one-packet', fam, 'u', options='-o')
    case('no destination', fam, 't', weight=0); case('no destination', fam, 'u', weight=0); case('no service', fam, 't', service=False)
    case('ttl 1', fam, 't', ttl=1, then=False); case('drop_packet=3', fam, 't', sysctls=dict(drop_packet=3))
    case('schedule_icmp=0', fam, 't', sysctls=dict(schedule_icmp=0))
