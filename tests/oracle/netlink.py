"""What the kernel's family IPVS answers to single netlink messages: errno by errno, attribute by attribute.
Runs in the oracle's VM; writes /out/netlink.jsonl: first the family, then each datagram sent (hex) and all that came back."""
import json, os, socket, struct
ACK, DUMP, REQ = 4, 0x300, 1
out = open('/out/netlink.jsonl', 'w')
s = socket.socket(16, socket.SOCK_RAW, 16); s.bind((0, 0)); s.settimeout(0.3)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
seq = 0

def attr(kind, value=b''):
    if isinstance(value, str): value = value.encode() + b'\0'
    return struct.pack('HH', len(value) + 4, kind) + value + b'\0' * (-len(value) % 4)
def nest(kind, *parts): return attr(kind | 0x8000, b''.join(parts))
def u8(k, v): return attr(k, struct.pack('B', v))
def u16(k, v): return attr(k, struct.pack('H', v))
def be16(k, v): return attr(k, struct.pack('!H', v))
def u32(k, v): return attr(k, struct.pack('I', v & 0xffffffff))
def ip4(k, a): return attr(k, socket.inet_aton(a) + bytes(12))
def ip6(k, a): return attr(k, socket.inet_pton(10, a))
def message(kind, flags, command, body=b'', version=1):
    global seq
    seq += 1
    return struct.pack('IHHII', 20 + len(body), kind, flags, seq, 0) + struct.pack('BBH', command, version, 0) + body
def send(case, datagram, expect=1):
    s.send(datagram); back, ends = [], 0
    while True:
        try: back.append(s.recv(1 << 17).hex())
        except socket.timeout: break
        last = bytes.fromhex(back[-1])
        while len(last) >= 16:
            n, k = struct.unpack('IH', last[:6]); ends += k in (2, 3); last = last[(n + 3) & ~3:]
        if ends == expect: break
    out.write(json.dumps(dict(case=case, request=datagram.hex(), replies=back)) + '\n'); out.flush()
    return back

# The controller.
reply = send('getfamily by name', message(16, REQ | ACK, 3, attr(2, 'IPVS'), 2))
body = bytes.fromhex(reply[0])[20:]; FAMILY = None
while len(body) >= 4:
    n, k = struct.unpack('HH', body[:4])
    if k == 1: FAMILY = struct.unpack('H', body[4:6])[0]
    body = body[(n + 3) & ~3:]
out.seek(0); out.truncate(); out.write(json.dumps(dict(family=FAMILY, kernel=os.uname().release)) + '\n')
send('getfamily by name', message(16, REQ | ACK, 3, attr(2, 'IPVS'), 2))
send('getfamily by name, version 1, no ack', message(16, REQ, 3, attr(2, 'IPVS'), 1))
send('getfamily by id', message(16, REQ | ACK, 3, u16(1, FAMILY), 2))
send('getfamily of an unknown name', message(16, REQ | ACK, 3, attr(2, 'nosuchfamily'), 2))
send('getfamily of an unknown id', message(16, REQ | ACK, 3, u16(1, 9999), 2))
send('getfamily of nothing', message(16, REQ | ACK, 3, b'', 2))
send('controller: command 200', message(16, REQ | ACK, 200, b'', 2))

def ipvs(case, command, *parts, flags=REQ | ACK, version=1): return send(case, message(FAMILY, flags, command, b''.join(parts), version))
NEW, SET, DEL, GET, NEWD, SETD, DELD, GETD, NEWS, DELS, GETS, SETC, GETC, SETI, GETI, ZERO, FLUSH = range(1, 18)
AF, ADDR, PORT, SCHED, FLAGS, TIMEOUT, MASK = u16(1, 2), ip4(3, '10.9.1.1'), be16(4, 80), attr(6, 'rr'), attr(7, struct.pack('II', 0, 0xffffffff)), u32(8, 0), attr(9, b'\xff' * 4)
TCP = u16(2, 6); NAME = [AF, TCP, ADDR, PORT]; REST = [SCHED, FLAGS, TIMEOUT, MASK]; FULL = NAME + REST
def service(*parts): return nest(1, *parts)
def but(index, *new): return service(*(FULL[:index] + list(new) + FULL[index + 1:]))
def at(port, *more): return service(AF, TCP, ADDR, be16(4, port), *(more or REST))
def fresh(): ipvs('(flush)', FLUSH)

