"""What a backup takes. sync_taken.jsonl: crafted messages, and the connections and counts of a director after each. A case has a VIP and
marks of its own, so that nothing is left of those before."""
from lib import *
G, PORT = '224.0.0.81', 8848
sh('modprobe ip_vs; modprobe ip_vs_pe_sip; modprobe ip_vs_rr')
b = Bench('sync_taken')
rec = b.rec
B = 'ipvsadm --start-daemon backup --mcast-interface '
NR = [0]
def vip(): return '10.9.%d.%d' % (8 + (NR[0] >> 7), 1 + (NR[0] & 127))
def vip6(): return 'fd09::%x' % (0x100 + NR[0])
def m7(): return 1000 + 2 * NR[0]
def m9(): return 1001 + 2 * NR[0]
def dotted(m): return socket.inet_ntoa(struct.pack('!I', m))
sh(B + 'dc --syncid 5')
def frame(data): return eth('01005e000051', MC, ip('10.0.0.2', G, 17, struct.pack('!HHHH', 50000, PORT, 8 + len(data), 0) + data, ttl=1))
def e4(cp, state=1, flags=0x100 * 0, proto=6, vp=80, dp=80, d=rs(0), v=None, c=C, timeout=900, mark=0, opts=b'', type=0, ver=0, size=None):
    v = v or vip()
    body = struct.pack('!IHHHHII', flags, state, cp, vp, dp, mark, timeout) + pa(c) + pa(v) + pa(d) + opts
    return struct.pack('!BBH', type, proto, ver << 12 | (size if size is not None else 4 + len(body))) + body
def e6(cp, **k): return e4(cp, **{**dict(v=vip6(), c=C6, d=rs6(0), type=1), **k})
def msg(*entries, id=5, nr=None, reserved=0, version=1, spare=0, size=None, tail=b''):
    body = b''
    for i, e in enumerate(entries): body += e; body += b'\0' * (-len(body) % 4) if i + 1 < len(entries) else b''
    body += tail
    return struct.pack('!BBHBBH', reserved, id, size if size is not None else 8 + len(body), len(entries) if nr is None else nr, version, spare) + body
def m0(*entries, id=5, nr=None, size=None):
    body = b''.join(entries); return struct.pack('!BBH', len(entries) if nr is None else nr, id, size if size is not None else 4 + len(body)) + body
def v0(cp, state=1, flags=0, proto=6, vp=80, dp=80, d=rs(0), v=None, c=C, opts=b''): v = v or vip(); return struct.pack('!BBHHH', 0, proto, cp, vp, dp) + pa(c) + pa(v) + pa(d) + struct.pack('!HH', flags, state) + opts
def raw(): return [l.split() for l in open('/proc/net/ip_vs_conn_sync').read().splitlines()[1:]]
def services():
    v, v6 = vip(), vip6()
    return [f'-A -t {v}:80 -s rr', f'-a -t {v}:80 -r {rs(0)}:80 -m', f'-a -t {v}:80 -r {rs(1)}:80 -g', f'-A -u {v}:53 -s rr', f'-a -u {v}:53 -r {rs(0)}:53 -m', f'-A -t {v}:90 -s rr -p 100', f'-a -t {v}:90 -r {rs(0)}:90 -g', f'-A -t {v}:0 -s rr -p 100', f'-a -t {v}:0 -r {rs(0)}:0 -g',
            f'-A -f {m7()} -s rr -p 100', f'-a -f {m7()} -r {rs(0)} -g', f'-A -f {m9()} -s rr', f'-a -f {m9()} -r {rs(2)}:0 -m', f'-A -t [{v6}]:80 -s rr', f'-a -t [{v6}]:80 -r [{rs6(0)}]:80 -m', f'-A -u {v}:5060 -s rr -p 77 --pe sip', f'-a -u {v}:5060 -r {rs(0)}:5060 -m']
def raw():
    mine = {pa(vip()).hex().upper(), pa('10.9.99.99').hex().upper(), ':'.join('%04x' % x for x in struct.unpack('!8H', pa(vip6()))), '%08X' % m7(), '%08X' % (m7() + 100000)}
    return [l.split() for l in open('/proc/net/ip_vs_conn_sync').read().splitlines()[1:] if l.split()[3] in mine]
