"""Packets bigger than the route's MTU (not the link's), locked or not, both ways, by masquerading; and a path MTU that the director itself has learnt."""
from lib import *
b = Bench('mtu_route', mtu_c=1500, mtu_r=1500); p = 100
for fam in (4, 6):
    cl, vip, r0 = (C, V, rs(0)) if fam == 4 else (C6, V6, rs6(0)); n = fam == 6 and 20 or 0; q = (lambda a: f'[{a}]') if fam == 6 else (lambda a: a); ln = 32 if fam == 4 else 128
    for lock in ('', 'lock '):
        p += 1; sh('ipvsadm -R', f'-A -t {q(vip)}:{p} -s rr\n-a -t {q(vip)}:{p} -r {q(r0)}:{p} -m -w 1\n'); k = dict(route_mtu=1400, locked=bool(lock))
        sh(f'ip route add {r0}/{ln} dev dr mtu {lock}1400; ip route add {cl}/{ln} dev dc mtu {lock}1450')
        for f in 'SA': b.case(f'IPv{fam}: {f}', 'c', tcp(cl, 40000, vip, p, f), **k)
        b.case(f'IPv{fam}: 1500 bytes', 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(1460 - n)), **k); b.case(f'IPv{fam}: 1400 bytes', 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(1360 - n)), **k)
        b.case(f'IPv{fam}: reply 1500 bytes', 'r', tcp(r0, p, cl, 40000, 'A', pl=bytes(1460 - n)), **k); b.case(f'IPv{fam}: reply 1450 bytes', 'r', tcp(r0, p, cl, 40000, 'A', pl=bytes(1410 - n)), **k)
        sh(f'ip route del {r0}/{ln} dev dr; ip route del {cl}/{ln} dev dc')
