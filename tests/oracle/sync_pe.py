"""Sync daemons and persistence engines, in the form of sync.py and sync_taken.py. sync_pe_sent.jsonl: what a master sends of templates with a Call-ID.
sync_pe_taken.jsonl: crafted messages with such templates, what a backup then has, and where it sends calls."""
from lib import *
G, PORT = '224.0.0.81', 8848
sh('modprobe ip_vs; modprobe ip_vs_pe_sip; modprobe ip_vs_rr')
b = Bench('sync_pe_bench'); os.remove('/out/sync_pe_bench.jsonl')
def sip(cid): return b'OPTIONS sip:a@b SIP/2.0\r\nCall-ID: ' + cid + b'\r\nCSeq: 1 OPTIONS\r\n\r\n'
def table(name='ip_vs_conn'): return [[w for w in l.split(' ') if w] for l in open('/proc/net/' + name, encoding='latin1', newline='\n').read().split('\n')[1:-1]]
# ---- what a master sends
rec = Rec('sync_pe_sent')
def messages(wait):
    out, end = [], time.time() + wait
    while time.time() < end:
        if not select.select([b.c.s], [], [], max(0, end - time.time()))[0]: break
        f, a = b.c.s.recvfrom(70000)
        if a[2] != 4 and f[12:14] == b'\x08\0' and f[23] == 17 and f[30] >= 224 and f[36:38] == struct.pack('!H', PORT): out.append(dict(data=f[42:14 + (f[16] << 8 | f[17])].hex()))
    return out
sh('iptables -t mangle -A PREROUTING -d %s -p udp --dport 5099 -j MARK --set-mark 9' % V)
vs('sync_threshold', '0\t1')
for version in (1, 0):
    vs('sync_version', version)
    for what, svc, port, dest, v6, opts, cids in (
            ('nat', f'-u {V}:5060', 5060, rs(0) + ':5060 -m', 0, '', (b'one@x', b'two@x')), ('dr', f'-u {V}:5061', 5061, rs(0) + ':5061 -g', 0, '', (b'one@x',)), ('tun', f'-u {V}:5062', 5062, rs(0) + ':5062 -i', 0, '', (b'one@x',)),
            ('mask', f'-u {V}:5063', 5063, rs(0) + ':5063 -m', 0, ' -M 255.255.255.0', (b'one@x',)), ('any port', f'-u {V}:0', 5064, rs(0) + ':0 -g', 0, '', (b'one@x',)), ('one packet', f'-u {V}:5065', 5065, rs(0) + ':5065 -m', 0, ' -o', (b'one@x',)), ('mark', '-f 9', 5099, rs(0) + ' -m', 0, '', (b'one@x',)),
            ('lengths', f'-u {V}:5066', 5066, rs(0) + ':5066 -m', 0, '', (b'1', b'22', b'333', b'4444', b'x' * 254, b'y' * 255)), ('bytes', f'-u {V}:5067', 5067, rs(0) + ':5067 -m', 0, '', (b'caf\xe9"<>', )), ('IPv6', f'-u [{V6}]:5068', 5068, f'[{rs6(0)}]:5068 -m', 1, '', (b'six@x',))):
        sh(f'ipvsadm -A {svc} -s rr -p 77 --pe sip{opts}; ipvsadm -a {svc} -r {dest}; ipvsadm --start-daemon master --mcast-interface dc --syncid 30')
        v, c, r = (V6, C6, rs6(0)) if v6 else (V, C, rs(0))
        for i, cid in enumerate(cids):
            b.c.send(fromc(udp(c, 4000 + i, v, port, sip(cid)))); time.sleep(0.05)
            if '-m' in dest: b.r.send(fromr(udp(r, port, c, 4000 + i, sip(cid)))); time.sleep(0.05)
            b.c.send(fromc(udp(c, 4000 + i, v, port, sip(cid)))); time.sleep(0.05)
        m = messages(2.6); name = f'version {version}: {what}'; rec(case=name, messages=m); print('##', name); [print('   ', x['data']) for x in m]
        sh(f'ipvsadm --stop-daemon master; ipvsadm -D {svc}; ipvsadm -C'); time.sleep(0.1)
vs('sync_version', 1); vs('sync_threshold', '3\t50'); sh('iptables -t mangle -F')
# ---- what a backup takes
rec = Rec('sync_pe_taken')
sh('ipvsadm --start-daemon backup --mcast-interface dc --syncid 5'); NR = [0]
def vip(): return '10.9.10.%d' % (1 + NR[0])
def vip6(): return 'fd09::%x' % (0x300 + NR[0])
def mark(): return 5000 + NR[0]
def dotted(m): return socket.inet_ntoa(struct.pack('!I', m))
def frame(data): return eth('01005e000051', MC, ip('10.0.0.2', G, 17, struct.pack('!HHHH', 50000, PORT, 8 + len(data), 0) + data, ttl=1))
I, T = 0x100, 0x1000
def opt(k, v): return bytes([k, len(v)]) + v
def pe(cid=b'call-1@x', name=b'sip'): return opt(2, cid) + opt(3, name)
def e(cp=0, state=0, flags=T, proto=17, vp=5060, dp=5060, d=rs(1), v=None, c=C, timeout=77, m=0, opts=b'', type=0):
    body = struct.pack('!IHHHHII', flags, state, cp, vp, dp, m, timeout) + pa(c) + pa(v or vip()) + pa(d) + opts
    return struct.pack('!BBH', type, proto, 4 + len(body)) + body
