"""parity.py SEED SCENARIOS SECONDS: random services, changes and packets, given to the kernel's IPVS and to RVS side by side.

Compares every frame that leaves, every exit status and listing, connections with state and time left, and counters.
Ends at the first difference with status 1 and with all steps of its scenario. A scenario is a function of its seed; one that
differs is played once more, because on a slow machine a connection can expire between the two sides' turns.
"""
import os
import random
import re
import sys
import time
from collections import Counter

import lib
from side import SERVERS, Side, run

SCHEDULERS = [('rr', ''), ('wrr', ''), ('lc', ''), ('wlc', ''), ('sed', ''), ('nq', ''), ('fo', ''), ('ovf', ''), ('dh', ''),
              ('sh', ''), ('sh', 'sh-port'), ('sh', 'sh-fallback'), ('sh', 'sh-port,sh-fallback'),
              ('mh', ''), ('mh', 'mh-port'), ('mh', 'mh-fallback'), ('lblc', ''), ('lblcr', '')]
SETTINGS = {'expire_nodest_conn': (0, 1), 'expire_quiescent_template': (0, 1), 'conn_reuse_mode': (0, 1, 2, 3),
            'sloppy_tcp': (0, 1), 'secure_tcp': (0, 3)}
DEFAULTS = {'conn_reuse_mode': 1}
# Flags of the packets of a TCP client and of a server, the usual ones more often.
CLIENT_FLAGS = ['S', 'A', 'A', 'PA', 'PA', 'FA', 'FA', 'R', 'RA', 'SA', '']
SERVER_FLAGS = ['SA', 'SA', 'A', 'PA', 'FA', 'R', 'RA', 'S', '']
TOLERANCE = 3


def bracket(address):
    return f'[{address}]' if ':' in address else address


class Mismatch(Exception):
    pass


