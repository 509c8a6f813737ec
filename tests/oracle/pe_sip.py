"""The persistence engine sip: what it takes for a Call-ID, who shares a destination, templates, expiry, changes, -o, requests of real servers."""
from lib import *
import random
b = Bench('pe_sip'); T0 = time.monotonic()
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
P = [5100]
def raw(): return open('/proc/net/ip_vs_conn', encoding='latin1', newline='\n').read().split('\n')[1:-1]
class S:
    """One scenario: commands, packets, sleeps and what is listed, in order; each has a port of its own."""
    def __init__(s, name, v6=False): s.name, s.steps, s.v6 = name, [], v6; P[0] += 1; s.port = P[0]; s.vip = V6 if v6 else V; print('##', name)
    def svc(s, args='-p 60 --pe sip', n=3, fw='-m', proto='-u', port=None, sched='rr'):
        at = s.at(s.vip, s.port if port is None else port); s.cmd(f'-A {proto} {at} -s {sched} {args}')
        for i in range(n): s.cmd(f'-a {proto} {at} -r {s.at(s.rs(i), s.port if port is None else port)} {fw} -w 1')
    def rs(s, i): return rs6(i) if s.v6 else rs(i)
    def at(s, a, p): return f'[{a}]:{p}' if ':' in a else f'{a}:{p}'
    def own(s): return s.at(s.vip, s.port)
    def cmd(s, line):
        x = shx('ipvsadm ' + line); s.steps.append(dict(cmd=line, rc=x['rc'], stderr=x['stderr'].strip())); print('  ', line, x['rc'] or '', x['stderr'].strip()[:120])
    def set(s, k, v): vs(k, v); s.steps.append(dict(set=[k, v]))
    def sleep(s, t): time.sleep(t); s.steps.append(dict(sleep=t)); 
    def pk(s, src, sp, pl, dst=None, dp=None, mark=0):
        dst, dp = dst or s.vip, dp or s.port; b.drain(); b.c.send(fromc(udp(src, sp, dst, dp, pl=pl)))
        fr, fc = b.r.recv(0.015), b.c.recv(0.01); to = [s.end(f) for f in fr]
        s.steps.append(dict(packet=[src, sp, dst, dp, pl.hex()], to=to, to_client=[ftxt(f) for f in fc])); print('   ', src, sp, pl[:60], '=>', to, [ftxt(f)[26:90] for f in fc]); return to
    def rp(s, i, sport, dst, dp, pl):
        b.drain(); b.r.send(fromr(udp(s.rs(i), sport, dst, dp, pl=pl), i))
        fr, fc = b.r.recv(0.015), b.c.recv(0.015); s.steps.append(dict(reply=[s.rs(i), sport, dst, dp, pl.hex()], seen=[s.start(f) for f in fc], to_server=[ftxt(f) for f in fr])); print('    reply', s.rs(i), sport, dst, dp, '=>', [s.start(f) for f in fc])
    def end(s, f):
        if f[12:14] == b'\x86\xdd': return f'[{socket.inet_ntop(10, f[38:54])}]:{f[56] << 8 | f[57]}'
        return socket.inet_ntoa(f[30:34]) + ':' + str(f[36] << 8 | f[37])
    def start(s, f):
        if f[12:14] == b'\x86\xdd': return f'[{socket.inet_ntop(10, f[22:38])}]:{f[54] << 8 | f[55]}'
        return socket.inet_ntoa(f[26:30]) + ':' + str(f[34] << 8 | f[35])
    def rows(s, what='', lists=False):
        h = '%04X' % s.port
        r = [l for l in raw() if l.split()[4] == h or l.split()[2] == h]; d = {a[1]: list(v) for a, v in dests().items() if a[0] == s.port}
        k = dict(rows=r, dests=d)
        if lists: k.update(lnc=[l for l in sh('ipvsadm -Lnc').splitlines() if f':{s.port} ' in l], lncp=sh('ipvsadm -Lnc --persistent-conn').splitlines()[:2] + [l for l in sh('ipvsadm -Lnc --persistent-conn').splitlines() if f':{s.port} ' in l], ln=[l for l in sh('ipvsadm -Ln').splitlines() if f':{s.port} ' in l], sn=[l for l in sh('ipvsadm -Sn').splitlines() if f':{s.port} ' in l], proc=[l for l in open('/proc/net/ip_vs').read().splitlines() if f':{h} ' in l], lnp=[l for l in sh('ipvsadm -Ln --persistent-conn').splitlines() if f':{s.port} ' in l])
        s.steps.append(k); [print('      ', l) for l in r]; print('      ', d)
    def done(s): b.rec(scenario=s.name, vip=s.vip, port=s.port, steps=s.steps); sh(f'ipvsadm -D -u {s.own()}', check=False)