def e6(**k): return e(**{**dict(v=vip6(), c=C6, d=rs6(1), type=1), **k})
def msg(*entries):
    body = b''
    for i, x in enumerate(entries): body += x; body += b'\0' * (-len(body) % 4) if i + 1 < len(entries) else b''
    return struct.pack('!BBHBBH', 0, 5, 8 + len(body), len(entries), 1, 0) + body
def services():
    v, v6 = vip(), vip6()
    out = [f'-A -u {v}:5060 -s rr -p 77 --pe sip', f'-A -u {v}:5061 -s rr -p 77', f'-A -u {v}:0 -s rr -p 77 --pe sip', f'-A -f {mark()} -s rr -p 77 --pe sip', f'-A -u [{v6}]:5060 -s rr -p 77 --pe sip', f'-A -t {v}:5060 -s rr -p 77 --pe sip']
    for i in (0, 1): out += [f'-a -u {v}:5060 -r {rs(i)}:5060 -m', f'-a -u {v}:5061 -r {rs(i)}:5061 -m', f'-a -u {v}:0 -r {rs(i)}:0 -g', f'-a -f {mark()} -r {rs(i)} -g', f'-a -u [{v6}]:5060 -r [{rs6(i)}]:5060 -m', f'-a -t {v}:5060 -r {rs(i)}:5060 -m']
    return out
def mine(): return {pa(vip()).hex().upper(), ':'.join('%04x' % x for x in struct.unpack('!8H', pa(vip6()))), '%08X' % mark()}
def counts():
    out, s = [], None
    for l in open('/proc/net/ip_vs').read().splitlines()[3:]:
        w = l.split()
        if w[0] == '->': s and out.append([s, w[1], w[2], int(w[4]), int(w[5])])
        else: s = w[0] + ' ' + w[1] if w[0] == 'FWM' and w[1] in mine() or any(w[1].startswith((m + ':', '[' + m + ']')) for m in mine()) else None
    return out
def to(f): return f'[{socket.inet_ntop(10, f[38:54])}]:{f[56] << 8 | f[57]}' if f[12:14] == b'\x86\xdd' else socket.inet_ntoa(f[30:34]) + ':' + str(f[36] << 8 | f[37])
def case(what, *data, calls=(), wait=0):
    rules = services(); sh(f'ip addr add {vip()}/32 dev lo; ip addr add {vip6()}/128 dev lo nodad'); sh('ipvsadm -R', '\n'.join(rules) + '\n')
    for d in data: b.c.send(frame(d)); time.sleep(0.08)
    time.sleep(0.05 + wait)
    have = [x for x in table('ip_vs_conn_sync') if x[3] in mine()]
    r = dict(case=what, rules=rules, before=None, messages=[d.hex() for d in data], conns=have, dests=counts(), pe=sorted([[x[0], x[1], ' '.join(x[9:])] for x in table() if x[3] in mine()]), sent=[])
    for src, sp, dst, dp, cid in calls:
        b.drain(); b.c.send(fromc(udp(src, sp, dst or vip(), dp, sip(cid)))); f = b.r.recv(0.03)
        r['sent'].append(dict(packet=[src, sp, dst or vip(), dp, sip(cid).hex()], to=[to(x) for x in f]))
    rec(**r); print('##', what); [print('   ', x) for x in r['conns'] + r['pe'] + [x for x in r['dests'] if x[3] or x[4]] + [(x['packet'][:4], x['to']) for x in r['sent']]]
    sh(f'ipvsadm -C; ip addr del {vip()}/32 dev lo; ip addr del {vip6()}/128 dev lo'); NR[0] += 1
