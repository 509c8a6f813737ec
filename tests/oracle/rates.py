"""What the estimator makes of a load that changes: counters and rates of everything at each of its ticks (2 s)."""
from lib import *
b = Bench('rates')
sh('ipvsadm -R', f'-A -t {V}:80 -s rr\n-a -t {V}:80 -r {rs(0)}:80 -m\n')
def look():
    l = open('/proc/net/ip_vs_stats').read().splitlines()
    return [[int(x, 16) for x in l[i].split()] for i in (2, 5)]
# per interval: new connections, packets and bytes of data in each direction
LOAD = [(1, 0, 0), (3, 10, 100), (20, 5, 1000), (0, 60, 1400), (7, 0, 0), (0, 0, 0), (0, 1, 1), (50, 50, 700), (0, 0, 0), (0, 0, 0), (0, 0, 0), (2, 2, 2), (80, 0, 0), (1, 100, 1400), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
port, last, t0 = 30000, look(), time.monotonic()
def until_tick(limit):
    """waits for a change of what is shown"""
    global last
    end = time.monotonic() + limit
    while time.monotonic() < end:
        now = look()
        if now != last:
            last = now; at = round(time.monotonic() - t0, 2)
            b.rec(at=at, stats=now[0], rates=now[1]); print(at, *now); return
        time.sleep(0.01)
# in the phase of the ticks: a packet shows at the next
b.c.send(fromc(tcp(C, 29999, V, 80, 'S'))); until_tick(5)
for new, packets, size in LOAD:
    for _ in range(new): port += 1; b.c.send(fromc(tcp(C, port, V, 80, 'S')))
    if packets and not new: port += 0
    for _ in range(packets): b.c.send(fromc(tcp(C, 29999, V, 80, 'PA', pl=bytes(size)))); b.r.send(fromr(tcp(rs(0), 80, C, 29999, 'PA', pl=bytes(size))))
    b.drain(); until_tick(2.5)