def sip(cid, first='INVITE sip:a@b SIP/2.0', name='Call-ID', sep=': ', nl='\r\n'): return (first + nl + 'Via: SIP/2.0/UDP 10.0.0.2' + nl + name + sep + cid + nl + 'CSeq: 1 INVITE' + nl + nl).encode('latin1')
A, B_, D = '10.0.0.2', '10.0.0.3', '10.0.0.4'
s = S('slow'); s.svc('-p 6 --pe sip'); s.cmd('--set 0 0 4'); slow = s; s.pk(A, 4000, sip('slow@x')); s.rows('begin'); tslow = time.monotonic()
# who shares what
s = S('sharing'); s.svc()
s.pk(A, 4000, sip('one@x')); s.pk(A, 4001, sip('one@x')); s.rows('', True); s.pk(A, 4002, sip('two@x')); s.pk(A, 4003, sip('three@x')); s.pk(A, 4004, sip('two@x')); s.pk(B_, 4000, sip('one@x')); s.pk(B_, 4001, sip('one@x')); s.pk(D, 4000, sip('one@x')); s.rows('', True)
s.pk(A, 4000, sip('other@x')); s.pk(A, 4000, b'no header at all'); s.rows(); s.pk(A, 4010, b'no header at all'); s.pk(A, 4011, b'no header at all'); s.pk(A, 4012, b''); s.rows()
s.rp(0, s.port, A, 4000, b'SIP/2.0 200 OK\r\n\r\n'); s.rp(1, s.port, A, 4000, b'SIP/2.0 200 OK\r\n\r\n'); s.rp(2, s.port, A, 4000, b'SIP/2.0 200 OK\r\n\r\n'); s.rows(); s.done()
s = S('mask 0'); s.svc('-p 60 -M 0.0.0.0 --pe sip')
for a in (A, B_, D): s.pk(a, 4000, sip('one@x'))
for a in (A, B_, D): s.pk(a, 4001, sip('two@x'))
s.rows('', True); s.done()
s = S('mask 24'); s.svc('-p 60 -M 255.255.255.0 --pe sip')
for a in (A, B_, '10.2.0.2'): s.pk(a, 4000, sip('one@x'))
s.rows(); s.done()
for v6 in (False, True):
    for fw in ('-g', '-i') + (('-m',) if v6 else ()):
        s = S(f'{"IPv6 " if v6 else ""}{fw}', v6); s.svc(fw=fw); a = 'fd00::2' if v6 else A
        for cp, c in ((4000, 'one@x'), (4001, 'two@x'), (4002, 'one@x')): s.pk(a, cp, sip(c))
        s.rows('', v6); s.done()
s = S('IPv6 mask 0', True); s.svc('-p 60 -M 0 --pe sip'); s.pk('fd00::2', 4000, sip('one@x')); s.pk('fd00::77', 4000, sip('one@x')); s.rows(); s.done()
s = S('IPv6 mask 64', True); s.svc('-p 60 -M 64 --pe sip'); s.pk('fd00::2', 4000, sip('one@x')); s.pk('fd00::77', 4000, sip('one@x')); s.pk('fd02::77', 4000, sip('one@x')); s.rows(); s.done()
# -o
for fw in ('-m', '-g'):
    s = S(f'-o {fw}'); s.svc('-p 60 -o --pe sip', fw=fw)
    for cp, c in ((4000, 'one@x'), (4000, 'two@x'), (4000, 'one@x'), (4000, 'three@x'), (4001, 'two@x'), (4000, 'one@x')): s.pk(A, cp, sip(c))
    s.pk(A, 4000, b'nothing'); s.rows('', True)
    if fw == '-m':
        for i in range(3): s.rp(i, s.port, A, 4000, sip('one@x', 'SIP/2.0 200 OK'))
        s.rp(0, s.port, B_, 4009, sip('new@x', 'OPTIONS sip:q SIP/2.0')); s.pk(B_, 4009, sip('new@x', 'SIP/2.0 200 OK')); s.rp(0, 999, B_, 4009, b'x'); s.rp(0, s.port, B_, 4019, b'nothing')
        s.rows('', True)
    s.done()
