"""Exact frames in and out: NAT, DR, TUN x IPv4, IPv6, mixed tunnels; TTL, outer headers, checksums, options, ttl 1."""
from lib import *
b = Bench('rewrite')
def svc(a, p, dests, proto='-t', **k):
    v = f'[{a}]' if ':' in a else a
    sh('ipvsadm -R', f'-A {proto} {v}:{p} -s rr\n' + ''.join(f'-a {proto} {v}:{p} -r ' + (f'[{d}]' if ':' in d else d) + f':{q} {o} -w 1\n' for d, q, o in dests))
def clear(): sh('ipvsadm -C'); 
pn = [100]
for fam in (4, 6):
    cl, vip, r0 = (C, V, rs(0)) if fam == 4 else (C6, V6, rs6(0))
    for name, o, dp in (('NAT', '-m', 8080), ('DR', '-g', None), ('TUN', '-i', None), ('TUN4in6' if fam == 4 else 'TUN6in4', '-i', None)):
        if name in ('TUN4in6', 'TUN6in4'): r0 = rs6(0) if fam == 4 else rs(0)
        for proto in ('tcp', 'udp'):
            pn[0] += 1; p = pn[0]; q = dp or p; tag = f'{name} IPv{fam}'
            try: svc(vip, p, [(r0, q, o)], '-t' if proto == 'tcp' else '-u')
            except Exception as e: b.rec(case=tag + ' ' + proto, refused=str(e)); print(tag, 'REFUSED', e); continue
            kw = dict(tos=0x28) if fam == 4 else dict(tos=0x28, flow=0xabcde)
            if proto == 'tcp':
                mss = bytes.fromhex('020405b4' '0402080a0000000100000000' '01030307')
                b.case(f'{tag}: TCP SYN', 'c', tcp(cl, 40000, vip, p, 'S', opts=mss, **kw))
                if name == 'NAT': b.case(f'{tag}: reply SYN+ACK', 'r', tcp(r0, q, cl, 40000, 'SA', opts=mss, **kw))
                b.case(f'{tag}: TCP ACK', 'c', tcp(cl, 40000, vip, p, 'A', **kw))
                b.case(f'{tag}: TCP data', 'c', tcp(cl, 40000, vip, p, 'PA', pl=b'GET / HTTP/1.0\r\n\r\n', **kw))
                if name == 'NAT': b.case(f'{tag}: reply data', 'r', tcp(r0, q, cl, 40000, 'PA', pl=b'HTTP/1.0 200 OK\r\n\r\n', **kw))
                b.case(f'{tag}: TCP data bad checksum', 'c', (lambda x: x[:-1] + b'?')(tcp(cl, 40000, vip, p, 'PA', pl=b'GET / HTTP/1.0\r\n\r\n', **kw)))
                if name == 'NAT': b.case(f'{tag}: reply data bad checksum', 'r', (lambda x: x[:-1] + b'?')(tcp(r0, q, cl, 40000, 'PA', pl=b'HTTP/1.0 200 OK\r\n\r\n', **kw)))
                for ttl in (1, 2):
                    b.case(f'{tag}: TCP data ttl {ttl}', 'c', tcp(cl, 40000, vip, p, 'PA', pl=b'x' * 20, **dict(kw, ttl=ttl)))
                    if name == 'NAT': b.case(f'{tag}: reply data ttl {ttl}', 'r', tcp(r0, q, cl, 40000, 'PA', pl=b'x' * 20, **dict(kw, ttl=ttl)))
                b.case(f'{tag}: TCP SYN of a new connection, ttl 1', 'c', tcp(cl, 40009, vip, p, 'S', **dict(kw, ttl=1)))
                if fam == 4:
                    nop = bytes.fromhex('01010100'); rr = bytes.fromhex('070704' + '00000000' + '00'); ts = bytes.fromhex('440c0500' '00000000' '00000000')
                    for n, op in (('NOP', nop), ('record route', rr), ('timestamp', ts), ('router alert', bytes.fromhex('94040000'))):
                        b.case(f'{tag}: IP options {n}', 'c', tcp(cl, 40000, vip, p, 'PA', pl=b'opt', opts=b'', **kw)[:0] or ip(cl, vip, 6, tcp(cl, 40000, vip, p, 'PA', pl=b'opt')[20:], opts=op))
                        if name == 'NAT': b.case(f'{tag}: reply IP options {n}', 'r', ip(r0, cl, 6, tcp(r0, q, cl, 40000, 'PA', pl=b'opt')[20:], opts=op))
                if name[:3] == 'TUN':
                    for ecn in range(4):
                        for df in ((0, 1) if fam == 4 else (1,)):
                            b.case(f'{tag}: inner ECN {ecn} DSCP 10 DF {df}', 'c', tcp(cl, 40000, vip, p, 'A', **dict(kw, tos=0x28 | ecn, **(dict(df=df, id=0x2000 + ecn * 2 + df) if fam == 4 else {}))))
                    if fam == 4: b.case(f'{tag}: inner ID 0', 'c', tcp(cl, 40000, vip, p, 'A', **dict(kw, id=0, df=0)))
                    b.case(f'{tag}: inner ttl 200', 'c', tcp(cl, 40000, vip, p, 'A', **dict(kw, ttl=200)))
                    b.case(f'{tag}: inner flow label 0' if fam == 6 else f'{tag}: inner tos 0', 'c', tcp(cl, 40000, vip, p, 'A'))
            else:
                b.case(f'{tag}: UDP', 'c', udp(cl, 40000, vip, p, **kw))
                if name == 'NAT': b.case(f'{tag}: UDP reply', 'r', udp(r0, q, cl, 40000, **kw))
                b.case(f'{tag}: UDP zero checksum', 'c', udp(cl, 40000, vip, p, zero=True, **kw))
                if name == 'NAT': b.case(f'{tag}: UDP zero checksum reply', 'r', udp(r0, q, cl, 40000, zero=True, **kw))
                b.case(f'{tag}: UDP bad checksum', 'c', udp(cl, 40000, vip, p, **kw)[:-1] + b'!')
                b.case(f'{tag}: UDP empty', 'c', udp(cl, 40000, vip, p, pl=b'', **kw))
                if fam == 4:
                    d = udp(cl, 40000, vip, p, pl=bytes(range(256)) * 4)[20:]
                    b.case(f'{tag}: UDP first fragment', 'c', ip(cl, vip, 17, d[:512], df=0, mf=1, id=77)); b.case(f'{tag}: UDP last fragment', 'c', ip(cl, vip, 17, d[512:], df=0, frag=64, id=77))
                    if name == 'NAT':
                        d = udp(r0, q, cl, 40000, pl=bytes(range(256)) * 4)[20:]
                        b.case(f'{tag}: UDP reply first fragment', 'r', ip(r0, cl, 17, d[:512], df=0, mf=1, id=78)); b.case(f'{tag}: UDP reply last fragment', 'r', ip(r0, cl, 17, d[512:], df=0, frag=64, id=78))
            clear()
