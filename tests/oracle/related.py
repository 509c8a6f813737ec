"""ICMP errors about forwarded packets and about replies."""
from lib import *
b = Bench('related')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr'); sysctl('net.ipv4.conf.all.accept_local', 1)
pn = [100]
for fam in (4, 6):
    cl, vip, r0, rt_c, rt_r = (C, V, rs(0), '10.0.0.77', '10.1.0.20') if fam == 4 else (C6, V6, rs6(0), 'fd00::77', 'fd01::20')
    E = {'frag needed 1300': (3, 4, 1300), 'port unreachable': (3, 3, 0), 'time exceeded': (11, 0, 0), 'parameter problem': (12, 0, 0x14000000), 'source quench': (4, 0, 0)} if fam == 4 else {'packet too big 1300': (2, 0, 1300), 'port unreachable': (1, 4, 0), 'time exceeded': (3, 0, 0), 'parameter problem': (4, 1, 40)}
    for name, o, dp in (('NAT', '-m', 8080), ('DR', '-g', None), ('TUN', '-i', None)):
        for proto in ('tcp', 'udp'):
            pn[0] += 1; p = pn[0]; d = dp or p; pr = '-t' if proto == 'tcp' else '-u'
            sh('ipvsadm -R', f'-A {pr} {q(vip)}:{p} -s rr\n-a {pr} {q(vip)}:{p} -r {q(r0)}:{d} {o} -w 1\n')
            T = f'{name} IPv{fam} {proto}'
            if proto == 'tcp':
                for x in ('S', 'A'): b.c.send(fromc(tcp(cl, 40000, vip, p, x)))
                reply = tcp(vip, p, cl, 40000, 'PA', pl=b'r' * 600, ttl=60); fwd = tcp(cl, 40000, r0 if name == 'NAT' else vip, d, 'PA', pl=b'f' * 600, ttl=60)
                stranger = tcp(vip, p, cl, 40001, 'PA', pl=b'r' * 100); strfwd = tcp(cl, 40001, r0 if name == 'NAT' else vip, d, 'PA', pl=b'f' * 100)
            else:
                b.c.send(fromc(udp(cl, 40000, vip, p)))
                reply = udp(vip, p, cl, 40000, pl=b'r' * 600, ttl=60); fwd = udp(cl, 40000, r0 if name == 'NAT' else vip, d, pl=b'f' * 600, ttl=60)
                stranger = udp(vip, p, cl, 40001, pl=b'r' * 100); strfwd = udp(cl, 40001, r0 if name == 'NAT' else vip, d, pl=b'f' * 100)
            h = 20 if fam == 4 else 40
            for n, (ty, co, rest) in E.items():
                b.case(f'{T}: to the VIP, from a router on the client side: {n} about the reply', 'c', icmp(rt_c, vip, ty, co, rest, reply[:h + 8 if fam == 4 else h + 100], ttl=50))
            ty, co, rest = list(E.values())[1]
            b.case(f'{T}: to the VIP, from the client itself: port unreachable about the reply', 'c', icmp(cl, vip, ty, co, rest, reply[:548 if fam == 4 else 600], ttl=50))
            b.case(f'{T}: to the VIP: port unreachable, ttl 1', 'c', icmp(cl, vip, ty, co, rest, reply[:h + 8], ttl=1))
            b.case(f'{T}: to the VIP: port unreachable, quote of 4 bytes of ports only', 'c', icmp(cl, vip, ty, co, rest, reply[:h + 4], ttl=50))
            b.case(f'{T}: to the VIP: port unreachable, quote without ports', 'c', icmp(cl, vip, ty, co, rest, reply[:h], ttl=50))
            x = icmp(cl, vip, ty, co, rest, reply[:h + 8], ttl=50); b.case(f'{T}: to the VIP: port unreachable, bad ICMP checksum', 'c', x[:h + 2] + b'\x12\x34' + x[h + 4:])
            b.case(f'{T}: to the VIP: port unreachable about no connection', 'c', icmp(cl, vip, ty, co, rest, stranger[:h + 8], ttl=50))
            # the servers' side
            frm = r0
            for n, (ty, co, rest) in E.items():
                if name == 'NAT':
                    b.case(f'{T}: to the client, from the server: {n} about the forwarded packet', 'r', icmp(r0, cl, ty, co, rest, fwd[:h + 8 if fam == 4 else h + 100], ttl=50))
                    b.case(f'{T}: to the client, from a router on the server side: {n} about the forwarded packet', 'r', icmp(rt_r, cl, ty, co, rest, fwd[:h + 8 if fam == 4 else h + 100], ttl=50), i=9)
                else:
                    b.case(f'{T}: to the client, from the server address: {n} about the forwarded packet', 'r', icmp(r0, cl, ty, co, rest, fwd[:h + 8 if fam == 4 else h + 100], ttl=50))
                    b.case(f'{T}: to the client, from the VIP on the server (through the director): {n}', 'r', icmp(vip, cl, ty, co, rest, fwd[:h + 8 if fam == 4 else h + 100], ttl=50))
            ty, co, rest = list(E.values())[1]
            if name == 'NAT':
                b.case(f'{T}: to the client, from the server: port unreachable with 548 bytes quoted', 'r', icmp(r0, cl, ty, co, rest, fwd[:548], ttl=50))
                b.case(f'{T}: to the client, from the server: port unreachable, ttl 1', 'r', icmp(r0, cl, ty, co, rest, fwd[:h + 8], ttl=1))
                b.case(f'{T}: to the client, from the server: port unreachable about no connection', 'r', icmp(r0, cl, ty, co, rest, strfwd[:h + 8], ttl=50))
                x = icmp(r0, cl, ty, co, rest, fwd[:h + 8], ttl=50); b.case(f'{T}: to the client, from the server: port unreachable, bad ICMP checksum', 'r', x[:h + 2] + b'\x12\x34' + x[h + 4:])
            if proto == 'tcp':
                x = conns(); b.rec(case=f'{T}: connections afterwards (an ICMP error changes no state)', conns=x); print(T, 'conns', x)
            vs('schedule_icmp', 1); b.case(f'{T}: schedule_icmp=1: to the VIP: port unreachable about no connection', 'c', icmp(cl, vip, ty, co, rest, stranger[:h + 8], ttl=50)); vs('schedule_icmp', 0)
            b.case(f'{T}: ping the VIP', 'c', icmp(cl, vip, 8 if fam == 4 else 128, 0, 1, b'abc'))
            sh(f'ipvsadm -D {pr} {q(vip)}:{p}')