def counts():
    out, s, mine = [], None, {pa(vip()).hex().upper(), '%08X' % m7(), '%08X' % m9()}
    for l in open('/proc/net/ip_vs').read().splitlines()[3:]:
        w = l.split()
        if w[0] == '->': s and out.append([s, w[1], w[2], int(w[4]), int(w[5])])
        else: s = w[0] + ' ' + w[1] if w[0] == 'FWM' and w[1] in mine or w[1].split(':')[0] in mine or w[1].startswith('[fd09:0000:0000:0000:0000:0000:0000:%04x]' % (0x100 + NR[0])) else None
    return out
UP = [False]
def case(what, data, before=None, keep=False):
    """`keep`: the next case goes on from here"""
    rules = None
    if not UP[0]: rules = services(); sh(f'ip addr add {vip()}/32 dev lo'); sh('ipvsadm -R', '\n'.join(rules) + '\n'); UP[0] = True
    if before: sh('ipvsadm ' + before)
    data = [data] if isinstance(data, bytes) else data
    for d in data: b.c.send(frame(d)); time.sleep(0.08)
    time.sleep(0.05)
    r = dict(case=what, rules=rules, before=before, messages=[d.hex() for d in data], conns=raw(), dests=counts())
    rec(**r); print('##', what); [print('   ', ' '.join(x)) for x in r['conns']]; print('   ', [x for x in r['dests'] if x[3] or x[4]])
    if not keep: done()
def done():
    if UP[0]: sh(f'ipvsadm -C; ip addr del {vip()}/32 dev lo')
    UP[0] = False; NR[0] += 1