# NAT to the same port, and checksum corner: rewritten UDP checksum that becomes 0
svc(V, 99, [(rs(0), 99, '-m')], '-u')
found = 0
for n in range(65536):
    u = struct.pack('!HHHH', 40000, 99, 10, 0) + struct.pack('!H', n)
    if l4sum(C, rs(0), 17, u) == 0: found = n; break
b.case('NAT IPv4: UDP whose checksum after the rewrite computes to 0', 'c', udp(C, 40000, V, 99, pl=struct.pack('!H', found)))
clear()
# tunnel types
for o in ('--tun-type gue --tun-port 6000', '--tun-type gue --tun-port 6000 --tun-csum', '--tun-type gue --tun-port 6000 --tun-remcsum', '--tun-type gre', '--tun-type gre --tun-csum'):
    for fam in (4, 6):
        pn[0] += 1; p = pn[0]; cl, vip, r0 = (C, V, rs(0)) if fam == 4 else (C6, V6, rs6(0))
        try: svc(vip, p, [(r0, p, '-i ' + o)])
        except Exception as e: print(o, 'REFUSED', e); b.rec(case=o, refused=str(e)); continue
        b.case(f'TUN {o} IPv{fam}: TCP SYN', 'c', tcp(cl, 40000, vip, p, 'S', tos=0x29)); clear()
# the source address of the tunnel: the route's preferred source
sh(f'ip addr add 10.1.0.99/32 dev dr; ip route add {rs(1)}/32 dev dr src 10.1.0.99')
svc(V, 98, [(rs(1), 98, '-i')]); b.case('TUN IPv4: route with src 10.1.0.99', 'c', tcp(C, 40000, V, 98, 'S')); clear()
