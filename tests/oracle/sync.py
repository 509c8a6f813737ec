"""Sync daemons. sync_control.jsonl: commands and what they answered. sync_sent.jsonl: what a master sends as packets pass.
sync_taken.jsonl: crafted messages to a backup, and its connections and counts after each."""
from lib import *
G, PORT = '224.0.0.81', 8848
def show(f): return ' '.join(open('/proc/net/' + f).read().split('\n'))
# ---- control
rec = Rec('sync_control')
def do(*lines):
    for l in lines:
        r = shx(l); rec(command=l, **r); print('$', l, r)
sh('modprobe ip_vs; modprobe ip_vs_pe_sip; for s in rr wrr wlc; do modprobe ip_vs_$s; done')
b = Bench('sync_bench'); os.remove('/out/sync_bench.jsonl')
LS = 'ipvsadm -L --daemon'
M, B = 'ipvsadm --start-daemon master --mcast-interface ', 'ipvsadm --start-daemon backup --mcast-interface '
do(LS, M + 'dc --syncid 3', LS, M + 'dc --syncid 3', M + 'dr --syncid 4', B + 'dr --syncid 4', B + 'dr', LS, 'ipvsadm --stop-daemon master', LS, 'ipvsadm --stop-daemon master', 'ipvsadm --stop-daemon backup', LS)
do(M + 'nope', B + 'nope', LS)
for role in (M, B):
    stop = 'ipvsadm --stop-daemon ' + ('master' if role is M else 'backup')
    for o in ('', ' --syncid 0', ' --syncid 255', ' --sync-maxlen 100', ' --sync-maxlen 9000', ' --sync-maxlen 65535', ' --mcast-port 1', ' --mcast-port 65535', ' --mcast-ttl 255', ' --mcast-group 239.1.2.3', ' --mcast-group 224.0.0.1',
              ' --mcast-group ff02::81', ' --mcast-group ff05::81 --mcast-ttl 7', ' --mcast-group ff02::81 --sync-maxlen 65535', ' --mcast-group ff0e::81'):
        do(role + 'dc' + o, LS, stop)
for mtu in (600, 1400, 9000):
    sh(f'ip link set dc mtu {mtu}'); do(f'ip -o link show dc | grep -o "mtu [0-9]*"', M + 'dc', B + 'dc', LS, 'ipvsadm --stop-daemon master; ipvsadm --stop-daemon backup')
sh(f'ip link set dc mtu 1500; echo 0 >/proc/sys/net/ipv6/conf/dc/disable_ipv6; ip addr replace fd00::1/64 dev dc nodad; ip neigh replace fd00::2 lladdr {mac(MC)} dev dc nud permanent')
# an interface without address, one that is down, one that goes away
sh('ip link add d0 type dummy; ip link add d1 type dummy; ip addr add 10.77.0.1/24 dev d1')
do('ip link show d0 | grep -c UP', M + 'd0', B + 'd0', LS, 'ipvsadm --stop-daemon master; ipvsadm --stop-daemon backup')
sh('ip link set d0 up; ip link set d1 up'); do(M + 'd0', B + 'd0', LS, 'ipvsadm --stop-daemon master; ipvsadm --stop-daemon backup')
do(M + 'd1', B + 'd1', LS); sh('ip link set d1 down'); time.sleep(1.2); do(LS); sh('ip link set d1 up; ip link del d1'); time.sleep(1.5); do(LS, 'ipvsadm --stop-daemon master', 'ipvsadm --stop-daemon backup')
# destinations of another family
do('ipvsadm -A -t 10.9.1.1:99 -s rr; ipvsadm -a -t 10.9.1.1:99 -r [fd01::11]:99 -i', M + 'dc', B + 'dc', LS, 'ipvsadm -C', M + 'dc', 'ipvsadm -A -t 10.9.1.1:99 -s rr', 'ipvsadm -a -t 10.9.1.1:99 -r [fd01::11]:99 -i', 'ipvsadm -C', 'ipvsadm --stop-daemon master',
   B + 'dc', 'ipvsadm -A -t 10.9.1.1:99 -s rr', 'ipvsadm -a -t 10.9.1.1:99 -r [fd01::11]:99 -i', 'ipvsadm -C', 'ipvsadm --stop-daemon backup')
