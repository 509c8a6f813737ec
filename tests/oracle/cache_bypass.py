"""cache_bypass: services by mark without a destination, for addresses that are not the director's. All packets for 10.1.0.0/24 and fd01::/16 have mark 5 (MARKED) and are the director's by `ip rule`."""
from lib import *
b = Bench('cache_bypass')
sh("nft -f -", """table inet m { chain in { type filter hook prerouting priority mangle;
 iifname "dc" ip daddr { 10.1.0.0/16, 10.9.1.1, 10.77.0.1, 224.1.1.1 } meta mark set 5
 iifname "dc" ip6 daddr { fd01::/64, fd09::1, fd77::1 } meta mark set 5
 }
}""")
for f in ('-4', '-6'): sh(f'ip {f} rule add fwmark 5 lookup 100; ip {f} route add local default dev lo table 100')
sysctl('net.ipv4.conf.all.rp_filter', 0)
def stats(): return [int(x, 16) for x in open('/proc/net/ip_vs_stats').read().splitlines()[2].split()]
SEND = dict(tcp=lambda s, sp, d, dp, x, **k: tcp(s, sp, d, dp, x, **k), udp=lambda s, sp, d, dp, x, **k: udp(s, sp, d, dp, **k), sctp=lambda s, sp, d, dp, x, **k: sctp(s, sp, d, dp, x, **k))
STEPS = dict(tcp=['S', 'A', 'PA', 'FA', 'A', 'S', 'R', 'S'], udp=['', ''], sctp=[(1,), (10,), (0,), (7,), (8,), (14,)])
def reset(flags='', fam=4, dests=''):
    sh('ipvsadm -C'); s6 = ' -6' if fam == 6 else ''
    rules = f'-A -f 5{s6} -s rr{flags}\n' + dests; sh('ipvsadm -R', rules); return rules