# Framing.
for c in (0, 18, 63, 255): ipvs('command %d' % c, c)
send('no NLM_F_REQUEST', message(FAMILY, ACK, GETI)); send('no generic header', struct.pack('IHHII', 16, FAMILY, REQ | ACK, 900, 0))
send('half a generic header', struct.pack('IHHII', 18, FAMILY, REQ | ACK, 901, 0) + b'\x0f\x01')
send('a family that is not there', message(0x7777, REQ | ACK, 1)); send('control message NOOP', message(1, REQ | ACK, 1))
send('length beyond the datagram', struct.pack('IHHII', 100, FAMILY, REQ | ACK, 902, 0) + struct.pack('BBH', GETI, 1, 0))
send('length below the header', struct.pack('IHHII', 8, FAMILY, REQ | ACK, 903, 0) + struct.pack('BBH', GETI, 1, 0))
for v in (0, 2, 77): ipvs('version %d' % v, GETI, version=v)
ipvs('get info', GETI); ipvs('get info without ack', GETI, flags=REQ); ipvs('get info as a dump', GETI, flags=REQ | DUMP); ipvs('set info', SETI)
ipvs('get config', GETC); ipvs('get config as a dump', GETC, flags=REQ | DUMP)
send('three messages', message(FAMILY, REQ | ACK, GETI) + message(FAMILY, REQ | ACK, 99) + message(FAMILY, REQ | ACK, GETI), 3)
send('a good message, then a cut one', message(FAMILY, REQ | ACK, GETI) + struct.pack('IHHII', 100, FAMILY, REQ | ACK, 904, 0))
ipvs('unknown attributes', GETI, attr(100, b'x' * 9), nest(1000, u8(1, 1))); ipvs('an attribute longer than the message', GETI, struct.pack('HH', 400, 1) + b'x' * 8)
ipvs('an attribute shorter than its header', GETI, struct.pack('HH', 2, 1) + b'x' * 8); ipvs('a tail of 3 bytes', GETI, b'xyz')

# Services.
fresh()
ipvs('new service: no attributes', NEW); ipvs('new service: not nested', NEW, attr(1, b'')); ipvs('new service: empty nest', NEW, service())
ipvs('new service: nest flag not set', NEW, attr(1, b''.join(FULL))); ipvs('it again', NEW, service(*FULL)); fresh()
for i, n in enumerate(['af', 'protocol', 'addr', 'port', 'sched', 'flags', 'timeout', 'netmask']): ipvs('new service: without ' + n, NEW, but(i)); fresh()
for a in (0, 1, 7, 10): ipvs('new service: family %d' % a, NEW, but(0, u16(1, a))); fresh()
ipvs('new service: family of one byte', NEW, but(0, u8(1, 2))); ipvs('new service: family of four bytes', NEW, but(0, u32(1, 2))); fresh()
for p in (0, 1, 6, 17, 132, 255, 262): ipvs('new service: protocol %d' % p, NEW, but(1, u16(2, p))); fresh()
ipvs('new service: address of 4 bytes', NEW, but(2, attr(3, bytes(4)))); ipvs('new service: address of 20 bytes', NEW, but(2, attr(3, bytes(20)))); fresh()
for p in (0, 65535): ipvs('new service: port %d' % p, NEW, but(3, be16(4, p))); fresh()
for n in ('', 'bogus', 'none', 'wlc', 'a' * 15, 'a' * 16, 'a' * 17, 'a' * 40): ipvs('new service: scheduler %r' % n, NEW, but(4, attr(6, n))); fresh()
ipvs('new service: scheduler without NUL', NEW, but(4, attr(6, b'rr'))); fresh(); ipvs('new service: scheduler, NUL inside', NEW, but(4, attr(6, b'rr\0x'))); fresh()
ipvs('new service: flags of 4 bytes', NEW, but(5, u32(7, 0))); fresh()
for f, m in ((1, 0xffffffff), (1, 0), (0xffff, 0xffffffff), (4, 0xffffffff), (0xffff, 0x8), (2, 2)):
    ipvs('new service: flags %#x mask %#x' % (f, m), NEW, but(5, attr(7, struct.pack('II', f, m)))); ipvs('get it', GET, service(*NAME)); fresh()