# settings
for k, vals in dict(backup_only=('1', '0', '2', '-1', '0'), sync_persist_mode=('1', '2', '-1', '0'), sync_ports=('2', '3', '4', '0', '64', '65', '128', '-2', '1'), sync_refresh_period=('1', '100', '-1', '0'), sync_retries=('3', '4', '-1', '0'),
                    sync_sock_size=('1', '100000', '-1', '0'), sync_threshold=('3 10', '0 0', '3', '5 3', '3 3', '10 10', '0 1', '-1 5', '3 -1', '4 0', '1 2 3', '3 50'), sync_version=('0', '1', '2', '-1', '1'), sync_qlen_max=('5', '-1', '0')).items():
    for v in vals:
        do(f'echo "{v}" >/proc/sys/net/ipv4/vs/{k}', f'cat /proc/sys/net/ipv4/vs/{k}')
do('ls /proc/sys/net/ipv4/vs | tr "\\n" " "')
vs('sync_threshold', '3\t50'); vs('sync_sock_size', 0); vs('sync_qlen_max', 1000)
# ---- what a master sends
rec = Rec('sync_sent')
class Tap:
    def __init__(s): s.p = b.c
    def get(s, wait=0.3):
        out = []
        end = time.time() + wait
        while time.time() < end:
            if not select.select([s.p.s], [], [], max(0, end - time.time()))[0]: break
            f, a = s.p.s.recvfrom(70000)
            if a[2] == 4: continue
            if f[12:14] == b'\x08\0' and f[14 + 9] == 17 and f[30] >= 224 and f[36:38] == struct.pack('!H', PORT): out.append(dict(ttl=f[22], src=socket.inet_ntoa(f[26:30]), group=socket.inet_ntoa(f[30:34]), sum=f[40:42].hex(), frag=f[20:22].hex(), data=f[42:14 + (f[16] << 8 | f[17])].hex()))
            if f[12:14] == b'\x86\xdd' and f[20] == 17 and f[38] == 255 and f[56:58] == struct.pack('!H', PORT): out.append(dict(ttl=f[21], src=socket.inet_ntop(10, f[22:38]), group=socket.inet_ntop(10, f[38:54]), sum=f[60:62].hex(), frag='', data=f[62:54 + (f[18] << 8 | f[19])].hex()))
        return out
tap = Tap()
def note(what, wait=1.3, **k):
    m = tap.get(wait); rec(case=what, messages=m, conns=show('ip_vs_conn'), **k); print('##', what); [print('   ', x) for x in m]
def svc(opt, dests, flags='-s rr'):
    sh(f'ipvsadm -A {opt} {flags}'); [sh(f'ipvsadm -a {opt} -r {d}') for d in dests]