def row(what, frm, p, **k): b.case(what, frm, p, family=fam, protocol=proto, rules=rules, settings={n: int(vs(n)) for n in ('cache_bypass', 'expire_nodest_conn', 'schedule_icmp')}, **k)
n = 40000
for fam in (4, 6):
    cl, own = (C, V) if fam == 4 else (C6, V6)
    to = (lambda i: rs(i)) if fam == 4 else (lambda i: rs6(i))
    U = (3, 3) if fam == 4 else (1, 4); h = 20 if fam == 4 else 40
    for proto in ('tcp', 'udp', 'sctp'):
        send, steps = SEND[proto], STEPS[proto]; port = 80
        for bypass in (0, 1):
            vs('cache_bypass', bypass); rules = reset(fam=fam); n += 1
            for x in steps if bypass else steps[:1]: row(f'no destination, {x}', 'c', send(cl, n, to(5), port, x))
        back = send(to(5), port, cl, n, 'SA' if proto == 'tcp' else (2,)); row('its answer', 'r', back, i=5)
        fwd = send(cl, n, to(5), port, steps[0])
        row('an error about its packet, from its side', 'r', icmp(to(5), cl, *U, 0, fwd[:h + 8], ttl=50), i=5)
        row('an error about the answer, from the client', 'c', icmp(cl, to(5), *U, 0, back[:h + 8], ttl=50))
        row('an error about the answer, ttl 1', 'c', icmp(cl, to(5), *U, 0, back[:h + 8], ttl=1))
        b.rec(case='listings', family=fam, protocol=proto, lnc=sh('ipvsadm -Lnc'), conn=open('/proc/net/ip_vs_conn').read(), sync=open('/proc/net/ip_vs_conn_sync').read(), ln=sh('ipvsadm -Ln'))
        time.sleep(2.2); b.rec(case='counters', family=fam, protocol=proto, service=sh('ipvsadm -Ln --stats --exact'), all=stats())
        # a destination, a setting and a service come and go
        D = f'-a -f 5 -r {to(0)}:0 -m -w %d\n' if fam == 4 else f'-a -f 5 -6 -r {q(to(0))}:0 -m -w %d\n'
        sh('ipvsadm -R', D % 1); rules += D % 1
        row('with a destination again: the same connection', 'c', send(cl, n, to(5), port, steps[0])); row('with a destination again: a new one', 'c', send(cl, n + 1000, to(5), port, steps[0]))
        rules = reset(fam=fam); vs('expire_nodest_conn', 1); row('expire_nodest_conn: opens', 'c', send(cl, n, to(5), port, steps[0])); row('expire_nodest_conn: again', 'c', send(cl, n, to(5), port, steps[0])); vs('expire_nodest_conn', 0)
        vs('cache_bypass', 0); row('switched off: the same connection', 'c', send(cl, n, to(5), port, steps[0])); row('switched off: a new one', 'c', send(cl, n + 2000, to(5), port, steps[0])); vs('cache_bypass', 1)
        rules = reset(fam=fam, dests=D % 0); row('weight 0: opens', 'c', send(cl, n, to(5), port, steps[0]))
        rules = reset(' -p 60', fam=fam); row('persistent: opens', 'c', send(cl, n, to(5), port, steps[0])); row('persistent: another', 'c', send(cl, n + 1, to(5), port, steps[0]))
        # the packet's own
        rules = reset(fam=fam)
        for t in (1, 2): row(f'ttl {t}', 'c', send(cl, n, to(5), port, steps[0], ttl=t)); row(f'ttl {t} again', 'c', send(cl, n, to(5), port, steps[0], ttl=t)); n += 1
        row("to the director's own address", 'c', send(cl, n, own, 7, steps[0]))
        if fam == 4: row('to a broadcast address', 'c', send(cl, n, '10.1.0.255', 7, steps[0])); row('to a multicast address', 'c', send(cl, n, '224.1.1.1', 7, steps[0]))
        row('to where no route leads', 'c', send(cl, n, '10.77.0.1' if fam == 4 else 'fd77::1', 7, steps[0])); row('to where no route leads, again', 'c', send(cl, n, '10.77.0.1' if fam == 4 else 'fd77::1', 7, steps[0]))
        if fam == 4 and proto != 'tcp': n += 1; row('options', 'c', send(cl, n, to(5), port, steps[0], opts=bytes([1, 1, 1, 0])))
        vs('schedule_icmp', 1); row('schedule_icmp: an error about no connection', 'c', icmp(cl, to(6), *U, 0, send(to(6), port, cl, n, 'A' if proto == 'tcp' else (0,))[:h + 8], ttl=50)); vs('schedule_icmp', 0)
        sh('ipvsadm -C'); n += 1; o = dict(tcp='-t', udp='-u', sctp='--sctp-service')[proto]; rules = f'-A {o} {q(to(5))}:80 -s rr\n'; sh('ipvsadm -R', rules); row('a service by address', 'c', send(cl, n, to(5), port, steps[0])); n += 10
    proto = 'udp'
    rules = reset(fam=fam); sh(f'ip route replace {to(7)}/{32 if fam == 4 else 128} dev dr mtu lock 1300')
    for df in (1, 0): row(f'1400 bytes, MTU 1300, DF {df}', 'c', udp(cl, n, to(7), 80, pl=bytes(1372 if fam == 4 else 1352), df=df), route_mtu=1300)
    sh(f'ip route del {to(7)}/{32 if fam == 4 else 128} dev dr')
    if fam == 4:
        d = udp(cl, n, to(8), 80, pl=bytes(range(200)) * 2, df=0)
        for at, mf in ((0, 1), (200, 0)): row(f'a fragment at {at}', 'c', ip(cl, to(8), 17, d[20:][at:at + 200 if mf else None], df=0, frag=at // 8, mf=mf))
    rules = reset(' -o', fam=fam)
    for k in range(2): row(f'one-packet: datagram {k}', 'c', udp(cl, n, to(5), 80))
    n += 10
# What a master tells of them.
for f in ('/proc/sys/net/ipv4/vs/sync_threshold',): open(f, 'w').write('0 1')
sh('ipvsadm --start-daemon master --mcast-interface dc --syncid 3')
def told(wait=4.5):
    out, end = [], time.time() + wait
    while time.time() < end:
        if not select.select([b.c.s], [], [], max(0, end - time.time()))[0]: break
        f, a = b.c.s.recvfrom(70000)
        if a[2] != 4 and f[12:14] == b'\x08\0' and f[14 + 9] == 17 and f[36:38] == struct.pack('!H', 8848): out.append(f[42:14 + (f[16] << 8 | f[17])].hex())
    return out
for fam in (4, 6):
    cl, to = (C, rs(9)) if fam == 4 else (C6, rs6(9)); rules = reset(fam=fam); n += 1
    for x in ('S', 'A', 'A'): b.c.send(fromc(tcp(cl, n, to, 80, x))); time.sleep(0.05)
    b.c.send(fromc(udp(cl, n, to, 53))); time.sleep(0.05); b.c.send(fromc(udp(cl, n, to, 53)))
    b.rec(case='told', family=fam, port=n, rules=rules, messages=told(), lnc=sh(f'ipvsadm -Lnc | grep {n}')); sh('ipvsadm -C')
print([l for l in open('/out/cache_bypass.jsonl')][-2:])
