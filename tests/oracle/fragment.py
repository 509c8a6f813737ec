"""Fragments: what leaves the director when a datagram for a virtual service, or its reply, arrives in pieces: in and out of order, twice, overlapping, incomplete, tiny, with DF;
packets without DF that do not fit the way out; fragments that are no service's. IPv4 and IPv6, NAT, DR, TUN."""
from lib import *
b = Bench('fragment')
ftxt_ = ftxt
def ftxt(f):
    """a piece may end within a header"""
    try: return ftxt_(f)
    except (OSError, IndexError, struct.error): return f'{f[6:12].hex()}>{f[:6].hex()} ' + f[14:54].hex()
PAY = bytes((i * 7 + i // 256) & 255 for i in range(4000))
def pieces(p, sizes, df=0, ident=0x4242):
    """packet p (IPv4 without options, IPv6 without extension headers) in pieces: `sizes` of the IP payload, multiples of 8; the rest is the last"""
    six = p[0] >> 4 == 6; h = 40 if six else 20; pl = p[h:]; out, at = [], 0
    for n in list(sizes) + [len(pl) - sum(sizes)]: out.append(piece(p, at, n, at + n < len(pl), df, ident)); at += n
    return out
def piece(p, at, n, more, df=0, ident=0x4242):
    six = p[0] >> 4 == 6; h = 40 if six else 20; pl = p[h:][at:at + n]
    if six:
        tos, = struct.unpack('!I', p[:4])
        return struct.pack('!IHBB', tos, len(pl) + 8, 44, p[7]) + p[8:40] + struct.pack('!BBHI', p[6], 0, at | more, ident) + pl
    return ip(addr4(p[12:16]), addr4(p[16:20]), p[9], pl, ttl=p[8], tos=p[1], id=ident, df=df, frag=at // 8, mf=int(more))
def addr4(x): return socket.inet_ntoa(x)
def seq(what, frm, ps, svc, wait=0.05, gap=0.002, **k):
    """sends packets ps one after the other, records all that comes out after each, and after the last"""
    b.drain(); steps = []
    for n, p in enumerate(ps):
        f = fromc(p) if frm == 'c' else fromr(p)
        (b.c if frm == 'c' else b.r).send(f)
        w = wait if n == len(ps) - 1 else gap
        oc, orr = b.c.recv(w), b.r.recv(w)
        steps.append(dict(frame=f.hex(), text=ftxt(f), to_client=[x.hex() for x in oc], to_server=[x.hex() for x in orr], out=['C ' + ftxt(x) for x in oc] + ['R ' + ftxt(x) for x in orr]))
    b.rec(case=what, from_=frm, **svc, **k, steps=steps)
    print('##', what)
    for s in steps:
        print('  IN ', s['text'])
        for o in s['out']: print('      ', o)
br = lambda a: f'[{a}]' if ':' in a else a
port = 2000; ident = 0x4000
M = [('NAT', '-m', 4, 4), ('NAT', '-m', 6, 6), ('DR', '-g', 4, 4), ('DR', '-g', 6, 6), ('TUN', '-i', 4, 4), ('TUN', '-i', 6, 6), ('TUN', '-i', 4, 6), ('TUN', '-i', 6, 4)]
def nxt():
    global ident
    ident += 1
    return ident
for name, flag, fam, outer in M:
    port += 1; cl, vip = (C, V) if fam == 4 else (C6, V6); r0 = rs(0) if outer == 4 else rs6(0)
    sh('ipvsadm -R', f'-A -u {br(vip)}:{port} -s rr\n-a -u {br(vip)}:{port} -r {br(r0)}:{port} {flag} -w 1\n-A -t {br(vip)}:{port} -s rr\n-a -t {br(vip)}:{port} -r {br(r0)}:{port} {flag} -w 1\n')
    svc = dict(method=name, vip=vip, port=port, server=r0, mtu=1500)
    T = f'{name} {fam}in{outer}' if name == 'TUN' else f'{name} {fam}'
    U = lambda n=4000, sp=40000, **k: udp(cl, sp, vip, port, pl=PAY[:n], df=0, **k) if fam == 4 else udp(cl, sp, vip, port, pl=PAY[:n], **k)
    full = [1480, 1480] if fam == 4 else [1448, 1448]
    F = lambda p=None, sizes=full, **k: pieces(p or U(), sizes, ident=nxt(), **k)
    seq(T + ': in order', 'c', F(), svc)
    seq(T + ': in order, again', 'c', F(), svc)
    seq(T + ': pieces of 1000, in order', 'c', F(sizes=[1000] * 4), svc)
    seq(T + ': pieces of 1000, reversed', 'c', F(sizes=[1000] * 4)[::-1], svc)
    seq(T + ': reversed', 'c', F()[::-1], svc)
    seq(T + ': first one second', 'c', [F_[i] for F_ in [F()] for i in (1, 0, 2)], svc)
    seq(T + ': another flow, reversed', 'c', F(U(sp=40001))[::-1], svc)
    seq(T + ': second one twice', 'c', [F_[i] for F_ in [F()] for i in (0, 1, 1, 2)], svc)
    seq(T + ': first one twice', 'c', [F_[i] for F_ in [F()] for i in (0, 0, 1, 2)], svc)
    i = nxt(); p = U(); seq(T + ': overlapping', 'c', [piece(p, 0, full[0], True, ident=i), piece(p, full[0] - 80, full[1], True, ident=i), piece(p, full[0] - 80 + full[1], 4008 - (full[0] - 80 + full[1]), False, ident=i)], svc)
    seq(T + ': missing first', 'c', F()[1:], svc)
    seq(T + ': missing last', 'c', F()[:2], svc)
    seq(T + ': first of 8 bytes', 'c', F(sizes=[8, 1400, 1400]), svc)
    seq(T + ': first of 8 bytes, reversed', 'c', F(sizes=[8, 1400, 1400])[::-1], svc)
    seq(T + ': ttl 2', 'c', F(U(ttl=2)), svc)
    seq(T + ': ttl 1', 'c', F(U(ttl=1)), svc)
    seq(T + ': DSCP 46', 'c', F(U(tos=0xb8)), svc)
    seq(T + ': zero checksum', 'c', F(U(zero=True)), svc)
    one = pieces(U(100), [], ident=nxt())
    if fam == 6: seq(T + ': a fragment header, but one piece only', 'c', one, svc)
    if fam == 4:
        seq(T + ': DF', 'c', F(df=1), svc)
        seq(T + ': DF, pieces of 1000', 'c', F(sizes=[1000] * 4, df=1), svc)
    k = dict(df=0) if fam == 4 else {}
    seq(T + ': TCP SYN, whole', 'c', [tcp(cl, 40002, vip, port, 'S')], svc)
    seq(T + ': TCP data, in order', 'c', F(tcp(cl, 40002, vip, port, 'A', pl=PAY[:2000], **k), sizes=[1400]), svc)
    seq(T + ': TCP SYN, first of 8 bytes', 'c', F(tcp(cl, 40003, vip, port, 'S', **k), sizes=[8]), svc)
    seq(T + ': TCP SYN, first of 8 bytes, reversed', 'c', F(tcp(cl, 40004, vip, port, 'S', **k), sizes=[8])[::-1], svc)
    seq(T + ': TCP SYN with options, cut behind 24 bytes', 'c', F(tcp(cl, 40005, vip, port, 'S', opts=bytes.fromhex('020405b40101080a0000000100000000'), **k), sizes=[24]), svc)
    seq(T + ': no service at this port', 'c', F(udp(cl, 40000, vip, 7, pl=PAY[:2000], **k), sizes=full[:1]), svc)
    seq(T + ': no service at this port, reversed', 'c', F(udp(cl, 40000, vip, 7, pl=PAY[:2000], **k), sizes=full[:1])[::-1], svc)
    if name == 'NAT':
        R = lambda sp=40000, **k2: udp(r0, port, cl, sp, pl=PAY, **k2, **k)
        seq(T + ': reply, in order', 'r', F(R()), svc)
        seq(T + ': reply, reversed', 'r', F(R())[::-1], svc)
        seq(T + ': reply, pieces of 1000', 'r', F(R(), sizes=[1000] * 4), svc)
        seq(T + ': reply, second one twice', 'r', [F_[i] for F_ in [F(R())] for i in (0, 1, 1, 2)], svc)
        seq(T + ': reply, missing first', 'r', F(R())[1:], svc)
        seq(T + ': reply, ttl 1', 'r', F(R(ttl=1)), svc)
        if fam == 4: seq(T + ': reply, DF', 'r', F(R(), df=1), svc)
    seq(T + ': ping, in order', 'c', F(icmp(cl, vip, 8 if fam == 4 else 128, 0, 1, PAY[:2000], **k), sizes=full[:1]), svc)
    sh('ip link set dr mtu 1400'); svc['mtu'] = 1400
    seq(T + ': smaller MTU, whole', 'c', [U(1300)], svc)
    seq(T + ': smaller MTU, whole, too long', 'c', [U(1440)], svc)
    if fam == 4: seq(T + ': smaller MTU, whole, too long, DF', 'c', [udp(cl, 40000, vip, port, pl=PAY[:1440])], svc)
    seq(T + ': smaller MTU, pieces too long', 'c', F(), svc)
    seq(T + ': smaller MTU, pieces too long, reversed', 'c', F()[::-1], svc)
    seq(T + ': smaller MTU, pieces that fit', 'c', F(sizes=[1000] * 4), svc)
    if fam == 4: seq(T + ': smaller MTU, DF, pieces too long', 'c', F(df=1), svc)
    seq(T + ': smaller MTU, TCP data without DF, too long', 'c', [tcp(cl, 40002, vip, port, 'A', pl=PAY[:1440], **k)], svc)
    sh('ip link set dr mtu 1500'); svc['mtu'] = 1500
    if name == 'NAT':
        time.sleep(3); a = sh('ipvsadm -Ln --stats --exact')
        p = F(U(sp=41000)); seq(T + ': counted', 'c', p, svc); time.sleep(3); z = sh('ipvsadm -Ln --stats --exact')
        row = lambda s: [int(x) for x in [l for l in s.splitlines() if l.startswith('UDP') and f':{port} ' in l][0].split()[2:]]
        d = [y - x for x, y in zip(row(a), row(z))]; b.rec(case=T + ': counters', **svc, delta=d); print('## counters', d)
    sh(f'ipvsadm -D -u {br(vip)}:{port}; ipvsadm -D -t {br(vip)}:{port}')