for t in (1, 360, 0x7fffffff, 0xffffffff): ipvs('new service: timeout %#x' % t, NEW, but(6, u32(8, t))); ipvs('get it', GET, service(*NAME)); fresh()
for m in (b'\0\0\0\0', b'\xff\xff\xff\0', b'\xff\0\xff\0', b'\xff'): ipvs('new service: netmask ' + m.hex(), NEW, but(7, attr(9, m))); ipvs('get it', GET, service(*NAME)); fresh()
V6 = [u16(1, 10), TCP, ip6(3, 'fd09::1'), PORT, SCHED, FLAGS, TIMEOUT]
for m in (0, 1, 64, 128, 129, 0xffffffff): ipvs('new IPv6 service: netmask %#x' % m, NEW, service(*V6, u32(9, m))); ipvs('get it', GET, service(*V6[:4])); fresh()
for n in ('', 'bogus', 'sip', 'a' * 16, 'a' * 17): ipvs('new service: engine %r' % n, NEW, service(*FULL, attr(11, n))); ipvs('get it', GET, service(*NAME)); fresh()
ipvs('new udp service with ops', NEW, service(AF, u16(2, 17), ADDR, PORT, SCHED, attr(7, struct.pack('II', 4, 0xffffffff)), TIMEOUT, MASK)); fresh()
for m in (0, 1, 0xffffffff): ipvs('new fwmark service %d' % m, NEW, service(AF, u32(5, m), *REST)); ipvs('get it', GET, service(AF, u32(5, m))); fresh()
ipvs('new fwmark service: family 7', NEW, service(u16(1, 7), u32(5, 1), *REST)); ipvs('new fwmark service: no family', NEW, service(u32(5, 1), *REST)); ipvs('new fwmark service: protocol 1', NEW, service(AF, u16(2, 1), u32(5, 1), *REST)); ipvs('dump', GET, flags=REQ | DUMP); fresh()
ipvs('new service: fwmark and address', NEW, service(*FULL, u32(5, 3))); ipvs('dump', GET, flags=REQ | DUMP); fresh()
ipvs('new service: two nests', NEW, at(81), at(82)); ipvs('dump', GET, flags=REQ | DUMP); fresh()
ipvs('new service: two ports', NEW, service(AF, TCP, ADDR, be16(4, 83), be16(4, 84), *REST)); ipvs('dump', GET, flags=REQ | DUMP); fresh()
ipvs('new service: unknown attributes', NEW, service(*FULL, attr(200, b'abc')), attr(201, b'def')); fresh()
ipvs('new service: an attribute in the nest too long', NEW, service(*FULL, struct.pack('HH', 99, 3))); fresh()
ipvs('new service: stats given', NEW, service(*FULL, nest(10, u32(1, 77)))); ipvs('get it', GET, service(*NAME)); fresh()
ipvs('new service', NEW, service(*FULL)); ipvs('new service again', NEW, service(*FULL)); ipvs('new service again, unknown scheduler', NEW, but(4, attr(6, 'bogus')))
ipvs('new service, name only, there', NEW, service(*NAME)); ipvs('new service, name only, not there', NEW, at(85, *[b'']))
ipvs('get service', GET, service(*NAME)); ipvs('get service without ack', GET, service(*NAME), flags=REQ); ipvs('get service, not there', GET, at(99)); ipvs('get service, no attributes', GET); ipvs('get service: empty nest', GET, service())
ipvs('get service: AF only', GET, service(AF)); ipvs('dump services', GET, flags=REQ | DUMP); ipvs('dump services with ack', GET, flags=REQ | DUMP | ACK); ipvs('dump services, a service given', GET, service(*NAME), flags=REQ | DUMP); ipvs('NLM_F_ROOT only', GET, service(*NAME), flags=REQ | 0x100)
ipvs('set service, not there', SET, at(99)); ipvs('set service, not there, name only', SET, service(AF, TCP, ADDR, be16(4, 99))); ipvs('set service, name only', SET, service(*NAME)); ipvs('set service: unknown scheduler', SET, but(4, attr(6, 'bogus'))); ipvs('set service: engine', SET, service(*FULL, attr(11, 'bogus')))
ipvs('set service: wlc, persistent', SET, service(*NAME, attr(6, 'wlc'), attr(7, struct.pack('II', 1, 0xffffffff)), u32(8, 50), MASK)); ipvs('get it', GET, service(*NAME))
ipvs('set service: flags 4 mask 4', SET, service(*NAME, attr(6, 'wlc'), attr(7, struct.pack('II', 4, 4)), u32(8, 0), MASK)); ipvs('get it', GET, service(*NAME))
ipvs('set service: scheduler empty', SET, but(4, attr(6, ''))); ipvs('get it', GET, service(*NAME))
ipvs('del service, not there', DEL, at(99)); ipvs('del service, no attributes', DEL); ipvs('del service: extra attributes', DEL, service(*FULL)); ipvs('del service again', DEL, service(*NAME))
ipvs('zero, not there', ZERO, at(99)); ipvs('zero all', ZERO); ipvs('zero: empty nest', ZERO, service()); ipvs('new service', NEW, service(*FULL)); ipvs('zero it', ZERO, service(*NAME)); ipvs('zero as a dump', ZERO, flags=REQ | DUMP)
ipvs('flush', FLUSH); ipvs('flush again', FLUSH); ipvs('dump nothing', GET, flags=REQ | DUMP); ipvs('new service as a dump', NEW, service(*FULL), flags=REQ | DUMP)

