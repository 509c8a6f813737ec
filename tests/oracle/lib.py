"""The bench inside the oracle's VM: the VM's root namespace is the director; the far ends of its two veth pairs
(c: clients' side, r: real servers' side) are in namespace `ext`, with no addresses: every frame is crafted and captured by AF_PACKET.
 client 10.0.0.2 fd00::2 (02:00:00:00:00:c1)  --  dc 10.0.0.1/24 fd00::1/64 (02:00:00:00:0d:c1)  director
 servers 10.1.0.11.. fd01::11.. (02:00:00:00:00:0b, 0c, ...) -- dr 10.1.0.1/24 fd01::1/64 (02:00:00:00:0d:01)
 VIP 10.9.1.1/32 fd09::1/128 on lo."""
import ctypes, json, os, select, socket, struct, subprocess, sys, time
MC, MDC, MDR = '0200000000c1', '020000000dc1', '020000000d01'
C, V, C6, V6 = '10.0.0.2', '10.9.1.1', 'fd00::2', 'fd09::1'
def rs(i): return '10.1.0.%d' % (11 + i)
def rs6(i): return 'fd01::%d' % (11 + i)
def rmac(i): return '0200000000%02x' % (11 + i)
def sh(c, inp=None, check=True):
    p = subprocess.run(c, shell=True, input=inp, capture_output=True, text=True)
    if check and p.returncode: raise Exception('%s: %s%s' % (c, p.stdout, p.stderr))
    return p.stdout
def shx(c, inp=None):
    p = subprocess.run(c, shell=True, input=inp, capture_output=True, text=True)
    return dict(rc=p.returncode, stdout=p.stdout, stderr=p.stderr)
def mac(h): return ':'.join(h[i:i+2] for i in range(0, 12, 2))
def sysctl(k, v=None):
    p = '/proc/sys/' + k.replace('.', '/')
    if v is not None: open(p, 'w').write(str(v))
    return open(p).read().strip()
def vs(k, v=None): return sysctl('net.ipv4.vs.' + k, v)
class Port:
    def __init__(s, ifname):
        libc = ctypes.CDLL(None, use_errno=True)
        own, ext = os.open('/proc/self/ns/net', 0), os.open('/run/netns/ext', 0)
        libc.setns(ext, 0x40000000)
        s.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.s.bind((ifname, 3))
        libc.setns(own, 0x40000000); os.close(own); os.close(ext)
        s.s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    def send(s, f): s.s.send(f)
    def recv(s, wait=0.02):
        out = []
        while select.select([s.s], [], [], wait)[0]:
            f, a = s.s.recvfrom(70000)
            if a[2] == 4 or f[12:14] not in (b'\x08\0', b'\x86\xdd'): continue
            if f[12:14] == b'\x86\xdd' and (f[20] == 0 or f[20] == 58 and f[54] in (130, 131, 132, 133, 134, 135, 136, 143)): continue
            if f[12:14] == b'\x08\0' and f[23] in (2,): continue
            out.append(f)
        return out
def setup(nrs=12, mtu_c=1500, mtu_r=1500):
    sysctl('net.ipv6.conf.all.accept_dad', 0); sysctl('net.ipv6.conf.default.accept_dad', 0); sysctl('net.ipv6.conf.default.addr_gen_mode', 1)
    sysctl('net.ipv4.ip_forward', 1); sysctl('net.ipv6.conf.all.forwarding', 1)
    sysctl('net.ipv4.icmp_ratelimit', 0); sysctl('net.ipv6.icmp.ratelimit', 0); sysctl('net.ipv4.icmp_msgs_per_sec', 1000000); sysctl('net.ipv4.icmp_msgs_burst', 1000000)
    sh('ip link set lo up; ip netns add ext; ip -n ext link set lo up')
    sh('ip netns exec ext sh -c "echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode; echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"')
    for d, x, dm, xm, mtu in (('dc', 'c', MDC, MC, mtu_c), ('dr', 'r', MDR, '0200000000aa', mtu_r)):
        sh(f'ip link add {d} address {mac(dm)} mtu {mtu} type veth peer name {x} address {mac(xm)} mtu 9000 netns ext; ip link set {d} mtu {mtu}; ip link set {d} up; ip -n ext link set {x} up; ip -n ext link set {x} arp off promisc on; ethtool -K {d} tx off rx off gso off gro off tso off; ip netns exec ext ethtool -K {x} tx off rx off gso off gro off tso off')
    sh('ip addr add 10.0.0.1/24 dev dc; ip addr add fd00::1/64 dev dc nodad; ip addr add 10.1.0.1/24 dev dr; ip addr add fd01::1/64 dev dr nodad; ip addr add 10.9.1.1/32 dev lo; ip addr add fd09::1/128 dev lo nodad')
    b = [f'neigh add {a} lladdr {mac(MC)} dev dc nud permanent' for a in ('10.0.0.3', '10.0.0.4', '10.0.0.77', '10.0.0.200', 'fd00::77')]; b += [f'neigh add 10.0.0.2 lladdr {mac(MC)} dev dc nud permanent', f'neigh add fd00::2 lladdr {mac(MC)} dev dc nud permanent', 'route add 10.2.0.0/16 via 10.0.0.2', 'route add fd02::/16 via fd00::2']
    for i in range(nrs): b += [f'neigh add {rs(i)} lladdr {mac(rmac(i))} dev dr nud permanent', f'neigh add {rs6(i)} lladdr {mac(rmac(i))} dev dr nud permanent']
    sh('ip -batch -', '\n'.join(b) + '\n')
    return Port('c'), Port('r')
