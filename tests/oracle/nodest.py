"""No destination, no connection, overload: what goes back."""
from lib import *
b = Bench('nodest')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
pn = [100]
def svc(vip, proto, dests='', s='rr', extra=''):
    pn[0] += 1; p = pn[0]
    sh('ipvsadm -R', f'-A {proto} {q(vip)}:{p} -s {s} {extra}\n' + ''.join(f'-a {proto} {q(vip)}:{p} -r {d}\n' for d in dests)); return p
for fam in (4, 6):
    cl, vip, r0, r1 = (C, V, rs(0), rs(1)) if fam == 4 else (C6, V6, rs6(0), rs6(1))
    # a VIP the director has as an address, and one it only routes (blackholed locally via fwmark is another matter)
    big = b'D' * 1000
    for what, ds in (('no destinations', []), ('all weights 0', [f'{q(r0)}:80 -m -w 0'])):
        for s in ('rr', 'wlc', 'sh'):
            p = svc(vip, '-t', ds, s)
            b.case(f'IPv{fam} {what} {s}: TCP SYN', 'c', tcp(cl, 40000, vip, p, 'S'))
            if s == 'rr':
                b.case(f'IPv{fam} {what} {s}: TCP SYN ttl 5 tos 0xb8', 'c', tcp(cl, 40001, vip, p, 'S', ttl=5, tos=0xb8))
                b.case(f'IPv{fam} {what} {s}: TCP SYN with 1000 bytes', 'c', tcp(cl, 40002, vip, p, 'S', pl=big))
                for fl in ('SA', 'A', 'FA', 'R', 'RA', 'PA', 'F', ''): b.case(f'IPv{fam} {what} {s}: TCP {fl or "no flags"}', 'c', tcp(cl, 40003, vip, p, fl, pl=b'x' if 'P' in fl else b''))
            u = svc(vip, '-u', ds, s); b.case(f'IPv{fam} {what} {s}: UDP', 'c', udp(cl, 40000, vip, u))
            if s == 'rr': b.case(f'IPv{fam} {what} {s}: UDP with 1300 bytes', 'c', udp(cl, 40000, vip, u, pl=bytes(1300)))
    p = svc(vip, '-t', [f'{q(r0)}:80 -m -w 1']); u = svc(vip, '-u', [f'{q(r0)}:80 -m -w 1'])
    for fl in ('A', 'PA', 'FA', 'R', 'RA', ''): b.case(f'IPv{fam} a live service, no connection: TCP {fl or "no flags"}', 'c', tcp(cl, 40005, vip, p, fl, pl=b'abc' if 'P' in fl else b''))
    # replies of a real server with no connection
    for fl in ('S', 'SA', 'A', 'PA', 'FA', 'R'): b.case(f'IPv{fam} reply of a real server of a NAT service, no connection: TCP {fl}', 'r', tcp(r0, 80, cl, 40006, fl), nat_icmp_send=0)
    b.case(f'IPv{fam} reply of a real server of a NAT service, no connection: UDP', 'r', udp(r0, 80, cl, 40006))
    b.case(f'IPv{fam} the same server, a port of no service: TCP A', 'r', tcp(r0, 81, cl, 40006, 'A'))
    vs('nat_icmp_send', 1)
    b.case(f'IPv{fam} nat_icmp_send=1: no connection: TCP A', 'r', tcp(r0, 80, cl, 40006, 'A'), nat_icmp_send=1); b.case(f'IPv{fam} nat_icmp_send=1: no connection: TCP R', 'r', tcp(r0, 80, cl, 40006, 'R'), nat_icmp_send=1)
    b.case(f'IPv{fam} nat_icmp_send=1: no connection: UDP', 'r', udp(r0, 80, cl, 40006), nat_icmp_send=1); vs('nat_icmp_send', 0)
    # overload
    for s in ('rr', 'wlc', 'ovf'):
        p = svc(vip, '-t', [f'{q(r0)}:80 -m -w 1 -x 1', f'{q(r1)}:80 -m -w 1 -x 1'], s)
        for k in range(3): b.case(f'IPv{fam} -x 1 {s}: SYN {k + 1}', 'c', tcp(cl, 41000 + k, vip, p, 'S'))
    # wildcard, other ports of the VIP, ping of the VIP
    b.case(f'IPv{fam} a port of the VIP without service: SYN', 'c', tcp(cl, 40000, vip, 9999, 'S')); b.case(f'IPv{fam} a port of the VIP without service: UDP', 'c', udp(cl, 40000, vip, 9999))
    b.case(f'IPv{fam} ping the VIP', 'c', icmp(cl, vip, 8 if fam == 4 else 128, 0, 0x00010001, b'0123456789'))
# a VIP which is not the director's address (fwmark or not local): packets are forwarded, not local
p = 7000; sh('ipvsadm -R', f'-A -t 10.9.1.2:{p} -s rr\n'); sh('ip route add 10.9.1.2/32 via ' + rs(3)); b.case('VIP not local (routed on), no destinations: SYN', 'c', tcp(C, 40000, '10.9.1.2', p, 'S'))
sh(f'ipvsadm -a -t 10.9.1.2:{p} -r {rs(0)} -g'); b.case('VIP not local (routed on), DR: SYN', 'c', tcp(C, 40001, '10.9.1.2', p, 'S')); b.case('VIP not local (routed on): ACK, no connection', 'c', tcp(C, 40002, '10.9.1.2', p, 'A'))
# persistent and no destination
p = svc(V, '-t', [], 'rr', '-p 60'); b.case('IPv4 persistent, no destinations: SYN', 'c', tcp(C, 40000, V, p, 'S'))
sh('ip -n ext link set c down' if 0 else 'true')
for k, v in (('drop_packet', 3), ('am_droprate', 1)): vs(k, v)
p = svc(V, '-t', [f'{rs(0)}:80 -m -w 1']); b.case('drop_packet=3 am_droprate=1: SYN', 'c', tcp(C, 40000, V, p, 'S')); b.case('drop_packet=3 am_droprate=1: SYN again', 'c', tcp(C, 40001, V, p, 'S')); u = svc(V, '-u', []); b.case('drop_packet=3 no destinations: UDP', 'c', udp(C, 40000, V, u))
vs('drop_packet', 0); vs('am_droprate', 10)
# cache_bypass: needs a non-local address
vs('cache_bypass', 1); sh(f'ipvsadm -A -t 10.9.1.2:7001 -s rr'); b.case('cache_bypass=1, VIP not local, no destinations: SYN', 'c', tcp(C, 40001, '10.9.1.2', 7001, 'S')); vs('cache_bypass', 0)
print(sh('nstat -az | grep -iE "rst|InCsum" | head', check=False)); print(sh('ipvsadm -Ln --stats', check=False))