def call(sp=4000, cid=b'call-1@x', src=C, dst=None, dp=5060): return (src, sp, dst, dp, cid)
two = (call(), call(4001, b'other@x'), call(4002))
case('a call', msg(e(opts=pe())), calls=two)
case('a call, to the first server', msg(e(opts=pe(), d=rs(0))), calls=two)
case('a call of another client', msg(e(opts=pe(), c='10.0.0.3')), calls=two)
case('two calls', msg(e(opts=pe()), e(opts=pe(b'other@x'), d=rs(0))), calls=two)
case('a call twice', msg(e(opts=pe())), msg(e(opts=pe(), timeout=300)), calls=two)
case('a call twice in a message', msg(e(opts=pe()), e(opts=pe(), state=1)), calls=two)
case('a call that moves', msg(e(opts=pe())), msg(e(opts=pe(), d=rs(0))), calls=two)
case('an assured call', msg(e(opts=pe(), state=1)), calls=two)
case('state 2', msg(e(opts=pe(), state=2)), calls=two)
case('no timeout', msg(e(opts=pe(), timeout=0)), calls=two)
case('the name first', msg(e(opts=opt(3, b'sip') + opt(2, b'call-1@x'))), calls=two)
case('case of letters', msg(e(opts=pe(b'CALL-1@x'))), calls=two)
case('a longer call', msg(e(opts=pe(b'call-1@xx'))), calls=two)
case('a shorter call', msg(e(opts=pe(b'call-1@'))), calls=two)
case('with a zero behind', msg(e(opts=pe(b'call-1@x\0'))), calls=two)
for n in (1, 2, 8, 128, 254, 255): case(f'{n} bytes', msg(e(opts=pe(b'k' * n))), calls=(call(cid=b'k' * n), call(4001, b'k' * n)))
case('all bytes', msg(e(opts=pe(bytes(range(33, 256))))), calls=two)
case('no such destination', msg(e(opts=pe(), d=rs(5))), calls=two)
case('no such destination, direct', msg(e(opts=pe(), d=rs(5), flags=T | 3)), calls=two)
case('no such service', msg(e(opts=pe(), v='10.9.99.98')), calls=two)
case('a service without an engine', msg(e(opts=pe(), vp=5061, dp=5061)), calls=(call(dp=5061), call(4001, dp=5061)))
case('a template without a call, for a service with an engine', msg(e()), calls=two)
case('a template with and without a call', msg(e(opts=pe()), e(d=rs(0))), calls=two)
case('a template without and with a call', msg(e(d=rs(0)), e(opts=pe())), calls=two)
case('any port', msg(e(opts=pe(), vp=0, dp=0, flags=T | 3)), calls=(call(dp=5070), call(4001, b'other@x', dp=5071), call(4002, dp=5072)))
case('by mark', msg(e(opts=pe(), proto=0, v=dotted(mark()), vp=0, dp=0, m=mark(), flags=T | 3)))
case('TCP', msg(e(opts=pe(), proto=6)), calls=two)
case('IPv6', msg(e6(opts=pe())), calls=(call(src=C6, dst=vip6()), call(4001, b'other@x', C6, vip6()), call(4002, src=C6, dst=vip6())))
case('IPv6 and IPv4', msg(e6(opts=pe()), e(opts=pe())), calls=two)
case('a connection', msg(e(4000, 0, I, opts=pe())), calls=two)
case('a connection and its call', msg(e(opts=pe()), e(4000, 0, I, opts=pe())), calls=two)
for name in (b'SIP', b'si', b'sipx', b'sip\0', b'x' * 16, b'x' * 17): case(f'engine {name.decode()!r}', msg(e(opts=pe(name=name)), e(opts=pe(b'good@x'))), calls=two)
case('data without a name', msg(e(opts=opt(2, b'call-1@x')), e(opts=pe(b'good@x'))), calls=two)
case('a name without data', msg(e(opts=opt(3, b'sip')), e(opts=pe(b'good@x'))), calls=two)
case('no data', msg(e(opts=opt(2, b'') + opt(3, b'sip')), e(opts=pe(b'good@x'))), calls=two)
case('no name', msg(e(opts=opt(2, b'call-1@x') + opt(3, b'')), e(opts=pe(b'good@x'))), calls=two)
case('data twice', msg(e(opts=pe() + opt(2, b'twice@x')), e(opts=pe(b'good@x'))), calls=two)
case('name twice', msg(e(opts=pe() + opt(3, b'sip')), e(opts=pe(b'good@x'))), calls=two)
case('data too long', msg(e(opts=bytes([2, 200]) + b'call-1@x'), e(opts=pe(b'good@x'))), calls=two)
case('half a name', msg(e(opts=opt(2, b'call-1@x') + bytes([3, 3]) + b'si'), e(opts=pe(b'good@x'))), calls=two)
case('optional kinds', msg(e(opts=opt(0x42, b'call-1@x') + opt(0x43, b'sip'))), calls=two)
case('with sequence deltas', msg(e(flags=T | 0x600, opts=opt(1, struct.pack('!6I', 1, 2, 3, 4, 5, 6)) + pe())), calls=two)
case('an unknown option that may be skipped', msg(e(opts=opt(0x47, b'xx') + pe())), calls=two)
case('forty calls', *[msg(*[e(opts=pe(b'c%d@x' % (10 * k + i)), d=rs(i & 1)) for i in range(10)]) for k in range(4)], calls=tuple(call(4000 + i, b'c%d@x' % i) for i in range(40)))