def inn(fl, sp, dp=80, v=V, c=C, **k): b.c.send(fromc(tcp(c, sp, v, dp, fl, **k))); time.sleep(0.02)
def out(fl, sp, s=None, sport=80, c=C): b.r.send(fromr(tcp(s or rs(0), sport, c, sp, fl))); time.sleep(0.02)
svc(f'-t {V}:80', [rs(0) + ':80 -m']); svc(f'-t {V}:81', [rs(1) + ':81 -g']); svc(f'-t {V}:82', [rs(2) + ':82 -i'])
svc(f'-u {V}:53', [rs(0) + ':5353 -m']); svc(f'-u {V}:54', [rs(1) + ':54 -g']); svc(f'-t {V}:90', [rs(0) + ':90 -m'], '-s rr -p 100'); svc(f'-t {V}:0', [rs(1) + ':0 -g'], '-s rr -p 200 -M 255.255.255.0')
svc(f'-t [{V6}]:80', [f'[{rs6(0)}]:80 -m']); svc(f'-t [{V6}]:81', [f'[{rs6(1)}]:81 -g']); svc(f'-t [{V6}]:90', [f'[{rs6(1)}]:90 -g'], '-s rr -p 300'); svc(f'-u {V}:55', [rs(3) + ':55 -g'], '-s rr -o')
sh(f'iptables -t mangle -A PREROUTING -d {V} -p tcp --dport 100:101 -j MARK --set-mark 7; ip6tables -t mangle -A PREROUTING -d {V6} -p tcp --dport 100:101 -j MARK --set-mark 8; iptables -t mangle -A PREROUTING -d {V} -p tcp --dport 110 -j MARK --set-mark 9', )
svc('-f 7', [rs(0) + ' -g'], '-s rr -p 150'); svc('-f 8 -6', [f'[{rs6(1)}]:0 -g'], '-s rr -p 160'); svc('-f 9', [rs(2) + ' -m'], '-s rr')
svc(f'-u {V}:5060', [rs(0) + ':5060 -m'], '-s rr -p 77 --pe sip')
def traffic(base, label):
    n = base
    for dp, name in ((80, 'nat'), (81, 'dr'), (82, 'tun'), (90, 'nat persistent'), (7777, 'dr any port persistent'), (100, 'fwmark persistent dr'), (110, 'fwmark nat')):
        n += 1; nat = dp in (80, 90, 110); srv = {80: rs(0), 90: rs(0), 110: rs(2)}.get(dp)
        inn('S', n, dp); note(f'{label}: {name}: SYN', 0.5)
        if nat: out('SA', n, srv, dp)
        inn('A', n, dp); note(f'{label}: {name}: ACK', 1.1)
        inn('A', n, dp); note(f'{label}: {name}: third packet', 1.2)
        for i in range(6): inn('AP', n, dp)
        note(f'{label}: {name}: six more', 1.1)
        inn('FA', n, dp); note(f'{label}: {name}: FIN', 1.1)
        if nat: out('FA', n, srv, dp); inn('A', n, dp); note(f'{label}: {name}: FIN of the server', 1.1)
        inn('R', n, dp); note(f'{label}: {name}: RST', 1.1)
    for dp, v, c in ((80, V6, C6), (81, V6, C6), (90, V6, C6), (100, V6, C6)):
        n += 1; inn('S', n, dp, v, c)
        if dp == 80: b.r.send(fromr(tcp(rs6(0), 80, C6, n, 'SA'))); time.sleep(0.02)
        for i in range(3): inn('A', n, dp, v, c)
        note(f'{label}: v6 port {dp}: open', 1.2); inn('FA', n, dp, v, c); note(f'{label}: v6 port {dp}: FIN', 1.1)
    for dp in (53, 54, 55):
        n += 1
        for i in range(4): b.c.send(fromc(udp(C, n, V, dp))); time.sleep(0.02)
        note(f'{label}: udp port {dp}: four packets', 1.2)
    sip = f'INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP {C}\r\nCall-ID: call-{label.replace(" ", "")}@host\r\nCSeq: 1 INVITE\r\n\r\n'.encode()
    for i in range(4): b.c.send(fromc(udp(C, n + 1, V, 5060, sip))); time.sleep(0.02)
    note(f'{label}: sip', 1.2)
