"""Fragments whose transport header is not the first thing behind the IP or fragment header, or not one of TCP, UDP and SCTP: ICMP errors in pieces,
in and out of order, and IPv6 extension headers behind a fragment header. What leaves the director, by NAT, DR and TUN, both directions."""
from lib import *
b = Bench('fragment_other')
ftxt_ = ftxt
def ftxt(f):
    """a piece may end within a header"""
    try: return ftxt_(f)
    except (OSError, IndexError, struct.error): return f'{f[6:12].hex()}>{f[:6].hex()} ' + f[14:54].hex()
PAY = bytes((i * 7 + i // 256) & 255 for i in range(4000)); ident = 0x5000; port = 3000
def F(p, sizes):
    """packet p (IPv4 without options, IPv6 without extension headers) in pieces: `sizes` of what is behind the IP header, multiples of 8; the rest is the last"""
    global ident
    ident += 1; h = 40 if p[0] >> 4 == 6 else 20; out, at = [], 0
    for n in list(sizes) + [len(p) - h - sum(sizes)]:
        pl = p[h:][at:at + n]; more = at + n < len(p) - h
        if h == 40: out.append(p[:4] + struct.pack('!HBB', len(pl) + 8, 44, p[7]) + p[8:40] + struct.pack('!BBHI', p[6], 0, at | more, ident) + pl)
        else: out.append(ip(socket.inet_ntoa(p[12:16]), socket.inet_ntoa(p[16:20]), p[9], pl, ttl=p[8], tos=p[1], id=ident, df=0, frag=at // 8, mf=int(more)))
        at += n
    return out
def seq(what, frm, ps, i=0, wait=0.05, gap=0.002, **k):
    """sends packets ps one after the other, records all that comes out after each, and after the last"""
    b.drain(); steps = []
    for n, p in enumerate(ps):
        f = fromc(p) if frm == 'c' else fromr(p, i)
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
def orders(what, frm, p, sizes, **k):
    seq(what + ', in order', frm, F(p, sizes), **k); seq(what + ', reversed', frm, F(p, sizes)[::-1], **k)
def behind(p, chain):
    """IPv6 packet p with extension headers (number, bytes without the first) between the IP header and the rest"""
    first, out = chain[0][0] if chain else p[6], b''
    for j, (_, body) in enumerate(chain): out += bytes([chain[j + 1][0] if j + 1 < len(chain) else p[6]]) + body
    return p[:4] + struct.pack('!HB', len(p) - 40 + len(out), first) + p[7:40] + out + p[40:]
PAD = b'\0\1\4\0\0\0\0'; AH = b'\2' + bytes(14)
CHAINS = {'destination options': [(60, PAD)], 'destination options twice': [(60, PAD), (60, PAD)], 'long destination options': [(60, bytes([25]) + (b'\1\x64' + bytes(100)) * 2 + b'\1\0')], 'a routing header': [(43, bytes([0, 4, 0, 0, 0, 0, 0]))], 'AH': [(51, AH)]}
for name, o, fam in [(n, o, f) for f in (4, 6) for n, o in (('NAT', '-m'), ('DR', '-g'), ('TUN', '-i'))]:
    port += 1; cl, vip, r0, rt_c, rt_r = (C, V, rs(0), '10.0.0.77', '10.1.0.20') if fam == 4 else (C6, V6, rs6(0), 'fd00::77', 'fd01::20')
    dp = 8080 if name == 'NAT' else port; h = 20 if fam == 4 else 40
    sh('ipvsadm -R', f'-A -u {br(vip)}:{port} -s rr\n-a -u {br(vip)}:{port} -r {br(r0)}:{dp} {o} -w 1\n')
    svc = dict(method=name, vip=vip, port=port, server=r0, server_port=dp, mtu=1500)
    T = f'{name} IPv{fam}'; E = dict(unreachable=(3, 3, 0), big=(3, 4, 1300)) if fam == 4 else dict(unreachable=(1, 4, 0), big=(2, 0, 1300)); k4 = dict(df=0) if fam == 4 else {}
    seq(T + ': opens', 'c', [udp(cl, 40000, vip, port)])
    reply = udp(vip, port, cl, 40000, pl=PAY[:1400], ttl=60); fwd = udp(cl, 40000, r0 if name == 'NAT' else vip, dp, pl=PAY[:1400], ttl=60)
    err = lambda src, dst, kind, quote, ttl=50, **k: icmp(src, dst, *E[kind], quote, ttl=ttl, **k4, **k)
    sizes = [104, 200]
    for kind in E: orders(f'{T}: {kind} from a router to the virtual address', 'c', err(rt_c, vip, kind, reply[:540]), sizes)
    whole = err(cl, vip, 'unreachable', reply[:540])
    orders(f'{T}: from the client', 'c', whole, sizes)
    seq(f'{T}: from the client, second one first', 'c', [F_[i] for F_ in [F(whole, sizes)] for i in (1, 0, 2)])
    seq(f'{T}: from the client, second one twice', 'c', [F_[i] for F_ in [F(whole, sizes)] for i in (0, 1, 1, 2)])
    seq(f'{T}: from the client, missing last', 'c', F(whole, sizes)[:2]); seq(f'{T}: from the client, missing first', 'c', F(whole, sizes)[1:])
    orders(f'{T}: from the client, first of 8 bytes', 'c', whole, [8, 200]); orders(f'{T}: from the client, first of 24 bytes', 'c', whole, [24, 200])
    seq(f'{T}: from the client, ttl 1', 'c', F(err(cl, vip, 'unreachable', reply[:540], ttl=1), sizes)); seq(f'{T}: from the client, DSCP', 'c', F(err(cl, vip, 'unreachable', reply[:540], tos=0xb8), sizes))
    seq(f'{T}: from the client, wrong checksum', 'c', F(whole[:h + 2] + b'\x12\x34' + whole[h + 4:], sizes))
    stranger = udp(vip, port, cl, 40001, pl=PAY[:1400])
    orders(f'{T}: about no connection', 'c', err(cl, vip, 'unreachable', stranger[:540]), sizes)
    if name == 'NAT':
        for kind in E: orders(f'{T}: {kind} from the server', 'r', err(r0, cl, kind, fwd[:540]), sizes)
        orders(f'{T}: from a router at the servers', 'r', err(rt_r, cl, 'unreachable', fwd[:540]), sizes, i=9)
        seq(f'{T}: from the server, wrong checksum', 'r', F((lambda x: x[:h + 2] + b'\x12\x34' + x[h + 4:])(err(r0, cl, 'unreachable', fwd[:540])), sizes))
    orders(f'{T}: ping', 'c', icmp(cl, vip, 8 if fam == 4 else 128, 0, 1, PAY[:600], **k4), sizes)
    vs('schedule_icmp', 1); svc['schedule_icmp'] = 1
    seq(f'{T}: schedule_icmp, in order', 'c', F(err(cl, vip, 'unreachable', stranger[:540]), sizes))
    seq(f'{T}: schedule_icmp, reversed', 'c', F(err(cl, vip, 'unreachable', udp(vip, port, cl, 40002, pl=PAY[:1400])[:540]), sizes)[::-1])
    vs('schedule_icmp', 0); del svc['schedule_icmp']
    sh('ip link set dr mtu 1300'); svc['mtu'] = 1300
    seq(f'{T}: smaller MTU, a whole error too long', 'c', [err(cl, vip, 'unreachable', reply[:1390])]); seq(f'{T}: smaller MTU, pieces too long', 'c', F(err(cl, vip, 'unreachable', reply[:1428]), [1360]))
    sh('ip link set dr mtu 1500'); svc['mtu'] = 1500
    if fam == 6:
        for what, chain in CHAINS.items():
            U = behind(udp(cl, 40000, vip, port, pl=PAY[:3800]), chain)
            orders(f'{T}: {what}', 'c', U, [1400, 1400])
            seq(f'{T}: {what}, whole', 'c', [behind(udp(cl, 40000, vip, port, pl=PAY[:100]), chain)]); seq(f'{T}: {what}, one piece only', 'c', F(behind(udp(cl, 40000, vip, port, pl=PAY[:100]), chain), []))
            if name == 'NAT': orders(f'{T}: reply with {what}', 'r', behind(udp(r0, dp, cl, 40000, pl=PAY[:3800]), chain), [1400, 1400])
        U = behind(udp(cl, 40000, vip, port, pl=PAY), CHAINS['destination options'])
        seq(f'{T}: destination options, new connection', 'c', F(behind(udp(cl, 40005, vip, port, pl=PAY), CHAINS['destination options']), [1400, 1400]))
        orders(f'{T}: destination options alone in the first', 'c', U, [8, 1400, 1400]); orders(f'{T}: destination options and half of UDP in the first', 'c', behind(udp(cl, 40000, vip, port, pl=PAY), [(60, bytes([0, 1, 4, 0, 0, 0, 0])), (60, PAD)]), [16, 1400, 1400])
        seq(f'{T}: destination options, ttl 1', 'c', F(behind(udp(cl, 40000, vip, port, pl=PAY, ttl=1), CHAINS['destination options']), [1400, 1400])); seq(f'{T}: destination options, missing first', 'c', F(U, [1400, 1400])[1:])
        orders(f'{T}: destination options, an error', 'c', behind(whole, CHAINS['destination options']), sizes)
        if name == 'NAT': orders(f'{T}: destination options, an error from the server', 'r', behind(err(r0, cl, 'unreachable', fwd[:540]), CHAINS['destination options']), sizes)
        orders(f'{T}: destination options, no service at this port', 'c', behind(udp(cl, 40000, vip, 7, pl=PAY), CHAINS['destination options']), [1400, 1400])
        orders(f'{T}: destination options, nothing behind', 'c', (lambda x: x[:40] + bytes([59]) + x[41:])(U), [1400, 1400]); orders(f'{T}: destination options, another protocol', 'c', (lambda x: x[:40] + bytes([47]) + x[41:])(U), [1400, 1400])
    sh(f'ipvsadm -D -u {br(vip)}:{port}')