# Destinations.
fresh(); ipvs('new service', NEW, service(*FULL)); S = service(*NAME)
D = [ip4(1, '10.1.0.1'), be16(2, 80), u32(3, 0), u32(4, 1), u32(5, 0), u32(6, 0)]
def dest(*parts): return nest(2, *parts)
def dbut(index, *new): return dest(*(D[:index] + list(new) + D[index + 1:]))
ipvs('new dest: no attributes', NEWD); ipvs('new dest: no dest', NEWD, S); ipvs('new dest: no service', NEWD, dest(*D)); ipvs('new dest: service not there', NEWD, at(99), dest(*D)); ipvs('new dest: service not there, bad dest', NEWD, at(99), dest())
ipvs('new dest: empty', NEWD, S, dest())
def wipe(): ipvs('(del dest)', DELD, S, dest(*D[:2]))
for i, n in enumerate(['addr', 'port', 'fwd_method', 'weight', 'u_thresh', 'l_thresh']): ipvs('new dest: without ' + n, NEWD, S, dbut(i))
for f in (1, 2, 3, 4, 5, 6, 7, 8, 0x100, 0xffffffff): ipvs('new dest: fwd_method %#x' % f, NEWD, S, dbut(2, u32(3, f))); ipvs('dump dests', GETD, S, flags=REQ | DUMP); wipe()
for w in (0, 65536, 0x7fffffff, 0x80000000, 0xffffffff): ipvs('new dest: weight %#x' % w, NEWD, S, dbut(3, u32(4, w))); wipe()
for u, l in ((5, 6), (0, 1), (6, 6), (0xffffffff, 0xfffffffe), (0, 0)): ipvs('new dest: thresholds %d %d' % (u, l), NEWD, S, dest(*D[:4], u32(5, u), u32(6, l))); ipvs('dump dests', GETD, S, flags=REQ | DUMP); wipe()
for u, l in ((0x7fffffff, 0), (0x80000000, 0), (0x80000000, 5), (0xffffffff, 0xffffffff), (0x7fffffff, 0x7fffffff)): ipvs('new dest: thresholds %#x %#x' % (u, l), NEWD, S, dest(*D[:4], u32(5, u), u32(6, l))); ipvs('dump dests', GETD, S, flags=REQ | DUMP); wipe()
for a in ('0.0.0.0', '127.0.0.1', '224.0.0.1', '255.255.255.255', '240.0.0.1', '10.9.1.1', '10.0.0.255'): ipvs('new dest: ' + a, NEWD, S, dbut(0, ip4(1, a))); ipvs('(del)', DELD, S, dest(ip4(1, a), D[1]))
ipvs('new dest: address of 4 bytes', NEWD, S, dbut(0, attr(1, bytes([10, 1, 0, 1])))); wipe()
ipvs('new dest: port 0', NEWD, S, dbut(1, be16(2, 0))); ipvs('(del)', DELD, S, dest(D[0], be16(2, 0)))
for a in (0, 2, 7, 10): ipvs('new dest: family %d' % a, NEWD, S, dest(*D, u16(11, a))); ipvs('dump dests', GETD, S, flags=REQ | DUMP); wipe()
D6 = [ip6(1, 'fd01::1'), be16(2, 80), u32(3, 0), u32(4, 1), u32(5, 0), u32(6, 0), u16(11, 10)]
ipvs('new dest: IPv6, masquerading', NEWD, S, dest(*D6)); ipvs('new dest: IPv6, tunnel', NEWD, S, dest(*D6[:2], u32(3, 2), *D6[3:])); ipvs('dump dests', GETD, S, flags=REQ | DUMP); ipvs('del dest: IPv6, family not given', DELD, S, dest(*D6[:2])); ipvs('del dest: IPv6', DELD, S, dest(*D6[:2], D6[6]))
for t, p, f in ((0, 0, 0), (1, 0, 0), (1, 6080, 0), (1, 6080, 1), (1, 6080, 2), (1, 6080, 3), (1, 6080, 4), (2, 0, 0), (2, 5, 1), (2, 0, 2), (3, 0, 0), (255, 0, 0)):
    ipvs('new dest: tunnel type %d port %d flags %d' % (t, p, f), NEWD, S, dest(*D[:2], u32(3, 2), *D[3:], u8(13, t), be16(14, p), u16(15, f))); ipvs('dump dests', GETD, S, flags=REQ | DUMP); wipe()