sh(M + 'dc --syncid 21'); traffic(40000, 'version 1'); sh('ipvsadm --stop-daemon master')
vs('sync_version', 0); sh(M + 'dc --syncid 22'); traffic(41000, 'version 0'); sh('ipvsadm --stop-daemon master'); vs('sync_version', 1)
sh(M + 'dc --syncid 23 --mcast-group ff02::81 --mcast-ttl 3'); inn('S', 43000); out('SA', 43000); [inn('A', 43000) for i in range(3)]; note('group of IPv6'); sh('ipvsadm --stop-daemon master')
sh(M + 'dc --syncid 24 --sync-maxlen 120')
for i in range(10): inn('S', 43100 + i, 81); inn('A', 43100 + i, 81); inn('A', 43100 + i, 81)
note('ten connections in messages of 120'); sh('ipvsadm --stop-daemon master'); sh(M + 'dc --syncid 24 --sync-maxlen 30'); inn('S', 43200, 81); inn('A', 43200, 81); inn('A', 43200, 81); note('a message of 30'); sh('ipvsadm --stop-daemon master')
vs('sync_ports', 2); sh(M + 'dc --syncid 25')
for i in range(16): inn('S', 43300 + i, 81); inn('A', 43300 + i, 81); inn('A', 43300 + i, 81)
note('sync_ports=2, the first port'); PORT = 8849; [inn('A', 43300 + i, 81) for i in range(16)]; sh('ipvsadm --stop-daemon master'); vs('sync_ports', 1); PORT = 8848
vs('sync_persist_mode', 1); sh(M + 'dc --syncid 26'); inn('S', 43400, 90); out('SA', 43400, rs(0), 90); [inn('A', 43400, 90) for i in range(3)]; note('sync_persist_mode=1'); sh('ipvsadm --stop-daemon master'); vs('sync_persist_mode', 0)
sh('ipvsadm -C; ipvsadm --set 0 0 0; iptables -t mangle -F; ip6tables -t mangle -F'); time.sleep(0.3)
# ---- what a backup takes
rec = Rec('sync_taken')
def esock():
    libc = ctypes.CDLL(None); own, e = os.open('/proc/self/ns/net', 0), os.open('/run/netns/ext', 0); libc.setns(e, 0x40000000)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); libc.setns(own, 0x40000000); return s
def frame(data): return eth('01005e000051', MC, ip('10.0.0.2', G, 17, struct.pack('!HHHH', 50000, PORT, 8 + len(data), 0) + data, ttl=1))
def e4(cp, state=1, flags=0x100 * 0, proto=6, vp=80, dp=80, d=rs(0), v=V, c=C, timeout=900, mark=0, opts=b'', type=0, ver=0, size=None):
    body = struct.pack('!IHHHHII', flags, state, cp, vp, dp, mark, timeout) + pa(c) + pa(v) + pa(d) + opts
    return struct.pack('!BBH', type, proto, ver << 12 | (size if size is not None else 4 + len(body))) + body
def e6(cp, **k): return e4(cp, **{**dict(v=V6, c=C6, d=rs6(0), type=1), **k})
def msg(*entries, id=5, nr=None, reserved=0, version=1, spare=0, size=None, tail=b''):
    body = b''
    for i, e in enumerate(entries): body += e; body += b'\0' * (-len(body) % 4) if i + 1 < len(entries) else b''
    body += tail
    return struct.pack('!BBHBBH', reserved, id, size if size is not None else 8 + len(body), len(entries) if nr is None else nr, version, spare) + body
def m0(*entries, id=5, nr=None, size=None):
    body = b''.join(entries); return struct.pack('!BBH', len(entries) if nr is None else nr, id, size if size is not None else 4 + len(body)) + body
def v0(cp, state=1, flags=0, proto=6, vp=80, dp=80, d=rs(0), v=V, c=C, opts=b''): return struct.pack('!BBHHH', 0, proto, cp, vp, dp) + pa(c) + pa(v) + pa(d) + struct.pack('!HH', flags, state) + opts
def raw(): return [l.split() for l in open('/proc/net/ip_vs_conn_sync').read().splitlines()[1:]]
def case(what, data, before=None, fresh=True, after=None):
    if fresh:
        sh('ipvsadm -C; ipvsadm --stop-daemon backup', check=False); sh('for n in 1 2; do :; done'); vs('expire_nodest_conn', 0)
        sh('ipvsadm --stop-daemon backup', check=False)
        for x in SERVICES: sh('ipvsadm ' + x)
        sh(B + 'dc --syncid 5'); time.sleep(0.05)
    if before: sh(before)
    for d in ([data] if isinstance(data, bytes) else data): b.c.send(frame(d)); time.sleep(0.12)
    if after: sh(after)
    r = dict(case=what, messages=[d.hex() for d in ([data] if isinstance(data, bytes) else data)], fresh=fresh, before=before, after=after, conns=raw(), save=sh('ipvsadm -Sn').splitlines(), dests=show('ip_vs'), persistent=sh('ipvsadm -Ln --persistent-conn').splitlines())
    rec(**r); print('##', what); [print('   ', ' '.join(x)) for x in r['conns']]; print('   ', [l for l in sh('ipvsadm -Ln').splitlines() if '->' in l][1:])
