"""Sync daemons. sync_control.jsonl: commands and what they answered. sync_sent.jsonl: what a master sends as packets pass."""
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
