"""IPv6 extension headers and IPv4 options: before TCP and UDP, in replies, around ICMP errors and in what those quote."""
from lib import *
import lib, select
lib.conns = lambda: None # too many to be of use
def recv(s, wait=0.02):
    # As in the bench, but hop-by-hop headers are what is asked about here: only reports of multicast listeners are noise.
    out = []
    while select.select([s.s], [], [], wait)[0]:
        f, a = s.s.recvfrom(70000)
        if a[2] == 4 or f[12:14] not in (b'\x08\0', b'\x86\xdd'): continue
        if f[12:14] == b'\x86\xdd' and (f[20] == 58 and f[54] in range(130, 144) or f[20] == 0 and f[54] == 58 and f[62] in range(130, 144)): continue
        if f[12:14] == b'\x08\0' and f[23] == 2: continue
        out.append(f)
    return out
Port.recv = recv
b = Bench('headers')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr'); sysctl('net.ipv4.conf.all.accept_local', 1)
def opt(n, data): return bytes([n, len(data)]) + data
def pad(n): return b'' if n == 0 else b'\0' if n == 1 else opt(1, b'\0' * (n - 2))
def ext(data):
    # an options header: length in 8 bytes beyond the first 8, the next header in front is filled in by `chain`
    n = (len(data) + 2 + 7) // 8 * 8
    return bytes([n // 8 - 1]) + data + pad(n - 2 - len(data))
def rout(ty, left, addrs): return bytes([2 * len(addrs), ty, left]) + b'\0' * 4 + b''.join(map(pa, addrs))
def ah(n=3): return bytes([n + 3 - 2]) + b'\0\0' + b'\0\0\1\2' + b'\0\0\0\1' + b'\xaa' * (4 * n - 0)
HBH, RT, FR, AH, NONE, DST = 0, 43, 44, 51, 59, 60
def chain(p, hs):
    # packet p with these (number, bytes without the next header field) behind its IPv6 header
    out, nx = b'', p[6]
    for n, d in reversed(hs): out = bytes([nx]) + d + out; nx = n
    return p[:4] + struct.pack('!HB', len(out) + len(p) - 40, nx) + p[7:40] + out + p[40:]
def options(p, o):
    h = bytes([0x45 + len(o) // 4]) + p[1:2] + struct.pack('!H', len(p) + len(o)) + p[4:10] + b'\0\0' + p[12:20] + o
    return h[:10] + struct.pack('!H', csum(h)) + h[12:] + p[20:]
P = ext(pad(6))
V6S = {
    'hop-by-hop': [(HBH, P)], 'destination options': [(DST, P)], 'routing type 0, none left': [(RT, rout(0, 0, ['fd00::99']))], 'routing type 0, one left': [(RT, rout(0, 1, ['fd00::99']))],
    'routing type 2, one left': [(RT, rout(2, 1, ['fd00::99']))], 'routing type 4, none left': [(RT, rout(4, 0, ['fd00::99']))], 'authentication': [(AH, ah())], 'authentication of 20 bytes': [(AH, ah(2))],
    'hop-by-hop, destination options, routing, authentication, destination options': [(HBH, P), (DST, P), (RT, rout(0, 0, ['fd00::99'])), (AH, ah()), (DST, P)],
    'six destination options': [(DST, P)] * 6, 'twelve destination options': [(DST, P)] * 12, 'destination options of 64 bytes': [(DST, ext(opt(0x1e, b'x' * 60)))], 'destination options of 256 bytes': [(DST, ext(opt(0x1e, b'x' * 250)))],
    'hop-by-hop behind destination options': [(DST, P), (HBH, P)], 'hop-by-hop with an unknown option to skip': [(HBH, ext(opt(0x1e, b'abcd')))], 'hop-by-hop with an unknown option to drop': [(HBH, ext(opt(0x5e, b'abcd')))],
    'hop-by-hop with an unknown option to report': [(HBH, ext(opt(0x9e, b'abcd')))], 'hop-by-hop with a router alert': [(HBH, ext(opt(5, b'\0\0') + pad(2)))], 'hop-by-hop with padding of 14': [(HBH, ext(pad(14)))],
    'hop-by-hop with padding of 7': [(HBH, ext(opt(0x1e, b'abcde') + pad(7)))], 'hop-by-hop with padding that is not zero': [(HBH, ext(opt(1, b'abcd')))], 'hop-by-hop with eight options': [(HBH, ext(b''.join(opt(0x1e, b'ab') for _ in range(8))))],
    'hop-by-hop with nine options': [(HBH, ext(b''.join(opt(0x1e, b'ab') for _ in range(9))))], 'hop-by-hop with an option cut short': [(HBH, b'\0\x1e\x09abcd')], 'destination options with an unknown option to drop': [(DST, ext(opt(0x5e, b'abcd')))],
    'mobility': [(135, P)], 'a header that nobody knows': [(253, P)],
    'destination options that end behind the packet': [(DST, b'\x40' + P[1:])],
}
RR, TS = 7, 68
def opt(n, data): return bytes([n, len(data) + 2]) + data
V4S = {
    'no operation': b'\1\1\1\1', 'end of options': b'\0\0\0\0', 'record route': opt(RR, b'\4' + b'\0' * 12) + b'\0', 'record route, one recorded': opt(RR, b'\x08' + b'\x0a\0\0\x63' + b'\0' * 8) + b'\0', 'record route, full': opt(RR, b'\x08' + b'\x0a\0\0\x63') + b'\0',
    'record route, pointer wrong': opt(RR, b'\3' + b'\0' * 12) + b'\0', 'timestamp': opt(TS, b'\5\0' + b'\0' * 8), 'timestamp and address': opt(TS, b'\5\1' + b'\0' * 16), 'timestamp, full': opt(TS, b'\x0d\0' + b'\0' * 8),
    'router alert': opt(148, b'\0\0'), 'an unknown option': opt(0x9e, b'ab'), 'a stream identifier': opt(136, b'\0\1'), 'loose source route, not used up': opt(131, b'\4' + pa('10.1.0.11')) + b'\0', 'loose source route, used up': opt(131, b'\x08' + pa('10.1.0.11')) + b'\0',
    'strict source route, used up': opt(137, b'\x08' + pa('10.1.0.11')) + b'\0', 'an option cut short': b'\x9e\x09ab', 'an option of length 1': b'\x9e\1ab', 'forty bytes of options': b'\1' * 40, 'record route and a router alert': opt(RR, b'\4' + b'\0' * 12) + b'\1' + opt(148, b'\0\0'),
}
pn = [100]
for fam in (6, 4):
    cl, vip, r0 = (C, V, rs(0)) if fam == 4 else (C6, V6, rs6(0))
    for name, o in (('NAT', '-m'), ('DR', '-g'), ('TUN', '-i')):
        for proto in ('tcp', 'udp') if name == 'NAT' else ('tcp',):
            pn[0] += 1; p = pn[0]; d = 8080 if name == 'NAT' else p; pr = '-t' if proto == 'tcp' else '-u'
            sh('ipvsadm -R', f'-A {pr} {q(vip)}:{p} -s rr\n-a {pr} {q(vip)}:{p} -r {q(r0)}:{d} {o} -w 1\n')
            mk = (lambda s, sp, t, dp, pl=b'', **k: tcp(s, sp, t, dp, 'PA', pl=pl, **k)) if proto == 'tcp' else udp
            syn = (lambda s, sp, t, dp, **k: tcp(s, sp, t, dp, 'S', **k)) if proto == 'tcp' else udp
            T = f'{name} IPv{fam} {proto}'; n = 40000
            for what, h in (V4S if fam == 4 else V6S).items():
                n += 1; wrap = (lambda x: options(x, h)) if fam == 4 else (lambda x: chain(x, h))
                m = dict(service=[proto, name, p, n])
                b.case(f'{T}: opens, {what}', 'c', wrap(syn(cl, n, vip, p)), **m)
                n += 1; b.c.send(fromc(syn(cl, n, vip, p))); m['service'][3] = n
                if proto == 'tcp': b.c.send(fromc(mk(cl, n, vip, p)))
                b.case(f'{T}: goes on, {what}', 'c', wrap(mk(cl, n, vip, p, pl=b'd' * 33)), **m)
                b.case(f'{T}: goes on, ttl 1, {what}', 'c', wrap(mk(cl, n, vip, p, pl=b'd' * 33, ttl=1)), **m)
                if name == 'NAT':
                    b.case(f'{T}: reply, {what}', 'r', wrap(mk(r0, d, cl, n, pl=b'r' * 33)), **m)
                to = r0 if name == 'NAT' else vip
                fwd = wrap(mk(cl, n, to, d, pl=b'f' * 60, ttl=60)); rep = wrap(mk(vip, p, cl, n, pl=b'f' * 60, ttl=60))
                ty, co = (3, 3) if fam == 4 else (1, 4)
                if name != 'NAT' or proto != 'tcp': continue
                b.case(f'{T}: server: port unreachable about, {what}', 'r', icmp(r0, cl, ty, co, 0, fwd, ttl=50), **m)
                b.case(f'{T}: client: port unreachable about a reply, {what}', 'c', icmp(cl, vip, ty, co, 0, rep, ttl=50), **m)
                b.case(f'{T}: client: port unreachable in, {what}', 'c', wrap(icmp(cl, vip, ty, co, 0, mk(vip, p, cl, n, pl=b'f' * 60, ttl=60), ttl=50)), **m)
            sh(f'ipvsadm -D {pr} {q(vip)}:{p}')
