"""What --stats counts, and what -Z resets."""
from lib import *
b = Bench('stats')
def st():
    time.sleep(2.3) # the kernel adds its per-CPU counters up every 2 s; --stats shows the last sum
    o = {}
    for l in shx('ipvsadm -Ln --stats --exact')['stdout'].splitlines()[3:]:
        w = l.split(); o[' '.join(w[:2])] = [int(x) for x in w[2:7]]
    tot = open('/proc/net/ip_vs_stats').read().splitlines()[2].split(); o['total'] = [int(x, 16) for x in tot]; return o
def diff(a, bb): return {k: [y - x for x, y in zip(a.get(k, [0] * 5), bb[k])] for k in bb}
for fam in (4, 6):
  cl, vip, r0 = (C, V, rs(0)) if fam == 4 else (C6, V6, rs6(0)); q = (lambda a: f'[{a}]') if fam == 6 else (lambda a: a)
  e = None
  for p, name, o in ((80, 'NAT', '-m'), (81, 'DR', '-g'), (82, 'TUN', '-i')):
    sh('ipvsadm -C; ipvsadm -Z'); sh('ipvsadm -R', f'-A -t {q(vip)}:{p} -s rr\n-a -t {q(vip)}:{p} -r {q(r0)}:{p} {o} -w 1\n'); z = st()
    mss = bytes.fromhex('020405b40402080a0000000100000000' '01030307'); get, resp = b'GET / HTTP/1.0\r\n\r\n', b'HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n' + bytes(1000)
    seq = [('in', 'S', b'', mss), ('out', 'SA', b'', mss), ('in', 'A', b'', b''), ('in', 'PA', get, b''), ('out', 'A', b'', b''), ('out', 'PA', resp, b''), ('in', 'A', b'', b''), ('out', 'FA', b'', b''), ('in', 'FA', b'', b''), ('out', 'A', b'', b'')]
    for d, fl, pl, op in seq:
        if d == 'in': k = tcp(cl, 40000, vip, p, fl, pl=pl, opts=op)
        else: k = tcp(r0, p, cl, 40000, fl, pl=pl, opts=op)
        if d == 'out' and name != 'NAT': continue
        a = z; b.case(f'{name} IPv{fam} {d} {fl}', 'c' if d == 'in' else 'r', k, show=False); e = st(); df = diff(a, e); z = e; b.rec(case=f'{name} IPv{fam} {d} {fl}', ip_packet_length=len(k), delta=df, columns='conns inpkts outpkts inbytes outbytes'); print(name, fam, d, fl, 'IP len', len(k), df)
    b.rec(case=f'{name} IPv{fam} after one GET', text=sh('ipvsadm -Ln --stats --exact'), total=sh('cat /proc/net/ip_vs_stats'), percpu=sh('cat /proc/net/ip_vs_stats_percpu')); print(sh('ipvsadm -Ln --stats --exact'))
    for what, cmd in (('-Z of the service', f'ipvsadm -Z -t {q(vip)}:{p}'), ('a second connection, then -Z of all', None)):
        if cmd is None: (b.c.send(fromc(tcp(cl, 40001, vip, p, 'S')))); pre = st(); cmd = 'ipvsadm -Z'
        else: pre = st()
        sh(cmd); post = st(); b.rec(case=f'{name} IPv{fam} {what}', before=pre, after=post, conns=len(conns()), list=sh('ipvsadm -Ln')); print(what, 'before', pre, 'after', post); print(sh('ipvsadm -Ln'))
# how long --stats lags
t = time.monotonic(); b.c.send(fromc(tcp(C6, 40002, V6, 82, 'S')))
while shx('ipvsadm -Ln --stats --exact')['stdout'].splitlines()[-1].split()[2] != '1' and time.monotonic() - t < 6: time.sleep(0.1)
b.rec(case='seconds until --stats showed a packet', seconds=round(time.monotonic() - t, 2)); print('lag', time.monotonic() - t)
# what else counts
sh('ipvsadm -C; ipvsadm -Z'); sh('ipvsadm -R', f'-A -t {V}:90 -s rr\n-A -u {V}:91 -s rr\n-a -u {V}:91 -r {rs(0)}:91 -m\n-A -t {V}:92 -s rr\n-a -t {V}:92 -r {rs(0)}:92 -m\n-A -t {V}:93 -s rr\n-a -t {V}:93 -r {rs(1)}:93 -m\n')
Z = [None]
def step(name, frm, k):
    a = Z[0] or st(); b.case(name, frm, k, show=False); e = Z[0] = st(); df = diff(a, e); b.rec(case=name, ip_packet_length=len(k), delta=df); print(name, len(k), df)
step('SYN to a service without destinations', 'c', tcp(C, 40000, V, 90, 'S'))
step('ACK to a service, no connection', 'c', tcp(C, 40000, V, 92, 'A'))
step('UDP', 'c', udp(C, 40000, V, 91)); step('UDP reply', 'r', udp(rs(0), 91, C, 40000)); step('UDP ttl 1', 'c', udp(C, 40000, V, 91, ttl=1)); step('UDP with IP options', 'c', ip(C, V, 17, udp(C, 40000, V, 91)[20:], opts=b'\1\1\1\0'))
step('SYN', 'c', tcp(C, 40000, V, 92, 'S')); step('SYN again', 'c', tcp(C, 40000, V, 92, 'S')); step('ICMP frag needed about its reply', 'c', icmp('10.0.0.77', V, 3, 4, 1300, tcp(V, 92, C, 40000, 'SA')[:48]))
step('ICMP port unreachable of the server', 'r', icmp(rs(0), C, 3, 3, 0, tcp(C, 40000, rs(0), 92, 'S')[:48])); step('reply without connection', 'r', tcp(rs(0), 92, C, 44444, 'A'))
sh(f'ipvsadm -d -t {V}:92 -r {rs(0)}:92'); step('data, destination deleted', 'c', tcp(C, 40000, V, 92, 'A'))
sh(f'ip neigh del {rs(1)} dev dr; ip route add unreachable {rs(1)}/32'); step('SYN to a destination with no route', 'c', tcp(C, 40000, V, 93, 'S'))
oc = b.case('SYN to a destination with no route', 'c', tcp(C, 40001, V, 93, 'S'))
time.sleep(5); print(sh('ipvsadm -Ln --rate --exact')); sh('ipvsadm -Z'); print(sh('ipvsadm -Ln --rate --exact'))
