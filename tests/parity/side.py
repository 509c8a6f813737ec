"""A director with its two far ends: the kernel's IPVS, or RVS, each in namespaces of its own with the same addresses.

 client 10.0.0.2 ...  --  dc 10.0.0.1/24  director  dr 10.1.0.1/24  --  servers 10.1.0.11 ...
 fd00::2              --     fd00::1/64                fd01::1/64   --  fd01::11 ...

The far ends have no addresses: frames are crafted and captured there. What a frame causes is complete when a marker,
sent after it and routed plainly, has come out on the other side.
"""
import ctypes
import os
import select
import socket
import struct
import subprocess
import time

import lib

SERVERS = 8
MARK_CLIENT, MARK_SERVER, MARK_PORT = '10.0.0.200', '10.1.0.200', 9
LIBC = ctypes.CDLL(None, use_errno=True)


def run(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{command}: {done.stdout}{done.stderr}')


class Far:
    """A socket on the far end of one of the director's links."""

    def __init__(self, namespace, device):
        own, far = os.open('/proc/self/ns/net', 0), os.open('/run/netns/' + namespace, 0)
        LIBC.setns(far, 0x40000000)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((device, 3))
        LIBC.setns(own, 0x40000000)
        os.close(own)
        os.close(far)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)

    def receive(self, wait):
        """One frame that came in, or None."""
        while select.select([self.socket], [], [], wait)[0]:
            frame, address = self.socket.recvfrom(70000)
            outgoing = address[2] == 4
            if not outgoing and frame[12:14] in (b'\x08\0', b'\x86\xdd') and not multicast6(frame):
                return frame
        return None


def multicast6(frame):
    """Router solicitations, listener reports: what a host says unasked."""
    return frame[12:14] == b'\x86\xdd' and (frame[20] == 0 or frame[20] == 58 and 130 <= frame[54] <= 143)


class Side:
    """A director. `start` brings its load balancer up in the namespace; `tools` is put in front of PATH."""

    def __init__(self, name, tools=''):
        self.name = name
        self.build()
        self.client, self.server = Far(name + 'x', 'c'), Far(name + 'x', 'r')
        environment = dict(os.environ, PATH=tools + os.environ['PATH'], RVS_SOCKET=f'/run/{name}.sock')
        self.shell = subprocess.Popen(
            ['ip', 'netns', 'exec', name, 'bash'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.marks = 0

    def build(self):
        name, far = self.name, self.name + 'x'
        run(f'ip netns add {name}; ip netns add {far}; ip -n {name} link set lo up')
        for namespace in (name, far):
            run(f'ip netns exec {namespace} sh -c "cd /proc/sys/net/ipv6/conf; echo 1 >default/addr_gen_mode; '
                'echo 0 >all/accept_dad; echo 0 >default/accept_dad"')
        run(f'ip netns exec {far} sh -c "cd /proc/sys/net/ipv6/conf; echo 1 >all/disable_ipv6; echo 1 >default/disable_ipv6"')
        run(f'ip netns exec {name} sh -c "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding; '
            'echo 0 >ipv4/icmp_ratelimit; echo 0 >ipv6/icmp/ratelimit"')
        for near, end, near_mac, end_mac in (('dc', 'c', lib.MDC, lib.MC), ('dr', 'r', lib.MDR, '0200000000aa')):
            run(f'ip -n {name} link add {near} address {lib.mac(near_mac)} type veth peer name {end} address {lib.mac(end_mac)} netns {far};'
                f'ip -n {name} link set {near} up; ip -n {far} link set {end} up; ip -n {far} link set {end} arp off promisc on;'
                f'ip netns exec {name} ethtool -K {near} tx off rx off gso off gro off tso off;'
                f'ip netns exec {far} ethtool -K {end} tx off rx off gso off tso off gro on')
        batch = ['addr add 10.0.0.1/24 dev dc', 'addr add 10.1.0.1/24 dev dr', 'addr add 10.9.1.1/32 dev lo',
                 'addr add fd00::1/64 dev dc nodad', 'addr add fd01::1/64 dev dr nodad', 'addr add fd09::1/128 dev lo nodad']
        batch += [f'neigh add {a} lladdr {lib.mac(lib.MC)} dev dc nud permanent' for a in (lib.C, lib.C6, MARK_CLIENT)]
        batch += ['route add 10.2.0.0/16 via 10.0.0.2', 'route add fd02::/16 via fd00::2']
        batch += [f'neigh add {MARK_SERVER} lladdr {lib.mac(lib.rmac(90))} dev dr nud permanent']
        for i in range(SERVERS):
            batch += [f'neigh add {a} lladdr {lib.mac(lib.rmac(i))} dev dr nud permanent' for a in (lib.rs(i), lib.rs6(i))]
        subprocess.run(['ip', '-n', self.name, '-batch', '-'], input='\n'.join(batch) + '\n', text=True, check=True)

    def sh(self, command):
        """Exit status and output of a command in the director's namespace."""
        self.shell.stdin.write(f'{{ {command}\n}} </dev/null 2>/run/{self.name}.err; echo "|$?"\n')
        self.shell.stdin.flush()
        lines = []
        while True:
            line = self.shell.stdout.readline()
            if not line:
                raise SystemExit(f'{self.name}: the shell ended at: {command}')
            if line.startswith('|'):
                return int(line[1:]), ''.join(lines)
            lines.append(line)

    def error(self):
        """What the last command said on stderr."""
        return open(f'/run/{self.name}.err').read()

    def inject(self, packet, by_server=None):
        """Sends a packet from the client, or from a real server: the frames that come out of the director, (client's side, servers')."""
        near, far = (self.client, self.server) if by_server is None else (self.server, self.client)
        near.socket.send(lib.fromc(packet) if by_server is None else lib.fromr(packet, by_server))
        # A marker goes by the stack at once, what XDP sends waits for the end of its device's poll. The main program keeps to
        # one CPU, so that poll has ended when the first marker is read, and what it sent is ahead of the second.
        across = self.until_marker(near, far, by_server) + self.until_marker(near, far, by_server)
        back = []
        while (frame := near.receive(0)) is not None:
            back.append(frame)
        return (back, across) if by_server is None else (across, back)

    def until_marker(self, near, far, by_server):
        """Sends a marker: the frames that come out on the other side before it."""
        self.marks = self.marks % 60000 + 1
        mark = struct.pack('!H', self.marks)
        if by_server is None:
            near.socket.send(lib.fromc(lib.udp(MARK_CLIENT, MARK_PORT, MARK_SERVER, MARK_PORT, mark)))
        else:
            near.socket.send(lib.fromr(lib.udp(MARK_SERVER, MARK_PORT, MARK_CLIENT, MARK_PORT, mark), by_server))
        across, end = [], time.monotonic() + 5
        while True:
            frame = far.receive(max(0, end - time.monotonic()))
            if frame is None:
                raise SystemExit(f'{self.name}: no marker came through')
            if not marker(frame):
                across.append(frame)
            elif frame[42:44] == mark:
                return across


def marker(frame):
    """Whether a frame is a marker."""
    return frame[12:14] == b'\x08\0' and frame[23] == 17 and frame[34:38] == struct.pack('!HH', MARK_PORT, MARK_PORT) \
        and socket.inet_ntoa(frame[26:30]) in (MARK_CLIENT, MARK_SERVER)
