"""Runs in the oracle VM, in /in, where rvsd, ipvsadm and rvs are: services on VLANs, QinQ, a bridge, a bond, several NICs.

The director is the VM's own namespace. Its interfaces end in namespace `far`, whose VLAN devices are handed to `client` and
`rs`. Replies of direct routing and tunnels go by a link of their own."""
import os, subprocess, sys, time

from vm import rvsd, sh

VIP, VIP6 = '10.9.9.9', 'fd99::9'
SIZE = 3_000_000


def ends():
    sh('''for n in far client rs; do ip netns add $n; ip -n $n link set lo up
  for k in ipv4.conf.all.rp_filter=0 ipv4.conf.default.rp_filter=0 ipv6.conf.default.accept_dad=0; do ip netns exec $n sysctl -qw net.$k; done; done
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.forwarding=1
ip -n client link add direct type veth peer name direct netns rs
for n in client rs; do ip -n $n link set direct up; done
ip -n client addr add 10.0.7.2/24 dev direct; ip -n rs addr add 10.0.7.1/24 dev direct
ip -n client addr add fd07::2/64 dev direct; ip -n rs addr add fd07::1/64 dev direct
ip -n rs addr add 10.9.9.9/32 dev lo; ip -n rs addr add fd99::9/128 dev lo
ip netns exec rs sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip -n rs link set tunl0 up; ip -n rs link set ip6tnl0 up
ip netns exec rs sysctl -qw net.ipv4.conf.tunl0.rp_filter=0''')
    with open('/tmp/bulk', 'wb') as file:
        file.write(os.urandom(SIZE))
    # Of both families.
    subprocess.Popen(['ip', 'netns', 'exec', 'rs', 'python3', '-m', 'http.server', '80', '-d', '/tmp', '-b', '::'],
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.Popen(['ip', 'netns', 'exec', 'rs', 'python3', '-c', ECHO], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def veth(name):
    sh(f'ip link add {name} type veth peer name {name} netns far; ip link set {name} up; ip -n far link set {name} up')


def place(there, namespace, here, number):
    """Addresses for the director's device `here` and the far device `there`, which moves to `namespace` as eth0."""
    sh(f'''ip -n far link set {there} netns {namespace} name eth0; ip -n {namespace} link set eth0 up; ip link set {here} up
ip addr add 10.0.{number}.1/24 dev {here}; ip addr add fd00:{number}::1/64 dev {here}
ip -n {namespace} addr add 10.0.{number}.2/24 dev eth0; ip -n {namespace} addr add fd00:{number}::2/64 dev eth0''')


def vlan(namespace, parent, number, protocol='802.1Q'):
    where = f'-n {namespace}' if namespace else ''
    sh(f'ip {where} link add link {parent} name {parent}.{number} type vlan id {number} protocol {protocol}; ip {where} link set {parent}.{number} up')
    return f'{parent}.{number}'


def vlans(parent, *numbers, protocol='802.1Q'):
    for number in numbers:
        vlan(None, parent, number, protocol)
        vlan('far', parent, number, protocol)


def scene(name):
    """Makes the devices of a scene: the director's and the far one towards the client, and the same towards the server."""
    if name == 'vlan':
        veth('eth0'); vlans('eth0', 100, 200)
        return ('eth0.100', 'eth0.100'), ('eth0.200', 'eth0.200')
    if name == 'qinq':
        veth('eth0'); vlans('eth0', 300, protocol='802.1ad'); vlans('eth0.300', 30, 40)
        return ('eth0.300.30',) * 2, ('eth0.300.40',) * 2
    if name == 'from a vlan to a nic':
        veth('eth0'); veth('eth1'); vlans('eth0', 100)
        return ('eth0.100',) * 2, ('eth1',) * 2
    if name == 'two nics':
        veth('eth0'); veth('eth1')
        return ('eth0',) * 2, ('eth1',) * 2
    if name == 'bridge':
        veth('eth0'); veth('eth1'); vlans('eth1', 200)
        sh('ip link add br0 type bridge; ip link set eth0 master br0; ip link set br0 up')
        return ('br0', 'eth0'), ('eth1.200',) * 2
    veth('eth0'); veth('eth1')
    sh('ip link set eth1 down; ip link add bond0 type bond mode active-backup miimon 100; ip link set eth1 master bond0; ip link set bond0 up')
    vlan(None, 'bond0', 200); vlan('far', 'eth1', 200)
    return ('eth0',) * 2, ('bond0.200', 'eth1.200')


def clear():
    for line in ('for n in client rs; do ip -n $n link del eth0; done', 'for d in bond0 br0 eth0 eth1; do ip link del $d; done'):
        sh(line, check=False)


def fetch(vip):
    line = f'ip netns exec client curl -gsS --connect-timeout 8 --max-time 25 -o /tmp/got http://{vip}/bulk && cmp /tmp/bulk /tmp/got && echo whole'
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip() or 'nothing'


ECHO = '''import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 7))
while True: s.sendto(*s.recvfrom(65536))'''


def fragments(vip, device):
    """What fragments.py says of a datagram for `vip` whose fragments arrive at `device` in reverse."""
    mac = open(f'/sys/class/net/{device}/address').read().strip()
    source = 'fd00:1::2' if ':' in vip else '10.0.1.2'
    line = f'ip netns exec client python3 fragments.py echo {source} {vip} 7 8192 reversed {mac}'
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def play(name, mode):
    (here_c, there_c), (here_s, there_s) = scene(name)
    place(there_c, 'client', here_c, 1)
    place(there_s, 'rs', here_s, 2)
    sh(f'''ip addr add {VIP}/32 dev {here_c}; ip addr add {VIP6}/128 dev {here_c}
ip -n client route add {VIP} via 10.0.1.1; ip -n client -6 route add {VIP6} via fd00:1::1''')
    for _ in range(300):
        attached = sh('bpftool net show')
        if all(f'{device}(' in attached for device in (here_c, here_s)):
            break
        time.sleep(0.1)
    else:
        sys.exit(f'{name}: {attached}{open("/run/rvsd.log").read()}')
    for method, option in (('NAT', '-m'), ('DR', '-g'), ('TUN', '-i')):
        # The way back: by the director, or past it.
        by, by6 = ('10.0.2.1', 'fd00:2::1') if method == 'NAT' else ('10.0.7.2', 'fd07::2')
        sh(f'ip -n rs route replace 10.0.1.0/24 via {by}; ip -n rs -6 route replace fd00:1::/64 via {by6}')
        for vip, server in ((VIP, '10.0.2.2'), (f'[{VIP6}]', '[fd00:2::2]')):
            sh(f'./ipvsadm -A -t {vip}:80 -s rr; ./ipvsadm -a -t {vip}:80 -r {server}:80 {option}')
            print(f'{name}, {mode}, {method}, {"IPv6" if "[" in vip else "IPv4"}: {fetch(vip)}', flush=True)
            sh(f'./ipvsadm -D -t {vip}:80')
            if method == 'NAT':
                sh(f'./ipvsadm -A -u {vip}:7 -s rr; ./ipvsadm -a -u {vip}:7 -r {server}:7 -m')
                said = fragments(vip.strip('[]'), here_c)
                print(f'{name}, {mode}, fragments, {"IPv6" if "[" in vip else "IPv4"}: {said}', flush=True)
                sh(f'./ipvsadm -D -u {vip}:7')
    if name == 'vlan':
        # A VLAN that the director is not in any more: no connection comes about.
        sh('./ipvsadm -A -t 10.9.9.9:81 -s rr; ./ipvsadm -a -t 10.9.9.9:81 -r 10.0.2.2:81 -m; ip link del eth0.100')
        fetch(f'{VIP}:81')
        print(f'{name}, {mode}, of no VLAN of the director: {sh("./ipvsadm -Lnc").count(":81")} connections', flush=True)
        sh('./ipvsadm -C')
    clear()


sh('chmod +x rvsd ipvsadm rvs; mkdir -p /run/rvs; mount -t bpf bpf /sys/fs/bpf 2>/dev/null; modprobe 8021q; modprobe bonding; modprobe ipip; modprobe ip6_tunnel; ip link set lo up', check=False)
print('Linux', os.uname().release, flush=True)
ends()
time.sleep(1)
# Interfaces that were named come back under their names, with VLANs.
veth('eth0'); veth('eth1')
director = rvsd('eth0', 'eth1', mode='xdp')
clear()
for name in ('vlan', 'qinq', 'from a vlan to a nic'):
    play(name, 'xdp')
director.terminate(); director.wait()
sh('./rvs down', check=False)
rvsd(mode='tc')
for name in ('vlan', 'qinq', 'from a vlan to a nic', 'two nics', 'bridge', 'bond'):
    play(name, 'tc')
