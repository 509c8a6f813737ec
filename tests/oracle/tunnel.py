"""Tunnel types and checksum options, byte by byte: TCP and UDP, either family in either; what fits the MTU and what does not; packets whose checksum is
left to a device (CHECKSUM_PARTIAL: sent with a virtio-net header), whole and as super-packets (GSO); ICMP errors from the client."""
from lib import *
b = Bench('tunnel')
OPTIONS = ['', '--tun-type gue --tun-port 6080 --tun-nocsum', '--tun-type gue --tun-port 6080 --tun-csum', '--tun-type gue --tun-port 6080 --tun-remcsum', '--tun-type gre --tun-nocsum', '--tun-type gre --tun-csum']
MTU = 1400
def vnet(ifname):
    """a socket in `ext` that sends with a virtio-net header in front"""
    own, ext = os.open('/proc/self/ns/net', 0), os.open('/run/netns/ext', 0); libc = ctypes.CDLL(None, use_errno=True)
    libc.setns(ext, 0x40000000)
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.setsockopt(263, 15, 1); s.bind((ifname, 0))
    libc.setns(own, 0x40000000); os.close(own); os.close(ext)
    return s
V_ = vnet('c')
def partial(p, gso=0):
    """`p` with the pseudo header's sum for a checksum, and the virtio-net header that says so"""
    six = p[0] >> 4 == 6; h = 40 if six else 20; proto = p[6] if six else p[9]; off = 16 if proto == 6 else 6
    seg = p[h:]; addrs = p[8:40] if six else p[12:20]
    ps = ~csum(addrs + struct.pack('!IHBB', len(seg), 0, 0, proto)) & 0xffff
    seg = seg[:off] + struct.pack('!H', ps) + seg[off + 2:]
    kind = 0 if not gso else (4 if six else 1)
    return struct.pack('<BBHHHH', 1, kind, 14 + h + 20 if gso else 0, gso, 14 + h, off), p[:h] + seg
def case(what, svc, p, send=None, **k):
    b.drain(); f = fromc(p)
    if send: V_.send(send + f)
    else: b.c.send(f)
    oc, orr = b.c.recv(0.03), b.r.recv(0.03)
    b.rec(case=what, **svc, **k, **{'in': dict(from_='c', frame=f.hex(), text=ftxt(f))}, to_client=[dict(frame=x.hex(), text=ftxt(x)) for x in oc], to_server=[dict(frame=x.hex(), text=ftxt(x)) for x in orr])
    print('##', what); [print('  TO-C', ftxt(x)) for x in oc]; [print('  TO-R', ftxt(x)) for x in orr]
br = lambda a: f'[{a}]' if ':' in a else a
port = 1000
for o in OPTIONS:
    for fam in (4, 6):
        for outer in (4, 6):
            cl, vip = (C, V) if fam == 4 else (C6, V6); r0 = rs(0) if outer == 4 else rs6(0)
            extra = (20 if outer == 4 else 40) + (12 if 'gue' in o else 8 if '--tun-type gre --tun-csum' == o else 4 if 'gre' in o else 0)
            h = 20 if fam == 4 else 40
            for proto in ('tcp', 'udp'):
                port += 1; tag = f'{fam}in{outer} {o or "--tun-type ipip"} {proto}'
                sh('ipvsadm -R', f'-A -{proto[0]} {br(vip)}:{port} -s rr\n-a -{proto[0]} {br(vip)}:{port} -r {br(r0)}:{port} -i {o} -w 1\n')
                svc = dict(protocol=proto, vip=vip, port=port, server=r0, options=o)
                T = lambda fl, **k: tcp(cl, 40000, vip, port, fl, **k); U = lambda pl, **k: udp(cl, 40000, vip, port, pl=pl, **k)
                noDF = dict(df=0, id=0x4321) if fam == 4 else {}
                label = dict(flow=0xabcde) if fam == 6 else {}
                if proto == 'tcp':
                    case(tag + ': SYN with options, DSCP 10, ECT(1)', svc, T('S', tos=0x29, opts=bytes.fromhex('020405b4' '01030307')))
                    case(tag + ': ACK', svc, T('A', tos=0x28, **label))
                    for ecn in range(4): case(tag + f': ECN {ecn}', svc, T('A', tos=0xb8 | ecn))
                    case(tag + ': odd data, ttl 200, no DF', svc, T('PA', pl=b'GET / HTTP/1.0\n', ttl=200, **noDF))
                    case(tag + ': ttl 2', svc, T('A', ttl=2))
                    if fam == 4: case(tag + ': IP options', svc, ip(cl, vip, 6, T('PA', pl=b'opt')[20:], opts=bytes.fromhex('01010100')))
                    big = lambda n: T('A', pl=bytes(i * 7 & 255 for i in range(n - h - 20)))
                else:
                    case(tag + ': odd data', svc, U(b'hello', tos=0x28))
                    case(tag + ': zero checksum', svc, U(b'hello!!', zero=True))
                    case(tag + ': zero checksum, long', svc, U(bytes(i * 5 & 255 for i in range(1301)), zero=True))
                    case(tag + ': empty, no DF', svc, U(b'', **noDF))
                    case(tag + ': trailing bytes behind the datagram', svc, ip(cl, vip, 17, U(b'hello')[h:] + b'tail'))
                    big = lambda n: U(bytes(i * 7 & 255 for i in range(n - h - 8)))
                reply = (tcp(vip, port, cl, 40000, 'A', pl=b'12345') if proto == 'tcp' else udp(vip, port, cl, 40000, pl=b'12345'))
                case(tag + ': port unreachable from the client', svc, icmp(cl, vip, *((3, 3) if fam == 4 else (1, 4)), 0, reply))
                sh(f'ip link set dr mtu {MTU}')
                for n, w in ((MTU - extra, 'fills the MTU'), (MTU - extra + 1, 'a byte too long')): case(tag + ': ' + w, svc, big(n), mtu=MTU)
                sh('ip link set dr mtu 1500'); sh('ip route flush cache')
                sh('ip netns exec ext ethtool -K c tx on tso on')
                if proto == 'tcp':
                    v, p = partial(T('PA', pl=b'unfinished!')); case(tag + ': checksum left to a device', svc, p, v, partial=1)
                    v, p = partial(T('A', pl=bytes(i * 3 & 255 for i in range(2500))), 1000); case(tag + ': super-packet of 1000, 1000, 500 bytes', svc, p, v, partial=1, gso=1000)
                else: v, p = partial(U(b'unfinished!')); case(tag + ': checksum left to a device', svc, p, v, partial=1)
                sh('ip netns exec ext ethtool -K c tx off tso off')
                sh('ipvsadm -C')
