"""A connection in another's place (conn_reuse_mode): whom the scheduler takes for it, the old one's destination counting it still or not.
One client's port, a SYN, an ACK and a RST in turn; two destinations, or one that takes no more than one connection."""
from lib import *
b = Bench('reuse_counts')
port = 30000
for method in 'mg':
    for scheduler in ('lc', 'wlc', 'sed', 'nq', 'rr'):
        for upper in (0, 1):
            sh('ipvsadm -C'); port += 1; limit = f' -x {upper} -y 0' if upper else ''
            rules = [f'-A -t {V}:{port} -s {scheduler}'] + [f'-a -t {V}:{port} -r {rs(i)}:{port} -{method} -w 1{limit}' for i in range(1 if upper else 2)]
            sh('ipvsadm -R', '\n'.join(rules) + '\n')
            took = []
            for _ in range(4):
                for flags in 'SAR':
                    b.drain(); b.c.send(fromc(tcp(C, port, V, port, flags))); out = b.r.recv(0.03)
                    if flags == 'S': took.append(out[0][5] - 11 if out else None)
                # The old one's timer has run by then.
                time.sleep(0.2)
            b.rec(method=method, scheduler=scheduler, upper=upper, took=took); print(method, scheduler, upper, took)