SERVICES = [f'-A -t {V}:80 -s rr', f'-a -t {V}:80 -r {rs(0)}:80 -m', f'-a -t {V}:80 -r {rs(1)}:80 -g', f'-A -u {V}:53 -s rr', f'-a -u {V}:53 -r {rs(0)}:53 -m', f'-A -t {V}:90 -s rr -p 100', f'-a -t {V}:90 -r {rs(0)}:90 -g', f'-A -t {V}:0 -s rr -p 100', f'-a -t {V}:0 -r {rs(0)}:0 -g',
            '-A -f 7 -s rr -p 100', f'-a -f 7 -r {rs(0)} -g', '-A -f 9 -s rr', f'-a -f 9 -r {rs(2)}:0 -m', f'-A -t [{V6}]:80 -s rr', f'-a -t [{V6}]:80 -r [{rs6(0)}]:80 -m', f'-A -u {V}:5060 -s rr -p 77 --pe sip', f'-a -u {V}:5060 -r {rs(0)}:5060 -m']
N = [40000]
def cp(): N[0] += 1; return N[0]
I, NO, T = 0x100, 0x80, 0x1000
for st in range(14): case(f'TCP state {st}', msg(e4(cp(), st)))
for fl in (0, I, NO, NO | 3, 3, I | 3 | NO, 2, 1, 4, 5, 7, 0x20, 0x40, 0x200, 0x400, 0x600, 0x800, 0x2000, 0x10000, 0xffff0000): case(f'flags {fl:#x}', msg(e4(cp(), 1, fl)))
for to in (0, 1, 60, 900, 0x7fffffff, 0xffffffff): case(f'timeout {to}', msg(e4(cp(), 1, timeout=to))); case(f'template, timeout {to}', msg(e4(0, 0, T, vp=90, dp=90, timeout=to)))
case('to a destination of direct routing', msg(e4(cp(), 1, 0, d=rs(1)))); case('no such destination', msg(e4(cp(), 1, 3, d=rs(7)))); case('no such destination, masqueraded', msg(e4(cp(), 1, 0, d=rs(7)))); case('no such service', msg(e4(cp(), 1, 3, vp=4444, v='10.9.1.2')))
case('another port of the destination', msg(e4(cp(), 1, 0, dp=8080))); case('any port', msg(e4(cp(), 1, 3, vp=7070, dp=7070)))
c = cp(); case('an update: state', [msg(e4(c, 1)), msg(e4(c, 4, I, timeout=120))]); c = cp(); case('an update: active again', [msg(e4(c, 4, I)), msg(e4(c, 1))]); c = cp(); case('an update: another destination', [msg(e4(c, 1)), msg(e4(c, 1, 3, d=rs(1)))]); c = cp(); case('an update: another destination, inactive', [msg(e4(c, 1)), msg(e4(c, 6, I | 3, d=rs(1)))])
c = cp(); case('an update: another method', [msg(e4(c, 1)), msg(e4(c, 1, 3))]); c = cp(); case('an update: a shorter timeout', [msg(e4(c, 1, timeout=900)), msg(e4(c, 1, timeout=30))])
c = cp(); case('bound later by an update', [msg(e4(c, 1, 3, d=rs(5)))]); case('bound later by an update: the destination is added', [], f'ipvsadm -a -t {V}:80 -r {rs(5)}:80 -g', False); case('bound later by an update: the update', msg(e4(c, 1, 3, d=rs(5))), fresh=False)
c = cp(); case('unbound, then a destination of another method', [msg(e4(c, 1, 3, d=rs(5)))]); case('unbound, then a destination of another method: the update', msg(e4(c, 1, 3, d=rs(5))), f'ipvsadm -a -t {V}:80 -r {rs(5)}:80 -i', False)
case('template', msg(e4(0, 0, T, vp=90, dp=90, timeout=100))); case('template, assured', msg(e4(0, 1, T, vp=90, dp=90, timeout=100))); case('template, state 2', msg(e4(0, 2, T, vp=90, dp=90, timeout=100))); case('template of any port', msg(e4(0, 0, T | 3, vp=0, dp=0, timeout=100)))
case('template of a mark', msg(e4(0, 0, T | 3, proto=0, v='0.0.0.7', vp=0, dp=0, mark=7, timeout=100))); case('template of another mark', msg(e4(0, 0, T | 3, proto=0, v='0.0.0.6', vp=0, dp=0, mark=6, timeout=100))); case('template, another destination', [msg(e4(0, 0, T, vp=90, dp=90)), msg(e4(0, 0, T, vp=90, dp=90, d=rs(1)))])
case('a connection by mark', msg(e4(cp(), 1, 0, vp=110, dp=110, d=rs(2), mark=9))); case('a connection by mark, direct', msg(e4(cp(), 1, 3, vp=100, dp=100, d=rs(0), mark=7)))
case('UDP', msg(e4(cp(), 0, I, proto=17, vp=53, dp=53, timeout=300))); case('UDP, active', msg(e4(cp(), 0, 0, proto=17, vp=53, dp=53, timeout=300))); case('UDP, state 1', msg(e4(cp(), 1, I, proto=17, vp=53, dp=53))); case('SCTP, state 8', msg(e4(cp(), 8, 0, proto=132, timeout=900))); case('SCTP, state 14', msg(e4(cp(), 14, 0, proto=132)))
case('ESP', msg(e4(500, 0, 0, proto=50, vp=500, dp=500))); case('ICMP', msg(e4(cp(), 0, 0, proto=1))); case('protocol 0', msg(e4(cp(), 0, 0, proto=0)))
case('IPv6', msg(e6(cp(), state=1))); case('IPv6, no such destination', msg(e6(cp(), state=1, d=rs6(5), flags=3))); case('IPv6 and IPv4', msg(e6(cp(), state=1), e4(cp(), 1), e6(cp(), state=4, flags=I)))
seq = bytes([1, 24]) + struct.pack('!6I', 1, 2, 3, 4, 5, 6); case('sequence deltas', msg(e4(cp(), 1, 0x600, opts=seq))); case('sequence deltas twice', msg(e4(cp(), 1, 0x600, opts=seq + seq))); case('sequence deltas of a wrong length', msg(e4(cp(), 1, 0x600, opts=bytes([1, 23]) + bytes(23)))); case('an option of length 0', msg(e4(cp(), 1, opts=bytes([1, 0]))))
case('an unknown option', msg(e4(cp(), 1, opts=bytes([9, 4]) + bytes(4)))); case('an unknown option that may be skipped', msg(e4(cp(), 1, opts=bytes([0x85, 4]) + bytes(4)))); case('an unknown option that may be skipped, high', msg(e4(cp(), 1, opts=bytes([0x47, 4]) + bytes(4)), e4(cp(), 1)))
pe = bytes([3, 3]) + b'sip' + bytes([2, 9]) + b'call-1@hh'; case('engine sip', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, timeout=77, opts=pe))); case('engine sip, a connection', msg(e4(cp(), 0, I, proto=17, vp=5060, dp=5060, timeout=77, opts=pe))); case('an unknown engine', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, opts=bytes([3, 3]) + b'xyz' + bytes([2, 4]) + b'call')))
case('engine data without a name', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, opts=bytes([2, 4]) + b'call'))); case('engine name without data', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, opts=bytes([3, 3]) + b'sip'))); case('an engine name of 17', msg(e4(0, 0, T, proto=17, vp=5060, dp=5060, opts=bytes([3, 17]) + b'x' * 17)))
for what, m in (('another syncid', msg(e4(cp()), id=6)), ('syncid 0', msg(e4(cp()), id=0)), ('size too small', msg(e4(cp()), size=43)), ('size too great', msg(e4(cp()), size=45)), ('a tail', msg(e4(cp()), tail=b'abcd')), ('a spare that is set', msg(e4(cp()), spare=1)), ('version 2', msg(e4(cp()), version=2)), ('reserved 1', msg(e4(cp()), reserved=1)),
                ('no entries', msg()), ('more entries than there are', msg(e4(cp()), nr=2)), ('fewer entries than there are', msg(e4(cp()), e4(cp()), nr=1)), ('entry of version 1', msg(e4(cp(), ver=1))), ('entry too short', msg(e4(cp(), size=35))), ('entry too long', msg(e4(cp(), size=40))), ('entry of size 0', msg(e4(cp(), size=0), e4(cp()))), ('type 2', msg(e4(cp(), type=2))), ('type 3', msg(e6(cp(), type=3))), ('IPv6 in 36 bytes', msg(e4(cp(), type=1))), ('IPv4 of 72 bytes', msg(e6(cp(), type=0))),
                ('a good one and a bad one', msg(e4(cp()), e4(cp(), 13))), ('a bad one and a good one', msg(e4(cp(), 13), e4(cp()))), ('empty', b''), ('one byte', b'\0'), ('eight bytes of zero', bytes(8)), ('unaligned', msg(e4(cp(), opts=bytes([0x85, 1, 0])), e4(cp())))): case(what, m)