class Scenario:
    """Services, their destinations and flows, and the steps so far."""

    def __init__(self, kernel, rvs, seed, first_port):
        self.kernel, self.rvs = kernel, rvs
        self.random = random.Random(seed)
        self.six = self.random.random() < 0.4
        self.protocol = self.random.choice(['tcp', 'tcp', 'udp'])
        self.vip = lib.V6 if self.six else lib.V
        self.first_port = first_port
        self.services, self.flows, self.changed, self.steps = [], [], set(), []
        # The director's own answers pass connections that the kernel is about to forget, and RVS has forgotten (ARCHITECTURE.md,
        # "Ideal and reality"): whether one was counted there, and which were made to wait in CLOSE.
        self.answers_counted, self.revived = False, set()
        self.nodest = 0

    # What is compared.

    def both(self, command, of=None):
        """A command on both sides, which must end and print alike, as far as `of` tells."""
        self.steps.append(command)
        ours, theirs = self.rvs.sh(command), self.kernel.sh(command)
        of = of or listing
        if ours[0] != theirs[0] or of(ours[1]) != of(theirs[1]):
            raise Mismatch(f'kernel: {theirs[0]}\n{theirs[1]}{self.kernel.error()}\nRVS: {ours[0]}\n{ours[1]}{self.rvs.error()}')
        return theirs[0]

    def inject(self, packet, by_server=None):
        """A packet on both sides: the frames out, which must be equal."""
        self.steps.append(('client: ' if by_server is None else f'server {by_server}: ') + lib.ptxt(packet))
        theirs = self.kernel.inject(packet, by_server)
        ours = self.rvs.inject(packet, by_server)
        if [[plain(f) for f in frames] for frames in theirs] != [[plain(f) for f in frames] for frames in ours]:
            raise Mismatch(f'kernel: {text(theirs)}\nRVS:    {text(ours)}')
        self.steps.append('    ' + text(theirs))
        self.answers_counted |= self.protocol == 'tcp' and by_server is None and any(map(is_error, theirs[0]))
        return theirs

    def compare_tables(self):
        """Again after some seconds if they differ: what has expired goes at another moment on each side."""
        for wait in (1, 2, 0):
            try:
                return self.compare_tables_now()
            except Mismatch:
                if not wait:
                    raise
                time.sleep(wait)

    def compare_tables_now(self):
        theirs, ours = (self.connections(side) for side in (self.kernel, self.rvs))
        revived = [row for row in theirs if row[2] == 'CLOSE' and row[3:5] in self.revived and not_in(row, ours)]
        waiting = Counter(row[5] for row in revived)
        self.compare_counts(waiting)
        self.compare_templates(waiting)
        self.steps.append('ipvsadm -Lnc')
        theirs = [row for row in theirs if row not in revived]
        if len(theirs) != len(ours) or any(a[1:] != b[1:] or abs(a[0] - b[0]) > TOLERANCE for a, b in zip(theirs, ours)):
            raise Mismatch('connections:\n' + '\n'.join(f'  kernel {r}' for r in theirs if not_in(r, ours)) + '\n'
                           + '\n'.join(f'  RVS    {r}' for r in ours if not_in(r, theirs)))

    def compare_counts(self, revived):
        """The listing. Of a destination that came back the kernel still counts what was made to wait in CLOSE."""
        self.steps.append('ipvsadm -Ln')
        theirs, ours = (side.sh('ipvsadm -Ln') for side in (self.kernel, self.rvs))
        if theirs[0] != ours[0] or without_revived(listing(theirs[1]), listing(ours[1]), revived) != listing(ours[1]):
            raise Mismatch(f'kernel: {theirs[0]}\n{theirs[1]}RVS: {ours[0]}\n{ours[1]}revived: {dict(revived)}')

    def compare_templates(self, revived):
        """The listing with templates. For a destination that came back the kernel still counts those that had lost it, which it lists
        with port 65535 while they control connections (ARCHITECTURE.md, "Ideal and reality")."""
        command = 'ipvsadm -Ln --persistent-conn'
        self.steps.append(command)
        theirs, ours = (side.sh(command) for side in (self.kernel, self.rvs))
        ends = (line.split()[-1].rsplit(':', 1) for line in self.kernel.sh('ipvsadm -Lnc')[1].splitlines()[2:])
        lost = Counter(address for address, port in ends if port == '65535')
        if theirs[0] != ours[0] or not same_but_lost(without_revived(listing(theirs[1]), listing(ours[1]), revived), listing(ours[1]), lost):
            raise Mismatch(f'kernel: {theirs[0]}\n{theirs[1]}RVS: {ours[0]}\n{ours[1]}lost: {dict(lost)}')

    def connections(self, side):
        """Connections of this scenario: (seconds left, protocol, state, client, virtual, destination), sorted."""
        rows = []
        for line in side.sh('ipvsadm -Lnc')[1].splitlines()[2:]:
            protocol, left, state, *ends = line.split()
            if any(int(end.rsplit(':', 1)[1]) // 100 == self.first_port // 100 for end in ends[1:2]):
                minutes, seconds = left.split(':')
                rows.append((int(minutes) * 60 + int(seconds), protocol, state, *ends))
        return sorted(rows, key=lambda row: row[1:])

    def compare_stats(self):
        time.sleep(4.5)  # The kernel's counters lag behind by its estimator's period.
        self.both('ipvsadm -Ln --stats --exact', without_out if self.answers_counted else listing)

    # What is done.

    def play(self, length):
        for _ in range(self.random.randint(1, 2)):
            self.add_service()
        for _ in range(length):
            self.step()
        self.compare_tables()
        if self.random.random() < 0.3:
            self.compare_stats()

    def step(self):
        roll = self.random.random()
        if roll < 0.78:
            self.packet()
        elif roll < 0.82:
            self.icmp_error()
        elif roll < 0.87:
            self.compare_tables()
        elif roll < 0.89:
            self.setting()
        else:
            self.change()

    def add_service(self):
        pick = self.random
        port = self.first_port + len(self.services)
        scheduler, flags = pick.choice(SCHEDULERS)
        words = f'-s {scheduler}' + (f' -b {flags}' if flags else '')
        persistent = pick.random() < 0.25
        if persistent:
            words += f' -p {pick.choice([60, 300])}'
            if pick.random() < 0.5:
                words += f' -M {pick.choice([64, 112])}' if self.six else f' -M 255.255.{pick.choice([255, 0])}.0'
        one_packet = self.protocol == 'udp' and pick.random() < 0.15
        if one_packet:
            words += ' -o'
        service = dict(port=port, dests={}, direct={}, words=words, method=pick.choice('mmmgi'))
        service['name'] = f'-{self.protocol[0]} {bracket(self.vip)}:{port}'
        self.both(f'ipvsadm -A {service["name"]} {words}')
        self.services.append(service)
        for server in pick.sample(range(SERVERS), pick.randint(1, 5)):
            self.destination(service, 'a', server)

    def destination(self, service, command, server):
        pick = self.random
        method = service['method'] if pick.random() < 0.9 else pick.choice('mgi')
        # The kernel keeps one route for all connections of a destination. One that the other methods' connections looked up takes
        # directly routed packets to the virtual address itself, which nobody has (ARCHITECTURE.md, "Ideal and reality").
        direct = service['direct'].setdefault(server, method == 'g')
        if direct != (method == 'g'):
            method = 'g' if direct else 'm'
        port = pick.choice([8080, service['port']]) if command == 'a' else service['dests'][server]
        if method != 'm' and command == 'a':
            port = service['port']
        words = f'-r {bracket(lib.rs6(server) if self.six else lib.rs(server))}:{port} -{method} -w {pick.choice([0, 1, 1, 2, 3, 5])}'
        if pick.random() < 0.15:
            upper = pick.randint(2, 6)
            words += f' -x {upper} -y {pick.randint(0, upper - 1)}'
        if self.both(f'ipvsadm -{command} {service["name"]} {words}') == 0:
            service['dests'][server] = port

    def change(self):
        pick = self.random
        service = pick.choice(self.services)
        absent = [i for i in range(SERVERS) if i not in service['dests']]
        roll = pick.random()
        if roll < 0.3 and absent:
            self.destination(service, 'a', pick.choice(absent))
        elif roll < 0.6 and service['dests']:
            self.destination(service, 'e', pick.choice(sorted(service['dests'])))
        elif roll < 0.8 and service['dests']:
            server = pick.choice(sorted(service['dests']))
            port = service['dests'].pop(server)
            address = bracket(lib.rs6(server) if self.six else lib.rs(server))
            self.both(f'ipvsadm -d {service["name"]} -r {address}:{port}')
            # With expire_nodest_conn the kernel ends connections some milliseconds later.
            time.sleep(0.1)
        elif roll < 0.9:
            scheduler, flags = pick.choice(SCHEDULERS)
            words = re.sub(r'-s \S+( -b \S+)?', f'-s {scheduler}' + (f' -b {flags}' if flags else ''), service['words'])
            self.both(f'ipvsadm -E {service["name"]} {words}')
            service['words'] = words
        elif roll < 0.95:
            self.both(f'ipvsadm --set {pick.choice([100, 900])} {pick.choice([60, 120])} {pick.choice([100, 300])}')
        else:
            self.compare_stats()  # Zeroes what the kernel has got round to.
            self.both(f'ipvsadm -Z {service["name"]}')

    def setting(self):
        name = self.random.choice(sorted(SETTINGS))
        self.set(name, self.random.choice(SETTINGS[name]))
        self.changed.add(name)

    def set(self, name, value):
        self.steps.append(f'{name}={value}')
        self.kernel.sh(f'echo {value} > /proc/sys/net/ipv4/vs/{name}')
        self.rvs.sh(f'rvs sysctl {name}={value}')
        if name == 'expire_nodest_conn':
            self.nodest = value

    def client(self):
        number = self.random.randint(1, 24)
        if number < 4:
            return lib.C6 if self.six else lib.C
        return f'fd02::{number}' if self.six else f'10.2.{number % 3}.{number}'

    def transport(self, src, sport, dst, dport, flags):
        data = bytes(self.random.randrange(256) for _ in range(self.random.choice([0, 0, 1, 17, 100])))
        tos = self.random.choice([0, 0, 0, 2, 3, 0xb8])
        if self.protocol == 'udp':
            return lib.udp(src, sport, dst, dport, data, tos=tos)
        return lib.tcp(src, sport, dst, dport, flags, pl=data, tos=tos)

    def packet(self):
        pick = self.random
        flow = pick.choice(self.flows) if self.flows and pick.random() < 0.7 else None
        if flow and flow['server'] is not None and pick.random() < 0.4:
            return self.reply(flow)
        if not flow:
            service = pick.choice(self.services)
            flow = dict(client=self.client(), port=pick.randint(1024, 1100), service=service, server=None)
            self.flows.append(flow)
            flags = 'S' if pick.random() < 0.95 else pick.choice(CLIENT_FLAGS)
        else:
            flags = pick.choice(CLIENT_FLAGS)
        packet = self.transport(flow['client'], flow['port'], self.vip, flow['service']['port'], flags)
        to_client, to_server = self.inject(packet)
        if flags == 'S':
            # A connection in whose place another came counts in the kernel until a timer has run, a jiffy later.
            time.sleep(0.02)
        if self.nodest and any(map(is_reset, to_client)):
            self.answers_counted = True
            self.revived.add((f'{bracket(flow["client"])}:{flow["port"]}', f'{bracket(self.vip)}:{flow["service"]["port"]}'))
            # If the destination comes back in time, the kernel goes on with what waits there.
            self.flows.remove(flow)
        for frame in to_server:
            server = frame[5] - 11
            dst, port = destination(frame)
            if dst != self.vip and dst is not None:
                flow['server'], flow['target'] = server, (dst, port)

    def reply(self, flow):
        flags = self.random.choice(SERVER_FLAGS)
        packet = self.transport(*flow['target'], flow['client'], flow['port'], flags)
        self.inject(packet, flow['server'])

    def icmp_error(self):
        """The client, or a router there, complains about a reply."""
        if not self.flows:
            return
        flow = self.random.choice(self.flows)
        reply = self.transport(self.vip, flow['service']['port'], flow['client'], flow['port'], 'PA')
        kind = self.random.choice([(1, 4, 0), (3, 0, 0), (2, 0, 1300)] if self.six else [(3, 3, 0), (11, 0, 0), (3, 4, 1300)])
        self.inject(lib.icmp(flow['client'], self.vip, *kind, reply[:548]))

    def reset(self):
        """Puts the settings back."""
        for name in sorted(self.changed):
            self.set(name, DEFAULTS.get(name, 0))


def text(frames):
    return ' '.join(f'to the {where}: {lib.ftxt(frame)}' for where, some in zip(('client', 'server'), frames) for frame in some)


def listing(text):
    """A listing without the size of the connection table, which each side has of its own."""
    return re.sub('size=[0-9]+', '', text)


def without_out(text):
    """Counters without those of outgoing packets and bytes, the third and the last of five.

    The director's answer to a packet that ends a connection (`conn_reuse_mode`, `expire_nodest_conn`) leaves before the kernel's timer
    has taken the old one away: it is counted for that one."""
    return [words[:-3] + words[-2:-1] if len(words) > 5 else words for words in map(str.split, listing(text).splitlines())]


def is_error(frame):
    """Whether it is an ICMP error."""
    p = frame[14:]
    return p[9] == 1 and p[(p[0] & 15) * 4] in (3, 11, 12) if p[0] >> 4 == 4 else p[6] == 58 and p[40] < 128


def is_reset(frame):
    """Whether it is a TCP segment with RST."""
    p = frame[14:]
    return p[9] == 6 and p[(p[0] & 15) * 4 + 13] & 4 != 0 if p[0] >> 4 == 4 else p[6] == 6 and p[53] & 4 != 0


def same_but_lost(theirs, ours, lost):
    """Whether two listings of templates are the same, but for as many more in the kernel's as have `lost` that address."""
    theirs, ours = ([line.split() for line in text.splitlines()] for text in (theirs, ours))
    return len(theirs) == len(ours) and all(
        a == b or a[:1] == ['->'] and a[:3] + a[4:] == b[:3] + b[4:] and int(b[3]) < int(a[3]) <= int(b[3]) + lost[a[1].rsplit(':', 1)[0]]
        for a, b in zip(theirs, ours))


def without_revived(theirs, ours, revived):
    """The kernel's listing, without as many inactive connections of a destination as were revived, if RVS has not counted them."""
    lines = theirs.splitlines(keepends=True)
    for number, (a, b) in enumerate(zip(lines, ours.splitlines(keepends=True))):
        x, y = a.split(), b.split()
        if x[:1] == ['->'] and x[:-1] == y[:-1] and x != y and 0 < int(x[-1]) - int(y[-1]) <= revived[x[1]]:
            lines[number] = b
    return ''.join(lines)


def not_in(row, rows):
    return not any(row[1:] == other[1:] and abs(row[0] - other[0]) <= TOLERANCE for other in rows)


def destination(frame):
    """Address and port that a translated packet goes to; no address if it is in a tunnel."""
    p = frame[14:]
    if p[0] >> 4 == 4:
        if p[9] not in (6, 17):
            return None, 0
        header = (p[0] & 15) * 4
        return lib.socket.inet_ntoa(p[16:20]), p[header + 2] << 8 | p[header + 3]
    if p[6] not in (6, 17):
        return None, 0
    return lib.socket.inet_ntop(lib.socket.AF_INET6, p[24:40]), p[42] << 8 | p[43]


def plain(frame):
    """A frame without what no two hosts do alike: the identification and the flow label of packets that the director made itself."""
    p = frame[14:]
    if p[0] >> 4 == 6 and p[6] == 58:
        p = p[:1] + bytes([p[1] & 0xf0]) + b'\0\0' + p[4:]
    if p[0] >> 4 == 4 and p[9] in (1, 4, 41) and lib.csum(p[:(p[0] & 15) * 4]) == 0:
        p = p[:4] + b'\0\0' + p[6:10] + b'\0\0' + p[12:]
    return frame[:14] + p


def play(kernel, rvs, seed, first_port):
    """Plays a scenario and clears up: number of packets."""
    scenario = Scenario(kernel, rvs, seed, first_port)
    try:
        scenario.play(80)
    except Mismatch:
        print('\n'.join(scenario.steps), rvs.sh('rvs status')[1], sep='\n')
        scenario.reset()
        raise
    scenario.reset()
    scenario.both('ipvsadm --set 900 120 300')
    scenario.both('ipvsadm -C')
    return sum(1 for step in scenario.steps if step.startswith(('client:', 'server ')))


def main():
    seed, scenarios, seconds = (int(word) for word in sys.argv[1:4])
    run('modprobe ip_vs 2>/dev/null; chmod +x rvsd ipvsadm rvs; mkdir -p tools; ln -sf ../ipvsadm ../rvs tools/')
    kernel, rvs = Side('k'), Side('r', '/in/tools:')
    mode = sys.argv[4] if len(sys.argv) > 4 else 'tc'
    open('/run/rvsd.log', 'w').close()
    rvs.sh(f'/in/rvsd --socket /run/r.sock --pin /sys/fs/bpf/rvs --mode {mode} --connections 65536 >>/run/rvsd.log 2>&1 &')
    for _ in range(3000):
        if 'rvsd: ready' in open('/run/rvsd.log').read():
            break
        time.sleep(0.1)
    else:
        raise SystemExit(open('/run/rvsd.log').read())
    for side in (kernel, rvs):
        side.sh('ipvsadm -A -t 10.9.9.9:9 -s rr')  # Without any service ip_vs looks at no packet.
    os.sched_setaffinity(0, {0})  # See Side.inject.
    end, played, packets, again = time.monotonic() + seconds, 0, 0, 0
    while played < scenarios and time.monotonic() < end:
        this = seed + played
        try:
            packets += play(kernel, rvs, this, 10000 + this % 250 * 100)
        except Mismatch as first:
            again += 1
            print(f'scenario {this} differed, once more:\n{first}', flush=True)
            for side in (kernel, rvs):
                side.sh('ipvsadm -C; ipvsadm --set 900 120 300; ipvsadm -A -t 10.9.9.9:9 -s rr')
            try:
                packets += play(kernel, rvs, this, 35000 + this % 250 * 100)
            except Mismatch as mismatch:
                print(f'DIFFERENT in scenario {this} ({mode}):\n{mismatch}')
                for side, name in ((kernel, 'kernel'), (rvs, 'RVS')):
                    print(f'{name}: {side.sh("ipvsadm -Lnc")[1]}')
                raise SystemExit(1)
        played += 1
    print(f'parity: {played} scenarios from seed {seed}, {packets} packets, mode {mode}: no difference'
          + (f'; {again} differed and not again' if again else ''))


main()
