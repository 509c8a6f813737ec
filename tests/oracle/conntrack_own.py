"""conntrack, with a client on the director: raw packets of its own to the virtual address, from that address or another of the director's; what a
real server gets and what the client gets back; what netfilter knows, which chains were passed, counters; with marks that kube-proxy gives
(nat PREROUTING and nat OUTPUT), nat OUTPUT alone, mangle OUTPUT, or none, and MASQUERADE of what is marked. What is left when a connection ends."""
from lib import *
import errno
b = Bench('conntrack_own')
sh('modprobe nf_conntrack; modprobe nf_conntrack_netlink; modprobe nf_nat', check=False)
vs('conntrack', 1)
MARK = 'ip daddr 10.9.1.1 meta mark set 0x4000; ip6 daddr fd09::1 meta mark set 0x4000;'
PRE, OUT, MANGLE = ('chain %s { type %s; %s }\n' % (n, t, MARK) for n, t in (('pre', 'nat hook prerouting priority dstnat'), ('out', 'nat hook output priority -100'), ('mangle', 'route hook output priority -150')))
MARKS = dict(none='', kube=PRE + OUT, output=OUT, mangle=MANGLE)
POST = 'chain post { type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade; }\n'
# The host would answer replies that no socket waits for; what is crafted has another TTL.
QUIET = '''table inet quiet { chain out { type filter hook output priority -320; ip ttl 64 tcp flags & rst == rst drop; ip6 hoplimit 64 tcp flags & rst == rst drop
 icmp type destination-unreachable drop; icmpv6 type destination-unreachable drop
 }
}'''
HOOKS = (('prerouting', 'filter', 'prerouting', -310), ('nat prerouting', 'nat', 'prerouting', -105), ('input', 'filter', 'input', 150), ('forward', 'filter', 'forward', 0), ('output', 'filter', 'output', -310), ('nat output', 'nat', 'output', -105), ('postrouting', 'filter', 'postrouting', 150), ('nat postrouting', 'nat', 'postrouting', 90))
def watch(port):
    SEEN.clear()
    sh('nft -f -', 'table inet seen\ndelete table inet seen\ntable inet seen {\n' + ''.join(f' chain {n.replace(" ", "_")} {{ type {t} hook {h} priority {p}; tcp sport {port} counter; tcp dport {port} counter; udp sport {port} counter; udp dport {port} counter; }}\n' for n, t, h, p in HOOKS) + '}\n')
SEEN = {}
def passed():
    """how often packets passed chains since the last call"""
    out = {}
    for l in sh('nft list table inet seen').splitlines():
        w = l.split()
        if w[:1] == ['chain']: c = w[1].replace('_', ' ')
        elif 'packets' in w: out[c] = out.get(c, 0) + int(w[w.index('packets') + 1])
    new = {c: n - SEEN.get(c, 0) for c, n in out.items()}; SEEN.clear(); SEEN.update(out)
    return {c: n for c, n in new.items() if n}
class Own:
    """a client on the director: sends IP packets, hears what the host would give a socket"""
    def __init__(s):
        s.out = {f: socket.socket(f, socket.SOCK_RAW, 255) for f in (2, 10)}
        s.ins = [socket.socket(f, socket.SOCK_RAW, p) for f in (2, 10) for p in (6, 17)]
    def send(s, p):
        f = 10 if p[0] >> 4 == 6 else 2
        s.out[f].sendto(p, (socket.inet_ntop(f, p[24:40] if f == 10 else p[16:20]), 0))
    def heard(s, wait=0.03):
        got = []
        while 1:
            ready = select.select(s.ins, [], [], wait)[0]
            if not ready: return got
            for x in ready:
                p, a = x.recvfrom(70000)
                if x.family == 2: p = p[(p[0] & 15) * 4:]
                got.append('%s %d > %d %s' % (a[0], p[0] << 8 | p[1], p[2] << 8 | p[3], 'udp' if x.proto == 17 else ''.join(n for n, v in (('S', 2), ('F', 1), ('R', 4), ('A', 16)) if p[13] & v)))
own = Own()
def case(what, p, frm='own', **k):
    """a packet of the client's ('own'), or frame of a real server's ('r')"""
    b.drain(); own.heard(0.005); passed()
    try: own.send(p) if frm == 'own' else b.r.send(fromr(p))
    except OSError as e: k['send_error'] = errno.errorcode[e.errno]
    time.sleep(0.05); got = own.heard(); out = b.r.recv(0.03)
    r = dict(case=what, **k); k.pop('send_error', None); r['in'] = dict(from_=frm, packet=p.hex(), text=ptxt(p)); r['to_server'] = [dict(frame=x.hex(), text=ftxt(x)) for x in out]; r['to_client'] = got; r['passed'] = passed(); r['conns'] = conns()
    b.rec(**r); b.rec(case=what + ': tracked', rows=tracked(), **k)
    print('##', what, k, '\n  IN', frm, ptxt(p), '\n  TO-R', [ftxt(x) for x in out], '\n  TO-C', got, r['passed'], '\n ', [x for x in tracked() if x['orig']['sport'] == k['cport']]); return out