case('version 0', m0(v0(cp()))); case('version 0: two', m0(v0(cp()), v0(cp(), 4, I))); case('version 0: sequence deltas', m0(v0(cp(), 1, 0x600, opts=struct.pack('!6I', 1, 2, 3, 4, 5, 6)), v0(cp()))); case('version 0: template', m0(v0(0, 0, T, vp=90, dp=90))); case('version 0: UDP', m0(v0(cp(), 0, I, proto=17, vp=53, dp=53))); case('version 0: state 12', m0(v0(cp(), 12), v0(cp()))); case('version 0: protocol 50', m0(v0(cp(), 0, 0, proto=50), v0(cp()))); case('version 0: another syncid', m0(v0(cp()), id=9)); case('version 0: cut', m0(v0(cp()), v0(cp()))[:-1]); case('version 0: cut with its size', m0(v0(cp()), v0(cp())[:-1], nr=2)); case('version 0: fewer', m0(v0(cp()), v0(cp()), nr=1))
# packets at a backup
c = cp(); case('a packet at the backup', msg(e4(c, 1, 0)));
b.drain(); b.c.send(fromc(tcp(C, c, V, 80, 'A'))); o = b.r.recv(0.2); rec(case='a packet at the backup: forwarded', forwarded=[ftxt(x) for x in o], conns=raw()); print(o and ftxt(o[0]))
b.r.send(fromr(tcp(rs(0), 80, C, c, 'A'))); o = b.c.recv(0.2); rec(case='a packet at the backup: a reply', forwarded=[ftxt(x) for x in o], conns=raw())
c = cp(); case('without destination: a packet', msg(e4(c, 1, 3, d=rs(5)))); b.drain(); b.c.send(fromc(tcp(C, c, V, 80, 'A'))); o = b.r.recv(0.2); rec(case='without destination: forwarded', forwarded=[ftxt(x) for x in o], conns=raw()); print(o and ftxt(o[0]))
vs('backup_only', 1); c = cp(); case('backup_only', msg(e4(c, 1, 0))); b.drain(); b.c.send(fromc(tcp(C, c, V, 80, 'A'))); o = b.r.recv(0.2); rec(case='backup_only: a packet of a connection', forwarded=[ftxt(x) for x in o]); b.r.send(fromr(tcp(rs(0), 80, C, c, 'A'))); o = b.c.recv(0.2); rec(case='backup_only: a reply', forwarded=[ftxt(x) for x in o]); b.c.send(fromc(tcp(C, cp(), V, 80, 'S'))); o = b.r.recv(0.2); rec(case='backup_only: a SYN', forwarded=[ftxt(x) for x in o], conns=raw()); vs('backup_only', 0)
