"""pmtu_disc 0: packets that are too big for a tunnel, and others, by every kind of tunnel and pair of families."""
from lib import *
import lib
lib.conns = lambda: None
b = Bench('pmtu_disc')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
pn = [100]
PAY = bytes((i * 7 + i // 256) & 255 for i in range(4000))
def packet(fam, p, kind, size, df):
    cl, vip = (C, V) if fam == 4 else (C6, V6); h = 20 if fam == 4 else 40; k = dict(df=df, id=0x3333) if fam == 4 else {}
    if kind == 'tcp': return tcp(cl, 40000, vip, p, 'A', pl=PAY[:size - h - 20], **k)
    return udp(cl, 40000, vip, p, pl=PAY[:size - h - 8], **k)
for pm in (0, 1):
    vs('pmtu_disc', pm)
    for fam in (4, 6):
        for outer in (4, 6):
            for name, o, n in (('ipip', '', 0), ('gue', ' --tun-type gue --tun-port 6080', 12), ('gue csum', ' --tun-type gue --tun-port 6080 --tun-csum', 12), ('gre', ' --tun-type gre', 4), ('gre csum', ' --tun-type gre --tun-csum', 8)):
                cl, vip, r = C if fam == 4 else C6, V if fam == 4 else V6, rs(0) if outer == 4 else rs6(0)
                n += 20 if outer == 4 else 40
                for kind in ('tcp', 'udp'):
                    if pm == 1 and (name != 'ipip' or kind == 'udp'): continue
                    pn[0] += 1; p = pn[0]; pr = '-t' if kind == 'tcp' else '-u'
                    sh('ipvsadm -R', f'-A {pr} {q(vip)}:{p} -s rr\n-a {pr} {q(vip)}:{p} -r {q(r)}:{p} -i{o} -w 1\n')
                    m = dict(pmtu_disc=pm, protocol=kind, vip=vip, port=p, server=r, options='-i' + o)
                    T = f'{fam}in{outer} {name} {kind}, pmtu_disc {pm}'
                    if kind == 'tcp': b.case(f'{T}: opens', 'c', tcp(cl, 40000, vip, p, 'S'), **m)
                    for df in (1, 0) if fam == 4 else (1,):
                        D = f', DF {df}' if fam == 4 else ''
                        for size in (200, 1500 - n, 1501 - n, 1500): b.case(f'{T}: {size} bytes{D}', 'c', packet(fam, p, kind, size, df), **m)
                        if name in ('ipip', 'gre csum') and kind == 'tcp':
                            sh('ip link set dr mtu 1340'); sh('sysctl -w net.ipv6.conf.dr.mtu=1340', check=False)
                            for size in (1340 - n, 1301 - n, 1500): b.case(f'{T}: mtu 1340, {size} bytes{D}', 'c', packet(fam, p, kind, size, df), mtu=1340, **m)
                            sh('ip link set dr mtu 1500')
                            sh('ip route flush cache; ip -6 route flush cache', check=False)
                            if outer == 4: # a route of its own
                                sh(f'ip route add {r}/32 dev dr mtu 1350')
                                for size in (1350 - n, 1351 - n): b.case(f'{T}: route mtu 1350, {size} bytes{D}', 'c', packet(fam, p, kind, size, df), route_mtu=1350, **m)
                                sh(f'ip route del {r}/32')
                    if fam == 4 and name == 'ipip' and kind == 'tcp': b.case(f'{T}: options', 'c', (lambda x: (lambda h: h[:10] + struct.pack('!H', csum(h)) + h[12:] + x[20:])(bytes([0x46]) + x[1:2] + struct.pack('!H', len(x) + 4) + x[4:10] + b'\0\0' + x[12:20] + b'\1\1\1\1'))(packet(4, p, kind, 1490, 1)), **m)
                    sh(f'ipvsadm -D {pr} {q(vip)}:{p}')