ipvs('new dest: masquerading, tunnel type gue', NEWD, S, dest(*D, u8(13, 1), be16(14, 6080))); ipvs('dump dests', GETD, S, flags=REQ | DUMP); wipe()
ipvs('new dest: masquerading, gue, port 0', NEWD, S, dest(*D, u8(13, 1), be16(14, 0))); wipe(); ipvs('new dest: IPv6, masquerading, bad weight', NEWD, S, dest(*D6[:3], u32(4, -1), *D6[4:])); ipvs('new dest: not unicast, bad weight', NEWD, S, dest(ip4(1, '224.0.0.1'), *D[1:3], u32(4, -1), *D[4:])); ipvs('new dest: bad weight, bad thresholds, gue', NEWD, S, dest(*D[:3], u32(4, -1), u32(5, 1), u32(6, 2), u8(13, 1)))
ipvs('new dest', NEWD, S, dest(*D)); ipvs('new dest again, other family', NEWD, S, dest(*D, u16(11, 10))); ipvs('new dest again', NEWD, S, dest(*D)); ipvs('new dest again, bad weight', NEWD, S, dbut(3, u32(4, -1))); ipvs('second dest', NEWD, S, dbut(0, ip4(1, '10.1.0.2'))); ipvs('third dest', NEWD, S, dbut(0, ip4(1, '10.1.0.3')))
ipvs('dump dests', GETD, S, flags=REQ | DUMP); ipvs('get dests without dump', GETD, S); ipvs('dump dests of nothing', GETD, flags=REQ | DUMP); ipvs('dump dests of a service that is not there', GETD, at(99), flags=REQ | DUMP); ipvs('dump dests of an empty nest', GETD, service(), flags=REQ | DUMP)
ipvs('set dest, not there', SETD, S, dbut(0, ip4(1, '10.1.0.9'))); ipvs('set dest, name only', SETD, S, dest(*D[:2])); ipvs('set dest: weight 7, thresholds 9 3', SETD, S, dest(*D[:3], u32(4, 7), u32(5, 9), u32(6, 3))); ipvs('set dest: weight -1', SETD, S, dbut(3, u32(4, -1))); ipvs('set dest: thresholds', SETD, S, dest(*D[:4], u32(5, 1), u32(6, 3))); ipvs('set dest: tunnel', SETD, S, dbut(2, u32(3, 2))); ipvs('set dest: service not there', SETD, at(99), dest(*D)); ipvs('set dest: address not unicast', SETD, S, dbut(0, ip4(1, '224.0.0.1'))); ipvs('dump dests', GETD, S, flags=REQ | DUMP)
ipvs('set service: sh, destinations stay', SET, but(4, attr(6, 'sh'))); ipvs('dump dests', GETD, S, flags=REQ | DUMP)
ipvs('del dest, not there', DELD, S, dest(ip4(1, '10.1.0.9'), D[1])); ipvs('del dest: no dest', DELD, S); ipvs('del dest: other port', DELD, S, dest(D[0], be16(2, 81))); ipvs('del dest: service not there', DELD, at(99), dest(*D[:2])); ipvs('del dest', DELD, S, dest(*D[:2])); ipvs('dump dests', GETD, S, flags=REQ | DUMP)
fresh(); ipvs('new fwmark service', NEW, service(AF, u32(5, 5), *REST)); F = service(AF, u32(5, 5)); ipvs('new dest of a mark, port 0', NEWD, F, dbut(1, be16(2, 0))); ipvs('dump dests', GETD, F, flags=REQ | DUMP); fresh()

