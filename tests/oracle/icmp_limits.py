"""Limits of ICMP errors: how many of a burst of packets, to one sender and to several, are answered: those that IPVS sends
(port unreachable: no destination; time exceeded; too big), with the host's settings."""
from lib import *
b = Bench('icmp_limits')
REC = b.rec
sh('ipvsadm -A -t 10.9.9.9:9 -s rr')
D4 = dict(icmp_ratelimit=1000, icmp_ratemask=6168, icmp_msgs_per_sec=1000, icmp_msgs_burst=50); D6 = dict(ratelimit=1000, ratemask='0-1,3-127')
def defaults():
    for k, v in D4.items(): sysctl('net.ipv4.' + k, v)
    for k, v in D6.items(): sysctl('net.ipv6.icmp.' + k, v)
for p, a in ((100, 'no destination'), (101, 'time exceeded'), (102, 'too big')):
    for v, r in ((V, rs(0)), (V6, rs6(0))): sh('ipvsadm -R', f'-A -u {q(v)}:{p} -s rr\n' + (f'-a -u {q(v)}:{p} -r {q(r)}:80 -m -w 1\n' if p != 100 else ''))
def pkt(fam, kind, src, n=0):
    v = V if fam == 4 else V6
    if kind == 'no destination': return udp(src, 40000 + n % 5, v, 100)
    if kind == 'time exceeded': return udp(src, 40000 + n % 5, v, 101, ttl=1)
    return udp(src, 40000 + n % 5, v, 102, pl=bytes(1440))
sh('ip -6 route del fd02::/16; ip -6 route add default via fd00::2')
sh('ip -batch -', '\n'.join(f'neigh add {a}{i:x} lladdr {mac(MC)} dev dc nud permanent' for a in ('fd00::1:',) for i in range(1, 200)) + '\n')
def clients(fam, n, at=0, near=False):
    if near: return ['fd00::1:%x' % (i + 1) for i in range(at, at + n)]
    return [('10.2.%d.%d' % ((at + i) // 250, (at + i) % 250 + 1)) if fam == 4 else 'fd02::%x' % (at + i + 1) for i in range(n)]
used = [0]
def burst(what, fam, kind, nclients, each, steps=(0,), near=False, **k):
    """`each` packets of each of so many new clients, at these seconds; answers in each step, all in the order of clients"""
    cs = clients(fam, nclients, 0 if near else used[0], near); used[0] += nclients; time.sleep(2.2); b.drain(); t0 = time.monotonic(); out = []
    for at in steps:
        time.sleep(max(0, t0 + at - time.monotonic())); s = time.monotonic()
        fs = [fromc(pkt(fam, kind, c, n)) for n in range(each) for c in cs]; s = time.monotonic()
        for f in fs: b.c.send(f)
        e = time.monotonic(); got = b.c.recv(0.05); by = {}
        for f in got:
            p = f[14:]; to = socket.inet_ntoa(p[16:20]) if fam == 4 else socket.inet_ntop(10, p[24:40]); by[to] = by.get(to, 0) + 1
        out.append(dict(at=round(s - t0, 3), took=round(e - s, 3), answers=[by.get(c, 0) for c in cs], total=len(got)))
    REC(case=what, family=fam, neighbour=near, kind=kind, clients=nclients, each=each, steps=out, **k)
    print('##', what, fam, kind, nclients, 'x', each, k, [(o['at'], o['took'], o['total'], o['answers'][:8]) for o in out])
defaults()
for f in ('net/ipv4/icmp_ratelimit', 'net/ipv4/icmp_ratemask', 'net/ipv4/icmp_msgs_per_sec', 'net/ipv4/icmp_msgs_burst', 'net/ipv6/icmp/ratelimit', 'net/ipv6/icmp/ratemask'): print(f, open('/proc/sys/' + f).read().strip())
sh('ip link set dr mtu 1400'); sh('sysctl -w net.ipv6.conf.dr.mtu=1400', check=False)
for fam in (4, 6):
    def set_(**k):
        for n, v in k.items(): sysctl(('net.ipv4.' if fam == 4 or n.startswith('icmp_') else 'net.ipv6.icmp.') + n, v)
    rl, rm = ('icmp_ratelimit', 'icmp_ratemask') if fam == 4 else ('ratelimit', 'ratemask')
    for kind in ('no destination', 'time exceeded', 'too big'):
        burst('defaults, one client', fam, kind, 1, 100)
        burst('defaults, one client, again after seconds', fam, kind, 1, 20, (0, 1.5, 4, 11))
        burst('defaults, 20 clients', fam, kind, 20, 10)
        burst('defaults, 120 clients', fam, kind, 120, 1)
        burst('defaults, 60 clients, again', fam, kind, 60, 1, (0, 0.5, 1.5))
    k = 'no destination'
    if fam == 6: burst('defaults, a neighbour', fam, k, 1, 20, (0, 0.6, 1.3, 4), near=True)
    set_(**{rl: 0}); burst('ratelimit 0', fam, k, 1, 100, settings={rl: 0}); burst('ratelimit 0', fam, k, 120, 1, settings={rl: 0}); defaults()
    set_(**{rl: 100}); burst('ratelimit 100', fam, k, 1, 20, (0, 0.35, 1.0, 3.0), settings={rl: 100}); defaults()
    set_(**{rl: 3000}); burst('ratelimit 3000', fam, k, 1, 20, (0, 2, 4, 7.5), settings={rl: 3000}); defaults()
    none, te = (0, 1 << 11) if fam == 4 else ('100', '3')
    set_(**{rm: none}); burst('ratemask of nothing', fam, k, 1, 100, settings={rm: none}); burst('ratemask of nothing', fam, k, 120, 1, settings={rm: none}); defaults()
    for kind in (k, 'time exceeded'):
        set_(**{rm: te}); burst('ratemask of time exceeded', fam, kind, 1, 100, settings={rm: te}); defaults()
    mask = 6168 | 1 << 3 if fam == 4 else '0-127'
    set_(**{rm: mask}); burst('ratemask of too big', fam, 'too big', 1, 100, settings={rm: mask}); burst('ratemask of too big', fam, 'too big', 120, 1, settings={rm: mask}); defaults()
    set_(icmp_msgs_burst=10); burst('burst 10', fam, k, 120, 1, (0, 1.5), settings=dict(icmp_msgs_burst=10)); defaults()
    set_(icmp_msgs_per_sec=100); burst('100 a second', fam, k, 120, 1, (0, 0.2, 0.5, 1.5), settings=dict(icmp_msgs_per_sec=100)); defaults()
    set_(icmp_msgs_per_sec=10, icmp_msgs_burst=50); burst('10 a second', fam, k, 120, 1, (0, 0.5, 1.5, 3.5), settings=dict(icmp_msgs_per_sec=10)); defaults()
    set_(icmp_msgs_per_sec=0); burst('none a second', fam, k, 20, 1, settings=dict(icmp_msgs_per_sec=0)); defaults()
    set_(icmp_msgs_burst=0); burst('burst 0', fam, k, 20, 1, settings=dict(icmp_msgs_burst=0)); defaults()