N = [40000]
def cp(): N[0] += 1; return N[0]
I, NO, T = 0x100, 0x80, 0x1000
for st in range(14): case(f'TCP state {st}', msg(e4(cp(), st)))
for fl in (0, I, NO, NO | 3, 3, I | 3 | NO, 2, 1, 4, 5, 7, 0x20, 0x40, 0x200, 0x400, 0x600, 0x800, 0x2000, 0x10000, 0xffff0000): case(f'flags {fl:#x}', msg(e4(cp(), 1, fl)))
for to in (0, 1, 60, 900, 0x7fffffff, 0xffffffff): case(f'timeout {to}', msg(e4(cp(), 1, timeout=to))); case(f'template, timeout {to}', msg(e4(0, 0, T, vp=90, dp=90, timeout=to)))
case('to a destination of direct routing', msg(e4(cp(), 1, 0, d=rs(1)))); case('no such destination', msg(e4(cp(), 1, 3, d=rs(7)))); case('no such destination, masqueraded', msg(e4(cp(), 1, 0, d=rs(7)))); case('no such service', msg(e4(cp(), 1, 3, vp=4444, v='10.9.99.99')))
case('another port of the destination', msg(e4(cp(), 1, 0, dp=8080))); case('any port', msg(e4(cp(), 1, 3, vp=7070, dp=7070)))
c = cp(); case('an update: state', [msg(e4(c, 1)), msg(e4(c, 4, I, timeout=120))]); c = cp(); case('an update: active again', [msg(e4(c, 4, I)), msg(e4(c, 1))]); c = cp(); case('an update: another destination', [msg(e4(c, 1)), msg(e4(c, 1, 3, d=rs(1)))]); c = cp(); case('an update: another destination, inactive', [msg(e4(c, 1)), msg(e4(c, 6, I | 3, d=rs(1)))])
c = cp(); case('an update: another method', [msg(e4(c, 1)), msg(e4(c, 1, 3))]); c = cp(); case('an update: a shorter timeout', [msg(e4(c, 1, timeout=900)), msg(e4(c, 1, timeout=30))])
c = cp(); case('bound later by an update', [msg(e4(c, 1, 3, d=rs(5)))], keep=True); case('bound later by an update: the destination is added', [], f'-a -t {vip()}:80 -r {rs(5)}:80 -g', keep=True); case('bound later by an update: the update', msg(e4(c, 1, 3, d=rs(5))))
c = cp(); case('unbound, then a destination of another method', [msg(e4(c, 1, 3, d=rs(5)))], keep=True); case('unbound, then a destination of another method: the update', msg(e4(c, 1, 3, d=rs(5))), f'-a -t {vip()}:80 -r {rs(5)}:80 -i')
case('template', msg(e4(0, 0, T, vp=90, dp=90, timeout=100))); case('template, assured', msg(e4(0, 1, T, vp=90, dp=90, timeout=100))); case('template, state 2', msg(e4(0, 2, T, vp=90, dp=90, timeout=100))); case('template of any port', msg(e4(0, 0, T | 3, vp=0, dp=0, timeout=100)))
case('template of a mark', msg(e4(0, 0, T | 3, proto=0, v=dotted(m7()), vp=0, dp=0, mark=m7(), timeout=100))); case('template of another mark', msg(e4(0, 0, T | 3, proto=0, v=dotted(m7() + 100000), vp=0, dp=0, mark=m7() + 100000, timeout=100))); case('template, another destination', [msg(e4(0, 0, T, vp=90, dp=90)), msg(e4(0, 0, T, vp=90, dp=90, d=rs(1)))])
case('a connection by mark', msg(e4(cp(), 1, 0, vp=110, dp=110, d=rs(2), mark=m9()))); case('a connection by mark, direct', msg(e4(cp(), 1, 3, vp=100, dp=100, d=rs(0), mark=m7())))
case('UDP', msg(e4(cp(), 0, I, proto=17, vp=53, dp=53, timeout=300))); case('UDP, active', msg(e4(cp(), 0, 0, proto=17, vp=53, dp=53, timeout=300))); case('UDP, state 1', msg(e4(cp(), 1, I, proto=17, vp=53, dp=53))); case('SCTP, state 8', msg(e4(cp(), 8, 0, proto=132, timeout=900))); case('SCTP, state 14', msg(e4(cp(), 14, 0, proto=132)))
case('ESP', msg(e4(500, 0, 0, proto=50, vp=500, dp=500))); case('ICMP', msg(e4(cp(), 0, 0, proto=1))); case('protocol 0', msg(e4(cp(), 0, 0, proto=0)))
case('IPv6', msg(e6(cp(), state=1))); case('IPv6, no such destination', msg(e6(cp(), state=1, d=rs6(5), flags=3))); case('IPv6 and IPv4', msg(e6(cp(), state=1), e4(cp(), 1), e6(cp(), state=4, flags=I)))
seq = bytes([1, 24]) + struct.pack('!6I', 1, 2, 3, 4, 5, 6); case('sequence deltas', msg(e4(cp(), 1, 0x600, opts=seq))); case('sequence deltas twice', msg(e4(cp(), 1, 0x600, opts=seq + seq))); case('sequence deltas of a wrong length', msg(e4(cp(), 1, 0x600, opts=bytes([1, 23]) + bytes(23)))); case('an option of length 0', msg(e4(cp(), 1, opts=bytes([1, 0]))))
case('an unknown option', msg(e4(cp(), 1, opts=bytes([9, 4]) + bytes(4)))); case('an unknown option that may be skipped', msg(e4(cp(), 1, opts=bytes([0x85, 4]) + bytes(4)))); case('an unknown option that may be skipped, high', msg(e4(cp(), 1, opts=bytes([0x47, 4]) + bytes(4)), e4(cp(), 1)))
[case(f'{w}, and a good one', msg(e4(cp(), opts=o), e4(cp()))) for w, o in (('sequence deltas twice', seq + seq), ('sequence deltas of a wrong length', bytes([1, 23]) + bytes(23)), ('an option of length 0', bytes([1, 0])), ('an option that is too long', bytes([0x47, 9, 1])), ('an unknown option', bytes([9, 4]) + bytes(4)), ('half an option', bytes([0x47])), ('an engine name of 17', bytes([3, 17]) + b'x' * 17), ('an engine name twice', bytes([3, 1]) + b'x' + bytes([3, 1]) + b'x'), ('an unknown engine', bytes([3, 3]) + b'xyz' + bytes([2, 4]) + b'call'))]
pe = bytes([3, 3]) + b'sip' + bytes([2, 9]) + b'call-1@hh'; case('engine sip', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, timeout=77, opts=pe))); case('engine sip, a connection', msg(e4(cp(), 0, I, proto=17, vp=5060, dp=5060, timeout=77, opts=pe))); case('an unknown engine', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, opts=bytes([3, 3]) + b'xyz' + bytes([2, 4]) + b'call')))
case('engine data without a name', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, opts=bytes([2, 4]) + b'call'))); case('engine name without data', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, opts=bytes([3, 3]) + b'sip'))); case('an engine name of 17', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, opts=bytes([3, 17]) + b'x' * 17)))
for what, m in (('another syncid', msg(e4(cp()), id=6)), ('syncid 0', msg(e4(cp()), id=0)), ('size too small', msg(e4(cp()), size=43)), ('size too great', msg(e4(cp()), size=45)), ('a tail', msg(e4(cp()), tail=b'abcd')), ('a spare that is set', msg(e4(cp()), spare=1)), ('version 2', msg(e4(cp()), version=2)), ('reserved 1', msg(e4(cp()), reserved=1)),
                ('no entries', msg()), ('more entries than there are', msg(e4(cp()), nr=2)), ('fewer entries than there are', msg(e4(cp()), e4(cp()), nr=1)), ('entry of version 1', msg(e4(cp(), ver=1))), ('entry too short', msg(e4(cp(), size=35))), ('entry too long', msg(e4(cp(), size=40))), ('entry of size 0', msg(e4(cp(), size=0), e4(cp()))), ('type 2', msg(e4(cp(), type=2))), ('type 3', msg(e6(cp(), type=3))), ('IPv6 in 36 bytes', msg(e4(cp(), type=1))), ('IPv4 of 72 bytes', msg(e6(cp(), type=0))),
                ('a good one and a bad one', msg(e4(cp()), e4(cp(), 13))), ('a bad one and a good one', msg(e4(cp(), 13), e4(cp()))), ('empty', b''), ('one byte', b'\0'), ('eight bytes of zero', bytes(8)), ('unaligned', msg(e4(cp(), opts=bytes([0x85, 1, 0])), e4(cp())))): case(what, m, keep=True)
