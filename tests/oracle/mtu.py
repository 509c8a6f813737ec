"""Packets bigger than the way on."""
from lib import *
b = Bench('mtu', mtu_c=1500, mtu_r=1500)
pn = [100]
def svc(vip, proto, r, o):
    pn[0] += 1; p = pn[0]; sh('ipvsadm -R', f'-A {proto} {q(vip)}:{p} -s rr\n-a {proto} {q(vip)}:{p} -r {q(r)}:{p} {o} -w 1\n'); return p
def flush(): sh('ip route flush cache; ip -6 route flush cache', check=False)
for pm in (1, 0):
    vs('pmtu_disc', pm)
    for fam in (4, 6):
        cl, vip, r0 = (C, V, rs(0)) if fam == 4 else (C6, V6, rs6(0)); n = fam == 6 and 20 or 0
        for name, o, rr in (('TUN', '-i', r0), ('TUN' + ('4in6' if fam == 4 else '6in4'), '-i', rs6(0) if fam == 4 else rs(0)), ('DR', '-g', r0), ('NAT', '-m', r0)):
            for mtu in ((1500,) if name[:3] == 'TUN' else (1400,)):
                sh(f'ip link set dr mtu {mtu}'); flush()
                p = svc(vip, '-t', rr, o); k = dict(sysctl=dict(pmtu_disc=pm), mtu_towards_server=mtu)
                b.case(f'{name} IPv{fam}: SYN', 'c', tcp(cl, 40000, vip, p, 'S'), **k); b.case(f'{name} IPv{fam}: ACK', 'c', tcp(cl, 40000, vip, p, 'A'), **k)
                for df in ((1, 0) if fam == 4 else (1,)):
                    b.case(f'{name} IPv{fam}: 1500 bytes' + (f' DF {df}' if fam == 4 else ''), 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(1460 - n), **(dict(df=df, id=0x3333) if fam == 4 else {})), **k)
                    b.case(f'{name} IPv{fam}: 1500 bytes again' + (f' DF {df}' if fam == 4 else ''), 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(1460 - n), **(dict(df=df, id=0x3334) if fam == 4 else {})), **k)
                    b.case(f'{name} IPv{fam}: 1480 bytes' + (f' DF {df}' if fam == 4 else ''), 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(1440 - n), **(dict(df=df) if fam == 4 else {})), **k)
                    b.case(f'{name} IPv{fam}: 1481 bytes' + (f' DF {df}' if fam == 4 else ''), 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(1441 - n), **(dict(df=df) if fam == 4 else {})), **k)
                    if name[:3] == 'TUN':
                        for ln in (1460, 1461): b.case(f'{name} IPv{fam}: {ln} bytes' + (f' DF {df}' if fam == 4 else ''), 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(ln - 40 - n), **(dict(df=df) if fam == 4 else {})), **k)
                u = svc(vip, '-u', rr, o)
                for df in ((1, 0) if fam == 4 else (1,)): b.case(f'{name} IPv{fam}: UDP new flow, 1500 bytes' + (f' DF {df}' if fam == 4 else ''), 'c', udp(cl, 40000 + df, vip, u, pl=bytes(1472 - n), **(dict(df=df) if fam == 4 else {})), **k)
                if name == 'NAT':
                    sh('ip link set dr mtu 1500; ip link set dc mtu 1400'); k = dict(sysctl=dict(pmtu_disc=pm), mtu_towards_client=1400)
                    for df in ((1, 0) if fam == 4 else (1,)):
                        b.case(f'{name} IPv{fam}: reply 1500 bytes' + (f' DF {df}' if fam == 4 else ''), 'r', tcp(rr, p, cl, 40000, 'A', pl=bytes(1460 - n), **(dict(df=df) if fam == 4 else {})), **k)
                    sh('ip link set dc mtu 1500')
                sh('ip link set dr mtu 1500')
# an ICMP frag-needed from the path between the director and the tunnel's server (about the outer packet)
vs('pmtu_disc', 1); flush()
for fam in (4, 6):
    cl, vip, r0 = (C, V, rs(0)) if fam == 4 else (C6, V6, rs6(0)); n = fam == 6 and 20 or 0
    for name, o in (('TUN', '-i'), ('TUN gre', '-i --tun-type gre'), ('TUN gue', '-i --tun-type gue --tun-port 6080')):
        p = svc(vip, '-t', r0, o); b.case(f'{name} IPv{fam}: SYN', 'c', tcp(cl, 40000, vip, p, 'S')); b.case(f'{name} IPv{fam}: ACK', 'c', tcp(cl, 40000, vip, p, 'A'))
        oc, orr = b.case(f'{name} IPv{fam}: 1400 bytes DF', 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(1360 - n)))
        if orr:
            outer = orr[0][14:]; router = '10.1.0.20' if fam == 4 else 'fd01::20'
            qn = outer[:28 + 60] if fam == 4 else outer[:1232]
            b.case(f'{name} IPv{fam}: a router on the way says ' + ('frag needed 1300' if fam == 4 else 'packet too big 1300') + ' about the outer packet', 'r', icmp(router, '10.1.0.1' if fam == 4 else 'fd01::1', 3 if fam == 4 else 2, 4 if fam == 4 else 0, 1300, qn), i=9)
            b.case(f'{name} IPv{fam}: 1400 bytes DF after that', 'c', tcp(cl, 40000, vip, p, 'A', pl=bytes(1360 - n)))
            b.case(f'{name} IPv{fam}: a router says host unreachable / no route about the outer packet', 'r', icmp(router, '10.1.0.1' if fam == 4 else 'fd01::1', 3 if fam == 4 else 1, 1 if fam == 4 else 0, 0, qn), i=9)
            b.case(f'{name} IPv{fam}: the server says protocol unreachable about the outer packet', 'r', icmp(r0, '10.1.0.1' if fam == 4 else 'fd01::1', 3 if fam == 4 else 4, 2 if fam == 4 else 1, 0, qn))
            b.case(f'{name} IPv{fam}: a router says time exceeded about the outer packet', 'r', icmp(router, '10.1.0.1' if fam == 4 else 'fd01::1', 11 if fam == 4 else 3, 0, 0, qn), i=9)
        flush()