# Configuration.
for c in ((1, 2, 3), (0, 0, 0), (5, 0, 0), (0x7fffffff, 1, 1), (8589934, 1, 1), (2147483, 1, 1), (2147484, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (900, 120, 300)): ipvs('set config %d %d %d' % c, SETC, u32(4, c[0]), u32(5, c[1]), u32(6, c[2])); ipvs('get config', GETC)
ipvs('set config: tcp only', SETC, u32(4, 7)); ipvs('set config: nothing', SETC); ipvs('set config: two bytes', SETC, u16(4, 7), u32(5, 1), u32(6, 1)); ipvs('get config', GETC)

# Sync daemons.
def daemon(*p): return nest(3, *p)
I = attr(2, 'lo')
ipvs('dump daemons', GETS, flags=REQ | DUMP); ipvs('get daemons without dump', GETS); ipvs('new daemon: no attributes', NEWS); ipvs('new daemon: empty', NEWS, daemon()); ipvs('new daemon: state only', NEWS, daemon(u32(1, 1))); ipvs('new daemon: no syncid', NEWS, daemon(u32(1, 1), I)); ipvs('new daemon: no state', NEWS, daemon(I, u32(3, 0)))
for st in (0, 3, 4, -1): ipvs('new daemon: state %d' % st, NEWS, daemon(u32(1, st), I, u32(3, 1))); ipvs('dump daemons', GETS, flags=REQ | DUMP); ipvs('(del master)', DELS, daemon(u32(1, 1), I, u32(3, 1))); ipvs('(del backup)', DELS, daemon(u32(1, 2), I, u32(3, 1)))
ipvs('new daemon: no such interface', NEWS, daemon(u32(1, 1), attr(2, 'nosuch0'), u32(3, 1))); ipvs('new daemon: interface empty', NEWS, daemon(u32(1, 1), attr(2, ''), u32(3, 1))); ipvs('new daemon: interface too long', NEWS, daemon(u32(1, 1), attr(2, 'a' * 16), u32(3, 1)))
ipvs('new daemon', NEWS, daemon(u32(1, 1), I, u32(3, 7))); ipvs('new daemon again', NEWS, daemon(u32(1, 1), I, u32(3, 7))); ipvs('new daemon again, no such interface', NEWS, daemon(u32(1, 1), attr(2, 'nosuch0'), u32(3, 7))); ipvs('dump daemons', GETS, flags=REQ | DUMP); ipvs('new backup', NEWS, daemon(u32(1, 2), I, u32(3, 8))); ipvs('dump daemons', GETS, flags=REQ | DUMP)
ipvs('del daemon: no attributes', DELS); ipvs('del daemon: empty', DELS, daemon()); ipvs('del daemon: state only', DELS, daemon(u32(1, 1))); ipvs('del daemon: state 0', DELS, daemon(u32(1, 0), I, u32(3, 0))); ipvs('del daemon: other syncid', DELS, daemon(u32(1, 2), I, u32(3, 99))); ipvs('del daemon again', DELS, daemon(u32(1, 1), I, u32(3, 7))); ipvs('dump daemons', GETS, flags=REQ | DUMP); ipvs('(del backup)', DELS, daemon(u32(1, 2))); ipvs('dump daemons', GETS, flags=REQ | DUMP)
def cycle(case, *p): ipvs('new daemon: ' + case, NEWS, daemon(u32(1, 1), I, *p)); ipvs('dump daemons', GETS, flags=REQ | DUMP); ipvs('(del master)', DELS, daemon(u32(1, 1)))
for i in (0, 255, 256, -1): cycle('syncid %d' % i, u32(3, i))
for m in (0, 1, 8, 20, 100, 1472, 1473, 65535): cycle('maxlen %d' % m, u32(3, 1), u16(4, m))
for g in ('224.0.0.99', '10.0.0.1', '0.0.0.0', '239.1.1.1'): cycle('group ' + g, u32(3, 1), attr(5, socket.inet_aton(g)))
for g in ('ff02::1', 'fd00::1', '::', 'ff05::81'): cycle('group ' + g, u32(3, 1), ip6(6, g))
cycle('two groups', u32(3, 1), attr(5, socket.inet_aton('224.0.0.99')), ip6(6, 'ff05::81'))
for p in (0, 1, 9999, 65535): cycle('port %d' % p, u32(3, 1), u16(7, p))
for t in (0, 1, 5, 255): cycle('ttl %d' % t, u32(3, 1), u8(8, t))
ipvs('new daemon: as a dump', NEWS, daemon(u32(1, 1), I, u32(3, 1)), flags=REQ | DUMP); fresh()

# A dump in parts.
for i in range(300): ipvs('(new service)', NEW, service(AF, TCP, ip4(3, '10.9.2.1'), be16(4, i + 1), *REST))
r = ipvs('dump 300 services', GET, flags=REQ | DUMP); print(len(r), 'datagrams', [len(x) // 2 for x in r])
