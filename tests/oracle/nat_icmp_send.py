"""nat_icmp_send: packets of real servers that belong to no connection: which are answered, by whom, with what."""
from lib import *
import lib
lib.conns = lambda: None
b = Bench('nat_icmp_send')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
def piece(p, at, n, more, ident=0x4242):
    h = 40 if p[0] >> 4 == 6 else 20; pl = p[h:][at:at + n]
    if h == 40: return p[:4] + struct.pack('!HBB', len(pl) + 8, 44, p[7]) + p[8:40] + struct.pack('!BBHI', p[6], 0, at | more, ident) + pl
    return ip(socket.inet_ntoa(p[12:16]), socket.inet_ntoa(p[16:20]), p[9], pl, ttl=p[8], tos=p[1], id=ident, df=0, frag=at // 8, mf=int(more))
todo = []
def run(*lines):
    for l in lines: sh('ipvsadm ' + l); todo.append(l)
def case(what, p, frm='r', **k):
    b.case(what, frm, p, commands=list(todo), **k); todo.clear()
opts = dict(tcp='-t', udp='-u', sctp='--sctp-service')
vs('nat_icmp_send', 1)
for fam in (4, 6):
    cl, vip, r0, r1, own, far, away = (C, V, rs(0), rs(1), '10.1.0.1', '10.0.0.1', '192.0.2.1') if fam == 4 else (C6, V6, rs6(0), rs6(1), 'fd01::1', 'fd00::1', '2001:db8::1')
    k6 = dict(df=0) if fam == 4 else {}
    for proto, mk in (('tcp', lambda s, sp, d, dp, fl='A', **k: tcp(s, sp, d, dp, fl, **k)), ('udp', lambda s, sp, d, dp, fl=None, **k: udp(s, sp, d, dp, **k)), ('sctp', lambda s, sp, d, dp, fl=None, **k: sctp(s, sp, d, dp, (0,) if fl is None else fl, **k))):
        o = opts[proto]; T = f'IPv{fam} {proto}'; S = f'{o} {q(vip)}:100'
        run(f'-A {S} -s rr', f'-a {S} -r {q(r0)}:80 -m -w 1')
        vs('nat_icmp_send', 0); case(f'{T}: off', mk(r0, 80, cl, 40000), sysctl=0); vs('nat_icmp_send', 1)
        for fl in dict(tcp=('S', 'SA', 'A', 'PA', 'FA', 'R', 'RA', ''), udp=(None,), sctp=((0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,), (8,), (9,), (10,), (11,), (14,), (3, 6), (6, 3), ()))[proto]:
            case(f'{T}: {fl}', mk(r0, 80, cl, 40000, fl))
        case(f'{T}: another port of the server', mk(r0, 81, cl, 40000)); case(f'{T}: another server', mk(r1, 80, cl, 40000))
        for other, pkt in (('tcp', tcp(r0, 80, cl, 40000, 'A')), ('udp', udp(r0, 80, cl, 40000)), ('sctp', sctp(r0, 80, cl, 40000, (0,)))):
            if other != proto: case(f'{T}: {other} of the server', pkt)
        case(f'{T}: ttl 2', mk(r0, 80, cl, 40000, ttl=2)); case(f'{T}: ttl 1', mk(r0, 80, cl, 40000, ttl=1)); case(f'{T}: tos 0xbb', mk(r0, 80, cl, 40000, tos=0xbb))
        if proto != 'sctp': case(f'{T}: 1000 bytes', mk(r0, 80, cl, 40000, pl=b'D' * 1000)); case(f'{T}: 1400 bytes', mk(r0, 80, cl, 40000, pl=b'D' * 1400))
        if proto == 'udp': case(f'{T}: no checksum', mk(r0, 80, cl, 40000, zero=True))
        case(f'{T}: to an address of the director', mk(r0, 80, own, 40000)); case(f'{T}: to the director\'s clients\' side', mk(r0, 80, far, 40000)); case(f'{T}: to the virtual address', mk(r0, 80, vip, 40000))
        case(f'{T}: to the virtual address, ttl 1', mk(r0, 80, vip, 40000, ttl=1))
        case(f'{T}: to the virtual service', mk(r0, 80, vip, 100, {'tcp': 'S', 'sctp': (1,)}.get(proto))); case(f'{T}: to nowhere', mk(r0, 80, away, 40000))
        if proto != 'sctp':
            sh('ip link set dc mtu 1400')
            for df in (0, 1) if fam == 4 else (1,):
                case(f'{T}: too big for the way on, DF {df}', mk(r0, 80, cl, 40000, pl=b'D' * 1430, **(dict(df=df) if fam == 4 else {})), mtu=1400)
            sh('ip link set dc mtu 1500')
            whole = mk(r0, 80, cl, 40000, pl=b'F' * 400, **k6)
            case(f'{T}: first fragment', piece(whole, 0, 200, 1, 0x4000 + fam)); case(f'{T}: last fragment', piece(whole, 200, 400, 0, 0x4000 + fam))
        if fam == 4:
            p = mk(r0, 80, cl, 40000); h = bytes([0x46]) + p[1:2] + struct.pack('!H', len(p) + 4) + p[4:10] + b'\0\0' + p[12:20] + b'\1\1\1\1'
            case(f'{T}: no operation as an option', h[:10] + struct.pack('!H', csum(h)) + h[12:] + p[20:])
        else:
            p = mk(r0, 80, cl, 40000); case(f'{T}: destination options', p[:4] + struct.pack('!HB', len(p) - 32, 60) + p[7:40] + bytes([p[6], 0, 1, 4, 0, 0, 0, 0]) + p[40:])
        # a connection, its reply, its end
        case(f'{T}: opens', mk(cl, 41000, vip, 100, {'tcp': 'S', 'sctp': (1,)}.get(proto)), 'c'); case(f'{T}: reply', mk(r0, 80, cl, 41000, {'tcp': 'SA', 'sctp': (2,)}.get(proto)))
        # the server's own packet to the service, of a connection that is older than the setting
        vs('nat_icmp_send', 0); case(f'{T}: the server as client, before', mk(r0, 80, vip, 100, {'tcp': 'S', 'sctp': (1,)}.get(proto)), sysctl=0); vs('nat_icmp_send', 1)
        # which real servers count
        run(f'-e {S} -r {q(r0)}:80 -m -w 0'); case(f'{T}: weight 0', mk(r0, 80, cl, 40000))
        run(f'-d {S} -r {q(r0)}:80'); case(f'{T}: deleted', mk(r0, 80, cl, 40000))
        run(f'-a {S} -r {q(r0)}:80 -m -w 1'); case(f'{T}: added again', mk(r0, 80, cl, 40000))
        S2 = f'{o} {q(vip)}:101'
        run(f'-A {S2} -s wlc', f'-a {S2} -r {q(r0)}:80 -m -w 1', f'-d {S} -r {q(r0)}:80'); case(f'{T}: of another service', mk(r0, 80, cl, 40000))
        run(f'-D {S2}'); case(f'{T}: service deleted', mk(r0, 80, cl, 40000))
        for name, how, port in (('DR', '-g', 100), ('TUN', '-i', 100), ('TUN gre', '-i --tun-type gre', 100), ('TUN gue', '-i --tun-type gue --tun-port 6080', 100), ('TUN gue, the same port', '-i --tun-type gue --tun-port 100', 100)):
            run(f'-a {S} -r {q(r1)}:{port} {how} -w 1'); case(f'{T}: {name}', mk(r1, port, cl, 40000)); case(f'{T}: {name}, port 0', mk(r1, 0, cl, 40000)); case(f'{T}: {name}, port 6080', mk(r1, 6080, cl, 40000)); run(f'-d {S} -r {q(r1)}:{port}')
        run(f'-a {S} -r {q(r1)}:100 -m -w 1', f'-e {S} -r {q(r1)}:100 -g -w 1'); case(f'{T}: from NAT to DR', mk(r1, 100, cl, 40000))
        run(f'-e {S} -r {q(r1)}:100 -i -w 1'); case(f'{T}: from DR to TUN', mk(r1, 100, cl, 40000))
        run(f'-e {S} -r {q(r1)}:100 -m -w 1'); case(f'{T}: back to NAT', mk(r1, 100, cl, 40000))
        run(f'-D {S}')
        # port 0
        S0 = f'{o} {q(vip)}:0'
        run(f'-A {S0} -s rr -p 60', f'-a {S0} -r {q(r0)}:0 -m -w 1'); case(f'{T}: a service of port 0', mk(r0, 80, cl, 40000)); case(f'{T}: a service of port 0, from port 0', mk(r0, 0, cl, 40000))
        run(f'-D {S0}')
        run(f'-A {S0} -s rr -p 60', f'-a {S0} -r {q(r0)}:0 -i -w 1'); case(f'{T}: a tunneled service of port 0', mk(r0, 80, cl, 40000)); case(f'{T}: a tunneled service of port 0, from port 0', mk(r0, 0, cl, 40000))
        run(f'-D {S0}')
        # marks
        F, F6 = '-f 7', ' -6' if fam == 6 else ''
        run(f'-A {F}{F6} -s rr', f'-a {F}{F6} -r {q(r0)}:80 -m -w 1'); case(f'{T}: by mark', mk(r0, 80, cl, 40000)); case(f'{T}: by mark, from port 0', mk(r0, 0, cl, 40000)); case(f'{T}: by mark, another port', mk(r0, 81, cl, 40000)); run(f'-D {F}{F6}')
        run(f'-A {F}{F6} -s rr', f'-a {F}{F6} -r {r0} -m -w 1'); case(f'{T}: by mark, port 0', mk(r0, 80, cl, 40000)); case(f'{T}: by mark, port 0, from port 0', mk(r0, 0, cl, 40000)); run(f'-D {F}{F6}')