s = S('-o without --pe'); s.svc('-p 60 -o'); s.pk(A, 4000, sip('one@x')); s.rp(0, s.port, A, 4000, b'x'); s.done()
# requests of real servers
for args in ('-p 60 --pe sip', '-p 60', '--pe sip', ''):
    s = S('server first: ' + args); s.svc(args); s.rp(1, s.port, A, 4000, sip('srv@x', 'OPTIONS sip:q SIP/2.0')); s.rows('', True); s.pk(A, 4000, sip('srv@x', 'SIP/2.0 200 OK')); s.pk(A, 4001, sip('srv@x')); s.rp(1, s.port, A, 4002, b'no header'); s.rp(0, s.port, A, 4000, sip('srv@x', 'OPTIONS sip:q SIP/2.0')); s.rp(1, 999, A, 4000, b'other port'); s.rows(); s.done()
s = S('server first: -w 0'); s.svc(n=1); s.cmd(f'-e -u {s.own()} -r {s.at(rs(0), s.port)} -m -w 0'); s.rp(0, s.port, A, 4000, sip('srv@x')); s.rows(); s.done()
s = S('server first: -g'); s.svc(n=1, fw='-g'); s.rp(0, s.port, A, 4000, sip('srv@x')); s.rows(); s.done()
s = S('server first: IPv6', True); s.svc(n=2); s.rp(1, s.port, 'fd00::2', 4000, sip('srv@x')); s.pk('fd00::2', 4000, sip('srv@x')); s.rows(); s.done()
s = S('server first: dest port differs'); s.cmd(f'-A -u {s.own()} -s rr -p 60 --pe sip'); s.cmd(f'-a -u {s.own()} -r 10.1.0.11:7070 -m'); s.rp(0, 7070, A, 4000, sip('srv@x')); s.rp(0, s.port, A, 4000, sip('srv@x')); s.rows(); s.pk(A, 4000, sip('srv@x')); s.done()
s = S('server first: dest deleted'); s.svc(n=2); s.cmd(f'-d -u {s.own()} -r {s.at(rs(0), s.port)}'); s.rp(0, s.port, A, 4000, sip('srv@x')); s.rows(); s.done()
# weight 0, deletion
for q in (0, 1):
    s = S(f'weight 0, expire_quiescent_template={q}'); s.set('expire_quiescent_template', q); s.svc(); to = s.pk(A, 4000, sip('one@x'))[0]; s.cmd(f'-e -u {s.own()} -r {to} -m -w 0')
    s.pk(A, 4001, sip('one@x')); s.pk(A, 4000, sip('one@x')); s.rows(); s.pk(A, 4002, sip('two@x')); s.pk(A, 4003, sip('one@x')); s.rows(); s.done()
vs('expire_quiescent_template', 0)
for q in (0, 1):
    s = S(f'deleted, expire_nodest_conn={q}'); s.set('expire_nodest_conn', q); s.svc(); to = s.pk(A, 4000, sip('one@x'))[0]; s.cmd(f'-d -u {s.own()} -r {to}')
    s.pk(A, 4000, sip('one@x')); s.pk(A, 4001, sip('one@x')); s.pk(A, 4002, sip('one@x')); s.rows(); s.cmd(f'-a -u {s.own()} -r {to} -m -w 1'); s.pk(A, 4000, sip('one@x')); s.pk(A, 4003, sip('one@x')); s.rows(); s.done()
