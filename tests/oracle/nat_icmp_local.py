"""nat_icmp_send: what the director itself sends as a real server, that belongs to no connection: what its sockets are told, and what leaves.
A service of a virtual address has the director's own address as its only real server, on port 80; sockets of the director with that address and port send to others."""
from lib import *
import errno, threading
b = Bench('nat_icmp_local')
OPEN = dict(udp=(socket.SOCK_DGRAM, 17, '-u'), tcp=(socket.SOCK_STREAM, 6, '-t'))
def name(e): return errno.errorcode.get(e, str(e)) if e else 'none'
def made(proto, src, sport):
    s = socket.socket(socket.AF_INET6 if ':' in src else socket.AF_INET, OPEN[proto][0]); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((src, sport)); s.settimeout(1.5); return s
def said(proto, src, sport, dst, dport):
    """what a socket with this address is told when it sends to another"""
    s = made(proto, src, sport)
    try:
        s.connect((dst, dport))
        if proto == 'udp':
            s.send(b'hello'); time.sleep(0.2)
            return name(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return 'none'
    except socket.timeout: return 'timeout'
    except OSError as e: return name(e.errno)
    finally:
        if proto == 'tcp': s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        s.close()
def own(proto, src, sport, dst, away):
    """what a client on the director, of address `dst`, is told that talks to a server of the address and port of the real server without the service"""
    l = made(proto, src, sport)
    if proto == 'tcp': l.listen(5)
    c = made(proto, dst, 0); c.settimeout(1.5)
    try:
        c.connect((src, sport))
        if proto == 'udp':
            c.send(b'ping'); d, a = l.recvfrom(100); l.sendto(b'pong', a); return c.recv(100).decode()
        return 'connected'
    except socket.timeout: return 'timeout'
    except OSError as e: return name(e.errno)
    finally: c.close(); l.close()
for fam in (4, 6):
    cl, vip, me, other = (C, V, '10.1.0.1', '10.0.0.1') if fam == 4 else (C6, V6, 'fd01::1', 'fd00::1')
    for proto, (_, _, flag) in OPEN.items():
        for method in ('-m', '-g', '-i'):
            port = 80 if method == '-m' else 100
            sh(f'ipvsadm -A {flag} {q(vip)}:100 -s rr; ipvsadm -a {flag} {q(vip)}:100 -r {q(me)}:{port} {method}')
            for on in (0, 1):
                vs('nat_icmp_send', on)
                for what, sport, to in (('to a client', port, cl), ('from another port', port + 1, cl)):
                    b.drain(); got = said(proto, me, sport, to, 40000); oc, orr = b.c.recv(0.05), b.r.recv(0.05)
                    label = f'IPv{fam} {proto} {method}: {what}'
                    b.rec(case=label, nat_icmp_send=on, method=method, proto=proto, vip=vip, server=me, server_port=port, port=sport, to=to, said=got, to_client=[x.hex() for x in oc], to_server=[x.hex() for x in orr])
                    print('##', label, on, got, ['C ' + ftxt(x) for x in oc] + ['R ' + ftxt(x) for x in orr])
                got = own(proto, me, port, other, cl); label = f'IPv{fam} {proto} {method}: a client on the director, not by the service'
                b.rec(case=label, nat_icmp_send=on, method=method, proto=proto, vip=vip, server=me, server_port=port, port=port, to=other, said=got, to_client=[], to_server=[])
                print('##', label, on, got)
            vs('nat_icmp_send', 0); sh(f'ipvsadm -D {flag} {q(vip)}:100')
