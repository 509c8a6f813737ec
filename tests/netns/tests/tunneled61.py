"""Runs in the oracle VM, in /in, where rvsd, ipvsadm and rvs are: which decapsulated packets are balanced, with and without
`ignore_tunneled`, first by the kernel's IPVS, then by rvsd.

 client 10.0.1.2 -- 10.0.1.1 director 10.0.2.1 -- rs 10.0.2.2
   and by tunnels between the same two: 10.50.N.2 -- 10.50.N.1, which is the way to 10.9.9.9"""
import socket, sys, time
from vm import inside, rvsd, sh

VIP, SERVER = '10.9.9.9', '10.0.2.2'
# Kind of device, its options at the client's and the director's end.
ENDS = 'local 10.0.1.2 remote 10.0.1.1', 'local 10.0.1.1 remote 10.0.1.2'
FOU = 'encap fou encap-sport 7777 encap-dport 7777'
DEVICES = {
    'none': None,
    'ipip': ('ipip', ''),
    'gre': ('gre', ''),
    'gretap': ('gretap', ''),
    'gretap by UDP': ('gretap', 'key 9 ' + FOU),
}


def network():
    for module in 'ipip ip_gre fou ip_vs ip_vs_rr'.split():
        sh('modprobe ' + module)
    sh('''ip netns add client; ip netns add rs
for k in ipv4.conf.all.rp_filter=0 ipv4.conf.default.rp_filter=0 ipv4.ip_forward=1; do sysctl -qw net.$k; done
for n in client rs; do ip -n $n link set lo up; ip netns exec $n sysctl -qw net.ipv4.conf.all.rp_filter=0; done
ip link set lo up
ip link add v-client type veth peer name eth0 netns client; ip link add v-rs type veth peer name eth0 netns rs
for d in v-client v-rs; do ip link set $d up; done; for n in client rs; do ip -n $n link set eth0 up; done
ip addr add 10.0.1.1/24 dev v-client; ip addr add 10.0.2.1/24 dev v-rs; ip addr add 10.9.9.9/32 dev lo
ip -n client addr add 10.0.1.2/24 dev eth0; ip -n client route add default via 10.0.1.1
ip -n rs addr add 10.0.2.2/24 dev eth0; ip -n rs route add default via 10.0.2.1''')
    sh('ip fou add port 7777 ipproto 47; ip -n client fou add port 7777 ipproto 47')
    for number, (name, device) in enumerate(DEVICES.items()):
        if device is None:
            continue
        kind, options = device
        for namespace, end, host in (('-n client', ENDS[0], 2), ('', ENDS[1], 1)):
            sh(f'ip {namespace} link add tun{number} type {kind} {end} {options}')
            sh(f'ip {namespace} addr add 10.50.{number}.{host}/24 dev tun{number}; ip {namespace} link set tun{number} up')


def ask(number, port):
    """A datagram to the virtual address by the tunnel with this number; what came back."""
    way = f'via 10.50.{number}.1 src 10.50.{number}.2' if number else 'via 10.0.1.1'
    sh(f'ip -n client route replace {VIP} {way}')
    sock = inside('client', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind(('0.0.0.0', port))
    sock.settimeout(5)
    sock.connect((VIP, 53))
    try:
        sock.send(b'who')
        return sock.recv(100).decode()
    except ConnectionRefusedError:
        return 'the host'
    except OSError as error:
        return str(error)


def look(who, set_):
    for setting in (0, 1, 0):
        set_(setting)
        time.sleep(1)
        for number, name in enumerate(DEVICES):
            look.port += 1
            print(f'{who}, ignore_tunneled {setting}: {name}: {ask(number, look.port)}', flush=True)


look.port = 4000


def server():
    import threading
    sock = inside('rs', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((SERVER, 53))

    def serve():
        while True:
            _, peer = sock.recvfrom(100)
            sock.sendto(b'server', peer)
    threading.Thread(target=serve, daemon=True).start()


def rules(program):
    sh(f'{program} -A -u {VIP}:53 -s rr; {program} -a -u {VIP}:53 -r {SERVER}:53 -m')


print(sh('uname -sr'), end='')
network()
server()
rules('/sbin/ipvsadm')
look('kernel', lambda value: sh(f'sysctl -qw net.ipv4.vs.ignore_tunneled={value}'))
sh('/sbin/ipvsadm -C')
daemon = rvsd()
rules('./ipvsadm')
look('rvsd', lambda value: sh(f'./rvs sysctl ignore_tunneled={value}', check=False))
print(open('/run/rvsd.log').read())
daemon.terminate()
daemon.wait()