vs('expire_nodest_conn', 0)
s = S('no destination'); s.svc(n=1); s.pk(A, 4000, sip('one@x')); s.cmd(f'-e -u {s.own()} -r {s.at(rs(0), s.port)} -m -w 0'); s.pk(A, 4001, sip('two@x')); s.pk(A, 4002, sip('one@x')); s.pk(A, 4003, b'nothing'); s.rows(); s.done()
# -E
s = S('-E'); s.svc(); s.pk(A, 4000, sip('one@x')); s.cmd(f'-E -u {s.own()} -s rr -p 60'); s.pk(A, 4001, sip('one@x')); s.pk(A, 4002, sip('one@x')); s.rows('', True); s.cmd(f'-E -u {s.own()} -s rr -p 60 --pe sip'); s.pk(A, 4003, sip('one@x')); s.pk(A, 4004, sip('two@x')); s.pk(A, 4005, b'nothing'); s.rows('', True); s.cmd(f'-E -u {s.own()} -s rr'); s.pk(A, 4006, sip('one@x')); s.cmd(f'-E -u {s.own()} -s rr --pe sip'); s.pk(A, 4007, sip('one@x')); s.rows('', True); s.done()
s = S('without -p'); s.svc('--pe sip'); s.pk(A, 4000, sip('one@x')); s.pk(A, 4001, sip('one@x')); s.pk(A, 4002, b'nothing'); s.rows('', True); s.done()
s = S('-D and -A'); s.svc(); s.pk(A, 4000, sip('one@x')); s.cmd(f'-D -u {s.own()}'); s.rows(); s.svc(); s.pk(A, 4000, sip('one@x')); s.pk(A, 4001, sip('one@x')); s.rows(); s.done()
# who takes it
s = S('refusals')
for l in (f'-A -t {V}:70 -s rr -p 60 --pe sip', f'-A -t {V}:71 -s rr --pe sip', f'-A --sctp-service {V}:70 -s rr -p 60 --pe sip', f'-A -f 7 -s rr -p 60 --pe sip', f'-A -f 8 -s rr --pe sip', f'-A -u {V}:0 -s rr -p 60 --pe sip', f'-A -u {V}:72 -s rr -p 60 --pe bogus', f'-A -u {V}:73 -s rr -p 60 --pe SIP', f'-A -u {V}:74 -s bogus --pe sip', f'-A -u [{V6}]:75 -s rr -p 60 --pe sip', f'-E -t {V}:70 -s rr -p 60 --pe bogus', f'-E -u {V}:79 -s rr -p 60 --pe sip', f'-A -u {V}:76 -s rr -p 60 --pe sip -b sh-port', f'-A -u {V}:77 -s rr -p 60 --pe 0123456789abcdef0'): s.cmd(l)
s.steps.append(dict(ln=sh('ipvsadm -Ln').splitlines(), sn=sh('ipvsadm -Sn').splitlines(), proc=open('/proc/net/ip_vs').read().splitlines()))
s.cmd(f'-a -t {V}:70 -r {rs(0)}:70 -m'); b.drain(); b.c.send(fromc(tcp(A, 4000, V, 70, 'S'))); t = [s.end(f) for f in b.r.recv()]; s.steps.append(dict(tcp=[A, 4000, V, 70], to=t)); print(t)
sh('nft -f -', 'table ip m { chain p { type filter hook prerouting priority -150; ip daddr 10.9.2.0/24 meta mark set 7; }; }'); sh('ip addr add 10.9.2.1/32 dev lo; ip addr add 10.9.2.2/32 dev lo')
s.cmd(f'-a -f 7 -r {rs(3)} -m'); s.cmd(f'-a -f 7 -r {rs(4)} -m')
for cp, c, d in ((4000, 'one@x', '10.9.2.1'), (4001, 'two@x', '10.9.2.1'), (4002, 'one@x', '10.9.2.2'), (4003, 'two@x', '10.9.2.2')): s.pk(A, cp, sip(c), dst=d, dp=6000)
s.pk(A, 4009, b'nothing', dst='10.9.2.1', dp=6000); b.drain(); b.c.send(fromc(tcp(A, 4000, '10.9.2.1', 70, 'S'))); t = [s.end(f) for f in b.r.recv()]; s.steps.append(dict(tcp=[A, 4000, '10.9.2.1', 70], to=t)); print(t); s.rp(3, 6000, A, 4100, sip('srv@x')); s.rp(3, 6000, A, 4000, b'x')
r = [l for l in raw() if ' 0A090201 ' in l or ' 0A090202 ' in l or '00000007' in l]; s.steps.append(dict(rows=r)); [print('   ', l) for l in r]
s.cmd(f'-a -u {V}:0 -r {rs(5)}:0 -m'); s.cmd(f'-a -u {V}:0 -r {rs(6)}:0 -m')
for cp, c, d in ((4000, 'one@x', 9001), (4001, 'two@x', 9001), (4002, 'one@x', 9002), (4003, 'two@x', 9002)): s.pk(A, cp, sip(c), dp=d)
s.rp(5, 9001, A, 4200, sip('srv@x')); s.cmd(f'-a -u {V}:0 -r {rs(7)}:9001 -m'); s.rp(7, 9001, A, 4201, sip('srv@x')); s.cmd(f'-a -f 7 -r {rs(8)}:6000 -m'); s.rp(8, 6000, A, 4202, sip('srv@x')); r = [l for l in raw() if l.split()[4] in ('2329', '232A', '0000')]; s.steps.append(dict(rows=r)); [print('   ', l) for l in r]
for l in (f'-D -t {V}:70', '-D -f 7', f'-D -u {V}:0'): sh('ipvsadm ' + l)
s.done()
# what is a Call-ID
L = 'INVITE sip:a@b SIP/2.0\r\n'
CASES = dict(plain=sip('abc@x'), no_domain=sip('abc'), response=sip('abc@x', 'SIP/2.0 200 OK'), lower=sip('abc@x', name='call-id'), upper=sip('abc@x', name='CALL-ID'), short=sip('abc@x', name='i'), short_upper=sip('abc@x', name='I'), no_space=sip('abc@x', sep=':'), spaces=sip('abc@x', sep=' \t : \t '), tab=sip('abc@x', sep=':\t'), lf=sip('abc@x', nl='\n'), cr=sip('abc@x', nl='\r'), nocolon=sip('abc@x', sep=' '), trailing=sip('abc@x '), words=sip('abc@x def'), twice=(L + 'Call-ID: one\r\nCall-ID: two\r\n\r\n').encode(), short_then_long=(L + 'i: one\r\nCall-ID: two\r\n\r\n').encode(), empty_then=(L + 'Call-ID: \r\nCall-ID: two\r\n\r\n').encode(), at_then=(L + 'Call-ID: a@\r\nCall-ID: two\r\n\r\n').encode(), at_first=(L + 'Call-ID: @b\r\nCall-ID: two\r\n\r\n').encode(), bad3=(L + 'i: @b\r\ni: @c\r\ni: d\r\nVia: x\r\ni: e\r\nVia: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\ni: f\r\n\r\n').encode(), two_at=sip('a@b@c'), first_line=b'Call-ID: abc\r\n\r\n', after_empty_line=(L + '\r\nCall-ID: body\r\n').encode(), lflf=b'X\n\nCall-ID: abc\r\n', lfcrlf=b'X\n\r\nCall-ID: abc\r\n', folded=(L + 'Call-ID:\r\n abc\r\n\r\n').encode(), folded_name=(L + 'Call-ID\r\n : abc\r\n\r\n').encode(), folded2=(L + 'Call-ID:\r\n \r\n abc\r\n\r\n').encode(), continued=(L + 'Subject: x\r\n Call-ID: no\r\nCall-ID: yes\r\n\r\n').encode(), suffix=(L + 'Call-Identity: no\r\nCall-ID: yes\r\n\r\n').encode(), i_word=(L + 'in: no\r\nCall-ID: yes\r\n\r\n').encode(), i_dash=(L + 'i-x: no\r\nCall-ID: yes\r\n\r\n').encode(), unterminated=(L + 'Call-ID: abc').encode(), only_cr=(L + 'Call-ID: abc\r').encode(), name_end=(L + 'Call-ID').encode(), colon_end=(L + 'Call-ID:').encode(), space_end=(L + 'Call-ID: ').encode(), i_end=(L + 'i').encode(), len255=sip('x' * 255), len256=sip('x' * 256), len255at=sip('y' * 200 + '@' + 'z' * 54), len256at=sip('y' * 200 + '@' + 'z' * 55), far=(L + 'Via: ' + 'v' * 1200 + '\r\nCall-ID: far\r\n').encode(), quote=sip('"a"<b>{c}[d]\\`~?/.-_!%*()+:\''), semi=sip('a;b'), comma=sip('a,b'), equal=sip('a=b'), dollar=sip('a$b'), latin=sip('caf\xe9'), times=sip('a\xd7b'), nbsp=sip('a\xa0b'), nul=sip('a\0b'), empty=b'', one=b'x', crlf=b'\r\n', keepalive=b'\r\n\r\n', zeros=b'\0' * 64)
s = S('payloads'); s.svc('-p 600 --pe sip', n=1); n = 0; seen = {}
R = random.Random(5060); PIECES = ['\r\n', '\r', '\n', '\r\n', '\r\n', ' ', '\t', ':', ': ', 'Call-ID', 'call-id', 'i', 'I', 'Call-Id: ', 'i: ', 'a', 'bc', 'x@y', '@', '1', '-', '\xe9', '\xd7', ';', '\0', 'Via: q\r\n', 'Call-I', 'z' * 100, 'z' * 60]
def rnd():
    def some(n): return ''.join(R.choice(PIECES) for _ in range(R.randint(0, n)))
    k = R.randint(0, 3); word = lambda: ''.join(R.choice(['a', 'bc', '1', '-', 'x@y', '@', '.', 'z' * 60, '\xe9']) for _ in range(R.randint(1, 6)))
    if k == 0: t = some(30)
    elif k == 1: t = 'OPTIONS sip:x\r\n' + some(6) + R.choice(['\r\n', '\n', '\r', '']) + R.choice(['Call-ID:', 'i:', 'CALL-id : ', 'i\t:']) + some(1) + word() + some(2)
    else: t = some(3) + R.choice(['\r\n', '\n']) + R.choice(['Call-ID: ', 'i: ', 'I:\r\n ']) + word() + R.choice(['\r\n', '\n', '', ' \r\n', '\r']) + some(4) + 'i: ' + word() + '\r\n'
    return t.encode('latin1')