def csum(b):
    if len(b) & 1: b += b'\0'
    t = sum(struct.unpack('!%dH' % (len(b) // 2), b))
    while t >> 16: t = (t & 0xffff) + (t >> 16)
    return ~t & 0xffff
def pa(a): return socket.inet_pton(socket.AF_INET6 if ':' in a else socket.AF_INET, a)
def l4sum(src, dst, proto, seg): return csum(pa(src) + pa(dst) + (struct.pack('!IHBB', len(seg), 0, 0, proto) if ':' in src else struct.pack('!BBH', 0, proto, len(seg))) + seg)
def ip(src, dst, proto, pl, ttl=64, tos=0, id=0x1234, df=1, opts=b'', flow=0, frag=0, mf=0):
    if ':' in src: return struct.pack('!IHBB', 6 << 28 | tos << 20 | flow, len(pl), proto, ttl) + pa(src) + pa(dst) + pl
    h = struct.pack('!BBHHHBBH', 0x45 + len(opts) // 4, tos, 20 + len(opts) + len(pl), id, df << 14 | mf << 13 | frag, ttl, proto, 0) + pa(src) + pa(dst) + opts
    return h[:10] + struct.pack('!H', csum(h)) + h[12:] + pl
FL = dict(F=1, S=2, R=4, P=8, A=16)
def tcp(src, sp, dst, dp, fl='S', seq=1000, ack=None, pl=b'', opts=b'', **k):
    f = sum(FL[c] for c in fl)
    if ack is None: ack = 5000 if 'A' in fl else 0
    t = struct.pack('!HHIIBBHHH', sp, dp, seq, ack, (5 + len(opts) // 4) << 4, f, 64240, 0, 0) + opts + pl
    t = t[:16] + struct.pack('!H', l4sum(src, dst, 6, t)) + t[18:]
    return ip(src, dst, 6, t, **k)
def udp(src, sp, dst, dp, pl=b'hello', zero=False, **k):
    u = struct.pack('!HHHH', sp, dp, 8 + len(pl), 0) + pl
    if not zero: u = u[:6] + struct.pack('!H', l4sum(src, dst, 17, u) or 0xffff) + u[8:]
    return ip(src, dst, 17, u, **k)
CRC = []
for n in range(256):
    for _ in range(8): n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
    CRC.append(n)
def crc32c(b):
    s = 0xffffffff
    for x in b: s = s >> 8 ^ CRC[(s ^ x) & 255]
    return s ^ 0xffffffff
def chunk(t, pl=None, length=None):
    """an SCTP chunk of type t with a plausible body, padded"""
    pl = {0: bytes(12) + b'data', 1: bytes(16), 2: bytes(16) + b'\0\7\0\10cook', 3: bytes(12), 7: bytes(4), 10: b'cook'}.get(t, b'') if pl is None else pl
    n = 4 + len(pl); return struct.pack('!BBH', t, 0, n if length is None else length) + pl + bytes(-n % 4)
def sctp(src, sp, dst, dp, chunks=(1,), raw=None, sum=None, tag=0x11223344, **k):
    """raw: everything behind the common header; sum: the checksum, if not the right one"""
    body = b''.join(chunk(c) if isinstance(c, int) else c for c in chunks) if raw is None else raw
    h = struct.pack('!HHI', sp, dp, tag); c = crc32c(h + bytes(4) + body) if sum is None else sum
    return ip(src, dst, 132, h + struct.pack('<I', c) + body, **k)
def icmp(src, dst, ty, co, rest, inner, **k):
    p = struct.pack('!BBHI', ty, co, 0, rest) + inner
    s = l4sum(src, dst, 58, p) if ':' in src else csum(p)
    return ip(src, dst, 58 if ':' in src else 1, p[:2] + struct.pack('!H', s) + p[4:], **k)
def eth(dst, src, p): return bytes.fromhex(dst) + bytes.fromhex(src) + (b'\x86\xdd' if p[0] >> 4 == 6 else b'\x08\0') + p
def fromc(p): return eth(MDC, MC, p)
def fromr(p, i=0): return eth(MDR, rmac(i), p)
ICMPN = {}
def ptxt(p):
    """a packet as text, with every field that matters and whether the checksums hold"""
    if not p: return ''
    if p[0] >> 4 == 4:
        hl = (p[0] & 15) * 4; tl, idn, fo = struct.unpack('!HHH', p[2:8]); src, dst, pr = socket.inet_ntoa(p[12:16]), socket.inet_ntoa(p[16:20]), p[9]; q = p[hl:tl]
        s = f'IP {src}>{dst} ttl {p[8]} tos {p[1]:#x} id {idn:#x} len {tl}' + (' DF' if fo & 0x4000 else '') + (' MF' if fo & 0x2000 else '') + (f' frag {(fo & 0x1fff) * 8}' if fo & 0x1fff else '') + (' opts ' + p[20:hl].hex() if hl > 20 else '') + ('' if csum(p[:hl]) == 0 else ' BADHDRSUM')
        whole = len(p) >= tl and not fo & 0x3fff
        if fo & 0x1fff: return s + f' proto {pr}'
    else:
        if len(p) < 40: return p.hex()
        vt, pl, pr, hlim = struct.unpack('!IHBB', p[:8]); src, dst = socket.inet_ntop(10, p[8:24]), socket.inet_ntop(10, p[24:40]); q = p[40:40 + pl]
        s = f'IP6 {src}>{dst} hlim {hlim} tc {vt >> 20 & 255:#x} flow {vt & 0xfffff:#x} plen {pl}'; whole = len(p) >= 40 + pl
        if pr == 44: s += ' FRAGHDR ' + q[:8].hex(); pr = q[0]; return s + f' proto {pr}'
    if pr == 4 or pr == 41: return s + f' proto {pr} [' + ptxt(q) + ']'
    def ck(pn): return '' if not whole else (' sum ok' if l4sum(src, dst, pn, q) == 0 else ' BADSUM')
    if pr == 6 and len(q) >= 14:
        fl = q[13]; f = ''.join(n for n, v in (('S', 2), ('F', 1), ('R', 4), ('P', 8), ('A', 16)) if fl & v) or '0'
        return s + f' TCP {q[0] << 8 | q[1]}>{q[2] << 8 | q[3]} {f} seq {struct.unpack("!I", q[4:8])[0]} ack {struct.unpack("!I", q[8:12])[0]} win {q[14:16].hex()} opts {q[20:(q[12] >> 4) * 4].hex()} data {len(q) - (q[12] >> 4) * 4}' + ck(6)
    if pr == 17 and len(q) >= 8: return s + f' UDP {q[0] << 8 | q[1]}>{q[2] << 8 | q[3]} ulen {q[4] << 8 | q[5]}' + (' zero-sum' if q[6:8] == b'\0\0' else ck(17))
    if pr in (1, 58) and len(q) >= 8:
        okk = (csum(q) if pr == 1 else l4sum(src, dst, 58, q)) == 0
        return s + f' ICMP{"6" if pr == 58 else ""} type {q[0]} code {q[1]} rest {q[4:8].hex()} quoted {len(q) - 8}B' + (('' if okk else ' BADSUM') if whole else '') + (' [' + ptxt(q[8:]) + ']' if (q[0] in (3, 11, 5, 12, 4) and pr == 1 or pr == 58 and q[0] < 128) else '')
    if pr == 132 and len(q) >= 12:
        t = []; o = 12
        while o + 4 <= len(q) and len(t) < 9: t.append('%d:%d' % (q[o], q[o + 2] << 8 | q[o + 3])); o += max((q[o + 2] << 8 | q[o + 3]) + 3 & ~3, 4)
        c, = struct.unpack('<I', q[8:12])
        return s + f' SCTP {q[0] << 8 | q[1]}>{q[2] << 8 | q[3]} chunks {" ".join(t) or "none"} sctplen {len(q)}' + ('' if not whole else ' zero-crc' if c == 0 else ' crc ok' if c == crc32c(q[:8] + bytes(4) + q[12:]) else f' BADCRC')
    if pr == 6: return s + ' TCP ' + q.hex()
    return s + f' proto {pr} ' + q[:16].hex()
def ftxt(f): return f'{f[6:12].hex()}>{f[:6].hex()} ' + ptxt(f[14:])
def attrs(b):
    out = {}
    while len(b) >= 4:
        n, t = struct.unpack('=HH', b[:4]); out[t & 0x3fff] = b[4:n]; b = b[(n + 3) & ~3:]
    return out
def tuple_(b):
    t = attrs(b); i, p = attrs(t[1]), attrs(t[2])
    a = [socket.inet_ntop(socket.AF_INET if len(i[k]) == 4 else socket.AF_INET6, i[k]) for k in ((1, 2) if 1 in i else (3, 4))]
    return dict(src=a[0], dst=a[1], proto=p[1][0], sport=int.from_bytes(p[2], 'big') if 2 in p else None, dport=int.from_bytes(p[3], 'big') if 3 in p else None)
def tracked():
    """what netfilter knows of connections"""
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12); rows = []
    s.send(struct.pack('=IHHII', 20, 0x101, 0x301, 1, 0) + bytes(4))
    while 1:
        d = s.recv(1 << 16)
        while d:
            n, t = struct.unpack('=IH', d[:6])
            if t in (2, 3): s.close(); return sorted(rows, key=str)
            a = attrs(d[20:n]); o = tuple_(a[1])
            if o['dport'] and o['proto'] in (6, 17, 132): rows.append(dict(orig=o, reply=tuple_(a[2]), seen_reply=bool(int.from_bytes(a[3], 'big') & 2), assured=bool(int.from_bytes(a[3], 'big') & 4)))
            d = d[(n + 3) & ~3:]
def q(a): return f'[{a}]' if ':' in a else a
class Rec:
    def __init__(s, name): s.f = open('/out/' + name + '.jsonl', 'w')
    def __call__(s, **k): s.f.write(json.dumps(k) + '\n'); s.f.flush()
def addr(h): return socket.inet_ntoa(bytes.fromhex(h)) if len(h) == 8 else str(socket.inet_ntop(10, bytes.fromhex(h.replace(':', '')))) if '.' not in h else h
def conns():
    """rows of /proc/net/ip_vs_conn"""
    out = []
    for l in open('/proc/net/ip_vs_conn').read().splitlines()[1:]:
        w = l.split(); d = lambda x: addr(x.strip('[]'))
        out.append(dict(proto=w[0], c=d(w[1]), cp=int(w[2], 16), v=d(w[3]), vp=int(w[4], 16), d=d(w[5]), dp=int(w[6], 16), state=w[7], expires=int(w[8])))
    return out
def dests():
    """/proc/net/ip_vs: (VIP port, rs, rs port) -> (forward, weight, active, inactive)"""
    out, vp = {}, None
    for l in open('/proc/net/ip_vs').read().splitlines()[3:]:
        w = l.split()
        if w[0] == '->': a, p = w[1].rsplit(':', 1); out[vp, addr(a.strip('[]')), int(p, 16)] = (w[2], int(w[3]), int(w[4]), int(w[5]))
        elif w[0] == 'FWM': vp = 'fwm' + w[1]
        else: vp = int(w[1].rsplit(':', 1)[1], 16)
    return out
class Bench:
    def __init__(s, name, **k): s.c, s.r = setup(**k); s.rec = Rec(name)
    def drain(s): s.c.recv(0.005); s.r.recv(0.005)
    def case(s, what, frm, p, wait=0.03, i=0, show=True, **k):
        """inject packet p from the client ('c') or a real server ('r'), record all frames that come out of the director"""
        s.drain(); f = fromc(p) if frm == 'c' else fromr(p, i)
        err = None
        try: (s.c if frm == 'c' else s.r).send(f)
        except OSError as e: err = str(e)
        oc, orr = s.c.recv(wait), s.r.recv(wait)
        r = dict(case=what, **k); r['in'] = dict(from_=frm, frame=f.hex(), text=ftxt(f)); r['to_client'] = [dict(frame=x.hex(), text=ftxt(x)) for x in oc]; r['to_server'] = [dict(frame=x.hex(), text=ftxt(x)) for x in orr]
        if err: r['send_error'] = err
        r['conns'] = conns() if len(open('/proc/net/ip_vs_conn').readlines()) < 40 else None
        s.rec(**r)
        if show:
            print(f'## {what}' + (' ' + json.dumps(k) if k else '')); print('  IN ', frm, ftxt(f), err or '')
            for n, l in (('TO-C', oc), ('TO-R', orr)):
                for x in l: print('  ' + n, ftxt(x))
        return oc, orr