done()
case('version 0', m0(v0(cp()))); case('version 0: two', m0(v0(cp()), v0(cp(), 4, I))); case('version 0: sequence deltas', m0(v0(cp(), 1, 0x600, opts=struct.pack('!6I', 1, 2, 3, 4, 5, 6)), v0(cp()))); case('version 0: template', m0(v0(0, 0, T, vp=90, dp=90))); case('version 0: UDP', m0(v0(cp(), 0, I, proto=17, vp=53, dp=53))); case('version 0: state 12', m0(v0(cp(), 12), v0(cp()))); case('version 0: protocol 50', m0(v0(cp(), 0, 0, proto=50), v0(cp()))); case('version 0: another syncid', m0(v0(cp()), id=9)); case('version 0: cut', m0(v0(cp()), v0(cp()))[:-1]); case('version 0: cut with its size', m0(v0(cp()), v0(cp())[:-1], nr=2)); case('version 0: fewer', m0(v0(cp()), v0(cp()), nr=1))
# packets at a backup
c = cp(); case('a packet at the backup', msg(e4(c, 1, 0)), keep=True);
b.drain(); b.c.send(fromc(tcp(C, c, vip(), 80, 'A'))); o = b.r.recv(0.2); rec(case='a packet at the backup: forwarded', forwarded=[ftxt(x) for x in o], conns=raw()); print(o and ftxt(o[0]))
b.r.send(fromr(tcp(rs(0), 80, C, c, 'A'))); o = b.c.recv(0.2); rec(case='a packet at the backup: a reply', forwarded=[ftxt(x) for x in o], conns=raw()); done()
c = cp(); case('without destination: a packet', msg(e4(c, 1, 3, d=rs(5))), keep=True); b.drain(); b.c.send(fromc(tcp(C, c, vip(), 80, 'A'))); o = b.r.recv(0.2); rec(case='without destination: forwarded', forwarded=[ftxt(x) for x in o], conns=raw()); done(); print(o and ftxt(o[0]))
vs('backup_only', 1); c = cp(); case('backup_only', msg(e4(c, 1, 0)), keep=True); b.drain(); b.c.send(fromc(tcp(C, c, vip(), 80, 'A'))); o = b.r.recv(0.2); rec(case='backup_only: a packet of a connection', forwarded=[ftxt(x) for x in o]); b.r.send(fromr(tcp(rs(0), 80, C, c, 'A'))); o = b.c.recv(0.2); rec(case='backup_only: a reply', forwarded=[ftxt(x) for x in o]); b.c.send(fromc(tcp(C, cp(), vip(), 80, 'S'))); o = b.r.recv(0.2); rec(case='backup_only: a SYN', forwarded=[ftxt(x) for x in o], conns=raw()); vs('backup_only', 0)