LIST = list(CASES.items()) + [(f'random {k}', rnd()) for k in range(700)]
for k, (name, pl) in enumerate(LIST):
    src = f'10.2.{k >> 8}.{k & 255}'; b.c.send(fromc(udp(src, 4000, V, s.port, pl=pl)))
    if k % 20 == 19: b.drain(); b.c.recv(0.002)
time.sleep(0.3); got = {}
data = open('/proc/net/ip_vs_conn', 'rb').read().split(b'\n')[1:]
for l in data:
    w = l.split(b' ')
    if len(l) > 20 and l.split()[2] == b'0000' and l.split()[4] == b'%04X' % s.port: got[l.split()[1].decode()] = l
fl = {l.split()[1].decode() for l in data if l and l.split()[2] == b'0FA0' and l.split()[4] == b'%04X' % s.port}
for k, (name, pl) in enumerate(LIST):
    h = '0A02%04X' % k; l = got.get(h); pe = None
    if l is not None: i = l.find(b' sip '); pe = l[i + 5:].rstrip(b'\n').hex() if i > 0 else ''
    s.steps.append(dict(payload=name, data=pl.hex(), forwarded=h in fl, pe=pe))
    if not name.startswith('random') or k < 80: print('  ', name, h in fl, bytes.fromhex(pe or '')[:60] if pe is not None else None)
print(sum(x.get('pe') is not None for x in s.steps), 'with a template,', sum(x.get('forwarded', False) for x in s.steps), 'forwarded of', len(LIST)); s.done()
# the slow one
s = slow; h = '%04X' % s.port; last = tslow; s.steps.append(dict(watch=True))
while time.monotonic() - tslow < 24:
    if time.monotonic() - tslow > 10 and not any(x.get('packet') and x['packet'][1] == 4001 for x in s.steps): s.sleep(0); s.steps.append(dict(elapsed=round(time.monotonic() - tslow, 1))); s.pk(A, 4001, sip('slow@x'))
    s.steps.append(dict(elapsed=round(time.monotonic() - tslow, 1))); s.rows(); time.sleep(2.5 if time.monotonic() - tslow < 30 else 6)
s.done()
