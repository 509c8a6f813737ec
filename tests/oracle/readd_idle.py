"""A destination that no connection uses is deleted and added again: after how long it still has its counters (--set 0 0 1)."""
from lib import *
b = Bench('readd_idle')
sh('ipvsadm -A -t 10.9.9.9:9 -s rr; ipvsadm --set 0 0 1')
ports = {p: wait for p, wait in zip(range(90, 99), (0, 5, 30, 60, 100, 190))}
for p in ports:
    sh(f'ipvsadm -A -u {V}:{p} -s rr; ipvsadm -a -u {V}:{p} -r {rs(3)}:{p} -m')
    for k in range(3): b.c.send(fromc(udp(C, 4300 + k, V, p)))
time.sleep(5)
def rows():
    out = {}; name = None
    for l in sh('ipvsadm -Ln --stats --exact').splitlines()[3:]:
        w = l.split(); name = name if w[0] == '->' else w[1]; out[name, w[0] == '->'] = [int(x) for x in w[2:7]]
    return out
for p in ports: sh(f'ipvsadm -d -u {V}:{p} -r {rs(3)}:{p}')
t = time.monotonic()
for p, wait in ports.items():
    time.sleep(max(0, wait - (time.monotonic() - t)))
    sh(f'ipvsadm -a -u {V}:{p} -r {rs(3)}:{p} -m'); time.sleep(2.3); r = rows()
    b.rec(wait=wait, service=r[f'{V}:{p}', False], dest=r[f'{V}:{p}', True]); print(wait, r[f'{V}:{p}', False], r[f'{V}:{p}', True], flush=True)