NUMBERS = dict(S=dict(seq=1000), SA=dict(seq=5000, ack=1001), A=dict(seq=1001, ack=5001), R=dict(seq=1001))
def packet(proto, *a): return tcp(*a, ttl=61, **NUMBERS[a[4]]) if proto == 'tcp' else udp(*a[:4], ttl=61)
def back(frame, proto, fl):
    """the server's answer to a frame"""
    f = frame[14:]; v4 = f[0] >> 4 == 4; h = 20 if v4 else 40; name = lambda x: socket.inet_ntop(2 if v4 else 10, x)
    src, dst = (name(f[12:16]), name(f[16:20])) if v4 else (name(f[8:24]), name(f[24:40]))
    return packet(proto, dst, f[h + 2] << 8 | f[h + 3], src, f[h] << 8 | f[h + 1], fl)
def services(o, vip, servers, port): sh('conntrack -F', check=False); sh('ipvsadm -C; ipvsadm --set 900 120 300'); sh('ipvsadm -R', ''.join(['-A -t 10.9.9.9:9 -s rr\n', f'-A {o} {q(vip)}:80 -s rr\n'] + [f'-a {o} {q(vip)}:80 -r {q(x)}:{port} -m\n' for x in servers]))
sh('nft -f -', QUIET)
n = 43000
for marks in MARKS:
    sh('nft -f -', 'table inet t {\n' + MARKS[marks] + POST + '}\n')
    for fam in (4, 6):
        vip, r0, r1, other = (V, rs(0), rs(1), '10.0.0.1') if fam == 4 else (V6, rs6(0), rs6(1), 'fd00::1')
        for proto in ('tcp', 'udp'):
            o = '-t' if proto == 'tcp' else '-u'
            for source in ((vip, other) if marks in ('none', 'kube') else (vip,)):
                n += 1; services(o, vip, [r0], 8080); watch(n); k = dict(marks=marks, family=fam, protocol=proto, source=source, cport=n)
                out = case('opens', packet(proto, source, n, vip, 80, 'S'), **k)
                if out: case('reply', back(out[0], proto, 'SA'), 'r', **k)
                case('again', packet(proto, source, n, vip, 80, 'A'), **k)
                time.sleep(4.2); b.rec(case='stats', stats=sh('ipvsadm -Ln --stats --exact'), lnc=sh('ipvsadm -Lnc'), **k)
                if marks not in ('none', 'kube') or source != vip: continue
                # Netfilter is told to forget; the destination goes, and comes again; the service goes.
                sh(f'conntrack -D -p {proto} --orig-port-src {n}', check=False); out = case('forgotten', packet(proto, source, n, vip, 80, 'A'), forgotten=1, **k)
                if out: case('reply', back(out[0], proto, 'A'), 'r', forgotten=1, **k)
                sh(f'ipvsadm -d {o} {q(vip)}:80 -r {q(r0)}:8080'); case('gone', packet(proto, source, n, vip, 80, 'A'), **k)
                sh(f'ipvsadm -a {o} {q(vip)}:80 -r {q(r0)}:8080 -m'); case('back', packet(proto, source, n, vip, 80, 'A'), **k)
                sh(f'ipvsadm -D {o} {q(vip)}:80'); case('deleted', packet(proto, source, n, vip, 80, 'A'), **k)
        if marks not in ('none', 'kube'): continue
        for proto in ('tcp', 'udp'):
            n += 1; o = '-t' if proto == 'tcp' else '-u'; services(o, vip, [r0], 80); sh('ipvsadm --set 2 2 2'); watch(n); k = dict(marks=marks, family=fam, protocol=proto, source=vip, cport=n, expires=1)
            case('opens', packet(proto, vip, n, vip, 80, 'S'), **k)
            if proto == 'tcp': case('resets', packet(proto, vip, n, vip, 80, 'R'), **k)
            time.sleep(14); b.rec(case='expired', rows=tracked(), conns=conns(), **k)
        n += 1; services('-t', vip, [r0, r1], 80); watch(n); k = dict(marks=marks, family=fam, protocol='tcp', source=vip, cport=n, anew=1)
        for what, fl in (('opens', 'S'), ('resets', 'R'), ('anew', 'S'), ('anew again', 'S')): case(what, packet('tcp', vip, n, vip, 80, fl), **k)
        # A real server that is the director.
        dest = '10.1.0.1' if fam == 4 else 'fd01::1'
        for proto in ('tcp', 'udp'):
            n += 1; services('-t' if proto == 'tcp' else '-u', vip, [dest], 8080); watch(n); k = dict(marks=marks, family=fam, protocol=proto, source=vip, cport=n, server=dest)
            case('opens', packet(proto, vip, n, vip, 80, 'S'), **k); case('reply', packet(proto, dest, 8080, vip, n, 'SA'), **k); case('again', packet(proto, vip, n, vip, 80, 'A'), **k)
            time.sleep(4.2); b.rec(case='stats', stats=sh('ipvsadm -Ln --stats --exact'), lnc=sh('ipvsadm -Lnc'), **k)
    sh('nft delete table inet t')
